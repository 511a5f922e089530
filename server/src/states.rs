//! The store of what is derived from a shard's log, which several followers share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anabranch_log::derived::states::{Change, MemoryStates, StateError, States};
use bytes::Bytes;
use parking_lot::RwLock;

/// States that tell whether somebody has removed all of them, and that go on in memory if they cannot be.
///
/// A follower that finds its states in doubt removes everything, other followers' states as well. Theirs
/// are rows that nobody would miss by looking at the others; so they look here.
pub struct SharedStates {
    states: RwLock<Arc<dyn States>>,
    removals: AtomicU64,
}

impl SharedStates {
    /// Over states that nobody else uses.
    pub fn over(states: Arc<dyn States>) -> Self {
        Self { states: RwLock::new(states), removals: AtomicU64::new(0) }
    }
    /// Changes before all states are removed, and again after.
    pub(crate) fn removals(&self) -> u64 {
        self.removals.load(Ordering::SeqCst)
    }

    fn held(&self) -> Arc<dyn States> {
        Arc::clone(&self.states.read())
    }

    /// What cannot even be removed is of no more use: all of it is derived, so it is kept in memory then.
    fn remove_everything(&self) {
        self.removals.fetch_add(1, Ordering::SeqCst);
        if let Err(error) = self.held().remove_all(&[]) {
            tracing::error!(%error, "aggregates and conflicts are kept in memory until the next start");
            *self.states.write() = Arc::new(MemoryStates::new());
        }
        self.removals.fetch_add(1, Ordering::SeqCst);
    }
}

impl States for SharedStates {
    fn write(&self, changes: &[Change]) -> Result<(), StateError> {
        self.held().write(changes)
    }
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StateError> {
        self.held().get(key)
    }
    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Bytes)>, StateError> {
        self.held().scan(prefix, after, limit)
    }
    /// Never fails for the empty prefix.
    fn remove_all(&self, prefix: &[u8]) -> Result<(), StateError> {
        if !prefix.is_empty() {
            return self.held().remove_all(prefix);
        }
        self.remove_everything();
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// Keeps nothing that was asked of it.
    pub(crate) struct Broken;

    impl States for Broken {
        fn write(&self, _: &[(Vec<u8>, Option<Bytes>)]) -> Result<(), StateError> {
            Err(StateError::OutOfUse)
        }
        fn get(&self, _: &[u8]) -> Result<Option<Bytes>, StateError> {
            Err(StateError::OutOfUse)
        }
        fn scan(
            &self,
            _: &[u8],
            _: Option<&[u8]>,
            _: usize,
        ) -> Result<Vec<(Vec<u8>, Bytes)>, StateError> {
            Err(StateError::OutOfUse)
        }
        fn remove_all(&self, _: &[u8]) -> Result<(), StateError> {
            Err(StateError::OutOfUse)
        }
    }
}
