//! Random histories and a naive model of them, for tests.

use std::collections::BTreeMap;
use std::sync::Arc;

use anabranch_core::command::PlacedGroup;
use anabranch_core::event::{Event, Request};
use anabranch_core::group::GroupHeader;
use anabranch_core::stamp::EPOCH_UNIX_MS;
use anabranch_core::{
    Chain, Command, Context, Digest, Group, Incarnation, Origin, RegionName, Seq, ShardId, Stamp,
};
use bytes::Bytes;

/// SplitMix64: small, seeded, the same everywhere.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

pub(crate) fn origin(region: &str) -> Origin {
    let region = RegionName::new(region).unwrap();
    Origin { region, incarnation: Incarnation(7), shard: ShardId(0) }
}

/// One entry of a log.
#[derive(Clone)]
pub(crate) enum Entry {
    /// Raft's own.
    Blank,
    Accepted(Arc<Command>),
    /// In the log, but without effect.
    Refused(Arc<Command>),
}

/// What the model knows of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) position: u64,
    pub(crate) entry: u64,
    pub(crate) stream: String,
    pub(crate) revision: u64,
    pub(crate) origin: Origin,
    pub(crate) seq: Seq,
    pub(crate) stamp: Stamp,
    pub(crate) payload: Bytes,
}

/// A log as it may have come about, and all that is in it.
pub(crate) struct History {
    rng: Rng,
    /// Entry `n` is at `n - 1`.
    pub(crate) entries: Vec<Entry>,
    pub(crate) known: Vec<Known>,
    pub(crate) groups: Vec<(u64, Group)>,
    held: Context,
    chains: BTreeMap<Origin, (Chain, Stamp)>,
    revisions: BTreeMap<String, u64>,
    last: Stamp,
}

pub(crate) const REGIONS: [&str; 3] = ["asia", "eu", "us"];
const HOME: usize = 1;

impl History {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            rng: Rng(seed),
            entries: Vec::new(),
            known: Vec::new(),
            groups: Vec::new(),
            held: Context::new(),
            chains: BTreeMap::new(),
            revisions: BTreeMap::new(),
            last: Stamp::from_unix_ms(EPOCH_UNIX_MS + 1_000_000),
        }
    }

    pub(crate) fn with_entries(seed: u64, count: usize) -> Self {
        let mut history = Self::new(seed);
        (0..count).for_each(|_| history.step());
        history
    }

    /// The stream names in use.
    pub(crate) fn streams() -> Vec<String> {
        let of =
            |category: &str| (0..5).map(move |n| format!("{category}-{n}")).collect::<Vec<_>>();
        [of("cart"), of("order"), vec!["plain".into(), "cart".into()]].concat()
    }

    /// Adds one entry.
    pub(crate) fn step(&mut self) {
        let entry = match self.rng.below(20) {
            0 => Entry::Blank,
            1 | 2 => self.refused(),
            3 | 4 => {
                self.last = Stamp(self.last.0 + 1 + self.rng.below(9 << 22));
                Entry::Accepted(Arc::new(Command::Close { stamp: self.last }))
            }
            5..9 => {
                let count = self.rng.below(4);
                self.import(count)
            }
            _ => {
                let position = self.known.len() as u64;
                let placed = self.group(HOME);
                Entry::Accepted(Arc::new(Command::Local { position, placed }))
            }
        };
        self.entries.push(entry);
    }

    fn import(&mut self, groups: u64) -> Entry {
        let position = self.known.len() as u64;
        let mut placed = Vec::new();
        for _ in 0..groups {
            let region = if self.rng.below(2) == 0 { 0 } else { 2 };
            placed.push(self.group(region));
        }
        Entry::Accepted(Arc::new(Command::Import { position, groups: placed, digests: vec![] }))
    }

    /// Commands that were proposed on another view of the log: old ones again, and new ones that skip
    /// something, come too late in time, or know what is not there.
    fn refused(&mut self) -> Entry {
        let old: Vec<Arc<Command>> = self
            .entries
            .iter()
            .filter_map(|entry| match entry {
                Entry::Accepted(command) if command.position().is_some() => Some(command.clone()),
                _ => None,
            })
            .collect();
        if old.is_empty() {
            return Entry::Blank;
        }
        let kind = self.rng.below(7);
        if kind >= 5 {
            return self.refused_import(kind == 5);
        }
        let mut header = self.header(HOME, 1);
        let mut position = self.known.len() as u64;
        match kind {
            0 => return Entry::Refused(old[self.rng.below(old.len() as u64) as usize].clone()),
            1 => position += 1,
            2 => header.prev = Chain([9; 16]),
            3 => header.stamp = self.last,
            _ => header.context.advance(&origin("us"), Seq(1 << 40)),
        }
        let group = Group::build(header, &[self.request(1)]);
        let placed = PlacedGroup { group, revisions: vec![0] };
        Entry::Refused(Arc::new(Command::Local { position, placed }))
    }

    /// An import whose context is not held, or with a digest of events that are not.
    fn refused_import(&mut self, beyond_context: bool) -> Entry {
        let us = origin("us");
        let mut header = self.header(2, 1);
        let stamp = header.stamp;
        let mut ahead = Context::new();
        ahead.advance(&us, header.first.next());
        if beyond_context {
            header.context.advance(&origin("asia"), Seq(1 << 40));
            ahead = Context::new();
        }
        let group = Group::build(header, &[self.request(1)]);
        let groups = vec![PlacedGroup { group, revisions: vec![0] }];
        let digests = vec![Digest { origin: us, stamp, frontier: ahead }];
        let position = self.known.len() as u64;
        Entry::Refused(Arc::new(Command::Import { position, groups, digests }))
    }

    fn header(&mut self, region: usize, events: u32) -> GroupHeader {
        let origin = origin(REGIONS[region]);
        let (prev, own) = self.chains.get(&origin).copied().unwrap_or((Chain::START, self.last));
        let step = 1 + self.rng.below(20 << 22);
        let stamp = if region == HOME { self.last.0 } else { own.0 } + step;
        GroupHeader {
            first: self.held.seq(&origin).next(),
            events,
            stamp: Stamp(stamp),
            context: self.held.without(&origin),
            prev,
            origin,
        }
    }

    fn request(&mut self, events: u32) -> Request {
        let streams = Self::streams();
        let mut event = || {
            let stream = streams[self.rng.below(streams.len() as u64) as usize].clone();
            Event {
                stream,
                id: None,
                kind: ["Added", "Removed"][self.rng.below(2) as usize].into(),
                metadata: BTreeMap::new(),
                payload: Bytes::from(vec![b'x'; self.rng.below(60) as usize]),
            }
        };
        Request { producer: None, events: (0..events).map(|_| event()).collect() }
    }

    fn group(&mut self, region: usize) -> PlacedGroup {
        let events = 1 + self.rng.below(5) as u32;
        let header = self.header(region, events);
        let request = self.request(events);
        let group = Group::build(header, &[request]);
        let entry = self.entries.len() as u64 + 1;
        let mut revisions = Vec::new();
        for event in group.events() {
            let next = self.revisions.entry(event.stream.to_string()).or_default();
            self.known.push(Known {
                position: self.known.len() as u64,
                entry,
                stream: event.stream.to_string(),
                revision: *next,
                origin: group.origin().clone(),
                seq: event.seq,
                stamp: group.stamp(),
                payload: event.payload.clone(),
            });
            revisions.push(*next);
            *next += 1;
        }
        self.held.advance(group.origin(), group.last());
        self.chains.insert(group.origin().clone(), (group.chain(), group.stamp()));
        self.last = self.last.max(group.stamp());
        self.groups.push((entry, group.clone()));
        PlacedGroup { group, revisions }
    }
}
