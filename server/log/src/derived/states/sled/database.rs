//! The sled database that states are in, which is not trusted.
//!
//! After power loss, a full disk or a flipped bit sled 0.34 may lose what it flushed, return an error,
//! or panic, on opening and later. So every call into it is guarded, every value carries its own
//! check, and a folder that does not open, or cannot be read through, is moved aside and replaced by
//! an empty one. Nothing that matters is lost: what is in it is rebuilt from the log.
//!
//! After a failed write sled cannot go on. One that found no room in the folder `blobs`, where
//! everything above 128 KiB goes, leaves a hole in its log for which every later flush waits for ever,
//! and closing flushes. So the first failure takes the database out of use, and it is not closed either.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use super::StateError;

const CACHE_BYTES: u64 = 16 * 1024 * 1024;
/// How often, and after how long, a folder that is still locked is tried again: for two seconds.
const LOCK_TRIES: u32 = 100;
const LOCK_RETRY_AFTER: Duration = Duration::from_millis(20);
/// Name of the tree that states are in.
const STATES: &str = "states";

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
    #[error("move damaged states from {from} to {to}")]
    MoveAside {
        /// The damaged folder.
        from: PathBuf,
        /// Its new name.
        to: PathBuf,
        /// The disk's error.
        source: std::io::Error,
    },
    /// An empty folder does not open either.
    #[error("open empty states in {path}: {reason}")]
    Empty {
        /// The folder.
        path: PathBuf,
        /// What sled said.
        reason: String,
    },
}

/// A database in a folder of its own. The first failure inside takes all of it out of use.
pub(super) struct Database {
    folder: PathBuf,
    /// There until it is dropped.
    open: Option<Open>,
    broken: AtomicBool,
    writing: Mutex<()>,
}

struct Open {
    states: ::sled::Tree,
    /// Closed when this goes.
    _database: ::sled::Db,
}

/// A failure inside came before.
pub(super) struct OutOfUse;

impl From<OutOfUse> for StateError {
    fn from(_: OutOfUse) -> Self {
        Self::OutOfUse
    }
}

impl Database {
    /// Opens the database in `path`, and reads it through.
    pub(super) fn open(path: &Path) -> Result<(Self, Opened), OpenError> {
        let with = |open| Self {
            folder: path.to_owned(),
            open: Some(open),
            broken: AtomicBool::new(false),
            writing: Mutex::new(()),
        };
        match open_and_read(path) {
            Ok(open) => Ok((with(open), Opened::Whole)),
            Err(reason) => {
                let to = move_aside(path)?;
                tracing::warn!(to = %to.display(), reason, "moved damaged states aside");
                let open = open_and_read(path)
                    .map_err(|reason| OpenError::Empty { path: path.to_owned(), reason })?;
                Ok((with(open), Opened::MovedAside { to, reason }))
            }
        }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn states(&self) -> &::sled::Tree {
        &self.open.as_ref().expect("not dropped").states
    }

    /// To be held while anything is written and flushed: who waits finds out of a failure before
    /// flushing, which would not end.
    pub(super) fn write(&self) -> Result<MutexGuard<'_, ()>, OutOfUse> {
        let alone = self.writing.lock();
        self.usable()?;
        Ok(alone)
    }

    pub(super) fn usable(&self) -> Result<(), OutOfUse> {
        if self.broken.load(Ordering::Acquire) { Err(OutOfUse) } else { Ok(()) }
    }

    /// Does `work` with the tree; a panic in it is an error.
    pub(super) fn guarded<T>(
        &self,
        work: impl FnOnce() -> Result<T, ::sled::Error>,
    ) -> Result<T, String> {
        let result = guarded(work);
        if let Err(reason) = &result {
            tracing::error!(reason, "the store of states failed and is out of use");
            self.broken.store(true, Ordering::Release);
        }
        result
    }

    #[cfg(test)]
    pub(super) fn panic_inside(&self) {
        let result: Result<(), String> = self.guarded(|| panic!("as sled does on damaged pages"));
        assert!(result.is_err());
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if self.usable().is_err() {
            // What closing would flush is not to be had. The process holds on to the files until it ends.
            std::mem::forget(self.open.take());
        }
    }
}

fn guarded<T>(work: impl FnOnce() -> Result<T, ::sled::Error>) -> Result<T, String> {
    // What sled leaves half-done is not looked at again: after a panic it is out of use.
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(text.unwrap_or("panicked").to_owned())
        }
    }
}

/// Opens a database and reads every pair, so that damage shows now and not when a state is needed.
fn open_and_read(path: &Path) -> Result<Open, String> {
    let work = || {
        let database = open_unlocked(path)?;
        // Earlier releases kept checkpoints in the nameless tree; nobody would ever remove them.
        if !database.is_empty() {
            database.clear()?;
            database.flush()?;
        }
        let states = database.open_tree(STATES)?;
        for pair in &states {
            pair?;
        }
        Ok(Open { states, _database: database })
    };
    guarded(work)
}

/// A database that was closed keeps its lock until a thread of sled's has ended, a moment later. That
/// is no damage: it is waited for.
#[expect(clippy::disallowed_methods, reason = "sled does not tell when it lets go of its lock")]
pub(super) fn open_unlocked(path: &Path) -> Result<::sled::Db, ::sled::Error> {
    // Every put flushes; the timer would only add writes.
    let config = ::sled::Config::new().path(path).cache_capacity(CACHE_BYTES).flush_every_ms(None);
    for _ in 0..LOCK_TRIES {
        match config.open() {
            Err(::sled::Error::Io(error)) if error.to_string().contains("acquire lock") => {
                std::thread::sleep(LOCK_RETRY_AFTER);
            }
            opened => return opened,
        }
    }
    config.open()
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
