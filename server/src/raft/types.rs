//! The types openraft is instantiated with.

use std::fmt;

use anabranch_core::region::Outcome;
use bytes::Bytes;
use openraft::impls::leader_id_adv;
use openraft_rt::deterministic_rng::DeterministicRng;
use openraft_rt_tokio::TokioRuntime;

use super::machine::StateMachine;

/// Tokio, with openraft's random numbers drawn from a seed of the group.
///
/// Every call that makes openraft spawn a task or draw a number must run inside
/// [`DeterministicRng::scope`], or it panics: that is building the group and `stream_append`, both
/// in this folder, and nothing else; tasks inherit the scope they were spawned in.
pub type Runtime = DeterministicRng<TokioRuntime>;

openraft::declare_raft_types!(
    /// What a Raft group of ours replicates.
    pub TypeConfig:
        D = Proposal,
        R = Outcome,
        NodeId = u64,
        Node = Node,
        AsyncRuntime = Runtime,
);

pub(super) type Raft = openraft::Raft<TypeConfig, StateMachine>;
pub(super) type LeaderId = leader_id_adv::LeaderId<u64, u64>;
pub(super) type LogId = openraft::LogId<LeaderId>;
pub(super) type Vote = openraft::impls::Vote<LeaderId>;
pub(super) type Membership = openraft::Membership<u64, Node>;
pub(super) type StoredMembership = openraft::StoredMembership<LeaderId, u64, Node>;
pub(super) type Payload = openraft::EntryPayload<Proposal, u64, Node>;
pub(super) type Entry = openraft::Entry<LeaderId, Payload>;
pub(super) type AppendRequest = openraft::raft::AppendEntriesRequest<TypeConfig>;
pub(super) type AppendReply = openraft::raft::StreamAppendResult<TypeConfig>;
pub(super) type VoteRequest = openraft::raft::VoteRequest<TypeConfig>;
pub(super) type VoteReply = openraft::raft::VoteResponse<TypeConfig>;
pub(super) type RpcError = openraft::errors::RPCError<TypeConfig>;

/// Number of an entry in the log, as everyone outside this folder counts: from 1.
///
/// openraft counts from 0. The difference is made here and nowhere else.
pub(super) fn index_of(id: &LogId) -> u64 {
    id.index + 1
}

/// Where a member of the group is reached.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node {
    /// `host:port` of its Raft listener.
    pub raft_address: String,
    /// `host:port` of its public API, for redirects.
    pub api_address: String,
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "raft {} and api {}", self.raft_address, self.api_address)
    }
}

/// The encoded command of one entry. Cheap to clone: openraft clones it for every follower.
#[derive(Clone, PartialEq, Eq)]
pub struct Proposal(pub Bytes);

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "command of {} bytes", self.0.len())
    }
}
