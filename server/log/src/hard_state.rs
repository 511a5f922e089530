//! What Raft must remember beside the log: the vote and the commit mark.
//!
//! One file of two slots. A slot is only overwritten when the *other* one is known to be synced and
//! whole, so a crash in the middle of a write leaves the older one. A vote goes to one slot, is
//! synced, and then also to the other, so that one rotten sector cannot turn a vote back. The commit
//! mark is written without a sync of its own: losing its last value costs nothing but replay.
//!
//! Each slot also says how far the log was acknowledged at that time: a log that ends earlier has
//! lost something (its last file, say), and must not vote.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Buf, Bytes};

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::OpenError;

/// Raft's own state; the log does not look into either part. Empty means never set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HardState {
    /// The vote: whom this node last promised to follow.
    pub vote: Bytes,
    /// The commit mark: what was last known to be committed. May be an older one after a crash.
    pub committed: Bytes,
}

/// The largest vote or commit mark, in bytes.
pub const HARD_STATE_PART_MAX: usize = 1024;

const MAGIC: &[u8; 8] = b"ANABHRD\x01";
const SLOT_BYTES: u64 = 4096;
const NAME: &str = "hard-state";

/// The records that were acknowledged, as `[start, end)`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Acknowledged {
    pub start: u64,
    pub end: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Slot {
    pub state: HardState,
    pub acknowledged: Acknowledged,
    generation: u64,
}

/// The file of one log.
pub(crate) struct HardStateFile {
    file: Arc<dyn DiskFile>,
    log: [u8; 16],
    generation: u64,
    /// The slot that may be overwritten; the other one is synced.
    free: u64,
}

/// The file as it was found.
pub(crate) struct FoundHardState {
    pub file: HardStateFile,
    pub slot: Slot,
    /// Only one copy is whole: a crash in the middle of a write, or a rotten sector.
    pub one_copy_lost: bool,
}

pub(crate) fn path(dir: &Path) -> PathBuf {
    dir.join(NAME)
}

/// Whether the folder's listing has the file.
pub(crate) fn is_in(names: &[String]) -> bool {
    names.iter().any(|name| name == NAME)
}

impl HardStateFile {
    /// Makes the file for a new log; all of it or nothing is there after a crash.
    pub(crate) fn create(disk: &dyn Disk, dir: &Path, log: [u8; 16]) -> io::Result<Self> {
        let new = dir.join("hard-state.new");
        let file = disk.open(&new, OpenMode::ReadWrite)?;
        file.set_len(0)?;
        let mut bytes = vec![0; 2 * SLOT_BYTES as usize];
        for index in 0..2 {
            let slot = encode(log, &Slot { generation: 1 + index, ..Slot::default() });
            let start = (index * SLOT_BYTES) as usize;
            bytes[start..start + slot.len()].copy_from_slice(&slot);
        }
        file.write_all_at(0, &[&bytes])?;
        file.sync()?;
        disk.rename(&new, &path(dir))?;
        disk.sync_dir(dir)?;
        Ok(Self { file, log, generation: 2, free: 0 })
    }

    /// Opens the file of a log that exists.
    pub(crate) fn open(
        disk: &dyn Disk,
        dir: &Path,
        log: [u8; 16],
    ) -> Result<FoundHardState, OpenError> {
        let path = path(dir);
        let io = |source| OpenError::Io { doing: "read", path: path.clone(), source };
        let file = disk.open(&path, OpenMode::ReadWrite).map_err(io)?;
        if file.len().map_err(io)? < 2 * SLOT_BYTES {
            return Err(OpenError::HardStateDamaged { path });
        }
        let mut found = [None, None];
        for (index, found) in found.iter_mut().enumerate() {
            let mut bytes = vec![0; SLOT_BYTES as usize];
            file.read_exact_at(index as u64 * SLOT_BYTES, &mut bytes).map_err(io)?;
            *found = decode(&bytes);
        }
        if found.iter().flatten().any(|(owner, _)| *owner != log) {
            return Err(OpenError::Foreign { path });
        }
        let one_copy_lost = found.iter().any(Option::is_none);
        let newest = (0..2u64).zip(found).filter_map(|(index, slot)| Some((index, slot?.1)));
        let Some((index, slot)) = newest.max_by_key(|(_, slot)| slot.generation) else {
            return Err(OpenError::HardStateDamaged { path });
        };
        // What was read may not have been synced before the crash, or a sync of it failed; from here
        // on it is relied on. Written again, or a sync need not write it.
        file.write_all_at(index * SLOT_BYTES, &[&encode(log, &slot)]).map_err(io)?;
        file.sync().map_err(io)?;
        let file = Self { file, log, generation: slot.generation, free: 1 - index };
        Ok(FoundHardState { file, slot, one_copy_lost })
    }

    /// Writes without making it durable; durable with the next [`sync`](Self::sync).
    pub(crate) fn write(
        &mut self,
        state: &HardState,
        acknowledged: Acknowledged,
    ) -> io::Result<()> {
        self.generation += 1;
        let generation = self.generation;
        let slot = encode(self.log, &Slot { state: state.clone(), acknowledged, generation });
        self.file.write_all_at(self.free * SLOT_BYTES, &[&slot])
    }

    /// Makes what was written durable.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        self.file.sync()?;
        self.free = 1 - self.free;
        Ok(())
    }
}

fn encode(log: [u8; 16], slot: &Slot) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&log);
    for number in [slot.generation, slot.acknowledged.start, slot.acknowledged.end] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    for part in [&slot.state.vote, &slot.state.committed] {
        out.extend_from_slice(&(part.len() as u16).to_le_bytes());
        out.extend_from_slice(part);
    }
    let crc = crc32c::crc32c(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

/// The slot and whose it is. Two slots at each other's place are both whole, so place is not
/// checked: the generation decides.
fn decode(bytes: &[u8]) -> Option<([u8; 16], Slot)> {
    let mut rest = bytes.strip_prefix(MAGIC)?;
    let mut log = [0; 16];
    rest.try_copy_to_slice(&mut log).ok()?;
    let mut number = || rest.try_get_u64_le().ok();
    let (generation, start, end) = (number()?, number()?, number()?);
    let mut part = || {
        let len = usize::from(rest.try_get_u16_le().ok()?);
        let (part, after) = rest.split_at_checked(len)?;
        rest = after;
        Some(Bytes::copy_from_slice(part))
    };
    let state = HardState { vote: part()?, committed: part()? };
    let covered = bytes.len() - rest.len();
    let crc = rest.try_get_u32_le().ok()?;
    let slot = Slot { state, acknowledged: Acknowledged { start, end }, generation };
    (crc == crc32c::crc32c(&bytes[..covered])).then_some((log, slot))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::MemoryDisk;

    const LOG: [u8; 16] = [5; 16];

    fn state(vote: &str, committed: &str) -> HardState {
        HardState { vote: vote.to_owned().into(), committed: committed.to_owned().into() }
    }

    fn open(disk: &MemoryDisk) -> FoundHardState {
        HardStateFile::open(disk, Path::new(""), LOG).expect("one slot is whole")
    }

    #[test]
    fn a_vote_survives_any_crash_during_later_lazy_writes() {
        for seed in 0..200 {
            let disk = MemoryDisk::new(seed);
            let mut file = HardStateFile::create(&disk, Path::new(""), LOG).unwrap();
            let acknowledged = Acknowledged { start: 1, end: 2 };
            file.write(&state("v1", ""), acknowledged).unwrap();
            file.sync().unwrap();
            for committed in ["a", "b", "c"] {
                file.write(&state("v1", committed), acknowledged).unwrap();
            }
            disk.crash();
            assert_eq!(open(&disk).slot.state.vote, "v1", "seed {seed}");
        }
    }

    #[test]
    fn one_rotten_copy_of_a_vote_leaves_the_other() {
        for copy in 0..2 {
            let disk = MemoryDisk::new(1);
            let mut file = HardStateFile::create(&disk, Path::new(""), LOG).unwrap();
            for _ in 0..2 {
                file.write(&state("v1", "c"), Acknowledged::default()).unwrap();
                file.sync().unwrap();
            }
            disk.flip_bit(&path(Path::new("")), copy * SLOT_BYTES * 8 + 100);
            let found = open(&disk);
            assert_eq!((found.slot.state, found.one_copy_lost), (state("v1", "c"), true));
        }
    }

    #[test]
    fn two_rotten_copies_and_foreign_files_are_refused() {
        let disk = MemoryDisk::new(1);
        HardStateFile::create(&disk, Path::new(""), LOG).unwrap();
        let foreign = HardStateFile::open(&disk, Path::new(""), [6; 16]).err();
        assert!(matches!(foreign, Some(OpenError::Foreign { .. })), "{foreign:?}");
        disk.flip_bit(&path(Path::new("")), 100);
        disk.flip_bit(&path(Path::new("")), SLOT_BYTES * 8 + 100);
        let damaged = HardStateFile::open(&disk, Path::new(""), LOG).err();
        assert!(matches!(damaged, Some(OpenError::HardStateDamaged { .. })), "{damaged:?}");
    }
}
