//! The global order: one order of all events, the same in every region.
//!
//! It is the merge of the origins by (stamp, origin, seq), up to what is *final*: stamped at or below
//! every member's watermark, so nothing can still come before it, and held by a majority of members,
//! so no region that is removed later can have shown another order. Groups keep together: their
//! events share one stamp.
//!
//! Each origin is dense and in stamp order already, so this is a k-way merge over the origins, and
//! the global position of a cut is the sum of its seqs. No second log, no coordination.

use std::collections::{BTreeMap, VecDeque};

use crate::context::Context;
use crate::group::Chain;
use crate::id::{Origin, RegionName, Seq};
use crate::region::Region;
use crate::stamp::Stamp;

/// Up to where the order is final, as one region knows it. Never goes back along a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Finality {
    /// W: no member can still send an event stamped at or below it.
    pub watermark: Stamp,
    /// Members whose watermark is the least: who the order waits for.
    pub blocked_by: Vec<RegionName>,
    majority: usize,
    /// What each member is known to hold.
    receipts: Vec<Context>,
    frontier: Context,
}

impl Finality {
    /// What the region's log vouches for now.
    pub fn of(region: &Region) -> Self {
        let watermark = region.watermark();
        let least = |member: &&RegionName| region.watermark_of(member) == watermark;
        let own = region.frontier().clone();
        Self {
            watermark,
            blocked_by: region.members().iter().filter(least).cloned().collect(),
            majority: region.members().len() / 2 + 1,
            receipts: region.peers().map(|digest| digest.frontier.clone()).collect(),
            frontier: own,
        }
    }

    /// Everything the region held then.
    pub fn frontier(&self) -> &Context {
        &self.frontier
    }

    /// Whether `origin`'s events up to `last`, stamped `stamp`, are final.
    pub fn covers(&self, origin: &Origin, last: Seq, stamp: Stamp) -> bool {
        stamp <= self.watermark && self.holders(origin, last) >= self.majority
    }

    fn holders(&self, origin: &Origin, last: Seq) -> usize {
        let holds = |context: &&Context| context.seq(origin) >= last;
        self.receipts.iter().chain([&self.frontier]).filter(holds).count()
    }
}

/// What the merge needs to know of a group, with whatever the reader keeps of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mergeable<T> {
    /// Number of its first event.
    pub first: Seq,
    /// Number of its last event.
    pub last: Seq,
    /// Stamp of all its events.
    pub stamp: Stamp,
    /// Chain hash after it.
    pub chain: Chain,
    /// The reader's own.
    pub item: T,
}

/// A group that is next in the global order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Next<T> {
    /// Whose group.
    pub origin: Origin,
    /// Global position of `first`.
    pub position: u64,
    /// First event to deliver: later than the group's first if the reader began inside the group.
    pub first: Seq,
    /// The group.
    pub group: Mergeable<T>,
}

/// One reader's way through the global order.
#[derive(Debug)]
pub struct Merge<T> {
    cut: Context,
    position: u64,
    queues: BTreeMap<Origin, VecDeque<Mergeable<T>>>,
}

impl<T> Merge<T> {
    /// Goes on after `cut`, which is a cut of the global order.
    pub fn after(cut: Context) -> Self {
        Self { position: cut.events(), cut, queues: BTreeMap::new() }
    }

    /// Everything delivered so far.
    pub fn cut(&self) -> &Context {
        &self.cut
    }
    /// Global position of the next event.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Origins whose next group must be known before the merge can go on, and from which seq.
    ///
    /// An origin may lack groups only if the region holds none of it beyond the cut; then it cannot
    /// have a group stamped at or below the watermark either.
    pub fn needs(&self, finality: &Finality) -> Vec<(Origin, Seq)> {
        let lacking = |(origin, held): (&Origin, Seq)| {
            let queued = self.queues.get(origin).is_some_and(|queue| !queue.is_empty());
            let next = self.cut.seq(origin).next();
            (!queued && held >= next).then(|| (origin.clone(), next))
        };
        finality.frontier.iter().filter_map(lacking).collect()
    }

    /// Gives groups of `origin`, continuing what was given; the first may begin before the cut.
    ///
    /// # Panics
    /// If they leave a gap: the log is dense in every origin.
    pub fn push(&mut self, origin: &Origin, groups: impl IntoIterator<Item = Mergeable<T>>) {
        let queue = self.queues.entry(origin.clone()).or_default();
        for group in groups {
            let next = queue.back().map_or(self.cut.seq(origin), |last| last.last).next();
            assert!(
                group.first <= next && next <= group.last,
                "group {}..={} of {origin} does not continue at {next}",
                group.first,
                group.last
            );
            queue.push_back(group);
        }
    }

    /// The next group, if it is final. Call [`needs`](Self::needs) with the same finality before.
    pub fn next(&mut self, finality: &Finality) -> Option<Next<T>> {
        if !self.needs(finality).is_empty() {
            return None;
        }
        let front = |(origin, queue): (&Origin, &VecDeque<Mergeable<T>>)| {
            queue.front().map(|group| (group.stamp, origin.clone(), group.last))
        };
        // Ties of stamps go by origin; a group's seqs are its origin's next, so seq never decides.
        let (stamp, origin, last) = self.queues.iter().filter_map(front).min()?;
        if !finality.covers(&origin, last, stamp) {
            return None;
        }
        let group = self.queues.get_mut(&origin)?.pop_front()?;
        let first = self.cut.seq(&origin).next().max(group.first);
        let position = self.position;
        self.position += group.last.0 - first.0 + 1;
        self.cut.advance(&origin, group.last);
        Some(Next { origin, position, first, group })
    }
}

/// Events between two marks of the global order.
pub const MARK_EVERY: u64 = 1024;

/// The global order up to a position, in one hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Events before it.
    pub position: u64,
    /// The same number as a cut.
    pub cut: Context,
    /// Stamp of the last group before it.
    pub stamp: Stamp,
    /// Hash over the order of everything before it.
    pub chain: Chain,
}

/// Follows the global order group by group and hashes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderHash {
    chain: Chain,
    position: u64,
}

impl Default for OrderHash {
    fn default() -> Self {
        Self { chain: Chain::START, position: 0 }
    }
}

impl OrderHash {
    /// Goes on from a mark.
    pub fn after(mark: &Mark) -> Self {
        Self { chain: mark.chain, position: mark.position }
    }
    /// Hash over everything so far.
    pub fn chain(&self) -> Chain {
        self.chain
    }
    /// Events so far.
    pub fn position(&self) -> u64 {
        self.position
    }
    /// Adds a whole group; returns a mark if a multiple of [`MARK_EVERY`] was passed. Every region
    /// passes them at the same groups, so equal marks are comparable.
    ///
    /// # Panics
    /// If the group does not begin at the position reached.
    pub fn add<T>(&mut self, next: &Next<T>, cut: &Context) -> Option<Mark> {
        assert_eq!(next.position, self.position, "global order is dense");
        assert_eq!(next.first, next.group.first, "groups are hashed whole");
        let mut bytes = Vec::with_capacity(128);
        bytes.extend_from_slice(&self.chain.0);
        next.origin.encode(&mut bytes);
        bytes.extend_from_slice(&next.first.0.to_le_bytes());
        bytes.extend_from_slice(&next.group.last.0.to_le_bytes());
        bytes.extend_from_slice(&next.group.chain.0);
        let hash = blake3::hash(&bytes);
        self.chain = Chain(hash.as_bytes()[..16].try_into().expect("a hash has 32 bytes"));
        let before = self.position / MARK_EVERY;
        self.position += next.group.last.0 - next.first.0 + 1;
        (self.position / MARK_EVERY > before).then(|| Mark {
            position: self.position,
            cut: cut.clone(),
            stamp: next.group.stamp,
            chain: self.chain,
        })
    }
}

#[cfg(test)]
mod tests;
