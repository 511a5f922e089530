//! What the handles of a log and its writer share.
//!
//! Readers see the log as it was *submitted*: records are readable when `append` returns, a cut takes
//! effect when `truncate_after` returns. The writer follows. So records live in the tail, in memory,
//! at least until they are synced and no cut is pending below them; what left the tail is read from
//! the segments as the writer last published them.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{JoinHandle, ThreadId};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::disk::{Disk, DiskFile};
use crate::failure::Stopped;
use crate::hard_state::HardState;
use crate::log::{Done, Room};
use crate::options::LogOptions;
use crate::reader::OpenSegments;
use crate::record::{Record, RecordId};
use crate::segment::SegmentId;

/// Wakes who drives the writer.
pub(crate) type Wake = Arc<dyn Fn() + Send + Sync>;

pub(crate) struct Shared {
    pub disk: Arc<dyn Disk>,
    pub dir: PathBuf,
    pub options: LogOptions,
    pub state: Mutex<State>,
    /// The queue is no longer empty, or the log is closing.
    pub work: Condvar,
    /// The queue got shorter, or the log stopped.
    pub space: Condvar,
    pub open_segments: OpenSegments,
    /// How often the writer waited for the disk.
    pub syncs: AtomicU64,
}

/// One thing the writer has to do.
pub(crate) enum Op {
    /// `done` is there on the last record of an append.
    Append {
        record: Record,
        done: Option<Done>,
    },
    /// Nothing, but in its turn.
    Nothing {
        done: Done,
    },
    /// Removes records from `end` on.
    Cut {
        end: u64,
        done: Done,
    },
    Vote {
        vote: Bytes,
        done: Done,
    },
    /// Tries to set bytes aside again.
    Reserve,
}

impl Op {
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Append { record, .. } => record.stored_bytes(),
            Self::Vote { vote, .. } => vote.len(),
            Self::Nothing { .. } | Self::Cut { .. } | Self::Reserve => 0,
        }
    }

    pub(crate) fn into_done(self) -> Option<Done> {
        match self {
            Self::Append { done, .. } => done,
            Self::Nothing { done } | Self::Cut { done, .. } | Self::Vote { done, .. } => Some(done),
            Self::Reserve => None,
        }
    }
}

pub(crate) struct State {
    /// Records that readers see.
    pub range: Range<u64>,
    /// Index of the first record in `tail`, or the end if there is none.
    pub tail_start: u64,
    pub tail: VecDeque<Record>,
    pub tail_bytes: usize,
    /// Identity of the record before the tail.
    pub floor: Option<RecordId>,
    /// Segments as the writer published them, oldest first.
    pub segments: Vec<SegmentView>,
    /// How many cuts there were: a reader that saw it change reads again.
    pub cuts: u64,
    /// Ends that the writer has not cut to yet.
    pub pending_cuts: VecDeque<u64>,
    /// One after the last record synced.
    pub synced_end: u64,
    pub queue: VecDeque<Op>,
    pub queued_bytes: usize,
    pub hard_state: HardState,
    /// A commit mark to write once the record of this index is durable.
    pub committed: Option<(u64, Bytes)>,
    pub room: Room,
    /// What found no room is to be tried again, once.
    pub again: bool,
    /// What finds no room is refused, and ends the log: nobody will wait for it.
    pub impatient: bool,
    /// To be called when the queue got shorter, or the log stopped.
    pub space_wanted: Vec<Box<dyn FnOnce() + Send>>,
    pub closing: bool,
    pub stopped: Option<Stopped>,
    pub wake: Option<Wake>,
    pub thread: Option<WriterThread>,
}

pub(crate) struct WriterThread {
    pub id: ThreadId,
    pub join: Option<JoinHandle<()>>,
}

/// A segment as readers find it.
#[derive(Clone)]
pub(crate) struct SegmentView {
    pub id: SegmentId,
    /// One after its last durable record.
    pub end: u64,
    /// Bytes of its file that are durable.
    pub bytes: u64,
    pub sealed: bool,
    /// There while records are appended to it.
    pub file: Option<Arc<dyn DiskFile>>,
    pub offsets: Offsets,
}

/// Where to look up where a record lies.
#[derive(Clone)]
pub(crate) enum Offsets {
    Memory(Arc<Vec<u32>>),
    Table,
}

impl State {
    /// One after the last record that is durable and not about to be cut.
    pub(crate) fn durable_end(&self) -> u64 {
        self.pending_cuts.iter().copied().fold(self.synced_end, u64::min)
    }

    pub(crate) fn last(&self) -> Option<RecordId> {
        self.tail.back().map(Record::id).or(self.floor)
    }

    pub(crate) fn push(&mut self, op: Op) {
        self.queued_bytes += op.bytes();
        self.queue.push_back(op);
    }

    /// Makes a record readable. It must follow the last one.
    pub(crate) fn show(&mut self, record: Record) {
        if self.range.is_empty() {
            self.range = record.index..record.index;
            self.tail_start = record.index;
        }
        assert_eq!(self.range.end, record.index, "records are dense");
        self.range.end += 1;
        self.tail_bytes += record.stored_bytes();
        self.tail.push_back(record);
    }

    /// Hides records from `end` on, which must not be before the tail.
    pub(crate) fn hide(&mut self, end: u64) {
        assert!(self.tail_start <= end, "cut to {end}, tail starts at {}", self.tail_start);
        while self.tail.back().is_some_and(|record| end <= record.index) {
            let record = self.tail.pop_back().expect("it was there");
            self.tail_bytes -= record.stored_bytes();
        }
        self.range.end = self.range.end.min(end);
    }

    /// Goes back to what is on disk, because what was queued beyond it never will be.
    pub(crate) fn hide_what_is_not_durable(&mut self) {
        // The tail starts beyond the durable end only if it starts the log anew.
        let end = self.durable_end().max(self.tail_start);
        self.hide(end);
        // A reader may have seen records that will come to be others.
        self.cuts += 1;
    }

    /// Lets go of durable records beyond the cache's bound, oldest first.
    pub(crate) fn evict(&mut self, cache_bytes: usize) {
        let durable_end = self.durable_end();
        while cache_bytes < self.tail_bytes && self.tail_start < durable_end {
            let Some(record) = self.tail.pop_front() else { return };
            self.tail_bytes -= record.stored_bytes();
            self.tail_start = record.index + 1;
            self.floor = Some(record.id());
        }
    }

    /// The segment that holds a record which left the tail.
    pub(crate) fn segment_of(&self, index: u64) -> Option<&SegmentView> {
        let after = self.segments.partition_point(|segment| segment.id.first <= index);
        self.segments[..after].last().filter(|segment| index < segment.end)
    }
}

impl Shared {
    /// Tells who waits that the queue got shorter, or that the log stopped.
    pub(crate) fn tell_of_space(&self, mut state: MutexGuard<'_, State>) {
        let wanted = std::mem::take(&mut state.space_wanted);
        drop(state);
        self.space.notify_all();
        wanted.into_iter().for_each(|ready| ready());
    }

    /// Makes durable what the writer wrote to a segment.
    pub(crate) fn sync(&self, file: &dyn DiskFile) -> io::Result<()> {
        self.count_sync();
        file.sync()
    }

    pub(crate) fn count_sync(&self) {
        self.syncs.fetch_add(1, Ordering::Relaxed);
    }

    /// Tells the driver that there is work.
    pub(crate) fn wake(&self, wake: Option<Wake>) {
        self.work.notify_one();
        if let Some(wake) = wake {
            wake();
        }
    }
}
