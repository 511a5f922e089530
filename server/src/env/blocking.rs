//! Work that may wait for the disk, kept off the threads that drive tasks.

use tokio::runtime::{Handle, RuntimeFlavor};

/// Runs `work` where waiting harms nobody: on the pool for blocking work, or, on a single-threaded
/// runtime (a simulation), right here, so that no second thread decides the order of things.
///
/// # Panics
/// If `work` does.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::CurrentThread => work(),
        _ => match tokio::task::spawn_blocking(work).await {
            Ok(done) => done,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is ending, and this task with it at this very await.
                Err(_) => std::future::pending().await,
            },
        },
    }
}

/// Starts `work` in the background; on a single-threaded runtime does it right here.
pub fn in_background(work: impl FnOnce() + Send + 'static) {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::CurrentThread => work(),
        _ => drop(tokio::task::spawn_blocking(work)),
    }
}
