//! The ledger: what clients asked for, and what they were told.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anabranch_client::{Dot, EventId, Expect, ProducerTag, Stamp};
use parking_lot::Mutex;

/// An append that a client asked for.
#[derive(Debug, Clone)]
pub struct Op {
    /// Who asked.
    pub writer: u32,
    /// The producer triple it was sent under.
    pub tag: ProducerTag,
    /// The events, in order: id and stream.
    pub events: Vec<(EventId, String)>,
    /// What was expected of the first event's stream.
    pub expect: Expect,
    /// When it was sent first, since the run began.
    pub called: Duration,
    /// When the outcome was known; the end of time if it never was.
    pub returned: Duration,
    /// What the client was told.
    pub outcome: Outcome,
}

/// What a client was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was written.
    Acknowledged(Ack),
    /// It was not written.
    Refused {
        /// Why.
        why: String,
    },
    /// It may have been written, or the run ended before there was an answer.
    Unknown {
        /// Why nobody knows.
        why: String,
    },
}

/// An acknowledgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    /// Identity of the first event.
    pub first: Dot,
    /// Number of events.
    pub events: u32,
    /// Regional position of the first event, in the region that took it.
    pub position: u64,
    /// Stamp of all events.
    pub stamp: Stamp,
    /// Last revision of each stream.
    pub revisions: BTreeMap<String, u64>,
}

/// An acknowledged append that was sent again on purpose.
#[derive(Debug, Clone)]
pub struct Repeat {
    /// What was acknowledged the first time.
    pub first: Ack,
    /// How it was sent again.
    pub by: By,
    /// What was acknowledged the second time.
    pub again: Ack,
    /// Whether the server said that it is a repetition.
    pub said_so: bool,
}

/// How a repetition can be recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The same producer triple.
    Sequence,
    /// A new triple, the same event ids.
    EventIds,
}

/// A write, and a read elsewhere that carried its session.
#[derive(Debug, Clone)]
pub struct SessionRead {
    /// What was written just before.
    pub wrote: Ack,
    /// Region that was read in.
    pub read_in: String,
    /// Events of the write that the read showed.
    pub shown: Vec<Dot>,
}

/// Numbers an operation of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpId(usize);

/// Everything in the ledger.
#[derive(Debug, Default, Clone)]
pub struct History {
    /// Appends, in the order in which they were first sent.
    pub ops: Vec<Op>,
    /// Repetitions that were answered.
    pub repeats: Vec<Repeat>,
    /// Reads with a session that were answered.
    pub session_reads: Vec<SessionRead>,
    /// Reads with a session that gave up at their deadline, which they may.
    pub session_gave_up: u64,
}

/// The ledger while clients write into it.
#[derive(Debug)]
pub struct Ledger {
    began: Instant,
    history: Mutex<History>,
}

impl Ledger {
    /// An empty ledger; the run begins now.
    pub fn new() -> Self {
        Self { began: Instant::now(), history: Mutex::default() }
    }
    /// Time since the run began.
    pub fn now(&self) -> Duration {
        self.began.elapsed()
    }
    /// Enters an append that is about to be sent. Until [`settle`](Self::settle) its outcome is unknown.
    pub fn begin(
        &self,
        writer: u32,
        tag: ProducerTag,
        events: Vec<(EventId, String)>,
        expect: Expect,
    ) -> OpId {
        let (called, returned) = (self.now(), Duration::MAX);
        let outcome = Outcome::Unknown { why: "the run ended first".into() };
        let mut history = self.history.lock();
        history.ops.push(Op { writer, tag, events, expect, called, returned, outcome });
        OpId(history.ops.len() - 1)
    }
    /// Enters what the client was told.
    pub fn settle(&self, id: OpId, outcome: Outcome) {
        let now = self.now();
        let mut history = self.history.lock();
        let op = &mut history.ops[id.0];
        let known = !matches!(outcome, Outcome::Unknown { .. });
        op.returned = if known { now } else { Duration::MAX };
        op.outcome = outcome;
    }
    /// Enters a repetition that was answered.
    pub fn repeated(&self, repeat: Repeat) {
        self.history.lock().repeats.push(repeat);
    }
    /// Enters a read with a session; none if it gave up.
    pub fn session_read(&self, read: Option<SessionRead>) {
        let mut history = self.history.lock();
        match read {
            Some(read) => history.session_reads.push(read),
            None => history.session_gave_up += 1,
        }
    }
    /// Everything entered so far.
    pub fn history(&self) -> History {
        self.history.lock().clone()
    }
    /// Appends acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        let acknowledged = |op: &&Op| matches!(op.outcome, Outcome::Acknowledged(_));
        self.history.lock().ops.iter().filter(acknowledged).count()
    }
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new()
    }
}
