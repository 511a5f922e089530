//! What was found after the run: the ledger, and what every region shows.

use std::collections::BTreeMap;

use anabranch_client::wire::FingerprintResponse;
use anabranch_client::{Context, Dot, Event, EventId, Order, Origin, Place, Stamp};
use bytes::Bytes;

use crate::content;
use crate::history::History;

/// An event as a region shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its identity.
    pub dot: Dot,
    /// The id its client gave it.
    pub id: EventId,
    /// Its stream.
    pub stream: String,
    /// Its revision in the stream, in the region it was read in.
    pub revision: u64,
    /// Its stamp.
    pub stamp: Stamp,
    /// Its position in the order it was read in.
    pub place: u64,
    /// Its place among what its producer sent, as its metadata say; see [`content::mark`].
    pub producer: String,
    /// Whether type and payload are those that were written under this id.
    pub intact: bool,
}

impl From<Event> for Seen {
    fn from(event: Event) -> Self {
        let intact = event.kind == content::KIND && event.payload == content::payload(event.id);
        let place = match event.place {
            Place::Regional(place) | Place::Global(place) => place,
        };
        let producer = event.metadata.get("producer").cloned().unwrap_or_default();
        let Event { dot, id, stream, revision, stamp, .. } = event;
        Self { dot, id, stream, revision, stamp, place, producer, intact }
    }
}

/// All events of a region, in both orders.
#[derive(Debug, Clone, Default)]
pub struct RegionRead {
    /// In regional order.
    pub regional: Vec<Seen>,
    /// In global order.
    pub global: Vec<Seen>,
}

impl RegionRead {
    /// Both orders, with their names.
    pub fn orders(&self) -> [(&'static str, &[Seen]); 2] {
        [("regional", &self.regional), ("global", &self.global)]
    }
}

/// What a node holds, as hashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Print {
    /// What it holds.
    pub frontier: Context,
    /// Number of streams.
    pub streams: u64,
    /// Number of events.
    pub events: u64,
    /// Sums over the events of the streams of each bucket.
    pub buckets: Vec<Bytes>,
    /// Chain hash of each origin at its last event.
    pub chains: BTreeMap<Origin, (u64, Bytes)>,
    /// Up to where the global order is final.
    pub global_position: u64,
    /// Hash over the global order up to there.
    pub global_chain: Bytes,
}

impl TryFrom<FingerprintResponse> for Print {
    type Error = anyhow::Error;

    fn try_from(wire: FingerprintResponse) -> anyhow::Result<Self> {
        let mut chains = BTreeMap::new();
        for chain in wire.chains {
            let origin =
                chain.origin.ok_or_else(|| anyhow::anyhow!("a chain without an origin"))?;
            chains.insert(origin.try_into()?, (chain.seq, chain.chain));
        }
        let frontier = wire.frontier.ok_or_else(|| anyhow::anyhow!("no frontier"))?;
        Ok(Self {
            frontier: frontier.try_into()?,
            streams: wire.streams,
            events: wire.events,
            buckets: wire.buckets,
            chains,
            global_position: wire.global_position,
            global_chain: wire.global_chain,
        })
    }
}

/// What a subscriber that ran all the time was given.
#[derive(Debug, Clone)]
pub struct Subscribed {
    /// Who.
    pub name: String,
    /// In which order.
    pub order: Order,
    /// Position and identity, in the order of delivery. Regional positions change with the region.
    pub events: Vec<(u64, Dot)>,
    /// How often it moved to another region with its cursor.
    pub moves: u32,
    /// Errors that a subscription should not meet.
    pub problems: Vec<String>,
}

/// Everything the checks look at.
#[derive(Debug, Default)]
pub struct Evidence {
    /// What clients were told.
    pub history: History,
    /// What each region shows.
    pub regions: BTreeMap<String, RegionRead>,
    /// What each node holds.
    pub prints: BTreeMap<String, Print>,
    /// What subscribers were given.
    pub subscribed: Vec<Subscribed>,
    /// Nodes that ended by themselves or panicked.
    pub deaths: Vec<String>,
    /// What stood in the way of convergence; empty if it came in time.
    pub not_converged: Vec<String>,
}
