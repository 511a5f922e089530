//! Bounds on what is in flight: over them, requests are refused before anything is done.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

use super::refusal::overload;

/// When to try again.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// A share of something bounded; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Admitted {
    _share: OwnedSemaphorePermit,
}

/// A bound on something that requests take a share of.
#[derive(Debug)]
pub(super) struct Admission {
    what: &'static str,
    total: usize,
    free: Arc<Semaphore>,
}

impl Admission {
    pub(super) fn new(what: &'static str, total: usize) -> Self {
        let total = total.clamp(1, Semaphore::MAX_PERMITS);
        Self { what, total, free: Arc::new(Semaphore::new(total)) }
    }

    /// Takes a share, if there is one. A share larger than all there is counts as all there is.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED with a hint when to retry.
    pub(super) fn admit(&self, share: usize) -> Result<Admitted, Status> {
        let share = u32::try_from(share.clamp(1, self.total)).unwrap_or(u32::MAX);
        match Arc::clone(&self.free).try_acquire_many_owned(share) {
            Ok(share) => Ok(Admitted { _share: share }),
            Err(_) => Err(overload(self.what, RETRY_AFTER)),
        }
    }
}
