//! Nodes of one region in one process, on real sockets.

mod full;
mod health;
mod members;
#[path = "../support/ports.rs"]
mod ports;
mod race;
mod routes;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anabranch_client::{Client, event};
use anabranch_core::RegionName;
use anabranch_gossip::DevCa;
use anabranch_log::Writer;
use anabranch_log::derived::{Checkpoints, OpenError, Opened};
use anabranch_log::disk::{Disk, MemoryDisk};
use anabranch_server::config::{Config, Member, Span, Tls};
use anabranch_server::env::{RealStorage, Storage};
use anabranch_server::identity::FolderError;
use anabranch_server::node::{Environment, Node, StartError};
use ports::free_address;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

/// How long a test waits for what should happen soon, on a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// Configurations of `count` nodes of region `eu`, in a folder of their own.
fn region(count: u64) -> (TempDir, Vec<Config>) {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = (dir.path().join("eu.pem"), dir.path().join("eu-key.pem"));
    let ca = DevCa::load_or_generate(dir.path()).unwrap();
    let issued = ca.issue(&RegionName::new("eu").unwrap(), &[]).unwrap();
    issued.write(&cert, &key).unwrap();
    let tls = Tls { ca: dir.path().join("ca.pem"), cert, key, ..Tls::default() };
    let nodes: Vec<_> = (1..=count).map(member).collect();
    let config = |node: u64| Config {
        cluster: "test".into(),
        region: "eu".into(),
        node,
        data_dir: dir.path().join(format!("node-{node}")),
        tls: tls.clone(),
        nodes: nodes.clone(),
        ..Config::default()
    };
    let configs = (1..=count).map(config).collect();
    (dir, configs)
}

/// A node at ports of its own.
fn member(id: u64) -> Member {
    let [api, raft, gossip] = std::array::from_fn(|_| free_address().to_string());
    Member { id, api, raft, gossip }
}

async fn start(config: &Config) -> Node {
    try_start(config).await.unwrap()
}
async fn start_all(configs: &[Config]) -> Vec<Option<Node>> {
    let mut nodes = Vec::new();
    for config in configs {
        nodes.push(Some(start(config).await));
    }
    nodes
}
async fn try_start(config: &Config) -> Result<Node, StartError> {
    Node::start(config.clone().validate().unwrap(), Environment::system()).await
}

fn client(configs: &[Config]) -> Client {
    let addresses = configs[0].nodes.iter().map(|node| format!("http://{}", node.api));
    Client::builder().region("eu", addresses).timeout(SOON).build().unwrap()
}

/// The node that leads, waiting until one does.
async fn leader(nodes: &[Option<Node>]) -> usize {
    let leads =
        |node: &Node| node.shards().values().all(|shard| shard.raft().leadership().borrow().ready);
    let found = async {
        loop {
            if let Some(at) = nodes.iter().position(|node| node.as_ref().is_some_and(leads)) {
                return at;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, found).await.expect("a leader soon")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_leader_hands_over_and_comes_back_with_everything() {
    let (_dir, mut configs) = region(3);
    // Nobody stands for election by itself within this test: a new leader was made by the old one.
    for config in &mut configs {
        config.raft.election_min = Span::millis(30_000);
        config.raft.election_max = Span::millis(60_000);
    }
    let mut nodes = start_all(&configs).await;
    let client = client(&configs);
    client.append("s-1", event("Before")).await.unwrap();

    let first = leader(&nodes).await;
    let drained = nodes[first].take().unwrap();
    drained.drain().await;
    let second = timeout(Duration::from_secs(20), leader(&nodes)).await;
    assert_ne!(second.expect("handed over, not waited out"), first);
    client.append("s-1", event("Meanwhile")).await.unwrap();

    drained.drain().await;
    drop(drained);
    nodes[first] = Some(start(&configs[first]).await);
    let damaged = configs[first].data_dir.join("states.damaged-1");
    assert!(!damaged.exists(), "nothing of the former life held on to the states");
    let back = nodes[first].as_ref().unwrap();
    let events = |node: &Node| {
        node.shards().values().map(|shard| shard.state().region(|r| r.position())).sum::<u64>()
    };
    let caught_up = async {
        while events(back) < 2 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, caught_up).await.expect("the drained node catches up");
    for node in nodes.iter().flatten() {
        node.drain().await;
    }
}

/// Log and identity on a disk in memory, everything else as in production.
struct OnMemory(MemoryDisk);

impl Storage for OnMemory {
    fn disk(&self, _: &Path) -> Arc<dyn Disk> {
        Arc::new(self.0.clone())
    }
    fn checkpoints(&self, data_dir: &Path) -> Result<(Arc<dyn Checkpoints>, Opened), OpenError> {
        RealStorage.checkpoints(data_dir)
    }
    fn drive(&self, writer: Writer) -> io::Result<()> {
        RealStorage.drive(writer)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_disk_fails_says_so() {
    let (_dir, configs) = region(1);
    let disk = MemoryDisk::new(1);
    let storage = Arc::new(OnMemory(disk.clone()));
    let environment = Environment { storage, ..Environment::system() };
    let node = Node::start(configs[0].clone().validate().unwrap(), environment).await.unwrap();
    let client = client(&configs);
    client.append("s-1", event("Written")).await.unwrap();
    disk.fail_sync(1);
    let lost = client.append("s-1", event("Lost")).timeout(Duration::from_secs(2)).await;
    assert!(lost.unwrap_err().is_unknown(), "nobody can know what a failed sync left");
    let reason = timeout(SOON, node.failed()).await.expect("the failure is reported");
    assert!(reason.starts_with("shard 0 stopped: "), "{reason}");
    timeout(SOON, node.drain()).await.expect("a failed node still stops");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_whose_log_is_gone_or_of_another_life_is_refused() {
    let (_dir, configs) = region(1);
    let config = &configs[0];
    let node = start(config).await;
    client(&configs).append("s-1", event("Written")).await.unwrap();
    node.drain().await;
    drop(node);

    let identity = config.data_dir.join("identity.toml");
    let ours = std::fs::read_to_string(&identity).unwrap();
    let (before, digits) = ours.split_once("incarnation = \"").expect("the birth was recorded");
    let theirs = format!("{before}incarnation = \"{}{}", "0".repeat(32), &digits[32..]);
    std::fs::write(&identity, theirs).unwrap();
    let refused = try_start(config).await.map(|_| ()).unwrap_err();
    let mixed = matches!(refused, StartError::Folder(FolderError::Incarnation { .. }));
    assert!(mixed, "{refused:?}");

    std::fs::write(&identity, &ours).unwrap();
    let log = config.data_dir.join("shard-0");
    std::fs::rename(&log, config.data_dir.join("elsewhere")).unwrap();
    let refused = try_start(config).await.map(|_| ()).unwrap_err();
    assert!(matches!(refused, StartError::Folder(FolderError::LogLost { .. })), "{refused:?}");

    std::fs::remove_dir_all(&log).unwrap();
    std::fs::rename(config.data_dir.join("elsewhere"), &log).unwrap();
    let node = start(config).await;
    node.drain().await;
}
