//! Where a node keeps what it must not forget, and who drives the writing.

use std::io;
use std::path::Path;
use std::sync::Arc;

use anabranch_log::Writer;
use anabranch_log::derived::{Checkpoints, MemoryCheckpoints, OpenError, Opened, SledCheckpoints};
use anabranch_log::disk::{Disk, RealDisk};

/// Durable storage.
pub trait Storage: Send + Sync + 'static {
    /// The disk below a data folder. The folder need not exist yet.
    fn disk(&self, folder: &Path) -> Arc<dyn Disk>;
    /// The checkpoints kept in a folder. May wait for the disk.
    ///
    /// # Errors
    /// The store neither opens nor could be moved aside. One that only finds no room is no error:
    /// checkpoints are derived, and kept in memory then.
    fn checkpoints(&self, folder: &Path) -> Result<(Arc<dyn Checkpoints>, Opened), OpenError>;
    /// Drives a log's writer until the log is closed.
    ///
    /// # Errors
    /// What it takes cannot be had.
    fn drive(&self, writer: Writer) -> io::Result<()>;
}

/// The machine's file system; each log is written by a thread of its own.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealStorage;

impl Storage for RealStorage {
    fn disk(&self, folder: &Path) -> Arc<dyn Disk> {
        Arc::new(RealDisk::new(folder))
    }
    fn checkpoints(&self, folder: &Path) -> Result<(Arc<dyn Checkpoints>, Opened), OpenError> {
        match SledCheckpoints::open(folder) {
            Ok((checkpoints, opened)) => Ok((Arc::new(checkpoints), opened)),
            Err(OpenError::Empty { path, reason }) => {
                tracing::error!(
                    ?path,
                    reason,
                    "checkpoints are kept in memory until the next start"
                );
                Ok((Arc::new(MemoryCheckpoints::default()), Opened::Whole))
            }
            Err(error) => Err(error),
        }
    }
    fn drive(&self, writer: Writer) -> io::Result<()> {
        writer.spawn_thread()
    }
}
