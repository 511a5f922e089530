//! What clients were told: every acknowledged event, every outcome that nobody knew.
//!
//! The proof holds the regions against this ledger, so it is written by the clients alone, from the
//! answers they got. Nothing in it comes from looking into a node.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher;
use std::time::Duration;

use anabranch_client::{Dot, EventId};
use anabranch_core::RegionName;
use hdrhistogram::Histogram;
use tokio::time::Instant;

/// Ids for the events of one writer: its own prefix, and a number that rises from event to event.
///
/// The proof uses both: within a stream, one writer's events must be in the order it wrote them.
#[derive(Debug, Clone)]
pub struct Ids {
    writer: u64,
    next: u64,
}

impl Ids {
    /// Ids of writer number `writer` in a run that drew `run`.
    pub fn new(run: u64, writer: u32) -> Self {
        Self { writer: (run << 16) ^ u64::from(writer), next: 1 }
    }
    /// The next one.
    pub fn draw(&mut self) -> EventId {
        let number = self.next;
        self.next += 1;
        let id = (u128::from(self.writer) << 64) | u128::from(number);
        EventId(id.to_be_bytes())
    }
}

/// Who wrote an event, and its number among what they wrote.
pub fn writer_of(id: EventId) -> (u64, u64) {
    let id = u128::from_be_bytes(id.0);
    ((id >> 64) as u64, id as u64)
}

/// A hash of what a client asked to be stored. The same in every process.
pub fn content_of(stream: &str, kind: &str, payload: &[u8]) -> u64 {
    // A hasher made by `new` has fixed keys.
    let mut hasher = std::hash::DefaultHasher::new();
    for part in [stream.as_bytes(), kind.as_bytes(), payload] {
        hasher.write_usize(part.len());
        hasher.write(part);
    }
    hasher.finish()
}

/// An event as its client asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// The id that the client gave it.
    pub id: EventId,
    /// Hash of its stream, type and payload.
    pub content: u64,
}

/// An event that was acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acked {
    /// Where the answer said it is.
    pub dot: Dot,
    /// Hash of its stream, type and payload.
    pub content: u64,
}

/// What one region acknowledged.
#[derive(Debug)]
pub struct RegionLedger {
    /// Events acknowledged.
    pub events: u64,
    /// Appends acknowledged.
    pub appends: u64,
    /// Microseconds from the first attempt to the answer, an append.
    pub latency: Histogram<u64>,
    /// When the answer for each event came, by its number within its origin.
    times: BTreeMap<u64, Instant>,
}

impl RegionLedger {
    fn new() -> Self {
        Self { events: 0, appends: 0, latency: micros(), times: BTreeMap::new() }
    }
    /// Number of the last event acknowledged; 0 if none was.
    pub fn last(&self) -> u64 {
        self.times.last_key_value().map_or(0, |(seq, _)| *seq)
    }
    /// When event number `seq` was acknowledged.
    pub fn acked_at(&self, seq: u64) -> Option<Instant> {
        self.times.get(&seq).copied()
    }
    /// When the first event after number `seq` was acknowledged.
    pub fn next_after(&self, seq: u64) -> Option<Instant> {
        self.times.range(seq + 1..).next().map(|(_, at)| *at)
    }
}

/// For durations in microseconds, up to an hour; what is longer counts as that.
pub fn micros() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("three digits fit these bounds")
}

/// The clients' side of the story.
#[derive(Debug, Default)]
pub struct Ledger {
    acked: BTreeMap<EventId, Acked>,
    open: BTreeSet<EventId>,
    regions: BTreeMap<RegionName, RegionLedger>,
    /// Appends whose outcome was unknown at least once.
    pub doubted: u64,
    /// Of those, appends whose outcome became known.
    pub resolved: u64,
    /// Appends whose answer was the first result of an attempt that had gone unanswered.
    pub repeated: u64,
    /// Attempts that were refused, so that nothing was written.
    pub refused: u64,
    /// Events acknowledged a second time, under another dot.
    pub contradicted: Vec<EventId>,
}

/// An answer that acknowledges an append.
#[derive(Debug)]
pub struct Answer<'a> {
    /// Who was asked.
    pub region: &'a RegionName,
    /// What was asked, in order.
    pub asked: &'a [Asked],
    /// Identity of the first event; the others follow densely.
    pub first: &'a Dot,
    /// It is the first result of an attempt before.
    pub repeated: bool,
    /// Since the first attempt.
    pub latency: Duration,
    /// Now.
    pub at: Instant,
}

impl Ledger {
    /// Nobody can say yet whether these events were written.
    pub fn doubt(&mut self, asked: &[Asked]) {
        let mut fresh = false;
        for event in asked {
            fresh |= self.open.insert(event.id);
        }
        self.doubted += u64::from(fresh);
    }

    /// An attempt was refused.
    pub fn refuse(&mut self) {
        self.refused += 1;
    }

    /// These events were acknowledged.
    pub fn acknowledge(&mut self, answer: &Answer<'_>) {
        let mut was_open = false;
        let region = self.regions.entry(answer.region.clone()).or_insert_with(RegionLedger::new);
        for (nth, event) in answer.asked.iter().enumerate() {
            let dot =
                Dot { origin: answer.first.origin.clone(), seq: answer.first.seq.plus(nth as u64) };
            was_open |= self.open.remove(&event.id);
            region.times.insert(dot.seq.0, answer.at);
            match self.acked.entry(event.id) {
                Entry::Vacant(entry) => {
                    entry.insert(Acked { dot, content: event.content });
                    region.events += 1;
                }
                Entry::Occupied(entry) if entry.get().dot == dot => {}
                Entry::Occupied(_) => self.contradicted.push(event.id),
            }
        }
        region.appends += 1;
        region.latency.saturating_record(answer.latency.as_micros() as u64);
        self.resolved += u64::from(was_open);
        self.repeated += u64::from(answer.repeated);
    }

    /// Every acknowledged event, in the order of their ids.
    pub fn acked(&self) -> impl Iterator<Item = (&EventId, &Acked)> {
        self.acked.iter()
    }
    /// What was acknowledged under this id.
    pub fn find(&self, id: &EventId) -> Option<&Acked> {
        self.acked.get(id)
    }
    /// Whether nobody knows if this event was written.
    pub fn is_open(&self, id: &EventId) -> bool {
        self.open.contains(id)
    }
    /// Events whose outcome is still unknown.
    pub fn open(&self) -> usize {
        self.open.len()
    }
    /// Events acknowledged.
    pub fn events(&self) -> u64 {
        self.acked.len() as u64
    }
    /// What `region` acknowledged, if anything.
    pub fn region(&self, region: &RegionName) -> Option<&RegionLedger> {
        self.regions.get(region)
    }
    /// Number of the last event that each region acknowledged.
    pub fn heads(&self) -> BTreeMap<RegionName, u64> {
        self.regions.iter().map(|(name, region)| (name.clone(), region.last())).collect()
    }
}

#[cfg(test)]
mod tests {
    use anabranch_core::{Incarnation, Origin, Seq, ShardId};

    use super::*;

    fn region() -> RegionName {
        RegionName::new("eu").unwrap()
    }
    fn dot(seq: u64) -> Dot {
        let origin = Origin { region: region(), incarnation: Incarnation(1), shard: ShardId(0) };
        Dot { origin, seq: Seq(seq) }
    }
    fn acknowledge(ledger: &mut Ledger, asked: &[Asked], seq: u64, at: Instant) {
        let (region, first, latency) = (region(), dot(seq), Duration::from_millis(3));
        ledger.acknowledge(&Answer {
            region: &region,
            asked,
            first: &first,
            repeated: false,
            latency,
            at,
        });
    }

    #[tokio::test]
    async fn an_unknown_outcome_is_counted_once_and_closed_by_the_answer() {
        let (mut ledger, mut ids) = (Ledger::default(), Ids::new(7, 1));
        let asked: Vec<Asked> = (0..2).map(|_| Asked { id: ids.draw(), content: 5 }).collect();
        ledger.doubt(&asked);
        ledger.doubt(&asked);
        assert_eq!((ledger.doubted, ledger.resolved, ledger.open()), (1, 0, 2));
        let now = Instant::now();
        acknowledge(&mut ledger, &asked, 4, now);
        assert_eq!((ledger.doubted, ledger.resolved, ledger.open()), (1, 1, 0));
        assert_eq!(ledger.find(&asked[1].id).map(|acked| acked.dot.clone()), Some(dot(5)));
        let region = ledger.region(&region()).unwrap();
        assert_eq!((region.events, region.last()), (2, 5));
        assert_eq!((region.acked_at(4), region.acked_at(3)), (Some(now), None));
        assert_eq!(region.next_after(4), Some(now));
        assert_eq!(region.next_after(5), None);
    }

    #[tokio::test]
    async fn the_same_answer_twice_is_no_contradiction_another_dot_is() {
        let (mut ledger, mut ids) = (Ledger::default(), Ids::new(7, 1));
        let asked = [Asked { id: ids.draw(), content: 5 }];
        for seq in [4, 4, 9] {
            acknowledge(&mut ledger, &asked, seq, Instant::now());
        }
        assert_eq!(ledger.contradicted, vec![asked[0].id]);
        assert_eq!(ledger.events(), 1);
    }

    #[test]
    fn ids_say_who_wrote_them_and_in_which_order() {
        let (mut one, mut two) = (Ids::new(7, 1), Ids::new(7, 2));
        let (first, second, other) = (one.draw(), one.draw(), two.draw());
        assert_eq!(writer_of(first).0, writer_of(second).0);
        assert_ne!(writer_of(first).0, writer_of(other).0);
        assert!(writer_of(first).1 < writer_of(second).1);
        assert_ne!(content_of("a", "bc", b""), content_of("ab", "c", b""));
    }
}
