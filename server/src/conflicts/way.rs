//! Ways through a shard's events: both orders, group by group.

use anabranch_core::{Context, ReadOrder};
use anabranch_log::index::Direction;
use anabranch_log::store::{GroupSlice, StoreError};

use crate::read::{Order, View};

/// Events and bytes read at once.
const READ_EVENTS: usize = 512;
const READ_BYTES: usize = 1024 * 1024;
/// Groups of the global order taken at once.
const GROUPS: usize = 128;

/// A way through the events, from wherever it was begun.
pub(super) enum Way {
    Regional,
    Global(Box<Order>),
}

impl Way {
    /// The way in `order`, after `cut`, which is a cut of that order at the end of a group.
    pub(super) fn after(order: ReadOrder, cut: &Context) -> Self {
        match order {
            ReadOrder::Regional => Self::Regional,
            ReadOrder::Global => Self::Global(Box::new(Order::after(cut.clone()))),
        }
    }

    /// Some of the groups that follow `walked`, in order; none at the end of what is there.
    pub(super) fn next(
        &mut self,
        view: &impl View,
        walked: &Context,
    ) -> Result<Vec<GroupSlice>, StoreError> {
        match self {
            Self::Regional => {
                // Positions are dense: the place of a cut of this order is the number of its events.
                let (from, end) = (walked.events(), view.region(|region| region.position()));
                if from >= end {
                    return Ok(Vec::new());
                }
                let forward = Direction::Forward;
                let mut slices =
                    view.store().read_positions(from, forward, READ_EVENTS, READ_BYTES)?;
                slices.retain(|slice| slice.source.end_position() <= end);
                Ok(slices)
            }
            Self::Global(order) => {
                let finality = view.finality();
                let mut groups = Vec::new();
                while groups.len() < GROUPS {
                    // What was taken from the order is not given again: an error comes after it.
                    match order.next(view.store(), &finality) {
                        Ok(Some(next)) => groups.push(next.group.item),
                        Ok(None) => break,
                        Err(error) if groups.is_empty() => return Err(error),
                        Err(_) => break,
                    }
                }
                Ok(groups)
            }
        }
    }
}
