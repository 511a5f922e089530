//! What was found after the run: the history, and what every region shows.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anabranch_client::wire::FingerprintResponse;
use anabranch_client::{Context, Dot, Event, EventId, Order, Origin, Place, Stamp};
use anabranch_core::event::category;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::content::{self, Mark};
use crate::op::History;
use crate::said::Said;
use crate::shape;
use crate::text;

/// An event as a region shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Its identity.
    #[serde(with = "text")]
    pub dot: Dot,
    /// The id its client gave it, or that its metadata say; see [`shape::name`].
    #[serde(with = "text")]
    pub id: EventId,
    /// Its stream.
    pub stream: String,
    /// Its revision in the stream, in the region it was read in.
    pub revision: u64,
    /// Its stamp.
    #[serde(with = "text")]
    pub stamp: Stamp,
    /// Its position in the order it was read in.
    pub place: u64,
    /// What it says of its append; none if that is not to be read.
    #[serde(with = "text::option")]
    pub mark: Option<Mark>,
    /// Whether type and payload are those that belong to its id and mark.
    pub intact: bool,
    /// What it tells the store, if the store itself reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub says: Option<Said>,
}

impl From<Event> for Seen {
    fn from(event: Event) -> Self {
        let mark = event.metadata.get(content::MARK).and_then(|text| Mark::parse(text));
        let id = shape::name(event.id(), &event.metadata);
        let says = Said::of(id, &event.kind, &event.payload);
        let intact = mark.is_some_and(|mark| {
            let content =
                event.kind == shape::kind(id) && event.payload == content::payload(id, mark.size);
            (content || says.is_some()) && event.metadata == shape::metadata(id, &mark)
        });
        let place = match event.place {
            Place::Regional(place) | Place::Global(place) => place,
        };
        let Event { dot, stream, revision, stamp, .. } = event;
        Self { dot, id, stream, revision, stamp, place, mark, intact, says }
    }
}

/// All events of a region, in both orders.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegionRead {
    /// The origin that the region writes under. If it is not known, the one that bears its name and
    /// comes last in its log is taken for it.
    pub own: Option<Origin>,
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
    /// The origin that the region writes under; none if it wrote nothing.
    pub fn own(&self, region: &str) -> Option<&Origin> {
        let mut backwards = self.regional.iter().rev().map(|seen| &seen.dot.origin);
        let found = || backwards.find(|origin| origin.region.as_str() == region);
        self.own.as_ref().or_else(found)
    }
}

/// What a node holds, as hashes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Print {
    /// What it holds.
    #[serde(with = "text")]
    pub frontier: Context,
    /// Number of streams.
    pub streams: u64,
    /// Number of events.
    pub events: u64,
    /// Sums over the events of the streams of each bucket.
    #[serde(with = "text::list")]
    pub buckets: Vec<Bytes>,
    /// Chain hash of each origin at its last event.
    #[serde(with = "text::chains")]
    pub chains: BTreeMap<Origin, (u64, Bytes)>,
    /// Up to where the global order is final.
    pub global_position: u64,
    /// Hash over the global order up to there.
    #[serde(with = "text")]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscribed {
    /// Who.
    pub name: String,
    /// In which order.
    #[serde(with = "text")]
    pub order: Order,
    /// The category it follows; everything if none.
    pub category: Option<String>,
    /// Whether it ran until it was to have everything. One that ended early may lack the newest.
    pub complete: bool,
    /// Position and identity, in the order of delivery. Regional positions change with the region.
    #[serde(with = "text::deliveries")]
    pub events: Vec<(u64, Dot)>,
    /// What it was given after it had kept its cursor last and before it was killed: it was given
    /// these again.
    #[serde(with = "text::deliveries")]
    pub forgotten: Vec<(u64, Dot)>,
    /// How often it moved to another region with its cursor.
    pub moves: u32,
    /// Errors that a subscription should not meet.
    pub problems: Vec<String>,
}

impl Subscribed {
    /// Whether events of this stream are for it.
    pub fn wants(&self, stream: &str) -> bool {
        let Some(category) = &self.category else { return true };
        stream == category
            || stream.strip_prefix(category.as_str()).is_some_and(|rest| rest.starts_with('-'))
    }
}

/// A node that ended by itself or panicked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Death {
    /// The node's name.
    pub node: String,
    /// What it left behind: exit code, panic message.
    pub why: String,
    /// The fault that made it do so, if it was to: a failed fsync, say.
    pub excuse: Option<String>,
}

/// How the regions came back after the last fault was healed. All times count from then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// How long it may take.
    #[serde(with = "text")]
    pub within: Duration,
    /// When each region that should come back acknowledged its first append; none if it never did.
    #[serde(with = "text::durations")]
    pub served: BTreeMap<String, Option<Duration>>,
    /// When all nodes agreed; none if they never did.
    #[serde(with = "text::option")]
    pub agreed: Option<Duration>,
    /// What stood in the way of agreement.
    pub not_converged: Vec<String>,
}

/// What was done to the regions that changes what is promised. Nothing, by default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expectations {
    /// Regions that were lost for good. What only they held is gone; the others go on, and their
    /// global order waits.
    pub lost: BTreeSet<String>,
    /// Regions whose every disk was lost, and that began anew under the same name.
    pub rebuilt: BTreeSet<String>,
    /// Whose clocks were right all the time, if that is known.
    pub right_clocks: Option<RightClocks>,
}

/// Regions on whose nodes the wall clock was right from beginning to end.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RightClocks {
    /// The time when the run began, in Unix milliseconds.
    pub began_unix_ms: u64,
    /// The regions: a majority of all, or none of it says anything.
    pub regions: BTreeSet<String>,
}

impl Expectations {
    /// Regions that forgot what they held.
    pub fn forgetful(&self) -> BTreeSet<&str> {
        self.lost.iter().chain(&self.rebuilt).map(String::as_str).collect()
    }
}

/// What a node says of its global order, all in one answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blame {
    /// Events that it holds.
    pub events: u64,
    /// Events that are final there.
    pub ordered: u64,
    /// Regions that it says the order waits for.
    pub blocked_by: BTreeSet<String>,
}

impl Blame {
    /// Whether that is what a node should say while the regions `lost` are lost: whoever has events
    /// that are not final names lost regions and no other; whoever has not names nobody.
    pub fn is_just(&self, lost: &BTreeSet<String>) -> bool {
        match self.ordered >= self.events {
            true => self.blocked_by.is_empty(),
            false => !self.blocked_by.is_empty() && self.blocked_by.is_subset(lost),
        }
    }
}

/// A part of a region's events that was asked for by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selection {
    /// The region that was asked.
    pub region: String,
    /// For what.
    pub part: Part,
    /// In which order.
    #[serde(with = "text")]
    pub order: Order,
    /// Whether from the end to the start.
    pub backwards: bool,
    /// What it showed.
    #[serde(with = "text::list")]
    pub shown: Vec<Dot>,
}

/// Which events of a region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// Those of this stream.
    Stream(String),
    /// Those of streams of this category.
    Category(String),
    /// Those of streams whose names begin like this.
    Prefix(String),
}

impl Part {
    /// Whether it holds the events of `stream`.
    pub fn holds(&self, stream: &str) -> bool {
        match self {
            Self::Stream(name) => stream == name,
            Self::Category(name) => category(stream) == name,
            Self::Prefix(start) => stream.starts_with(start.as_str()),
        }
    }
}

/// What a node serves of a category's aggregates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Served {
    /// The node.
    pub node: String,
    /// Its region.
    pub region: String,
    /// The category.
    pub category: String,
    /// All of them; none if it knows no definition.
    pub aggregates: Option<Vec<ServedAggregate>>,
}

/// An aggregate as it is served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServedAggregate {
    /// Its stream.
    pub stream: String,
    /// Version of the definition.
    pub version: u32,
    /// Its fields, as JSON with sorted keys.
    pub value: String,
}

/// The conflicts that a node lists in one order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// The node.
    pub node: String,
    /// Its region.
    pub region: String,
    /// In which order.
    #[serde(with = "text")]
    pub order: Order,
    /// All of them.
    pub conflicts: Vec<ListedConflict>,
}

/// A conflict as it is listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedConflict {
    /// Its name.
    pub id: String,
    /// Place of its first event.
    pub position: u64,
    /// The stream.
    pub stream: String,
    /// The events that came second.
    pub events: ListedRun,
    /// Those that came first.
    pub against: Vec<ListedRun>,
}

/// Of one stream, all events of an origin from one to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedRun {
    /// The first.
    #[serde(with = "text")]
    pub first: Dot,
    /// Number of the last.
    pub last: u64,
    /// How many.
    pub events: u64,
}

/// Everything the checks look at.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// What clients were told.
    pub history: History,
    /// What each region shows in the end. Regions that were lost for good are absent.
    pub regions: BTreeMap<String, RegionRead>,
    /// Parts of it, asked for by themselves.
    pub selections: Vec<Selection>,
    /// What nodes serve of aggregates in the end.
    pub served: Vec<Served>,
    /// What nodes list of conflicts in the end.
    pub listed: Vec<Listed>,
    /// What regions showed before they were lost, if somebody read them.
    pub before_loss: BTreeMap<String, RegionRead>,
    /// What each node holds in the end.
    pub prints: BTreeMap<String, Print>,
    /// How far each node's global order has come in the end, and whom it waits for.
    pub blames: BTreeMap<String, Blame>,
    /// What subscribers were given.
    pub subscribed: Vec<Subscribed>,
    /// Nodes that ended by themselves or panicked.
    pub deaths: Vec<Death>,
    /// How the regions came back.
    pub recovery: Option<Recovery>,
    /// What is promised.
    pub expectations: Expectations,
}
