//! States in sled.

mod database;
#[cfg(test)]
mod tests;
mod wholeness;

use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;

use self::database::Database;
pub use self::database::{OpenError, Opened};
use self::wholeness::Wholeness;
use super::seal::{opened, sealed};
use super::{Change, StateError, States, check_changes, check_key, first};

/// Keys that are removed at a time when a whole prefix goes.
const REMOVED_AT_A_TIME: usize = 1_000;

/// Keeps states in a sled database in a folder of its own. Clones are the same states.
///
/// States are meant to be small. sled keeps up to sixteen neighbours together and writes them
/// together now and then; above 128 KiB they go into a file of their own.
#[derive(Clone)]
pub struct SledStates {
    shared: Arc<Shared>,
}

struct Shared {
    database: Database,
    /// Read while states are read, so that nobody sees half a write.
    wholeness: RwLock<Wholeness>,
}

impl SledStates {
    /// Opens the database in `path`, and reads it through.
    ///
    /// # Errors
    /// [`OpenError`] if a damaged folder cannot be moved, or an empty one does not open.
    pub fn open(path: &Path) -> Result<(Self, Opened), OpenError> {
        let (database, opened) = Database::open(path)?;
        // If it cannot be known, they are in doubt.
        let empty = database.guarded(|| Ok(database.states().is_empty())).unwrap_or(false);
        let wholeness = RwLock::new(Wholeness::read(database.folder(), empty));
        Ok((Self { shared: Arc::new(Shared { database, wholeness }) }, opened))
    }

    #[cfg(test)]
    fn tree(&self) -> &::sled::Tree {
        self.shared.database.states()
    }
}

impl Shared {
    fn usable(&self, wholeness: &Wholeness) -> Result<(), StateError> {
        self.database.usable()?;
        if wholeness.is_lost() { Err(StateError::InDoubt) } else { Ok(()) }
    }

    fn flush(&self) -> Result<(), String> {
        self.database.guarded(|| self.database.states().flush().map(|_| ()))
    }

    /// To be gone through inside of `guarded`.
    fn range(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
    ) -> impl Iterator<Item = Result<(::sled::IVec, ::sled::IVec), ::sled::Error>> {
        let range = (first(prefix, after), Bound::Unbounded);
        self.database
            .states()
            .range::<&[u8], _>(range)
            .take_while(move |pair| pair.as_ref().map_or(true, |(key, _)| key.starts_with(prefix)))
    }

    /// Removes the first of those after `after`. The last one removed; none if there are no more.
    fn remove_some(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
    ) -> Result<Option<::sled::IVec>, ::sled::Error> {
        let mut batch = ::sled::Batch::default();
        let mut last = None;
        for pair in self.range(prefix, after).take(REMOVED_AT_A_TIME) {
            let (key, _) = pair?;
            batch.remove(&key);
            last = Some(key);
        }
        self.database.states().apply_batch(batch)?;
        Ok(last)
    }
}

impl States for SledStates {
    fn write(&self, changes: &[Change]) -> Result<(), StateError> {
        check_changes(changes)?;
        let mut batch = ::sled::Batch::default();
        for (key, state) in changes {
            match state {
                Some(state) => batch.insert(&key[..], sealed(key, state)),
                None => batch.remove(&key[..]),
            }
        }
        let Shared { database, wholeness } = &*self.shared;
        let failed = |reason| StateError::Write { changes: changes.len(), reason };
        let _alone = database.write()?;
        let unseen = wholeness.write();
        self.shared.usable(&unseen)?;
        if let Err(reason) = database.guarded(|| database.states().apply_batch(batch)) {
            unseen.lose();
            return Err(failed(reason));
        }
        // Readers may see what is not durable yet: they would fold the same again.
        drop(unseen);
        self.shared.flush().map_err(failed)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StateError> {
        check_key(key)?;
        let Shared { database, wholeness } = &*self.shared;
        let whole = wholeness.read();
        self.shared.usable(&whole)?;
        let failed = |reason| StateError::Read { key: key.to_vec(), reason };
        let found = database.guarded(|| database.states().get(key)).map_err(failed)?;
        found.map(|found| opened(key, &found)).transpose()
    }

    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Bytes)>, StateError> {
        let Shared { database, wholeness } = &*self.shared;
        let whole = wholeness.read();
        self.shared.usable(&whole)?;
        let failed = |reason| StateError::Read { key: prefix.to_vec(), reason };
        let pairs = || self.shared.range(prefix, after).take(limit).collect();
        let found: Vec<_> = database.guarded(pairs).map_err(failed)?;
        drop(whole);
        found.iter().map(|(key, found)| Ok((key.to_vec(), opened(key, found)?))).collect()
    }

    fn remove_all(&self, prefix: &[u8]) -> Result<(), StateError> {
        let failed = |reason| StateError::Remove { prefix: prefix.to_vec(), reason };
        let Shared { database, wholeness } = &*self.shared;
        let mut after: Option<::sled::IVec> = None;
        loop {
            let _alone = database.write()?;
            let unseen = wholeness.write();
            match self.shared.usable(&unseen) {
                Err(StateError::InDoubt) if prefix.is_empty() => (),
                usable => usable?,
            }
            let some = || self.shared.remove_some(prefix, after.as_deref());
            after = database.guarded(some).map_err(failed)?;
            if after.is_some() {
                continue;
            }
            self.shared.flush().map_err(failed)?;
            // Nothing is written while they are in doubt, so nothing is left.
            if unseen.is_lost() {
                unseen.restore();
            }
            return Ok(());
        }
    }
}
