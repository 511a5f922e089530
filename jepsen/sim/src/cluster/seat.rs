//! A node's seat: what outlives its processes, and the process that sits in it now.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anabranch_server::config::ValidConfig;
use anabranch_server::node::{Environment, Node};
use anabranch_server::raft::Node as Member;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::shape::NodeAt;
use crate::journal::Journal;
use crate::world::{Gate, SimClock, SimNet, SimSeeds, SimStorage, Weather, seeds, udp};

/// How long a change of members may take; then it is asked for again.
const CHANGE_WAIT: Duration = Duration::from_secs(3);

/// What the process is told from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Stop in an orderly way.
    Drain,
    /// If this node leads, let these nodes be the region's voters.
    Voters(BTreeMap<u64, Member>),
}

/// One node over all its lives.
pub struct Seat {
    /// Which node.
    pub at: NodeAt,
    /// Its address.
    pub ip: IpAddr,
    /// Its disk.
    pub storage: SimStorage,
    /// Its clocks.
    pub clock: SimClock,
    /// Closed while it is paused.
    pub gate: Gate,
    seed: u64,
    weather: Weather,
    journal: Journal,
    sitting: Mutex<Sitting>,
}

#[derive(Default)]
struct Sitting {
    config: Option<ValidConfig>,
    /// A spare: nothing runs here until it is woken.
    dormant: bool,
    lives: u32,
    node: Option<Node>,
    orders: Option<mpsc::UnboundedSender<Order>>,
    /// Why the last process ended by itself.
    ended: Option<String>,
    /// Why processes ended by themselves, so far.
    deaths: Vec<String>,
}

/// What is needed for a seat.
pub struct SeatParts {
    /// Which node.
    pub at: NodeAt,
    /// Its address.
    pub ip: IpAddr,
    /// Its disk.
    pub storage: SimStorage,
    /// Seed of the run.
    pub seed: u64,
    /// Conditions between regions.
    pub weather: Weather,
    /// Where it is written what happens.
    pub journal: Journal,
}

impl Seat {
    /// An empty seat.
    pub fn new(parts: SeatParts) -> Self {
        let SeatParts { at, ip, storage, seed, weather, journal } = parts;
        let (gate, clock) = (storage.gate.clone(), SimClock::new());
        let sitting = Mutex::default();
        Self { at, ip, storage, clock, gate, seed, weather, journal, sitting }
    }

    /// Says what is run here from the next start on.
    pub fn configure(&self, config: ValidConfig) {
        self.sitting.lock().config = Some(config);
    }
    /// Keeps the seat empty until it is [woken](Self::wake).
    pub fn sleep(&self) {
        self.sitting.lock().dormant = true;
    }
    /// From the next start on, something is run here.
    pub fn wake(&self) {
        self.sitting.lock().dormant = false;
    }
    /// Whether it is a spare that was not woken.
    pub fn is_dormant(&self) -> bool {
        self.sitting.lock().dormant
    }
    /// The running node. Do not keep it: a node that is held on to does not end.
    pub fn with<T>(&self, look: impl FnOnce(&Node) -> T) -> Option<T> {
        self.sitting.lock().node.as_ref().map(look)
    }
    /// Whether a node serves here.
    pub fn serves(&self) -> bool {
        self.sitting.lock().node.is_some()
    }
    /// Why the last process ended, if it did so by itself.
    pub fn ended(&self) -> Option<String> {
        self.sitting.lock().ended.clone()
    }
    /// Why processes ended by themselves, so far.
    pub fn deaths(&self) -> Vec<String> {
        self.sitting.lock().deaths.clone()
    }
    /// How many processes there were.
    pub fn lives(&self) -> u32 {
        self.sitting.lock().lives
    }
    /// Tells the process something. Nothing happens if there is none.
    pub fn order(&self, order: Order) {
        if let Some(orders) = &self.sitting.lock().orders {
            // A process that is ending anyway hears no orders.
            let _ = orders.send(order);
        }
    }
    /// Whoever sat here is gone. Call before its host is crashed.
    pub fn vacate(&self) {
        let node = {
            let mut sitting = self.sitting.lock();
            sitting.orders = None;
            sitting.node.take()
        };
        if node.is_some() {
            self.journal.change(self.at, false);
        }
        drop(node);
    }

    /// One life of the process: starts the node, serves until told or forced to stop.
    pub async fn live(self: Arc<Self>) -> turmoil::Result {
        let Some((config, life)) = self.begin() else { return Ok(()) };
        let node = match Node::start(config, self.environment(life)).await {
            Ok(node) => node,
            Err(error) => {
                self.end(format!("did not start: {:#}", anyhow::Error::from(error)));
                return Ok(());
            }
        };
        let (orders, mut told) = mpsc::unbounded_channel();
        {
            let mut sitting = self.sitting.lock();
            (sitting.node, sitting.orders) = (Some(node.clone()), Some(orders));
        }
        self.journal.note(format!("{} serves, life {life}", self.at));
        self.journal.change(self.at, true);
        tokio::select! {
            biased;
            reason = node.failed() => {
                self.journal.note(format!("{} failed: {reason}", self.at));
                node.drain().await;
                self.end(reason);
            }
            () = self.obey(&node, &mut told) => {
                node.drain().await;
                self.journal.note(format!("{} drained", self.at));
            }
        }
        self.vacate();
        Ok(())
    }

    /// Returns when it is told to stop.
    async fn obey(&self, node: &Node, told: &mut mpsc::UnboundedReceiver<Order>) {
        while let Some(order) = told.recv().await {
            let Order::Voters(voters) = order else { return };
            for shard in node.shards().values() {
                if !shard.raft().leadership().borrow().ready {
                    continue;
                }
                let changed = shard.raft().change_membership(voters.clone(), CHANGE_WAIT).await;
                let ids: Vec<u64> = voters.keys().copied().collect();
                let said = changed.map_or_else(|error| error.to_string(), |()| "done".into());
                self.journal.note(format!("{} changes voters to {ids:?}: {said}", self.at));
            }
        }
        std::future::pending().await
    }

    fn begin(&self) -> Option<(ValidConfig, u32)> {
        let mut sitting = self.sitting.lock();
        let config = sitting.config.clone().filter(|_| !sitting.dormant)?;
        sitting.lives += 1;
        sitting.ended = None;
        Some((config, sitting.lives))
    }

    fn end(&self, reason: String) {
        self.journal.note(format!("{} ended: {reason}", self.at));
        let mut sitting = self.sitting.lock();
        sitting.deaths.push(reason.clone());
        sitting.ended = Some(reason);
    }

    fn environment(&self, life: u32) -> Environment {
        let host = self.at.to_string();
        let (seed, weather, gate) = (self.seed, self.weather.clone(), self.gate.clone());
        let packets = format!("packets of {host}, life {life}");
        Environment {
            clock: Arc::new(self.clock.clone()),
            net: Arc::new(SimNet::new(gate.clone())),
            seeds: Arc::new(SimSeeds::new(seed, &host, life)),
            storage: Arc::new(self.storage.clone()),
            gossip: Arc::new(move |address, clock| {
                let random = seeds::rng(seed, &packets);
                udp::open(address, clock, weather.clone(), gate.clone(), random)
            }),
        }
    }
}

/// Where a node's certificates are: the same in every run, so that every run sends the same bytes.
#[derive(Debug, Clone)]
pub struct Certificates {
    folder: PathBuf,
}

impl Certificates {
    /// Those of the repository.
    pub fn new() -> Self {
        Self { folder: PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/certs")) }
    }
    /// Files of a node of `region`.
    pub fn of(&self, region: &str) -> anabranch_server::config::Tls {
        anabranch_server::config::Tls {
            ca: self.folder.join("ca.pem"),
            cert: self.folder.join(format!("{region}.pem")),
            key: self.folder.join(format!("{region}-key.pem")),
            ..Default::default()
        }
    }
}

impl Default for Certificates {
    fn default() -> Self {
        Self::new()
    }
}
