//! Taking a node apart, so that nobody notices more than they must.

use std::time::Duration;

use tokio::time::timeout;

use super::{Node, Serving};
use crate::raft::TransferError;

/// How long to wait for another node to lead.
const TRANSFER_WAIT: Duration = Duration::from_secs(3);
/// How long requests under way may take. Subscriptions never end by themselves: they are cut off
/// then, and clients go on from their cursor on another node.
const REQUESTS_WAIT: Duration = Duration::from_secs(5);
/// How long Raft's streams may take to end.
const STREAMS_WAIT: Duration = Duration::from_millis(500);

impl Node {
    /// Stops the node in an orderly way: no new requests, leadership handed over, requests under
    /// way finished or cut off after a few seconds, a checkpoint written, the log closed. Takes 10 s
    /// at most, besides writing the checkpoint. Idempotent. The data folder is free again once the
    /// last handle of the node and its shards is dropped.
    ///
    /// Dropped half-way, what is left ends as in a crash, which loses nothing acknowledged.
    pub async fn drain(&self) {
        let node = &self.inner;
        node.ended.cancel();
        node.api.stop.cancel();
        self.hand_over().await;
        node.api.end(REQUESTS_WAIT).await;
        node.gossip.shutdown().await;
        for (id, shard) in &node.shards {
            node.service.unmount(*id);
            shard.shutdown().await;
        }
        node.raft.stop.cancel();
        node.raft.end(STREAMS_WAIT).await;
        tracing::info!(region = %node.config.region(), node = %node.config.node(), "the node stopped");
    }

    async fn hand_over(&self) {
        for shard in self.inner.shards.values() {
            match shard.raft().transfer_leadership(None, TRANSFER_WAIT).await {
                Ok(to) => tracing::info!(shard = %shard.id(), to, "handed leadership over"),
                Err(TransferError::NotLeader | TransferError::NoSuccessor) => {}
                Err(error) => {
                    tracing::warn!(shard = %shard.id(), %error, "stopping while leading");
                }
            }
        }
    }
}

impl Serving {
    /// Waits for the task, and cuts it off after `patience`.
    async fn end(&self, patience: Duration) {
        let Some(mut task) = self.task.lock().take() else { return };
        if timeout(patience, &mut task).await.is_err() {
            task.abort();
            // An aborted task's end is no news; its panic was reported where it happened.
            let _ = task.await;
        }
    }
}
