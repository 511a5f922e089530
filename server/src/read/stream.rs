//! The regional order of one stream, by revision.
//!
//! The events between those of the stream are never looked at. What a forward walk covers is then the
//! cut where it began, the events it delivered, and at the end everything: of one origin, the events of
//! a stream come in the order of their seqs, so none that is still to come is covered.

use anabranch_core::Context;
use anabranch_core::region::Region;
use anabranch_log::index::Direction;
use anabranch_log::store::{PlacedEvent, StoreError};

use super::filter::Selection;
use super::view::View;
use super::walk::{Batch, Coverage, Step, Walk, pass_back};

/// Events read in one step.
const STEP_EVENTS: usize = 2048;

/// The number of events that a stream has.
pub(super) fn revisions(region: &Region, stream: &str) -> u64 {
    region.stream(stream).map_or(0, |head| head.next_revision)
}

/// Where a bounded walk ends.
#[derive(Debug, Clone)]
pub(super) struct StreamEnd {
    /// Before this revision.
    pub(super) revision: u64,
    /// What is covered there.
    pub(super) frontier: Context,
}

impl StreamEnd {
    /// Where the stream ends now.
    pub(super) fn of(view: &impl View, stream: &str) -> Self {
        view.region(|region| Self {
            revision: revisions(region, stream),
            frontier: region.frontier().clone(),
        })
    }
}

/// The first event that is wanted; those before it are passed over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct First {
    /// Its revision, or a smaller one.
    pub(super) revision: u64,
    /// Its position, or a smaller one.
    pub(super) position: u64,
}

impl First {
    fn admits(self, event: &PlacedEvent) -> bool {
        self.revision <= event.revision && self.position <= event.position
    }
}

/// Forwards by revision.
pub(super) struct StreamWalk {
    stream: String,
    next: u64,
    first: First,
    end: Option<StreamEnd>,
    coverage: Coverage,
}

impl StreamWalk {
    /// From revision `next` on, where every event of the stream before `next` is in `covered`, or not
    /// wanted and before every event that is not in `covered`.
    pub(super) fn new(
        stream: String,
        next: u64,
        first: First,
        end: Option<StreamEnd>,
        covered: Context,
        selection: Selection,
    ) -> Self {
        let coverage = Coverage { covered, selection };
        Self { stream, next, first, end, coverage }
    }
}

impl<V: View> Walk<V> for StreamWalk {
    fn step(&mut self, view: &V, batch: &mut Batch) -> Result<Step, StoreError> {
        let held;
        let end = match &self.end {
            Some(end) => end,
            None => {
                held = StreamEnd::of(view, &self.stream);
                &held
            }
        };
        let mut read = 0;
        while self.next < end.revision && read < STEP_EVENTS {
            let (events, bytes) = (batch.room().max(1), batch.bytes_max());
            let events = view.store().read_stream(
                &self.stream,
                self.next,
                Direction::Forward,
                events,
                bytes,
            )?;
            if events.is_empty() {
                return Ok(Step::More);
            }
            for event in events {
                if event.revision >= end.revision {
                    break;
                }
                let (revision, wanted) = (event.revision, self.first.admits(&event));
                if self.coverage.pass(event, None, wanted, batch).is_some() {
                    return Ok(Step::More);
                }
                self.next = revision + 1;
                read += 1;
            }
        }
        if self.next < end.revision {
            return Ok(Step::More);
        }
        self.coverage.covered.merge(&end.frontier);
        Ok(Step::End)
    }

    fn covered(&self) -> Option<&Context> {
        Some(&self.coverage.covered)
    }
    fn behind(&self, view: &V) -> u64 {
        view.region(|region| revisions(region, &self.stream)).saturating_sub(self.next)
    }
}

/// Backwards by revision.
pub(super) struct StreamBack {
    stream: String,
    /// The events still to come are before this revision.
    end: u64,
    selection: Selection,
}

impl StreamBack {
    /// The events before revision `end`.
    pub(super) fn new(stream: String, end: u64, selection: Selection) -> Self {
        Self { stream, end, selection }
    }
}

impl<V: View> Walk<V> for StreamBack {
    fn step(&mut self, view: &V, batch: &mut Batch) -> Result<Step, StoreError> {
        let Some(newest) = self.end.checked_sub(1) else { return Ok(Step::End) };
        let (events, bytes) = (batch.room().max(1), batch.bytes_max());
        let store = view.store();
        let events = store.read_stream(&self.stream, newest, Direction::Backward, events, bytes)?;
        if events.is_empty() {
            return Ok(Step::End);
        }
        for event in events {
            let revision = event.revision;
            if pass_back(&self.selection, event, None, batch).is_some() {
                return Ok(Step::More);
            }
            self.end = revision;
        }
        Ok(if self.end == 0 { Step::End } else { Step::More })
    }

    fn covered(&self) -> Option<&Context> {
        None
    }
    fn behind(&self, _view: &V) -> u64 {
        0
    }
}
