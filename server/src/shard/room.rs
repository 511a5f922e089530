//! Asks the log to go on after its disk was full.

use std::time::Duration;

use anabranch_log::Log;
use tokio::sync::watch;

/// How often a full disk is tried again. Each try fills what space there is for a moment, to find out
/// whether the reserve fits.
const TRY_EVERY: Duration = Duration::from_secs(1);

/// Tries until `stop`. On every node, leader or not: each has a disk of its own.
pub(super) async fn keep(log: Log, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(TRY_EVERY) => log.restore_reserve(),
        }
    }
}
