//! Nodes whose disks are full for a while.

use std::time::Duration;

use anabranch_log::Room;
use tokio::time::{sleep, timeout};

use super::cluster::{Cluster, SOON, eventually};
use super::text;

impl Cluster {
    /// Fills a node's disk, and writes until the node's log has used up its reserve, too.
    async fn fill(&self, id: u64) -> usize {
        let node = &self.nodes[&id];
        node.disk.set_capacity(Some(node.disk.used()));
        for n in 0.. {
            if node.log().room() == Room::None {
                return n;
            }
            self.write(text(n)).await.expect("the others have room");
        }
        unreachable!("a full disk is noticed")
    }

    async fn free(&self, id: u64) {
        let node = &self.nodes[&id];
        node.disk.set_capacity(None);
        node.log().restore_reserve();
        eventually("there is room again", || node.log().room() == Room::Ok).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_without_room_waits_and_goes_on_without_a_restart() {
    let cluster = Cluster::start(3).await;
    let follower = cluster.follower().await;
    cluster.fill(follower).await;
    for n in 0..200 {
        cluster.write(text(n)).await.expect("two of three have room");
    }
    let durable = cluster.nodes[&follower].log().durable_index();
    cluster.free(follower).await;
    cluster.converge().await;
    assert!(durable < cluster.nodes[&follower].log().durable_index());
    assert_eq!(*cluster.nodes[&follower].group().fatal().borrow(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_room_commits_on_the_others_and_goes_on_without_a_restart() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    cluster.fill(leader).await;
    cluster.write("past its disk").await.expect("two of three have room");
    cluster.free(leader).await;
    cluster.converge().await;
    assert_eq!(*cluster.nodes[&leader].group().fatal().borrow(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_fills_up_behind_a_full_disk_stops_nothing() {
    let mut cluster = Cluster::stopped(3).await;
    for node in cluster.nodes.values_mut() {
        node.queue_bytes = 8 * 1024;
    }
    cluster.begin().await;
    let follower = cluster.follower().await;
    cluster.fill(follower).await;
    let big = vec![b'.'; 3000];
    for _ in 0..50 {
        cluster.write(big.clone()).await.expect("two of three have room");
    }
    cluster.free(follower).await;
    cluster.converge().await;
    assert_eq!(*cluster.nodes[&follower].group().fatal().borrow(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vote_waits_for_room_and_the_node_follows_the_new_leader_then() {
    let mut cluster = Cluster::start(3).await;
    let (old, follower) = (cluster.leader().await, cluster.follower().await);
    cluster.fill(follower).await;
    // The third has all that is committed, but needs the vote of the one without room.
    cluster.node(old).stop().await;
    sleep(Duration::from_millis(2000)).await;
    cluster.free(follower).await;
    assert_ne!(cluster.leader().await, old);
    cluster.node(old).start().await;
    cluster.converge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_room_stops_in_order_and_starts_on_the_full_disk() {
    for voting in [false, true] {
        let mut cluster = Cluster::start(3).await;
        let (leader, follower) = (cluster.leader().await, cluster.follower().await);
        cluster.fill(follower).await;
        if voting {
            // Raft waits for a vote to be saved, behind what found no room.
            cluster.node(leader).stop().await;
            sleep(Duration::from_millis(2000)).await;
        }
        timeout(SOON, cluster.node(follower).stop()).await.expect("it does not wait for room");
        cluster.node(follower).start().await;
        assert_eq!(cluster.nodes[&follower].log().room(), Room::Low);
        if voting {
            cluster.node(leader).start().await;
        }
        cluster.free(follower).await;
        cluster.converge().await;
    }
}
