//! Receiving Raft's messages from other nodes: every shard of a node behind one listener.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use anabranch_core::{DecodeError, ShardId};
use anabranch_proto::internal::Frame;
use anabranch_proto::internal::raft_server::{Raft as RaftRpc, RaftServer};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use parking_lot::{Mutex, RwLock};
use tonic::{Request, Response, Status, Streaming};

use super::group::RaftGroup;
use super::identity::{Identity, Misdirected};
use super::link::MESSAGE_BYTES;
use super::memory::Forgotten;
use super::types::AppendRequest;
use super::wire;

/// Takes Raft messages for the shards mounted on it. Cheap to clone.
///
/// A message of another region, another incarnation, or for another node is refused before Raft
/// sees it.
#[derive(Clone)]
pub struct RaftService {
    identity: Arc<Identity>,
    shards: Arc<RwLock<BTreeMap<ShardId, RaftGroup>>>,
}

/// Frames going back to the caller.
pub type Replies = Pin<Box<dyn Stream<Item = Result<Frame, Status>> + Send>>;

impl RaftService {
    /// A service without shards.
    pub fn new(identity: Arc<Identity>) -> Self {
        Self { identity, shards: Arc::default() }
    }
    /// Lets messages through to a shard.
    pub fn mount(&self, group: &RaftGroup) {
        self.shards.write().insert(group.shard(), group.clone());
    }
    /// Stops letting messages through to a shard.
    pub fn unmount(&self, shard: ShardId) {
        self.shards.write().remove(&shard);
    }
    /// The tonic service, to be served on the node's Raft listener.
    pub fn server(&self) -> RaftServer<Self> {
        RaftServer::new(self.clone())
            .max_decoding_message_size(MESSAGE_BYTES)
            .max_encoding_message_size(MESSAGE_BYTES)
    }

    /// The shard a frame is for, if the frame may reach it.
    fn route(&self, frame: &Frame) -> Result<RaftGroup, Status> {
        let shard = self.identity.admit(frame).map_err(|error| refuse(&error))?;
        let group = self.shards.read().get(&shard).cloned();
        group.ok_or_else(|| refuse(&Misdirected::Shard { shard: frame.shard }))
    }

    fn reply(&self, to: &Frame, body: Bytes) -> Response<Frame> {
        Response::new(self.reply_frame(to.shard, to.from, body))
    }
    fn reply_frame(&self, shard: u32, to: u64, body: Bytes) -> Frame {
        // The shard came through `admit`, so it fits.
        let shard = ShardId(u16::try_from(shard).unwrap_or_default());
        self.identity.frame(shard, to, body)
    }

    async fn answer_appends(self, mut frames: Streaming<Frame>) -> Result<Replies, Status> {
        let Some(first) = frames.message().await? else {
            return Ok(Box::pin(stream::empty()));
        };
        let group = self.route(&first)?;
        let (shard, from) = (first.shard, first.from);
        let fault = Arc::new(Mutex::new(None));
        let requests = Incoming {
            service: self.clone(),
            group: group.clone(),
            first: Some(first),
            frames,
            from,
            shard,
        };
        let requests = requests.into_stream(Arc::clone(&fault));
        let replies = group.stream_append(requests);
        let replies = replies.map(move |reply| match reply {
            Ok(reply) => Ok(self.reply_frame(shard, from, wire::append_reply(&reply))),
            Err(fatal) => Err(Status::unavailable(fatal.to_string())),
        });
        // Once Raft answered all that came through, say why the rest did not.
        let fault = stream::once(async move { fault.lock().take() });
        let fault = fault.filter_map(|fault| std::future::ready(fault.map(Err)));
        Ok(Box::pin(replies.chain(fault)))
    }
}

/// The appends of one caller, checked frame by frame.
struct Incoming {
    service: RaftService,
    group: RaftGroup,
    first: Option<Frame>,
    frames: Streaming<Frame>,
    from: u64,
    shard: u32,
}

impl Incoming {
    /// Ends at the first frame that cannot be let through, leaving the reason in `fault`.
    fn into_stream(
        self,
        fault: Arc<Mutex<Option<Status>>>,
    ) -> impl Stream<Item = AppendRequest> + Send + 'static {
        stream::unfold((self, fault), |(mut incoming, fault)| async move {
            match incoming.next().await {
                Ok(Some(request)) => Some((request, (incoming, fault))),
                Ok(None) => None,
                Err(status) => {
                    *fault.lock() = Some(status);
                    None
                }
            }
        })
    }

    async fn next(&mut self) -> Result<Option<AppendRequest>, Status> {
        // Memory is lost between two streams, never within one.
        if let Some(first) = self.first.take() {
            let request = self.take(first.clone())?;
            self.group.check_append(&first, &request).map_err(|error| forgot(&error))?;
            return Ok(Some(request));
        }
        match self.frames.message().await? {
            Some(frame) => {
                self.group.heard_a_leader();
                self.take(frame).map(Some)
            }
            None => Ok(None),
        }
    }

    fn take(&self, frame: Frame) -> Result<AppendRequest, Status> {
        self.service.identity.admit(&frame).map_err(|error| refuse(&error))?;
        if (frame.from, frame.shard) != (self.from, self.shard) {
            return Err(Status::invalid_argument("sender or shard changed within a stream"));
        }
        wire::take_append_request(frame.body).map_err(|error| undecodable(&error))
    }
}

fn refuse(error: &Misdirected) -> Status {
    match error {
        // Not an error of the caller's: the shard may be opening.
        Misdirected::Shard { .. } => Status::not_found(error.to_string()),
        Misdirected::Region { .. }
        | Misdirected::Incarnation { .. }
        | Misdirected::IncarnationLength { .. }
        | Misdirected::Node { .. } => Status::failed_precondition(error.to_string()),
    }
}

fn forgot(error: &Forgotten) -> Status {
    Status::failed_precondition(error.to_string())
}

fn undecodable(error: &DecodeError) -> Status {
    Status::invalid_argument(error.to_string())
}

fn stopped(error: &impl std::fmt::Display) -> Status {
    Status::unavailable(error.to_string())
}

#[tonic::async_trait]
impl RaftRpc for RaftService {
    type AppendStream = Replies;

    async fn append(
        &self,
        request: Request<Streaming<Frame>>,
    ) -> Result<Response<Replies>, Status> {
        // The response begins at once; a leader may have nothing to send for a while.
        let answering = self.clone().answer_appends(request.into_inner());
        Ok(Response::new(Box::pin(stream::once(answering).try_flatten())))
    }

    async fn vote(&self, request: Request<Frame>) -> Result<Response<Frame>, Status> {
        let frame = request.into_inner();
        let group = self.route(&frame)?;
        let asked = wire::take_vote_request(frame.body.clone());
        let asked = asked.map_err(|error| undecodable(&error))?;
        group.check_vote(&frame, &asked).map_err(|error| forgot(&error))?;
        let reply = group.raft().vote(asked).await.map_err(|error| stopped(&error))?;
        Ok(self.reply(&frame, wire::vote_reply(&reply)))
    }

    async fn pre_vote(&self, request: Request<Frame>) -> Result<Response<Frame>, Status> {
        let frame = request.into_inner();
        let group = self.route(&frame)?;
        let asked = wire::take_vote_request(frame.body.clone());
        let asked = asked.map_err(|error| undecodable(&error))?;
        group.check_vote(&frame, &asked).map_err(|error| forgot(&error))?;
        let reply = group.raft().pre_vote(asked).await.map_err(|error| stopped(&error))?;
        Ok(self.reply(&frame, wire::vote_reply(&reply)))
    }

    async fn transfer_leader(&self, request: Request<Frame>) -> Result<Response<Frame>, Status> {
        let frame = request.into_inner();
        let group = self.route(&frame)?;
        let asked = wire::take_transfer_request(frame.body.clone());
        let asked = asked.map_err(|error| undecodable(&error))?;
        let reply = group.raft().handle_transfer_leader(asked).await;
        let reply = reply.map_err(|error| stopped(&error))?;
        Ok(self.reply(&frame, wire::transfer_reply(&reply)))
    }
}
