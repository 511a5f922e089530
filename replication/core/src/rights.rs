//! Rights: how much of a bounded counter a region may take away without asking anybody.
//!
//! A bounded counter never goes below zero, whichever regions cannot see each other. It is the sum of
//! *rights* that regions hold. Whoever earns adds to the rights of its own region, spending uses them up,
//! and passing gives them to another region, which has them once it holds the event. A region decides
//! about its own rights alone, from its own log, so no region ever spends what another one spends too.
//!
//! They change by events of type [`EVENT_TYPE`]. The ledger here says what *this* region may spend; that
//! a retry reached two regions makes no difference to it: both spent. What readers see of a counter, the
//! aggregates say, from the same events.

use std::collections::HashMap;

use crate::aggregate::{Action, BadOperation, Operations};
use crate::codec::{DecodeError, Put, Reader};
use crate::id::RegionName;

/// Type of the events that change rights.
pub const EVENT_TYPE: &str = "$rights";

/// A bounded counter: a field of the aggregate of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Counter {
    /// The stream.
    pub stream: Box<str>,
    /// The field.
    pub field: Box<str>,
}

/// What one operation does to the rights of one region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) counter: Counter,
    pub(crate) change: Change,
    /// To whom they pass.
    pub(crate) to: Option<RegionName>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Gain(u64),
    Lose(u64),
}

impl Change {
    /// What is held after it; `None` if that is not enough for it.
    pub(crate) fn of(self, held: u128) -> Option<u128> {
        match self {
            Self::Gain(amount) => Some(held.saturating_add(amount.into())),
            Self::Lose(amount) => held.checked_sub(amount.into()),
        }
    }
}

/// What an event of type [`EVENT_TYPE`] of a region `by` does to the rights of the region `own`.
///
/// # Errors
/// [`BadOperation`]: nothing, in every region alike.
pub(crate) fn steps(
    own: &RegionName,
    by: &RegionName,
    stream: &str,
    payload: &[u8],
) -> Result<Vec<Step>, BadOperation> {
    let operations = Operations::from_json(payload)?.operations;
    let step = |operation: crate::aggregate::Operation| {
        let change = match &operation.action {
            Action::Earn(amount) if own == by => Change::Gain(*amount),
            Action::Spend(amount) if own == by => Change::Lose(*amount),
            // To itself: nothing changes.
            Action::Pass { to, .. } if to == by => return None,
            Action::Pass { amount, .. } if own == by => Change::Lose(*amount),
            Action::Pass { amount, to } if own == to => Change::Gain(*amount),
            _ => return None,
        };
        let counter = Counter { stream: stream.into(), field: operation.field.as_str().into() };
        let to = match operation.action {
            Action::Pass { to, .. } => Some(to),
            _ => None,
        };
        Some(Step { counter, change, to })
    };
    Ok(operations.into_iter().filter_map(step).collect())
}

/// The rights of one region.
///
/// Looked up by counter only; wherever the order could be seen, it is sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rights {
    held: HashMap<Counter, u128>,
}

impl Rights {
    /// What the region may spend of a counter.
    pub fn of(&self, counter: &Counter) -> u128 {
        self.held.get(counter).copied().unwrap_or_default()
    }

    /// Takes an event of type [`EVENT_TYPE`] in. One that is badly formed says nothing.
    pub(crate) fn take(&mut self, own: &RegionName, by: &RegionName, stream: &str, payload: &[u8]) {
        for Step { counter, change, .. } in steps(own, by, stream, payload).unwrap_or_default() {
            let held = self.held.entry(counter).or_default();
            *held = change.of(*held).unwrap_or_default();
        }
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let mut held: Vec<_> = self.held.iter().collect();
        held.sort_unstable();
        out.put_varint(held.len() as u64);
        for (counter, amount) in held {
            out.put_slice_with_len(counter.stream.as_bytes());
            out.put_slice_with_len(counter.field.as_bytes());
            out.put_u128(*amount);
        }
    }

    pub(crate) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let mut rights = Self::default();
        for _ in 0..reader.count("rights", 18)? {
            let stream = reader.text("stream of rights")?.as_str().into();
            let field = reader.text("field of rights")?.as_str().into();
            rights.held.insert(Counter { stream, field }, reader.u128("rights")?);
        }
        Ok(rights)
    }
}
