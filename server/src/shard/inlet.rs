//! Where gossip puts what other regions sent: the leader's importer, behind a bound on its bytes.

use std::sync::Arc;

use anabranch_core::import::{Batch, Importer, Offered};
use anabranch_core::{Context, Digest, Group, Origin, RegionName, Seq};
use anabranch_gossip::{BoxFuture, OfferError, Sink};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::state::ShardState;
use std::time::Duration;

/// Bytes of one origin's groups that may wait for their turn.
const QUEUE_BYTES: usize = 16 * 1024 * 1024;

/// The importer of the present leadership, if this node leads.
pub(super) struct Inlet {
    /// Locked inside a look at the region, or alone; never the other way round.
    importer: Mutex<Option<Importer>>,
    /// Something was offered.
    pub(super) offered: Notify,
    /// Something was taken, or the importer changed.
    taken: watch::Sender<u64>,
    /// Moves with every digest heard: who waits for other regions' receipts looks again.
    heard: watch::Sender<u64>,
}

impl Inlet {
    pub(super) fn new() -> Self {
        Self {
            importer: Mutex::new(None),
            offered: Notify::new(),
            taken: watch::Sender::new(0),
            heard: watch::Sender::new(0),
        }
    }

    /// Begins a leadership with an empty importer, or ends it.
    pub(super) fn set(&self, importer: Option<Importer>) {
        *self.importer.lock() = importer;
        self.taken.send_modify(|count| *count += 1);
    }

    pub(super) fn take(
        &self,
        unix_ms: u64,
        frontier: &Context,
        bytes_max: usize,
        statements: bool,
    ) -> Batch {
        let batch = match &mut *self.importer.lock() {
            Some(importer) => importer.take(unix_ms, frontier, bytes_max, statements),
            None => Batch::default(),
        };
        if !batch.groups.is_empty() {
            self.taken.send_modify(|count| *count += 1);
        }
        batch
    }

    pub(super) fn held(&self) -> Vec<(Origin, String)> {
        let importer = self.importer.lock();
        let held = importer.iter().flat_map(Importer::held);
        held.map(|(origin, held)| (origin.clone(), held.to_string())).collect()
    }

    pub(super) fn heard(&self, state: &ShardState) -> Vec<Digest> {
        let logged: Vec<Digest> = state.region(|region| region.peers().cloned().collect());
        match &*self.importer.lock() {
            Some(importer) => {
                let mut heard: Vec<Digest> = importer.heard().cloned().collect();
                let named = |digest: &Digest| heard.iter().any(|h| h.origin == digest.origin);
                let rest: Vec<Digest> = logged.into_iter().filter(|d| !named(d)).collect();
                heard.extend(rest);
                heard
            }
            None => logged,
        }
    }

    /// Number of regions known to hold `origin`'s events up to `seq`.
    ///
    /// The region before the importer, as everywhere: the other way round, this and an offer would
    /// wait for each other as soon as an apply waits between them.
    pub(super) fn holders(&self, state: &ShardState, origin: &Origin, seq: Seq) -> usize {
        state.region(|region| match &*self.importer.lock() {
            Some(importer) => importer.holders(region, origin, seq),
            None => Importer::new(Duration::MAX).holders(region, origin, seq),
        })
    }

    pub(super) fn heard_moved(&self) -> watch::Receiver<u64> {
        self.heard.subscribe()
    }
}

/// The inlet as gossip sees it, for one leadership.
pub(super) struct InletSink {
    inlet: Arc<Inlet>,
    state: Arc<ShardState>,
}

impl InletSink {
    pub(super) fn new(inlet: Arc<Inlet>, state: Arc<ShardState>) -> Self {
        Self { inlet, state }
    }

    fn offer_one(&self, group: Group) -> Result<(), OfferError> {
        let origin = group.origin().clone();
        let offered = self.state.region(|region| {
            let mut importer = self.inlet.importer.lock();
            importer.as_mut().map(|importer| importer.offer(region, group))
        });
        match offered {
            None => Err(OfferError::NotLeader),
            Some(Offered::Queued | Offered::Repeated) => Ok(()),
            Some(Offered::Gap { from }) => {
                Err(OfferError::Held { origin, reason: format!("pulled past {from}") })
            }
            Some(Offered::Held(held)) => {
                let reason = held.to_string();
                tracing::error!(%origin, reason, "held back what another region sent");
                Err(OfferError::Held { origin, reason })
            }
        }
    }

    /// Waits until `origin`'s queue has room. False if this node no longer leads.
    async fn room(&self, origin: &Origin) -> bool {
        let mut taken = self.inlet.taken.subscribe();
        loop {
            taken.borrow_and_update();
            match &*self.inlet.importer.lock() {
                None => return false,
                Some(importer) if importer.bytes_of(origin) < QUEUE_BYTES => return true,
                Some(_) => {}
            }
            if taken.changed().await.is_err() {
                return false;
            }
        }
    }
}

impl Sink for InletSink {
    fn next_wanted(&self, origin: &Origin) -> Seq {
        self.state.region(|region| match &*self.inlet.importer.lock() {
            Some(importer) => importer.next_wanted(region, origin),
            None => region.head(origin).seq.next(),
        })
    }

    fn offer(
        &self,
        _via: &RegionName,
        groups: Vec<Group>,
    ) -> BoxFuture<'_, Result<(), OfferError>> {
        Box::pin(async move {
            for group in groups {
                if !self.room(group.origin()).await {
                    return Err(OfferError::NotLeader);
                }
                self.offer_one(group)?;
                self.inlet.offered.notify_one();
            }
            Ok(())
        })
    }

    fn offer_digest(&self, _via: &RegionName, digest: Digest) {
        self.state.region(|region| {
            if let Some(importer) = &mut *self.inlet.importer.lock() {
                importer.offer_digest(region, digest);
            }
        });
        self.inlet.heard.send_modify(|count| *count += 1);
        self.inlet.offered.notify_one();
    }
}

#[cfg(test)]
mod tests;
