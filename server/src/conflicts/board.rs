//! What readers see of one order's conflicts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anabranch_core::conflict::{Declaration, Resolved};
use anabranch_core::declared::Declarations;
use anabranch_core::{Context, Stamp};
use anabranch_log::derived::states::StateError;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use super::rows::Row;

/// How many conflicts there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// As they are listed: one a group of events and stream.
    pub conflicts: u64,
    /// Pairs of concurrent events in them: equal in both orders, over equal events.
    pub pairs: u64,
}

/// Everything that was found, as far as it is not on disk yet, and what came of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Found {
    /// Everything that was looked at.
    pub(super) walked: Context,
    pub(super) policies: Declarations<Declaration>,
    /// By category.
    pub(super) counts: BTreeMap<String, Count>,
    pub(super) rows: BTreeMap<u64, Arc<Row>>,
    pub(super) of_stream: BTreeMap<(String, u64), Arc<Row>>,
    pub(super) resolved: BTreeMap<(String, Stamp, u64), Arc<Resolved>>,
}

/// One order's conflicts, and how far they are looked for.
pub(super) struct Board {
    found: RwLock<Found>,
    /// Every event before this position was looked at. None until what is kept was compared with the log.
    next: watch::Sender<Option<u64>>,
    /// Rises when everything that was found is given up.
    life: AtomicU64,
    /// What the states' removals were at when it was begun with what they keep.
    removals: AtomicU64,
    /// What a reader met: nobody else may ever look at what is damaged.
    met: Mutex<Option<StateError>>,
}

impl Board {
    pub(super) fn new() -> Self {
        Self {
            found: RwLock::default(),
            next: watch::Sender::new(None),
            life: AtomicU64::new(0),
            removals: AtomicU64::new(0),
            met: Mutex::default(),
        }
    }
    pub(super) fn look<T>(&self, look: impl FnOnce(&Found) -> T) -> T {
        look(&self.found.read())
    }
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Found) -> T) -> T {
        change(&mut self.found.write())
    }
    /// Begins with what is kept. Whoever reads while this happens sees neither the old nor the new.
    pub(super) fn begin(&self, kept: Found, removals: u64) {
        self.life.fetch_add(1, Ordering::SeqCst);
        self.removals.store(removals, Ordering::SeqCst);
        self.publish(None);
        self.change(|found| *found = kept);
        self.take_reported();
    }
    /// Whether what was found may lie in states that somebody has removed since.
    pub(super) fn is_of(&self, removals: u64) -> bool {
        self.removals.load(Ordering::SeqCst) == removals
    }
    pub(super) fn life(&self) -> u64 {
        self.life.load(Ordering::SeqCst)
    }
    pub(super) fn publish(&self, next: Option<u64>) {
        self.next.send_if_modified(|held| std::mem::replace(held, next) != next);
    }
    pub(super) fn next(&self) -> watch::Receiver<Option<u64>> {
        self.next.subscribe()
    }
    /// A reader cannot have what is kept.
    pub(super) fn report(&self, error: StateError) {
        *self.met.lock() = Some(error);
    }
    pub(super) fn take_reported(&self) -> Option<StateError> {
        self.met.lock().take()
    }
}
