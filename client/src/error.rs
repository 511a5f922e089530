//! What can go wrong, with *refused* and *unknown* kept apart.

use std::time::Duration;

use anabranch_core::{Context, DecodeError};
use anabranch_proto::convert::{ConvertError, Expected, cause, never_sent};
use tonic::{Code, Status};

use crate::append::{Appended, Ticket};

/// An expectation that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Name of the stream.
    pub stream: String,
    /// What was expected of it.
    pub expected: Expected,
    /// Revision of its last event; none if there is no such stream.
    pub actual: Option<u64>,
}

/// Why an append did not succeed as asked.
///
/// [`is_refused`](Self::is_refused): nothing was written. [`is_unknown`](Self::is_unknown): it may
/// have been. [`RegionsShort`](Self::RegionsShort) is neither: it was written, in its own region.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Expectations did not hold. Read the streams again and decide anew.
    #[error("{} expectation(s) did not hold: {conflicts:?}", conflicts.len())]
    Conflict {
        /// The failing expectations; of hundreds, as many as the server's answer had room for.
        conflicts: Vec<Conflict>,
    },
    /// The request breaks a rule or a limit.
    #[error("{field}: {problem}")]
    Invalid {
        /// The field that is wrong.
        field: String,
        /// What is wrong with it.
        problem: String,
        /// The limit it breaks, if a number is involved.
        limit: Option<u64>,
        /// The value it has, if a number is involved.
        actual: Option<u64>,
    },
    /// Another life of this producer has begun: this one must stop.
    #[error("the producer is fenced by epoch {epoch}")]
    Fenced {
        /// The highest epoch seen.
        epoch: u32,
    },
    /// The producer sequence is older than what the server remembers: it was written long ago, or
    /// never, and nobody can tell. A retry gets the same answer.
    #[error("the producer sequence is forgotten, the oldest remembered is {oldest}")]
    Forgotten {
        /// The oldest sequence remembered.
        oldest: u64,
    },
    /// The region was too busy until the deadline.
    #[error("{what}")]
    Overloaded {
        /// What there is too much of, or too little, in the server's words.
        what: String,
        /// How long the server asks to wait.
        retry_after: Duration,
    },
    /// No node took it until the deadline: none could be reached, or none was a leader.
    #[error("no node took the append in {waited:?}: {last}")]
    Unavailable {
        /// How long was tried.
        waited: Duration,
        /// What the last attempt met.
        last: String,
    },
    /// It is durable in its own region, but in fewer regions than asked for.
    #[error("durable in {reached} of {wanted} regions")]
    RegionsShort {
        /// Regions asked for.
        wanted: u32,
        /// Regions known to hold it.
        reached: u32,
        /// What was written.
        appended: Box<Appended>,
    },
    /// The stream was on its way to this home all the time. Try again.
    #[error("{stream} is on its way to its home {home}, epoch {epoch}")]
    NotHome {
        /// Name of the stream, or of the category that was to be handed over.
        stream: String,
        /// Its home: a region.
        home: String,
        /// Which of the stream's homes, from 1.
        epoch: u32,
    },
    /// The stream has a home, and the region that was asked could not hand the append to it. Reads go on;
    /// regions that see the home may append.
    #[error("{stream} is homed in {home}, which cannot be asked from {region}")]
    HomeUnreachable {
        /// Name of the stream, or of the category that was to be handed over.
        stream: String,
        /// Its home: a region.
        home: String,
        /// Which of the stream's homes, from 1.
        epoch: u32,
        /// The region that was asked.
        region: String,
    },
    /// Until the deadline, not every region was known to hold the declaration of a home, so nobody could say
    /// that an expectation holds everywhere.
    #[error("{category} has been homed lately, and {} has not confirmed it", waits_for.join(", "))]
    HomeUnconfirmed {
        /// The category.
        category: String,
        /// Regions that have not confirmed it.
        waits_for: Vec<String>,
    },
    /// The region may not take so much from a bounded counter. Another one may have rights to pass on.
    #[error("the region may take {held} from {field} of {stream}, not {wanted}{}", after(asked))]
    RightsShort {
        /// Name of the stream.
        stream: String,
        /// The bounded counter.
        field: String,
        /// How much was to be taken.
        wanted: u64,
        /// What the region may take.
        held: u64,
        /// Regions that were asked to pass some on, and have not passed enough.
        asked: Vec<String>,
    },
    /// There is no definition of aggregates of the category.
    #[error("there is no definition of aggregates of category {category:?}")]
    NoDefinition {
        /// The category.
        category: String,
    },
    /// The server refused for a reason this release has no name for.
    #[error("refused with {code:?}: {message}")]
    Refused {
        /// The gRPC code.
        code: Code,
        /// The server's words.
        message: String,
    },
    /// It may have been written. Retry with [`Append::retry_of`](crate::Append::retry_of) only.
    #[error("no acknowledgement after {waited:?}: {doubt}")]
    Unknown {
        /// Names the attempt, for a retry that cannot write twice.
        ticket: Ticket,
        /// How long was tried.
        waited: Duration,
        /// Why nobody knows.
        #[source]
        doubt: Doubt,
    },
}

fn after(asked: &[String]) -> String {
    match asked {
        [] => String::new(),
        regions => format!(", after asking {}", regions.join(" and ")),
    }
}

/// Why the outcome of an append is unknown.
#[derive(Debug, thiserror::Error)]
pub enum Doubt {
    /// Attempts went unanswered until the deadline.
    #[error("{attempts} attempt(s), the last unanswered one: {}", cause(last))]
    NoAnswer {
        /// Attempts made.
        attempts: u32,
        /// What the last unanswered attempt met.
        last: Box<Status>,
    },
    /// An attempt went unanswered, then a later one was refused.
    ///
    /// The refusal speaks for the later attempt only: the earlier one may still be on its way, or the
    /// node that refused may not have heard of it.
    #[error("an earlier attempt went unanswered, a later one was refused: {refusal}")]
    RefusedLater {
        /// The refusal.
        refusal: Box<AppendError>,
    },
}

impl AppendError {
    /// True if it is certain that nothing was written.
    pub fn is_refused(&self) -> bool {
        !matches!(self, Self::RegionsShort { .. } | Self::Unknown { .. } | Self::Forgotten { .. })
    }
    /// True if it may have been written.
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown { .. } | Self::Forgotten { .. })
    }
    /// True if the same append may succeed later, unchanged.
    ///
    /// An unknown one only through [`Append::retry_of`](crate::Append::retry_of).
    pub fn retryable(&self) -> bool {
        matches!(
            self,
            Self::Overloaded { .. }
                | Self::Unavailable { .. }
                | Self::NotHome { .. }
                | Self::HomeUnreachable { .. }
                | Self::HomeUnconfirmed { .. }
                | Self::Unknown { .. }
        )
    }
}

/// Why a read or a question to the cluster failed. Reads change nothing, so any may be repeated.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The request breaks a rule.
    #[error("{field}: {problem}")]
    Invalid {
        /// The field that is wrong.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
    /// No node that was asked holds what the session has written or seen, until the deadline.
    #[error("not caught up with the session after {waited:?}, missing {missing}")]
    NotCaughtUp {
        /// What the session holds and the last node asked did not.
        missing: Context,
        /// How long was tried.
        waited: Duration,
    },
    /// No node could answer until the deadline, or none ever would.
    #[error("no node answered in {waited:?}: {}", cause(last))]
    Unavailable {
        /// How long was tried.
        waited: Duration,
        /// What the last attempt met.
        last: Box<Status>,
    },
    /// There is no definition of aggregates of the category.
    #[error("there is no definition of aggregates of category {category:?}")]
    NoDefinition {
        /// The category.
        category: String,
    },
    /// The server refused.
    #[error("refused with {code:?}: {message}")]
    Refused {
        /// The gRPC code.
        code: Code,
        /// The server's words.
        message: String,
    },
    /// The server's answer does not hold what it must.
    #[error("the server's answer is malformed")]
    Malformed {
        /// What is wrong with it.
        #[source]
        problem: Malformed,
    },
}

/// What is wrong with a server's answer.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    /// A field is missing or wrong.
    #[error(transparent)]
    Field(#[from] ConvertError),
    /// A token cannot be read.
    #[error(transparent)]
    Token(#[from] DecodeError),
    /// What should be JSON of a form is not.
    #[error("{field}: {problem}")]
    Json {
        /// The field, as the `.proto` file names it.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

impl ReadError {
    /// True if the last node that was tried took no connection: the address may be wrong.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unavailable { last, .. } if never_sent(last))
    }
    /// True if the same call may succeed later, unchanged.
    pub fn retryable(&self) -> bool {
        matches!(self, Self::NotCaughtUp { .. } | Self::Unavailable { .. })
    }
}

impl From<ConvertError> for ReadError {
    fn from(error: ConvertError) -> Self {
        Self::Malformed { problem: error.into() }
    }
}
impl From<DecodeError> for ReadError {
    fn from(error: DecodeError) -> Self {
        Self::Malformed { problem: error.into() }
    }
}
