//! Checkpoints in sled.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::chunk::{generation_of, join, key, prefix, split};
use super::database::Database;
use super::states::{SledStates, States};
use super::{Checkpoint, CheckpointError, Checkpoints, GENERATIONS, OpenError, Opened, check_name};

/// Keeps checkpoints in a sled database in a folder of its own, and states beside them.
pub struct SledCheckpoints {
    database: Arc<Database>,
    states: SledStates,
}

impl SledCheckpoints {
    /// Opens the database in `path`, and reads it through.
    ///
    /// # Errors
    /// [`OpenError`] if a damaged folder cannot be moved, or an empty one does not open.
    pub fn open(path: &Path) -> Result<(Self, Opened), OpenError> {
        let (database, opened) = Database::open(path)?;
        let database = Arc::new(database);
        let states = SledStates::of(Arc::clone(&database));
        Ok((Self { database, states }, opened))
    }

    /// The states kept in the same database.
    ///
    /// The folder is in use as long as either lives, and a failure inside takes both out of use.
    pub fn states(&self) -> SledStates {
        self.states.clone()
    }

    #[cfg(test)]
    pub(super) fn pairs(&self) -> usize {
        self.database.checkpoints().len()
    }

    #[cfg(test)]
    pub(super) fn panic_inside(&self) {
        self.database.panic_inside();
    }

    fn replace(&self, name: &str, at: u64, parts: &[Bytes]) -> Result<(), ::sled::Error> {
        let held = generations(self.database.checkpoints(), name)?;
        let next = held.last().map_or(1, |newest| newest + 1);
        let mut batch = ::sled::Batch::default();
        for (key, value) in split(name, next, at, parts) {
            batch.insert(key, value);
        }
        self.database.checkpoints().apply_batch(batch)?;
        self.database.checkpoints().flush()?;
        // Older generations go only when the new one is on disk.
        self.remove(name, |generation| generation + GENERATIONS <= next)
    }

    fn remove(&self, name: &str, doomed: impl Fn(u64) -> bool) -> Result<(), ::sled::Error> {
        let mut batch = ::sled::Batch::default();
        let held = generations(self.database.checkpoints(), name)?;
        for generation in held.into_iter().filter(|generation| doomed(*generation)) {
            let range = key(name, generation, 0)..=key(name, generation, u32::MAX);
            for key in self.database.checkpoints().range(range).keys() {
                batch.remove(key?);
            }
        }
        self.database.checkpoints().apply_batch(batch)
    }
}

impl Checkpoints for SledCheckpoints {
    fn put(&self, name: &str, at: u64, parts: &[Bytes]) -> Result<(), CheckpointError> {
        check_name(name)?;
        let _alone = self.database.write()?;
        let failed = |reason| CheckpointError::Failed { name: name.to_owned(), at, reason };
        self.database.guarded(|| self.replace(name, at, parts)).map_err(failed)
    }

    fn latest(&self, name: &str) -> Option<Checkpoint> {
        if self.database.usable().is_err() {
            return None;
        }
        let find = |key: &[u8]| {
            let value =
                self.database.guarded(|| self.database.checkpoints().get(key)).ok().flatten()?;
            Some(Bytes::copy_from_slice(&value))
        };
        let held = self.database.guarded(|| generations(self.database.checkpoints(), name)).ok()?;
        held.into_iter().rev().find_map(|generation| {
            let whole = join(name, generation, find);
            if whole.is_none() {
                tracing::warn!(name, generation, "checkpoint is damaged, passed over");
            }
            whole
        })
    }

    fn forget(&self, name: &str) -> Result<(), CheckpointError> {
        check_name(name)?;
        let _alone = self.database.write()?;
        let work = || {
            self.remove(name, |_| true)?;
            self.database.checkpoints().flush().map(|_| ())
        };
        let failed = |reason| CheckpointError::Failed { name: name.to_owned(), at: 0, reason };
        self.database.guarded(work).map_err(failed)
    }

    fn beside(&self) -> Arc<dyn States> {
        Arc::new(self.states())
    }
}

/// Generations under `name`, oldest first. Hops from head to head, so that no chunk is read.
fn generations(db: &::sled::Db, name: &str) -> Result<Vec<u64>, ::sled::Error> {
    let mut found = Vec::new();
    let mut after = prefix(name);
    while let Some((next, _)) = db.get_gt(&after)? {
        let Some(generation) = generation_of(name, &next) else { break };
        found.push(generation);
        after = key(name, generation, u32::MAX);
    }
    Ok(found)
}
