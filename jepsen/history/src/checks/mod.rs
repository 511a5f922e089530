//! The laws, one file each: pure functions from the evidence to a verdict.
//!
//! Each file's head says what the law is, where it comes from, and what the check cannot see. What no
//! check here can see: anything that neither a client was told nor a region shows, and effects
//! between two moments at which somebody looked.

pub mod aggregates;
pub mod answers;
pub mod atomic;
pub mod bounded;
pub mod conflicts;
pub mod converge;
pub mod cursor;
pub mod durable;
pub mod exactly_once;
pub mod expected_revision;
pub mod fencing;
pub mod global_order;
pub mod homes;
pub mod honesty;
pub mod limits;
pub mod one_content;
pub mod operations;
pub mod prefix;
pub mod processes;
pub mod recovery;
pub mod selections;
pub mod sessions;
pub mod stamps;
#[cfg(test)]
pub(crate) mod testing;
pub mod walks;

use crate::case::Case;
use crate::evidence::Evidence;
pub use crate::verdict::{Broken, Verdict};

/// Checks one law.
pub type Check = fn(&Case<'_>) -> Verdict;

/// All laws.
pub const ALL: [Check; 24] = [
    processes::check,
    recovery::check,
    durable::check,
    exactly_once::check,
    prefix::check,
    one_content::check,
    converge::check,
    global_order::check,
    expected_revision::check,
    sessions::check,
    cursor::check,
    stamps::check,
    honesty::check,
    selections::check,
    aggregates::check,
    conflicts::check,
    homes::check,
    bounded::check,
    operations::check,
    atomic::check,
    fencing::check,
    walks::check,
    limits::check,
    answers::check,
];

/// Checks everything.
pub fn all(evidence: &Evidence) -> Vec<Verdict> {
    let case = Case::new(evidence);
    ALL.iter().map(|check| check(&case)).collect()
}
