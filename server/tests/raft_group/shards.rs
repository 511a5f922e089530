//! Several shards of a node behind one listener.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anabranch_core::{NodeId, RegionName, ShardId};
use anabranch_log::disk::MemoryDisk;
use anabranch_log::{Log, LogOptions};
use anabranch_server::env::{Net, TokioNet};
use anabranch_server::raft::{GroupConfig, Identity, Node, RaftGroup, RaftService, serve};
use bytes::Bytes;
use parking_lot::Mutex;

use crate::cluster::{TIMINGS, eventually};
use crate::machine::{Tally, Tallying};

const SHARDS: [ShardId; 2] = [ShardId(0), ShardId(1)];

type Shard = (RaftGroup, Arc<Mutex<Tally>>);

async fn start_shard(identity: &Arc<Identity>, shard: ShardId) -> Shard {
    let disk = Arc::new(MemoryDisk::new(shard.0.into()));
    let dir = PathBuf::from(format!("shard-{shard}"));
    let (log, writer, _) = Log::open(disk, &dir, LogOptions::new([7; 16])).unwrap();
    writer.spawn_thread().unwrap();
    let identity = Arc::clone(identity);
    let seed = identity.node().0 * 100 + u64::from(shard.0);
    let config = GroupConfig { identity, shard, timings: TIMINGS, seed };
    let tally = Arc::default();
    let machine = Tallying::open(&tally);
    let group = RaftGroup::start(config, log, machine, Arc::new(TokioNet), None).await.unwrap();
    (group, tally)
}

async fn start_node(id: u64) -> (Node, Vec<Shard>) {
    let listener = TokioNet.listen("127.0.0.1:0").await.unwrap();
    let raft_address = listener.local_addr().unwrap().to_string();
    let identity = Arc::new(Identity::new(RegionName::new("eu").unwrap(), NodeId(id)));
    let service = RaftService::new(Arc::clone(&identity));
    let mut shards = Vec::new();
    for shard in SHARDS {
        let (group, tally) = start_shard(&identity, shard).await;
        service.mount(&group);
        shards.push((group, tally));
    }
    tokio::spawn(async move {
        serve(listener, service, None, std::future::pending()).await.unwrap();
    });
    (Node { raft_address, api_address: String::new() }, shards)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shards_behind_one_listener_keep_apart() {
    let nodes = [start_node(1).await, start_node(2).await];
    let members = BTreeMap::from([(1, nodes[0].0.clone()), (2, nodes[1].0.clone())]);
    for (nth, shard) in SHARDS.into_iter().enumerate() {
        // Each shard is begun on another node, which then most likely leads it.
        nodes[nth].1[nth].0.initialize(members.clone()).await.unwrap();
        let replicas = || nodes.iter().map(|(_, shards)| &shards[nth]);
        let ready = |replica: &&Shard| replica.0.leadership().borrow().ready;
        eventually("the shard has a leader", || replicas().any(|replica| ready(&replica))).await;
        let leader = replicas().find(ready).expect("it was there");
        let command = Bytes::from(format!("for shard {shard}"));
        let written = leader.0.propose(command).await.unwrap();
        let applied = |replica: &Shard| replica.1.lock().index >= written.index;
        eventually("both nodes apply it", || replicas().all(applied)).await;
    }
    for (_, shards) in &nodes {
        for (shard, (_, tally)) in SHARDS.into_iter().zip(shards) {
            let expected = [Bytes::from(format!("for shard {shard}"))];
            assert_eq!(tally.lock().payloads(), expected);
        }
    }
}
