//! Walks: ways through a shard's events.

use anabranch_core::{Context, Dot};
use anabranch_log::store::{GroupSlice, PlacedEvent, StoreError};

use super::filter::Selection;
use super::view::View;

/// An event as it is delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// The event and its place in this region.
    pub event: PlacedEvent,
    /// Its place in the global order, in reads of that order.
    pub global_position: Option<u64>,
}

/// Neighbouring events of a group as they are delivered, as they are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The events.
    pub slice: GroupSlice,
    /// Position of the first one in the order that is read.
    pub position: u64,
}

/// The frame that is being filled, with events or with runs.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) events: Vec<Delivered>,
    pub(super) runs: Vec<Run>,
    /// Events in the runs.
    run_events: usize,
    bytes: usize,
    events_max: usize,
    bytes_max: usize,
}

impl Batch {
    pub(super) fn new(events_max: usize, bytes_max: usize) -> Self {
        let (events, runs) = (Vec::new(), Vec::new());
        Self { events, runs, run_events: 0, bytes: 0, events_max, bytes_max }
    }
    /// Events that still fit.
    pub(super) fn room(&self) -> usize {
        self.events_max - self.events.len()
    }
    pub(super) fn bytes_max(&self) -> usize {
        self.bytes_max
    }
    /// How many events of a group of `bytes` may still come; some of one always fit.
    pub(super) fn room_for_run(&self, bytes: usize) -> usize {
        match !self.runs.is_empty() && self.bytes + bytes > self.bytes_max {
            true => 0,
            false => self.events_max - self.run_events,
        }
    }
    /// Takes as many events as there was room for.
    pub(super) fn push_run(&mut self, run: Run) {
        self.bytes += run.slice.group().encoded().len();
        self.run_events += run.slice.len();
        self.runs.push(run);
    }
    /// Takes the event, or gives it back if the frame is full; one event always fits.
    fn push(&mut self, event: PlacedEvent, global_position: Option<u64>) -> Option<PlacedEvent> {
        let bytes = self.bytes + event.event.encoded.len();
        if self.room() == 0 || (!self.events.is_empty() && bytes > self.bytes_max) {
            return Some(event);
        }
        self.bytes = bytes;
        self.events.push(Delivered { event, global_position });
        None
    }
}

/// How a step of a walk ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// There may be more: the frame is full, or the step's share of work is done.
    More,
    /// This is the end of what is there now.
    End,
}

/// A way through a shard's events, one bounded step at a time. May wait for the disk.
pub(super) trait Walk<V: View>: Send + 'static {
    /// Goes on, putting what matches into `batch`.
    fn step(&mut self, view: &V, batch: &mut Batch) -> Result<Step, StoreError>;
    /// What is covered; `None` in walks that no cursor resumes.
    fn covered(&self) -> Option<&Context>;
    /// Events between here and the end, of those that can be walked.
    fn behind(&self, view: &V) -> u64;
    /// Whether events beyond here are held, but not to be walked yet.
    fn blocked(&self, _view: &V) -> bool {
        false
    }
}

/// What a forward walk covers, and what it delivers: the rule of the module's introduction.
#[derive(Debug)]
pub(super) struct Coverage {
    pub(super) covered: Context,
    pub(super) selection: Selection,
}

impl Coverage {
    /// Takes the walk past an event: delivers it if it is `wanted`, matches, and was not covered.
    ///
    /// Gives it back if the frame is full: then it is still to come.
    pub(super) fn pass(
        &mut self,
        event: PlacedEvent,
        global_position: Option<u64>,
        wanted: bool,
        batch: &mut Batch,
    ) -> Option<PlacedEvent> {
        let seq = event.seq();
        if seq <= self.covered.seq(event.origin()) {
            return None;
        }
        // Shares the command, so that the origin outlives the event's way into the frame.
        let source = event.source.clone();
        if wanted && self.selection.matches(&event.event) {
            let back = batch.push(event, global_position);
            if back.is_some() {
                return back;
            }
        }
        self.covered.advance(source.group().origin(), seq);
        None
    }
}

/// Delivers an event of a backward walk if it matches. Gives it back if the frame is full.
pub(super) fn pass_back(
    selection: &Selection,
    event: PlacedEvent,
    global_position: Option<u64>,
    batch: &mut Batch,
) -> Option<PlacedEvent> {
    match selection.matches(&event.event) {
        true => batch.push(event, global_position),
        false => None,
    }
}

/// The dots of `delivered` as a cut.
pub(super) fn seen(delivered: &[Delivered], into: &mut Context) {
    for Dot { origin, seq } in delivered.iter().map(|delivered| delivered.event.dot()) {
        into.advance(&origin, seq);
    }
}
