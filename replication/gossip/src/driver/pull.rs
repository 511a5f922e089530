//! Pulling one shard, while this node leads it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anabranch_core::ShardId;
use tokio::sync::watch;
use tokio::task::{Id, JoinSet};

use super::link::{self, Link};
use super::{Shard, Shared};
use crate::config::PeerRegion;
use crate::plan::Assignment;
use crate::traits::Sink;

/// How often the plan is looked at though nothing was heard: time passing is a fact, too.
const TICK: Duration = Duration::from_millis(50);

/// Switches pulling with leadership, until the task is aborted.
pub(super) async fn run(shared: Arc<Shared>, id: ShardId) {
    let shard = &shared.shards[&id];
    let mut sinks = shard.sink.subscribe();
    loop {
        let sink = sinks.borrow_and_update().clone();
        shard.board.reset(sink.is_some());
        let pulling = async {
            match sink {
                Some(sink) => pull(&shared, id, shard, sink).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            // Dropping the pull aborts its links; what they offered half-way is asked for again.
            changed = sinks.changed() => if changed.is_err() { return },
            () = pulling => {}
        }
    }
}

/// Keeps a link to every peer and tells each what to pull.
async fn pull(shared: &Arc<Shared>, id: ShardId, shard: &Shard, sink: Arc<dyn Sink>) {
    let assignment = watch::Sender::new(Assignment::new());
    let mut links = Links { tasks: JoinSet::new(), peers: BTreeMap::new() };
    for peer in &shared.config.peers {
        links.spawn(shared, id, peer.clone(), &sink, &assignment);
    }
    let mut tick = tokio::time::interval(TICK);
    loop {
        let wanted = shard.board.assign(shard.source.origin(), |origin| sink.next_wanted(origin));
        assignment.send_if_modified(|current| {
            let moved = *current != wanted;
            *current = wanted;
            moved
        });
        tokio::select! {
            biased;
            ended = links.tasks.join_next_with_id(), if !links.tasks.is_empty() => {
                // A link ends only by a bug of ours; the other links are not to suffer from it.
                let task = match ended.expect("there are links") {
                    Ok((task, ())) => task,
                    Err(error) => error.id(),
                };
                if let Some(peer) = links.peers.remove(&task) {
                    tracing::error!(region = %peer.region, "link ended by a panic; starting it anew");
                    links.spawn(shared, id, peer, &sink, &assignment);
                }
            }
            () = shard.board.stirred.notified() => {}
            _ = tick.tick() => {}
        }
    }
}

struct Links {
    tasks: JoinSet<()>,
    peers: BTreeMap<Id, PeerRegion>,
}

impl Links {
    fn spawn(
        &mut self,
        shared: &Arc<Shared>,
        shard: ShardId,
        peer: PeerRegion,
        sink: &Arc<dyn Sink>,
        assignment: &watch::Sender<Assignment>,
    ) {
        let link = Link {
            shared: shared.clone(),
            shard,
            peer: peer.clone(),
            sink: sink.clone(),
            assignment: assignment.subscribe(),
        };
        let task = self.tasks.spawn(link::run(link));
        self.peers.insert(task.id(), peer);
    }
}
