//! What readers see of the aggregates.

use std::collections::BTreeMap;
use std::sync::Arc;

use anabranch_log::derived::states::StateError;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use super::projection::Projection;

/// The aggregates of a category.
#[derive(Default)]
pub(super) struct Category {
    /// Those that readers see.
    pub(super) serving: Option<Arc<Projection>>,
    /// Those of a newer definition, which takes over when it has seen as much.
    pub(super) building: Option<Arc<Projection>>,
}

/// All aggregates of a shard, and how far they are.
pub(super) struct Board {
    categories: RwLock<BTreeMap<String, Category>>,
    /// Of those that are served, every event before this position is in. None until what is kept was
    /// compared with the log.
    next: watch::Sender<Option<u64>>,
    /// What a reader met: nobody else may ever look at what is damaged.
    met: Mutex<Option<StateError>>,
}

impl Board {
    pub(super) fn new() -> Self {
        Self {
            categories: RwLock::default(),
            next: watch::Sender::new(None),
            met: Mutex::default(),
        }
    }
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut BTreeMap<String, Category>) -> T) -> T {
        change(&mut self.categories.write())
    }
    pub(super) fn look<T>(&self, look: impl FnOnce(&BTreeMap<String, Category>) -> T) -> T {
        look(&self.categories.read())
    }
    /// Those that are served, by category.
    pub(super) fn serving(&self) -> BTreeMap<String, Arc<Projection>> {
        let categories = self.categories.read();
        let served = categories.iter().filter_map(|(name, category)| {
            Some((name.clone(), Arc::clone(category.serving.as_ref()?)))
        });
        served.collect()
    }
    /// Those of a category: served, and being built.
    pub(super) fn of(&self, category: &str) -> (Option<Arc<Projection>>, Option<Arc<Projection>>) {
        let categories = self.categories.read();
        let both = categories.get(category);
        both.map(|both| (both.serving.clone(), both.building.clone())).unwrap_or_default()
    }
    pub(super) fn building(&self, category: &str) -> Option<Arc<Projection>> {
        self.categories.read().get(category)?.building.clone()
    }
    /// Takes all away. In this order: who finds nothing knows that nothing was looked at.
    pub(super) fn clear(&self) -> Vec<Arc<Projection>> {
        self.next.send_replace(None);
        let cleared = std::mem::take(&mut *self.categories.write());
        cleared.into_values().flat_map(|both| [both.serving, both.building]).flatten().collect()
    }
    pub(super) fn publish(&self, next: u64) {
        self.next.send_replace(Some(next));
    }
    /// A reader cannot have what is kept.
    pub(super) fn report(&self, error: StateError) {
        *self.met.lock() = Some(error);
    }
    pub(super) fn take_reported(&self) -> Option<StateError> {
        self.met.lock().take()
    }
    /// Wakes those who wait for something to change.
    pub(super) fn moved(&self) {
        self.next.send_modify(|_| {});
    }
    pub(super) fn next(&self) -> watch::Receiver<Option<u64>> {
        self.next.subscribe()
    }
}
