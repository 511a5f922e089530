//! States in memory, for simulation.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::seal::{opened, sealed};
use super::{Change, StateError, States, check_changes, check_key, first};

/// Keeps states as long as one of its clones lives: over the restarts of a simulated node.
#[derive(Debug, Clone, Default)]
pub struct MemoryStates {
    pairs: Arc<Mutex<BTreeMap<Vec<u8>, Vec<u8>>>>,
}

impl MemoryStates {
    /// Keeps nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets everything, as a lost disk does.
    pub fn clear(&self) {
        self.pairs.lock().clear();
    }

    /// Inverts one bit of what is stored under `key`; says whether there was anything.
    pub fn flip_bit(&self, key: &[u8], bit: u64) -> bool {
        let mut pairs = self.pairs.lock();
        let Some(value) = pairs.get_mut(key) else { return false };
        let bit = bit as usize % (value.len() * 8);
        value[bit / 8] ^= 1 << (bit % 8);
        true
    }
}

impl States for MemoryStates {
    fn write(&self, changes: &[Change]) -> Result<(), StateError> {
        check_changes(changes)?;
        let mut pairs = self.pairs.lock();
        for (key, state) in changes {
            match state {
                Some(state) => pairs.insert(key.clone(), sealed(key, state)),
                None => pairs.remove(key),
            };
        }
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StateError> {
        check_key(key)?;
        self.pairs.lock().get(key).map(|found| opened(key, found)).transpose()
    }

    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Bytes)>, StateError> {
        let pairs = self.pairs.lock();
        pairs
            .range::<[u8], _>((first(prefix, after), Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .take(limit)
            .map(|(key, found)| Ok((key.clone(), opened(key, found)?)))
            .collect()
    }

    fn remove_all(&self, prefix: &[u8]) -> Result<(), StateError> {
        self.pairs.lock().retain(|key, _| !key.starts_with(prefix));
        Ok(())
    }
}
