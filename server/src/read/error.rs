//! Why a read ended early.

use std::time::Duration;

use anabranch_core::Context;
use anabranch_log::store::StoreError;

/// Why a read was refused, or ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The request contradicts itself.
    #[error("{field}: {problem}")]
    Invalid {
        /// The field, as the wire contract names it.
        field: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The session token or cursor holds what this node does not, and it did not come in time.
    #[error("{missing} was not here within {waited:?}")]
    NotCaughtUp {
        /// What is missing.
        missing: Context,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The events could not be read. What was delivered before is right.
    #[error("read events")]
    Store(#[from] StoreError),
    /// The node shuts down.
    #[error("the log is closed")]
    Closed,
}
