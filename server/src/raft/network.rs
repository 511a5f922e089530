//! Sending Raft's messages to other nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anabranch_core::{DecodeError, ShardId};
use anabranch_proto::internal::{Frame, raft_client::RaftClient};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use openraft::OptionalSend;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{Backoff, RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{AppendEntriesResponse, SnapshotResponse, TransferLeaderResponse};
use openraft::type_config::alias::SnapshotOf;
use parking_lot::Mutex;
use tokio::sync::watch;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use super::identity::Identity;
use super::link::{Dialer, Link};
use super::machine::no_snapshots;
use super::pipeline;
use super::types::{
    AppendReply, AppendRequest, LogId, Node, RpcError, TypeConfig, Vote, VoteReply, VoteRequest,
    index_of,
};
use super::wire;

/// First pause before an unreachable node is tried again; each further one is twice as long.
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
/// Longest pause.
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Makes a [`Peer`] for each other node.
pub(super) struct Factory {
    pub(super) identity: Arc<Identity>,
    pub(super) shard: ShardId,
    pub(super) dialer: Dialer,
    /// How long replication waits for an answer: a slow disk is no reason to reconnect.
    pub(super) patience: Duration,
    /// Who votes, as far as this node knows.
    pub(super) voters: watch::Receiver<BTreeSet<u64>>,
    pub(super) acknowledged: Acknowledged,
}

/// What each other node acknowledged last: to which vote, and the last entry, from 1. Both
/// conversations with a node know it.
#[derive(Debug, Clone, Default)]
pub(super) struct Acknowledged(Arc<Mutex<BTreeMap<u64, (Vote, u64)>>>);

impl Acknowledged {
    fn by(&self, node: u64, vote: &Vote) -> u64 {
        let known = self.0.lock().get(&node).copied();
        known.filter(|(to, _)| to == vote).map_or(0, |(_, index)| index)
    }
    fn note(&self, node: u64, vote: Vote, index: u64) {
        let index = self.by(node, &vote).max(index);
        self.0.lock().insert(node, (vote, index));
    }
}

/// Which of openraft's two conversations with a node this is. They have a connection each, so
/// that heartbeats do not queue behind megabytes of entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Replication,
    Heartbeat,
}

impl Factory {
    pub(super) fn peer(&self, target: u64, node: &Node, usage: Use) -> Peer {
        let link = Link::new(self.dialer.clone(), node.raft_address.clone(), self.patience);
        Peer {
            identity: Arc::clone(&self.identity),
            shard: self.shard,
            target,
            link,
            patience: self.patience,
            usage,
            voters: self.voters.clone(),
            acknowledged: self.acknowledged.clone(),
            refused: None,
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for Factory {
    type Network = Peer;
    async fn new_client(&mut self, target: u64, node: &Node) -> Peer {
        self.peer(target, node, Use::Replication)
    }
    async fn new_heartbeat_client(&mut self, target: u64, node: &Node) -> Peer {
        self.peer(target, node, Use::Heartbeat)
    }
}

/// One other node of the group.
pub(super) struct Peer {
    identity: Arc<Identity>,
    shard: ShardId,
    pub(super) target: u64,
    pub(super) link: Link,
    patience: Duration,
    usage: Use,
    voters: watch::Receiver<BTreeSet<u64>>,
    acknowledged: Acknowledged,
    /// Why it refused us last; none once it takes something again.
    refused: Option<String>,
}

impl Peer {
    pub(super) fn frame(&self, body: Bytes) -> Frame {
        self.identity.frame(self.shard, self.target, body)
    }

    /// An append, and what its receiver must remember to take it.
    pub(super) fn append_frame(&self, request: &AppendRequest) -> Frame {
        Frame {
            voter: self.voters.borrow().contains(&self.target),
            acknowledged: self.acknowledged.by(self.target, &request.vote),
            ..self.frame(wire::append_request(request))
        }
    }

    /// The other node has everything up to `matching`, as it says to the leader of `vote`.
    pub(super) fn on_acknowledged(&self, vote: Vote, matching: &LogId) {
        self.acknowledged.note(self.target, vote, index_of(matching));
    }

    /// How long to wait for the answer to an append. openraft gives up on a heartbeat by itself
    /// after its interval, on replication never.
    pub(super) fn append_deadline(&self, option: &RPCOption) -> Duration {
        match self.usage {
            Use::Replication => self.patience,
            Use::Heartbeat => option.soft_ttl(),
        }
    }

    pub(super) fn client(&mut self) -> Result<RaftClient<Channel>, RpcError> {
        self.link.client().map_err(|error| Unreachable::new(&error).into())
    }

    pub(super) fn on_silence(&mut self, action: RPCTypes, timeout: Duration) -> RpcError {
        self.link.on_silence();
        let (id, target) = (self.identity.node().0, self.target);
        Timeout { action, id, target, timeout }.into()
    }

    /// It took something.
    pub(super) fn on_heard(&mut self) {
        self.link.on_heard();
        self.refused = None;
    }

    /// Whether this is not why it refused us already: it is asked with every heartbeat.
    pub(super) fn is_news(&mut self, reason: &str) -> bool {
        let known = self.refused.as_deref() == Some(reason);
        self.refused = Some(reason.to_owned());
        !known
    }

    /// Sorts out what a failed call says about the connection.
    pub(super) fn on_status(&mut self, status: &Status) -> RpcError {
        match status.code() {
            // The other node refused us, over a connection that works.
            Code::FailedPrecondition => {
                if self.is_news(status.message()) {
                    let reason = status.message();
                    tracing::warn!(peer = self.target, reason, "refused by a node");
                }
            }
            Code::NotFound => self.link.on_heard(),
            _ => self.link.on_broken(),
        }
        Unreachable::new(status).into()
    }

    pub(super) fn on_nonsense(&mut self, error: &DecodeError) -> RpcError {
        self.link.on_broken();
        NetworkError::new(error).into()
    }

    async fn call<F>(
        &mut self,
        action: RPCTypes,
        option: &RPCOption,
        call: impl FnOnce(RaftClient<Channel>) -> F,
    ) -> Result<Bytes, RpcError>
    where
        F: Future<Output = Result<Response<Frame>, Status>>,
    {
        let client = self.client()?;
        let deadline = option.soft_ttl();
        match tokio::time::timeout(deadline, call(client)).await {
            Ok(Ok(response)) => {
                self.on_heard();
                Ok(response.into_inner().body)
            }
            Ok(Err(status)) => Err(self.on_status(&status)),
            Err(_) => Err(self.on_silence(action, deadline)),
        }
    }
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = ();

    async fn append_entries(
        &mut self,
        request: AppendRequest,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RpcError> {
        let once = futures_util::stream::iter([request]);
        let mut replies = pipeline::append(self, once, &option);
        let Some(reply) = replies.next().await else {
            return Err(NetworkError::from_string("append stream ended without a reply").into());
        };
        // The end comes with the answer. Left unread, it would cost a reset on every heartbeat.
        while reply.is_ok() && replies.next().await.is_some() {}
        Ok(reply?.into())
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<AppendReply, RpcError>>, RpcError>>
    where
        S: Stream<Item = AppendRequest> + OptionalSend + Unpin + 'static,
    {
        Box::pin(std::future::ready(Ok(pipeline::append(self, input, &option))))
    }

    async fn vote(
        &mut self,
        request: VoteRequest,
        option: RPCOption,
    ) -> Result<VoteReply, RpcError> {
        let frame = self.frame(wire::vote_request(&request));
        let body = self
            .call(RPCTypes::Vote, &option, |mut client| async move { client.vote(frame).await })
            .await?;
        wire::take_vote_reply(body).map_err(|error| self.on_nonsense(&error))
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest,
        option: RPCOption,
    ) -> Result<VoteReply, RpcError> {
        let frame = self.frame(wire::vote_request(&request));
        let body = self
            .call(RPCTypes::Vote, &option, |mut client| async move { client.pre_vote(frame).await })
            .await?;
        wire::take_vote_reply(body).map_err(|error| self.on_nonsense(&error))
    }

    async fn full_snapshot(
        &mut self,
        _: Vote,
        _: SnapshotOf<TypeConfig, ()>,
        _: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        Err(Unreachable::new(&no_snapshots()).into())
    }

    async fn transfer_leader(
        &mut self,
        request: wire::TransferRequest,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RpcError> {
        let frame = self.frame(wire::transfer_request(&request));
        let body = self
            .call(RPCTypes::TransferLeader, &option, |mut client| async move {
                client.transfer_leader(frame).await
            })
            .await?;
        wire::take_transfer_reply(body).map_err(|error| self.on_nonsense(&error))
    }

    fn backoff(&self) -> Option<Backoff> {
        let longer = |pause: &Duration| Some((*pause * 2).min(BACKOFF_MAX));
        Some(Backoff::new(std::iter::successors(Some(BACKOFF_FIRST), longer)))
    }
}
