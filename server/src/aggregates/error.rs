//! Why an aggregate cannot be had.

use anabranch_core::Context;
use anabranch_log::derived::states::StateError;
use anabranch_log::store::StoreError;

/// Why an aggregate cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum AggregateError {
    /// Nobody has defined aggregates of the category, as far as this node knows.
    #[error("there is no definition of aggregates of category {category:?}")]
    NoDefinition {
        /// The category.
        category: String,
    },
    /// The first definition of the category is still being applied to its history.
    #[error(
        "aggregates of category {category:?} are being built: {done} of {of} events of the log are \
         looked through"
    )]
    Building {
        /// The category.
        category: String,
        /// Events looked through.
        done: u64,
        /// Events of the log.
        of: u64,
    },
    /// This node does not hold what the session has seen, at the deadline.
    #[error("this node does not hold yet what the session has seen")]
    NotCaughtUp {
        /// What is missing.
        missing: Context,
    },
    /// At the deadline, this node's aggregates are behind its log.
    #[error("the aggregates of this node have come to event {done} of {of} of its log")]
    Behind {
        /// Events looked through.
        done: u64,
        /// Events to be looked through.
        of: u64,
    },
    /// There are too many events to fold them for one answer.
    #[error(
        "stream {stream:?} has {events} events; a state in the past is folded from at most {limit}"
    )]
    TooLong {
        /// The stream.
        stream: String,
        /// Its events.
        events: u64,
        /// The most that are folded.
        limit: u64,
    },
    /// Too many events of the stream are not final yet to fold them for one answer.
    #[error(
        "{events} events of stream {stream:?} are not final yet; ordered fields are shown over at most \
         {limit}. What is final can be asked for"
    )]
    Unsettled {
        /// The stream.
        stream: String,
        /// Its events that are not final.
        events: u64,
        /// The most that are folded.
        limit: u64,
    },
    /// The log cannot be read.
    #[error("read the log")]
    Store(#[from] StoreError),
    /// What was kept of the aggregates cannot be read. They are rebuilt from the log.
    #[error("read what is kept of the aggregates of {category:?}; they are rebuilt from the log")]
    States {
        /// The category.
        category: String,
        /// What the store said.
        source: StateError,
    },
    /// The node shuts down.
    #[error("the node is shutting down")]
    Closed,
}
