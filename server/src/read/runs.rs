//! Whole groups, for a reader that wants everything: they go out as they are stored, and no event is
//! decoded or encoded for it.

use std::ops::Range;
use std::sync::Arc;

use anabranch_core::order::{Finality, Next};
use anabranch_core::{Context, Seq};
use anabranch_log::index::Direction;
use anabranch_log::store::{GroupSlice, StoreError};

use super::global::{Begin, Order};
use super::regional::End;
use super::view::View;
use super::walk::{Batch, Run, Step, Walk};

/// Events passed over in one step; what is delivered is bounded by the frame.
const STEP_EVENTS: u64 = 65_536;

/// What of a group is to come, with the position of its first event in the order that is read.
struct Part {
    slice: GroupSlice,
    position: u64,
}

impl Part {
    fn of_order(next: Next<GroupSlice>) -> Self {
        let (position, mut slice) = (next.position, next.group.item);
        slice.range.start += (next.first.0 - slice.seqs().start.0) as usize;
        Self { slice, position }
    }
    fn end(&self) -> u64 {
        self.position + self.slice.len() as u64
    }
    /// Without the first `events` of it; none if that is all.
    fn skip(mut self, events: u64) -> Option<Self> {
        let skipped = events.min(self.slice.len() as u64);
        self.slice.range.start += skipped as usize;
        self.position += skipped;
        (!self.slice.is_empty()).then_some(self)
    }
}

/// Takes the walk past a part of a group, of which nothing before position `first_wanted` and nothing that is
/// covered is delivered. Gives back what is still to come, if the frame is full.
fn pass(part: Part, first_wanted: u64, covered: &mut Context, batch: &mut Batch) -> Option<Part> {
    let origin = part.slice.group().origin().clone();
    let Range { start, end } = part.slice.seqs();
    let known = covered.seq(&origin).0.saturating_add(1).saturating_sub(start.0);
    let unwanted = first_wanted.saturating_sub(part.position);
    let left = match part.skip(known.max(unwanted)) {
        None => None,
        Some(wanted) => {
            let room = batch.room_for_run(wanted.slice.group().encoded().len());
            let (mut now, taken) = (wanted.slice.clone(), room.min(wanted.slice.len()));
            now.range.end = now.range.start + taken;
            if taken > 0 {
                batch.push_run(Run { slice: now, position: wanted.position });
            }
            wanted.skip(taken as u64)
        }
    };
    let passed = left.as_ref().map_or(end, |left| left.slice.seqs().start);
    covered.advance(&origin, Seq(passed.0 - 1));
    left
}

/// Forwards by position.
pub(super) struct RunScan {
    next: u64,
    first_wanted: u64,
    end: End,
    covered: Context,
}

impl RunScan {
    /// As [`Scan::new`](super::regional::Scan::new).
    pub(super) fn new(next: u64, first_wanted: u64, end: End, covered: Context) -> Self {
        Self { next, first_wanted, end, covered }
    }
}

impl<V: View> Walk<V> for RunScan {
    fn step(&mut self, view: &V, batch: &mut Batch) -> Result<Step, StoreError> {
        let held = view.region(|region| region.position());
        let end = self.end.map_or(held, |end| end.min(held));
        let until = end.min(self.next.saturating_add(STEP_EVENTS));
        while self.next < until {
            let (from, bytes) = (self.next, batch.bytes_max());
            let slices =
                view.store().read_positions(from, Direction::Forward, usize::MAX, bytes)?;
            if slices.is_empty() {
                return Ok(Step::More);
            }
            for mut slice in slices {
                let position = slice.positions().start;
                let within = usize::try_from(end.saturating_sub(position)).unwrap_or(usize::MAX);
                slice.range.end = slice.range.start + slice.len().min(within);
                if slice.is_empty() {
                    break;
                }
                let part = Part { slice, position };
                let end_position = part.end();
                if let Some(left) = pass(part, self.first_wanted, &mut self.covered, batch) {
                    self.next = left.position;
                    return Ok(Step::More);
                }
                self.next = end_position;
            }
        }
        Ok(if self.next < end { Step::More } else { Step::End })
    }

    fn covered(&self) -> Option<&Context> {
        Some(&self.covered)
    }
    fn behind(&self, view: &V) -> u64 {
        view.region(|region| region.position()).saturating_sub(self.next)
    }
}

/// Forwards in global order.
pub(super) struct RunOrder {
    order: Order,
    pending: Option<Part>,
    begin: Begin,
    bound: Option<Arc<Finality>>,
    blocked: bool,
    covered: Context,
}

impl RunOrder {
    /// As [`Ordered::new`](super::global::Ordered::new).
    pub(super) fn new(
        cut: Context,
        begin: Begin,
        bound: Option<Arc<Finality>>,
        covered: Context,
    ) -> Self {
        let (order, pending) = (Order::after(cut), None);
        Self { order, pending, begin, bound, blocked: false, covered }
    }

    /// The first position that is delivered, of this part or after it.
    fn first_wanted(&self, part: &Part) -> u64 {
        match self.begin {
            Begin::Here => 0,
            Begin::Position(first) => first,
            Begin::Stamp(first) if first <= part.slice.group().stamp() => 0,
            Begin::Stamp(_) | Begin::End => u64::MAX,
        }
    }

    fn position(&self) -> u64 {
        self.pending.as_ref().map_or(self.order.position(), |part| part.position)
    }
}

impl<V: View> Walk<V> for RunOrder {
    fn step(&mut self, view: &V, batch: &mut Batch) -> Result<Step, StoreError> {
        let finality = self.bound.clone().unwrap_or_else(|| view.finality());
        let until = self.position().saturating_add(STEP_EVENTS);
        loop {
            if let Some(part) = self.pending.take() {
                let (wanted, end) = (self.first_wanted(&part), part.end());
                self.pending = pass(part, wanted, &mut self.covered, batch);
                if self.pending.is_some() {
                    return Ok(Step::More);
                }
                if wanted < end {
                    self.begin = Begin::Here;
                }
            }
            if self.order.position() >= until {
                return Ok(Step::More);
            }
            match self.order.next(view.store(), &finality)? {
                Some(next) => self.pending = Some(Part::of_order(next)),
                None => break,
            }
        }
        self.blocked = finality.frontier().events() > self.order.position();
        if self.begin == Begin::End {
            self.begin = Begin::Here;
        }
        Ok(Step::End)
    }

    fn covered(&self) -> Option<&Context> {
        Some(&self.covered)
    }
    fn behind(&self, view: &V) -> u64 {
        view.final_position().saturating_sub(self.position())
    }
    fn blocked(&self, _view: &V) -> bool {
        self.blocked
    }
}
