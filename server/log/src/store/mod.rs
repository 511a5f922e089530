//! Reads events back: the log, its index, and the commands that many readers share.
//!
//! The store is fed by apply, with accepted commands in log order, and read by everyone else. It holds
//! no events of its own: commands are decoded from the log and kept for a while, because those who
//! read the newest events all want the same ones.

mod fetch;
mod recovery;
mod slice;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anabranch_core::{Command, DecodeError, EventView, Origin, Seq};
use parking_lot::Mutex;

use crate::cache::ClockCache;
use crate::disk::Disk;
use crate::error::ReadError;
use crate::index::{
    Direction, EventIndex, Frontier, IndexError, IndexOptions, StreamPlace, Wanted,
};
use crate::log::Log;

pub use recovery::Recovery;
pub use slice::{GroupRef, GroupSlice, PlacedEvent};

/// Why events could not be read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The log could not be read.
    #[error("read the log")]
    Log(#[from] ReadError),
    /// The index could not be read, and not be rebuilt from the log either.
    #[error("look up in the index")]
    Index(#[from] IndexError),
    /// The entry holds no command: it is Raft's own.
    #[error("entry {entry} holds no command")]
    NoCommand {
        /// Index of the entry.
        entry: u64,
    },
    /// The entry's payload is no command, though its checksum is right.
    #[error("entry {entry} cannot be decoded")]
    Undecodable {
        /// Index of the entry.
        entry: u64,
        /// Where decoding stopped.
        source: DecodeError,
    },
    /// The folder of the index could not be made.
    #[error("create the folder of the index")]
    Folder {
        /// The disk's error.
        source: std::io::Error,
    },
    /// The index names an event that the entry does not hold: the index is of another log.
    #[error("entry {entry} does not hold position {position}")]
    Misplaced {
        /// Index of the entry.
        entry: u64,
        /// The event's position according to the index.
        position: u64,
    },
}

/// How a store is opened.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// Id of the log, the same as in the log's own options.
    pub log_id: [u8; 16],
    /// Bytes of decoded commands kept in memory.
    pub command_cache_bytes: usize,
    /// Bytes of index blocks kept in memory.
    pub index_cache_bytes: usize,
}

impl StoreOptions {
    /// Options with the default sizes: 32 MiB of commands, 16 MiB of index blocks.
    pub fn new(log_id: [u8; 16]) -> Self {
        const MIB: usize = 1024 * 1024;
        Self { log_id, command_cache_bytes: 32 * MIB, index_cache_bytes: 16 * MIB }
    }
}

/// Whether a segment may wait for its index file; see [`Store::seal_applied`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sealing {
    /// No.
    NotDue,
    /// Yes: call [`Store::seal_applied`] soon, where writing a file is no harm.
    Due,
}

/// Events of one shard. A cheap handle to share.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    log: Log,
    index: EventIndex,
    commands: ClockCache<u64, Arc<Command>>,
    /// Bytes applied since somebody looked whether a segment was sealed.
    unchecked_bytes: AtomicU64,
    /// Held while a damaged index file is rebuilt, so that two readers do not both do it.
    repairing: Mutex<()>,
}

/// After this many applied bytes it is worth a look whether a segment was sealed.
const CHECK_BYTES: u64 = 1024 * 1024;
/// Places looked up at a time.
const PAGE: usize = 512;

impl Store {
    /// Opens the store over `log`, whose index files lie in `dir`, a folder of its own: what is there
    /// may be deleted at any time while the store is closed.
    ///
    /// `applied` is the entry that the caller's checkpoint stands for, if there is one: up to there the
    /// index is made whole from the log. Feed what is applied after it, all of it: what the index
    /// knows already is passed over.
    ///
    /// # Errors
    /// [`StoreError`] if the log cannot be read where the index must be rebuilt.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        log: Log,
        options: &StoreOptions,
        applied: Option<u64>,
    ) -> Result<(Self, Recovery), StoreError> {
        disk.create_dir(dir).map_err(|source| StoreError::Folder { source })?;
        let index_options =
            IndexOptions { log_id: options.log_id, cache_bytes: options.index_cache_bytes };
        let index = EventIndex::new(disk, dir, &index_options);
        Self::over(index, log, options, applied)
    }

    fn over(
        index: EventIndex,
        log: Log,
        options: &StoreOptions,
        applied: Option<u64>,
    ) -> Result<(Self, Recovery), StoreError> {
        let shared = Shared {
            log,
            index,
            commands: ClockCache::new(options.command_cache_bytes),
            unchecked_bytes: AtomicU64::new(0),
            repairing: Mutex::new(()),
        };
        let store = Self { shared: Arc::new(shared) };
        let recovery = store.recover(applied)?;
        Ok((store, recovery))
    }

    /// The index, for look-ups that read no events.
    pub fn index(&self) -> &EventIndex {
        &self.shared.index
    }

    /// Where the log is after the last command fed: compare it with the state that was applied.
    pub fn frontier(&self) -> Frontier {
        self.shared.index.frontier()
    }

    // ---- feeding ----

    /// Takes an accepted command, in log order: every one, also those without events.
    ///
    /// # Panics
    /// If it does not continue the log's numbers: it was not accepted, or one before it is missing.
    pub fn applied(&self, entry: u64, command: &Arc<Command>) -> Sealing {
        let shared = &self.shared;
        shared.index.applied(entry, command);
        let bytes = command_bytes(command);
        if command.position().is_some() {
            shared.commands.keep(entry, command.clone(), bytes);
        }
        let unchecked = shared.unchecked_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        if unchecked < CHECK_BYTES {
            return Sealing::NotDue;
        }
        shared.unchecked_bytes.store(0, Ordering::Relaxed);
        if self.next_sealed().is_some() { Sealing::Due } else { Sealing::NotDue }
    }

    /// Notes an entry that left no trace in history: Raft's own, or a refused command.
    pub fn passed(&self, entry: u64) {
        self.shared.index.passed(entry + 1);
    }

    /// Writes the index files of the segments that were sealed and fully applied; returns how many.
    /// Takes some milliseconds a segment; applying and reading go on meanwhile.
    ///
    /// # Errors
    /// [`StoreError::Index`] if a file cannot be written: nothing has changed, try again later.
    pub fn seal_applied(&self) -> Result<usize, StoreError> {
        let mut sealed = 0;
        while let Some((first_entry, end_entry)) = self.next_sealed() {
            if !self.shared.index.seal(first_entry, end_entry)? {
                break;
            }
            sealed += 1;
        }
        Ok(sealed)
    }

    /// The next segment that is sealed, fully applied and has no index file.
    fn next_sealed(&self) -> Option<(u64, u64)> {
        let index = &self.shared.index;
        let segments = self.shared.log.segments();
        let next = segments.iter().find(|segment| index.is_next(segment.first_index))?;
        let fed = next.sealed && next.end_index <= index.end_entry();
        fed.then_some((next.first_index, next.end_index))
    }

    // ---- reading ----

    /// The command of an entry.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::NoCommand`] if the entry is Raft's own.
    pub fn read_entry(&self, entry: u64) -> Result<Arc<Command>, StoreError> {
        let mut commands = self.fetch(&[entry])?;
        commands.pop().ok_or(StoreError::NoCommand { entry })
    }

    /// Events in regional order from position `from` on, `from` included, to newer or to older ones.
    ///
    /// Shape: slices of groups in the direction asked for, the events of each oldest first; at most
    /// `max_events`, and groups of `max_bytes` in all, but at least one event if there is any. Fewer
    /// does not mean the end: read on until it is empty.
    /// # Errors
    /// [`StoreError`] if log or index cannot be read.
    pub fn read_positions(
        &self,
        from: u64,
        direction: Direction,
        max_events: usize,
        max_bytes: usize,
    ) -> Result<Vec<GroupSlice>, StoreError> {
        let limit = max_events.clamp(1, PAGE);
        let places = self.look_up(|index| index.entries(from, direction, limit))?;
        let (mut slices, mut events, mut bytes) = (Vec::new(), 0, 0);
        let mut rest = &places[..];
        while !rest.is_empty() {
            let entries: Vec<u64> = rest.iter().map(|place| place.entry).collect();
            let commands = self.fetch(&entries)?;
            for (place, command) in rest.iter().zip(&commands) {
                for group in in_direction(slice::groups_of(command, place.entry), direction) {
                    let size = group.group().encoded().len();
                    if events > 0 && (events >= max_events || bytes + size > max_bytes) {
                        return Ok(slices);
                    }
                    let left = max_events.max(1) - events;
                    if let Some(slice) = slice::cut(group, from, direction, left) {
                        (events, bytes) = (events + slice.len(), bytes + size);
                        slices.push(slice);
                    }
                }
            }
            rest = &rest[commands.len()..];
        }
        Ok(slices)
    }

    /// Events of a stream from a revision on, `from_revision` included, to newer or to older ones.
    ///
    /// Shape: in the direction asked for; at most `max_events`, and `max_bytes` of encoded events, but
    /// at least one if there is any. Empty only at the end.
    /// # Errors
    /// [`StoreError`] if log or index cannot be read.
    pub fn read_stream(
        &self,
        stream: &str,
        from_revision: u64,
        direction: Direction,
        max_events: usize,
        max_bytes: usize,
    ) -> Result<Vec<PlacedEvent>, StoreError> {
        let (mut found, mut bytes) = (Vec::new(), 0);
        let (mut from, mut after) = (from_revision, None);
        let max_events = max_events.max(1);
        loop {
            let limit = (max_events - found.len()).min(PAGE);
            let page = self.look_up(|index| {
                index.stream_places_after(stream, from, after, direction, limit)
            })?;
            if page.is_empty() {
                return Ok(found);
            }
            let mut events = self.events_at(&page)?;
            after = page.get(events.len() - 1).copied();
            // Other names with the same hash are passed over.
            events.retain(|event| &*event.event.stream == stream);
            for event in events {
                bytes += event.event.encoded.len();
                if !found.is_empty() && bytes > max_bytes {
                    return Ok(found);
                }
                let next = match direction {
                    Direction::Forward => Some(event.revision + 1),
                    Direction::Backward => event.revision.checked_sub(1),
                };
                found.push(event);
                match next {
                    Some(next) if found.len() < max_events => from = next,
                    _ => return Ok(found),
                }
            }
        }
    }

    /// Groups of an origin, as they are shipped, the first of which contains `from`.
    ///
    /// Shape: whole groups, dense; together at most `max_bytes`, but at least one if there is any. Fewer
    /// does not mean the end: read on until it is empty.
    /// # Errors
    /// [`StoreError`] if log or index cannot be read.
    pub fn read_origin(
        &self,
        origin: &Origin,
        from: Seq,
        max_bytes: usize,
    ) -> Result<Vec<GroupSlice>, StoreError> {
        let places = self.look_up(|index| index.groups_of(origin, from, PAGE))?;
        let mut bytes = 0;
        let fits = places.iter().take_while(|place| {
            let first = bytes == 0;
            bytes += place.bytes as usize;
            first || bytes <= max_bytes
        });
        let places = &places[..fits.count()];
        let entries: Vec<u64> = places.iter().map(|place| place.entry).collect();
        let commands = self.fetch(&entries)?;
        let groups = places.iter().zip(&commands).map(|(place, command)| {
            let nth = place.ordinal as usize;
            let group = slice::groups_of(command, place.entry).nth(nth);
            let group = group.filter(|group| group.group().first() == place.first);
            let position = command.position().unwrap_or_default();
            let misplaced = StoreError::Misplaced { entry: place.entry, position };
            group.map(GroupSlice::whole).ok_or(misplaced)
        });
        groups.collect()
    }

    /// As [`EventIndex::position_at_time`].
    ///
    /// # Errors
    /// [`StoreError`] if log or index cannot be read.
    pub fn position_at_time(&self, unix_ms: u64) -> Result<u64, StoreError> {
        self.look_up(|index| index.position_at_time(unix_ms))
    }

    /// As [`EventIndex::next_candidate`].
    ///
    /// # Errors
    /// [`StoreError`] if log or index cannot be read.
    pub fn next_candidate(&self, from: u64, wanted: &[Wanted<'_>]) -> Result<u64, StoreError> {
        self.look_up(|index| index.next_candidate(from, wanted))
    }

    /// As [`EventIndex::next_wanted`].
    ///
    /// # Errors
    /// [`StoreError`] if log or index cannot be read.
    pub fn next_wanted(
        &self,
        from: u64,
        wanted: &[Wanted<'_>],
        limit: usize,
    ) -> Result<u64, StoreError> {
        self.look_up(|index| index.next_wanted(from, wanted, limit))
    }

    /// The events at some places: those of a first part of them, at least one.
    fn events_at(&self, places: &[StreamPlace]) -> Result<Vec<PlacedEvent>, StoreError> {
        let entries: Vec<u64> = places.iter().map(|place| place.entry).collect();
        let commands = self.fetch(&entries)?;
        // Neighbours in a stream are often neighbours in a group: it is decoded once.
        let mut decoded: Option<(GroupRef, Vec<EventView>)> = None;
        let events = places.iter().zip(&commands).map(|(place, command)| {
            let position = place.position;
            let holds =
                |group: &GroupRef| (group.position..group.end_position()).contains(&position);
            if !decoded.as_ref().is_some_and(|(group, _)| holds(group)) {
                let group = slice::groups_of(command, place.entry).find(holds);
                decoded = group.map(|group| (group.clone(), group.group().events()));
            }
            let misplaced = StoreError::Misplaced { entry: place.entry, position };
            let (group, events) = decoded.as_ref().ok_or(misplaced)?;
            let nth = (position - group.position) as usize;
            Ok(group.place(nth, events[nth].clone()))
        });
        events.collect()
    }
}

fn in_direction<'a, T: 'a>(
    items: impl DoubleEndedIterator<Item = T> + 'a,
    direction: Direction,
) -> Box<dyn Iterator<Item = T> + 'a> {
    match direction {
        Direction::Forward => Box::new(items),
        Direction::Backward => Box::new(items.rev()),
    }
}

/// What a decoded command counts as in memory.
fn command_bytes(command: &Command) -> usize {
    let groups = command.groups().iter();
    let each = |bytes: usize, revisions: usize| bytes + revisions * 8 + 256;
    64 + groups.map(|p| each(p.group.encoded().len(), p.revisions.len())).sum::<usize>()
}
