//! The importer: what other regions sent, until it may go into this region's log.
//!
//! Groups wait here, per origin and in order, until everything in their context is held. What may
//! not go in is held back with its reason, and everything behind it of that origin with it; it is
//! never skipped, never applied, never merged into the clock.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;

use crate::context::Context;
use crate::digest::Digest;
use crate::group::{Chain, Group};
use crate::id::{Origin, RegionName, Seq};
use crate::planted::{self, Bug};
use crate::region::Region;
use crate::stamp::Stamp;

/// Why an origin's groups do not go into the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Held {
    /// Its stamps are ahead of this region's clock by more than may be. Ends when the clock is there.
    #[error(
        "stamped {ahead:?} ahead of this clock, {drift_max:?} is allowed: check {region}'s clocks"
    )]
    Clock {
        /// The region whose clock is off, or ours is.
        region: RegionName,
        /// How far ahead.
        ahead: Duration,
        /// How far it may be.
        drift_max: Duration,
    },
    /// Two histories under one origin. Ends when an operator has decided between them.
    #[error(
        "{origin} has forked at {at}: two histories under one incarnation; rebuild that region"
    )]
    Fork {
        /// The origin.
        origin: Origin,
        /// First seq at which they differ, as far as known.
        at: Seq,
    },
    /// It says that it has fewer events of its own, up to some time, than this region holds from up to
    /// then: its log was set back to an older copy. Ends when that region is rebuilt.
    #[error(
        "{origin} says it had {says} events when this region held {held} from before: its disks were \
         set back to an older copy; rebuild that region"
    )]
    Forgetful {
        /// The origin.
        origin: Origin,
        /// Number of its last event, by its own word.
        says: Seq,
        /// Number of its last event held here.
        held: Seq,
    },
    /// Not a member, or a life of it that this region has not agreed to.
    #[error("{origin} is not the member of that name that this region knows")]
    NotMember {
        /// The origin.
        origin: Origin,
    },
}

/// What became of an offered group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Offered {
    /// It waits for its turn.
    Queued,
    /// It is held or queued already.
    Repeated,
    /// Groups before it are missing; pull from there.
    Gap {
        /// The seq to pull from.
        from: Seq,
    },
    /// It is held back, and what follows of its origin with it.
    Held(Held),
}

/// Queues of other regions' groups, and their newest words.
///
/// One per term of leadership, like the [`Sequencer`](crate::sequencer::Sequencer) that it feeds:
/// what was taken counts as on its way into the log, so when a command is refused or lost with the
/// lead, both are thrown away and new ones pull again from the applied state.
pub struct Importer {
    drift_max: Duration,
    queues: BTreeMap<Origin, Queue>,
    digests: BTreeMap<Origin, Heard>,
    /// Whose group was taken last; the next take begins after it, so that nobody starves.
    served: Option<Origin>,
}

#[derive(Debug)]
struct Queue {
    groups: VecDeque<Group>,
    /// First seq not queued.
    next: Seq,
    chain: Chain,
    stamp: Stamp,
    bytes: usize,
    held: Option<Held>,
}

struct Heard {
    newest: Digest,
    /// What the log was last given of it.
    logged: Option<Digest>,
}

/// A batch for one import command.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Each after all that is in its context.
    pub groups: Vec<Group>,
    /// At most one an origin.
    pub digests: Vec<Digest>,
}

impl Batch {
    /// True if there is nothing to import.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty() && self.digests.is_empty()
    }
}

impl Importer {
    /// An importer without anything queued.
    ///
    /// # Panics
    /// If `drift_max` is zero: that would hold back every group.
    pub fn new(drift_max: Duration) -> Self {
        assert!(drift_max > Duration::ZERO, "a drift bound of 0 holds everything");
        Self { drift_max, queues: BTreeMap::new(), digests: BTreeMap::new(), served: None }
    }

    /// First seq of `origin` that is neither in the log nor queued: where to pull from.
    pub fn next_wanted(&self, region: &Region, origin: &Origin) -> Seq {
        let held = region.head(origin).seq.next();
        self.queues.get(origin).map_or(held, |queue| queue.next.max(held))
    }

    /// Bytes of all groups queued.
    pub fn bytes(&self) -> usize {
        self.queues.values().map(|queue| queue.bytes).sum()
    }
    /// Bytes of the groups of one origin that are queued.
    pub fn bytes_of(&self, origin: &Origin) -> usize {
        self.queues.get(origin).map_or(0, |queue| queue.bytes)
    }

    /// Why origins are held back now.
    pub fn held(&self) -> impl Iterator<Item = (&Origin, &Held)> {
        self.queues.iter().filter_map(|(o, queue)| Some((o, queue.held.as_ref()?)))
    }

    /// Takes a group whose chain hash was checked against its bytes.
    pub fn offer(&mut self, region: &Region, group: Group) -> Offered {
        let origin = group.origin().clone();
        if !self.admits(region, &origin) {
            return Offered::Held(Held::NotMember { origin });
        }
        let head = region.head(&origin);
        let queue = self
            .queues
            .entry(origin.clone())
            .or_insert_with(|| Queue::after(head.seq, head.chain, head.stamp));
        queue.stamp = queue.stamp.max(region.promised(&origin));
        if let Some(held @ Held::Fork { .. }) = &queue.held {
            return Offered::Held(held.clone());
        }
        if group.last() < queue.next {
            return match group.last().next() == queue.next && group.chain() != queue.chain {
                true => queue.hold_fork(origin, group.first()),
                false => Offered::Repeated,
            };
        }
        if group.first() > queue.next {
            return Offered::Gap { from: queue.next };
        }
        // Groups are atomic: one that overlaps the head, or does not continue its chain, or does not
        // rise in time, belongs to another history.
        let continues = group.first() == queue.next && group.header().prev == queue.chain;
        let rises = group.stamp() > queue.stamp || planted::is(Bug::NewLeaderForgetsStamps);
        if !continues || !rises {
            return queue.hold_fork(origin, group.first());
        }
        queue.next = group.last().next();
        queue.chain = group.chain();
        queue.stamp = group.stamp();
        queue.bytes += group.encoded().len();
        queue.groups.push_back(group);
        Offered::Queued
    }

    /// Takes what a region says of itself, directly or through another.
    pub fn offer_digest(&mut self, region: &Region, digest: Digest) {
        if !self.admits(region, &digest.origin) {
            return;
        }
        let head = region.head(&digest.origin);
        let in_log = Queue::after(head.seq, head.chain, head.stamp);
        let queued = self.queues.get(&digest.origin);
        let heard = self.digests.get(&digest.origin).map(|heard| &heard.newest);
        let disproved = in_log.disproves(&digest)
            || queued.is_some_and(|queue| queue.disproves(&digest))
            || heard.is_some_and(|heard| digest.is_disproved_by(heard));
        if disproved {
            // Not late, but a lie. Merged, it would promise too much.
            let held = head.seq.max(heard.map_or(Seq(0), Digest::seq));
            let queue = self.queues.entry(digest.origin.clone()).or_insert(in_log);
            return queue.hold_forgetful(&digest, held);
        }
        if let Some(lie) = heard.filter(|heard| heard.is_disproved_by(&digest)).cloned() {
            self.digests.remove(&digest.origin);
            let queue = self.queues.entry(digest.origin.clone()).or_insert(in_log);
            queue.hold_forgetful(&lie, digest.seq());
        }
        match self.digests.get_mut(&digest.origin) {
            // A region's digests are of prefixes of one log, so merging takes the later. The stamp
            // alone does not tell: imports may grow the frontier and leave it as it is.
            Some(heard) => {
                heard.newest.stamp = heard.newest.stamp.max(digest.stamp);
                heard.newest.frontier.merge(&digest.frontier);
            }
            None => {
                self.digests.insert(digest.origin.clone(), Heard { newest: digest, logged: None });
            }
        }
    }

    /// As [`Region::admits`], and no other life of that region waits here already.
    fn admits(&self, region: &Region, origin: &Origin) -> bool {
        let other_life = |known: &Origin| known.region == origin.region && known != origin;
        region.admits(origin) && !self.queues.keys().chain(self.digests.keys()).any(other_life)
    }

    /// The newest word of every other region; newer than what the log vouches for.
    pub fn heard(&self) -> impl Iterator<Item = &Digest> {
        self.digests.values().map(|heard| &heard.newest)
    }

    /// Number of member regions, this one included, known to hold `origin`'s events up to `seq`.
    pub fn holders(&self, region: &Region, origin: &Origin, seq: Seq) -> usize {
        let own = usize::from(region.frontier().seq(origin) >= seq);
        let mut regions: BTreeMap<&RegionName, Seq> = BTreeMap::new();
        for digest in self.heard().chain(region.peers()) {
            let held = regions.entry(&digest.origin.region).or_default();
            *held = (*held).max(digest.frontier.seq(origin));
        }
        own + regions.values().filter(|held| **held >= seq).count()
    }

    /// Takes what may go into the log next.
    ///
    /// `frontier` is what the log will hold once everything before is applied. With `statements`,
    /// digests that say something new are taken too, even if no group is.
    pub fn take(
        &mut self,
        unix_ms: u64,
        frontier: &Context,
        bytes_max: usize,
        statements: bool,
    ) -> Batch {
        let mut frontier = frontier.clone();
        let mut batch = Batch::default();
        let turns = self.turns();
        let mut bytes = 0;
        // Round after round over the origins, a group a turn, until none can go on: a context may be
        // covered by a group that another queue holds.
        loop {
            let before = batch.groups.len();
            for origin in &turns {
                let queue = self.queues.get_mut(origin).expect("queues are never dropped");
                if bytes < bytes_max
                    && let Some(group) = queue.pop_ready(unix_ms, self.drift_max, &frontier)
                {
                    bytes += group.encoded().len();
                    frontier.advance(origin, group.last());
                    batch.groups.push(group);
                    self.served = Some(origin.clone());
                }
            }
            if batch.groups.len() == before || bytes >= bytes_max {
                break;
            }
        }
        if statements || !batch.groups.is_empty() {
            // What came since then may disprove what was believed.
            for (origin, queue) in &mut self.queues {
                let heard = self.digests.get(origin).map(|heard| &heard.newest);
                if let Some(lie) = heard.filter(|digest| queue.disproves(digest)).cloned() {
                    queue.hold_forgetful(&lie, queue.last());
                    self.digests.remove(origin);
                }
            }
            let fresh = self.digests.values_mut().filter_map(|heard| heard.take_new(&frontier));
            batch.digests.extend(fresh);
            // What is promised binds what follows, also before the log has it.
            for digest in &batch.digests {
                if let Some(queue) = self.queues.get_mut(&digest.origin) {
                    queue.stamp = queue.stamp.max(digest.stamp);
                }
            }
        }
        batch
    }

    /// All origins with a queue, beginning after the one served last.
    fn turns(&self) -> Vec<Origin> {
        let mut turns: Vec<_> = self.queues.keys().cloned().collect();
        let served = turns.iter().filter(|origin| Some(*origin) <= self.served.as_ref()).count();
        turns.rotate_left(served);
        turns
    }
}

impl Queue {
    fn after(seq: Seq, chain: Chain, stamp: Stamp) -> Self {
        Self { groups: VecDeque::new(), next: seq.next(), chain, stamp, bytes: 0, held: None }
    }

    /// Number of the last event before what is wanted next.
    fn last(&self) -> Seq {
        Seq(self.next.0 - 1)
    }

    /// Whether a word is a lie: it says that its origin had fewer events up to a time at which it had
    /// these.
    fn disproves(&self, digest: &Digest) -> bool {
        digest.seq() < self.last() && digest.stamp >= self.stamp
    }

    fn hold_forgetful(&mut self, lie: &Digest, known: Seq) {
        if !matches!(self.held, Some(Held::Fork { .. })) {
            let (origin, held) = (lie.origin.clone(), self.last().max(known));
            self.held = Some(Held::Forgetful { origin, says: lie.seq(), held });
        }
    }

    fn hold_fork(&mut self, origin: Origin, at: Seq) -> Offered {
        let held = Held::Fork { origin, at };
        self.held = Some(held.clone());
        Offered::Held(held)
    }

    fn pop_ready(
        &mut self,
        unix_ms: u64,
        drift_max: Duration,
        frontier: &Context,
    ) -> Option<Group> {
        let group = self.groups.front()?;
        let ahead = group.stamp().ahead_of(unix_ms);
        if ahead > drift_max && !planted::is(Bug::DriftUnchecked) {
            let region = group.origin().region.clone();
            if !matches!(self.held, Some(Held::Fork { .. } | Held::Forgetful { .. })) {
                self.held = Some(Held::Clock { region, ahead, drift_max });
            }
            return None;
        }
        if matches!(self.held, Some(Held::Clock { .. })) {
            self.held = None;
        }
        if !frontier.covers(&group.header().context) && !planted::is(Bug::ContextIgnored) {
            return None;
        }
        let group = self.groups.pop_front()?;
        self.bytes -= group.encoded().len();
        Some(group)
    }
}

impl Heard {
    /// The newest digest, if its statement is about events that are held and it says anything new.
    fn take_new(&mut self, frontier: &Context) -> Option<Digest> {
        let covered = self.newest.seq() <= frontier.seq(&self.newest.origin)
            || planted::is(Bug::StatementWithoutSeq);
        if !covered || self.logged.as_ref() == Some(&self.newest) {
            return None;
        }
        self.logged = Some(self.newest.clone());
        Some(self.newest.clone())
    }
}

impl fmt::Debug for Importer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Importer").field("queues", &self.queues).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
