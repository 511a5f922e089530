//! A node's disk and checkpoints, which outlive its processes, and the one who drives the log.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anabranch_log::Writer;
use anabranch_log::derived::{Checkpoints, MemoryCheckpoints, OpenError, Opened};
use anabranch_log::disk::{Disk, MemoryDisk};
use anabranch_server::env::Storage;
use parking_lot::Mutex;
use rand::Rng;
use rand::rngs::SmallRng;
use tokio::sync::Notify;

use super::Gate;

/// How long a disk takes to make a write durable. Clones share it.
#[derive(Debug, Clone)]
pub struct DiskPace(Arc<Mutex<Pace>>);

#[derive(Debug)]
struct Pace {
    healthy: Duration,
    now: Duration,
    random: SmallRng,
}

impl DiskPace {
    /// A healthy disk: a sync takes up to twice `healthy`.
    pub fn new(healthy: Duration, random: SmallRng) -> Self {
        Self(Arc::new(Mutex::new(Pace { healthy, now: healthy, random })))
    }
    /// From here on a sync takes up to twice `pace`.
    pub fn slow(&self, pace: Duration) {
        self.0.lock().now = pace;
    }
    /// The disk is healthy again.
    pub fn heal(&self) {
        let mut pace = self.0.lock();
        pace.now = pace.healthy;
    }
    fn draw(&self) -> Duration {
        let mut pace = self.0.lock();
        let longest = pace.now * 2;
        pace.random.random_range(Duration::ZERO..=longest)
    }
}

/// Storage of one node, shared by all its lives.
#[derive(Clone)]
pub struct SimStorage {
    /// Log, index and identity.
    pub disk: MemoryDisk,
    /// Checkpoints of the applied state.
    pub checkpoints: MemoryCheckpoints,
    /// How fast it is.
    pub pace: DiskPace,
    /// Closed while the node is paused.
    pub gate: Gate,
}

impl Storage for SimStorage {
    fn disk(&self, _: &Path) -> Arc<dyn Disk> {
        Arc::new(self.disk.clone())
    }

    fn checkpoints(&self, _: &Path) -> Result<(Arc<dyn Checkpoints>, Opened), OpenError> {
        Ok((Arc::new(self.checkpoints.clone()), Opened::Whole))
    }

    /// Between a write and its sync time passes, in which the power may fail.
    fn drive(&self, mut writer: Writer) -> io::Result<()> {
        let (work, gate, pace) = (Arc::new(Notify::new()), self.gate.clone(), self.pace.clone());
        let wake = Arc::clone(&work);
        writer.on_work(Arc::new(move || wake.notify_one()));
        tokio::spawn(async move {
            while !writer.is_finished() {
                if writer.write_pending() {
                    tokio::time::sleep(pace.draw()).await;
                    gate.passed().await;
                    writer.sync_written();
                } else {
                    work.notified().await;
                }
            }
        });
        Ok(())
    }
}
