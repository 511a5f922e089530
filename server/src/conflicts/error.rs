//! Why conflicts cannot be had.

use anabranch_core::Context;
use anabranch_log::derived::states::StateError;
use anabranch_log::store::StoreError;

/// Why conflicts cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ConflictError {
    /// This node does not hold what the session or the cursor has seen, at the deadline.
    #[error("this node does not hold yet what the session has seen")]
    NotCaughtUp {
        /// What is missing.
        missing: Context,
    },
    /// In regional order, the cursor is of another region.
    #[error(
        "a cursor of another region's regional order goes on in a subscription only; lists go on in the \
         region that gave it, or in global order"
    )]
    OfAnotherRegion,
    /// At the deadline, conflicts are not looked for as far as was asked.
    #[error("conflicts were looked for up to event {done} of {of}")]
    Behind {
        /// Events looked at.
        done: u64,
        /// Events to be looked at.
        of: u64,
    },
    /// The log cannot be read.
    #[error("read the log")]
    Store(#[from] StoreError),
    /// What was kept cannot be read. It is looked for again in the log.
    #[error("read what is kept of conflicts; they are looked for again in the log")]
    States(#[from] StateError),
    /// The node shuts down.
    #[error("the node is shutting down")]
    Closed,
}
