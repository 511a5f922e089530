//! Segments begun, sealed and cut by the writer.

use std::io;
use std::path::Path;
use std::sync::Arc;

use anabranch_core::planted::{self, Bug};

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::failure::{Failed, Lack, failed, failed_open, failed_write};
use crate::offsets::{self, Sealed};
use crate::record::Record;
use crate::segment::{self, HEADER_BYTES, SegmentId};
use crate::state::{Offsets, SegmentView, State};
use crate::writer::{Active, Writer};

const QUARANTINE: &str = "quarantine";

impl Writer {
    /// Makes sure that the record goes to a segment that takes it.
    pub(crate) fn make_room_in_segment(&mut self, record: &Record) -> Result<(), Failed> {
        let bound = self.shared.options.segment_bytes;
        #[allow(clippy::collapsible_match)] // Collapsed, the second arm would catch the first's.
        match &self.active {
            // A segment without a record takes any, if it begins with that.
            Some(active) if active.empty => {
                let begins_with = (active.id.first, active.id.first_term);
                if begins_with != (record.index, record.term) {
                    self.drop_empty_segment()?;
                }
            }
            Some(active) if bound < active.offset + record.stored_bytes() as u64 => self.seal()?,
            _ => {}
        }
        if self.active.is_none() {
            self.begin_segment(record)?;
        }
        Ok(())
    }

    /// Ends the active segment. It is whole and synced before the next one exists, so only the last
    /// segment of a log can have a torn tail.
    fn seal(&mut self) -> Result<(), Failed> {
        let Some(active) = &mut self.active else { return Ok(()) };
        let len = active.file.len().map_err(failed("measure a segment"))?;
        if len != active.offset {
            // Zeroes for batches to come, or what a full disk left of a mark.
            active.cut_off().map_err(failed("cut a segment"))?;
        }
        self.shared.sync(&*active.file).map_err(failed("sync a segment"))?;
        let sealed = Sealed { id: active.id, end: self.end, bytes: active.offset };
        let mut state = self.shared.state.lock();
        let view = state.segments.last_mut().expect("the active segment is published");
        assert_eq!(view.id, sealed.id, "the last view is the active segment's");
        (view.sealed, view.bytes) = (true, sealed.bytes);
        let Offsets::Memory(offsets) = view.offsets.clone() else {
            unreachable!("an active segment keeps its offsets in memory")
        };
        drop(state);
        let written = offsets::write(&*self.shared.disk, &self.shared.dir, &sealed, &offsets);
        let mut state = self.shared.state.lock();
        let view = state.segments.last_mut().expect("the active segment is published");
        match written {
            Ok(()) => (view.offsets, view.file) = (Offsets::Table, None),
            // Derived: it stays in memory until the next open makes it again.
            Err(error) => {
                tracing::warn!(%error, first = sealed.id.first, "no offset table written")
            }
        }
        drop(state);
        self.active = None;
        Ok(())
    }

    /// Sets aside a segment that was begun but got no record.
    fn drop_empty_segment(&mut self) -> Result<(), Failed> {
        let Some(active) = self.active.as_ref().filter(|active| active.empty) else {
            return Ok(());
        };
        let (disk, dir) = (&*self.shared.disk, &*self.shared.dir);
        quarantine(disk, dir, active.id.first).map_err(failed_write("set a segment aside"))?;
        self.active = None;
        Ok(())
    }

    fn begin_segment(&mut self, record: &Record) -> Result<(), Failed> {
        let id = SegmentId {
            log: self.shared.options.log_id,
            first: record.index,
            first_term: record.term,
        };
        let (disk, dir) = (&*self.shared.disk, &*self.shared.dir);
        let file = create(disk, dir, id)?;
        self.active = Some(Active {
            id,
            file,
            offset: HEADER_BYTES,
            len: HEADER_BYTES,
            marked: true,
            empty: true,
        });
        Ok(())
    }

    /// Removes records from `end` on. Not durable before the active segment is synced. One that finds
    /// no room goes on where it was when it is tried again.
    pub(crate) fn cut(&mut self, end: u64) -> Result<(), Failed> {
        // Else the records concerned never reached the disk.
        if end < self.end {
            self.drop_empty_segment()?;
            self.shared.open_segments.forget_from(0);
            let before = std::mem::replace(&mut self.end, end);
            // First of all, and durable: from here on the log may end there without being short.
            self.write_hard_state().inspect_err(|_| self.end = before)?;
            self.sync_hard_state()?;
        }
        self.remove_segments_from(end)?;
        self.cut_segment_at(end)
    }

    /// Moves away the segments that hold nothing before `end`, the last one first and each durably,
    /// so that a crash leaves no hole.
    fn remove_segments_from(&mut self, end: u64) -> Result<(), Failed> {
        loop {
            let last = self.shared.state.lock().segments.last().map(|view| view.id.first);
            let Some(first) = last.filter(|first| end <= *first) else { return Ok(()) };
            self.active = None;
            let (disk, dir) = (&*self.shared.disk, &*self.shared.dir);
            quarantine(disk, dir, first).map_err(failed_write("set a segment aside"))?;
            self.shared.state.lock().segments.pop();
        }
    }

    /// Cuts the last segment if it goes on beyond `end`; it is written to from there.
    fn cut_segment_at(&mut self, end: u64) -> Result<(), Failed> {
        let last = self.shared.state.lock().segments.last().cloned();
        let Some(view) = last.filter(|view| end < view.end) else {
            return Ok(());
        };
        let (disk, dir) = (&*self.shared.disk, &*self.shared.dir);
        let file = match &self.active {
            Some(active) => active.file.clone(),
            None => reopen(disk, dir, view.id.first).map_err(failed("open a segment"))?,
        };
        let scan = segment::scan(&*file, view.id).map_err(failed("read a segment"))?;
        let kept = (end - view.id.first) as usize;
        let Some(offset) = scan.offsets.get(kept).copied() else {
            let source =
                io::Error::new(io::ErrorKind::InvalidData, "records before it are damaged");
            return Err(failed("find where to cut")(source));
        };
        let offset = u64::from(offset);
        file.set_len(offset).map_err(failed("cut a segment"))?;
        let active = Active { id: view.id, file, offset, len: offset, marked: false, empty: false };
        let mut state = self.shared.state.lock();
        let view = state.segments.last_mut().expect("it was there");
        view.offsets = Offsets::Memory(Arc::new(scan.offsets[..kept].to_vec()));
        (view.end, view.bytes, view.sealed) = (end, offset, false);
        view.file = Some(active.file.clone());
        drop(state);
        self.active = Some(active);
        Ok(())
    }
}

impl State {
    /// Lets readers find records that are now durable in the active segment.
    pub(crate) fn publish(&mut self, active: &Active, offsets: Vec<u32>, end: u64) {
        let known = self.segments.last().is_some_and(|view| view.id == active.id);
        if !known {
            self.segments.push(SegmentView {
                id: active.id,
                end: active.id.first,
                bytes: HEADER_BYTES,
                sealed: false,
                file: Some(active.file.clone()),
                offsets: Offsets::Memory(Arc::default()),
            });
        }
        let view = self.segments.last_mut().expect("pushed above");
        (view.end, view.bytes) = (end, active.offset);
        if let Offsets::Memory(known) = &mut view.offsets {
            Arc::make_mut(known).extend(offsets);
        }
    }
}

fn reopen(disk: &dyn Disk, dir: &Path, first: u64) -> io::Result<Arc<dyn DiskFile>> {
    // A table that outlived the cut could later pass for that of the records to come.
    match disk.remove(&segment::offsets_path(dir, first)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => disk.sync_dir(dir)?,
    }
    disk.open(&segment::path(dir, first), OpenMode::ReadWrite)
}

/// A folder that could not be opened was not synced, but nothing is lost; one whose sync failed may be.
fn sync_folder(source: io::Error) -> Failed {
    let opened = failed_open("sync the log's folder")(source);
    Failed { lack: opened.lack.filter(|lack| *lack == Lack::Files), ..opened }
}

/// Makes a segment's file; the header is durable before any record is written, so a damaged one is
/// never taken for one that was not finished.
fn create(disk: &dyn Disk, dir: &Path, id: SegmentId) -> Result<Arc<dyn DiskFile>, Failed> {
    let path = segment::path(dir, id.first);
    let file = match disk.open(&path, OpenMode::CreateNew) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // None of this log's segments: the log knows all of those.
            quarantine(disk, dir, id.first).map_err(failed_write("set a stray segment aside"))?;
            disk.open(&path, OpenMode::CreateNew)
        }
        outcome => outcome,
    };
    let file = file.map_err(failed_open("create a segment"))?;
    if let Err(source) = file.write_all_at(0, &[&id.header()]) {
        let _ = disk.remove(&path);
        return Err(failed_write("write a segment's header")(source));
    }
    file.sync().map_err(failed("sync a segment's header"))?;
    if !planted::is(Bug::SegmentNameNotSynced) {
        // Where it fails because the folder cannot be opened, the file is found astray and made anew.
        disk.sync_dir(dir).map_err(sync_folder)?;
    }
    Ok(file)
}

/// Moves a segment to the quarantine, durably, under a name that is free there. A full disk that has
/// no room for the new name leaves it where it is.
pub(crate) fn quarantine(disk: &dyn Disk, dir: &Path, first: u64) -> io::Result<()> {
    let aside = dir.join(QUARANTINE);
    disk.create_dir(&aside)?;
    let taken = disk.list(&aside)?;
    match disk.remove(&segment::offsets_path(dir, first)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let free = (0u64..).map(|nth| format!("{first:020}.seg.{nth}")).find(|n| !taken.contains(n));
    disk.rename(&segment::path(dir, first), &aside.join(free.expect("names do not run out")))?;
    // The new name before the old one: a crash in between leaves it in either place, or both.
    disk.sync_dir(&aside)?;
    disk.sync_dir(dir)
}
