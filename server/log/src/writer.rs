//! The writer: the only one that changes the files.
//!
//! One turn is [`Writer::write_pending`], which takes what waits and writes it, then
//! [`Writer::sync_written`], which makes it durable and reports it. Appends that wait together are one
//! turn; a vote and a cut are turns of their own, so that the disk sees everything in the order in
//! which it was asked for.
//!
//! A simulation drives the two by hand and lets time pass between them: that is the window in which a
//! crash tears what was written.
//!
//! A turn that finds the disk full, with the reserve used up, too, *stalls*: it is kept, everything
//! behind it waits, also votes and cuts, and it is tried again when somebody asks for it
//! ([`Log::restore_reserve`](crate::log::Log::restore_reserve)). Nothing may overtake it: Raft takes a
//! vote that is durable as proof that what was written before it is, too.

use std::io;
use std::path::Path;
use std::sync::Arc;

use anabranch_core::planted::{self, Bug};
use bytes::Bytes;

use crate::disk::DiskFile;
use crate::failure::{Failed, Lack, StopOnPanic, Stopped, failed, failed_write, is_full};
use crate::hard_state::{Acknowledged, HardState, HardStateFile};
use crate::log::Done;
use crate::record::{self, Record};
use crate::segment::SegmentId;
use crate::state::{Op, Shared, State, WriterThread};

/// Writes one log. Made by [`Log::open`](crate::log::Log::open).
///
/// Until it is driven, changes of the log are only queued, up to
/// [`queue_bytes`](crate::options::LogOptions::queue_bytes), beyond which appends are refused.
pub struct Writer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) hard: HardStateFile,
    /// Vote and commit mark as last written.
    pub(crate) written: HardState,
    /// The segment that records go to; `None` until the next record begins one.
    pub(crate) active: Option<Active>,
    /// Records on disk: those of the segments.
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) reserve: bool,
    /// The turn that found no room.
    pub(crate) stalled: Option<Turn>,
    /// That there is no room was said, and no room was found for the reserve since.
    pub(crate) said_none: bool,
    in_flight: InFlight,
    pub(crate) finished: bool,
}

/// The segment that is written to.
pub(crate) struct Active {
    pub id: SegmentId,
    pub file: Arc<dyn DiskFile>,
    /// Where the next frame goes.
    pub offset: u64,
    /// How long the file is; what lies beyond `offset` is zeroes.
    pub len: u64,
    /// A mark ends it, so the next batch needs none.
    pub marked: bool,
    /// It holds no record yet.
    pub empty: bool,
}

/// What was written and awaits its sync.
enum InFlight {
    Nothing,
    Records(Batch, Vec<Done>),
    Vote(Done),
    Cut(Done),
}

/// A batch up to this size that does not fit into the file as it is makes it longer than it needs to be,
/// for those to come: the disk then syncs their content alone, and not where in the file that lies.
const SMALL_BATCH: usize = 32 * 1024;
/// By so many zeroes.
const AHEAD: u64 = 256 * 1024;

/// Where records were written to. Nowhere if there were none.
#[derive(Default)]
struct Batch {
    offsets: Vec<u32>,
    end_offset: u64,
    /// How long the file is now.
    len: u64,
    /// Index of the last record, if there is one.
    last: Option<u64>,
}

/// What changes the files, in one turn.
pub(crate) enum Turn {
    Records(Vec<Record>, Vec<Done>),
    Vote(Bytes, Done),
    Cut(u64, Done),
}

impl Turn {
    pub(crate) fn into_dones(self) -> Vec<Done> {
        match self {
            Self::Records(_, dones) => dones,
            Self::Vote(_, done) | Self::Cut(_, done) => vec![done],
        }
    }
}

/// How a sync went; if badly, who must be told that the outcome is unknown.
type Synced = Result<(), (Failed, Vec<Done>)>;

/// What to do next.
enum Next {
    Write(Turn),
    Reserve,
    Close,
    Rest,
}

impl Writer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        hard: HardStateFile,
        written: HardState,
        active: Option<Active>,
        reserve: bool,
    ) -> Self {
        let range = shared.state.lock().range.clone();
        let (start, end) = (range.start, range.end);
        Self {
            shared,
            hard,
            written,
            active,
            start,
            end,
            reserve,
            stalled: None,
            said_none: false,
            in_flight: InFlight::Nothing,
            finished: false,
        }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.shared.dir
    }

    /// Drives the writer from a thread of its own until the log is closed.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn spawn_thread(mut self) -> io::Result<()> {
        let shared = self.shared.clone();
        // Held until the thread is known to the state, so that nobody finds it half made.
        let mut state = shared.state.lock();
        let join = std::thread::Builder::new().name("log-writer".into()).spawn(move || {
            let _stop = StopOnPanic(self.shared.clone());
            while !self.finished {
                self.wait_for_work();
                self.step();
            }
        })?;
        state.thread = Some(WriterThread { id: join.thread().id(), join: Some(join) });
        Ok(())
    }

    /// Calls `wake` whenever there is something to do, from whoever brings it: for those who drive
    /// the writer by hand and sleep in between.
    pub fn on_work(&mut self, wake: Arc<dyn Fn() + Send + Sync>) {
        self.shared.state.lock().wake = Some(wake);
    }

    /// One turn: writes what waits, syncs it, reports it. Returns false if there was nothing to do.
    pub fn step(&mut self) -> bool {
        let worked = self.write_pending();
        self.sync_written();
        worked
    }

    /// The log was closed and everything is written, or the writing failed and the log was closed.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    fn wait_for_work(&self) {
        let mut state = self.shared.state.lock();
        let blocked = self.stalled.is_some();
        while (blocked || state.queue.is_empty()) && !state.closing && !state.again {
            self.shared.work.wait(&mut state);
        }
    }

    /// The first half of a turn: takes what waits and writes it. Returns false if nothing waited, or
    /// if what waits stays behind a turn that found no room.
    ///
    /// # Panics
    /// If the half turn before was not finished by [`sync_written`](Self::sync_written).
    pub fn write_pending(&mut self) -> bool {
        assert!(matches!(self.in_flight, InFlight::Nothing), "the last turn was not finished");
        match self.next() {
            Next::Rest => return false,
            Next::Write(turn) => self.write(turn),
            Next::Reserve => self.restore_reserve(),
            Next::Close => self.finish(),
        }
        true
    }

    /// The second half of a turn: makes durable what was written, and reports it.
    pub fn sync_written(&mut self) {
        let outcome = match std::mem::replace(&mut self.in_flight, InFlight::Nothing) {
            InFlight::Nothing => return,
            InFlight::Records(batch, dones) => self.sync_records(batch, dones),
            InFlight::Vote(done) => self.sync_vote(done),
            InFlight::Cut(done) => self.sync_cut(done),
        };
        if let Err((failed, dones)) = outcome {
            self.poison(failed, dones);
        }
    }

    fn next(&mut self) -> Next {
        let shared = self.shared.clone();
        let mut state = shared.state.lock();
        let again = std::mem::take(&mut state.again);
        if state.stopped.is_some() {
            self.finished = state.closing;
            return Next::Rest;
        }
        if self.stalled.is_some() && !again && !state.closing {
            return Next::Rest;
        }
        if let Some(turn) = self.stalled.take() {
            return Next::Write(turn);
        }
        let next = match state.pop() {
            None if state.closing && !self.finished => return Next::Close,
            None => return Next::Rest,
            Some(Op::Vote { vote, done }) => Next::Write(Turn::Vote(vote, done)),
            Some(Op::Cut { end, done }) => Next::Write(Turn::Cut(end, done)),
            Some(Op::Reserve) => Next::Reserve,
            Some(first @ (Op::Append { .. } | Op::Nothing { .. })) => {
                Next::Write(self.take_run(&mut state, first))
            }
        };
        shared.tell_of_space(state);
        next
    }

    /// Takes appends up to the next other thing, as many as one segment takes.
    fn take_run(&self, state: &mut State, first: Op) -> Turn {
        let (mut records, mut dones) = (Vec::new(), Vec::new());
        let mut bytes = 0;
        let mut op = first;
        let segment_bytes = self.shared.options.segment_bytes;
        loop {
            bytes += op.bytes() as u64;
            match op {
                Op::Append { record, done } => {
                    records.push(record);
                    dones.extend(done);
                }
                Op::Nothing { done } => dones.push(done),
                Op::Cut { .. } | Op::Vote { .. } | Op::Reserve => unreachable!("not in a run"),
            }
            let offset = self.active.as_ref().map_or(0, |active| active.offset);
            // The first record may not fit and begin a segment; then the others go with the next.
            let limit = segment_bytes.saturating_sub(offset);
            match state.queue.front() {
                Some(Op::Nothing { .. }) => {}
                Some(next @ Op::Append { .. }) if bytes + next.bytes() as u64 <= limit => {}
                _ => return Turn::Records(records, dones),
            }
            op = state.pop().expect("it was looked at");
        }
    }

    fn write(&mut self, turn: Turn) {
        let outcome = match self.try_write(&turn) {
            Err(failed) if failed.lack == Some(Lack::Space) && self.release_reserve() => {
                self.try_write(&turn)
            }
            outcome => outcome,
        };
        match (outcome, turn) {
            (Ok(batch), Turn::Records(_, dones)) => {
                self.in_flight = InFlight::Records(batch, dones);
            }
            (Ok(_), Turn::Vote(_, done)) => self.in_flight = InFlight::Vote(done),
            (Ok(_), Turn::Cut(_, done)) => self.in_flight = InFlight::Cut(done),
            (Err(failed), turn) => {
                return match failed.lack {
                    Some(lack) => self.stall(turn, lack),
                    None => self.poison(failed, turn.into_dones()),
                };
            }
        }
        self.went_on();
    }

    /// May be tried again if it found no room.
    fn try_write(&mut self, turn: &Turn) -> Result<Batch, Failed> {
        match turn {
            Turn::Records(records, _) => self.try_write_records(records),
            Turn::Vote(vote, _) => {
                self.written.vote = vote.clone();
                self.write_hard_state().map(|()| Batch::default())
            }
            Turn::Cut(end, _) => self.cut(*end).map(|()| Batch::default()),
        }
    }

    /// Writes one batch in one call. A batch that does not fit leaves the file as it was.
    fn try_write_records(&mut self, records: &[Record]) -> Result<Batch, Failed> {
        let Some(first) = records.first() else {
            self.write_committed()?;
            return Ok(Batch::default());
        };
        self.make_room_in_segment(first)?;
        let active = self.active.as_mut().expect("made above");
        let seed = active.id.seed();
        let most = record::MARK_BYTES + records.iter().map(Record::stored_bytes).sum::<usize>();
        let ahead = active.ahead(most, self.shared.options.segment_bytes);
        let mut bytes = Vec::with_capacity(most + ahead);
        if !active.marked {
            record::put_mark(&mut bytes, seed, active.offset, self.end);
        }
        let mut offsets = Vec::with_capacity(records.len());
        for record in records {
            let offset = active.offset + bytes.len() as u64;
            offsets.push(u32::try_from(offset).expect("segments are bounded"));
            record::put_record(&mut bytes, seed, offset, record);
        }
        let (written, end_offset) = (bytes.len(), active.offset + bytes.len() as u64);
        bytes.resize(written + ahead, 0);
        let (mut len, mut outcome) = (end_offset + ahead as u64, active.write(&bytes));
        if ahead > 0 && outcome.as_ref().is_err_and(is_full) {
            (len, outcome) = (end_offset, active.write(&bytes[..written]));
        }
        if let Err(source) = outcome {
            if is_full(&source) {
                // Synced, because what is written next could end where one of these records begins.
                active.cut_off().map_err(failed("cut a segment"))?;
                self.shared.sync(&*active.file).map_err(failed("sync a segment"))?;
            }
            return Err(failed_write("write records")(source));
        }
        let last = records.last().map(|record| record.index);
        Ok(Batch { offsets, end_offset, len: len.max(active.len), last })
    }

    fn sync_records(&mut self, batch: Batch, dones: Vec<Done>) -> Synced {
        let Some(last) = batch.last else {
            self.report(dones);
            return Ok(());
        };
        let active = self.active.as_mut().expect("records were written to it");
        let believed = planted::is(Bug::FailedSyncBelieved);
        let skipped = planted::is(Bug::AcknowledgedBeforeSync);
        if !skipped
            && let Err(source) = self.shared.sync(&*active.file)
            && !believed
        {
            return Err((failed("sync a segment")(source), dones));
        }
        (active.offset, active.len) = (batch.end_offset, batch.len);
        (active.marked, active.empty) = (false, false);
        if self.start == self.end {
            self.start = active.id.first;
        }
        self.end = last + 1;
        let mut state = self.shared.state.lock();
        state.publish(active, batch.offsets, self.end);
        state.synced_end = self.end;
        state.evict(self.shared.options.cache_bytes);
        drop(state);
        self.report(dones);
        // Those who wait were told before: none of them needs these.
        let words = self.write_committed().and_then(|()| self.mark_if_idle());
        words.map_err(|failed| (failed, Vec::new()))
    }

    /// While nothing waits, says on disk that everything so far was acknowledged. Not synced: a
    /// crash that loses it left the records before it whole.
    fn mark_if_idle(&mut self) -> Result<(), Failed> {
        if !self.shared.state.lock().queue.is_empty() {
            return Ok(());
        }
        self.write_mark()
    }

    pub(crate) fn write_mark(&mut self) -> Result<(), Failed> {
        let Some(active) = self.active.as_mut().filter(|active| !active.marked) else {
            return Ok(());
        };
        let mut bytes = Vec::with_capacity(record::MARK_BYTES);
        record::put_mark(&mut bytes, active.id.seed(), active.offset, self.end);
        match active.file.write_all_at(active.offset, &[&bytes]) {
            Ok(()) => {
                active.offset += bytes.len() as u64;
                active.len = active.len.max(active.offset);
                active.marked = true;
                Ok(())
            }
            // The next batch begins with the same mark, in the same place.
            Err(error) if is_full(&error) => Ok(()),
            Err(source) => Err(failed("write a mark")(source)),
        }
    }

    fn sync_vote(&mut self, done: Done) -> Synced {
        if !planted::is(Bug::VoteNotSynced)
            && let Err(source) = self.sync_hard_state_file()
        {
            return Err((failed("sync the vote")(source), vec![done]));
        }
        done(Ok(()));
        self.write_hard_state_if_it_fits().map_err(|failed| (failed, Vec::new()))
    }

    /// Writes the commit mark if there is a new one of what is durable.
    fn write_committed(&mut self) -> Result<(), Failed> {
        let due = {
            let mut state = self.shared.state.lock();
            // Not beyond a cut to come: it speaks of the record that will follow the cut.
            let durable_end = state.durable_end();
            state.committed.take_if(|(index, _)| *index < durable_end)
        };
        let Some((_, committed)) = due else { return Ok(()) };
        self.written.committed = committed;
        self.write_hard_state_if_it_fits()
    }

    /// For what may be lost: the other copy is whole, and this one will be written again.
    fn write_hard_state_if_it_fits(&mut self) -> Result<(), Failed> {
        match self.write_hard_state() {
            Err(failed) if failed.lack.is_some() => Ok(()),
            outcome => outcome,
        }
    }

    /// In place, which some file systems refuse, too, when the disk is full.
    pub(crate) fn write_hard_state(&mut self) -> Result<(), Failed> {
        let acknowledged = Acknowledged { start: self.start, end: self.end };
        self.hard.write(&self.written, acknowledged).map_err(failed_write("write the hard state"))
    }

    pub(crate) fn sync_hard_state(&mut self) -> Result<(), Failed> {
        self.sync_hard_state_file().map_err(failed("sync the hard state"))
    }

    fn sync_hard_state_file(&mut self) -> io::Result<()> {
        self.shared.count_sync();
        self.hard.sync()
    }

    fn sync_cut(&mut self, done: Done) -> Synced {
        let synced = self.active.as_ref().map_or(Ok(()), |active| self.shared.sync(&*active.file));
        if let Err(source) = synced {
            return Err((failed("sync a cut")(source), vec![done]));
        }
        let mut state = self.shared.state.lock();
        state.pending_cuts.pop_front();
        state.synced_end = self.end;
        drop(state);
        self.report(vec![done]);
        self.mark_if_idle().map_err(|failed| (failed, Vec::new()))
    }

    fn finish(&mut self) {
        let outcome = self.try_finish();
        self.finished = true;
        match outcome {
            Ok(()) => self.shared.state.lock().stopped = Some(Stopped::Closed),
            Err(failed) => self.poison(failed, Vec::new()),
        }
    }

    fn try_finish(&mut self) -> Result<(), Failed> {
        self.write_committed()?;
        self.write_hard_state_if_it_fits()?;
        self.sync_hard_state()?;
        self.write_mark()?;
        match self.active.as_mut().map_or(Ok(()), Active::cut_off) {
            // The next start does it.
            Err(error) if is_full(&error) => {}
            cut => cut.map_err(failed("cut a segment"))?,
        }
        let synced = self.active.as_ref().map_or(Ok(()), |active| self.shared.sync(&*active.file));
        synced.map_err(failed("sync a segment"))
    }

    fn report(&self, dones: Vec<Done>) {
        dones.into_iter().for_each(|done| done(Ok(())));
    }
}

impl Active {
    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(self.offset, &[bytes])
    }

    /// How many zeroes are to follow a batch that takes at most so many bytes.
    fn ahead(&self, batch: usize, segment_bytes: u64) -> usize {
        let end = self.offset + batch as u64;
        let ahead = segment_bytes.saturating_sub(end).min(AHEAD);
        if self.len < end && batch <= SMALL_BATCH { ahead as usize } else { 0 }
    }

    /// Makes the file end where the next frame goes.
    pub(crate) fn cut_off(&mut self) -> io::Result<()> {
        self.file.set_len(self.offset)?;
        self.len = self.offset;
        Ok(())
    }
}

impl State {
    fn pop(&mut self) -> Option<Op> {
        let op = self.queue.pop_front()?;
        self.queued_bytes -= op.bytes();
        Some(op)
    }
}
