//! What was read back through the API, folded event by event as it comes.
//!
//! [`RegionReading`] takes everything a region has in its own order, [`GlobalReading`] in the global
//! one. Both notice at once what is wrong with the sequence itself; what has to be compared with the
//! ledger or with another region is left to [`super::proof`].

use std::collections::BTreeMap;

use anabranch_client::{Dot, Event, EventId, Origin, Stamp};
use anabranch_core::RegionName;

use super::folds::PlainFold;
use super::ledger::{content_of, writer_of};

/// Examples that are kept of each kind of fault.
const EXAMPLES_MAX: usize = 5;

/// A kind of fault: how often, and the first few.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults {
    /// How often.
    pub count: u64,
    /// The first few, for people.
    pub examples: Vec<String>,
}

impl Faults {
    /// Adds one.
    pub fn add(&mut self, example: impl FnOnce() -> String) {
        self.count += 1;
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(example());
        }
    }
    /// Adds those found elsewhere.
    pub fn extend(&mut self, place: &str, other: &Faults) {
        self.count += other.count;
        let room = EXAMPLES_MAX - self.examples.len().min(EXAMPLES_MAX);
        self.examples
            .extend(other.examples.iter().take(room).map(|text| format!("{place}: {text}")));
    }
}

/// An event as found in a region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its identity, where it was found first.
    pub dot: Dot,
    /// Hash of its stream, type and payload.
    pub content: u64,
    /// Name of its stream.
    pub stream: String,
    /// How often its id was found.
    pub times: u32,
}

#[derive(Debug, Default)]
struct Stream {
    events: u64,
    /// Number of the last event of each writer in each origin region.
    writers: BTreeMap<u64, u64>,
}

/// Everything one region has, in its own order.
#[derive(Debug)]
pub struct RegionReading {
    /// Which region.
    pub region: RegionName,
    /// Every event, by the id its client gave it.
    pub found: BTreeMap<EventId, Found>,
    /// Events read.
    pub events: u64,
    /// Revisions that are not dense.
    pub revisions: Faults,
    /// Numbers of an origin that are not dense: a gap, or an event that came twice.
    pub origins: Faults,
    /// Events of one writer that changed their order within a stream.
    pub writers: Faults,
    /// The events, folded one after the other.
    pub folds: PlainFold,
    heads: BTreeMap<Origin, u64>,
    streams: BTreeMap<String, Stream>,
}

impl RegionReading {
    /// Nothing was read yet.
    pub fn new(region: RegionName) -> Self {
        Self {
            region,
            found: BTreeMap::new(),
            events: 0,
            revisions: Faults::default(),
            origins: Faults::default(),
            writers: Faults::default(),
            folds: PlainFold::default(),
            heads: BTreeMap::new(),
            streams: BTreeMap::new(),
        }
    }

    /// Takes the next event of the region.
    pub fn add(&mut self, event: &Event) {
        self.events += 1;
        self.add_to_origin(event);
        self.add_to_stream(event);
        self.folds.add(&event.stream, &event.kind, &event.payload);
        let content = content_of(&event.stream, &event.kind, &event.payload);
        let found = self.found.entry(event.id()).or_insert_with(|| Found {
            dot: event.dot.clone(),
            content,
            stream: event.stream.clone(),
            times: 0,
        });
        found.times += 1;
    }

    fn add_to_origin(&mut self, event: &Event) {
        let head = self.heads.entry(event.dot.origin.clone()).or_default();
        if event.dot.seq.0 != *head + 1 {
            self.origins.add(|| format!("{} follows number {head}", event.dot));
        }
        *head = event.dot.seq.0;
    }

    fn add_to_stream(&mut self, event: &Event) {
        let stream = self.streams.entry(event.stream.clone()).or_default();
        if event.revision != stream.events {
            let (name, is, expected) = (&event.stream, event.revision, stream.events);
            self.revisions
                .add(|| format!("{name} at {}: revision {is}, not {expected}", event.dot));
        }
        stream.events += 1;
        let (writer, number) = writer_of(event.id());
        let last = stream.writers.entry(writer).or_default();
        if number <= *last {
            let (name, dot) = (&event.stream, &event.dot);
            self.writers
                .add(|| format!("{name} at {dot}: number {number} of its writer after {last}"));
        }
        *last = number;
    }

    /// Number of the last event of every origin.
    pub fn heads(&self) -> &BTreeMap<Origin, u64> {
        &self.heads
    }
    /// Number of events of every stream.
    pub fn streams(&self) -> impl Iterator<Item = (&str, u64)> {
        self.streams.iter().map(|(name, stream)| (name.as_str(), stream.events))
    }
    /// Number of events of one stream.
    pub fn events_of(&self, stream: &str) -> u64 {
        self.streams.get(stream).map_or(0, |stream| stream.events)
    }
}

/// The global order, as one region delivers it.
#[derive(Debug)]
pub struct GlobalReading {
    /// Which region.
    pub region: RegionName,
    /// Positions that are not dense, or stamps that go back.
    pub steps: Faults,
    origins: Vec<Origin>,
    /// Place of the origin in `origins`, and the number in it.
    dots: Vec<(u32, u64)>,
    last: Stamp,
}

impl GlobalReading {
    /// Nothing was read yet.
    pub fn new(region: RegionName) -> Self {
        let (steps, last) = (Faults::default(), Stamp::ZERO);
        Self { region, steps, origins: Vec::new(), dots: Vec::new(), last }
    }

    /// Takes the next event of the global order.
    pub fn add(&mut self, event: &Event) {
        let expected = self.dots.len() as u64;
        if event.global_position() != Some(expected) {
            self.steps.add(|| format!("{} at {:?}, not {expected}", event.dot, event.place));
        }
        if event.stamp < self.last {
            self.steps.add(|| format!("{} stamped {} after {}", event.dot, event.stamp, self.last));
        }
        self.last = event.stamp;
        let origin = match self.origins.iter().position(|origin| *origin == event.dot.origin) {
            Some(place) => place,
            None => {
                self.origins.push(event.dot.origin.clone());
                self.origins.len() - 1
            }
        };
        self.dots.push((origin as u32, event.dot.seq.0));
    }

    /// Length of the order.
    pub fn events(&self) -> u64 {
        self.dots.len() as u64
    }

    /// The event at `position`, for people.
    pub fn at(&self, position: u64) -> String {
        let dot = usize::try_from(position).ok().and_then(|position| self.dots.get(position));
        dot.map_or("the end".to_owned(), |(origin, seq)| {
            format!("{}:{seq}", self.origins[*origin as usize])
        })
    }

    /// First position at which the two orders differ; none if they are the same to the end.
    pub fn differs_at(&self, other: &GlobalReading) -> Option<u64> {
        let dot = |reading: &GlobalReading, (origin, seq): (u32, u64)| {
            (reading.origins[origin as usize].clone(), seq)
        };
        let same = |(a, b): (&(u32, u64), &(u32, u64))| dot(self, *a) == dot(other, *b);
        let equal = self.dots.iter().zip(&other.dots).take_while(|pair| same(*pair)).count();
        (equal < self.dots.len().max(other.dots.len())).then_some(equal as u64)
    }
}
