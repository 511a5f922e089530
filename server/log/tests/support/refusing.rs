//! A disk of which some steps can be refused, as a test decides.

use std::io;
use std::path::Path;
use std::sync::Arc;

use anabranch_log::disk::{Disk, DiskFile, Lock, MemoryDisk, OpenMode};

/// What can be refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A new file or folder.
    Create,
    /// A file that is to be read.
    Open,
    /// A new name.
    Rename,
    /// A name that goes.
    Remove,
    /// Bytes of a file.
    Write,
    /// Making a file's content durable.
    Sync,
    /// Another length of a file.
    SetLen,
    /// Making names durable.
    SyncDir,
}

type Refusal = Arc<dyn Fn(Step) -> io::Result<()> + Send + Sync>;

/// Asks before each step.
pub struct RefusingDisk {
    disk: MemoryDisk,
    ask: Refusal,
}

impl RefusingDisk {
    pub fn new(
        disk: &MemoryDisk,
        ask: impl Fn(Step) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self { disk: disk.clone(), ask: Arc::new(ask) }
    }
}

impl Disk for RefusingDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        match mode {
            OpenMode::CreateNew => (self.ask)(Step::Create)?,
            OpenMode::Read => (self.ask)(Step::Open)?,
            OpenMode::ReadWrite => {}
        }
        let file = self.disk.open(path, mode)?;
        Ok(Arc::new(RefusingFile { file, ask: Arc::clone(&self.ask) }))
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        match self.disk.list(dir) {
            Ok(_) => Ok(()),
            Err(_) => (self.ask)(Step::Create).and_then(|()| self.disk.create_dir(dir)),
        }
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        (self.ask)(Step::Rename).and_then(|()| self.disk.rename(from, to))
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        (self.ask)(Step::Remove).and_then(|()| self.disk.remove(path))
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        (self.ask)(Step::SyncDir).and_then(|()| self.disk.sync_dir(dir))
    }
    fn lock(&self, path: &Path) -> io::Result<Lock> {
        self.disk.lock(path)
    }
}

struct RefusingFile {
    file: Arc<dyn DiskFile>,
    ask: Refusal,
}

impl DiskFile for RefusingFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(offset, buf)
    }
    fn write_all_at(&self, offset: u64, parts: &[&[u8]]) -> io::Result<()> {
        (self.ask)(Step::Write).and_then(|()| self.file.write_all_at(offset, parts))
    }
    fn sync(&self) -> io::Result<()> {
        (self.ask)(Step::Sync).and_then(|()| self.file.sync())
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        (self.ask)(Step::SetLen).and_then(|()| self.file.set_len(len))
    }
}
