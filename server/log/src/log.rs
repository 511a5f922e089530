//! The log of one shard: Raft entries in segment files, with group commit.
//!
//! Everything that changes the log goes through one queue, in order: appends, cuts, votes. A
//! [`Writer`] takes everything that waits, writes it in one call and syncs once, then reports each.
//! So an append waits for at most the sync before its own, and a hundred appends cost one.
//!
//! What is on disk, in the log's folder:
//!
//! - `<first index>.seg`: a header and frames, see [`record`](crate::record). Only the last one is
//!   written to; a new one is begun only when the one before is synced.
//! - `<first index>.off`: where the records of a sealed segment lie. Derived.
//! - `hard-state`: vote and commit mark.
//! - `reserve`: bytes kept aside for a full disk. Derived.
//! - `quarantine/`: files that Raft cut away or that a crash left without content. Never read.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use crate::disk::Disk;
use crate::error::{LogError, OpenError, ReadError};
use crate::hard_state::{HARD_STATE_PART_MAX, HardState};
use crate::options::LogOptions;
use crate::record::{Record, RecordId};
use crate::recovery;
use crate::state::{Op, Shared, State, Wake};
use crate::writer::Writer;

/// Called once, from the writer or, for what is refused at once, from the call itself: `Ok` means
/// durable. Must not block; may call the log.
pub type Done = Box<dyn FnOnce(Result<(), LogError>) + Send>;

/// Whether there is room for more events.
///
/// Raft takes a failed append for the end of the node, so a full disk must be noticed before. The log
/// keeps a file of [`reserve_bytes`](LogOptions::reserve_bytes). When a write finds the disk full,
/// the reserve is given up for it and room is `Low`: the server then refuses what clients append,
/// while Raft's own small entries still fit. Once they do not, either, room is `None`: what is to be
/// written waits, in order, and what waits can be read. [`Log::restore_reserve`] tries to go on and to
/// set the bytes aside again; room is `Ok` if that works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// Events may be appended.
    Ok,
    /// The disk is full: only what keeps the Raft group alive should be appended.
    Low,
    /// The disk is full and the reserve is used up: nothing becomes durable, votes included.
    None,
}

/// One segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its first record.
    pub first_index: u64,
    /// One after its last durable record.
    pub end_index: u64,
    /// Bytes of its file.
    pub bytes: u64,
    /// No record will be added to it, though Raft may still cut it.
    pub sealed: bool,
}

/// What opening found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Opened {
    /// The records.
    pub range: Range<u64>,
    /// What a crash left unfinished at the end, and was cut. It had not been acknowledged.
    pub torn: Option<TornTail>,
    /// First index of the last segment if it held no record: it was moved to `quarantine/`.
    pub empty_segment: Option<u64>,
    /// How many offset tables were missing or damaged, and were made again.
    pub tables_rebuilt: usize,
    /// One of the two copies of vote and commit mark is not whole. Normal after a crash; after an
    /// orderly stop it means that the disk forgets.
    pub hard_state_copy_lost: bool,
}

/// An unfinished end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TornTail {
    /// First index of the segment.
    pub segment: u64,
    /// Where it was cut.
    pub offset: u64,
    /// How much was cut.
    pub bytes: u64,
}

/// A handle of the log. Clones share it; when the last is dropped, the log is closed without waiting.
///
/// Any thread may read. Changes are ordered as the calls are, so one party should make them.
#[derive(Clone)]
pub struct Log {
    shared: Arc<Shared>,
    _close: Arc<CloseOnDrop>,
}

struct CloseOnDrop(Arc<Shared>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.begin_close();
    }
}

impl Log {
    /// Opens the log in `dir`, or begins one. Scans only the last segment.
    ///
    /// Nothing is written until the writer is driven: [`Writer::spawn_thread`] in production,
    /// [`Writer::step`] by hand.
    ///
    /// # Errors
    /// [`OpenError`]; everything on disk is left as it was.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: LogOptions,
    ) -> Result<(Self, Writer, Opened), OpenError> {
        let recovered = recovery::open(disk, dir, options)?;
        let shared = recovered.writer.shared().clone();
        let close = Arc::new(CloseOnDrop(shared.clone()));
        Ok((Self { shared, _close: close }, recovered.writer, recovered.opened))
    }

    /// Adds records after the last one. They are readable when this returns; `done` is called when
    /// all are durable. The first record of an empty log says where the log begins.
    ///
    /// If too much waits already, this waits for the writer's thread; without a thread it refuses.
    /// On a full disk that may take until there is space, see [`on_space`](Self::on_space).
    ///
    /// # Errors
    /// Through `done`. [`LogError::Full`] only from a log that is being closed: a full disk lets
    /// `done` wait.
    pub fn append(&self, records: Vec<Record>, done: Done) {
        let outcome = self.try_append(records, done);
        if let Err((error, done)) = outcome {
            done(Err(error));
        }
    }

    fn try_append(&self, records: Vec<Record>, done: Done) -> Result<(), (LogError, Done)> {
        let max = self.shared.options.max_record_bytes;
        if let Some(record) = records.iter().find(|record| max < record.payload.len()) {
            let bytes = record.payload.len();
            return Err((LogError::TooLarge { what: "record", bytes, max }, done));
        }
        let bytes = records.iter().map(Record::stored_bytes).sum();
        let mut state = self.shared.state.lock();
        if let Err(error) = self.shared.wait_for_space(&mut state, bytes) {
            return Err((error, done));
        }
        if let Err(error) = check_order(&state, &records) {
            return Err((error, done));
        }
        let last = records.len().wrapping_sub(1);
        let mut done = Some(done);
        for (nth, record) in records.into_iter().enumerate() {
            state.show(record.clone());
            let done = if nth == last { done.take() } else { None };
            state.push(Op::Append { record, done });
        }
        if let Some(done) = done {
            state.push(Op::Nothing { done });
        }
        let wake = state.wake.clone();
        drop(state);
        self.shared.wake(wake);
        Ok(())
    }

    /// Removes every record after `last_kept`; all of them if it is `None`. Readers see it when this
    /// returns; `done` is called when it is durable.
    ///
    /// # Errors
    /// Through `done`: [`LogError::Cut`] if `last_kept` is not in the log; those of a stopped log.
    pub fn truncate_after(&self, last_kept: Option<u64>, done: Done) {
        if let Err((error, done)) = self.try_truncate_after(last_kept, done) {
            done(Err(error));
        }
    }

    fn try_truncate_after(
        &self,
        last_kept: Option<u64>,
        done: Done,
    ) -> Result<(), (LogError, Done)> {
        loop {
            let (cuts, range) = {
                let state = self.shared.state.lock();
                (state.cuts, state.range.clone())
            };
            let end = last_kept.map_or(range.start, |index| index + 1);
            let floor = match self.id_before(end, &range) {
                Ok(floor) => floor,
                Err(source) => {
                    let last_kept = last_kept.unwrap_or(0);
                    return Err((LogError::Cut { last_kept, source }, done));
                }
            };
            let mut state = self.shared.state.lock();
            if let Some(stopped) = state.refuses() {
                return Err((stopped, done));
            }
            if state.cuts != cuts {
                continue;
            }
            if end == state.range.end {
                state.push(Op::Nothing { done });
            } else {
                if end < state.tail_start {
                    state.tail.clear();
                    (state.tail_start, state.tail_bytes, state.floor) = (end, 0, floor);
                }
                state.hide(end);
                state.cuts += 1;
                state.pending_cuts.push_back(end);
                state.push(Op::Cut { end, done });
            }
            let wake = state.wake.clone();
            drop(state);
            self.shared.wake(wake);
            return Ok(());
        }
    }

    /// Identity of the record before `end`; `None` if that is where the log begins.
    fn id_before(&self, end: u64, range: &Range<u64>) -> Result<Option<RecordId>, ReadError> {
        if end == range.start {
            return Ok(None);
        }
        let index = end.saturating_sub(1);
        let found = self.shared.read(index..end, 0)?;
        let beyond = ReadError::BeyondEnd { index, end: range.end };
        found.first().map(|record| Some(record.id())).ok_or(beyond)
    }

    /// Remembers the vote; `done` is called when it is durable.
    ///
    /// # Errors
    /// Through `done`: those of a stopped log, and [`LogError::TooLarge`] beyond
    /// [`HARD_STATE_PART_MAX`].
    pub fn save_vote(&self, vote: Bytes, done: Done) {
        let refused = check_part("vote", &vote).and_then(|()| {
            let state = self.shared.state.lock();
            state.refuses().map_or(Ok(state), Err)
        });
        let mut state = match refused {
            Ok(state) => state,
            Err(error) => return done(Err(error)),
        };
        state.hard_state.vote = vote.clone();
        state.push(Op::Vote { vote, done });
        let wake = state.wake.clone();
        drop(state);
        self.shared.wake(wake);
    }

    /// Remembers the commit mark, which says that the record `index` is committed. It is written with
    /// the first batch after that record is durable here, without a sync of its own: after a crash
    /// an older mark may be found, never one beyond the log.
    ///
    /// # Errors
    /// Those of a stopped log, and [`LogError::TooLarge`] beyond [`HARD_STATE_PART_MAX`].
    pub fn save_committed(&self, index: u64, committed: Bytes) -> Result<(), LogError> {
        check_part("commit mark", &committed)?;
        let mut state = self.shared.state.lock();
        if let Some(error) = state.refuses() {
            return Err(error);
        }
        state.hard_state.committed = committed.clone();
        state.committed = Some((index, committed));
        Ok(())
    }

    /// Vote and commit mark as last saved, durable or not.
    pub fn hard_state(&self) -> HardState {
        self.shared.state.lock().hard_state.clone()
    }

    /// Reads records, oldest first. The tail comes from memory; of what comes from disk every
    /// checksum is checked.
    ///
    /// Shape: `range` is half-open; what lies beyond the log's end is left out. At least one record
    /// if there is any, else as many as fit `max_bytes` with what they take on disk.
    /// # Errors
    /// [`ReadError`] if not even the first record can be read.
    pub fn read(&self, range: Range<u64>, max_bytes: usize) -> Result<Vec<Record>, ReadError> {
        self.shared.read(range, max_bytes)
    }

    /// The records there are, as readers see them. Its start says nothing while it is empty.
    pub fn range(&self) -> Range<u64> {
        self.shared.state.lock().range.clone()
    }

    /// Index of the first record.
    pub fn first_index(&self) -> Option<u64> {
        let range = self.range();
        (!range.is_empty()).then_some(range.start)
    }

    /// Identity of the last record.
    pub fn last(&self) -> Option<RecordId> {
        let state = self.shared.state.lock();
        if state.range.is_empty() { None } else { state.last() }
    }

    /// Index of the last record that is durable.
    pub fn durable_index(&self) -> Option<u64> {
        let state = self.shared.state.lock();
        let end = state.durable_end();
        (state.range.start < end).then(|| end - 1)
    }

    /// The segments, oldest first, as far as they are durable.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        let state = self.shared.state.lock();
        let info = state.segments.iter().map(|view| SegmentInfo {
            first_index: view.id.first,
            end_index: view.end,
            bytes: view.bytes,
            sealed: view.sealed,
        });
        info.collect()
    }

    /// How often the writer has waited for the disk since the log was opened: for records, votes, cuts
    /// and the ends of segments. Files that are begun beside, a segment's header say, are not counted.
    pub fn syncs(&self) -> u64 {
        self.shared.syncs.load(Ordering::Relaxed)
    }

    /// Whether there is room for more events.
    pub fn room(&self) -> Room {
        self.shared.state.lock().room
    }

    /// Calls `ready` once an append of these records would not wait for others: at once, or from the
    /// writer; also when the log takes no more changes. For those who must not block. With one party
    /// that appends, the append after it does not wait.
    pub fn on_space(&self, records: &[Record], ready: Box<dyn FnOnce() + Send>) {
        let bytes = records.iter().map(Record::stored_bytes).sum();
        Shared::on_space(&self.shared, bytes, ready);
    }

    /// Why the log takes no more changes, if it does not.
    pub fn stopped(&self) -> Option<LogError> {
        self.shared.state.lock().refuses()
    }

    /// Asks the writer to go on with what found no room, and to set the reserve aside again. To be
    /// called now and then while [`room`](Self::room) is not `Ok`: nothing else makes it so.
    pub fn restore_reserve(&self) {
        let mut state = self.shared.state.lock();
        if state.room == Room::Ok || state.refuses().is_some() {
            return;
        }
        state.again = true;
        if !state.queue.iter().any(|op| matches!(op, Op::Reserve)) {
            state.push(Op::Reserve);
        }
        let wake = state.wake.clone();
        drop(state);
        self.shared.wake(wake);
    }

    /// From here on, what finds no room ends the log with [`LogError::Full`] instead of waiting: for
    /// those who want to close the log and, before, see the end of what they asked of it.
    pub fn refuse_when_full(&self) {
        let mut state = self.shared.state.lock();
        (state.impatient, state.again) = (true, true);
        let wake = state.wake.clone();
        drop(state);
        self.shared.wake(wake);
    }

    /// Takes no more changes; what is queued is still written, synced and reported, unless there is no
    /// room: that is refused with [`LogError::Full`]. Waits for that if a thread drives the writer;
    /// else it happens in the next steps.
    pub fn close(&self) {
        self.shared.begin_close();
        let thread = {
            let mut state = self.shared.state.lock();
            let here = std::thread::current().id();
            state.thread.as_mut().filter(|thread| thread.id != here).and_then(|t| t.join.take())
        };
        // The thread's panics were reported where they happened.
        let _ = thread.map(std::thread::JoinHandle::join);
    }
}

impl State {
    /// Why a change is refused now, if it is.
    pub(crate) fn refuses(&self) -> Option<LogError> {
        match &self.stopped {
            Some(stopped) => Some(stopped.refusal()),
            None => self.closing.then_some(LogError::Closed),
        }
    }
}

impl Shared {
    fn begin_close(&self) {
        let mut state = self.state.lock();
        state.closing = true;
        let wake: Option<Wake> = state.wake.clone();
        self.tell_of_space(state);
        self.wake(wake);
    }

    fn on_space(self: &Arc<Self>, bytes: usize, ready: Box<dyn FnOnce() + Send>) {
        let mut state = self.state.lock();
        if state.refuses().is_some() || self.takes(&state, bytes) {
            drop(state);
            return ready();
        }
        // Weak: who waits is no reason to keep the log.
        let shared = Arc::downgrade(self);
        state.space_wanted.push(Box::new(move || match shared.upgrade() {
            Some(shared) => shared.on_space(bytes, ready),
            None => ready(),
        }));
    }

    /// What is larger than the bound by itself must still pass, alone.
    fn takes(&self, state: &State, bytes: usize) -> bool {
        let queued = state.queued_bytes;
        queued == 0 || queued.saturating_add(bytes) <= self.options.queue_bytes
    }

    fn wait_for_space(
        &self,
        state: &mut parking_lot::MutexGuard<'_, State>,
        bytes: usize,
    ) -> Result<(), LogError> {
        loop {
            if let Some(error) = state.refuses() {
                return Err(error);
            }
            if self.takes(state, bytes) {
                return Ok(());
            }
            let here = std::thread::current().id();
            if state.thread.as_ref().is_none_or(|thread| thread.id == here) {
                let (queued, bound) = (state.queued_bytes, self.options.queue_bytes);
                return Err(LogError::Busy { queued, bound });
            }
            self.space.wait(state);
        }
    }
}

fn check_part(what: &'static str, part: &Bytes) -> Result<(), LogError> {
    let (bytes, max) = (part.len(), HARD_STATE_PART_MAX);
    if bytes <= max { Ok(()) } else { Err(LogError::TooLarge { what, bytes, max }) }
}

fn check_order(state: &State, records: &[Record]) -> Result<(), LogError> {
    let empty = state.range.is_empty();
    let start = records.first().map_or(0, |record| record.index);
    let mut expected = if empty { start } else { state.range.end };
    let mut last_term = if empty { 0 } else { state.last().map_or(0, |last| last.term) };
    for record in records {
        let (index, term) = (record.index, record.term);
        if index != expected || term < last_term {
            return Err(LogError::OutOfOrder { index, term, expected, last_term });
        }
        (expected, last_term) = (index + 1, term);
    }
    Ok(())
}
