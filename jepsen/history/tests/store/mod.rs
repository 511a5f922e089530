//! A small store of several regions that keeps all laws, or all but one.

mod clients;
mod ending;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anabranch_client::{
    Context, Dot, EventId, Expect, Order, Origin, ProducerId, ProducerTag, Stamp,
};
use anabranch_core::{Incarnation, RegionName, Seq, ShardId};
use anabranch_history::Evidence;
use anabranch_history::content::{Mark, Name};
use anabranch_history::evidence::{
    Blame, Part, Print, Recovery, RegionRead, Seen, Selection, Subscribed,
};
use anabranch_history::observation::Observation;
use anabranch_history::op::{
    Ack, Asked, By, Conflict, Expectation, Op, Outcome, Repeat, SessionRead,
};
use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

const NAMES: [&str; 3] = ["asia", "eu", "us"];
/// The region that may be lost.
const LOST: usize = 2;

/// How much is done.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    pub ops: u32,
    pub streams: u32,
    /// When the last region is lost for good, in milliseconds.
    pub lost_at: Option<u64>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { ops: 80, streams: 4, lost_at: None }
    }
}

/// What the store does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// The end of a region's log is gone everywhere, after it was acknowledged.
    AcknowledgedBeforeSync,
    /// A retry is appended again.
    RetriesForgotten,
    /// A group is imported before what it was written after.
    ContextIgnored,
    /// A group is changed while it is imported.
    ContentAltered,
    /// A region never imports some group, nor those after it.
    ImportStuck,
    /// What is held is taken for final.
    EarlyFinal,
    /// Ties in the global order are broken by arrival.
    TiesByArrival,
    /// Expectations are checked against a state of some time ago.
    StaleExpectations,
    /// A conflict reports a revision from before.
    StaleConflict,
    /// An acknowledgement is sent for what is written later than what was asked for after it.
    AcknowledgedEarly,
    /// Reads do not wait for their session.
    SessionIgnored,
    /// A cursor is taken for a position.
    CursorByPosition,
    /// Imports do not raise the clock.
    ClockNotRaised,
    /// A conflict is reported for what was written.
    RefusedAndWritten,
    /// An append over several streams is written in two halves.
    HalfAppends,
}

impl Bug {
    pub const ALL: [Self; 15] = [
        Self::AcknowledgedBeforeSync,
        Self::RetriesForgotten,
        Self::ContextIgnored,
        Self::ContentAltered,
        Self::ImportStuck,
        Self::EarlyFinal,
        Self::TiesByArrival,
        Self::StaleExpectations,
        Self::StaleConflict,
        Self::AcknowledgedEarly,
        Self::SessionIgnored,
        Self::CursorByPosition,
        Self::ClockNotRaised,
        Self::RefusedAndWritten,
        Self::HalfAppends,
    ];

    /// The check that has to find it.
    pub fn law(self) -> &'static str {
        match self {
            Self::AcknowledgedBeforeSync => "durable",
            Self::RetriesForgotten => "exactly_once",
            Self::ContextIgnored => "prefix",
            Self::ContentAltered => "one_content",
            Self::ImportStuck => "converge",
            Self::EarlyFinal | Self::TiesByArrival => "global_order",
            Self::StaleExpectations | Self::StaleConflict | Self::AcknowledgedEarly => {
                "expected_revision"
            }
            Self::SessionIgnored => "sessions",
            Self::CursorByPosition => "cursor",
            Self::ClockNotRaised => "stamps",
            Self::RefusedAndWritten => "honesty",
            Self::HalfAppends => "atomic",
        }
    }
}

fn origin(region: usize) -> Origin {
    let name = RegionName::new(NAMES[region]).unwrap();
    Origin { region: name, incarnation: Incarnation(region as u128 + 5), shard: ShardId(0) }
}

fn dot(region: usize, seq: u64) -> Dot {
    Dot { origin: origin(region), seq: Seq(seq) }
}

#[derive(Debug, Clone)]
struct Group {
    region: usize,
    first: u64,
    stamp: u64,
    context: [u64; 3],
    tag: ProducerTag,
    events: Vec<Asked>,
    /// Events of the append that it is, or is half of.
    of: u32,
}

impl Group {
    fn last(&self) -> u64 {
        self.first + self.events.len() as u64 - 1
    }
}

#[derive(Debug, Default)]
struct Region {
    log: Vec<Group>,
    held: [u64; 3],
    /// Groups of each origin that are held, and the stamp of the last.
    groups: [(usize, u64); 3],
    last_stamp: u64,
    position: u64,
    streams: BTreeMap<String, u64>,
    before: BTreeMap<String, u64>,
    events: BTreeMap<String, Vec<Dot>>,
    done: BTreeMap<(ProducerId, u64), Ack>,
}

/// What takes place when its time comes.
#[derive(Debug, Clone, Copy)]
enum Job {
    Effect(usize),
    Repeat(usize, usize),
    Read(u32, usize),
    Import(usize, usize),
    Observe(usize),
}

struct Store {
    rng: SmallRng,
    bug: Option<Bug>,
    settings: Settings,
    regions: [Region; 3],
    /// Groups of each origin.
    origins: [Vec<Group>; 3],
    sessions: BTreeMap<u32, [u64; 3]>,
    evidence: Evidence,
}

/// A run.
pub fn run(seed: u64, settings: Settings, bug: Option<Bug>) -> Evidence {
    let mut store = Store {
        rng: SmallRng::seed_from_u64(seed),
        bug,
        settings,
        regions: Default::default(),
        origins: Default::default(),
        sessions: BTreeMap::new(),
        evidence: Evidence::default(),
    };
    let jobs = store.plan();
    for ((at, _), job) in jobs {
        store.work(Duration::from_millis(at), job);
    }
    store.settle();
    store.finish();
    store.evidence
}

impl Store {
    fn chance(&mut self, of: f64) -> bool {
        self.rng.random_bool(of)
    }
    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    fn is_lost(&self, now: Duration) -> bool {
        self.settings.lost_at.is_some_and(|at| Duration::from_millis(at) <= now)
    }

    fn work(&mut self, now: Duration, job: Job) {
        if self.is_lost(now) {
            match job {
                Job::Effect(op) if op_region(&self.evidence.history.ops[op]) == LOST => {
                    self.evidence.history.ops[op].returned = Duration::MAX;
                    return;
                }
                Job::Repeat(_, LOST) | Job::Read(_, LOST) | Job::Observe(LOST) => return,
                Job::Import(LOST, _) => return,
                Job::Import(to, LOST) => return self.import_up_to(to, LOST, self.survived()),
                _ => {}
            }
        }
        match job {
            Job::Effect(op) => self.effect(now, op),
            Job::Repeat(op, region) => self.repeat(now, op, region),
            Job::Read(writer, region) => self.read(now, writer, region),
            Job::Import(to, from) => self.import(to, from),
            Job::Observe(region) => self.observe(now, region),
        }
    }

    fn append(&mut self, now: Duration, at: usize, tag: ProducerTag, events: &[Asked]) -> Ack {
        let region = &mut self.regions[at];
        if let Some(done) = region.done.get(&(tag.id, tag.sequence))
            && self.bug != Some(Bug::RetriesForgotten)
        {
            return done.clone();
        }
        // A clock of each region's own, up to 40 ms apart.
        let wall = (now.as_millis() as u64 + at as u64 * 20) << 8;
        let mut context = region.held;
        context[at] = 0;
        let stamp = wall.max(region.last_stamp + 1);
        let (first, position) = (region.held[at] + 1, region.position);
        let group = Group {
            region: at,
            first,
            stamp,
            context,
            tag,
            events: events.to_vec(),
            of: events.len() as u32,
        };
        if self.bug == Some(Bug::HalfAppends) && events.len() == 3 && self.rng.random_bool(0.1) {
            let mut half = group.clone();
            half.events.pop();
            self.take(at, half.clone());
            self.origins[at].push(half);
        } else {
            self.take(at, group.clone());
            self.origins[at].push(group);
        }
        let region = &mut self.regions[at];
        let revisions = events.iter().map(|e| (e.stream.clone(), region.streams.get(&e.stream)));
        let revisions = revisions.map(|(name, next)| (name, next.copied().unwrap_or(1) - 1));
        let ack = Ack {
            first: dot(at, first),
            events: events.len() as u32,
            position,
            stamp: Stamp(stamp),
            revisions: revisions.collect(),
            regions: 1,
        };
        region.done.insert((tag.id, tag.sequence), ack.clone());
        ack
    }

    /// Puts a group into a region's log.
    fn take(&mut self, at: usize, group: Group) {
        let raise = group.region == at || self.bug != Some(Bug::ClockNotRaised);
        let region = &mut self.regions[at];
        let stale = [Some(Bug::StaleExpectations), Some(Bug::StaleConflict)].contains(&self.bug);
        if stale && self.rng.random_bool(0.1) {
            region.before = region.streams.clone();
        }
        region.held[group.region] = group.last();
        region.groups[group.region].0 += 1;
        region.groups[group.region].1 = group.stamp;
        if raise {
            region.last_stamp = region.last_stamp.max(group.stamp);
        }
        if group.region != at {
            let ack = Ack {
                first: dot(group.region, group.first),
                events: group.events.len() as u32,
                position: region.position,
                stamp: Stamp(group.stamp),
                revisions: BTreeMap::new(),
                regions: 2,
            };
            region.done.entry((group.tag.id, group.tag.sequence)).or_insert(ack);
        }
        for (nth, asked) in (0..).zip(&group.events) {
            *region.streams.entry(asked.stream.clone()).or_default() += 1;
            let of_stream = region.events.entry(asked.stream.clone()).or_default();
            of_stream.push(dot(group.region, group.first + nth));
        }
        region.position += group.events.len() as u64;
        region.log.push(group);
    }

    /// Groups of the lost region that somebody else holds.
    fn survived(&self) -> usize {
        self.regions[..LOST].iter().map(|region| region.groups[LOST].0).max().unwrap_or_default()
    }

    fn import(&mut self, to: usize, from: usize) {
        self.import_up_to(to, from, usize::MAX);
    }

    fn import_up_to(&mut self, to: usize, from: usize, end: usize) {
        for _ in 0..self.rng.random_range(1..6) {
            let next = self.regions[to].groups[from].0;
            let group = self.origins[from].get(next).filter(|_| next < end).cloned();
            let Some(group) = group else { return };
            let covered = (0..3).all(|at| group.context[at] <= self.regions[to].held[at]);
            if !covered && !self.has(Bug::ContextIgnored) {
                return;
            }
            if self.has(Bug::ImportStuck) && to == 2 && next > 5 {
                return;
            }
            let mut group = group;
            if self.has(Bug::ContentAltered) && self.chance(0.05) {
                group.events[0].amount += 1;
            }
            self.take(to, group);
        }
    }

    fn saw(&mut self, writer: u32, region: usize) {
        let held = self.regions[region].held;
        let session = self.sessions.entry(writer).or_default();
        (0..3).for_each(|at| session[at] = session[at].max(held[at]));
    }

    /// Events that are final at a region, in order.
    fn finals(&self, at: usize) -> Vec<(u64, usize, u64)> {
        let region = &self.regions[at];
        let watermark = region.groups.iter().map(|(_, stamp)| *stamp).min().unwrap_or_default();
        let early = self.has(Bug::EarlyFinal);
        let groups = region.log.iter().filter(|group| early || group.stamp <= watermark);
        order(groups)
    }

    fn observe(&mut self, now: Duration, at: usize) {
        // Long runs would pay for this.
        if self.settings.ops > 1_000 && !self.chance(0.001) {
            return;
        }
        let finals = self.finals(at);
        let region = &self.regions[at];
        let watermark = region.groups.iter().map(|(_, stamp)| *stamp).min();
        self.evidence.history.observations.push(Observation {
            at: now,
            region: NAMES[at].into(),
            node: 0,
            life: 0,
            frontier: frontier(region),
            position: region.position,
            watermark: watermark.map(Stamp),
            global_position: finals.len() as u64,
            global_chain: Some(chain(&finals)),
            blocked_by: Vec::new(),
        });
    }
}

fn op_region(op: &Op) -> usize {
    op.writer as usize % 3
}

fn order<'a>(groups: impl IntoIterator<Item = &'a Group>) -> Vec<(u64, usize, u64)> {
    let each = groups.into_iter().flat_map(|group| {
        (0..group.events.len() as u64).map(|nth| (group.stamp, group.region, group.first + nth))
    });
    let mut events: Vec<(u64, usize, u64)> = each.collect();
    events.sort_unstable();
    events
}

fn chain(events: &[(u64, usize, u64)]) -> Bytes {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for (_, region, seq) in events {
        hash = (hash ^ (*region as u64)).wrapping_mul(0x100_0000_01b3);
        hash = (hash ^ seq).wrapping_mul(0x100_0000_01b3);
    }
    Bytes::copy_from_slice(&hash.to_be_bytes())
}

fn frontier(region: &Region) -> Context {
    (0..3).map(|at| (origin(at), Seq(region.held[at]))).collect()
}
