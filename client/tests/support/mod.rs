//! A node that answers from a script, on loopback, and writes down what it was asked.
#![allow(dead_code)]

mod aggregates;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anabranch_core::{
    Context, Cursor, Dot, EventId, Incarnation, Origin, ReadOrder, RegionName, Seq, SessionToken,
    ShardId,
};
use anabranch_proto::v1;
use anabranch_proto::v1::aggregates_server::AggregatesServer;
use anabranch_proto::v1::append_many_response::Outcome;
use anabranch_proto::v1::events_server::{Events, EventsServer};
use anabranch_proto::v1::read_response::{Batch, CaughtUp, Frame};
use futures_util::stream::iter;
use futures_util::{Stream, StreamExt};
use parking_lot::Mutex;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

#[allow(unused_imports, reason = "not every test is about aggregates")]
pub use aggregates::{AggregateScript, aggregate};

/// What a node does with the next append.
pub enum Answer {
    Accept,
    Refuse(Status),
    /// Never answers.
    Hang,
    /// Ends the call that it shares with others, without an answer.
    EndCall,
}

const END_CALL: &str = "end the call";

/// What a node does with the next read: frames, then how it ends.
pub struct Answers {
    pub frames: Vec<v1::ReadResponse>,
    pub end: End,
}
pub enum End {
    Clean,
    Broken(Status),
    /// Stays open and silent.
    Open,
}

#[derive(Default)]
pub struct Script {
    pub appends: VecDeque<Answer>,
    pub reads: VecDeque<Answers>,
    pub appended: Vec<v1::AppendRequest>,
    pub read: Vec<v1::ReadRequest>,
    /// Calls of many appends.
    pub lanes: u32,
    pub aggregates: AggregateScript,
}

#[derive(Clone)]
pub struct Node {
    pub address: String,
    pub script: Arc<Mutex<Script>>,
    /// Whether it knows calls of many appends.
    lanes: bool,
}

impl Node {
    /// A node that accepts every append and has nothing to read until it is told otherwise.
    pub async fn start() -> Self {
        Self::serve("http", Server::builder(), true).await
    }
    /// One of a release that takes every append in a call of its own.
    pub async fn start_old() -> Self {
        Self::serve("http", Server::builder(), false).await
    }
    /// The same over TLS.
    pub async fn start_tls(tls: ServerTlsConfig) -> Self {
        Self::serve("https", Server::builder().tls_config(tls).unwrap(), true).await
    }
    async fn serve(scheme: &str, mut server: Server, lanes: bool) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("{scheme}://{}", listener.local_addr().unwrap());
        let node = Self { address, script: Arc::default(), lanes };
        let server = server
            .add_service(EventsServer::new(node.clone()))
            .add_service(AggregatesServer::new(node.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(server);
        node
    }
    pub fn on_append(&self, answer: Answer) -> &Self {
        self.script.lock().appends.push_back(answer);
        self
    }
    pub fn on_read(&self, frames: Vec<v1::ReadResponse>, end: End) -> &Self {
        self.script.lock().reads.push_back(Answers { frames, end });
        self
    }
    pub fn appended(&self) -> Vec<v1::AppendRequest> {
        self.script.lock().appended.clone()
    }
    pub fn asked(&self) -> Vec<v1::ReadRequest> {
        self.script.lock().read.clone()
    }

    fn accepted(&self, request: &v1::AppendRequest, repeated: bool) -> v1::AppendResponse {
        let first = dot("us", 1);
        v1::AppendResponse {
            first: Some((&first).into()),
            events: request.events.len() as u32,
            revisions: vec![v1::StreamRevision { stream: "cart-1".into(), last_revision: 0 }],
            session_token: token(&[("us", 1)]),
            repeated,
            regions: 1,
            ..Default::default()
        }
    }
}

#[tonic::async_trait]
impl Events for Node {
    async fn append(
        &self,
        request: Request<v1::AppendRequest>,
    ) -> Result<Response<v1::AppendResponse>, Status> {
        let request = request.into_inner();
        let (answer, repeated) = {
            let mut script = self.script.lock();
            let repeated = script.appended.iter().any(|seen| seen.producer == request.producer);
            script.appended.push(request.clone());
            (script.appends.pop_front(), repeated)
        };
        match answer {
            Some(Answer::EndCall) => Err(Status::data_loss(END_CALL)),
            None | Some(Answer::Accept) => Ok(Response::new(self.accepted(&request, repeated))),
            Some(Answer::Refuse(status)) => Err(status),
            Some(Answer::Hang) => std::future::pending().await,
        }
    }

    type AppendManyStream =
        Pin<Box<dyn Stream<Item = Result<v1::AppendManyResponse, Status>> + Send>>;

    async fn append_many(
        &self,
        request: Request<Streaming<v1::AppendManyRequest>>,
    ) -> Result<Response<Self::AppendManyStream>, Status> {
        if !self.lanes {
            return Err(Status::unimplemented("no such call"));
        }
        self.script.lock().lanes += 1;
        let node = self.clone();
        let answers = request.into_inner().map(move |asked| {
            let node = node.clone();
            async move {
                let v1::AppendManyRequest { number, append, .. } = asked?;
                let outcome = match node.append(Request::new(append.unwrap())).await {
                    Ok(response) => Outcome::Appended(response.into_inner()),
                    Err(status) if status.message() == END_CALL => return Err(status),
                    Err(status) => Outcome::Failed((&status).into()),
                };
                Ok(v1::AppendManyResponse { number, outcome: Some(outcome) })
            }
        });
        Ok(Response::new(answers.buffer_unordered(64).boxed()))
    }

    type ReadStream = Pin<Box<dyn Stream<Item = Result<v1::ReadResponse, Status>> + Send>>;

    async fn read(
        &self,
        request: Request<v1::ReadRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let request = request.into_inner();
        let answers = {
            let mut script = self.script.lock();
            script.read.push(request);
            script.reads.pop_front()
        };
        let Some(Answers { frames, end }) = answers else {
            return Ok(Response::new(iter([]).boxed()));
        };
        let frames = iter(frames.into_iter().map(Ok));
        Ok(Response::new(match end {
            End::Clean => frames.boxed(),
            End::Broken(status) => frames.chain(iter([Err(status)])).boxed(),
            End::Open => frames.chain(futures_util::stream::pending()).boxed(),
        }))
    }
}

pub fn origin(region: &str) -> Origin {
    let region = RegionName::new(region).unwrap();
    Origin { region, incarnation: Incarnation(1), shard: ShardId(0) }
}
pub fn dot(region: &str, seq: u64) -> Dot {
    Dot { origin: origin(region), seq: Seq(seq) }
}
pub fn cut(seqs: &[(&str, u64)]) -> Context {
    seqs.iter().map(|(region, seq)| (origin(region), Seq(*seq))).collect()
}
pub fn cursor(seqs: &[(&str, u64)]) -> Cursor {
    Cursor { order: ReadOrder::Regional, context: cut(seqs) }
}
pub fn token(seqs: &[(&str, u64)]) -> bytes::Bytes {
    SessionToken { context: cut(seqs) }.encode()
}

/// A batch of events whose cursor is `end`.
pub fn batch(events: &[(&str, u64)], end: &[(&str, u64)]) -> v1::ReadResponse {
    let recorded = |(region, seq): &(&str, u64)| {
        let dot = dot(region, *seq);
        v1::RecordedEvent {
            id: EventId::of_dot(&dot).0.to_vec().into(),
            dot: Some((&dot).into()),
            stream: "cart-1".into(),
            r#type: "Happened".into(),
            position: 10 * seq,
            revision: *seq,
            ..Default::default()
        }
    };
    let events = events.iter().map(recorded).collect();
    frame(Frame::Batch(Batch { events, runs: Vec::new() }), end)
}
pub fn caught_up(end: &[(&str, u64)]) -> v1::ReadResponse {
    frame(Frame::CaughtUp(CaughtUp {}), end)
}
fn frame(frame: Frame, end: &[(&str, u64)]) -> v1::ReadResponse {
    v1::ReadResponse { frame: Some(frame), cursor: cursor(end).encode(), session_token: token(end) }
}

pub const SHORT: Duration = Duration::from_millis(400);
