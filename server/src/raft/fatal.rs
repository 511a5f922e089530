//! Why a shard stopped, for the operator and for whoever shuts the node down.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

/// Holds the first reason and keeps it.
#[derive(Debug, Clone)]
pub(super) struct Fatal {
    reason: Arc<watch::Sender<Option<String>>>,
    ending: Arc<AtomicBool>,
}

impl Fatal {
    pub(super) fn new() -> Self {
        Self { reason: Arc::new(watch::Sender::new(None)), ending: Arc::default() }
    }

    /// From here on the shard ends because it was asked to, though it does so with an error.
    pub(super) fn ending(&self) {
        self.ending.store(true, Ordering::Release);
    }

    /// Says why the shard stopped. Only the first reason counts: later ones follow from it.
    pub(super) fn raise(&self, reason: &str) {
        if self.ending.load(Ordering::Acquire) {
            tracing::info!(reason, "shard ended");
            return;
        }
        let first = self.reason.send_if_modified(|held| {
            let first = held.is_none();
            held.get_or_insert_with(|| reason.to_owned());
            first
        });
        if first {
            tracing::error!(reason, "shard stopped");
        }
    }

    pub(super) fn reason(&self) -> Option<String> {
        self.reason.borrow().clone()
    }
    pub(super) fn watch(&self) -> watch::Receiver<Option<String>> {
        self.reason.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reason_stays() {
        let fatal = Fatal::new();
        let seen = fatal.watch();
        assert_eq!(*seen.borrow(), None);
        fatal.raise("disk is gone");
        fatal.raise("raft stopped");
        assert_eq!(seen.borrow().as_deref(), Some("disk is gone"));
    }
}
