//! A region whose disks are full for a while.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anabranch_client::event;
use anabranch_client::wire::StatusResponse;
use anabranch_core::sequencer::Submission;
use anabranch_core::{Event, Request, ShardId};
use anabranch_log::Room;
use anabranch_log::disk::MemoryDisk;
use anabranch_log::index::Direction;
use anabranch_server::config::Config;
use anabranch_server::node::{Environment, Node};
use anabranch_server::shard::{AppendError, Shard};
use tokio::time::{sleep, timeout};

use super::{OnMemory, SOON, leader, region};

const STREAM: &str = "full-1";

fn submission() -> Submission {
    let event = Event {
        stream: STREAM.into(),
        id: None,
        kind: "Happened".into(),
        metadata: BTreeMap::new(),
        payload: vec![b'.'; 500].into(),
    };
    let request = Request { producer: None, events: vec![event] };
    Submission { request, expectations: Vec::new() }
}

async fn start(config: &Config, disk: &MemoryDisk) -> Node {
    let storage = Arc::new(OnMemory(disk.clone()));
    let environment = Environment { storage, ..Environment::system() };
    let started = Node::start(config.clone().validate().unwrap(), environment).await;
    started.expect("it starts, whatever room there is")
}

struct Region {
    disks: Vec<MemoryDisk>,
    nodes: Vec<Option<Node>>,
    /// Events that were acknowledged.
    written: u64,
}

impl Region {
    fn shard(&self, at: usize) -> Shard {
        self.nodes[at].as_ref().expect("it runs").shards()[&ShardId(0)].clone()
    }

    fn fill(&self, at: usize) {
        self.disks[at].set_capacity(Some(self.disks[at].used()));
    }

    async fn try_append(&mut self, at: usize) -> Result<(), AppendError> {
        let appended = self.shard(at).append(submission(), 1, SOON).await.map(drop);
        self.written += u64::from(appended.is_ok());
        appended
    }

    /// Appends until `at` says that it has as little room.
    async fn append_until(&mut self, leader: usize, at: usize, room: Room) {
        let filling = async {
            while self.shard(at).room() != room {
                self.fill(at);
                match self.try_append(leader).await {
                    Ok(()) => {}
                    Err(AppendError::DiskFull) => sleep(Duration::from_millis(10)).await,
                    Err(error) => panic!("{error}"),
                }
            }
        };
        timeout(SOON, filling).await.expect("a full disk is noticed");
    }

    /// Waits until nobody has less than everything that was acknowledged, and reads it.
    async fn holds_everything(&self, at: usize) {
        let state = self.shard(at).state().clone();
        let mut applied = state.applied();
        let held = applied.wait_for(|applied| applied.position >= self.written);
        timeout(SOON, held).await.expect("it catches up").expect("it runs");
        let from = self.written - 1;
        let read = state.store().read_stream(STREAM, from, Direction::Forward, 1, 1).unwrap();
        assert_eq!(read[0].revision, from);
    }

    async fn room_again(&self, at: usize) {
        self.disks[at].set_capacity(None);
        let shard = self.shard(at);
        let again = async {
            while shard.room() != Room::Ok {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(SOON, again).await.expect("the node looks for itself");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_goes_on_when_disks_were_full_and_no_node_was_restarted() {
    let (_dir, configs) = region(3);
    let disks: Vec<_> = (1..=3).map(MemoryDisk::new).collect();
    let mut nodes = Vec::new();
    for (config, disk) in configs.iter().zip(&disks) {
        nodes.push(Some(start(config, disk).await));
    }
    let first = leader(&nodes).await;
    let mut region = Region { disks, nodes, written: 0 };
    let follower = (first + 1) % 3;
    region.append_until(first, follower, Room::None).await;
    for _ in 0..50 {
        region.try_append(first).await.expect("two of three have room");
    }
    region.holds_everything(first).await;
    region.room_again(follower).await;
    region.holds_everything(follower).await;

    // The leader has its reserve, and says no.
    region.append_until(first, first, Room::Low).await;
    region.fill(first);
    for _ in 0..10 {
        let refused = region.try_append(first).await.unwrap_err();
        assert!(matches!(refused, AppendError::DiskFull), "{refused:?}");
    }
    let client = super::client(&configs[first..=first]);
    let own = |status: StatusResponse| {
        status.regions.into_iter().find(|region| region.region == "eu").expect("it is a member")
    };
    let status = client.status_at(&configs[first].nodes[first].api).await.unwrap();
    assert_eq!(status.leader, status.node);
    let own = own(status);
    assert!(own.held && own.problem.contains("is full"), "{own:?}");
    let refused = client.append(STREAM, event("Refused")).timeout(Duration::from_secs(2)).await;
    let refused = refused.unwrap_err();
    assert!(refused.is_refused() && refused.to_string().contains("disk is full"), "{refused}");
    sleep(Duration::from_secs(2)).await;
    assert_eq!(leader(&region.nodes).await, first, "it still leads");
    region.shard(first).raft().read_index(SOON).await.expect("and answers for its reads");
    region.holds_everything(first).await;
    region.room_again(first).await;
    region.try_append(first).await.expect("there is room");
    for at in 0..3 {
        region.holds_everything(at).await;
    }
    for node in region.nodes.iter().flatten() {
        timeout(SOON, node.drain()).await.expect("it stops");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_stops_in_order_on_a_full_disk_and_starts_on_it() {
    let (_dir, configs) = region(3);
    let disks: Vec<_> = (1..=3).map(MemoryDisk::new).collect();
    let mut nodes = Vec::new();
    for (config, disk) in configs.iter().zip(&disks) {
        nodes.push(Some(start(config, disk).await));
    }
    let first = leader(&nodes).await;
    let mut region = Region { disks, nodes, written: 0 };
    let follower = (first + 1) % 3;
    region.append_until(first, follower, Room::None).await;
    let node = region.nodes[follower].take().unwrap();
    timeout(SOON, node.drain()).await.expect("it does not wait for room");
    drop(node);
    region.fill(follower);
    region.nodes[follower] = Some(start(&configs[follower], &region.disks[follower]).await);
    assert_ne!(region.shard(follower).room(), Room::Ok);
    region.room_again(follower).await;
    region.try_append(first).await.expect("it leads");
    region.holds_everything(follower).await;
    for node in region.nodes.iter().flatten() {
        timeout(SOON, node.drain()).await.expect("it stops");
    }
}
