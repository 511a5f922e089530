//! Who leads, and how the members are doing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::errors::Fatal as OpenraftFatal;
use openraft::metrics::RaftMetrics;
use openraft::type_config::alias::WatchReceiverOf;
use openraft::{Instant, ServerState};
use tokio::sync::watch;

use super::fatal::Fatal;
use super::types::{Node, TypeConfig, index_of};

pub(super) type Metrics = RaftMetrics<TypeConfig>;
pub(super) type MetricsWatch = WatchReceiverOf<TypeConfig, Metrics>;

/// Who leads the shard, as this node sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The term this node is in.
    pub term: u64,
    /// The leader of that term, once there is one.
    pub leader: Option<(u64, Node)>,
    /// This node leads.
    pub mine: bool,
    /// This node leads, and every entry of earlier terms is applied here: what is proposed next
    /// follows the applied state. Never true without `mine`.
    pub ready: bool,
}

impl Leadership {
    pub(super) fn of(metrics: &Metrics) -> Self {
        let mine = metrics.state == ServerState::Leader;
        let members = metrics.membership_config.membership();
        let node = |id: u64| Some((id, members.get_node(&id)?.clone()));
        // A leader opens its term with an entry of its own: once that is applied, all before is.
        let applied_by = metrics.last_applied.map(|id| id.leader_id);
        let ready = mine && metrics.vote.committed && applied_by == Some(metrics.vote.leader_id);
        let leader = metrics.current_leader.and_then(node);
        Self { term: metrics.current_term, leader, mine, ready }
    }
}

/// What a node is in its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Receives the log, has no vote.
    Learner,
    /// Receives the log, and votes.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Writes the log.
    Leader,
    /// Stopped.
    Stopped,
}

/// A group at one moment, for status pages and metrics. Indexes count from 1; 0 stands for none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupStatus {
    /// What this node is.
    pub role: Role,
    /// The term it is in.
    pub term: u64,
    /// The leader, if known.
    pub leader: Option<u64>,
    /// Last entry of this node's log.
    pub last_index: u64,
    /// Last entry this node knows to be committed.
    pub committed: u64,
    /// Last entry applied on this node.
    pub applied: u64,
    /// Members that vote; while they change, the old ones and the new ones.
    pub voters: BTreeMap<u64, Node>,
    /// Members that only receive the log.
    pub learners: BTreeMap<u64, Node>,
    /// Whether a change of the members is under way: it needs majorities of the old and of the new.
    pub changing: bool,
    /// The other members as the leader sees them. Empty elsewhere.
    pub followers: BTreeMap<u64, FollowerStatus>,
    /// On the leader: time since a quorum answered.
    pub quorum_silent: Option<Duration>,
}

/// Another member, as the leader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowerStatus {
    /// Last entry known to be on its disk, from 1; 0 for none.
    pub matched: u64,
    /// Entries it is behind the leader.
    pub lag: u64,
    /// Time since it answered last; `None` if it never did in this term.
    pub silent: Option<Duration>,
}

impl GroupStatus {
    pub(super) fn of(metrics: &Metrics) -> Self {
        let last_index = metrics.last_log_index.map_or(0, |index| index + 1);
        let config = &metrics.membership_config;
        let members = config.membership();
        let is_joint = members.get_joint_config().len() > 1;
        let is_committed = config.log_id() == metrics.committed_membership_config.log_id();
        let is_voter = |id: &u64| members.voter_ids().any(|voter| voter == *id);
        let nodes = members.nodes().map(|(id, node)| (*id, node.clone()));
        let (voters, learners) = nodes.partition(|(id, _)| is_voter(id));
        Self {
            role: role(metrics),
            term: metrics.current_term,
            leader: metrics.current_leader,
            last_index,
            committed: metrics.local_committed.as_ref().map_or(0, index_of),
            applied: metrics.last_applied.as_ref().map_or(0, index_of),
            voters,
            learners,
            changing: is_joint || !is_committed,
            followers: followers(metrics, last_index),
            quorum_silent: metrics.last_quorum_acked.map(|at| at.elapsed()),
        }
    }
}

fn role(metrics: &Metrics) -> Role {
    if metrics.running_state.is_err() {
        return Role::Stopped;
    }
    match metrics.state {
        ServerState::Learner => Role::Learner,
        ServerState::Follower => Role::Follower,
        ServerState::Candidate => Role::Candidate,
        ServerState::Leader => Role::Leader,
        ServerState::Shutdown => Role::Stopped,
    }
}

fn followers(metrics: &Metrics, last_index: u64) -> BTreeMap<u64, FollowerStatus> {
    let heartbeat = |id: &u64| metrics.heartbeat.as_ref().and_then(|seen| *seen.get(id)?);
    let replication = metrics.replication.iter().flatten();
    let others = replication.filter(|(id, _)| **id != metrics.id);
    let status = |(id, matched): (&u64, &Option<_>)| {
        let matched = matched.as_ref().map_or(0, index_of);
        let silent = heartbeat(id).map(|at| at.elapsed());
        (*id, FollowerStatus { matched, lag: last_index.saturating_sub(matched), silent })
    };
    others.map(status).collect()
}

/// Who votes; while the members change, who did and who will.
pub(super) fn voters_of(metrics: &Metrics) -> BTreeSet<u64> {
    metrics.membership_config.membership().voter_ids().collect()
}

/// Turns openraft's metrics into leadership and voters, and its end into a reason, until it stops.
pub(super) async fn follow(
    mut metrics: MetricsWatch,
    leadership: watch::Sender<Leadership>,
    voters: watch::Sender<BTreeSet<u64>>,
    fatal: Fatal,
) {
    loop {
        let (seen, stopped) = {
            let metrics = metrics.borrow_watched();
            publish(&voters, voters_of(&metrics));
            (Leadership::of(&metrics), metrics.running_state.clone().err())
        };
        if let Some(stopped) = stopped {
            // Nobody leads from here, whatever the last metrics say.
            publish(&leadership, Leadership { mine: false, ready: false, leader: None, ..seen });
            match stopped {
                OpenraftFatal::Stopped => {}
                failed => fatal.raise(&format!("raft failed: {failed}")),
            }
            return;
        }
        publish(&leadership, seen);
        if metrics.changed().await.is_err() {
            fatal.raise("raft ended without saying why");
            publish(&leadership, Leadership::default());
            return;
        }
    }
}

fn publish<T: PartialEq>(watched: &watch::Sender<T>, seen: T) {
    watched.send_if_modified(|held| {
        let changed = *held != seen;
        *held = seen;
        changed
    });
}
