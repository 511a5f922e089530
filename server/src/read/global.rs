//! The global order, forwards: a merge of the origins, up to what is final.

use std::collections::VecDeque;
use std::sync::Arc;

use anabranch_core::order::{Finality, Merge, Mergeable, Next};
use anabranch_core::{Context, Stamp};
use anabranch_log::store::{GroupSlice, PlacedEvent, Store, StoreError};

use super::view::View;
use super::walk::{Batch, Coverage, Step, Walk};

/// Events looked at in one step.
const STEP_EVENTS: usize = 2048;
/// Bytes of groups read ahead of each origin.
const READ_BYTES: usize = 256 * 1024;

/// The merge over a store: reads what the merge lacks.
pub(crate) struct Order {
    merge: Merge<GroupSlice>,
}

impl Order {
    /// Goes on after `cut`, which is a cut of the global order.
    pub(crate) fn after(cut: Context) -> Self {
        Self { merge: Merge::after(cut) }
    }
    /// Everything before the next group.
    pub(crate) fn cut(&self) -> &Context {
        self.merge.cut()
    }
    /// Global position of the next group's next event.
    pub(crate) fn position(&self) -> u64 {
        self.merge.position()
    }

    /// The next group, if `finality` says that it is final.
    pub(crate) fn next(
        &mut self,
        store: &Store,
        finality: &Finality,
    ) -> Result<Option<Next<GroupSlice>>, StoreError> {
        for (origin, from) in self.merge.needs(finality) {
            let slices = store.read_origin(&origin, from, READ_BYTES)?;
            self.merge.push(&origin, slices.into_iter().map(mergeable));
        }
        Ok(self.merge.next(finality))
    }
}

fn mergeable(slice: GroupSlice) -> Mergeable<GroupSlice> {
    let group = slice.group();
    let (first, last) = (group.first(), group.last());
    Mergeable { first, last, stamp: group.stamp(), chain: group.chain(), item: slice }
}

/// The events of a group that are to come, with their global positions.
pub(super) fn placed(next: &Next<GroupSlice>) -> VecDeque<(PlacedEvent, u64)> {
    let first = next.first;
    let events = next.group.item.events().filter(|event| event.seq() >= first);
    events.zip(next.position..).collect()
}

/// The first event that a walk delivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begin {
    /// The first that is not covered.
    Here,
    /// The one at this global position.
    Position(u64),
    /// The first stamped so, or later.
    Stamp(Stamp),
    /// The first that is not final yet when the walk begins.
    End,
}

/// Forwards in global order.
pub(super) struct Ordered {
    order: Order,
    /// What is left of the group that the merge gave last.
    pending: VecDeque<(PlacedEvent, u64)>,
    begin: Begin,
    /// Ends a bounded walk: what was final when it began.
    bound: Option<Arc<Finality>>,
    /// Events are in front that are not final.
    blocked: bool,
    coverage: Coverage,
}

impl Ordered {
    /// After `cut`, a cut of the global order of which everything is in `coverage`.
    pub(super) fn new(
        cut: Context,
        begin: Begin,
        bound: Option<Arc<Finality>>,
        coverage: Coverage,
    ) -> Self {
        let (order, pending) = (Order::after(cut), VecDeque::new());
        Self { order, pending, begin, bound, blocked: false, coverage }
    }

    fn begun(&mut self, event: &PlacedEvent, position: u64) -> bool {
        let begun = match self.begin {
            Begin::Here => true,
            Begin::Position(first) => first <= position,
            Begin::Stamp(first) => first <= event.stamp(),
            Begin::End => false,
        };
        if begun {
            self.begin = Begin::Here;
        }
        begun
    }

    /// Position of the next event to deliver.
    fn position(&self) -> u64 {
        self.pending.front().map_or(self.order.position(), |(_, position)| *position)
    }
}

impl<V: View> Walk<V> for Ordered {
    fn step(&mut self, view: &V, batch: &mut Batch) -> Result<Step, StoreError> {
        let finality = self.bound.clone().unwrap_or_else(|| view.finality());
        let mut looked_at = 0;
        loop {
            while let Some((event, position)) = self.pending.pop_front() {
                let wanted = self.begun(&event, position);
                if let Some(event) = self.coverage.pass(event, Some(position), wanted, batch) {
                    self.pending.push_front((event, position));
                    return Ok(Step::More);
                }
                looked_at += 1;
            }
            if looked_at >= STEP_EVENTS {
                return Ok(Step::More);
            }
            match self.order.next(view.store(), &finality)? {
                Some(next) => self.pending = placed(&next),
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
        Some(&self.coverage.covered)
    }
    fn behind(&self, view: &V) -> u64 {
        view.final_position().saturating_sub(self.position())
    }
    fn blocked(&self, _view: &V) -> bool {
        self.blocked
    }
}
