//! One shard of this node: its Raft group, what is applied, and, while it leads, the sequencer.
//!
//! ```text
//!  append ──► lead (sequencer) ──► raft ──► machine (apply) ──► state ──► readers, gossip, order
//!  gossip ──► inlet (importer) ──┘                                └──► checkpoints
//! ```
//!
//! [`state`] is what every reader looks at; only [`machine`] changes it. [`lead`] runs while this
//! node leads and is the only proposer. [`inlet`] is where gossip puts what other regions sent.
//! [`standing`] says whether this node may write, by its clock and its memory. [`order`] follows the global order in the background.

mod absent;
mod append;
mod clock_guard;
mod inlet;
mod lead;
mod machine;
mod open;
pub mod order;
mod outlet;
mod room;
mod standing;
pub mod state;

pub use append::{AppendError, Appended};
pub use clock_guard::{ClockDoubted, Contradiction};
pub use open::{OpenError, ShardConfig, ShardParts};
pub use standing::Forgetful;
pub use state::{Applied, ShardState};

use std::sync::Arc;

use anabranch_core::{Context, Digest, Origin, ShardId};
use anabranch_gossip::Source;
use anabranch_log::Room;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::aggregates::Aggregates;
use crate::conflicts::Conflicts;
use crate::env::Clock;
use crate::raft::RaftGroup;
use inlet::Inlet;
use lead::Job;

/// A handle of one shard. Clones share it.
#[derive(Clone)]
pub struct Shard {
    inner: Arc<Inner>,
}

struct Inner {
    id: ShardId,
    state: Arc<ShardState>,
    raft: RaftGroup,
    log: anabranch_log::Log,
    machine: Arc<machine::Checkpointer>,
    inlet: Arc<Inlet>,
    clock: Arc<dyn Clock>,
    jobs: mpsc::Sender<Job>,
    /// Bytes that may wait in `jobs`.
    room: Arc<Semaphore>,
    stop: watch::Sender<bool>,
    tasks: Mutex<JoinSet<()>>,
    aggregates: Aggregates<ShardState>,
    conflicts: Conflicts<ShardState>,
}

impl Shard {
    /// Which shard.
    pub fn id(&self) -> ShardId {
        self.inner.id
    }
    /// What is applied on this node.
    pub fn state(&self) -> &Arc<ShardState> {
        &self.inner.state
    }
    /// What is folded from it.
    pub fn aggregates(&self) -> &Aggregates<ShardState> {
        &self.inner.aggregates
    }
    /// What was written to its streams at the same time.
    pub fn conflicts(&self) -> &Conflicts<ShardState> {
        &self.inner.conflicts
    }
    /// The Raft group.
    pub fn raft(&self) -> &RaftGroup {
        &self.inner.raft
    }
    /// What gossip serves to other regions.
    pub fn source(&self) -> Arc<dyn Source> {
        let Inner { state, inlet, clock, .. } = &*self.inner;
        Arc::new(outlet::Outlet::new(Arc::clone(state), Arc::clone(inlet), Arc::clone(clock)))
    }
    /// Bytes of the shard's log on this node's disk.
    pub fn log_bytes(&self) -> u64 {
        self.inner.log.segments().iter().map(|segment| segment.bytes).sum()
    }
    /// How often this node has waited for the disk to take records of the log, since it started.
    pub fn log_syncs(&self) -> u64 {
        self.inner.log.syncs()
    }
    /// Whether there is room on this node's disk.
    pub fn room(&self) -> Room {
        self.inner.log.room()
    }
    /// Last entry of the shard's log on this node; 0 for none. What the log says, at once: Raft's own
    /// status is empty for a moment after the start.
    pub fn last_index(&self) -> u64 {
        self.inner.log.last().map_or(0, |last| last.index)
    }
    /// Origins whose groups are held back now, and why. Known by the leader only.
    pub fn held(&self) -> Vec<(Origin, String)> {
        self.inner.inlet.held()
    }
    /// What is wrong: events that this node cannot read; or, on the leader, why the region writes
    /// nothing of its own, or what it writes reaches nobody yet. `None` if all is well.
    pub fn trouble(&self) -> Option<String> {
        let unreadable = self.inner.state.unreadable().borrow().clone();
        let unreadable = unreadable.map(|why| {
            format!(
                "events of this node's log cannot be read: {why}; put another node in its place \
                 (docs/runbooks/damaged-record.md)"
            )
        });
        unreadable.or_else(|| self.inner.inlet.trouble())
    }
    /// The newest word of every other region. Newer than what the log vouches for on the leader, the
    /// same elsewhere.
    pub fn heard(&self) -> Vec<Digest> {
        self.inner.inlet.heard(&self.inner.state)
    }

    /// Waits until this node has applied everything in `context`.
    ///
    /// # Errors
    /// What is missing at the deadline.
    pub async fn await_context(&self, context: &Context, deadline: Instant) -> Result<(), Context> {
        self.inner.state.await_context(context, deadline).await
    }

    /// Stops: no more appends, checkpoint, log closed clean. Call after leadership was handed over.
    pub async fn shutdown(&self) {
        self.inner.stop.send_replace(true);
        let mut tasks = std::mem::take(&mut *self.inner.tasks.lock());
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(shard = %self.inner.id, %error, "a task of the shard failed");
            }
        }
        self.inner.raft.shutdown().await;
        let (machine, log) = (Arc::clone(&self.inner.machine), self.inner.log.clone());
        crate::env::blocking(move || {
            machine.write_now();
            log.close();
        })
        .await;
    }

    /// Closes the log and nothing else, as when the process dies: no checkpoint is written. Call
    /// after every task of the node has ended; waits until the log's writer has.
    pub fn abandon(&self) {
        self.inner.log.close();
    }
}
