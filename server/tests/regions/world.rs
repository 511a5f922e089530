//! Regions of one node each, and what a test does to them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use anabranch_core::sequencer::Submission;
use anabranch_core::{Event, NodeId, RegionName, Request, ShardId};
use anabranch_gossip::{
    Cut, DevCa, Environment, Gossip, GossipConfig, LinkRules, PeerRegion, Served, ShapedUdp,
    SystemResolver, Tuning,
};
use anabranch_log::LogOptions;
use anabranch_log::derived::FileCheckpoints;
use anabranch_log::derived::states::MemoryStates;
use anabranch_log::disk::{Disk, MemoryDisk};
use anabranch_server::env::{CHECKPOINTS, Clock, OsSeeds, RealStorage, SystemClock, TokioNet};
use anabranch_server::raft::{Identity, Node, Timings};
use anabranch_server::shard::{Shard, ShardConfig, ShardParts};
use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::ports::free_address;

const SHARD: ShardId = ShardId(0);

pub struct World {
    ca: DevCa,
    names: Vec<RegionName>,
    addresses: Vec<SocketAddr>,
    regions: Vec<Region>,
}

/// What is gone when a region starts again.
#[derive(Debug, Clone, Copy)]
pub enum Derived {
    Nothing,
    Checkpoints,
    Index,
    Everything,
}

/// The system's clocks, but the wall clock may be wrong.
#[derive(Clone)]
struct WrongClock {
    right: SystemClock,
    off_ms: Arc<AtomicI64>,
}

impl Clock for WrongClock {
    fn unix_ms(&self) -> u64 {
        self.right.unix_ms().saturating_add_signed(self.off_ms.load(Ordering::Relaxed))
    }
    fn monotonic(&self) -> Duration {
        self.right.monotonic()
    }
}

struct Region {
    /// What its wall clock is off by, over all its lives.
    clock_off_ms: Arc<AtomicI64>,
    disk: MemoryDisk,
    states: MemoryStates,
    rules: LinkRules,
    shard: Shard,
    gossip: Gossip,
}

pub fn event(stream: &str, payload: &str) -> Event {
    Event {
        stream: stream.into(),
        id: None,
        kind: "Happened".into(),
        metadata: BTreeMap::new(),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
    }
}

pub fn submission(stream: &str, payload: &str) -> Submission {
    let events = vec![event(stream, payload)];
    Submission { request: Request { producer: None, events }, expectations: Vec::new() }
}

impl World {
    pub async fn start(names: &[&str]) -> Self {
        let names: Vec<_> = names.iter().map(|name| RegionName::new(name).unwrap()).collect();
        let addresses = names.iter().map(|_| free_address()).collect();
        let ca = DevCa::generate().unwrap();
        let mut world = Self { ca, names, addresses, regions: Vec::new() };
        for nth in 0..world.names.len() {
            let disk = MemoryDisk::new(nth as u64);
            let states = MemoryStates::new();
            let clock = Arc::default();
            let region = world.open(nth, clock, disk, states, LinkRules::new()).await;
            world.regions.push(region);
        }
        for region in &world.regions {
            ready(&region.shard).await;
        }
        world
    }

    async fn open(
        &self,
        nth: usize,
        clock_off_ms: Arc<AtomicI64>,
        disk: MemoryDisk,
        states: MemoryStates,
        rules: LinkRules,
    ) -> Region {
        let name = self.names[nth].clone();
        let off_ms = Arc::clone(&clock_off_ms);
        let clock: Arc<dyn Clock> = Arc::new(WrongClock { right: SystemClock::new(), off_ms });
        let (publish, gossip) = watch::channel(None);
        let config = ShardConfig {
            shard: SHARD,
            dir: PathBuf::from("shard-0"),
            members: self.names.clone(),
            timings: Timings::default(),
            drift_max: Duration::from_millis(500),
            // Small, so that a test has sealed segments and index files.
            log: LogOptions { segment_bytes: 64 * 1024, ..LogOptions::new([nth as u8; 16]) },
        };
        let on_disk = Arc::new(disk.clone());
        let beside = Arc::new(states.clone());
        let parts = ShardParts {
            identity: Arc::new(Identity::new(name.clone(), NodeId(1))),
            disk: on_disk.clone(),
            checkpoints: Arc::new(FileCheckpoints::new(on_disk, CHECKPOINTS, beside)),
            storage: Arc::new(RealStorage),
            net: Arc::new(TokioNet),
            tls: None,
            clock: Arc::clone(&clock),
            seeds: Arc::new(OsSeeds),
            gossip,
        };
        let shard = Shard::open(config, parts).await.expect("it opens");
        let address = || "127.0.0.1:1".to_owned();
        let node = Node { raft_address: address(), api_address: address() };
        shard.raft().initialize(BTreeMap::from([(1, node)])).await.expect("it is alone");
        let socket = bind(self.addresses[nth], &rules).await;
        let gossip = self.gossip(nth, &shard, socket, clock);
        publish.send_replace(Some(gossip.clone()));
        Region { clock_off_ms, disk, states, rules, shard, gossip }
    }

    fn gossip(
        &self,
        nth: usize,
        shard: &Shard,
        socket: ShapedUdp,
        clock: Arc<dyn Clock>,
    ) -> Gossip {
        let others = (0..self.names.len()).filter(|other| *other != nth);
        let peers = others.map(|other| PeerRegion {
            region: self.names[other].clone(),
            addresses: vec![self.addresses[other].to_string()],
        });
        let config = GossipConfig {
            cluster: "test".into(),
            region: self.names[nth].clone(),
            node: NodeId(1),
            peers: peers.collect(),
            seed: [nth as u8; 32],
            reset_key: [nth as u8; 32],
            tuning: Tuning::DEFAULT,
        };
        let tls = self.ca.identity(&self.names[nth], &[]).unwrap();
        let environment = Environment {
            socket: Arc::new(socket),
            runtime: Arc::new(quinn::TokioRuntime),
            resolver: Arc::new(SystemResolver),
            clock: Arc::new(move || clock.unix_ms()),
        };
        let served = Served { source: shard.source(), answer: None };
        let shards = BTreeMap::from([(SHARD, served)]);
        Gossip::start(config, &tls, environment, shards).expect("it starts")
    }

    pub fn shard(&self, region: usize) -> Shard {
        self.regions[region].shard.clone()
    }

    pub async fn append(&self, region: usize, stream: &str, payload: &str) {
        let within = Duration::from_secs(5);
        self.shard(region).append(submission(stream, payload), 1, within).await.expect("it leads");
    }

    pub fn cut_off(&self, region: usize) {
        for (nth, other) in self.regions.iter().enumerate().filter(|(nth, _)| *nth != region) {
            self.regions[region].rules.cut(self.addresses[nth], Cut::Both);
            other.rules.cut(self.addresses[region], Cut::Both);
        }
    }

    pub fn heal(&self, region: usize) {
        for (nth, other) in self.regions.iter().enumerate().filter(|(nth, _)| *nth != region) {
            self.regions[region].rules.heal(self.addresses[nth]);
            other.rules.heal(self.addresses[region]);
        }
    }

    /// The two regions never see each other directly again.
    pub fn cut_between(&self, one: usize, other: usize) {
        self.regions[one].rules.cut(self.addresses[other], Cut::Both);
        self.regions[other].rules.cut(self.addresses[one], Cut::Both);
    }

    /// Stops a region in order, and opens it again from what is on its disk.
    pub async fn restart(&mut self, nth: usize) {
        self.restart_without(nth, Derived::Nothing).await;
    }

    /// As [`restart`](Self::restart), with something that is derived deleted in between.
    pub async fn restart_without(&mut self, nth: usize, deleted: Derived) {
        self.restart_after(nth, |disk, states| forget(deleted, disk, states)).await;
    }

    /// A copy of a region's disk as it is now, after a power loss.
    pub fn copy(&self, nth: usize) -> MemoryDisk {
        let copy = self.regions[nth].disk.fork(nth as u64);
        copy.crash();
        copy
    }

    /// Stops a region, sets its disk back to an older copy, and opens it again.
    pub async fn set_back(&mut self, nth: usize, copy: &MemoryDisk) {
        self.restart_after(nth, |disk, states| {
            disk.restore(copy);
            states.clear();
        })
        .await;
    }

    /// From now on a region's wall clock is off by so much.
    pub fn set_clock(&self, nth: usize, off_ms: i64) {
        self.regions[nth].clock_off_ms.store(off_ms, Ordering::Relaxed);
    }

    /// Sessions that one region has opened with another so far.
    pub fn sessions(&self, one: usize, other: usize) -> u64 {
        let links = self.regions[one].gossip.links(SHARD);
        links.iter().find(|link| link.region == self.names[other]).expect("a member").sessions
    }

    async fn restart_after(&mut self, nth: usize, change: impl FnOnce(&MemoryDisk, &MemoryStates)) {
        let region = self.regions.remove(nth);
        region.gossip.shutdown().await;
        region.shard.shutdown().await;
        let Region { clock_off_ms, disk, states, rules, shard, gossip } = region;
        drop((shard, gossip));
        change(&disk, &states);
        let region = self.open(nth, clock_off_ms, disk, states, rules).await;
        ready(&region.shard).await;
        self.regions.insert(nth, region);
    }

    /// Waits until one region holds `events`.
    pub async fn holds(&self, region: usize, events: u64, within: Duration) {
        let deadline = Instant::now() + within;
        let state = self.shard(region).state().clone();
        let mut applied = state.applied();
        while applied.borrow_and_update().position < events {
            let moved = tokio::time::timeout_at(deadline, applied.changed()).await;
            assert!(moved.is_ok(), "held {} of {events}", state.applied().borrow().position);
        }
    }

    /// Waits until every region holds `events`, all final, and requires the same history of all.
    pub async fn converged(&self, events: u64, within: Duration) {
        let deadline = Instant::now() + within;
        for region in &self.regions {
            let mut moved = region.shard.state().order_moved();
            let reached = moved.wait_for(|position| *position >= events);
            if tokio::time::timeout_at(deadline, reached).await.is_err() {
                panic!("not converged: {:#?}", self.explain());
            }
        }
        let views: Vec<_> = self.regions.iter().map(|r| r.shard.state().order()).collect();
        let states: Vec<_> = self.regions.iter().map(|r| r.shard.state()).collect();
        for (view, state) in views.iter().zip(&states) {
            assert_eq!(view.position, events, "exactly as many events as were written");
            assert_eq!(view, &views[0], "the same global order");
            state.region(|region| {
                states[0].region(|first| {
                    assert_eq!(region.frontier(), first.frontier());
                    assert_eq!(region.buckets(), first.buckets(), "the same streams");
                });
            });
        }
    }

    fn explain(&self) -> Vec<String> {
        let explain = |region: &Region| {
            let state = region.shard.state();
            let (frontier, finality) = (state.region(|r| r.frontier().clone()), state.finality());
            let links = region.gossip.links(SHARD);
            format!(
                "holds {frontier:?}, order at {}, waits for {:?}, heard {:?}, links {links:?}, held {:?}",
                state.order().position,
                finality.blocked_by,
                region.shard.heard(),
                region.shard.held(),
            )
        };
        self.regions.iter().map(explain).collect()
    }

    pub async fn stop(self) {
        for region in &self.regions {
            region.gossip.shutdown().await;
            region.shard.shutdown().await;
        }
    }
}

/// Deletes what is derived.
fn forget(deleted: Derived, disk: &MemoryDisk, states: &MemoryStates) {
    if matches!(deleted, Derived::Checkpoints | Derived::Everything) {
        remove_files(disk, CHECKPOINTS);
        states.clear();
    }
    if matches!(deleted, Derived::Index | Derived::Everything) {
        remove_files(disk, "shard-0/index");
    }
}

fn remove_files(disk: &MemoryDisk, folder: &str) {
    let folder = Path::new(folder);
    let files = disk.list(folder).unwrap();
    assert!(!files.is_empty(), "there are files in {} to delete", folder.display());
    files.iter().for_each(|file| disk.remove(&folder.join(file)).unwrap());
}

/// QUIC lets go of the port of an endpoint a moment after it was closed.
async fn bind(address: SocketAddr, rules: &LinkRules) -> ShapedUdp {
    for _ in 0..200 {
        if let Ok(socket) = ShapedUdp::bind(address, rules.clone()) {
            return socket;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{address} stays in use")
}

/// Waits until a shard leads and its log is born.
async fn ready(shard: &Shard) {
    let mut applied = shard.state().applied();
    let born = async {
        while shard.state().region(|region| region.origin().is_none())
            || !shard.raft().leadership().borrow().ready
        {
            let _ = tokio::time::timeout(Duration::from_millis(50), applied.changed()).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), born).await.expect("a lone node leads soon");
}
