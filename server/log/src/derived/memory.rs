//! Checkpoints in memory, for simulation.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::chunk::{generation_of, join, prefix, split};
use super::states::{MemoryStates, States};
use super::{Checkpoint, CheckpointError, Checkpoints, GENERATIONS, check_name};

/// Keeps checkpoints as long as one of its clones lives: over the restarts of a simulated node.
#[derive(Debug, Clone, Default)]
pub struct MemoryCheckpoints {
    pairs: Arc<Mutex<BTreeMap<Vec<u8>, Bytes>>>,
    states: MemoryStates,
}

impl MemoryCheckpoints {
    /// Keeps nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The states kept beside the checkpoints. They live as long as these, and are lost with them.
    pub fn states(&self) -> MemoryStates {
        self.states.clone()
    }

    /// Forgets everything, states too, as a lost disk does.
    pub fn clear(&self) {
        self.pairs.lock().clear();
        self.states.clear();
    }

    #[cfg(test)]
    pub(super) fn pairs(&self) -> usize {
        self.pairs.lock().len()
    }

    /// Inverts one bit of the newest pair under `name`; says whether there was one.
    pub fn flip_bit(&self, name: &str, bit: u64) -> bool {
        let mut pairs = self.pairs.lock();
        let key = pairs.keys().rfind(|key| key.starts_with(&prefix(name))).cloned();
        let Some(value) = key.and_then(|key| pairs.get_mut(&key)) else { return false };
        let mut bytes = value.to_vec();
        let bit = bit as usize % (bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        *value = bytes.into();
        true
    }
}

fn generations(pairs: &BTreeMap<Vec<u8>, Bytes>, name: &str) -> Vec<u64> {
    let mut found: Vec<u64> = pairs.keys().filter_map(|key| generation_of(name, key)).collect();
    found.dedup();
    found
}

impl Checkpoints for MemoryCheckpoints {
    fn put(&self, name: &str, at: u64, parts: &[Bytes]) -> Result<(), CheckpointError> {
        check_name(name)?;
        let mut pairs = self.pairs.lock();
        let next = generations(&pairs, name).last().map_or(1, |newest| newest + 1);
        pairs.extend(split(name, next, at, parts).into_iter().map(|(k, v)| (k, v.into())));
        let kept = |key: &[u8]| generation_of(name, key).is_none_or(|g| g + GENERATIONS > next);
        pairs.retain(|key, _| kept(key));
        Ok(())
    }

    fn latest(&self, name: &str) -> Option<Checkpoint> {
        let pairs = self.pairs.lock();
        let find = |key: &[u8]| pairs.get(key).cloned();
        generations(&pairs, name).into_iter().rev().find_map(|g| join(name, g, find))
    }

    fn forget(&self, name: &str) -> Result<(), CheckpointError> {
        check_name(name)?;
        self.pairs.lock().retain(|key, _| generation_of(name, key).is_none());
        Ok(())
    }

    fn beside(&self) -> Arc<dyn States> {
        Arc::new(self.states())
    }
}
