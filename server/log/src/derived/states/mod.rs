//! Many small states under keys: what was folded from the log, and how far the folding has come.
//!
//! A state is derived, so losing one costs time and nothing else; what must not happen is that a
//! damaged one is believed, or that two which belong together part. So what belongs together, such as
//! an aggregate and the place in the log up to which it was folded, goes into one
//! [`write`](States::write), which is kept whole or not at all; and every value carries a checksum
//! over its key and itself, so that one which was changed, or stands in another's place, is an error.

pub mod conformance;
mod memory;
mod seal;
mod sled;
#[cfg(test)]
mod tests;

use std::ops::Bound;

use bytes::Bytes;

pub use self::memory::MemoryStates;
pub use self::sled::{OpenError, Opened, SledStates};

/// Most bytes of a key. It has at least one.
pub const KEY_BYTES_MAX: usize = 1024;
/// Most bytes of a state.
pub const STATE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Most changes in one write.
pub const CHANGES_MAX: usize = 10_000;

/// A key, and the state to put under it; none removes what is there.
pub type Change = (Vec<u8>, Option<Bytes>);

/// Why states were not written, or could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// Nothing was done: the key is empty or too long.
    #[error("a key has 1 to {} bytes, not {bytes}", KEY_BYTES_MAX)]
    Key {
        /// Bytes of the key given.
        bytes: usize,
    },
    /// Nothing was written: a state is too large.
    #[error(
        "the state for key \"{}\" has {bytes} bytes, at most {} are kept",
        .key.escape_ascii(),
        STATE_BYTES_MAX
    )]
    TooLarge {
        /// The key it was for.
        key: Vec<u8>,
        /// Bytes of the state.
        bytes: usize,
    },
    /// Nothing was written: there are too many changes.
    #[error("a write of {changes} changes, at most {} go into one", CHANGES_MAX)]
    TooMany {
        /// Number of changes given.
        changes: usize,
    },
    /// What is under the key is not what was put there. Put it again, or remove it.
    #[error("the state under key \"{}\" fails its checksum", .key.escape_ascii())]
    Damaged {
        /// The key it was found under.
        key: Vec<u8>,
    },
    /// The store underneath failed to read.
    #[error("read states at key \"{}\": {reason}", .key.escape_ascii())]
    Read {
        /// The key or prefix that was to be read.
        key: Vec<u8>,
        /// What the store said.
        reason: String,
    },
    /// The store underneath failed to write. It is out of use, and opened again it holds all of it or
    /// none, or is in doubt.
    #[error("write {changes} states: {reason}")]
    Write {
        /// Number of changes given.
        changes: usize,
        /// What the store said.
        reason: String,
    },
    /// The store underneath failed to remove; some may have been removed.
    #[error("remove the states under \"{}\": {reason}", .prefix.escape_ascii())]
    Remove {
        /// What their keys begin with.
        prefix: Vec<u8>,
        /// What the store said.
        reason: String,
    },
    /// A write failed half-way before the store was opened, and states that belong together may have
    /// parted. None is read or written until all are removed.
    #[error("a write of states failed half-way; all of them are to be removed and folded again")]
    InDoubt,
    /// The store underneath failed before and is not used until it is opened again.
    #[error("the store of states is out of use until it is opened again")]
    OutOfUse,
}

/// Keeps many small states under keys, all derived from the log. Every implementation passes
/// [`conformance::check`].
///
/// Shape: keys have 1 to [`KEY_BYTES_MAX`] bytes and sort as bytes do; a state has up to
/// [`STATE_BYTES_MAX`] bytes and may be empty.
///
/// Whoever meets [`StateError::InDoubt`] calls [`remove_all`](Self::remove_all) with the empty prefix
/// and folds from the beginning of the log.
pub trait States: Send + Sync + 'static {
    /// Puts and removes all of `changes` or none, also over a crash. When this returns they are
    /// durable, as far as the store underneath can be trusted.
    ///
    /// Shape: up to [`CHANGES_MAX`]. Of two changes to one key the later counts. Removing what is not
    /// there changes nothing.
    /// # Errors
    /// [`StateError::Key`], [`StateError::TooLarge`] and [`StateError::TooMany`] if a limit is passed,
    /// and then nothing is written; [`StateError::Write`] if the store underneath fails;
    /// [`StateError::InDoubt`], [`StateError::OutOfUse`].
    fn write(&self, changes: &[Change]) -> Result<(), StateError>;

    /// The state under `key`.
    ///
    /// Shape: none if there is none: it was never put, was removed, or lost.
    /// # Errors
    /// [`StateError::Damaged`] if what is there fails its checksum; [`StateError::Key`] if it is no
    /// key; [`StateError::Read`] if the store underneath fails; [`StateError::InDoubt`],
    /// [`StateError::OutOfUse`].
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StateError>;

    /// The states whose keys begin with `prefix` and come after `after`, in the order of keys.
    ///
    /// Shape: up to `limit`, and fewer only if there are no more. `after` is exclusive; without it,
    /// from the first. The empty prefix is every key's. One scan sees each write whole or not at all;
    /// between two, writes may have come in.
    /// # Errors
    /// [`StateError::Damaged`] with the first key whose state fails its checksum, and no states: go on
    /// after that key; [`StateError::Read`] if the store underneath fails; [`StateError::InDoubt`],
    /// [`StateError::OutOfUse`].
    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Bytes)>, StateError>;

    /// Removes every state whose key begins with `prefix`, damaged ones too.
    ///
    /// Shape: in bounded steps, so others may see some gone and some not. What is written under the
    /// prefix meanwhile may go or stay.
    /// # Errors
    /// [`StateError::Remove`] if the store underneath fails; [`StateError::InDoubt`] unless the prefix
    /// is empty; [`StateError::OutOfUse`].
    fn remove_all(&self, prefix: &[u8]) -> Result<(), StateError>;
}

fn check_key(key: &[u8]) -> Result<(), StateError> {
    let bytes = key.len();
    if (1..=KEY_BYTES_MAX).contains(&bytes) { Ok(()) } else { Err(StateError::Key { bytes }) }
}

fn check_changes(changes: &[Change]) -> Result<(), StateError> {
    if changes.len() > CHANGES_MAX {
        return Err(StateError::TooMany { changes: changes.len() });
    }
    for (key, state) in changes {
        check_key(key)?;
        let bytes = state.as_ref().map_or(0, Bytes::len);
        if bytes > STATE_BYTES_MAX {
            return Err(StateError::TooLarge { key: key.clone(), bytes });
        }
    }
    Ok(())
}

/// Where to begin looking for keys that begin with `prefix` and come after `after`.
fn first<'a>(prefix: &'a [u8], after: Option<&'a [u8]>) -> Bound<&'a [u8]> {
    match after {
        Some(after) if after >= prefix => Bound::Excluded(after),
        _ => Bound::Included(prefix),
    }
}
