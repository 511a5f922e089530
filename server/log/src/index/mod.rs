//! Finds events in the log: by regional position, by stream, by origin, by time.
//!
//! The log is the only copy of the events; the index holds places. What is not sealed yet is indexed
//! in memory ([`tail`]). When a segment is sealed and all its entries are applied, an immutable
//! sorted file is written beside it ([`directory`] says how it looks) and the memory is let go; of
//! each file only the directory stays in memory, about a hundredth. Files are read block by block,
//! each block with its own checksum.
//!
//! All of it is derived from the log and may be deleted at any time. Which entries were *accepted* when
//! they were applied is found again without applying them, see [`Frontier::accepts`].

mod block;
mod directory;
mod filter;
mod frontier;
mod look_up;
mod place;
mod rows;
mod sealed;
mod tables;
mod tail;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anabranch_core::Command;
use parking_lot::{Mutex, RwLock};

pub use frontier::{Frontier, Head};
pub use place::{Direction, EntryPlace, GroupPlace, StreamPlace, Wanted};

use crate::disk::{Disk, OpenMode};
use block::FileTag;

use rows::{NameHash, Rows, SegmentRows, name_hash};
use sealed::{BlockCache, SealedPart, Source};
use tail::Tail;

/// Why a look-up or an index file failed. The log itself is not in doubt.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The index file of a segment cannot be read, or is not what was written. Rebuild it from the
    /// log.
    #[error("{what} in the index of segment {segment} cannot be read")]
    Damaged {
        /// First entry of the segment.
        segment: u64,
        /// Which part of the file.
        what: &'static str,
    },
    /// The disk failed when an index file was written.
    #[error("{action} segment {segment}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// First entry of the segment.
        segment: u64,
        /// The disk's error.
        source: std::io::Error,
    },
}

/// How an index is opened.
#[derive(Debug, Clone)]
pub struct IndexOptions {
    /// Id of the log, as in its segments: index files of another log are not believed.
    pub log_id: [u8; 16],
    /// Bytes of index blocks kept in memory.
    pub cache_bytes: usize,
}

/// The index of one shard's log. A cheap handle to share.
#[derive(Clone)]
pub struct EventIndex {
    shared: Arc<Shared>,
}

struct Shared {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    log_id: [u8; 16],
    hash: NameHash,
    blocks: Arc<BlockCache>,
    state: RwLock<State>,
    /// Held while a file is written: one at a time, without stopping readers.
    writing: Mutex<()>,
    writes: AtomicU64,
}

struct State {
    /// Oldest first, without gaps.
    sealed: Vec<Arc<SealedPart>>,
    tail: Tail,
}

/// Rows gathered from a run of log entries, to index them.
pub struct Scan {
    rows: Rows,
    frontier: Frontier,
    hash: NameHash,
}

impl Scan {
    /// Takes the command of the next entry if applying the log accepted it; says whether it did.
    pub fn offer(&mut self, entry: u64, command: &Command) -> bool {
        let accepted = self.frontier.accepts(command);
        if accepted {
            self.frontier.advance(command);
            self.rows.push(entry, command, self.hash);
        }
        accepted
    }
}

impl EventIndex {
    /// An index of nothing, whose files are to lie in `dir`. Load files next.
    pub fn new(disk: Arc<dyn Disk>, dir: &Path, options: &IndexOptions) -> Self {
        Self::with_hash(disk, dir, options, name_hash)
    }

    pub(crate) fn with_hash(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: &IndexOptions,
        hash: NameHash,
    ) -> Self {
        let tail = Tail::new(Rows::new(Frontier::default(), 0), 0, hash);
        let shared = Shared {
            disk,
            dir: dir.to_owned(),
            log_id: options.log_id,
            hash,
            blocks: Arc::new(BlockCache::new(options.cache_bytes)),
            state: RwLock::new(State { sealed: Vec::new(), tail }),
            writing: Mutex::new(()),
            writes: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Takes an accepted command, in log order. Commands below [`end_entry`](Self::end_entry) are
    /// known already and passed over, so replaying from an older checkpoint is harmless.
    ///
    /// Commands without events must be fed too: their promises decide later what was accepted.
    ///
    /// # Panics
    /// If the command does not continue the log's numbers: it was not accepted, or one is missing.
    pub fn applied(&self, entry: u64, command: &Command) {
        let mut state = self.shared.state.write();
        if entry >= state.tail.end_entry {
            state.tail.push(entry, command);
        }
    }

    /// Notes that every entry before `end` was looked at, though the last had nothing to index.
    pub fn passed(&self, end: u64) {
        let mut state = self.shared.state.write();
        state.tail.end_entry = state.tail.end_entry.max(end);
    }

    /// One past the last entry that the index speaks of.
    pub fn end_entry(&self) -> u64 {
        self.shared.state.read().tail.end_entry
    }

    /// First entry that is not in an index file; 0 if there is no file yet.
    pub fn sealed_end(&self) -> u64 {
        self.shared.state.read().tail.rows.first_entry
    }

    /// Whether the segment that starts at `first_entry` is the next to get an index file. The first of
    /// all may start anywhere: that is where its log begins.
    pub fn is_next(&self, first_entry: u64) -> bool {
        self.shared.state.read().is_next(first_entry)
    }

    /// Where the log is after the last command.
    pub fn frontier(&self) -> Frontier {
        self.shared.state.read().tail.frontier.clone()
    }

    /// Loads the index file of the [next](Self::is_next) segment.
    ///
    /// Shape: `false` if there is no such file, it cannot be read, it is damaged, or it is of another
    /// segment, range or history: then rebuild it. Only while nothing has been fed.
    pub fn load(&self, first_entry: u64, end_entry: u64) -> bool {
        let shared = &self.shared;
        let file = match shared.disk.open(&shared.path(first_entry), OpenMode::Read) {
            Ok(file) => file,
            Err(error) => {
                if error.kind() != std::io::ErrorKind::NotFound {
                    tracing::warn!(segment = first_entry, %error, "index file does not open");
                }
                return false;
            }
        };
        let part = match shared.part(Source::File(file), first_entry) {
            Ok(part) => part,
            Err(error) => {
                tracing::warn!(segment = first_entry, %error, "index file is of no use");
                return false;
            }
        };
        let mut state = shared.state.write();
        let follows = state.is_next(first_entry) && part.directory.start == state.tail.rows.start;
        if part.end_entry != end_entry || !follows {
            return false;
        }
        state.adopt(Arc::new(part), shared.hash);
        true
    }

    /// Starts gathering rows again from where the log was before the segment at `first_entry`.
    ///
    /// Shape: nothing if `first_entry` is neither an indexed segment's nor the [next](Self::is_next).
    pub fn scan(&self, first_entry: u64) -> Option<Scan> {
        let state = self.shared.state.read();
        let start = match state.sealed.iter().find(|part| part.first_entry() == first_entry) {
            Some(part) => part.directory.start.clone(),
            None if state.is_next(first_entry) => state.tail.rows.start.clone(),
            None => return None,
        };
        let rows = Rows::new(start.clone(), first_entry);
        Some(Scan { rows, frontier: start, hash: self.shared.hash })
    }

    /// One past the last entry of the indexed segment that starts at `first_entry`.
    pub fn segment_end(&self, first_entry: u64) -> Option<u64> {
        let state = self.shared.state.read();
        let part = state.sealed.iter().find(|part| part.first_entry() == first_entry)?;
        Some(part.end_entry)
    }

    /// Writes and takes the index of a sealed segment whose entries up to `end_entry` were scanned:
    /// a new one, or one that replaces a damaged one.
    ///
    /// If the disk has no room or fails the index is kept in memory, so that reads go on.
    pub fn install(&self, scan: Scan, end_entry: u64) {
        let _writing = self.shared.writing.lock();
        let (first_entry, bytes) =
            (scan.rows.first_entry, self.shared.build(scan.rows.of_segment(end_entry)));
        let written = self.shared.write(first_entry, &bytes);
        let part = written.unwrap_or_else(|error| {
            tracing::warn!(segment = first_entry, %error, "index stays in memory");
            let source = Source::Memory(bytes.into());
            self.shared.part(source, first_entry).expect("just built")
        });
        let mut state = self.shared.state.write();
        let part = Arc::new(part);
        match state.sealed.iter().position(|held| held.first_entry() == first_entry) {
            Some(nth) => state.sealed[nth] = part,
            None => state.adopt(part, self.shared.hash),
        }
        drop(state);
        self.shared.blocks.forget(|(segment, _, _)| *segment == first_entry);
    }

    /// Takes scanned rows of the newest entries, up to `end_entry`, as what is not sealed yet.
    pub fn install_tail(&self, scan: Scan, end_entry: u64) {
        let mut state = self.shared.state.write();
        let first = scan.rows.first_entry;
        assert!(state.is_next(first), "the tail at {first} follows the last sealed segment");
        state.tail = Tail::new(scan.rows, end_entry, self.shared.hash);
    }

    /// Writes the index file of the segment from `first_entry` to before `end_entry`, which is sealed
    /// and whose entries were all fed, and lets go of the memory. Readers go on meanwhile.
    ///
    /// Shape: `false` if the segment is not the next one, or not all of it was fed.
    ///
    /// # Errors
    /// [`IndexError::Io`]: nothing has changed, try again later.
    pub fn seal(&self, first_entry: u64, end_entry: u64) -> Result<bool, IndexError> {
        let _writing = self.shared.writing.lock();
        let rows = {
            let state = self.shared.state.read();
            let tail = &state.tail;
            if !state.is_next(first_entry) || tail.end_entry < end_entry {
                return Ok(false);
            }
            SegmentRows { entry_range: first_entry..end_entry, ..tail.rows.of_segment(end_entry) }
        };
        let bytes = self.shared.build(rows);
        let part = self.shared.write(first_entry, &bytes)?;
        let mut state = self.shared.state.write();
        state.tail.drop_before(end_entry, part.directory.end.clone());
        state.sealed.push(Arc::new(part));
        Ok(true)
    }
}

impl State {
    fn is_next(&self, first_entry: u64) -> bool {
        self.sealed.is_empty() || self.tail.rows.first_entry == first_entry
    }

    fn adopt(&mut self, part: Arc<SealedPart>, hash: NameHash) {
        assert!(self.tail.rows.entries.is_empty(), "files are loaded before anything is fed");
        let (end, end_entry) = (part.directory.end.clone(), part.end_entry);
        self.sealed.push(part);
        self.tail = Tail::new(Rows::new(end, end_entry), end_entry, hash);
    }
}

impl Shared {
    fn path(&self, first_entry: u64) -> PathBuf {
        self.dir.join(format!("{first_entry:020}.idx"))
    }

    fn build(&self, rows: SegmentRows) -> Vec<u8> {
        directory::build_file(self.log_id, rows)
    }

    fn part(&self, source: Source, first_entry: u64) -> Result<SealedPart, IndexError> {
        let tag = FileTag { log_id: self.log_id, first_entry };
        let write = self.writes.fetch_add(1, Ordering::Relaxed);
        SealedPart::open(source, tag, write, self.blocks.clone())
    }

    /// Writes an index file under another name, syncs it and only then gives it its name.
    fn write(&self, first_entry: u64, bytes: &[u8]) -> Result<SealedPart, IndexError> {
        let path = self.path(first_entry);
        let new = path.with_extension("idx-new");
        let write = || {
            let file = self.disk.open(&new, OpenMode::ReadWrite)?;
            file.set_len(0)?;
            file.write_all_at(0, &[bytes])?;
            file.sync()?;
            drop(file);
            self.disk.rename(&new, &path)?;
            self.disk.sync_dir(&self.dir)?;
            self.disk.open(&path, OpenMode::Read)
        };
        let file = write().map_err(|source| {
            // What was written of it only takes up room.
            let _ = self.disk.remove(&new);
            IndexError::Io { action: "write the index of", segment: first_entry, source }
        })?;
        self.part(Source::File(file), first_entry)
    }
}
