//! What this region gives to others: committed groups and its word about itself.

use std::sync::Arc;

use anabranch_core::{Digest, Group, Origin, Seq};
use anabranch_gossip::{ClockTrust, Source, SourceError};
use tokio::sync::watch;

use super::clock_guard::Reading;
use super::inlet::Inlet;
use super::state::ShardState;
use crate::env::Clock;

/// The applied state as gossip sees it. Any node serves it, leader or follower.
pub(super) struct Outlet {
    state: Arc<ShardState>,
    inlet: Arc<Inlet>,
    clock: Arc<dyn Clock>,
    changed: watch::Receiver<u64>,
}

impl Outlet {
    pub(super) fn new(state: Arc<ShardState>, inlet: Arc<Inlet>, clock: Arc<dyn Clock>) -> Self {
        let mut applied = state.applied();
        let (moved, changed) = watch::channel(applied.borrow_and_update().index);
        // Ends with the state, or with the last who listens.
        tokio::spawn(async move {
            while applied.changed().await.is_ok() {
                let index = applied.borrow_and_update().index;
                if moved.send(index).is_err() {
                    return;
                }
            }
        });
        Self { state, inlet, clock, changed }
    }
}

impl Source for Outlet {
    fn origin(&self) -> Option<Origin> {
        self.state.region(|region| region.origin().cloned())
    }

    fn digests(&self) -> Vec<Digest> {
        self.state
            .region(|region| region.digest().into_iter().chain(region.peers().cloned()).collect())
    }

    fn read_origin(
        &self,
        origin: &Origin,
        from: Seq,
        max_bytes: usize,
    ) -> Result<Vec<Group>, SourceError> {
        let groups = self.state.store().read_origin(origin, from, max_bytes);
        let groups = groups.map_err(|source| SourceError::Read {
            origin: origin.clone(),
            from,
            source: Box::new(source),
        })?;
        Ok(groups.iter().map(|slice| slice.group().clone()).collect())
    }

    fn clock_trust(&self, unix_ms: u64) -> ClockTrust {
        self.inlet.clock_trust(Reading { unix_ms, monotonic: self.clock.monotonic() })
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.changed.clone()
    }
}
