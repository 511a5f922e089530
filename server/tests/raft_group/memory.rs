//! Nodes that forgot what they promised have no say, and say so.

use anabranch_core::Incarnation;
use tokio::time::timeout;

use crate::cluster::{Cluster, SOON};

async fn born() -> Cluster {
    let mut cluster = Cluster::start(3).await;
    cluster.write("before").await.unwrap();
    cluster.converge().await;
    cluster.bear(Incarnation(7));
    cluster
}

/// Two nodes acknowledge; then one is down, the other's disk is lost, and the third would lead
/// without what was acknowledged, if the empty one voted for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lost_its_disk_helps_nobody_to_lead() {
    let mut cluster = born().await;
    let leader = cluster.leader().await;
    let lags = cluster.follower().await;
    let loses = (1..=3).find(|id| ![leader, lags].contains(id)).unwrap();
    cluster.node(lags).stop().await;
    cluster.write("acknowledged by the other two").await.unwrap();
    cluster.node(leader).crash().await;
    cluster.node(loses).lose_disk().await;
    cluster.node(lags).start().await;

    let why = cluster.nodes[&loses].stopped_because().await;
    assert!(why.contains("its disk was lost"), "{why}");
    assert!(!cluster.nodes[&lags].group().leadership().borrow().mine, "nobody voted for it");
    cluster.node(loses).stop_failed().await;
    cluster.node(leader).start().await;
    cluster.converge().await;
    let payloads = cluster.nodes[&lags].tally.lock().payloads();
    assert!(payloads.iter().any(|payload| payload.starts_with(b"acknowledged")), "{payloads:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_gives_nothing_to_a_voter_that_lost_its_disk() {
    let mut cluster = born().await;
    let loses = cluster.follower().await;
    cluster.node(loses).lose_disk().await;
    let why = cluster.nodes[&loses].stopped_because().await;
    assert!(why.contains("its disk was lost"), "{why}");
    assert_eq!(cluster.nodes[&loses].log().last(), None, "it took nothing");
    cluster.node(loses).stop_failed().await;
    cluster.write("the others go on").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_set_back_is_told_so() {
    let mut cluster = born().await;
    let set_back = cluster.follower().await;
    let older = cluster.nodes[&set_back].disk.fork(0);
    cluster.write("after the copy").await.unwrap();
    cluster.converge().await;
    let node = cluster.node(set_back);
    node.stop().await;
    node.disk.restore(&older);
    node.start().await;
    let why = cluster.nodes[&set_back].stopped_because().await;
    assert!(why.contains("set back to an older copy"), "{why}");
    cluster.node(set_back).stop_failed().await;
    cluster.write("the others go on").await.unwrap();
}

/// Its first members are all there before a region is born; until then an empty log is no loss.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn voters_are_there_once_each_of_them_has_answered() {
    let mut cluster = Cluster::stopped(3).await;
    for id in [1, 2] {
        cluster.node(id).start().await;
    }
    let members = cluster.members();
    cluster.nodes[&1].group().initialize(members).await.unwrap();
    let leader = cluster.leader().await;
    let group = cluster.nodes[&leader].group().clone();
    let (said, mut waits_for) = tokio::sync::mpsc::unbounded_channel();
    let there = tokio::spawn(async move {
        group.voters_are_there(|nodes| said.send(nodes.to_vec()).unwrap()).await;
    });
    let waits = async { while waits_for.recv().await.expect("it waits") != [3] {} };
    timeout(SOON, waits).await.expect("it waits for the third");
    assert!(!there.is_finished());
    cluster.node(3).start().await;
    timeout(SOON, there).await.expect("all are there").unwrap();
}
