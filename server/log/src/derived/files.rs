//! Checkpoints in files, one a generation.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::format::{self, Tag, Unreadable};
use super::states::States;
use super::{Checkpoint, CheckpointError, Checkpoints, GENERATIONS, check_name};
use crate::disk::{Disk, OpenMode};

const SUFFIX: &str = ".checkpoint";

/// Keeps checkpoints in a folder of a disk: `<name>-<generation, 20 digits>.checkpoint`.
///
/// A new one is written as `<name>.new`, and gets its name once its content is durable. So a crash in
/// the middle of a put, however often, leaves one file that is not looked at and that the next put
/// removes, and never half a generation that would push out a whole one.
///
/// A put that fails, such as on a full disk, leaves everything as it was, and a later one may succeed.
pub struct FileCheckpoints {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    states: Arc<dyn States>,
    /// Held while files come or go, so that nobody reads one that is about to go.
    alone: Mutex<()>,
}

impl FileCheckpoints {
    /// Checkpoints in `folder`, a path relative to the root of `disk`, with `states` beside them.
    /// Touches nothing: the first put makes the folder.
    pub fn new(disk: Arc<dyn Disk>, folder: impl Into<PathBuf>, states: Arc<dyn States>) -> Self {
        Self { disk, folder: folder.into(), states, alone: Mutex::new(()) }
    }

    fn path(&self, tag: Tag) -> PathBuf {
        self.folder.join(file_name(tag))
    }

    /// Where a checkpoint is while it is written. No name holds a dot, so it is nobody else's.
    fn begun(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.new"))
    }

    /// Generations under `name`, oldest first.
    fn generations(&self, name: &str) -> io::Result<Vec<u64>> {
        let files = unless_missing(self.disk.list(&self.folder))?.unwrap_or_default();
        Ok(files.iter().filter_map(|file| generation_of(name, file)).collect())
    }

    /// Writes a generation. When this returns it is durable: content, name, and folder.
    fn write(&self, tag: Tag, at: u64, parts: &[Bytes]) -> io::Result<()> {
        let begun = self.begun(tag.name);
        self.disk.create_dir(&self.folder)?;
        unless_missing(self.disk.remove(&begun))?;
        let file = self.disk.open(&begun, OpenMode::CreateNew)?;
        format::write(&*file, tag, at, parts)?;
        self.disk.rename(&begun, &self.path(tag))?;
        // An earlier put may have made the folder and failed before that was durable.
        self.folder.ancestors().try_for_each(|folder| self.disk.sync_dir(folder))
    }

    /// Removes what a failed put has left, as far as that can be had.
    fn clean_up(&self, tag: Tag) {
        for path in [self.begun(tag.name), self.path(tag)] {
            if let Err(error) = unless_missing(self.disk.remove(&path)) {
                let path = path.display();
                tracing::warn!(%path, %error, "half a checkpoint stays until the next is written");
            }
        }
    }

    fn remove(&self, name: &str, generations: &[u64]) -> io::Result<()> {
        if generations.is_empty() {
            return Ok(());
        }
        for generation in generations.iter().copied() {
            self.disk.remove(&self.path(Tag { name, generation }))?;
        }
        self.disk.sync_dir(&self.folder)
    }

    fn read(&self, tag: Tag) -> Result<Checkpoint, Unreadable> {
        let file = self.disk.open(&self.path(tag), OpenMode::Read)?;
        format::read(&*file, tag)
    }
}

impl Checkpoints for FileCheckpoints {
    fn put(&self, name: &str, at: u64, parts: &[Bytes]) -> Result<(), CheckpointError> {
        check_name(name)?;
        let _alone = self.alone.lock();
        let failed = |error| failed(name, at, &error);
        let held = self.generations(name).map_err(failed)?;
        let tag = Tag { name, generation: held.last().map_or(1, |newest| newest + 1) };
        if let Err(error) = self.write(tag, at, parts) {
            self.clean_up(tag);
            return Err(failed(error));
        }
        // Not before the new one is durable: until then these are all there is.
        let too_old = (held.len() + 1).saturating_sub(GENERATIONS);
        if let Err(error) = self.remove(name, &held[..too_old]) {
            tracing::warn!(name, %error, "old checkpoints stay until the next is written");
        }
        Ok(())
    }

    fn latest(&self, name: &str) -> Option<Checkpoint> {
        let _alone = self.alone.lock();
        let held = self.generations(name).unwrap_or_else(|error| {
            tracing::warn!(name, %error, "checkpoints cannot be listed");
            Vec::new()
        });
        held.into_iter().rev().find_map(|generation| {
            let whole = self.read(Tag { name, generation });
            if let Err(reason) = &whole {
                tracing::warn!(name, generation, %reason, "checkpoint is damaged, passed over");
            }
            whole.ok()
        })
    }

    fn forget(&self, name: &str) -> Result<(), CheckpointError> {
        check_name(name)?;
        let _alone = self.alone.lock();
        let forget = || {
            unless_missing(self.disk.remove(&self.begun(name)))?;
            self.remove(name, &self.generations(name)?)
        };
        forget().map_err(|error| failed(name, 0, &error))
    }

    fn beside(&self) -> Arc<dyn States> {
        Arc::clone(&self.states)
    }
}

fn file_name(Tag { name, generation }: Tag) -> String {
    format!("{name}-{generation:020}{SUFFIX}")
}

/// The generation in the name of a file, if it is one of `name`: `region-0` and `region-0-1` are not
/// confused, and files that we did not name are left alone.
fn generation_of(name: &str, file: &str) -> Option<u64> {
    let digits = file.strip_prefix(name)?.strip_prefix('-')?.strip_suffix(SUFFIX)?;
    let generation = digits.parse().ok()?;
    (file == file_name(Tag { name, generation })).then_some(generation)
}

fn unless_missing<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn failed(name: &str, at: u64, error: &io::Error) -> CheckpointError {
    CheckpointError::Failed { name: name.to_owned(), at, reason: error.to_string() }
}
