//! The global order, backwards: block by block, each walked forwards from a mark and kept until it is
//! delivered, newest first. Only the newest part of a block is kept if it is large; the rest is walked
//! again when it is its turn.

use std::collections::VecDeque;
use std::sync::Arc;

use anabranch_core::order::{Finality, Next};
use anabranch_core::{Context, Stamp};
use anabranch_log::store::{GroupSlice, PlacedEvent, StoreError};

use super::filter::Selection;
use super::global::{Order, placed};
use super::view::View;
use super::walk::{Batch, Step, Walk, pass_back};

/// Bytes of groups kept of a block; one group always is.
const BLOCK_BYTES: usize = 8 * 1024 * 1024;
/// Groups walked in one step.
const STEP_GROUPS: usize = 2048;

/// Before what the events lie that are still to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Before {
    /// The end of what is final.
    End,
    /// This global position.
    Position(u64),
    /// The first event stamped so, or later.
    Stamp(Stamp),
}

/// Backwards in global order.
pub(super) struct OrderedBack {
    before: Before,
    finality: Arc<Finality>,
    block: Option<Block>,
    /// Events of the newest group of a walked block, oldest first.
    pending: VecDeque<(PlacedEvent, u64)>,
    selection: Selection,
}

/// The groups from a mark on, as far as they were walked.
struct Block {
    /// Global position of the mark.
    start: u64,
    order: Order,
    groups: VecDeque<Next<GroupSlice>>,
    bytes: usize,
    walked: bool,
}

impl OrderedBack {
    /// The events before `before`, of those that `finality` says are final.
    pub(super) fn new(before: Before, finality: Arc<Finality>, selection: Selection) -> Self {
        Self { before, finality, block: None, pending: VecDeque::new(), selection }
    }

    /// Begins the block that ends where the walk is; none if that is the start.
    fn begin_block(&self, view: &impl View) -> Option<Block> {
        let mark = match self.before {
            Before::End => view.seek_global(u64::MAX),
            Before::Position(end) => view.seek_global(end.checked_sub(1)?),
            Before::Stamp(stamp) => view.mark_before(stamp),
        };
        let cut = mark.map_or_else(Context::new, |mark| mark.cut);
        let order = Order::after(cut);
        let start = order.position();
        Some(Block { start, order, groups: VecDeque::new(), bytes: 0, walked: false })
    }

    /// Delivers what is pending; false if the frame is full before all is.
    fn deliver(&mut self, batch: &mut Batch) -> bool {
        while let Some((event, position)) = self.pending.pop_back() {
            if let Some(event) = pass_back(&self.selection, event, Some(position), batch) {
                self.pending.push_back((event, position));
                return false;
            }
            self.before = Before::Position(position);
        }
        true
    }
}

impl Block {
    /// Walks on, at most to `before`.
    fn walk(
        &mut self,
        view: &impl View,
        finality: &Finality,
        before: Before,
    ) -> Result<(), StoreError> {
        for _ in 0..STEP_GROUPS {
            let reached = matches!(before, Before::Position(end) if self.order.position() >= end);
            let next = match reached {
                true => None,
                false => self.order.next(view.store(), finality)?,
            };
            let beyond = |next: &Next<GroupSlice>| matches!(before, Before::Stamp(stamp) if stamp <= next.group.stamp);
            let Some(next) = next.filter(|next| !beyond(next)) else {
                self.walked = true;
                return Ok(());
            };
            self.bytes += next.group.item.group().encoded().len();
            self.groups.push_back(next);
            while self.bytes > BLOCK_BYTES && self.groups.len() > 1 {
                let oldest = self.groups.pop_front().expect("there are two");
                self.bytes -= oldest.group.item.group().encoded().len();
            }
        }
        Ok(())
    }
}

impl<V: View> Walk<V> for OrderedBack {
    fn step(&mut self, view: &V, batch: &mut Batch) -> Result<Step, StoreError> {
        loop {
            if !self.deliver(batch) {
                return Ok(Step::More);
            }
            let mut block = match self.block.take() {
                Some(block) => block,
                None => match self.begin_block(view) {
                    Some(block) => block,
                    None => return Ok(Step::End),
                },
            };
            if !block.walked {
                block.walk(view, &self.finality, self.before)?;
                if block.walked && block.groups.is_empty() {
                    // The mark lies where the walk begins: the block before it is next.
                    self.before = Before::Position(block.start);
                    return Ok(if block.start == 0 { Step::End } else { Step::More });
                }
                self.block = Some(block);
                return Ok(Step::More);
            }
            if let Some(newest) = block.groups.pop_back() {
                self.pending = placed(&newest);
                if let Before::Position(end) = self.before {
                    self.pending.retain(|(_, position)| *position < end);
                }
                self.block = Some(block);
            }
        }
    }

    fn covered(&self) -> Option<&Context> {
        None
    }
    fn behind(&self, _view: &V) -> u64 {
        0
    }
}
