//! What is applied of one shard on this node; shared by readers, gossip and the API.

use std::sync::Arc;

use anabranch_core::order::{Finality, Mark};
use anabranch_core::region::Outcome;
use anabranch_core::region::Region;
use anabranch_core::{Command, Context, Stamp};
use anabranch_log::store::{Sealing, Store};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio::time::Instant;

use super::order::{Follower, OrderBoard, OrderView, Pass};

/// How far this node has applied the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Applied {
    /// Index of the last Raft entry applied; 0 for none.
    pub index: u64,
    /// Next regional position.
    pub position: u64,
}

/// The applied state of a shard. Only its machine changes it.
pub struct ShardState {
    region: RwLock<Region>,
    store: Store,
    applied: watch::Sender<Applied>,
    finality: RwLock<Arc<Finality>>,
    order: OrderBoard,
    follower: Mutex<Follower>,
    /// Why the log cannot be read, if it cannot.
    unreadable: watch::Sender<Option<String>>,
}

impl ShardState {
    /// A state that begins with a checkpoint of `region` at entry `index`, over a store that is
    /// indexed up to there, and `marks` of the global order.
    pub fn new(region: Region, index: u64, store: Store, marks: Vec<Mark>) -> Self {
        let finality = Arc::new(Finality::of(&region));
        let applied = Applied { index, position: region.position() };
        let order = OrderBoard::new(marks);
        let follower = Mutex::new(Follower::after(order.last_mark()));
        Self {
            region: RwLock::new(region),
            store,
            applied: watch::Sender::new(applied),
            finality: RwLock::new(finality),
            order,
            follower,
            unreadable: watch::Sender::new(None),
        }
    }

    /// Looks at the region under a read lock; keep it short. Everything it shows is readable in
    /// [`store`](Self::store).
    pub fn region<T>(&self, look: impl FnOnce(&Region) -> T) -> T {
        look(&self.region.read())
    }
    /// The events.
    pub fn store(&self) -> &Store {
        &self.store
    }
    /// Moves after every applied batch.
    pub fn applied(&self) -> watch::Receiver<Applied> {
        self.applied.subscribe()
    }
    /// Up to where the global order is final, as of the last applied batch.
    pub fn finality(&self) -> Arc<Finality> {
        Arc::clone(&self.finality.read())
    }
    /// How far this node has followed the global order.
    pub fn order(&self) -> OrderView {
        self.order.view()
    }
    /// Global position up to which the order is final and followed here.
    pub fn order_position(&self) -> u64 {
        self.order.position()
    }
    /// Moves with the global position up to which the order is final and followed here.
    pub fn order_moved(&self) -> watch::Receiver<u64> {
        self.order.moved()
    }
    /// The last mark of the global order at or before a position; `None` before the first.
    pub fn seek_global(&self, position: u64) -> Option<Mark> {
        self.order.mark_at(position)
    }
    /// The last mark of the global order before which every group is stamped below `stamp`.
    pub fn mark_before(&self, stamp: Stamp) -> Option<Mark> {
        self.order.mark_before(stamp)
    }
    /// All marks, for a checkpoint.
    pub fn marks(&self) -> Vec<Mark> {
        self.order.marks()
    }
    /// Whether everything in `context` is applied here.
    pub fn covers(&self, context: &Context) -> bool {
        self.region(|region| region.frontier().covers(context))
    }

    /// Whether a batch goes in, or waits for those who look at the region.
    #[cfg(test)]
    pub(super) fn is_applying(&self) -> bool {
        self.region.try_read().is_none()
    }

    /// Waits until everything in `context` is applied here.
    ///
    /// # Errors
    /// What is missing at the deadline.
    pub async fn await_context(&self, context: &Context, deadline: Instant) -> Result<(), Context> {
        let mut applied = self.applied();
        loop {
            applied.borrow_and_update();
            if self.covers(context) {
                return Ok(());
            }
            let moved = tokio::time::timeout_at(deadline, applied.changed()).await;
            if !matches!(moved, Ok(Ok(()))) {
                return Err(self.missing(context));
            }
        }
    }

    /// What of `context` is not applied here.
    pub fn missing(&self, context: &Context) -> Context {
        self.region(|region| context.beyond(region.frontier()))
    }

    /// Applies one batch of commands that ends at entry `index`. Readers see all of it or nothing.
    pub fn apply(&self, commands: &[(u64, Arc<Command>)], index: u64) -> (Vec<Outcome>, Sealing) {
        let mut region = self.region.write();
        let mut sealing = Sealing::NotDue;
        let apply = |(entry, command): &(u64, Arc<Command>)| {
            let outcome = region.apply(command);
            match &outcome {
                Outcome::Accepted => {
                    if self.store.applied(*entry, command) == Sealing::Due {
                        sealing = Sealing::Due;
                    }
                }
                Outcome::Refused(refused) => {
                    tracing::warn!(entry, %refused, "a command was refused; its proposer will retry");
                    self.store.passed(*entry);
                }
            }
            outcome
        };
        let outcomes = commands.iter().map(apply).collect();
        self.store.passed(index);
        *self.finality.write() = Arc::new(Finality::of(&region));
        let applied = Applied { index, position: region.position() };
        drop(region);
        self.applied.send_replace(applied);
        (outcomes, sealing)
    }

    /// Follows the global order towards what is final, one pass.
    ///
    /// # Errors
    /// If the log cannot be read; tried again with the next batch.
    /// Why events of the log cannot be read on this node; `None` as long as they can.
    pub fn unreadable(&self) -> watch::Receiver<Option<String>> {
        self.unreadable.subscribe()
    }
    pub(super) fn set_unreadable(&self, why: Option<String>) {
        self.unreadable.send_if_modified(|held| {
            let changed = *held != why;
            *held = why;
            changed
        });
    }

    pub(super) fn follow_order(&self) -> Result<Pass, anabranch_log::store::StoreError> {
        let finality = self.finality();
        self.follower.lock().advance(&self.store, &finality, &self.order)
    }
}
