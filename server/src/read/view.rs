//! What readers see of a shard.

use std::sync::Arc;

use anabranch_core::order::{Finality, Mark};
use anabranch_core::region::Region;
use anabranch_core::{Context, Stamp};
use anabranch_log::store::Store;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::shard::{Applied, ShardState};

/// A shard's applied state and its events, as one node holds them.
pub trait View: Send + Sync + 'static {
    /// What the watch on applied batches carries; readers only wait for it to move.
    type Applied: Send + Sync + 'static;

    /// Looks at the applied state, for a moment.
    fn region<T>(&self, look: impl FnOnce(&Region) -> T) -> T;
    /// The events. Holds all that [`region`](Self::region) speaks of.
    fn store(&self) -> &Store;
    /// Moves after every applied batch.
    fn applied(&self) -> watch::Receiver<Self::Applied>;
    /// Up to where the global order is final. Speaks only of what the store holds.
    fn finality(&self) -> Arc<Finality>;
    /// Number of events known to be final; may lag behind [`finality`](Self::finality).
    fn final_position(&self) -> u64;
    /// The nearest mark of the global order at or before `position`; none: the start.
    fn seek_global(&self, position: u64) -> Option<Mark>;
    /// The last mark before which every event is stamped below `stamp`; none: the start.
    fn mark_before(&self, stamp: Stamp) -> Option<Mark>;
}

/// Why a wait for what others have seen was in vain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotCovered {
    /// This is still missing at the deadline.
    Missing(Context),
    /// The node shuts down.
    Closed,
}

/// Waits until everything in `wanted` is applied.
///
/// # Errors
/// [`NotCovered`].
pub async fn await_covered<V: View>(
    view: &V,
    wanted: &Context,
    until: Instant,
) -> Result<(), NotCovered> {
    let mut applied = view.applied();
    loop {
        applied.borrow_and_update();
        let missing = view.region(|region| wanted.beyond(region.frontier()));
        if missing.is_empty() {
            return Ok(());
        }
        match timeout_at(until, applied.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(NotCovered::Closed),
            Err(_) => return Err(NotCovered::Missing(missing)),
        }
    }
}

impl View for ShardState {
    type Applied = Applied;

    fn region<T>(&self, look: impl FnOnce(&Region) -> T) -> T {
        Self::region(self, look)
    }
    fn store(&self) -> &Store {
        Self::store(self)
    }
    fn applied(&self) -> watch::Receiver<Applied> {
        Self::applied(self)
    }
    fn finality(&self) -> Arc<Finality> {
        Self::finality(self)
    }
    fn final_position(&self) -> u64 {
        self.order_position()
    }
    fn seek_global(&self, position: u64) -> Option<Mark> {
        Self::seek_global(self, position)
    }
    fn mark_before(&self, stamp: Stamp) -> Option<Mark> {
        Self::mark_before(self, stamp)
    }
}
