//! The pipeline against scripted nodes, over real sockets.

use std::pin::Pin;
use std::sync::Arc;

use anabranch_core::{NodeId, RegionName, ShardId};
use anabranch_proto::internal::raft_server::{Raft, RaftServer};
use openraft::vote::RaftVote;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response};

use super::super::identity::Identity;
use super::super::link::Dialer;
use super::super::network::{Factory, Use};
use super::super::types::{LeaderId, Node, Vote};
use super::*;
use crate::env::TokioNet;

const SOON: Duration = Duration::from_secs(10);
/// How long a leader waits for an answer, or for the end of a stream.
const PATIENCE: Duration = Duration::from_millis(200);

/// A node that answers every append, and never ends its half of a stream.
struct Endless;

impl Endless {
    fn refuse() -> Result<Response<Frame>, Status> {
        Err(Status::unimplemented("only appends"))
    }
}

#[tonic::async_trait]
impl Raft for Endless {
    type AppendStream = Pin<Box<dyn Stream<Item = Result<Frame, Status>> + Send>>;

    async fn append(
        &self,
        request: Request<Streaming<Frame>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let answer = |frame: Result<Frame, Status>| {
            let body = wire::append_reply(&Ok(None));
            frame.map(|frame| Frame { to: frame.from, from: frame.to, body, ..frame })
        };
        let answers = request.into_inner().map(answer);
        Ok(Response::new(Box::pin(answers.chain(stream::pending()))))
    }
    async fn vote(&self, _: Request<Frame>) -> Result<Response<Frame>, Status> {
        Self::refuse()
    }
    async fn pre_vote(&self, _: Request<Frame>) -> Result<Response<Frame>, Status> {
        Self::refuse()
    }
    async fn transfer_leader(&self, _: Request<Frame>) -> Result<Response<Frame>, Status> {
        Self::refuse()
    }
}

/// Serves `node` until the set is dropped; returns who talks to it.
async fn peer_of(node: impl Raft, tasks: &mut JoinSet<()>) -> Peer {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serving = tonic::transport::Server::builder()
        .add_service(RaftServer::new(node))
        .serve_with_incoming(TcpListenerStream::new(listener));
    tasks.spawn(async move { serving.await.unwrap() });
    let region = RegionName::new("us").unwrap();
    let factory = Factory {
        identity: Arc::new(Identity::new(region, NodeId(1))),
        shard: ShardId(0),
        dialer: Dialer::new(Arc::new(TokioNet), None, SOON),
        patience: PATIENCE,
        voters: watch::channel(Default::default()).1,
        acknowledged: Default::default(),
    };
    let node = Node { raft_address: address, api_address: String::new() };
    factory.peer(2, &node, Use::Replication)
}

fn request() -> AppendRequest {
    let vote = Vote::from_leader_id(LeaderId { term: 1, node_id: 1 }, true);
    AppendRequest { vote, prev_log_id: None, entries: Vec::new(), leader_commit: None }
}

#[tokio::test]
async fn a_stream_ends_when_all_is_answered_though_the_other_side_never_ends_it() {
    let mut tasks = JoinSet::new();
    let mut peer = peer_of(Endless, &mut tasks).await;
    let option = RPCOption::new(SOON);
    let three = stream::iter([request(), request(), request()]);
    let replies = append(&mut peer, three, &option).collect::<Vec<_>>();
    let replies = timeout(SOON, replies).await.expect("it ends by itself");
    assert_eq!(replies.len(), 3);
    assert!(replies.iter().all(|reply| matches!(reply, Ok(Ok(None)))), "{replies:?}");
}

#[tokio::test]
async fn why_a_node_refuses_is_news_once_until_it_takes_something() {
    let mut tasks = JoinSet::new();
    let mut peer = peer_of(Endless, &mut tasks).await;
    let news = ["its disk was lost", "its disk was lost", "it is another node"];
    assert_eq!(news.map(|reason| peer.is_news(reason)), [true, false, true]);
    peer.on_heard();
    assert!(peer.is_news("it is another node"));
}
