//! UmaDB, one node, over gRPC. A batch is one `Append` without a condition; the stream is a tag. It
//! syncs before it answers, and groups the appends of several clients.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use async_trait::async_trait;
use bytes::Bytes;
use tonic::Streaming;
use tonic::transport::Channel;

use super::grpc;
use super::peer::{LAG_STREAM, Peer, Running, Subscriber, fetched};
use super::servers::Servers;
use crate::writers::Writer;

const PORT: u16 = 19_400;
/// Events in one message of a replay.
const AT_ONCE: u32 = 1_000;
const APPEND: &str = "/umadb.v1.DCB/Append";
const READ: &str = "/umadb.v1.DCB/Read";
const SUBSCRIBE: &str = "/umadb.v1.DCB/Subscribe";
const HEAD: &str = "/umadb.v1.DCB/Head";

/// As `benches/peers.sh` fetches it: the server in the Python package, which is the Rust one.
pub struct UmaDb {
    binary: PathBuf,
}

impl UmaDb {
    /// Below the peers' folder.
    pub fn below(peers: &Path) -> Self {
        Self { binary: peers.join("venv/bin/umadb") }
    }
}

#[async_trait]
impl Peer for UmaDb {
    fn name(&self) -> &'static str {
        "UmaDB"
    }
    fn missing(&self) -> Option<String> {
        fetched(&self.binary)
    }
    async fn start(&self, folder: &Path) -> anyhow::Result<Box<dyn Running>> {
        let data = folder.join("uma.db").display().to_string();
        let args = ["--listen".into(), format!("127.0.0.1:{PORT}"), "--db-path".into(), data];
        Ok(Box::new(Started(Servers::start(
            &self.binary,
            folder,
            "umadb",
            |_| {},
            &[args.into()],
        )?)))
    }
}

struct Started(Servers);

#[async_trait]
impl Running for Started {
    fn pids(&self) -> anyhow::Result<Vec<u32>> {
        self.0.pids()
    }
    async fn writer(&self) -> anyhow::Result<Box<dyn Writer>> {
        Ok(Box::new(Connection(grpc::connect(&[PORT]).await?)))
    }
    async fn replay(&self) -> anyhow::Result<u64> {
        let channel = grpc::connect(&[PORT]).await?;
        let asks = ReadRequest { query: None, start: None, batch_size: Some(AT_ONCE) };
        let mut pages: Streaming<Events> = grpc::stream(&channel, READ, once(asks)).await?;
        let mut read = 0;
        while let Some(page) = pages.message().await? {
            for event in page.events {
                read += 1;
                let at = event.position;
                ensure!(at == read, "event {read} is at {at}");
                event.event.context("a position without an event")?;
            }
        }
        Ok(read)
    }
    async fn subscriber(&self) -> anyhow::Result<Box<dyn Subscriber>> {
        let channel = grpc::connect(&[PORT]).await?;
        let head: Head = grpc::call(&channel, HEAD, Nothing {}).await?;
        let item = QueryItem { types: Vec::new(), tags: vec![LAG_STREAM.to_owned()] };
        let query = Some(Query { items: vec![item] });
        let asks = SubscribeRequest { query, after: head.position, batch_size: None };
        let pages = grpc::stream(&channel, SUBSCRIBE, once(asks)).await?;
        Ok(Box::new(Subscribed { pages, come: Vec::new().into_iter() }))
    }
}

/// A request of one message.
fn once<M: Send + 'static>(message: M) -> impl tonic::IntoStreamingRequest<Message = M> {
    tonic::codegen::tokio_stream::once(message)
}

struct Connection(Channel);

#[async_trait]
impl Writer for Connection {
    async fn append(&mut self, stream: &str, payloads: Vec<Bytes>) -> anyhow::Result<()> {
        let event =
            |data| Event { event_type: "Measured".to_owned(), tags: vec![stream.to_owned()], data };
        let events = payloads.into_iter().map(event).collect();
        let done: Appended = grpc::call(&self.0, APPEND, AppendRequest { events }).await?;
        ensure!(done.position > 0, "appended nowhere");
        Ok(())
    }
}

struct Subscribed {
    pages: Streaming<Events>,
    come: std::vec::IntoIter<Sequenced>,
}

#[async_trait]
impl Subscriber for Subscribed {
    async fn next(&mut self) -> anyhow::Result<Bytes> {
        loop {
            if let Some(event) = self.come.next() {
                return Ok(event.event.context("a position without an event")?.data);
            }
            let page = self.pages.message().await?.context("the subscription ended")?;
            self.come = page.events.into_iter();
        }
    }
}

// The messages of umadb.v1 0.7, as far as they are used here.

#[derive(Clone, PartialEq, prost::Message)]
struct Event {
    #[prost(string, tag = "1")]
    event_type: String,
    #[prost(string, repeated, tag = "2")]
    tags: Vec<String>,
    #[prost(bytes = "bytes", tag = "3")]
    data: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Sequenced {
    #[prost(uint64, tag = "1")]
    position: u64,
    #[prost(message, optional, tag = "2")]
    event: Option<Event>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Events {
    #[prost(message, repeated, tag = "1")]
    events: Vec<Sequenced>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AppendRequest {
    #[prost(message, repeated, tag = "1")]
    events: Vec<Event>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Appended {
    #[prost(uint64, tag = "1")]
    position: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct QueryItem {
    #[prost(string, repeated, tag = "1")]
    types: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    tags: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Query {
    #[prost(message, repeated, tag = "1")]
    items: Vec<QueryItem>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ReadRequest {
    #[prost(message, optional, tag = "1")]
    query: Option<Query>,
    #[prost(uint64, optional, tag = "2")]
    start: Option<u64>,
    #[prost(uint32, optional, tag = "6")]
    batch_size: Option<u32>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SubscribeRequest {
    #[prost(message, optional, tag = "1")]
    query: Option<Query>,
    #[prost(uint64, optional, tag = "2")]
    after: Option<u64>,
    #[prost(uint32, optional, tag = "3")]
    batch_size: Option<u32>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Nothing {}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Head {
    #[prost(uint64, optional, tag = "1")]
    position: Option<u64>,
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn an_append_is_encoded_as_its_contract_says() {
        let event = Event {
            event_type: "T".into(),
            tags: vec!["s".into()],
            data: Bytes::from_static(b"\x07"),
        };
        let bytes = AppendRequest { events: vec![event] }.encode_to_vec();
        // Field 1, nine bytes: a string T as 1, a string s as 2, a byte 7 as 3.
        assert_eq!(bytes, b"\x0a\x09\x0a\x01T\x12\x01s\x1a\x01\x07");
    }
}
