//! Reading events: bounded reads and subscriptions, in both orders.
//!
//! A [`Reader`] is pulled: it holds a place in the log and at most the frame it is making. What waits
//! for a slow consumer is the consumer's; nothing is queued for it here, and what it has not read yet
//! stays where it is: in the log.
//!
//! A reader knows what it *covers*: the events that were delivered, passed over, or covered by the
//! cursor it began with. An event is delivered if it is not covered yet and matches. Whatever the walk
//! (by position, by revision, in global order), that rule alone makes a cursor from any region resume
//! here: the walk begins at or before the first event that is not covered, and what it meets twice it
//! passes over. [`place`] finds where to begin.

mod error;
mod filter;
mod global;
mod global_back;
mod place;
mod reader;
mod regional;
mod runs;
mod spec;
mod stream;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod view;
mod walk;

pub(crate) use global::Order;
pub(crate) use place::{Snapshot, first_uncovered};

pub use error::ReadError;
pub use filter::Filter;
pub use reader::{Content, Frame, Reader};
pub use spec::{Direction, From, Spec, Target, Tuning};
pub use view::{NotCovered, View, await_covered};
pub use walk::{Delivered, Run};
