//! Checkpoints in sled, which is not trusted.
//!
//! After power loss, a full disk or a flipped bit sled 0.34 may lose what it flushed, return an error,
//! or panic, on opening and later. So every call into it is guarded, every value carries its own
//! check, and a folder that does not open, or cannot be read through, is moved aside and replaced by
//! an empty one. Nothing that matters is lost: checkpoints are rebuilt from the log.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use super::chunk::{generation_of, join, key, prefix, split};
use super::{Checkpoint, CheckpointError, Checkpoints, GENERATIONS, check_name};

const CACHE_BYTES: u64 = 16 * 1024 * 1024;

/// How the folder was found.
#[derive(Debug, PartialEq, Eq)]
pub enum Opened {
    /// It could be read through, or was not there yet.
    Whole,
    /// It was damaged and moved; the store starts empty.
    MovedAside {
        /// Where the damaged folder is now.
        to: PathBuf,
        /// What sled said of it.
        reason: String,
    },
}

/// Why no store could be opened at all.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A damaged folder could not be renamed.
    #[error("move damaged checkpoints from {from} to {to}")]
    MoveAside {
        /// The damaged folder.
        from: PathBuf,
        /// Its new name.
        to: PathBuf,
        /// The disk's error.
        source: std::io::Error,
    },
    /// An empty folder does not open either.
    #[error("open empty checkpoints in {path}: {reason}")]
    Empty {
        /// The folder.
        path: PathBuf,
        /// What sled said.
        reason: String,
    },
}

/// Keeps checkpoints in a sled database in a folder of its own.
pub struct SledCheckpoints {
    db: ::sled::Db,
    /// Set by the first panic: sled's state is not known after it.
    broken: AtomicBool,
    putting: Mutex<()>,
}

impl SledCheckpoints {
    /// Opens the database in `path`, and reads it through.
    ///
    /// # Errors
    /// [`OpenError`] if a damaged folder cannot be moved, or an empty one does not open.
    pub fn open(path: &Path) -> Result<(Self, Opened), OpenError> {
        match open_and_read(path) {
            Ok(db) => Ok((Self::with(db), Opened::Whole)),
            Err(reason) => {
                let to = move_aside(path)?;
                tracing::warn!(to = %to.display(), reason, "moved damaged checkpoints aside");
                let db = open_and_read(path)
                    .map_err(|reason| OpenError::Empty { path: path.to_owned(), reason })?;
                Ok((Self::with(db), Opened::MovedAside { to, reason }))
            }
        }
    }

    fn with(db: ::sled::Db) -> Self {
        Self { db, broken: AtomicBool::new(false), putting: Mutex::new(()) }
    }

    fn guarded<T>(&self, work: impl FnOnce() -> Result<T, ::sled::Error>) -> Result<T, String> {
        let result = guarded(work);
        if let Err(Failure::Panic(reason)) = &result {
            tracing::error!(reason, "the checkpoint store panicked and is out of use");
            self.broken.store(true, Ordering::Release);
        }
        result.map_err(Failure::into_reason)
    }

    #[cfg(test)]
    pub(super) fn pairs(&self) -> usize {
        self.db.len()
    }

    #[cfg(test)]
    pub(super) fn panic_inside(&self) {
        let result: Result<(), String> = self.guarded(|| panic!("as sled does on damaged pages"));
        assert!(result.is_err());
    }

    fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    fn replace(&self, name: &str, at: u64, parts: &[Bytes]) -> Result<(), ::sled::Error> {
        let held = generations(&self.db, name)?;
        let next = held.last().map_or(1, |newest| newest + 1);
        let mut batch = ::sled::Batch::default();
        for (key, value) in split(name, next, at, parts) {
            batch.insert(key, value);
        }
        self.db.apply_batch(batch)?;
        self.db.flush()?;
        // Older generations go only when the new one is on disk.
        self.remove(name, |generation| generation + GENERATIONS <= next)
    }

    fn remove(&self, name: &str, doomed: impl Fn(u64) -> bool) -> Result<(), ::sled::Error> {
        let mut batch = ::sled::Batch::default();
        for generation in generations(&self.db, name)?.into_iter().filter(|g| doomed(*g)) {
            let range = key(name, generation, 0)..=key(name, generation, u32::MAX);
            for key in self.db.range(range).keys() {
                batch.remove(key?);
            }
        }
        self.db.apply_batch(batch)
    }
}

impl Checkpoints for SledCheckpoints {
    fn put(&self, name: &str, at: u64, parts: &[Bytes]) -> Result<(), CheckpointError> {
        check_name(name)?;
        let _putting = self.putting.lock();
        if self.is_broken() {
            return Err(CheckpointError::OutOfUse);
        }
        let failed = |reason| CheckpointError::Failed { name: name.to_owned(), at, reason };
        self.guarded(|| self.replace(name, at, parts)).map_err(failed)
    }

    fn latest(&self, name: &str) -> Option<Checkpoint> {
        if self.is_broken() {
            return None;
        }
        let find = |key: &[u8]| {
            let value = self.guarded(|| self.db.get(key)).ok().flatten()?;
            Some(Bytes::copy_from_slice(&value))
        };
        let held = self.guarded(|| generations(&self.db, name)).ok()?;
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
        let _putting = self.putting.lock();
        if self.is_broken() {
            return Err(CheckpointError::OutOfUse);
        }
        let work = || {
            self.remove(name, |_| true)?;
            self.db.flush().map(|_| ())
        };
        let failed = |reason| CheckpointError::Failed { name: name.to_owned(), at: 0, reason };
        self.guarded(work).map_err(failed)
    }
}

enum Failure {
    Error(String),
    Panic(String),
}

impl Failure {
    fn into_reason(self) -> String {
        match self {
            Self::Error(reason) | Self::Panic(reason) => reason,
        }
    }
}

fn guarded<T>(work: impl FnOnce() -> Result<T, ::sled::Error>) -> Result<T, Failure> {
    // What sled leaves half-done is not looked at again: after a panic it is out of use.
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Failure::Error(error.to_string())),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(Failure::Panic(text.unwrap_or("panicked").to_owned()))
        }
    }
}

/// Opens a database and reads every pair, so that damage shows now and not when a state is needed.
fn open_and_read(path: &Path) -> Result<::sled::Db, String> {
    let work = || {
        // Every put flushes; the timer would only add writes.
        let config = ::sled::Config::new().path(path).cache_capacity(CACHE_BYTES);
        let db = config.flush_every_ms(None).open()?;
        db.iter().try_for_each(|pair| pair.map(|_| ()))?;
        Ok(db)
    };
    guarded(work).map_err(Failure::into_reason)
}

/// Renames a damaged folder to the first free `<name>.damaged-N`.
#[expect(clippy::disallowed_methods, reason = "sled's folder is outside the disk seam")]
fn move_aside(path: &Path) -> Result<PathBuf, OpenError> {
    let named = |nth: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".damaged-{nth}"));
        PathBuf::from(name)
    };
    let to = (1..).map(named).find(|to| !to.exists()).expect("some number is free");
    match std::fs::rename(path, &to) {
        Ok(()) => Ok(to),
        Err(source) => Err(OpenError::MoveAside { from: path.to_owned(), to, source }),
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
