//! What happens to packets between regions: loss, duplicates, jitter, other order. Distance and cuts
//! are the simulated network's own.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

/// Conditions of the way from one node to another.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Conditions {
    /// Part of the packets that are lost.
    pub loss: f64,
    /// Part of the packets that arrive twice.
    pub duplicate: f64,
    /// Part of the packets that are held up by up to `jitter` alone, and so overtaken.
    pub reorder: f64,
    /// Most time by which packets are held up, keeping their order.
    pub jitter: Duration,
}

/// Conditions of all ways. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Weather(Arc<Mutex<BTreeMap<(IpAddr, IpAddr), Conditions>>>);

impl Weather {
    /// Calm everywhere.
    pub fn new() -> Self {
        Self::default()
    }
    /// Sets the conditions from one node to another.
    pub fn set(&self, from: IpAddr, to: IpAddr, conditions: Conditions) {
        self.0.lock().insert((from, to), conditions);
    }
    /// Calm everywhere again.
    pub fn calm(&self) {
        self.0.lock().clear();
    }
    /// The conditions from one node to another.
    pub fn of(&self, from: IpAddr, to: IpAddr) -> Conditions {
        self.0.lock().get(&(from, to)).copied().unwrap_or_default()
    }
}
