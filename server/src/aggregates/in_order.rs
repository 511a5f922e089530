//! The events of a stream in the global order, whatever the order in which they came in.
//!
//! Of one origin, the events of a stream come in the order of their seqs, which is that of their stamps.
//! So one pass over the stream for each origin, merged, gives all of them in order: each pass holds a
//! page, however long the stream is.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;

use anabranch_core::{Dot, Origin};
use anabranch_log::index::Direction;
use anabranch_log::store::{Store, StoreError};

use super::follow::{Seen, placed};

/// Events and bytes read at once of each origin.
const READ_EVENTS: usize = 512;
const READ_BYTES: usize = 1024 * 1024;

/// Gives the events with `revisions` that are `wanted`, all of which are of `origins`.
pub(super) fn in_order(
    store: &Store,
    stream: &str,
    revisions: Range<u64>,
    origins: &BTreeSet<Origin>,
    wanted: impl Fn(&Dot) -> bool,
    mut take: impl FnMut(&Seen),
) -> Result<(), StoreError> {
    let lane = |origin| Lane { origin, next: revisions.start, queue: VecDeque::new() };
    let mut lanes: Vec<_> = origins.iter().map(lane).collect();
    loop {
        for lane in &mut lanes {
            lane.fill(store, stream, revisions.end, &wanted)?;
        }
        let fronts = lanes.iter().enumerate();
        let fronts = fronts.filter_map(|(nth, lane)| Some((lane.queue.front()?.place(), nth)));
        let Some((_, nth)) = fronts.min() else { return Ok(()) };
        let Some(seen) = lanes[nth].queue.pop_front() else { return Ok(()) };
        take(&seen);
    }
}

/// What is read ahead of one origin.
struct Lane<'a> {
    origin: &'a Origin,
    next: u64,
    queue: VecDeque<Seen>,
}

impl Lane<'_> {
    fn fill(
        &mut self,
        store: &Store,
        stream: &str,
        end: u64,
        wanted: &impl Fn(&Dot) -> bool,
    ) -> Result<(), StoreError> {
        while self.queue.is_empty() && self.next < end {
            let forward = Direction::Forward;
            let page = store.read_stream(stream, self.next, forward, READ_EVENTS, READ_BYTES)?;
            let Some(last) = page.last() else {
                self.next = end;
                break;
            };
            self.next = last.revision + 1;
            let page = page.iter().filter(|event| event.revision < end);
            let own = page.filter(|event| {
                let dot = event.dot();
                dot.origin == *self.origin && wanted(&dot)
            });
            self.queue.extend(own.map(placed));
        }
        Ok(())
    }
}
