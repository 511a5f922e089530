//! What clients asked for, and what they were told.

use std::collections::BTreeMap;
use std::time::Duration;

use anabranch_client::{Dot, EventId, Expect, ProducerTag, Stamp};
use serde::{Deserialize, Serialize};

use crate::note::Note;
use crate::observation::Observation;
use crate::said::Said;
use crate::text;

/// An event that a client asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// The id it was given.
    #[serde(with = "text")]
    pub id: EventId,
    /// Its stream.
    pub stream: String,
    /// Money that it brings to its stream; 0 unless it is part of a transfer.
    pub amount: i64,
    /// Bytes of its payload.
    pub size: u32,
    /// What it tells the store, if it is read by the store itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub says: Option<Said>,
}

/// What was expected of a stream, written to or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expectation {
    /// The stream.
    pub stream: String,
    /// What had to be true of it.
    #[serde(with = "text")]
    pub expected: Expect,
}

/// An append that a client asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Op {
    /// Who asked. All operations of one writer share one session.
    pub writer: u32,
    /// The region that was asked first. Appends that expect something are sent nowhere else.
    pub region: String,
    /// Whether it may have been sent to other regions, too.
    pub roams: bool,
    /// The producer triple it was sent under.
    #[serde(with = "text")]
    pub tag: ProducerTag,
    /// The events, in order.
    pub events: Vec<Asked>,
    /// What was expected; all of it had to hold.
    pub expects: Vec<Expectation>,
    /// Regions that were to hold it before it is acknowledged.
    pub regions: u32,
    /// When it was sent first, since the run began.
    #[serde(with = "text")]
    pub called: Duration,
    /// When the outcome was known; the end of time if it never was.
    #[serde(with = "text")]
    pub returned: Duration,
    /// What the client was told.
    pub outcome: Outcome,
}

impl Op {
    /// The acknowledgement, if there was one.
    pub fn ack(&self) -> Option<&Ack> {
        match &self.outcome {
            Outcome::Acknowledged(ack) => Some(ack),
            _ => None,
        }
    }
}

/// What a client was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It was written.
    Acknowledged(Ack),
    /// It was not written: these expectations did not hold.
    Conflict {
        /// Every failing expectation, with what was found instead.
        conflicts: Vec<Conflict>,
    },
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

/// An expectation that did not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// What was expected.
    pub expectation: Expectation,
    /// Revision of the stream's last event; none if it has none.
    pub actual: Option<u64>,
}

/// An acknowledgement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// Identity of the first event; the others follow densely.
    #[serde(with = "text")]
    pub first: Dot,
    /// Number of events.
    pub events: u32,
    /// Regional position of the first event, in the region that answered.
    pub position: u64,
    /// Stamp of all events.
    #[serde(with = "text")]
    pub stamp: Stamp,
    /// Last revision of each stream, in the region that answered.
    pub revisions: BTreeMap<String, u64>,
    /// Regions that were known to hold it.
    pub regions: u32,
}

impl Ack {
    /// Identity of the event `nth`, from 0.
    pub fn dot(&self, nth: u64) -> Dot {
        Dot { origin: self.first.origin.clone(), seq: self.first.seq.plus(nth) }
    }
    /// Identities of all events.
    pub fn dots(&self) -> impl Iterator<Item = Dot> + '_ {
        (0..u64::from(self.events)).map(|nth| self.dot(nth))
    }
    /// Whether both tell of the same result. How many regions hold it may have grown in between.
    pub fn same_result(&self, other: &Self) -> bool {
        let regions = self.regions;
        *self == Self { regions, ..other.clone() }
    }
}

/// An acknowledged append that was sent again on purpose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repeat {
    /// What was acknowledged the first time.
    pub first: Ack,
    /// How it was sent again.
    pub by: By,
    /// The region that was asked this time.
    pub region: String,
    /// What was acknowledged the second time.
    pub again: Ack,
    /// Whether the server said that it is a repetition.
    pub said_so: bool,
}

/// How a repetition can be recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum By {
    /// The same producer triple.
    Sequence,
    /// A new triple, the same event ids.
    EventIds,
}

/// A read of a stream that carried its client's session and was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRead {
    /// Whose session: what [`Op::writer`] says of appends.
    pub writer: u32,
    /// Region that was read in.
    pub region: String,
    /// The stream.
    pub stream: String,
    /// Whether all of the stream was asked for; else its newest events only.
    pub whole: bool,
    /// Events that were shown, oldest first.
    #[serde(with = "text::list")]
    pub shown: Vec<Dot>,
    /// When it was sent.
    #[serde(with = "text")]
    pub called: Duration,
    /// When the answer was complete.
    #[serde(with = "text")]
    pub returned: Duration,
}

/// Everything in the ledger.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct History {
    /// Appends, in the order in which they were first sent.
    pub ops: Vec<Op>,
    /// Repetitions that were answered.
    pub repeats: Vec<Repeat>,
    /// Reads with a session that were answered, in the order of their answers.
    pub session_reads: Vec<SessionRead>,
    /// Reads with a session that gave up at their deadline, which they may.
    pub session_gave_up: u64,
    /// What nodes said of themselves during the run, in the order in which they were asked.
    pub observations: Vec<Observation>,
    /// What clients noted besides, in the order in which they met it.
    pub notes: Vec<Note>,
}
