//! A node's disk and states, which outlive its processes, and the one who drives the log.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anabranch_log::Writer;
use anabranch_log::derived::states::MemoryStates;
use anabranch_log::derived::{Checkpoints, FileCheckpoints, OpenError, Opened};
use anabranch_log::disk::{Disk, MemoryDisk};
use anabranch_server::env::{CHECKPOINTS, Storage};
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
    /// Log, index, checkpoints and identity.
    pub disk: MemoryDisk,
    /// States kept beside the checkpoints; in production they are in sled.
    pub states: MemoryStates,
    /// How fast it is.
    pub pace: DiskPace,
    /// Closed while the node is paused.
    pub gate: Gate,
}

impl SimStorage {
    /// The checkpoints and all states are gone for good.
    pub fn lose_checkpoints(&self) {
        let folder = Path::new(CHECKPOINTS);
        // There is no such folder before the first.
        if let Ok(files) = self.disk.list(folder) {
            let remove = |file: &String| self.disk.remove(&folder.join(file));
            let removed = files.iter().try_for_each(remove);
            removed.and_then(|()| self.disk.sync_dir(folder)).expect("what is listed goes");
        }
        self.states.clear();
    }

    /// Everything is as it is on another disk; states are gone.
    pub fn set_back(&self, to: &MemoryDisk) {
        self.disk.restore(to);
        self.states.clear();
    }

    /// Everything is gone.
    pub fn lose(&self) {
        self.set_back(&MemoryDisk::new(0));
    }
}

impl Storage for SimStorage {
    fn disk(&self, _: &Path) -> Arc<dyn Disk> {
        Arc::new(self.disk.clone())
    }

    fn checkpoints(&self, _: &Path) -> Result<(Arc<dyn Checkpoints>, Opened), OpenError> {
        let states = Arc::new(self.states.clone());
        let checkpoints = FileCheckpoints::new(Arc::new(self.disk.clone()), CHECKPOINTS, states);
        Ok((Arc::new(checkpoints), Opened::Whole))
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use rand::SeedableRng;

    use super::*;

    /// Whether there is a checkpoint, and a state.
    fn held(storage: &SimStorage) -> (bool, bool) {
        let (checkpoints, _) = storage.checkpoints(Path::new("")).unwrap();
        let state = checkpoints.beside().get(b"key").unwrap();
        (checkpoints.latest("region-0").is_some(), state.is_some())
    }

    #[test]
    fn what_is_lost_does_not_come_back_with_a_power_loss() {
        for seed in 0..10 {
            let random = SmallRng::seed_from_u64(seed);
            let (pace, gate) = (DiskPace::new(Duration::ZERO, random), Gate::new());
            let (disk, states) = (MemoryDisk::new(seed), MemoryStates::new());
            let storage = SimStorage { disk, states, pace, gate };
            storage.lose_checkpoints();
            for lose in [SimStorage::lose_checkpoints, SimStorage::lose] {
                let (checkpoints, _) = storage.checkpoints(Path::new("")).unwrap();
                checkpoints.put("region-0", 1, &[]).unwrap();
                let state = Some(Bytes::from_static(b"state"));
                checkpoints.beside().write(&[(b"key".to_vec(), state)]).unwrap();
                storage.disk.crash();
                assert_eq!(held(&storage), (true, true), "they outlive a power loss");
                lose(&storage);
                storage.disk.crash();
                assert_eq!(held(&storage), (false, false));
            }
        }
    }
}
