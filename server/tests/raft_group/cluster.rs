//! Nodes of one region over loopback, each with a disk in memory that survives its process.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anabranch_core::{Incarnation, NodeId, RegionName, ShardId};
use anabranch_log::disk::MemoryDisk;
use anabranch_log::{Log, LogOptions};
use anabranch_server::env::Net;
use anabranch_server::raft::{
    GroupConfig, Identity, Leadership, MembershipError, Node, ProposeError, Proposed, RaftGroup,
    RaftService, RaftTls, Timings, serve,
};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::cuttable::Cuttable;
use crate::machine::{Tally, Tallying};
use crate::ports::free_address;

pub const SHARD: ShardId = ShardId(0);
/// How long a test waits for something that should happen soon, on a busy machine.
pub const SOON: Duration = Duration::from_secs(20);

/// Fast enough for a test, slow enough for a busy machine.
pub const TIMINGS: Timings = Timings {
    heartbeat: Duration::from_millis(100),
    election_min: Duration::from_millis(500),
    election_max: Duration::from_millis(1000),
};

/// A node: what stays (address, disk, checkpoint), and what runs.
pub struct TestNode {
    pub id: u64,
    pub region: RegionName,
    pub address: String,
    pub disk: MemoryDisk,
    pub tally: Arc<Mutex<Tally>>,
    pub tls: Option<RaftTls>,
    pub net: Cuttable,
    /// Bytes that may wait for the disk.
    pub queue_bytes: usize,
    /// The region's life, once its folder knows it.
    pub incarnation: Option<Incarnation>,
    running: Option<Running>,
}

struct Running {
    group: RaftGroup,
    log: Log,
    server: JoinHandle<()>,
}

impl TestNode {
    pub fn new(id: u64) -> Self {
        Self {
            id,
            region: RegionName::new("eu").unwrap(),
            address: free_address().to_string(),
            disk: MemoryDisk::new(id),
            tally: Arc::default(),
            tls: None,
            net: Cuttable::new(),
            queue_bytes: 1024 * 1024,
            incarnation: None,
            running: None,
        }
    }

    pub fn node(&self) -> Node {
        let raft_address = self.address.clone();
        Node { raft_address, api_address: format!("api-{}:1", self.id) }
    }

    pub fn group(&self) -> &RaftGroup {
        &self.running.as_ref().expect("the node runs").group
    }
    pub fn log(&self) -> &Log {
        &self.running.as_ref().expect("the node runs").log
    }
    pub fn runs(&self) -> bool {
        self.running.is_some()
    }

    pub async fn start(&mut self) {
        let listener = self.net.listen(&self.address).await.unwrap();
        let options = LogOptions {
            segment_bytes: 64 * 1024,
            queue_bytes: self.queue_bytes,
            reserve_bytes: 4096,
            ..LogOptions::new([7; 16])
        };
        let disk = Arc::new(self.disk.clone());
        let (log, writer, _) = Log::open(disk, Path::new("shard-0"), options).unwrap();
        writer.spawn_thread().unwrap();
        let identity = Arc::new(Identity::new(self.region.clone(), NodeId(self.id)));
        if let Some(incarnation) = self.incarnation {
            identity.learn(incarnation);
        }
        let service = RaftService::new(Arc::clone(&identity));
        let config = GroupConfig { identity, shard: SHARD, timings: TIMINGS, seed: self.id };
        let machine = Tallying::open(&self.tally);
        let net = Arc::new(self.net.clone());
        let group = RaftGroup::start(config, log.clone(), machine, net, self.tls.clone());
        let group = group.await.unwrap();
        service.mount(&group);
        let tls = self.tls.clone();
        let server = tokio::spawn(async move {
            let never = std::future::pending();
            serve(listener, service, tls.as_ref(), never).await.unwrap();
        });
        self.running = Some(Running { group, log, server });
    }

    /// The process ends in an orderly way.
    pub async fn stop(&mut self) {
        let Running { group, log, server } = self.running.take().expect("the node runs");
        unlisten(server).await;
        group.shutdown().await;
        assert_eq!(*group.fatal().borrow(), None, "an orderly end is no failure");
        log.close();
    }

    /// The process ends after its shard stopped by itself.
    pub async fn stop_failed(&mut self) {
        let Running { group, log, server } = self.running.take().expect("the node runs");
        unlisten(server).await;
        group.shutdown().await;
        log.close();
    }

    /// Comes back with an empty disk, under its old id.
    pub async fn lose_disk(&mut self) {
        self.stop().await;
        self.disk = MemoryDisk::new(self.id);
        (self.tally, self.incarnation) = (Arc::default(), None);
        self.start().await;
    }

    /// Why it stopped by itself, once it has.
    pub async fn stopped_because(&self) -> String {
        let mut fatal = self.group().fatal();
        let raised = timeout(SOON, fatal.wait_for(Option::is_some)).await;
        raised.expect("it stops soon").expect("the group is there").clone().expect("waited for")
    }

    /// The power fails: what was not synced is lost.
    pub async fn crash(&mut self) {
        self.disk.crash();
        self.stop_failed().await;
    }
}

/// Ends a server. Its address is free when this returns.
async fn unlisten(server: JoinHandle<()>) {
    server.abort();
    drop(server.await);
}

/// The nodes of a test.
pub struct Cluster {
    pub nodes: BTreeMap<u64, TestNode>,
}

impl Cluster {
    /// Starts `count` nodes as voters, and waits until one leads.
    pub async fn start(count: u64) -> Self {
        let mut cluster = Self::stopped(count).await;
        cluster.begin().await;
        cluster
    }

    /// Nodes that do not run yet.
    pub async fn stopped(count: u64) -> Self {
        let mut nodes = BTreeMap::new();
        for id in 1..=count {
            nodes.insert(id, TestNode::new(id));
        }
        Self { nodes }
    }

    /// Starts all nodes, as voters of a fresh group.
    pub async fn begin(&mut self) {
        for node in self.nodes.values_mut() {
            node.start().await;
        }
        let members = self.members();
        self.nodes[&1].group().initialize(members).await.unwrap();
        self.leader().await;
    }

    /// The region is born: every node knows its life.
    pub fn bear(&mut self, incarnation: Incarnation) {
        for node in self.nodes.values_mut() {
            node.incarnation = Some(incarnation);
            node.group().identity().learn(incarnation);
        }
    }

    pub fn members(&self) -> BTreeMap<u64, Node> {
        self.nodes.iter().map(|(id, node)| (*id, node.node())).collect()
    }

    /// Node 1, alone and leading, asks `stranger`, node 2, in: it never catches up, and learns
    /// nothing.
    pub async fn keeps_out(&mut self, stranger: TestNode) {
        self.nodes.insert(2, stranger);
        let members = self.members();
        let group = self.nodes[&1].group();
        let refused = group.change_membership(members, Duration::from_secs(2)).await.unwrap_err();
        assert!(matches!(refused, MembershipError::Behind { .. }), "{refused:?}");
        assert_eq!(self.nodes[&2].tally.lock().index, 0, "nothing reached it");
    }

    pub fn node(&mut self, id: u64) -> &mut TestNode {
        self.nodes.get_mut(&id).expect("there is such a node")
    }

    /// Waits until a running node leads and is ready.
    pub async fn leader(&self) -> u64 {
        let ready = async {
            loop {
                let running = self.nodes.values().filter(|node| node.runs());
                let leads = |node: &&TestNode| node.group().leadership().borrow().ready;
                if let Some(node) = running.into_iter().find(leads) {
                    return node.id;
                }
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(SOON, ready).await.expect("a leader is elected soon")
    }

    /// A running node that does not lead.
    pub async fn follower(&self) -> u64 {
        let leader = self.leader().await;
        let mut others = self.nodes.values().filter(|node| node.runs() && node.id != leader);
        others.next().expect("there is another node").id
    }

    /// Proposes on whoever leads until it is acknowledged. An unknown outcome is not retried.
    pub async fn write(&self, payload: impl Into<Bytes>) -> Result<Proposed, ProposeError> {
        let payload = payload.into();
        let give_up = Instant::now() + SOON;
        loop {
            let leader = self.leader().await;
            match self.nodes[&leader].group().propose(payload.clone()).await {
                Err(error) if error.refused() && Instant::now() < give_up => {
                    sleep(Duration::from_millis(20)).await;
                }
                other => return other,
            }
        }
    }

    /// Waits until every running node has applied what `reference` has, and compares.
    pub async fn converge(&self) {
        let reference = self.write("marker").await.unwrap().index;
        for node in self.nodes.values().filter(|node| node.runs()) {
            node.wait_applied(reference).await;
        }
        let mut tallies = self.nodes.values().filter(|node| node.runs());
        let first = tallies.next().expect("a node runs").tally.lock().applied.clone();
        for node in tallies {
            assert_eq!(node.tally.lock().applied, first, "node {} differs", node.id);
        }
    }
}

impl TestNode {
    pub async fn wait_applied(&self, index: u64) {
        eventually(&format!("node {} applies {index}", self.id), || {
            self.tally.lock().index >= index
        })
        .await;
    }
    pub async fn wait_leadership(&self, wanted: impl FnMut(&Leadership) -> bool) -> Leadership {
        let mut leadership = self.group().leadership();
        let seen = timeout(SOON, leadership.wait_for(wanted)).await;
        seen.expect("leadership becomes so soon").expect("the group runs").clone()
    }
}

/// Polls until `happened`, and fails the test if it does not happen soon.
pub async fn eventually(what: &str, mut happened: impl FnMut() -> bool) {
    let polled = async {
        while !happened() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, polled).await.unwrap_or_else(|_| panic!("not soon: {what}"));
}
