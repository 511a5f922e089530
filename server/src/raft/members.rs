//! Changing who is in the group, and who leads it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, InitializeError, RaftError};
use tokio::time::{Instant, timeout_at};

use super::group::RaftGroup;
use super::memory::HELD_AT_BIRTH;
use super::propose::{ProposeError, refused};
use super::status::{GroupStatus, Metrics};
use super::types::{LogId, Node, TypeConfig, index_of};

/// A new member votes once it is at most this many entries behind. A group that takes writes never
/// stands still for a follower to reach the very end.
const CAUGHT_UP_LAG: u64 = 128;

/// Why the members were not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// Refused: this node does not lead, or cannot write now.
    #[error(transparent)]
    Refused(ProposeError),
    /// Refused: a group needs voters.
    #[error("a group needs at least one voter")]
    Empty,
    /// Refused: a voter is known under another address. A node keeps its address; one that moved
    /// leaves, and comes back under a new id.
    #[error("node {node} votes, and is known with {known}, not with {given}")]
    AddressChanged {
        /// The node.
        node: u64,
        /// Where the group knows it.
        known: Node,
        /// Where it was said to be.
        given: Node,
    },
    /// Refused: another change is under way.
    #[error("the change is not possible now: {reason}")]
    NotNow {
        /// Why.
        reason: String,
    },
    /// New members did not catch up in time. They stay as learners, without a vote; the same
    /// change may be asked for again.
    #[error("nodes {nodes:?} did not catch up within {deadline:?}")]
    Behind {
        /// The nodes.
        nodes: Vec<u64>,
        /// How long it was waited for.
        deadline: Duration,
    },
    /// The change may have been made, or may be made yet. Read the members.
    #[error("the outcome of the change is unknown: {reason}")]
    Unknown {
        /// What happened.
        reason: String,
    },
}

/// Why leadership did not move.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// This node does not lead.
    #[error("this node does not lead the shard")]
    NotLeader,
    /// There is no other voter, or not the one asked for.
    #[error("there is no other voter to lead the shard")]
    NoSuccessor,
    /// Nobody else led in time. This node may lead still.
    #[error("leadership did not move within {deadline:?}")]
    TimedOut {
        /// How long it was waited for.
        deadline: Duration,
    },
    /// The shard is stopped on this node.
    #[error("the shard is stopped: {reason}")]
    Stopped {
        /// Why.
        reason: String,
    },
}

/// Those among the voters to be that do not vote yet.
#[derive(Debug, Default)]
struct Newcomers {
    /// Learners that are known under another address.
    misplaced: BTreeSet<u64>,
    /// All that must be told of, these among them.
    newcomers: BTreeMap<u64, Node>,
    /// All: those, too, that were told of before and have not caught up since.
    voteless: Vec<u64>,
}

impl RaftGroup {
    /// Gives a fresh group its first members. Idempotent: a group that has members keeps them.
    ///
    /// May be called on several of the nodes, with the same members.
    /// # Errors
    /// [`MembershipError::Empty`] or [`MembershipError::NotNow`] if the members do not include this
    /// node; [`MembershipError::Refused`] if the shard is stopped.
    pub async fn initialize(&self, voters: BTreeMap<u64, Node>) -> Result<(), MembershipError> {
        if voters.is_empty() {
            return Err(MembershipError::Empty);
        }
        match self.raft().initialize(voters).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(RaftError::APIError(error @ InitializeError::NotInMembers(_))) => {
                Err(MembershipError::NotNow { reason: error.to_string() })
            }
            Err(RaftError::Fatal(fatal)) => Err(self.stopped_membership(&fatal.to_string())),
        }
    }

    /// Makes `voters` the members of the group, on the leader, while it takes writes.
    ///
    /// New nodes first receive the log without a vote, until they are close; then the voters change
    /// by joint consensus; nodes that are not named leave, whatever they were. A node that never got a
    /// vote may be named again under another address.
    /// # Errors
    /// [`MembershipError`]; after [`MembershipError::Unknown`] the change may still happen.
    pub async fn change_membership(
        &self,
        voters: BTreeMap<u64, Node>,
        deadline: Duration,
    ) -> Result<(), MembershipError> {
        if voters.is_empty() {
            return Err(MembershipError::Empty);
        }
        let until = Instant::now() + deadline;
        let Newcomers { misplaced, newcomers, voteless } = self.newcomers(&voters)?;
        let change = async {
            if !misplaced.is_empty() {
                self.write_members(ChangeMembers::RemoveNodes(misplaced), true).await?;
            }
            if !newcomers.is_empty() {
                self.write_members(ChangeMembers::AddNodes(newcomers), true).await?;
            }
            self.wait_caught_up(voteless, until, deadline).await?;
            let ids: BTreeSet<u64> = voters.keys().copied().collect();
            self.write_members(ChangeMembers::ReplaceAllVoters(ids.clone()), false).await?;
            let unnamed: BTreeSet<u64> =
                self.status().learners.into_keys().filter(|id| !ids.contains(id)).collect();
            match unnamed.is_empty() {
                true => Ok(()),
                false => self.write_members(ChangeMembers::RemoveNodes(unnamed), true).await,
            }
        };
        // Cancelled at the deadline: what was submitted by then may still be committed.
        timeout_at(until, change).await.unwrap_or_else(|_| {
            let reason = format!("no answer within {deadline:?}");
            Err(MembershipError::Unknown { reason })
        })
    }

    /// Hands leadership to `to`, or to the voter that has most of the log, and waits for it.
    ///
    /// # Errors
    /// [`TransferError`]; nothing is lost by trying.
    pub async fn transfer_leadership(
        &self,
        to: Option<u64>,
        deadline: Duration,
    ) -> Result<u64, TransferError> {
        let status = self.status();
        if !self.leadership().borrow().mine {
            return Err(TransferError::NotLeader);
        }
        let to = successor(&status, to).ok_or(TransferError::NoSuccessor)?;
        self.raft().trigger().transfer_leader(to).await.map_err(|fatal| {
            let reason = self.stop_reason().unwrap_or_else(|| fatal.to_string());
            TransferError::Stopped { reason }
        })?;
        let mut leadership = self.leadership();
        let moved = leadership.wait_for(|seen| !seen.mine && seen.leader.is_some());
        match tokio::time::timeout(deadline, moved).await {
            Ok(Ok(seen)) => Ok(seen.leader.as_ref().map_or(to, |(id, _)| *id)),
            Ok(Err(_)) => Err(TransferError::Stopped { reason: "raft ended".to_owned() }),
            Err(_) => Err(TransferError::TimedOut { deadline }),
        }
    }

    fn newcomers(&self, voters: &BTreeMap<u64, Node>) -> Result<Newcomers, MembershipError> {
        let GroupStatus { voters: vote, learners, .. } = self.status();
        let mut found = Newcomers::default();
        for (id, given) in voters {
            if !vote.contains_key(id) {
                found.voteless.push(*id);
            }
            match (vote.get(id), learners.get(id)) {
                (Some(known), _) if known != given => {
                    let (known, given) = (known.clone(), given.clone());
                    return Err(MembershipError::AddressChanged { node: *id, known, given });
                }
                (_, Some(known)) if known != given => {
                    found.misplaced.insert(*id);
                    found.newcomers.insert(*id, given.clone());
                }
                (None, None) => drop(found.newcomers.insert(*id, given.clone())),
                _ => {}
            }
        }
        Ok(found)
    }

    async fn wait_caught_up(
        &self,
        mut nodes: Vec<u64>,
        until: Instant,
        deadline: Duration,
    ) -> Result<(), MembershipError> {
        let mut metrics = self.raft().metrics();
        loop {
            {
                let seen = metrics.borrow_watched();
                let not_leader = || ProposeError::NotLeader { leader: None };
                let replication = seen.replication.as_ref();
                let replication =
                    replication.ok_or_else(|| MembershipError::Refused(not_leader()))?;
                nodes.retain(|id| !caught_up(&seen, replication.get(id).copied().flatten()));
            }
            if nodes.is_empty() {
                return Ok(());
            }
            match timeout_at(until, metrics.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(self.stopped_membership("raft ended")),
                Err(_) => return Err(MembershipError::Behind { nodes, deadline }),
            }
        }
    }

    async fn write_members(
        &self,
        change: ChangeMembers<u64, Node>,
        retain: bool,
    ) -> Result<(), MembershipError> {
        match self.raft().change_membership(change, retain).await {
            Ok(written) => self.wait_shown(&written.log_id).await,
            Err(RaftError::APIError(error)) => Err(classify(error)),
            // Raft stopped in the middle of it.
            Err(RaftError::Fatal(fatal)) => {
                let reason = self.stop_reason().unwrap_or_else(|| fatal.to_string());
                Err(MembershipError::Unknown { reason })
            }
        }
    }

    /// Waits until the group's status shows the members of this entry: it is told a moment after the
    /// write is answered.
    async fn wait_shown(&self, entry: &LogId) -> Result<(), MembershipError> {
        let mut metrics = self.raft().metrics();
        while metrics.borrow_watched().committed_membership_config.log_id().as_ref() < Some(entry) {
            metrics.changed().await.map_err(|_| self.stopped_membership("raft ended"))?;
        }
        Ok(())
    }

    fn stopped_membership(&self, fallback: &str) -> MembershipError {
        let reason = self.stop_reason().unwrap_or_else(|| fallback.to_owned());
        MembershipError::Refused(ProposeError::Stopped { reason })
    }
}

/// True once a follower has answered, and is close to the leader. One that never answered is not,
/// however short the log is: it may not exist, and must not count for a quorum. Nor is one that holds
/// less than a voter ever does.
fn caught_up(metrics: &Metrics, matched: Option<LogId>) -> bool {
    let last = metrics.last_log_index.unwrap_or(0);
    matched.is_some_and(|matched| {
        last.saturating_sub(matched.index) <= CAUGHT_UP_LAG && index_of(&matched) >= HELD_AT_BIRTH
    })
}

fn classify(error: ClientWriteError<TypeConfig>) -> MembershipError {
    match error {
        ClientWriteError::ForwardToLeader(forward) => MembershipError::Refused(refused(forward)),
        ClientWriteError::LogEntryDiscarded(_) => {
            MembershipError::Unknown { reason: error.to_string() }
        }
        ClientWriteError::ChangeMembershipError(_) | ClientWriteError::PreconditionFailed(_) => {
            MembershipError::NotNow { reason: error.to_string() }
        }
    }
}

/// The voter asked for, or the other voter with most of the log; the lowest id of equals.
fn successor(status: &GroupStatus, to: Option<u64>) -> Option<u64> {
    let others = status.followers.iter().filter(|(id, _)| status.voters.contains_key(id));
    match to {
        Some(to) => others.map(|(id, _)| *id).find(|id| *id == to),
        None => others.min_by_key(|(id, follower)| (follower.lag, **id)).map(|(id, _)| *id),
    }
}
