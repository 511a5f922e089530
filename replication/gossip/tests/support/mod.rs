//! Regions in one process: real QUIC over real sockets, logs in memory.

#![allow(dead_code, reason = "every test file uses a part of it")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anabranch_core::{Context, Digest, Group, NodeId, Origin, RegionName, Seq, ShardId, Stamp};
use anabranch_gossip::{
    Answer, BoxFuture, ClockAnswer, ClockTrust, DevCa, Environment, Gossip, GossipConfig,
    LinkRules, LinkStatus, OfferError, PeerRegion, Served, ShapedUdp, Sink, Source, SourceError,
    SystemResolver, Tuning,
};
use tokio::sync::watch;
use tokio::time::Instant;

#[path = "../../src/session/testing.rs"]
#[allow(dead_code)]
pub mod history;
pub use history::{group_after, origin};

pub mod noise;
mod oracle;
pub use oracle::*;

pub const SHARD: ShardId = ShardId(0);

pub fn region(name: &str) -> RegionName {
    RegionName::new(name).unwrap()
}

/// A region's log in memory, source and sink at once. Refuses what breaks the contract.
pub struct Log {
    own: Origin,
    held: Mutex<BTreeMap<Origin, Vec<Group>>>,
    heard: Mutex<BTreeMap<Origin, Digest>>,
    changed: watch::Sender<u64>,
    /// What it thinks of its own clock.
    pub trust: Mutex<ClockTrust>,
    /// What the nodes of other regions said their time is.
    pub clocks: Mutex<BTreeMap<RegionName, Vec<ClockAnswer>>>,
    /// While true, offers wait.
    pub stalled: watch::Sender<bool>,
    /// Bytes that were read to be sent.
    pub bytes_read: AtomicUsize,
    /// Offers that were taken.
    pub offers: AtomicUsize,
    /// The group that holds this number is handed out altered, whosever it is.
    pub alter: Mutex<Option<Seq>>,
    /// Origins that the importer holds.
    pub holds: Mutex<Option<Origin>>,
    /// Answers questions.
    pub oracle: Arc<Oracle>,
}

impl Log {
    pub fn new(name: &str) -> Arc<Self> {
        Arc::new(Self {
            own: origin(name),
            held: Default::default(),
            heard: Default::default(),
            changed: watch::Sender::new(0),
            trust: Mutex::new(ClockTrust::Unproven),
            clocks: Default::default(),
            stalled: watch::Sender::new(false),
            bytes_read: AtomicUsize::new(0),
            offers: AtomicUsize::new(0),
            alter: Mutex::new(None),
            holds: Mutex::new(None),
            oracle: Oracle::new(),
        })
    }

    /// Appends events of the region's own.
    pub fn append(&self, groups: usize, events: u32) {
        for _ in 0..groups {
            let mut held = self.held.lock().unwrap();
            let own = held.entry(self.own.clone()).or_default();
            own.push(group_after(&self.own, own.last(), events));
        }
        self.changed.send_modify(|version| *version += 1);
    }

    pub fn append_groups(&self, groups: Vec<Group>) {
        self.held.lock().unwrap().entry(self.own.clone()).or_default().extend(groups);
        self.changed.send_modify(|version| *version += 1);
    }

    pub fn groups(&self, origin: &Origin) -> Vec<Group> {
        self.held.lock().unwrap().get(origin).cloned().unwrap_or_default()
    }

    pub fn seq(&self, origin: &Origin) -> u64 {
        let held = self.held.lock().unwrap();
        held.get(origin).and_then(|groups| groups.last()).map_or(0, |group| group.last().0)
    }

    fn frontier(&self) -> Context {
        let held = self.held.lock().unwrap();
        held.iter().filter_map(|(o, groups)| Some((o.clone(), groups.last()?.last()))).collect()
    }
}

impl Source for Log {
    fn origin(&self) -> Option<Origin> {
        Some(self.own.clone())
    }
    fn digests(&self) -> Vec<Digest> {
        let frontier = self.frontier();
        let stamp = Stamp(frontier.events());
        let mut digests = vec![Digest { origin: self.own.clone(), stamp, frontier }];
        digests.extend(self.heard.lock().unwrap().values().cloned());
        digests
    }
    fn read_origin(
        &self,
        origin: &Origin,
        from: Seq,
        max_bytes: usize,
    ) -> Result<Vec<Group>, SourceError> {
        let held = self.held.lock().unwrap();
        let Some(groups) = held.get(origin) else { return Ok(Vec::new()) };
        let start = groups.partition_point(|group| group.last() < from);
        let mut bytes = 0;
        let fits = |group: &&Group| {
            bytes += group.encoded().len();
            bytes <= max_bytes || bytes == group.encoded().len()
        };
        let mut read: Vec<Group> = groups[start..].iter().take_while(fits).cloned().collect();
        let sum: usize = read.iter().map(|group| group.encoded().len()).sum();
        self.bytes_read.fetch_add(sum, Ordering::Relaxed);
        if let Some(seq) = *self.alter.lock().unwrap() {
            let holds = |group: &&mut Group| group.first() <= seq && seq <= group.last();
            read.iter_mut().filter(holds).for_each(alter);
        }
        Ok(read)
    }
    fn clock_trust(&self, _unix_ms: u64) -> ClockTrust {
        *self.trust.lock().unwrap()
    }
    fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

/// Flips a bit in the last event's payload, as a bad disk or a forger would.
fn alter(group: &mut Group) {
    let mut bytes = group.encoded().to_vec();
    let at = bytes.len() - 20;
    bytes[at] ^= 1;
    *group = Group::decode_trusted(bytes.into()).unwrap();
}

impl Sink for Log {
    fn next_wanted(&self, origin: &Origin) -> Seq {
        Seq(self.seq(origin) + 1)
    }
    fn offer(&self, via: &RegionName, groups: Vec<Group>) -> BoxFuture<'_, Result<(), OfferError>> {
        let via = via.clone();
        Box::pin(async move {
            self.stalled.subscribe().wait_for(|stalled| !stalled).await.unwrap();
            let origin = groups[0].origin().clone();
            if self.holds.lock().unwrap().as_ref() == Some(&origin) {
                return Err(OfferError::Held { origin, reason: "a test says so".into() });
            }
            let mut held = self.held.lock().unwrap();
            let log = held.entry(origin.clone()).or_default();
            for group in groups {
                let next = log.last().map_or(Seq(1), |last| last.last().next());
                assert_eq!((group.first(), group.origin()), (next, &origin), "offered by {via}");
                log.push(group);
            }
            drop(held);
            self.offers.fetch_add(1, Ordering::Relaxed);
            self.changed.send_modify(|version| *version += 1);
            Ok(())
        })
    }
    fn offer_digest(&self, _: &RegionName, digest: Digest) {
        self.heard.lock().unwrap().insert(digest.origin.clone(), digest);
    }
    fn hear_clock(&self, via: &RegionName, answer: ClockAnswer) {
        self.clocks.lock().unwrap().entry(via.clone()).or_default().push(answer);
    }
}

/// A region with one node.
pub struct Region {
    pub log: Arc<Log>,
    pub gossip: Gossip,
    pub rules: LinkRules,
    pub address: SocketAddr,
}

impl Region {
    pub fn link(&self, name: &str) -> LinkStatus {
        let links = self.gossip.links(SHARD);
        links.into_iter().find(|link| link.region.as_str() == name).unwrap()
    }

    /// Cuts the cable between two regions, both ways.
    pub fn cut(&self, other: &Region) {
        self.rules.cut(other.address, anabranch_gossip::Cut::Both);
        other.rules.cut(self.address, anabranch_gossip::Cut::Both);
    }

    pub fn heal(&self, other: &Region) {
        self.rules.heal(other.address);
        other.rules.heal(self.address);
    }

    pub fn lead(&self) {
        self.gossip.pull(SHARD, Some(self.log.clone()));
    }
}

/// What a region is started from.
pub struct Plan<'a> {
    pub ca: &'a DevCa,
    pub name: &'a str,
    /// A region named twice has two addresses.
    pub peers: Vec<(&'a str, SocketAddr)>,
    pub clock_ahead_ms: u64,
}

pub fn socket(rules: &LinkRules, address: SocketAddr) -> Arc<ShapedUdp> {
    Arc::new(ShapedUdp::bind(address, rules.clone()).unwrap())
}

pub fn anywhere() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// Times and bounds of tests.
pub fn tuning() -> Tuning {
    Tuning { silence: Duration::from_millis(1_500), ..Tuning::DEFAULT }
}

pub fn start(plan: Plan<'_>, log: Arc<Log>, rules: LinkRules, socket: Arc<ShapedUdp>) -> Region {
    start_with(plan, log, rules, socket, tuning())
}

pub fn start_with(
    plan: Plan<'_>,
    log: Arc<Log>,
    rules: LinkRules,
    socket: Arc<ShapedUdp>,
    tuning: Tuning,
) -> Region {
    let name = region(plan.name);
    let mut peers: Vec<PeerRegion> = Vec::new();
    for (name, address) in &plan.peers {
        match peers.iter_mut().find(|peer| peer.region.as_str() == *name) {
            Some(peer) => peer.addresses.push(address.to_string()),
            None => {
                let addresses = vec![address.to_string()];
                peers.push(PeerRegion { region: region(name), addresses });
            }
        }
    }
    let config = GossipConfig {
        cluster: "test".into(),
        region: name.clone(),
        node: NodeId(1),
        peers,
        seed: [7; 32],
        reset_key: [8; 32],
        tuning,
    };
    let tls = plan.ca.identity(&name, &[]).unwrap();
    let (began, ahead) = (Instant::now(), plan.clock_ahead_ms);
    let address = quinn::AsyncUdpSocket::local_addr(&*socket).unwrap();
    let environment = Environment {
        socket,
        runtime: Arc::new(quinn::TokioRuntime),
        resolver: Arc::new(SystemResolver),
        clock: Arc::new(move || 1_800_000_000_000 + ahead + began.elapsed().as_millis() as u64),
    };
    let source: Arc<dyn Source> = log.clone();
    let answer: Arc<dyn Answer> = log.oracle.clone();
    let shards = BTreeMap::from([(SHARD, Served { source, answer: Some(answer) })]);
    let gossip = Gossip::start(config, &tls, environment, shards).unwrap();
    Region { log, gossip, rules, address }
}

/// Regions that all know each other.
pub fn regions(names: &[&str]) -> Vec<Region> {
    regions_with(names, |_| tuning())
}

/// As [`regions`], each with times and bounds of its own.
pub fn regions_with(names: &[&str], tuning: impl Fn(&str) -> Tuning) -> Vec<Region> {
    let ca = DevCa::generate().unwrap();
    let bound: Vec<_> = names
        .iter()
        .map(|name| {
            let rules = LinkRules::new();
            let socket = socket(&rules, anywhere());
            (*name, rules, quinn::AsyncUdpSocket::local_addr(&*socket).unwrap(), socket)
        })
        .collect();
    let addresses: Vec<_> = bound.iter().map(|(name, _, address, _)| (*name, *address)).collect();
    bound
        .into_iter()
        .enumerate()
        .map(|(nth, (name, rules, _, socket))| {
            let peers = addresses.iter().copied().filter(|(peer, _)| *peer != name).collect();
            let plan = Plan { ca: &ca, name, peers, clock_ahead_ms: 250 * nth as u64 };
            start_with(plan, Log::new(name), rules, socket, tuning(name))
        })
        .collect()
}

/// Waits until `condition` holds; fails the test if it does not within `limit`.
pub async fn eventually(
    limit: Duration,
    what: &str,
    mut condition: impl FnMut() -> bool,
) -> Duration {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    began.elapsed()
}
