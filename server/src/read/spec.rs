//! What is to be read.

use std::time::Duration;

use anabranch_core::{Context, Cursor, ReadOrder};

use super::error::ReadError;
use super::filter::Filter;

/// Whose events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Of one stream.
    Stream(String),
    /// Of the streams of a category.
    Category(String),
    /// All.
    All,
}

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From older to newer.
    Forwards,
    /// From newer to older; ends at the first event.
    Backwards,
}

/// Where to begin. Forwards: with the first event at or after it. Backwards: with the first event at
/// or before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum From {
    /// Before everything.
    Start,
    /// After everything that is there now.
    End,
    /// A revision of the stream; streams in regional order only.
    Revision(u64),
    /// A regional position, or in global order a global one.
    Position(u64),
    /// After everything that the cursor covers; forwards only.
    Cursor(Cursor),
    /// A wall time. Forwards: the first event stamped at or after it, and all that follow in the order
    /// read in. Backwards: the event before the first that is stamped after it.
    UnixMs(u64),
}

/// What is to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Whose events.
    pub target: Target,
    /// In which order.
    pub order: ReadOrder,
    /// Which way.
    pub direction: Direction,
    /// Where to begin.
    pub from: From,
    /// Ends after this many events.
    pub max_events: Option<u64>,
    /// Waits for new events at the end; forwards only.
    pub follow: bool,
    /// Which of the target's events.
    pub filter: Filter,
    /// What must be held here before anything is read.
    pub session: Context,
    /// How long to wait for that, and for what the cursor covers.
    pub session_wait: Duration,
    /// Delivers runs of neighbours as they are stored, where everything is read forwards.
    pub runs: bool,
    /// Sent at least this often while the read goes on.
    pub heartbeat: Duration,
}

impl Spec {
    /// Everything there is of `target`, in regional order from the start.
    pub fn of(target: Target) -> Self {
        Self {
            target,
            order: ReadOrder::Regional,
            direction: Direction::Forwards,
            from: From::Start,
            max_events: None,
            follow: false,
            filter: Filter::default(),
            session: Context::new(),
            session_wait: Duration::ZERO,
            runs: false,
            heartbeat: Duration::from_secs(1),
        }
    }

    /// Whether what is delivered comes as runs.
    pub fn sends_runs(&self) -> bool {
        let everything = self.target == Target::All && self.filter == Filter::default();
        self.runs && everything && self.direction == Direction::Forwards
    }

    /// Checks the fields against each other.
    ///
    /// # Errors
    /// [`ReadError::Invalid`] names the first that does not fit the others.
    pub fn check(&self) -> Result<(), ReadError> {
        let wrong = |field, problem| Err(ReadError::Invalid { field, problem });
        let backwards = self.direction == Direction::Backwards;
        if backwards && self.follow {
            return wrong("follow", "only a forward read can be followed");
        }
        match &self.from {
            From::Cursor(_) if backwards => wrong("cursor", "a cursor resumes forward reads only"),
            From::Cursor(cursor) if cursor.order != self.order => {
                wrong("cursor", "a cursor of one order does not resume the other")
            }
            From::Revision(_) if !matches!(self.target, Target::Stream(_)) => {
                wrong("revision", "only a read of one stream can begin at a revision")
            }
            From::Revision(_) if self.order == ReadOrder::Global => {
                wrong("revision", "revisions belong to the regional order")
            }
            _ => Ok(()),
        }
    }
}

/// Bounds on what a reader does at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tuning {
    /// Events in a frame.
    pub batch_events: usize,
    /// Bytes of encoded events in a frame; one event always fits.
    pub batch_bytes: usize,
    /// A follower that is more events than this behind, after it had caught up, is told so.
    pub behind_events: u64,
}

impl Tuning {
    /// What a node uses unless its configuration says otherwise.
    pub const DEFAULT: Self =
        Self { batch_events: 512, batch_bytes: 256 * 1024, behind_events: 10_000 };
}

impl Default for Tuning {
    fn default() -> Self {
        Self::DEFAULT
    }
}
