//! Histories of runs, and the laws they are judged by. Pure: no task, no I/O, no clock of its own.
//!
//! ```text
//!  clients ──► ledger ──► history ─┐
//!  subscribers, observers ─────────┼──► evidence ──► checks (one file a law) ──► verdicts ──► excerpt
//!  final reads of every region ────┘        └──► JSON lines, to be compared and judged again
//! ```
//!
//! The same crate judges simulated clusters and clusters of real processes. Every check costs
//! O(n log n) and looks at nothing but the [`Evidence`].

pub mod board;
mod case;
pub mod checks;
pub mod content;
pub mod defined;
pub mod evidence;
mod excerpt;
pub mod intervals;
mod jsonl;
pub mod ledger;
pub mod note;
pub mod observation;
pub mod op;
pub mod said;
pub mod shape;
pub mod text;
mod verdict;

pub use case::{Case, Log};
pub use evidence::Evidence;
pub use excerpt::excerpt;
pub use jsonl::Unreadable;
pub use ledger::Ledger;
pub use verdict::{Broken, Verdict};
