//! The side that answers.
//!
//! Every wanted origin has a place: the next number to send. Whenever the log grows, the places are
//! read on, one read at a time and in turn, so that a long history does not hold up a short one. A
//! place that is far behind sends blocks, at most [`BLOCKS_UNDER_WAY`] from the oldest that is not
//! acknowledged, and returns to the session's stream only when all of them are: what the puller has
//! to keep in order is bounded by that.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use anabranch_core::{Group, Origin, RegionName, Seq};

use super::{SessionError, WANTS_MAX, check_hello};
use crate::block::Block;
use crate::config::Tuning;
use crate::frame::{Frame, Hello, WantId};

/// Blocks from the oldest unacknowledged one to the newest, both counted.
pub const BLOCKS_UNDER_WAY: u64 = 4;

/// Where to go on reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadRequest {
    /// For which want.
    pub id: WantId,
    /// Whose events.
    pub origin: Origin,
    /// First number.
    pub from: Seq,
    /// Bytes of groups, as for [`Source::read_origin`](crate::Source::read_origin).
    pub max_bytes: usize,
}

/// A fact about the world.
#[derive(Debug)]
pub enum Input {
    /// A frame came.
    Frame(Frame),
    /// The local log grew.
    Changed,
    /// A read is done.
    Read {
        /// Which want it was for.
        id: WantId,
        /// What it gave; empty at the end of what is held.
        groups: Vec<Group>,
        /// Last number of the origin held here, as far as known.
        held: Seq,
    },
    /// The other side's transport has acknowledged the whole block.
    BlockDone(u64),
    /// The deadline may have passed.
    Elapsed,
}

/// Something the driver should do.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Write the frame to the session's stream.
    Send(Frame),
    /// Read the log; answer with [`Input::Read`]. One at a time.
    Read(ReadRequest),
    /// Send the block on a stream of its own; answer with [`Input::BlockDone`].
    SendBlock {
        /// Counts the session's blocks.
        number: u64,
        /// The block.
        block: Block,
    },
    /// Write the newest digests and the clock to the session's stream.
    Report,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Groups on the session's stream.
    Live,
    /// Blocks.
    CatchUp,
    /// At the tail; blocks are still unacknowledged.
    Draining,
}

#[derive(Debug)]
struct Outflow {
    origin: Origin,
    next: Seq,
    mode: Mode,
    /// There may be more to read.
    stale: bool,
    /// Bytes read since the tail was last reached.
    run_bytes: usize,
}

#[derive(Debug)]
struct BlockUnderWay {
    number: u64,
    id: WantId,
    done: bool,
}

/// Serves one session. Lives as long as it.
#[derive(Debug)]
pub struct Server {
    ours: Hello,
    region: RegionName,
    tuning: Tuning,
    theirs: Option<Hello>,
    wants: BTreeMap<WantId, Outflow>,
    /// Whose turn it is to be read.
    turns: VecDeque<WantId>,
    reading: Option<WantId>,
    blocks: VecDeque<BlockUnderWay>,
    next_block: u64,
    reported_at: Option<Instant>,
    report_at: Option<Instant>,
    actions: VecDeque<Action>,
}

impl Server {
    /// Waits for the hello of `region`, which is what the other side's certificate says.
    pub fn new(ours: Hello, region: RegionName, tuning: Tuning) -> Self {
        let (wants, turns, blocks, actions) = Default::default();
        Self {
            ours,
            region,
            tuning,
            theirs: None,
            wants,
            turns,
            reading: None,
            blocks,
            next_block: 0,
            reported_at: None,
            report_at: None,
            actions,
        }
    }

    /// Takes one fact. `now` never goes backwards.
    ///
    /// # Errors
    /// [`SessionError`], after which the session must be closed.
    pub fn handle(&mut self, now: Instant, input: Input) -> Result<(), SessionError> {
        match input {
            Input::Frame(frame) => self.handle_frame(now, frame)?,
            Input::Changed => self.handle_changed(now),
            Input::Read { id, groups, held } => self.handle_read(id, groups, held),
            Input::BlockDone(number) => self.handle_block_done(number),
            Input::Elapsed => {}
        }
        self.settle();
        self.read_on();
        self.report(now);
        Ok(())
    }

    /// Next thing the driver should do, oldest first.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to call [`handle`](Self::handle) with [`Input::Elapsed`] if nothing happens first.
    pub fn deadline(&self) -> Option<Instant> {
        let patience = if self.reading.is_some() { self.report_patience() } else { Duration::ZERO };
        self.report_at.map(|report_at| report_at + patience)
    }

    fn handle_frame(&mut self, now: Instant, frame: Frame) -> Result<(), SessionError> {
        match (&self.theirs, frame) {
            (None, Frame::Hello(theirs)) => {
                check_hello(&self.ours, &theirs, &self.region)?;
                self.theirs = Some(theirs);
                self.actions.push_back(Action::Send(Frame::Hello(self.ours.clone())));
                self.actions.push_back(Action::Report);
                self.reported_at = Some(now);
                self.report_at = Some(now + self.tuning.heartbeat);
                Ok(())
            }
            (None, _) => Err(SessionError::OutOfPlace { frame: "a frame before the hello" }),
            (Some(_), Frame::Want { id, origin, from }) => self.handle_want(id, origin, from),
            (Some(_), Frame::Unwant { id }) => {
                self.wants.remove(&id);
                self.turns.retain(|turn| *turn != id);
                Ok(())
            }
            (Some(_), Frame::Hello(_)) => Err(SessionError::OutOfPlace { frame: "second hello" }),
            (Some(_), Frame::Group { .. } | Frame::Report(_)) => {
                Err(SessionError::OutOfPlace { frame: "history from the puller" })
            }
        }
    }

    fn handle_want(&mut self, id: WantId, origin: Origin, from: Seq) -> Result<(), SessionError> {
        if origin.shard != self.ours.shard {
            return Err(SessionError::Shard { theirs: origin.shard, ours: self.ours.shard });
        }
        if self.wants.len() >= WANTS_MAX {
            return Err(SessionError::TooManyWants { max: WANTS_MAX });
        }
        let flow = Outflow { origin, next: from, mode: Mode::Live, stale: true, run_bytes: 0 };
        if self.wants.insert(id, flow).is_some() {
            return Err(SessionError::OutOfPlace { frame: "want with the id of another" });
        }
        // A newcomer waits for no one who has already had a turn.
        self.turns.push_front(id);
        Ok(())
    }

    fn handle_changed(&mut self, now: Instant) {
        self.wants.values_mut().for_each(|flow| flow.stale = true);
        if let (Some(reported_at), Some(report_at)) = (self.reported_at, self.report_at) {
            let soon = (reported_at + self.tuning.digest_gap).max(now);
            self.report_at = Some(report_at.min(soon));
        }
    }

    fn handle_read(&mut self, id: WantId, groups: Vec<Group>, held: Seq) {
        self.reading = None;
        let Some(flow) = self.wants.get_mut(&id) else { return };
        let Some(last) = groups.last().map(Group::last) else {
            flow.reach_tail();
            return;
        };
        // What changed while the read was under way is found by the next one.
        flow.stale = true;
        let dense = groups[0].first() <= flow.next && flow.next <= groups[0].last();
        assert!(dense, "read from {}, got {}", flow.next, groups[0].first_dot());
        flow.next = last.next();
        let bytes: usize = groups.iter().map(|group| group.encoded().len()).sum();
        flow.run_bytes += bytes;
        let behind = held.0.saturating_sub(last.0);
        match flow.mode {
            Mode::Live => {
                if behind > self.tuning.catch_up_events
                    || (behind > 0 && flow.run_bytes > self.tuning.catch_up_bytes)
                {
                    flow.mode = Mode::CatchUp;
                }
                let send = |group: Group| {
                    Action::Send(Frame::Group { id, group: group.encoded().clone() })
                };
                self.actions.extend(groups.into_iter().map(send));
            }
            Mode::CatchUp | Mode::Draining => {
                let number = self.next_block;
                self.next_block += 1;
                self.blocks.push_back(BlockUnderWay { number, id, done: false });
                // The tail of a log that keeps growing is never reached exactly.
                if bytes < self.tuning.live_bytes.min(self.tuning.block_bytes) {
                    flow.reach_tail();
                }
                let block = Block { id, groups };
                self.actions.push_back(Action::SendBlock { number, block });
            }
        }
    }

    fn handle_block_done(&mut self, number: u64) {
        for block in &mut self.blocks {
            block.done |= block.number == number;
        }
        while self.blocks.front().is_some_and(|block| block.done) {
            self.blocks.pop_front();
        }
    }

    /// Wants whose last block is acknowledged return to the session's stream.
    fn settle(&mut self) {
        for (id, flow) in &mut self.wants {
            let under_way = self.blocks.iter().any(|block| block.id == *id);
            if flow.mode == Mode::Draining && !under_way {
                flow.mode = Mode::Live;
                flow.stale = true;
            }
        }
    }

    /// Asks for the next read, in turn, if none is under way.
    fn read_on(&mut self) {
        if self.reading.is_some() {
            return;
        }
        let oldest = self.blocks.front().map_or(self.next_block, |block| block.number);
        let block_room = self.next_block - oldest < BLOCKS_UNDER_WAY;
        for _ in 0..self.turns.len() {
            let Some(id) = self.turns.pop_front() else { return };
            self.turns.push_back(id);
            let flow = self.wants.get_mut(&id).expect("every turn has its want");
            let max_bytes = match flow.mode {
                Mode::Live => self.tuning.live_bytes,
                Mode::CatchUp if block_room => self.tuning.block_bytes,
                Mode::CatchUp | Mode::Draining => continue,
            };
            if flow.stale {
                // A change that comes from here on marks it again.
                flow.stale = false;
                self.reading = Some(id);
                let (origin, from) = (flow.origin.clone(), flow.next);
                self.actions.push_back(Action::Read(ReadRequest { id, origin, from, max_bytes }));
                return;
            }
        }
    }

    /// History goes before the digests that speak of it, but they do not wait for long.
    fn report(&mut self, now: Instant) {
        let Some(report_at) = self.report_at else { return };
        let late = report_at + self.report_patience() <= now;
        if late || (report_at <= now && self.reading.is_none()) {
            self.actions.push_back(Action::Report);
            self.reported_at = Some(now);
            self.report_at = Some(now + self.tuning.heartbeat);
        }
    }

    fn report_patience(&self) -> Duration {
        4 * self.tuning.digest_gap
    }
}

impl Outflow {
    fn reach_tail(&mut self) {
        self.run_bytes = 0;
        if self.mode == Mode::CatchUp {
            self.mode = Mode::Draining;
        }
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
