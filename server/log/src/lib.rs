//! The durable log of one shard: segments, index, checkpoints. It knows no protocol.
//!
//! The Raft log *is* the event log, written once. [`disk`] is the seam below everything; [`log`]
//! keeps Raft entries in segment files with group commit and crash rules; [`index`] finds events in
//! them; [`store`] reads events back; [`derived`] keeps what can always be rebuilt.
#![deny(missing_docs)]

mod cache;
pub mod derived;
pub mod disk;
pub mod error;
mod failure;
mod hard_state;
pub mod index;
pub mod log;
mod offsets;
pub mod options;
mod reader;
pub mod record;
mod recovery;
mod reserve;
mod roll;
mod segment;
mod stall;
mod state;
pub mod store;
#[cfg(test)]
mod testing;
pub mod writer;

pub use error::{LogError, OpenError, ReadError};
pub use hard_state::{HARD_STATE_PART_MAX, HardState};
pub use log::{Done, Log, Opened, Room, SegmentInfo, TornTail};
pub use options::LogOptions;
pub use record::{Record, RecordId, RecordKind};
pub use writer::Writer;
