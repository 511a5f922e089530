//! What may still turn out to be concurrent with something.

use std::collections::{BTreeMap, VecDeque};

use super::run::Run;
use crate::codec::{DecodeError, Put, Reader};
use crate::context::Context;
use crate::id::{Origin, Seq};
use crate::stamp::Stamp;

/// The events of one stream that were walked past and that something to come may not have seen.
///
/// It must be fed every event of the stream, in an order that puts causes first. What every region held
/// before it made anything that is still to come can be [`prune`](Self::prune)d at any time, or never:
/// nothing to come is concurrent with it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recent {
    tails: BTreeMap<Origin, Tail>,
}

/// An origin's part: the stream's events, group by group, in ascending order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Tail {
    /// Number of events that were fed, pruned ones included: so a piece is counted by subtraction.
    fed: u64,
    parts: VecDeque<Part>,
}

/// The stream's events of one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    first: Seq,
    last: Seq,
    /// Events of the tail before it.
    before: u64,
    stamp: Stamp,
    /// Place of the first in the order that is walked.
    position: u64,
}

/// Bytes of memory that one group's events of a stream take.
const PART_BYTES: usize = size_of::<Part>();
/// Bytes of memory of an origin's part beside these, roughly.
const TAIL_BYTES: usize = 160;

impl Recent {
    /// Takes in `events`, all that one group has of this stream, which begin at `position` of the order
    /// walked. `context` is what their region held of other origins. Says what they are concurrent with.
    ///
    /// Shape: at most one run an origin, by origin; empty if there is no conflict. Contexts end where
    /// groups end, as those of all groups do (a region takes other regions' groups in whole).
    ///
    /// # Panics
    /// If `events` do not come after those of their origin that were fed before: they would be found
    /// twice.
    pub fn feed(&mut self, events: &Run, position: u64, context: &Context) -> Vec<Run> {
        let others = self.tails.iter().filter(|(origin, _)| **origin != events.origin);
        let against =
            others.filter_map(|(origin, tail)| tail.beyond(origin, context.seq(origin))).collect();
        self.keep(events, position);
        against
    }

    fn keep(&mut self, events: &Run, position: u64) {
        if !self.tails.contains_key(&events.origin) {
            self.tails.insert(events.origin.clone(), Tail::default());
        }
        let tail = self.tails.get_mut(&events.origin).expect("it was inserted");
        if let Some(newest) = tail.parts.back() {
            assert!(newest.last < events.first, "{} is fed after {}", events.first, newest.last);
        }
        let (first, last, stamp) = (events.first, events.last, events.first_stamp);
        tail.parts.push_back(Part { first, last, before: tail.fed, stamp, position });
        tail.fed = tail.fed.saturating_add(events.events);
    }

    /// Forgets what is in `stable`: a cut that was held by whoever makes anything that is still to come.
    pub fn prune(&mut self, stable: &Context) {
        self.tails.retain(|origin, tail| {
            let held = stable.seq(origin);
            while tail.parts.front().is_some_and(|part| part.last <= held) {
                tail.parts.pop_front();
            }
            !tail.parts.is_empty()
        });
    }

    /// Forgets the oldest until at most `max` groups' events are left. Says how many groups' it forgot:
    /// from then on, conflicts with these are not found.
    pub fn shorten(&mut self, max: usize) -> usize {
        let mut forgotten = 0;
        while self.parts() > max {
            let oldest = |tail: &&mut Tail| tail.parts.front().map_or(u64::MAX, |p| p.position);
            let Some(tail) = self.tails.values_mut().min_by_key(oldest) else { break };
            tail.parts.pop_front();
            forgotten += 1;
        }
        self.tails.retain(|_, tail| !tail.parts.is_empty());
        forgotten
    }

    /// Place of the oldest event that is kept, in the order that is walked.
    pub fn oldest(&self) -> Option<u64> {
        self.tails.values().filter_map(|tail| tail.parts.front()).map(|part| part.position).min()
    }
    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.tails.is_empty()
    }
    /// Groups whose events are kept.
    pub fn parts(&self) -> usize {
        self.tails.values().map(|tail| tail.parts.len()).sum()
    }
    /// Bytes of memory, roughly.
    pub fn memory(&self) -> usize {
        self.tails.len() * TAIL_BYTES + self.parts() * PART_BYTES
    }

    /// Appends what is kept, by origin.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_varint(self.tails.len() as u64);
        for (origin, tail) in &self.tails {
            origin.encode(out);
            out.put_varint(tail.fed);
            out.put_varint(tail.parts.len() as u64);
            for part in &tail.parts {
                out.put_varint(part.first.0);
                out.put_varint(part.last.0);
                out.put_varint(part.before);
                out.put_u64(part.stamp.0);
                out.put_varint(part.position);
            }
        }
    }
    /// Reads what [`encode`](Self::encode) wrote.
    pub fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let mut recent = Self::default();
        for _ in 0..reader.count("origins of a stream", Origin::ENCODED_MIN + 2)? {
            let origin = Origin::decode(reader)?;
            let fed = reader.varint("events fed")?;
            let count = reader.count("groups of a stream", 4 + 8)?;
            let parts = (0..count).map(|_| Part::decode(reader)).collect::<Result<_, _>>()?;
            recent.tails.insert(origin, Tail { fed, parts });
        }
        Ok(recent)
    }
}

impl Tail {
    /// The events after `held`.
    fn beyond(&self, origin: &Origin, held: Seq) -> Option<Run> {
        let at = self.parts.partition_point(|part| part.last <= held);
        let (first, last) = (self.parts.get(at)?, self.parts.back()?);
        Some(Run {
            origin: origin.clone(),
            first: first.first,
            last: last.last,
            events: self.fed.saturating_sub(first.before),
            first_stamp: first.stamp,
            last_stamp: last.stamp,
        })
    }
}

impl Part {
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            first: Seq(reader.varint("first seq of a group")?),
            last: Seq(reader.varint("last seq of a group")?),
            before: reader.varint("events before a group")?,
            stamp: Stamp(reader.u64("stamp of a group")?),
            position: reader.varint("position of a group")?,
        })
    }
}
