//! The ledger: a history while clients write it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anabranch_client::ProducerTag;
use parking_lot::Mutex;

use crate::note::Note;
use crate::observation::Observation;
use crate::op::{Asked, Expectation, History, Op, Outcome, Repeat, SessionRead};

/// Time since the run began, simulated or real.
pub type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// An append that is about to be sent; the fields are those of [`Op`].
#[derive(Debug, Clone)]
pub struct Call {
    /// Who asks.
    pub writer: u32,
    /// The region that is asked first.
    pub region: String,
    /// Whether it may be sent to other regions, too.
    pub roams: bool,
    /// The producer triple.
    pub tag: ProducerTag,
    /// The events, in order.
    pub events: Vec<Asked>,
    /// What is expected.
    pub expects: Vec<Expectation>,
    /// Regions that must hold it before it is acknowledged.
    pub regions: u32,
}

/// Numbers an operation of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpId(usize);

/// The ledger while clients write into it.
pub struct Ledger {
    clock: Clock,
    history: Mutex<History>,
}

impl Ledger {
    /// An empty ledger that takes its times from `clock`.
    pub fn new(clock: Clock) -> Self {
        Self { clock, history: Mutex::default() }
    }
    /// Time since the run began.
    pub fn now(&self) -> Duration {
        (self.clock)()
    }
    /// Enters an append that is about to be sent. Until [`settle`](Self::settle) its outcome is unknown.
    pub fn begin(&self, call: Call) -> OpId {
        let (called, returned) = (self.now(), Duration::MAX);
        let outcome = Outcome::Unknown { why: "the run ended first".into() };
        let Call { writer, region, roams, tag, events, expects, regions } = call;
        let op =
            Op { writer, region, roams, tag, events, expects, regions, called, returned, outcome };
        let mut history = self.history.lock();
        history.ops.push(op);
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
    /// Enters what a node said of itself.
    pub fn observe(&self, observation: Observation) {
        self.history.lock().observations.push(observation);
    }
    /// Enters what a client met besides.
    pub fn note(&self, note: Note) {
        self.history.lock().notes.push(note);
    }
    /// Everything entered so far.
    pub fn history(&self) -> History {
        self.history.lock().clone()
    }
    /// When a region first acknowledged an append that was sent at `since` or later.
    pub fn served(&self, region: &str, since: Duration) -> Option<Duration> {
        let history = self.history.lock();
        let sent = history.ops.iter().filter(|op| op.called >= since);
        let by_region =
            |op: &&Op| op.ack().is_some_and(|ack| ack.first.origin.region.as_str() == region);
        sent.filter(by_region).map(|op| op.returned).min()
    }
    /// Appends acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        self.history.lock().ops.iter().filter(|op| op.ack().is_some()).count()
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger").field("now", &self.now()).finish_non_exhaustive()
    }
}
