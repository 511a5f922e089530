//! Where a node keeps what it must not forget, and who drives the writing.

use std::io;
use std::path::Path;
use std::sync::Arc;

use anabranch_log::Writer;
use anabranch_log::derived::states::{MemoryStates, SledStates, States};
use anabranch_log::derived::{Checkpoints, FileCheckpoints, OpenError, Opened};
use anabranch_log::disk::{Disk, RealDisk};

/// Folder of the checkpoints in a data folder.
pub const CHECKPOINTS: &str = "checkpoints";
/// Folder of the states beside them.
const STATES: &str = "states";

/// Durable storage.
pub trait Storage: Send + Sync + 'static {
    /// The disk below a data folder. The folder need not exist yet.
    fn disk(&self, folder: &Path) -> Arc<dyn Disk>;
    /// The checkpoints below a data folder, with the states beside them. May wait for the disk.
    ///
    /// # Errors
    /// The store of states neither opens nor could be moved aside. One that only finds no room is no
    /// error: states are derived, and kept in memory then.
    fn checkpoints(&self, data_dir: &Path) -> Result<(Arc<dyn Checkpoints>, Opened), OpenError>;
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
    fn checkpoints(&self, data_dir: &Path) -> Result<(Arc<dyn Checkpoints>, Opened), OpenError> {
        take_over_states(data_dir);
        let (states, opened) = open_states(&data_dir.join(STATES))?;
        let checkpoints = FileCheckpoints::new(self.disk(data_dir), CHECKPOINTS, states);
        Ok((Arc::new(checkpoints), opened))
    }
    fn drive(&self, writer: Writer) -> io::Result<()> {
        writer.spawn_thread()
    }
}

fn open_states(folder: &Path) -> Result<(Arc<dyn States>, Opened), OpenError> {
    match SledStates::open(folder) {
        Ok((states, opened)) => Ok((Arc::new(states), opened)),
        Err(OpenError::Empty { path, reason }) => {
            tracing::error!(?path, reason, "states are kept in memory until the next start");
            Ok((Arc::new(MemoryStates::new()), Opened::Whole))
        }
        Err(error) => Err(error),
    }
}

/// Earlier releases kept states in sled in the folder of checkpoints, and checkpoints in it, too.
fn take_over_states(data_dir: &Path) {
    let (former, states) = (data_dir.join(CHECKPOINTS), data_dir.join(STATES));
    if former.join("db").exists()
        && !states.exists()
        && let Err(error) = std::fs::rename(&former, &states)
    {
        tracing::warn!(%error, "the states of an earlier release were not found; they are made again");
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    /// Where checkpoints are, and what state is beside them.
    fn open(data_dir: &Path) -> (Arc<dyn Checkpoints>, Option<Bytes>) {
        let (checkpoints, opened) = RealStorage.checkpoints(data_dir).unwrap();
        assert_eq!(opened, Opened::Whole);
        let state = checkpoints.beside().get(b"key").unwrap();
        (checkpoints, state)
    }

    #[test]
    fn states_of_an_earlier_release_are_taken_over_once() {
        let folder = tempfile::tempdir().unwrap();
        let write = |folder: &Path, state: &'static str| {
            let (states, _) = SledStates::open(folder).unwrap();
            states.write(&[(b"key".to_vec(), Some(Bytes::from_static(state.as_bytes())))]).unwrap();
        };
        write(&folder.path().join(CHECKPOINTS), "earlier");
        for at in 1..4 {
            let (checkpoints, state) = open(folder.path());
            assert_eq!(state.as_deref(), Some(&b"earlier"[..]));
            assert_eq!(checkpoints.latest("region-0").map_or(0, |held| held.at), at - 1);
            checkpoints.put("region-0", at, &[]).unwrap();
        }
        assert!(!folder.path().join(CHECKPOINTS).join("db").exists());
        // The earlier release ran once more in between.
        write(&folder.path().join(CHECKPOINTS), "other");
        let (checkpoints, state) = open(folder.path());
        assert_eq!(state.as_deref(), Some(&b"earlier"[..]));
        assert_eq!(checkpoints.latest("region-0").map(|held| held.at), Some(3));
    }
}
