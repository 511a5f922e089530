//! Opening a log: what is whole is kept, what was never acknowledged is cut, anything else is an
//! error that touches nothing.
//!
//! Only the last segment is scanned. Where its frames end before the file does, something is not
//! whole. If a mark follows, the damage is to what was synced before that mark: corruption. If none
//! does, and the hard state knows of no acknowledged record there, it is the batch that was being
//! written when the power failed: its blocks may have survived in any order, none was acknowledged.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anabranch_core::planted::{self, Bug};

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::OpenError;
use crate::failure::is_full;
use crate::hard_state::{self, Acknowledged, FoundHardState, HardStateFile, Slot};
use crate::log::{Opened, Room, TornTail};
use crate::offsets::{self, Sealed};
use crate::options::LogOptions;
use crate::record::RecordId;
use crate::segment::{self, HEADER_BYTES, Scan, SegmentId};
use crate::state::{Offsets, SegmentView, Shared, State};
use crate::writer::{Active, Writer};
use crate::{reserve, roll};

pub(crate) struct Recovered {
    pub writer: Writer,
    pub opened: Opened,
}

/// See [`Log::open`](crate::log::Log::open).
pub(crate) fn open(
    disk: Arc<dyn Disk>,
    dir: &Path,
    options: LogOptions,
) -> Result<Recovered, OpenError> {
    options.check()?;
    let folder = Folder { disk: &*disk, dir, log: options.log_id };
    let names = folder.names()?;
    let firsts: Vec<u64> = names.iter().filter_map(|name| segment::first_of_name(name)).collect();
    let hard = folder.hard_state(&names, !firsts.is_empty())?;
    let mut opened = Opened { hard_state_copy_lost: hard.one_copy_lost, ..Opened::default() };
    let found = folder.segments(&firsts, hard.slot.acknowledged, &mut opened)?;
    let reserved = reserve::take(&*disk, dir, options.reserve_bytes).is_ok();
    if !reserved {
        tracing::warn!(?dir, "the disk is full, there is no room for the reserve");
    }

    let range = opened.range.clone();
    let state = State {
        range: range.clone(),
        tail_start: range.end,
        tail: Default::default(),
        tail_bytes: 0,
        floor: found.last,
        segments: found.views,
        cuts: 0,
        pending_cuts: Default::default(),
        synced_end: range.end,
        queue: Default::default(),
        queued_bytes: 0,
        hard_state: hard.slot.state.clone(),
        committed: None,
        room: if reserved { Room::Ok } else { Room::Low },
        again: false,
        impatient: false,
        space_wanted: Vec::new(),
        closing: false,
        stopped: None,
        wake: None,
        thread: None,
    };
    let reserve = reserved && 0 < options.reserve_bytes;
    let shared = Arc::new(Shared {
        dir: dir.to_owned(),
        options,
        state: parking_lot::Mutex::new(state),
        work: Default::default(),
        space: Default::default(),
        open_segments: Default::default(),
        syncs: Default::default(),
        disk,
    });
    let written = hard.slot.state;
    let mut writer = Writer::new(shared, hard.file, written, found.active, reserve);
    writer.write_mark().map_err(|failed| OpenError::Io {
        doing: failed.doing,
        path: dir.to_owned(),
        source: failed.source,
    })?;
    Ok(Recovered { writer, opened })
}

struct Folder<'a> {
    disk: &'a dyn Disk,
    dir: &'a Path,
    log: [u8; 16],
}

#[derive(Default)]
struct Segments {
    views: Vec<SegmentView>,
    active: Option<Active>,
    last: Option<RecordId>,
}

fn io_error(doing: &'static str, path: PathBuf) -> impl FnOnce(io::Error) -> OpenError {
    move |source| OpenError::Io { doing, path, source }
}

impl Folder<'_> {
    fn names(&self) -> Result<Vec<String>, OpenError> {
        match self.disk.list(self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            outcome => outcome.map_err(io_error("list", self.dir.to_owned())),
        }
    }

    fn hard_state(&self, names: &[String], records: bool) -> Result<FoundHardState, OpenError> {
        if hard_state::is_in(names) {
            return HardStateFile::open(self.disk, self.dir, self.log);
        }
        let path = hard_state::path(self.dir);
        if records {
            return Err(OpenError::HardStateMissing { path });
        }
        let file = self.begin_log().map_err(io_error("create", path))?;
        Ok(FoundHardState { file, slot: Slot::default(), one_copy_lost: false })
    }

    /// The folder may be there without being durable, from an attempt that was killed.
    fn begin_log(&self) -> io::Result<HardStateFile> {
        self.disk.create_dir(self.dir)?;
        for parent in self.dir.ancestors().skip(1) {
            self.disk.sync_dir(parent)?;
        }
        HardStateFile::create(self.disk, self.dir, self.log)
    }

    fn segments(
        &self,
        firsts: &[u64],
        acknowledged: Acknowledged,
        opened: &mut Opened,
    ) -> Result<Segments, OpenError> {
        check_start(firsts.first().copied(), acknowledged)?;
        let mut found = Segments::default();
        let mut ends = firsts.iter().skip(1);
        for &first in firsts {
            match ends.next() {
                Some(&end) => found.views.push(self.sealed(first, end, opened)?),
                None => self.last_segment(first, acknowledged, &mut found, opened)?,
            }
        }
        if let (Some(first), Some(last)) = (found.views.first(), found.views.last()) {
            opened.range = first.id.first..last.end;
        } else {
            opened.range = acknowledged.start..acknowledged.start;
        }
        if found.active.is_none() && !found.views.is_empty() {
            found.last = self.last_of_sealed(found.views.last_mut().expect("not empty"))?;
        }
        Ok(found)
    }

    /// A segment that another follows: its table says what it holds, else a scan.
    fn sealed(&self, first: u64, end: u64, opened: &mut Opened) -> Result<SegmentView, OpenError> {
        let path = segment::path(self.dir, first);
        let io = |e| io_error("read", path.clone())(e);
        let file = self.disk.open(&path, OpenMode::Read).map_err(io)?;
        let Some(id) = self.header(&*file, first, &path)? else {
            return Err(OpenError::Corrupt { segment: first, offset: 0, records: first..end });
        };
        let bytes = file.len().map_err(io)?;
        let view =
            SegmentView { id, end, bytes, sealed: true, file: None, offsets: Offsets::Table };
        let sealed = Sealed { id, end, bytes };
        if offsets::read_header(self.disk, self.dir, first) == Some(sealed) {
            return Ok(view);
        }
        let scan = segment::scan(&*file, id).map_err(io)?;
        let found = first + scan.offsets.len() as u64;
        if scan.end < scan.len || end < found {
            let (segment, offset) = (first, scan.end);
            return Err(OpenError::Corrupt { segment, offset, records: found.min(end)..end });
        }
        if found < end {
            return Err(OpenError::Hole { records: found..end });
        }
        opened.tables_rebuilt += 1;
        let written = offsets::write(self.disk, self.dir, &sealed, &scan.offsets);
        Ok(match written {
            Ok(()) => view,
            Err(_) => SegmentView { offsets: Offsets::Memory(Arc::new(scan.offsets)), ..view },
        })
    }

    /// Reads the header of the segment that should begin with `first`.
    fn header(
        &self,
        file: &dyn DiskFile,
        first: u64,
        path: &Path,
    ) -> Result<Option<SegmentId>, OpenError> {
        let id = segment::read_header(file).map_err(io_error("read", path.to_owned()))?;
        match id {
            Some(id) if id.log != self.log => Err(OpenError::Foreign { path: path.to_owned() }),
            id => Ok(id.filter(|id| id.first == first)),
        }
    }

    fn last_segment(
        &self,
        first: u64,
        acknowledged: Acknowledged,
        found: &mut Segments,
        opened: &mut Opened,
    ) -> Result<(), OpenError> {
        let path = segment::path(self.dir, first);
        let io = |e| io_error("read", path.clone())(e);
        let file = self.disk.open(&path, OpenMode::ReadWrite).map_err(io)?;
        let id = self.header(&*file, first, &path)?;
        let len = file.len().map_err(io)?;
        let known_end = acknowledged.end.max(first + 1);
        let corrupt = |offset, records| OpenError::Corrupt { segment: first, offset, records };
        let Some(id) = id else {
            // A header is durable before a record follows it.
            if HEADER_BYTES < len || first < acknowledged.end {
                return Err(corrupt(0, first..known_end));
            }
            return self.set_aside(first, opened);
        };
        let scan = segment::scan(&*file, id).map_err(io)?;
        let end = first + scan.offsets.len() as u64;
        let mark = segment::last_mark(&*file, id.seed(), scan.end..scan.len).map_err(io)?;
        if mark.is_some() || end < acknowledged.end {
            let known_end = mark.unwrap_or(0).max(acknowledged.end).max(end + 1);
            if scan.end < scan.len {
                return Err(corrupt(scan.end, end..known_end));
            }
            return Err(OpenError::Short { end, acknowledged_end: acknowledged.end });
        }
        if scan.offsets.is_empty() {
            return self.set_aside(first, opened);
        }
        self.keep_last(id, file, scan, found, opened).map_err(io)
    }

    /// Cuts what is not whole, and makes sure that the rest is durable: it may only ever have been in
    /// the system's cache, be it that the process was killed, or that a sync failed and the cache
    /// takes for clean what the disk never got.
    fn keep_last(
        &self,
        id: SegmentId,
        file: Arc<dyn DiskFile>,
        scan: Scan,
        found: &mut Segments,
        opened: &mut Opened,
    ) -> io::Result<()> {
        if scan.end < scan.len {
            // Zeroes were to be written over, and are no part of anything.
            let bytes = segment::written_end(&*file, scan.end..scan.len)? - scan.end;
            let torn = TornTail { segment: id.first, offset: scan.end, bytes };
            opened.torn = Some(torn).filter(|torn| torn.bytes > 0);
            file.set_len(scan.end)?;
        }
        if !planted::is(Bug::UnsyncedTailBelieved) {
            segment::rewrite(&*file, scan.sure..scan.end)?;
        }
        file.sync()?;
        found.last = scan.last;
        found.views.push(SegmentView {
            id,
            end: id.first + scan.offsets.len() as u64,
            bytes: scan.end,
            sealed: false,
            file: Some(file.clone()),
            offsets: Offsets::Memory(Arc::new(scan.offsets)),
        });
        let (offset, marked) = (scan.end, scan.marked);
        found.active = Some(Active { id, file, offset, len: offset, marked, empty: false });
        Ok(())
    }

    /// A last segment without a record: the crash came right after it was begun.
    fn set_aside(&self, first: u64, opened: &mut Opened) -> Result<(), OpenError> {
        opened.empty_segment = Some(first);
        let path = segment::path(self.dir, first);
        let aside = match roll::quarantine(self.disk, self.dir, first) {
            // For this, too, the reserve is there.
            Err(error) if is_full(&error) => reserve::release(self.disk, self.dir)
                .and_then(|()| roll::quarantine(self.disk, self.dir, first)),
            outcome => outcome,
        };
        aside.map_err(io_error("set aside", path))
    }

    /// Identity of the last record of a log whose last segment is sealed.
    fn last_of_sealed(&self, view: &mut SegmentView) -> Result<Option<RecordId>, OpenError> {
        let path = segment::path(self.dir, view.id.first);
        let io = |e| io_error("read", path.clone())(e);
        let file = self.disk.open(&path, OpenMode::Read).map_err(io)?;
        let scan = segment::scan(&*file, view.id).map_err(io)?;
        let end = view.id.first + scan.offsets.len() as u64;
        if scan.end < scan.len || end != view.end {
            let (segment, offset) = (view.id.first, scan.end);
            return Err(OpenError::Corrupt { segment, offset, records: end..view.end });
        }
        Ok(scan.last)
    }
}

/// Nothing acknowledged is missing before the first segment. That nothing is missing after the last
/// is for who looks into that.
fn check_start(first: Option<u64>, acknowledged: Acknowledged) -> Result<(), OpenError> {
    let Acknowledged { start, end } = acknowledged;
    match first {
        _ if start == end => Ok(()),
        None => Err(OpenError::Short { end: start, acknowledged_end: end }),
        Some(first) if start < first => Err(OpenError::Hole { records: start..first.min(end) }),
        Some(_) => Ok(()),
    }
}
