//! Evidence with what the checks look up in it, found once.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use anabranch_client::{Dot, EventId, Origin};

use crate::evidence::{Evidence, RegionRead, Seen};
use crate::op::{Ack, Op};

/// What must precede an event: of each origin, by its number in [`Case::origins`], events up to here.
pub type Causes = Rc<[u64]>;

/// The regional order of one region, with what is looked up in it.
#[derive(Debug)]
pub struct Log<'a> {
    /// The region, and whether this is from before it was lost: for words.
    pub name: String,
    /// The region.
    pub region: &'a str,
    /// What was read.
    pub read: &'a RegionRead,
    /// The origin that the region writes under.
    pub own: Option<&'a Origin>,
    /// Whether the region was lost later.
    pub lost: bool,
    streams: BTreeMap<&'a str, Vec<usize>>,
    places: BTreeMap<&'a Dot, usize>,
}

impl<'a> Log<'a> {
    fn new(region: &'a str, read: &'a RegionRead, lost: bool) -> Self {
        let name = if lost { format!("{region}, before it was lost,") } else { region.to_owned() };
        let mut log = Self {
            name,
            region,
            read,
            own: read.own(region),
            lost,
            streams: BTreeMap::new(),
            places: BTreeMap::new(),
        };
        for (at, seen) in read.regional.iter().enumerate() {
            log.streams.entry(&seen.stream).or_default().push(at);
            log.places.entry(&seen.dot).or_insert(at);
        }
        log
    }
    /// Events in regional order.
    pub fn events(&self) -> &'a [Seen] {
        &self.read.regional
    }
    /// Where an event stands in the regional order.
    pub fn place(&self, dot: &Dot) -> Option<usize> {
        self.places.get(dot).copied()
    }
    /// The event.
    pub fn seen(&self, dot: &Dot) -> Option<&'a Seen> {
        self.place(dot).map(|at| &self.read.regional[at])
    }
    /// Places of a stream's events, in order.
    pub fn stream(&self, stream: &str) -> &[usize] {
        self.streams.get(stream).map_or(&[], Vec::as_slice)
    }
    /// Events of a stream among the first `before` of the regional order.
    pub fn revision_before(&self, stream: &str, before: usize) -> u64 {
        self.stream(stream).partition_point(|at| *at < before) as u64
    }
}

/// Evidence with its indexes.
#[derive(Debug)]
pub struct Case<'a> {
    /// What was found.
    pub evidence: &'a Evidence,
    /// The regional orders that were read: of each region in the end, and of some before they were lost.
    pub logs: Vec<Log<'a>>,
    /// Every origin that anybody shows, in order.
    pub origins: Vec<&'a Origin>,
    asked: BTreeMap<EventId, (usize, u32)>,
    seen: BTreeMap<&'a Dot, &'a Seen>,
    causes: BTreeMap<&'a Dot, Causes>,
}

impl<'a> Case<'a> {
    /// Looks through the evidence once.
    pub fn new(evidence: &'a Evidence) -> Self {
        let mut asked = BTreeMap::new();
        for (op, of) in evidence.history.ops.iter().enumerate() {
            for (nth, event) in (0..).zip(&of.events) {
                asked.entry(event.id).or_insert((op, nth));
            }
        }
        let of =
            |lost| move |(region, read): (&'a String, &'a RegionRead)| Log::new(region, read, lost);
        let mut logs: Vec<Log<'a>> = evidence.regions.iter().map(of(false)).collect();
        logs.extend(evidence.before_loss.iter().map(of(true)));
        let mut seen = BTreeMap::new();
        for event in logs.iter().flat_map(|log| log.events()) {
            seen.entry(&event.dot).or_insert(event);
        }
        let origins: BTreeSet<&Origin> = seen.keys().map(|dot| &dot.origin).collect();
        let origins: Vec<&Origin> = origins.into_iter().collect();
        let mut causes = BTreeMap::new();
        for log in &logs {
            find_causes(log, &origins, &mut causes);
        }
        Self { evidence, logs, origins, asked, seen, causes }
    }

    /// The operation that asked for an event, by its index, and which of its events it is.
    pub fn asked(&self, id: EventId) -> Option<(usize, u32)> {
        self.asked.get(&id).copied()
    }
    /// The operation with this index.
    pub fn op(&self, op: usize) -> &'a Op {
        &self.evidence.history.ops[op]
    }
    /// Operations by their index.
    pub fn ops(&self) -> impl Iterator<Item = (usize, &'a Op)> {
        self.evidence.history.ops.iter().enumerate()
    }
    /// Acknowledged operations.
    pub fn acknowledged(&self) -> impl Iterator<Item = (usize, &'a Op, &'a Ack)> {
        self.ops().filter_map(|(at, op)| op.ack().map(|ack| (at, op, ack)))
    }
    /// An event, as somebody shows it.
    pub fn seen(&self, dot: &Dot) -> Option<&'a Seen> {
        self.seen.get(dot).copied()
    }
    /// Whether a region whose disks were set back gave the number out once more, while nobody could tell
    /// it: what stands there now is not `what_it_was`. If nobody shows what stands there, because the region
    /// went down for good before anybody read it, that may be so.
    pub fn is_given_again(&self, dot: &Dot, what_it_was: impl FnOnce(&Seen) -> bool) -> bool {
        self.evidence.expectations.forgetful().contains(dot.origin.region.as_str())
            && self.seen(dot).is_none_or(|seen| !what_it_was(seen))
    }
    /// The operation behind an event that somebody shows.
    pub fn op_of(&self, dot: &Dot) -> Option<usize> {
        self.asked(self.seen(dot)?.id).map(|(op, _)| op)
    }
    /// The regional order of a region as it is in the end.
    pub fn log(&self, region: &str) -> Option<&Log<'a>> {
        self.logs.iter().find(|log| log.region == region && !log.lost)
    }
    /// The regional orders that were read in the end.
    pub fn last_logs(&self) -> impl Iterator<Item = &Log<'a>> {
        self.logs.iter().filter(|log| !log.lost)
    }
    /// Number of an origin in [`origins`](Self::origins).
    pub fn origin(&self, origin: &Origin) -> Option<usize> {
        self.origins.binary_search(&origin).ok()
    }
    /// What must precede an event. None if nobody could read the log that it was written to.
    pub fn causes(&self, dot: &Dot) -> Option<&Causes> {
        self.causes.get(dot)
    }
    /// Whether the event that `later` names was written when its region held `earlier`.
    pub fn knew(&self, later: &Dot, earlier: &Dot) -> bool {
        let at = self.origin(&earlier.origin);
        let known = self.causes(later).zip(at).map(|(causes, at)| causes[at]);
        known.is_some_and(|known| known >= earlier.seq.0)
    }
}

/// The context of an event is what precedes it in the log of the region that wrote it: there, and
/// nowhere else, the order of the log is the order of sequencing.
fn find_causes<'a>(log: &Log<'a>, origins: &[&Origin], causes: &mut BTreeMap<&'a Dot, Causes>) {
    let mut held = vec![0; origins.len()];
    let mut shared: Option<Causes> = None;
    for seen in log.events() {
        let at = origins.binary_search(&&seen.dot.origin).expect("every origin is listed");
        if Some(&seen.dot.origin) == log.own {
            let before = shared.get_or_insert_with(|| {
                // Its own earlier events are in it by their numbers: leaving them out lets a row of
                // own events share one context.
                let mut others: Vec<u64> = held.clone();
                others[at] = 0;
                others.into()
            });
            causes.entry(&seen.dot).or_insert_with(|| before.clone());
        } else {
            held[at] = seen.dot.seq.0.max(held[at]);
            shared = None;
        }
    }
}
