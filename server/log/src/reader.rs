//! Reading records: the tail from memory, what is older from the segments.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::disk::{DiskFile, OpenMode};
use crate::error::ReadError;
use crate::offsets::Table;
use crate::record::{RECORD_OVERHEAD, Record};
use crate::segment::{self, Frames, SegmentId};
use crate::state::{Offsets, SegmentView, Shared, State};

/// How many sealed segments stay open.
const OPEN_SEGMENTS: usize = 16;

/// Sealed segments that were read lately, the last one first.
#[derive(Default)]
pub(crate) struct OpenSegments(Mutex<VecDeque<(SegmentId, Arc<OpenSegment>)>>);

struct OpenSegment {
    file: Arc<dyn DiskFile>,
    table: Option<Table>,
}

impl OpenSegments {
    fn open(&self, shared: &Shared, id: SegmentId) -> io::Result<Arc<OpenSegment>> {
        let mut recent = self.0.lock();
        if let Some(at) = recent.iter().position(|(other, _)| *other == id) {
            let found = recent.remove(at).expect("it was found");
            recent.push_front(found);
        } else {
            let path = segment::path(&shared.dir, id.first);
            let file = shared.disk.open(&path, OpenMode::Read)?;
            let table = Table::open(&*shared.disk, &shared.dir, id.first).ok();
            recent.push_front((id, Arc::new(OpenSegment { file, table })));
            recent.truncate(OPEN_SEGMENTS);
        }
        Ok(recent[0].1.clone())
    }

    /// Forgets segments from `first` on, which are being changed or moved.
    pub(crate) fn forget_from(&self, first: u64) {
        self.0.lock().retain(|(id, _)| id.first < first);
    }
}

/// Part of one segment, found under the lock and read without it.
struct Part {
    view: SegmentView,
    /// Records to read; not empty, all in the segment.
    records: Range<u64>,
}

impl Part {
    fn find(state: &State, range: &Range<u64>) -> Option<Self> {
        let view = state.segment_of(range.start)?;
        let end = range.end.min(view.end);
        Some(Self { view: view.clone(), records: range.start..end })
    }

    fn corrupt(&self, offset: u64) -> ReadError {
        let (segment, index) = (self.view.id.first, self.records.start);
        ReadError::Corrupt { segment, offset, index }
    }

    fn io(&self, source: io::Error) -> ReadError {
        ReadError::Io { segment: self.view.id.first, source: Arc::new(source) }
    }

    /// Reads at least one record, and more while they fit `max_bytes`.
    fn read(&self, shared: &Shared, max_bytes: usize) -> Result<Vec<Record>, ReadError> {
        let open;
        let (file, table) = match &self.view.file {
            Some(file) => (file, None),
            None => {
                open = shared.open_segments.open(shared, self.view.id).map_err(|e| self.io(e))?;
                (&open.file, open.table.as_ref())
            }
        };
        if let Some(bytes) = self.span(table) {
            match self.read_span(&**file, bytes, max_bytes) {
                Err(ReadError::Corrupt { .. }) if self.view.sealed => {}
                outcome => return outcome,
            }
        }
        // The table may be what is damaged: the segment itself decides.
        self.read_by_scan(shared, &**file, max_bytes)
    }

    /// The bytes where the records lie, as far as the offsets say; marks may be among them.
    fn span(&self, table: Option<&Table>) -> Option<Range<u64>> {
        let first = self.view.id.first;
        let offset_of = |index: u64| match &self.view.offsets {
            Offsets::Memory(offsets) => {
                offsets.get((index - first) as usize).copied().map(u64::from)
            }
            Offsets::Table => table?.offset(index - first).ok(),
        };
        let start = offset_of(self.records.start)?;
        let end = match self.records.end {
            end if end == self.view.end => self.view.bytes,
            end => offset_of(end)?,
        };
        (segment::HEADER_BYTES <= start && start < end && end <= self.view.bytes)
            .then_some(start..end)
    }

    fn read_span(
        &self,
        file: &dyn DiskFile,
        bytes: Range<u64>,
        max_bytes: usize,
    ) -> Result<Vec<Record>, ReadError> {
        let span = (bytes.end - bytes.start) as usize;
        let chunk = span.min(max_bytes.saturating_add(RECORD_OVERHEAD)).min(1024 * 1024);
        let mut frames = Frames::new(file, self.view.id.seed(), bytes).with_chunk(chunk);
        let mut records = Vec::new();
        let mut budget = max_bytes;
        for index in self.records.clone() {
            let record = match frames.next_record().map_err(|e| self.io(e))? {
                Some((_, record)) if record.index == index => record,
                // What is whole before the damage is handed out; the next read meets it first.
                _ if !records.is_empty() => break,
                _ => return Err(self.corrupt(frames.offset)),
            };
            let fits = record.stored_bytes() <= budget;
            if !fits && !records.is_empty() {
                break;
            }
            budget = budget.saturating_sub(record.stored_bytes());
            records.push(record);
        }
        Ok(records)
    }

    fn read_by_scan(
        &self,
        shared: &Shared,
        file: &dyn DiskFile,
        max_bytes: usize,
    ) -> Result<Vec<Record>, ReadError> {
        let scan = segment::scan(file, self.view.id).map_err(|e| self.io(e))?;
        let nth = (self.records.start - self.view.id.first) as usize;
        let Some(start) = scan.offsets.get(nth) else { return Err(self.corrupt(scan.end)) };
        let records = self.read_span(file, u64::from(*start)..scan.end, max_bytes)?;
        if self.view.id.first + scan.offsets.len() as u64 == self.view.end {
            tracing::warn!(segment = self.view.id.first, "offset table is damaged, made again");
            shared.keep_offsets(self.view.id, scan.offsets);
        }
        Ok(records)
    }
}

impl Shared {
    /// See [`Log::read`](crate::log::Log::read).
    pub(crate) fn read(
        &self,
        range: Range<u64>,
        max_bytes: usize,
    ) -> Result<Vec<Record>, ReadError> {
        let mut next = range.start;
        let mut budget = max_bytes;
        let mut records: Vec<Record> = Vec::new();
        let mut seen_cuts = None;
        loop {
            let part = {
                let state = self.state.lock();
                if seen_cuts.replace(state.cuts).is_some_and(|cuts| cuts != state.cuts) {
                    // A cut came between: what was read belongs to two different pasts.
                    (next, budget) = (range.start, max_bytes);
                    records.clear();
                }
                let range = next..range.end.min(state.range.end);
                if range.is_empty() || (!records.is_empty() && budget == 0) {
                    return Ok(records);
                }
                if range.start < state.range.start {
                    let (index, first) = (range.start, state.range.start);
                    return Err(ReadError::BeforeFirst { index, first });
                }
                if state.tail_start <= range.start {
                    state.read_tail(range, budget, &mut records);
                    return Ok(records);
                }
                let range = range.start..range.end.min(state.tail_start);
                Part::find(&state, &range).expect("what left the tail is in a segment")
            };
            match part.read(self, budget) {
                Ok(more) => {
                    let bytes: usize = more.iter().map(Record::stored_bytes).sum();
                    if !records.is_empty() && budget < bytes {
                        budget = 0;
                        continue;
                    }
                    budget = budget.saturating_sub(bytes);
                    next = more.last().map_or(next, |record| record.index + 1);
                    if next < part.records.end {
                        budget = 0;
                    }
                    records.extend(more);
                }
                Err(_) if self.state.lock().cuts != seen_cuts.expect("set above") => {}
                Err(error) if records.is_empty() => return Err(error),
                Err(_) => return Ok(records),
            }
        }
    }

    fn keep_offsets(&self, id: SegmentId, offsets: Vec<u32>) {
        let mut state = self.state.lock();
        if let Some(view) = state.segments.iter_mut().find(|view| view.sealed && view.id == id) {
            view.offsets = Offsets::Memory(Arc::new(offsets));
        }
        drop(state);
        // The table is derived; the next open makes it again.
        let _ = self.disk.remove(&segment::offsets_path(&self.dir, id.first));
    }
}

impl State {
    fn read_tail(&self, range: Range<u64>, mut budget: usize, records: &mut Vec<Record>) {
        let skip = (range.start - self.tail_start) as usize;
        let len = (range.end - range.start) as usize;
        for record in self.tail.range(skip..skip + len) {
            if budget < record.stored_bytes() && !records.is_empty() {
                return;
            }
            budget = budget.saturating_sub(record.stored_bytes());
            records.push(record.clone());
        }
    }
}
