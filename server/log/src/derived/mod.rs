//! What can always be rebuilt from the log: checkpoints, and many small [`states`] beside them.
//!
//! Checkpoints are large states, written once in a while. A checkpoint stands for an index of the log:
//! it says what applying the log up to there gives. It is derived, so losing one costs time and nothing
//! else; what must not happen is that a damaged one is believed. The last two generations of every name
//! are kept, each in a file of which every part is checked, and a damaged one is passed over as if it
//! were not there.

pub mod conformance;
mod files;
mod format;
pub mod states;

use std::sync::Arc;

use bytes::Bytes;

pub use self::files::FileCheckpoints;
pub use self::states::{OpenError, Opened, StateError, States};

/// A state and the log index it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Applying the log up to and including this entry gives the state.
    pub at: u64,
    /// The state, encoded by whoever put it.
    pub bytes: Bytes,
}

/// Why a checkpoint was not kept. Earlier ones are still there.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// It is no name: checkpoints are files that are called after it.
    #[error(
        "{name:?} is no name for a checkpoint: 1 to {} of a to z, 0 to 9 and hyphens",
        NAME_BYTES_MAX
    )]
    Name {
        /// The name given.
        name: String,
    },
    /// The disk failed or is full; it may or may not have been written. A later one may succeed.
    #[error("put checkpoint {name} at entry {at}: {reason}")]
    Failed {
        /// Name of the checkpoint.
        name: String,
        /// Log index it was to stand for.
        at: u64,
        /// What the disk said.
        reason: String,
    },
}

/// Keeps the latest states under names. Every implementation passes [`conformance::check`].
pub trait Checkpoints: Send + Sync + 'static {
    /// Keeps the state made of `parts`, one after the other, that stands for entry `at`. When this
    /// returns it is durable, as far as the disk can be trusted; readers check it anyhow.
    ///
    /// # Errors
    /// Any [`CheckpointError`]; what was there before is still there.
    fn put(&self, name: &str, at: u64, parts: &[Bytes]) -> Result<(), CheckpointError>;

    /// The newest state under `name` that is whole.
    ///
    /// Shape: nothing if there is none: rebuild it from the log.
    fn latest(&self, name: &str) -> Option<Checkpoint>;

    /// Forgets every state under `name`.
    ///
    /// # Errors
    /// Any [`CheckpointError`].
    fn forget(&self, name: &str) -> Result<(), CheckpointError>;

    /// The states kept beside the checkpoints.
    fn beside(&self) -> Arc<dyn States>;
}

/// Number of states kept under each name.
pub const GENERATIONS: usize = 2;

/// Most bytes of a name.
pub const NAME_BYTES_MAX: usize = 64;

fn check_name(name: &str) -> Result<(), CheckpointError> {
    let may_be_in = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    let sound = (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(may_be_in);
    if sound { Ok(()) } else { Err(CheckpointError::Name { name: name.to_owned() }) }
}
