//! One store of states that several followers share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anabranch_log::derived::states::{Change, StateError, States};
use bytes::Bytes;

/// States that tell whether somebody has removed all of them.
///
/// A follower that finds its states in doubt removes everything, other followers' states as well. Theirs
/// are rows that nobody would miss by looking at the others; so they look here.
pub struct SharedStates {
    states: Arc<dyn States>,
    removals: AtomicU64,
}

impl SharedStates {
    /// Over states that nobody else uses.
    pub fn over(states: Arc<dyn States>) -> Self {
        Self { states, removals: AtomicU64::new(0) }
    }
    /// Changes before all states are removed, and again after.
    pub(super) fn removals(&self) -> u64 {
        self.removals.load(Ordering::SeqCst)
    }
}

impl States for SharedStates {
    fn write(&self, changes: &[Change]) -> Result<(), StateError> {
        self.states.write(changes)
    }
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StateError> {
        self.states.get(key)
    }
    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Bytes)>, StateError> {
        self.states.scan(prefix, after, limit)
    }
    fn remove_all(&self, prefix: &[u8]) -> Result<(), StateError> {
        if !prefix.is_empty() {
            return self.states.remove_all(prefix);
        }
        self.removals.fetch_add(1, Ordering::SeqCst);
        let removed = self.states.remove_all(prefix);
        self.removals.fetch_add(1, Ordering::SeqCst);
        removed
    }
}
