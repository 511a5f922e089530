//! The data folder: whose it is, and that only one process works in it.
//!
//! A folder belongs to one node of one region of one cluster for ever, and its log to one incarnation.
//! Started over a folder of somebody else, a node would vote with a history that is not its own; so it
//! does not start. `identity.toml` says whose the folder is; the lock on `lock` ends with the process.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anabranch_core::{Incarnation, NodeId, RegionName, ShardId};
use anabranch_log::disk::{Disk, Lock, OpenMode};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::env::Seeds;

const IDENTITY_FILE: &str = "identity.toml";
const LOCK_FILE: &str = "lock";
const HEADER: &str = "# Whose folder this is. Written by anabranch; do not edit.\n";

/// Whose a data folder is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Name of the whole installation.
    pub cluster: String,
    /// The region.
    pub region: RegionName,
    /// The node.
    pub node: NodeId,
}

/// Why a data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The system refused.
    #[error("{action} {path}")]
    Io {
        /// `create`, `read`, `write`, `sync` or `lock`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process works in it.
    #[error("data folder {path} is in use by another process")]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// Its identity cannot be read.
    #[error("{path} is damaged: {problem}; restore it, do not delete it")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// It belongs to somebody else.
    #[error("data folder {path} belongs to {what} {found}, this node is of {what} {configured}")]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// `cluster`, `region` or `node`.
        what: &'static str,
        /// What the folder says.
        found: String,
        /// What the configuration says.
        configured: String,
    },
    /// The shard's log is of another life of the region than the folder remembers.
    #[error(
        "the log of shard {shard} is of incarnation {found}, the data folder of {recorded}: \
         files of two lives of the region are mixed"
    )]
    Incarnation {
        /// Which shard.
        shard: ShardId,
        /// What the log says.
        found: Incarnation,
        /// What the folder says.
        recorded: Incarnation,
    },
    /// The shard's log is gone.
    #[error(
        "shard {shard} had a log of incarnation {recorded} in {path}, and it is empty now: a node \
         that forgot what it acknowledged must not vote; replace it under a new node id"
    )]
    LogLost {
        /// Which shard.
        shard: ShardId,
        /// What the folder says.
        recorded: Incarnation,
        /// The folder.
        path: PathBuf,
    },
}

impl FolderError {
    /// There is no room on the disk; there may be later.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Io { source, .. }
            if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }
}

/// What `identity.toml` holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Written {
    cluster: String,
    region: String,
    node: u64,
    /// 32 bytes in hex, kept so that other regions notice a restart at once.
    gossip_reset_key: String,
    #[serde(default)]
    shards: Vec<WrittenShard>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct WrittenShard {
    id: u16,
    /// 16 bytes in hex.
    incarnation: String,
}

/// A data folder, held by this process alone.
pub struct DataFolder {
    /// For errors; files are reached through the disk.
    path: PathBuf,
    disk: Arc<dyn Disk>,
    written: Mutex<Written>,
    reset_key: [u8; 32],
    _lock: Lock,
}

impl fmt::Debug for DataFolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataFolder").field("path", &self.path).finish_non_exhaustive()
    }
}

impl DataFolder {
    /// Opens the folder for `owner`, or makes it. `disk` is what is below `path`.
    ///
    /// # Errors
    /// [`FolderError`]; a folder of somebody else is left as it was.
    pub fn open(
        path: &Path,
        disk: Arc<dyn Disk>,
        owner: &Owner,
        seeds: &dyn Seeds,
    ) -> Result<Self, FolderError> {
        disk.create_dir(Path::new("")).map_err(io_error("create", path))?;
        let lock = lock(path, &*disk)?;
        let file = path.join(IDENTITY_FILE);
        let (written, new) = match read(&*disk, Path::new(IDENTITY_FILE)) {
            Ok(text) => {
                let damaged = |problem: toml::de::Error| FolderError::Damaged {
                    path: file.clone(),
                    problem: problem.message().to_owned(),
                };
                (toml::from_str::<Written>(&text).map_err(damaged)?, false)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => (first(owner, seeds), true),
            Err(error) => return Err(io_error("read", &file)(error)),
        };
        check_owner(path, &written, owner)?;
        let reset_key = from_hex::<32>(&written.gossip_reset_key).ok_or_else(|| {
            let problem = "gossip-reset-key is no 64 hex digits".to_owned();
            FolderError::Damaged { path: file.clone(), problem }
        })?;
        let folder = Self {
            path: path.to_owned(),
            disk,
            written: Mutex::new(written),
            reset_key,
            _lock: lock,
        };
        if new {
            folder.write(&folder.written.lock())?;
        } else {
            // Its name may not be durable yet, after a kill. Not written anew: a full disk has no room.
            let synced = folder.disk.sync_dir(Path::new(""));
            synced.map_err(io_error("sync", &file))?;
        }
        Ok(folder)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
    /// Key of gossip's stateless resets.
    pub fn reset_key(&self) -> [u8; 32] {
        self.reset_key
    }

    /// Which life of the region the shard's log belongs to, once that was recorded.
    ///
    /// # Errors
    /// [`FolderError::Damaged`].
    pub fn incarnation(&self, shard: ShardId) -> Result<Option<Incarnation>, FolderError> {
        let written = self.written.lock();
        let Some(entry) = written.shards.iter().find(|entry| entry.id == shard.0) else {
            return Ok(None);
        };
        let bytes = from_hex::<16>(&entry.incarnation).ok_or_else(|| FolderError::Damaged {
            path: self.path.join(IDENTITY_FILE),
            problem: format!("incarnation of shard {shard} is no 32 hex digits"),
        })?;
        Ok(Some(Incarnation(u128::from_be_bytes(bytes))))
    }

    /// Remembers which life of the region the shard's log belongs to, or compares it with what was
    /// remembered. Durable when this returns.
    ///
    /// # Errors
    /// [`FolderError::Incarnation`] if it is another one; those of writing.
    pub fn record(&self, shard: ShardId, found: Incarnation) -> Result<(), FolderError> {
        match self.incarnation(shard)? {
            Some(recorded) if recorded == found => return Ok(()),
            Some(recorded) => return Err(FolderError::Incarnation { shard, found, recorded }),
            None => {}
        }
        let mut held = self.written.lock();
        let mut written = held.clone();
        written.shards.push(WrittenShard { id: shard.0, incarnation: found.to_string() });
        self.write(&written)?;
        *held = written;
        Ok(())
    }

    /// Refuses to go on if the shard's log is empty, although it was born once.
    ///
    /// # Errors
    /// [`FolderError::LogLost`].
    pub fn check_not_lost(&self, shard: ShardId, last_index: u64) -> Result<(), FolderError> {
        match self.incarnation(shard)? {
            Some(recorded) if last_index == 0 => {
                Err(FolderError::LogLost { shard, recorded, path: self.path.clone() })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Replaces the file: beside it first, then under its name, synced at each step.
    fn write(&self, written: &Written) -> Result<(), FolderError> {
        let (file, new) = (Path::new(IDENTITY_FILE), Path::new("identity.toml.new"));
        let text = toml::to_string(written).expect("an identity has a TOML form");
        let write = || {
            let open = self.disk.open(new, OpenMode::ReadWrite)?;
            open.set_len(0)?;
            open.write_all_at(0, &[HEADER.as_bytes(), text.as_bytes()])?;
            open.sync()?;
            self.disk.rename(new, file)?;
            self.disk.sync_dir(Path::new(""))
        };
        write().map_err(io_error("write", &self.path.join(IDENTITY_FILE)))
    }
}

fn lock(path: &Path, disk: &dyn Disk) -> Result<Lock, FolderError> {
    disk.lock(Path::new(LOCK_FILE)).map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => FolderError::InUse { path: path.to_owned() },
        _ => io_error("lock", &path.join(LOCK_FILE))(source),
    })
}

fn read(disk: &dyn Disk, file: &Path) -> io::Result<String> {
    let open = disk.open(file, OpenMode::Read)?;
    let mut bytes = vec![0; usize::try_from(open.len()?).expect("a file of ours fits in memory")];
    open.read_exact_at(0, &mut bytes)?;
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

fn first(owner: &Owner, seeds: &dyn Seeds) -> Written {
    let key = [seeds.next_u128(), seeds.next_u128()];
    Written {
        cluster: owner.cluster.clone(),
        region: owner.region.to_string(),
        node: owner.node.0,
        gossip_reset_key: format!("{:032x}{:032x}", key[0], key[1]),
        shards: Vec::new(),
    }
}

fn check_owner(path: &Path, written: &Written, owner: &Owner) -> Result<(), FolderError> {
    let facts = [
        ("cluster", written.cluster.clone(), owner.cluster.clone()),
        ("region", written.region.clone(), owner.region.to_string()),
        ("node", written.node.to_string(), owner.node.to_string()),
    ];
    match facts.into_iter().find(|(_, found, configured)| found != configured) {
        None => Ok(()),
        Some((what, found, configured)) => {
            Err(FolderError::Foreign { path: path.to_owned(), what, found, configured })
        }
    }
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FolderError {
    let path = path.to_owned();
    move |source| FolderError::Io { action, path, source }
}

fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; N];
    for (nth, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * nth..2 * nth + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use anabranch_log::disk::RealDisk;

    use super::*;
    use crate::env::OsSeeds;

    fn owner(cluster: &str, region: &str, node: u64) -> Owner {
        let region = RegionName::new(region).unwrap();
        Owner { cluster: cluster.to_owned(), region, node: NodeId(node) }
    }
    fn open(path: &Path, owner: &Owner) -> Result<DataFolder, FolderError> {
        DataFolder::open(path, Arc::new(RealDisk::new(path)), owner, &OsSeeds)
    }

    #[test]
    fn a_folder_remembers_its_owner_its_key_and_its_incarnation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/data");
        let ours = owner("test", "eu", 1);
        let first = open(&path, &ours).unwrap();
        let key = first.reset_key();
        assert_ne!(key, [0; 32]);
        assert_eq!(first.incarnation(ShardId(0)).unwrap(), None);
        first.record(ShardId(0), Incarnation(7)).unwrap();
        drop(first);
        let again = open(&path, &ours).unwrap();
        assert_eq!(again.reset_key(), key);
        assert_eq!(again.incarnation(ShardId(0)).unwrap(), Some(Incarnation(7)));
        again.record(ShardId(0), Incarnation(7)).unwrap();
    }

    #[test]
    fn a_folder_of_somebody_else_is_refused_with_both_names() {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path(), &owner("test", "eu", 1)).unwrap());
        for (other, says) in [
            (owner("prod", "eu", 1), "cluster test, this node is of cluster prod"),
            (owner("test", "us", 1), "region eu, this node is of region us"),
            (owner("test", "eu", 2), "node 1, this node is of node 2"),
        ] {
            let refused = open(dir.path(), &other).unwrap_err();
            assert!(matches!(refused, FolderError::Foreign { .. }), "{refused:?}");
            assert!(refused.to_string().ends_with(says), "{refused}");
        }
        open(dir.path(), &owner("test", "eu", 1)).unwrap();
    }

    #[test]
    fn another_incarnation_or_an_empty_log_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let folder = open(dir.path(), &owner("test", "eu", 1)).unwrap();
        folder.check_not_lost(ShardId(0), 0).unwrap();
        folder.record(ShardId(0), Incarnation(7)).unwrap();
        let refused = folder.record(ShardId(0), Incarnation(8)).unwrap_err().to_string();
        let (seven, eight) = (Incarnation(7).to_string(), Incarnation(8).to_string());
        assert!(refused.contains(&seven) && refused.contains(&eight), "{refused}");
        folder.check_not_lost(ShardId(0), 1).unwrap();
        let lost = folder.check_not_lost(ShardId(0), 0).unwrap_err();
        assert!(matches!(lost, FolderError::LogLost { .. }), "{lost:?}");
    }

    #[test]
    fn two_processes_never_share_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        let ours = owner("test", "eu", 1);
        let held = open(dir.path(), &ours).unwrap();
        let refused = open(dir.path(), &ours).unwrap_err();
        assert!(matches!(refused, FolderError::InUse { .. }), "{refused:?}");
        drop(held);
        open(dir.path(), &ours).unwrap();
    }

    #[test]
    fn a_damaged_identity_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let ours = owner("test", "eu", 1);
        drop(open(dir.path(), &ours).unwrap());
        std::fs::write(dir.path().join(IDENTITY_FILE), "cluster = ").unwrap();
        let refused = open(dir.path(), &ours).unwrap_err();
        assert!(matches!(refused, FolderError::Damaged { .. }), "{refused:?}");
        let left = std::fs::read_to_string(dir.path().join(IDENTITY_FILE)).unwrap();
        assert_eq!(left, "cluster = ");
    }
}
