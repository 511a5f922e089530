//! One shard's Raft group on this node: the handle the rest of the server uses.

use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anabranch_core::ShardId;
use anabranch_log::{Log, Room};
use anabranch_proto::internal::Frame;
use futures_util::{Stream, StreamExt, stream};
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{Fatal as OpenraftFatal, LinearizableReadError, RaftError};
use openraft::raft::ReadPolicy;
use openraft::raft::linearizable_read::LinearizerOption;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::config::{GroupConfig, InvalidTimings};
use super::encoding::vote_from;
use super::fatal::Fatal;
use super::identity::Identity;
use super::link::{Dialer, RaftTls};
use super::machine::{Machine, StateMachine};
use super::memory::{self, Forgotten, HELD_AT_BIRTH};
use super::network::{Acknowledged, Factory};
use super::propose::{ProposeError, ReadIndexError, refused};
use super::status::{GroupStatus, Leadership, Metrics, follow, voters_of};
use super::storage::Storage;
use super::types::{AppendReply, AppendRequest, Raft, Runtime, TypeConfig, VoteRequest, index_of};
use crate::env::Net;

/// A follower is alone that has heard no leader for so many of the longest election timeouts.
const ELECTIONS_UNTIL_ALONE: u32 = 4;
/// Answers to a leader that wait to be sent.
const REPLIES_WAITING: usize = 16;

/// One shard's Raft group on this node. Cheap to clone.
#[derive(Clone)]
pub struct RaftGroup {
    inner: Arc<Inner>,
}

struct Inner {
    raft: Raft,
    log: Log,
    identity: Arc<Identity>,
    shard: ShardId,
    leadership: watch::Receiver<Leadership>,
    fatal: Fatal,
    tasks: TaskTracker,
    seed: AtomicU64,
    /// When a leader was heard last, or the group was started.
    heard: Mutex<Instant>,
    /// How long a follower may hear no leader before it is alone.
    patience: Duration,
}

/// Why a group did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration contradicts itself.
    #[error(transparent)]
    Timings(#[from] InvalidTimings),
    /// The machine's checkpoint does not say where it stands.
    #[error("open the machine: {0}")]
    Machine(#[source] io::Error),
    /// The log could not be read, or the machine could not apply it.
    #[error("start raft: {reason}")]
    Raft {
        /// What failed.
        reason: String,
    },
}

/// Voters that lack what every voter holds when the region is born; none if this node does not lead.
fn absent(metrics: &Metrics) -> Option<Vec<u64>> {
    let replication = metrics.replication.as_ref()?;
    let holds = |id: &u64| {
        let matched = replication.get(id).and_then(Option::as_ref);
        matched.is_some_and(|matched| index_of(matched) >= HELD_AT_BIRTH)
    };
    Some(voters_of(metrics).into_iter().filter(|id| *id != metrics.id && !holds(id)).collect())
}

impl RaftGroup {
    /// Opens the group over its log, and applies what is committed beyond the machine's checkpoint
    /// before it returns. It then takes part, once the node's listener lets messages through.
    ///
    /// The caller drives the log's writer, and closes the log after [`shutdown`](Self::shutdown).
    /// # Errors
    /// [`StartError`]; nothing runs then.
    pub async fn start(
        config: GroupConfig,
        log: Log,
        machine: Box<dyn Machine>,
        net: Arc<dyn Net>,
        tls: Option<RaftTls>,
    ) -> Result<Self, StartError> {
        let settings = Arc::new(config.openraft()?);
        let fatal = Fatal::new();
        let storage = Storage::new(log.clone(), fatal.clone());
        let machine = StateMachine::open(machine, fatal.clone()).map_err(StartError::Machine)?;
        let patience = config.timings.election_max;
        let voters = watch::Sender::new(BTreeSet::new());
        let factory = Factory {
            identity: Arc::clone(&config.identity),
            shard: config.shard,
            dialer: Dialer::new(net, tls, patience),
            patience,
            voters: voters.subscribe(),
            acknowledged: Acknowledged::default(),
        };
        let node = config.identity.node().0;
        let raft = Raft::new(node, settings, factory, storage, machine);
        let raft = Runtime::scope(config.seed, raft).await.map_err(|error| {
            let reason = fatal.reason().unwrap_or_else(|| error.to_string());
            StartError::Raft { reason }
        })?;
        Ok(Self::over(raft, log, config, voters, fatal))
    }

    fn over(
        raft: Raft,
        log: Log,
        config: GroupConfig,
        voters: watch::Sender<BTreeSet<u64>>,
        fatal: Fatal,
    ) -> Self {
        let metrics = raft.metrics();
        let seen = Leadership::of(&metrics.borrow_watched());
        let (publish, leadership) = watch::channel(seen);
        voters.send_replace(voters_of(&metrics.borrow_watched()));
        let tasks = TaskTracker::new();
        tasks.spawn(follow(metrics, publish, voters, fatal.clone()));
        tasks.close();
        let GroupConfig { identity, shard, seed, timings } = config;
        let inner = Inner {
            raft,
            log,
            identity,
            shard,
            leadership,
            fatal,
            tasks,
            seed: AtomicU64::new(seed),
            heard: Mutex::new(Instant::now()),
            patience: timings.election_max * ELECTIONS_UNTIL_ALONE,
        };
        Self { inner: Arc::new(inner) }
    }

    /// The shard.
    pub fn shard(&self) -> ShardId {
        self.inner.shard
    }
    /// This node.
    pub fn identity(&self) -> &Arc<Identity> {
        &self.inner.identity
    }
    /// Who leads, now and from now on.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.inner.leadership.clone()
    }
    /// Whether this node leads and hears a quorum, or has heard lately from who leads. One that has not
    /// is cut off, or no longer a member and does not know: it shows the past as if it were the
    /// present.
    pub fn is_in_touch(&self) -> bool {
        let patience = self.inner.patience;
        let leadership = self.inner.leadership.borrow().clone();
        if !leadership.mine {
            return leadership.leader.is_some() && self.inner.heard.lock().elapsed() <= patience;
        }
        let status = self.status();
        status.voters.len() == 1 || status.quorum_silent.is_none_or(|silent| silent <= patience)
    }
    /// Why the shard stopped on this node, once it did so by itself. Nothing more is written then;
    /// the node should shut the shard down and say so.
    pub fn fatal(&self) -> watch::Receiver<Option<String>> {
        self.inner.fatal.watch()
    }
    /// The group at this moment.
    pub fn status(&self) -> GroupStatus {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        GroupStatus::of(&metrics)
    }

    /// The index up to which a read must see the log applied, to see every write that was
    /// acknowledged before this call, by whomever.
    ///
    /// A quorum confirms that this node still leads; the caller waits for its own apply.
    /// # Errors
    /// [`ReadIndexError`] if this node does not lead, or cannot be sure of it in time.
    pub async fn read_index(&self, deadline: Duration) -> Result<u64, ReadIndexError> {
        let option = LinearizerOption::from(ReadPolicy::ReadIndex).with_wait_timeout(deadline);
        let asked = self.inner.raft.get_read_linearizer(option);
        // openraft's own wait starts when it looks at the request.
        let no_quorum = ReadIndexError::NoQuorum { deadline };
        let Ok(answer) = tokio::time::timeout(deadline, asked).await else {
            return Err(no_quorum);
        };
        match answer {
            Ok(linearizer) => Ok(index_of(linearizer.read_log_id().log_id())),
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => Err(no_quorum),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                Err(match refused(forward) {
                    ProposeError::NotLeader { leader } => ReadIndexError::NotLeader { leader },
                    _ => no_quorum,
                })
            }
            Err(RaftError::Fatal(fatal)) => {
                let reason = self.stop_reason().unwrap_or_else(|| fatal.to_string());
                Err(ReadIndexError::Stopped { reason })
            }
        }
    }

    /// Leaves the group's conversation: no votes, no writes. What was proposed and not answered is
    /// unknown to whoever waits for it. The log stays open, though it no longer waits for a full disk:
    /// Raft would, until there is space. Idempotent.
    pub async fn shutdown(&self) {
        if self.inner.log.room() == Room::None {
            self.inner.fatal.ending();
        }
        self.inner.log.refuse_when_full();
        if let Err(error) = self.inner.raft.shutdown().await {
            self.inner.fatal.raise(&format!("raft failed: {error}"));
        }
        self.inner.tasks.wait().await;
    }

    /// Waits, on the leader, until every voter holds what every voter holds when the region is born.
    /// Says whom it waits for, whenever that changes. Never returns if this node stops to lead.
    pub async fn voters_are_there(&self, waits_for: impl Fn(&[u64])) {
        let mut metrics = self.inner.raft.metrics();
        let mut said = Vec::new();
        loop {
            let absent = absent(&metrics.borrow_watched());
            match absent {
                Some(absent) if absent.is_empty() => return,
                Some(absent) if absent != said => {
                    waits_for(&absent);
                    said = absent;
                }
                Some(_) | None => {}
            }
            if metrics.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Something came that only leaders send.
    pub(super) fn heard_a_leader(&self) {
        *self.inner.heard.lock() = Instant::now();
    }

    /// Refuses an append if this node has forgotten what it promised, and stops the shard then.
    pub(super) fn check_append(
        &self,
        frame: &Frame,
        request: &AppendRequest,
    ) -> Result<(), Forgotten> {
        self.heard_a_leader();
        // From the disk: what Raft shows of itself is empty for a moment after the start. A vote that
        // cannot be read stops the shard elsewhere.
        let vote = vote_from(self.inner.log.hard_state().vote).ok().flatten();
        self.stop_if_forgotten(memory::check_append(frame, request, self.held(), vote.as_ref()))
    }

    /// The same for a vote.
    pub(super) fn check_vote(&self, frame: &Frame, asked: &VoteRequest) -> Result<(), Forgotten> {
        self.stop_if_forgotten(memory::check_vote(frame, asked, self.held()))
    }

    fn held(&self) -> u64 {
        self.inner.log.last().map_or(0, |last| last.index)
    }

    fn stop_if_forgotten(&self, checked: Result<(), Forgotten>) -> Result<(), Forgotten> {
        if let Err(forgotten @ (Forgotten::Lost { .. } | Forgotten::SetBack { .. })) = &checked {
            self.inner.fatal.raise(&forgotten.to_string());
        }
        checked
    }

    pub(super) fn raft(&self) -> &Raft {
        &self.inner.raft
    }

    /// Why the shard is stopped, or `None` if it runs.
    pub(super) fn stop_reason(&self) -> Option<String> {
        let metrics = self.inner.raft.metrics();
        let stopped = metrics.borrow_watched().running_state.clone().err();
        self.inner.fatal.reason().or(stopped.map(|fatal| fatal.to_string()))
    }

    /// Answers the appends of a leader, in order, until the first that does not match.
    ///
    /// In a scope, because openraft spawns a task for it. The stream that openraft returns borrows
    /// its handle, so a future owns both, and is driven by polling for what it found.
    pub(super) fn stream_append(
        &self,
        requests: impl Stream<Item = AppendRequest> + Send + 'static,
    ) -> impl Stream<Item = Result<AppendReply, OpenraftFatal<TypeConfig>>> + Send + 'static {
        let seed = self.inner.seed.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let raft = self.inner.raft.clone();
        let (found, mut replies) = mpsc::channel(REPLIES_WAITING);
        let mut driving = Some(Box::pin(Runtime::scope(seed, async move {
            let mut answers = pin!(raft.stream_append(requests));
            while let Some(answer) = answers.next().await {
                if found.send(answer).await.is_err() {
                    return;
                }
            }
        })));
        stream::poll_fn(move |cx| {
            if driving.as_mut().is_some_and(|future| future.as_mut().poll(cx).is_ready()) {
                driving = None;
            }
            replies.poll_recv(cx)
        })
    }
}
