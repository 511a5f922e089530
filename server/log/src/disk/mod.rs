//! The disk, small enough to fake.
//!
//! Everything the log does to files goes through [`Disk`] and [`DiskFile`]. The real one is
//! [`RealDisk`]; the one in memory keeps a live and a durable image apart and injects faults.
//! Both pass the same conformance suite.

pub mod conformance;
mod image;
mod memory;
mod real;

use std::any::Any;
use std::io;
use std::path::Path;
use std::sync::Arc;

pub use memory::MemoryDisk;
pub use real::RealDisk;

/// How to open a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// The file must exist. Writes fail.
    Read,
    /// Reads and writes; the file is created empty if it is not there.
    ReadWrite,
    /// Reads and writes; fails with `AlreadyExists` if the file is there.
    CreateNew,
}

/// A tree of files.
///
/// Paths are relative to the disk's root. What was written survives a crash only after
/// [`DiskFile::sync`]; that a name was created, renamed or removed survives only after
/// [`sync_dir`](Self::sync_dir) of its folder.
pub trait Disk: Send + Sync + 'static {
    /// Opens a file.
    ///
    /// # Errors
    /// `NotFound` for [`OpenMode::Read`] of a missing file; `AlreadyExists` for
    /// [`OpenMode::CreateNew`] of one that is there; `StorageFull` if there is no room for it.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;
    /// Names of the files and folders in `dir`, sorted. `NotFound` if there is no such folder.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Creates a folder and its parents. Nothing happens if it is there.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Renames a file, replacing what had the new name. Atomic, also over a crash.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in `dir` durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Takes the file `path`, created if it is not there, for this process alone, until what is
    /// returned is dropped or the process ends.
    ///
    /// # Errors
    /// `WouldBlock` if another process, or this one, holds it.
    fn lock(&self, path: &Path) -> io::Result<Lock>;
}

/// A file held by this process alone. Dropping it lets go.
pub type Lock = Box<dyn Any + Send + Sync>;

/// An open file. Safe to share; reads may run beside writes.
#[allow(clippy::len_without_is_empty)] // Nobody asks.
pub trait DiskFile: Send + Sync {
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Fills `buf` from `offset`. `UnexpectedEof` if the file ends before it is full.
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;
    /// Writes all of `parts`, one after the other, from `offset`; extends the file if needed.
    ///
    /// # Errors
    /// `StorageFull` if there is no room: any prefix may have been written.
    fn write_all_at(&self, offset: u64, parts: &[&[u8]]) -> io::Result<()>;
    /// Makes the file's content and length durable.
    ///
    /// # Errors
    /// After any error nothing is known of what is durable, and **no later sync of this file may be
    /// believed**: the kernel may have marked the lost pages clean.
    fn sync(&self) -> io::Result<()>;
    /// Cuts the file to `len` bytes, or extends it with zeroes.
    fn set_len(&self, len: u64) -> io::Result<()>;
}
