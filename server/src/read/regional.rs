//! The regional order, by position: categories and everything.

use anabranch_core::Context;
use anabranch_log::index::Direction;
use anabranch_log::store::StoreError;

use super::filter::Selection;
use super::place::{Snapshot, cut_at};
use super::view::View;
use super::walk::{Batch, Coverage, Step, Walk, pass_back};

/// Events looked at in one step.
const SCAN_EVENTS: usize = 2048;

/// Where a bounded walk ends: before this position.
pub(super) type End = Option<u64>;

/// Forwards by position.
pub(super) struct Scan {
    next: u64,
    /// Events before this position are passed over.
    first_wanted: u64,
    end: End,
    coverage: Coverage,
}

impl Scan {
    /// From `next` on, where every event before `next` is in `covered` or not wanted.
    pub(super) fn new(
        next: u64,
        first_wanted: u64,
        end: End,
        covered: Context,
        selection: Selection,
    ) -> Self {
        Self { next, first_wanted, end, coverage: Coverage { covered, selection } }
    }

    /// Skips segments that hold nothing of interest; says whether there were any.
    fn skip<V: View>(&mut self, view: &V, end: u64) -> Result<bool, StoreError> {
        let wanted = self.coverage.selection.wanted();
        if wanted.is_empty() {
            return Ok(false);
        }
        let candidate = view.store().next_candidate(self.next, &wanted)?.min(end);
        if candidate <= self.next {
            return Ok(false);
        }
        let cut = cut_at(view.store(), &Snapshot::of(view), candidate)?;
        self.coverage.covered.merge(&cut);
        self.next = candidate;
        Ok(true)
    }
}

impl<V: View> Walk<V> for Scan {
    fn step(&mut self, view: &V, batch: &mut Batch) -> Result<Step, StoreError> {
        let held = view.region(|region| region.position());
        let end = self.end.map_or(held, |end| end.min(held));
        let mut looked_at = 0;
        while self.next < end && looked_at < SCAN_EVENTS {
            if self.skip(view, end)? {
                return Ok(Step::More);
            }
            let (events, bytes) = (batch.room().max(1), batch.bytes_max());
            let slices =
                view.store().read_positions(self.next, Direction::Forward, events, bytes)?;
            if slices.is_empty() {
                return Ok(Step::More);
            }
            for event in slices.iter().flat_map(|slice| slice.events()) {
                if event.position >= end {
                    break;
                }
                let (position, wanted) = (event.position, event.position >= self.first_wanted);
                if self.coverage.pass(event, None, wanted, batch).is_some() {
                    return Ok(Step::More);
                }
                self.next = position + 1;
                looked_at += 1;
            }
        }
        Ok(if self.next < end { Step::More } else { Step::End })
    }

    fn covered(&self) -> Option<&Context> {
        Some(&self.coverage.covered)
    }
    fn behind(&self, view: &V) -> u64 {
        view.region(|region| region.position()).saturating_sub(self.next)
    }
}

/// Backwards by position.
pub(super) struct ScanBack {
    /// The events still to come are before this position.
    end: u64,
    selection: Selection,
}

impl ScanBack {
    /// The events before `end`.
    pub(super) fn new(end: u64, selection: Selection) -> Self {
        Self { end, selection }
    }
}

impl<V: View> Walk<V> for ScanBack {
    fn step(&mut self, view: &V, batch: &mut Batch) -> Result<Step, StoreError> {
        let mut looked_at = 0;
        while looked_at < SCAN_EVENTS {
            let Some(newest) = self.end.checked_sub(1) else { return Ok(Step::End) };
            let (events, bytes) = (batch.room().max(1), batch.bytes_max());
            let slices = view.store().read_positions(newest, Direction::Backward, events, bytes)?;
            if slices.is_empty() {
                return Ok(Step::End);
            }
            for event in slices.iter().flat_map(|slice| slice.events().rev()) {
                let position = event.position;
                if pass_back(&self.selection, event, None, batch).is_some() {
                    return Ok(Step::More);
                }
                self.end = position;
                looked_at += 1;
            }
        }
        Ok(Step::More)
    }

    fn covered(&self) -> Option<&Context> {
        None
    }
    fn behind(&self, _view: &V) -> u64 {
        0
    }
}
