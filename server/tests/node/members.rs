//! A region changes its nodes while it takes writes and others pull from it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anabranch_client::{Client, event};
use anabranch_core::{RegionName, ShardId};
use anabranch_gossip::DevCa;
use anabranch_server::config::{Config, Member, Peer, Tls};
use anabranch_server::node::Node;
use anabranch_server::raft;
use anabranch_server::shard::Shard;
use tokio::time::{sleep, timeout};

use super::{SOON, leader, member, start, start_all};

/// Configurations of the nodes of one region.
fn configs(dir: &Path, ca: &DevCa, region: &str, nodes: &[Member], others: &[Peer]) -> Vec<Config> {
    let (cert, key) = (dir.join(format!("{region}.pem")), dir.join(format!("{region}-key.pem")));
    ca.issue(&RegionName::new(region).unwrap(), &[]).unwrap().write(&cert, &key).unwrap();
    let tls = Tls { ca: dir.join("ca.pem"), cert, key, ..Tls::default() };
    let config = |node: &Member| Config {
        cluster: "test".into(),
        region: region.into(),
        node: node.id,
        data_dir: dir.join(format!("{region}-{}", node.id)),
        tls: tls.clone(),
        nodes: nodes.to_vec(),
        regions: others.to_vec(),
        ..Config::default()
    };
    nodes.iter().map(config).collect()
}

fn peer(name: &str, nodes: &[Member]) -> Peer {
    Peer { name: name.into(), gossip: nodes.iter().map(|node| node.gossip.clone()).collect() }
}

fn client(region: &str, nodes: &[Member]) -> Client {
    let addresses = nodes.iter().map(|node| format!("http://{}", node.api));
    Client::builder().region(region, addresses).timeout(SOON).build().unwrap()
}

fn shard(node: &Node) -> Shard {
    node.shards()[&ShardId(0)].clone()
}

fn voters(nodes: &[Member], without: Option<u64>) -> BTreeMap<u64, raft::Node> {
    let stays = nodes.iter().filter(|node| Some(node.id) != without);
    let voter = |node: &Member| {
        let (raft_address, api_address) = (node.raft.clone(), node.api.clone());
        (node.id, raft::Node { raft_address, api_address })
    };
    stays.map(voter).collect()
}

/// Appends until told to stop, and says how many were acknowledged. The client retries by itself.
async fn write(client: Client, stream: &'static str, over: Arc<AtomicBool>) -> u64 {
    let mut acknowledged = 0;
    while !over.load(Ordering::Relaxed) {
        client.append(stream, event("Happened")).await.expect("acknowledged in the end");
        acknowledged += 1;
        sleep(Duration::from_millis(2)).await;
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_node_joins_and_the_leader_leaves_under_writes_and_nothing_is_lost_or_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let ca = DevCa::load_or_generate(dir.path()).unwrap();
    let eu: Vec<_> = (1..=4).map(member).collect();
    let us = vec![member(1)];
    let mut in_eu = configs(dir.path(), &ca, "eu", &eu, &[peer("us", &us)]);
    in_eu.iter_mut().for_each(|config| config.bootstrap = vec![1, 2, 3]);
    in_eu[3].join = true;
    let in_us = configs(dir.path(), &ca, "us", &us, &[peer("eu", &eu)]);
    let mut nodes = start_all(&in_eu[..3]).await;
    let abroad = start(&in_us[0]).await;
    leader(&nodes).await;

    let over = Arc::new(AtomicBool::new(false));
    let at_home = tokio::spawn(write(client("eu", &eu[..3]), "s-1", Arc::clone(&over)));
    let elsewhere = tokio::spawn(write(client("us", &us), "s-1", Arc::clone(&over)));
    sleep(Duration::from_millis(500)).await;
    nodes.push(Some(start(&in_eu[3]).await));
    let first = leader(&nodes).await;
    let group = shard(nodes[first].as_ref().unwrap()).raft().clone();
    group.change_membership(voters(&eu, None), SOON).await.expect("the fourth joins");
    sleep(Duration::from_millis(300)).await;
    let first = leader(&nodes).await;
    let group = shard(nodes[first].as_ref().unwrap()).raft().clone();
    group.change_membership(voters(&eu, Some(eu[first].id)), SOON).await.expect("it leaves");
    nodes[first].take().unwrap().drain().await;
    leader(&nodes).await;
    sleep(Duration::from_millis(500)).await;
    over.store(true, Ordering::Relaxed);
    let written = at_home.await.unwrap() + elsewhere.await.unwrap();

    let all: Vec<_> = nodes.iter().flatten().chain([&abroad]).map(shard).collect();
    for shard in &all {
        let mut moved = shard.state().order_moved();
        let reached = timeout(SOON, moved.wait_for(|position| *position >= written)).await;
        assert!(reached.is_ok(), "order at {:?} of {written}", shard.state().order());
    }
    for shard in &all {
        assert_eq!(shard.state().order(), all[0].state().order(), "the same global order");
        let held = shard.state().region(|region| region.position());
        assert_eq!(held, written, "every acknowledged event once");
    }
    for node in nodes.iter().flatten().chain([&abroad]) {
        node.drain().await;
    }
}
