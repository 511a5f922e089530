//! Proposing a command, and what is known when that fails.

use std::future::{Future, IntoFuture};
use std::time::Duration;

use anabranch_core::region::Outcome;
use bytes::Bytes;
use futures_util::FutureExt;
use openraft::errors::{ClientWriteError, ForwardReason, ForwardToLeader};
use openraft::impls::ProgressResponder;
use openraft::raft::ClientWriteResult;

use super::group::RaftGroup;
use super::types::{LeaderId, Node, Proposal, TypeConfig, index_of};

/// A command that is committed, applied on this node, and on the disks of a quorum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposed {
    /// Its place in the log, from 1.
    pub index: u64,
    /// Term of the leader that wrote it.
    pub term: u64,
    /// What applying it came to.
    pub outcome: Outcome,
}

/// Why a command is not known to be committed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Refused: this node does not lead, or no longer in the term asked for. Nothing was written.
    #[error("this node does not lead the shard, {}", known(.leader))]
    NotLeader {
        /// Who does, as far as this node knows.
        leader: Option<(u64, Node)>,
    },
    /// Refused: this node leads, but has not heard from a quorum lately. Nothing was written.
    #[error("the leader has not heard from a quorum lately")]
    NoQuorum,
    /// Refused: too many proposals wait already. Nothing was written.
    #[error("too many proposals are waiting")]
    Busy,
    /// Refused: the shard is stopped on this node. Nothing was written.
    #[error("the shard is stopped: {reason}")]
    Stopped {
        /// Why.
        reason: String,
    },
    /// It may have been written, and may yet be committed, by this leader or by the next.
    #[error("the outcome of the proposal is unknown: {reason}")]
    Unknown {
        /// What happened.
        reason: String,
    },
}

fn known(leader: &Option<(u64, Node)>) -> String {
    match leader {
        Some((id, _)) => format!("node {id} does"),
        None => "nobody is known to".to_owned(),
    }
}

impl ProposeError {
    /// True if it is certain that nothing was written.
    pub fn refused(&self) -> bool {
        !matches!(self, Self::Unknown { .. })
    }
}

impl RaftGroup {
    /// Proposes an encoded command.
    ///
    /// It takes its place in the queue during this call, before the future is polled: the order of
    /// calls is the order in the log. The future may be dropped; the proposal goes on. There is no
    /// deadline: a leader that was cut off answers when it is back. A caller that stops waiting
    /// knows as much as with [`ProposeError::Unknown`].
    ///
    /// # Errors
    /// [`ProposeError`]; only [`ProposeError::Unknown`] leaves it open whether it was written.
    pub fn propose(
        &self,
        payload: Bytes,
    ) -> impl Future<Output = Result<Proposed, ProposeError>> + Send + use<> {
        self.submit(payload, None)
    }

    /// Like [`propose`](Self::propose), but only in the leadership of this node that `term` names:
    /// what was computed from the state of one leadership cannot slip into a later one.
    pub fn propose_in(
        &self,
        term: u64,
        payload: Bytes,
    ) -> impl Future<Output = Result<Proposed, ProposeError>> + Send + use<> {
        let node_id = self.identity().node().0;
        self.submit(payload, Some(LeaderId { term, node_id }))
    }

    fn submit(
        &self,
        payload: Bytes,
        leader: Option<LeaderId>,
    ) -> impl Future<Output = Result<Proposed, ProposeError>> + Send + use<> {
        let (responder, reply) = Responder::complete_only();
        let mut write = self.raft().write(Proposal(payload)).responder(responder);
        if let Some(leader) = leader {
            write = write.with_leader(leader);
        }
        // Enqueues at once or not at all. Unconstrained: a task that used up its share of polls
        // would be told to wait although there is room. Not at all once Raft has stopped: its queue
        // may stay open for a moment, and what is put there would have an unknown outcome.
        let stopped = self.stop_reason().is_some();
        let enqueue = || tokio::task::unconstrained(write.into_future()).now_or_never();
        let enqueued = if stopped { None } else { enqueue() };
        let group = self.clone();
        async move {
            match enqueued {
                Some(Ok(())) => {}
                Some(Err(fatal)) => return Err(group.stopped(&fatal.to_string())),
                None => return Err(group.not_enqueued()),
            }
            match reply.await {
                Ok(Ok(written)) => Ok(Proposed {
                    index: index_of(&written.log_id),
                    term: written.log_id.leader_id.term,
                    outcome: written.data,
                }),
                Ok(Err(error)) => Err(classify(error)),
                // Raft stopped with the proposal in its hands.
                Err(_) => {
                    let reason = group.stop_reason().unwrap_or_else(|| "raft stopped".to_owned());
                    Err(ProposeError::Unknown { reason })
                }
            }
        }
    }

    fn not_enqueued(&self) -> ProposeError {
        match self.stop_reason() {
            Some(reason) => ProposeError::Stopped { reason },
            None => ProposeError::Busy,
        }
    }
    fn stopped(&self, fallback: &str) -> ProposeError {
        let reason = self.stop_reason().unwrap_or_else(|| fallback.to_owned());
        ProposeError::Stopped { reason }
    }
}

type Responder = ProgressResponder<TypeConfig, ClientWriteResult<TypeConfig>>;

/// openraft's errors say precisely whether an entry was appended to the log.
fn classify(error: ClientWriteError<TypeConfig>) -> ProposeError {
    match error {
        ClientWriteError::ForwardToLeader(forward) => refused(forward),
        ClientWriteError::LogEntryDiscarded(_) => ProposeError::Unknown {
            reason: "the entry was replaced by another leader's on this node".to_owned(),
        },
        // Not errors of a command. Treated as the case that promises nothing.
        ClientWriteError::ChangeMembershipError(_) | ClientWriteError::PreconditionFailed(_) => {
            ProposeError::Unknown { reason: error.to_string() }
        }
    }
}

/// What it means that openraft would not take a write.
pub(super) fn refused(forward: ForwardToLeader<TypeConfig>) -> ProposeError {
    match forward.reason {
        ForwardReason::LeaseExpired => ProposeError::NoQuorum,
        ForwardReason::NotLeader | ForwardReason::LeadershipTransfer => {
            ProposeError::NotLeader { leader: forward.leader_id.zip(forward.leader_node) }
        }
    }
}

/// Why a read cannot be promised to see every write acknowledged before it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadIndexError {
    /// This node does not lead. Ask the one that does.
    #[error("this node does not lead the shard, {}", known(.leader))]
    NotLeader {
        /// Who does, as far as this node knows.
        leader: Option<(u64, Node)>,
    },
    /// No quorum confirmed in time that this node still leads.
    #[error("no quorum confirmed the leader within {deadline:?}")]
    NoQuorum {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn forward(reason: ForwardReason) -> ForwardToLeader<TypeConfig> {
        let node = Node { raft_address: "a:1".into(), api_address: "b:1".into() };
        ForwardToLeader::new(3, node).with_reason(reason)
    }

    #[test]
    fn only_an_entry_that_was_appended_is_unknown() {
        let cases = [
            (ClientWriteError::ForwardToLeader(forward(ForwardReason::NotLeader)), true),
            (ClientWriteError::ForwardToLeader(forward(ForwardReason::LeadershipTransfer)), true),
            (ClientWriteError::ForwardToLeader(forward(ForwardReason::LeaseExpired)), true),
            (ClientWriteError::LogEntryDiscarded(forward(ForwardReason::NotLeader)), false),
        ];
        for (error, expected) in cases {
            let text = error.to_string();
            assert_eq!(classify(error).refused(), expected, "{text}");
        }
        let expired = ClientWriteError::ForwardToLeader(forward(ForwardReason::LeaseExpired));
        assert_eq!(classify(expired), ProposeError::NoQuorum);
    }
}
