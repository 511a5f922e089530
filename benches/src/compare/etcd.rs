//! etcd, three nodes, over gRPC. Each event is a key `e/stream/number`, its value the type and the
//! payload. A batch is one transaction of puts (`--max-txn-ops` raised); one event is one put. Replay
//! goes through all keys in their own order: etcd has no order of writing to read in.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, ensure};
use async_trait::async_trait;
use bytes::Bytes;
use tonic::Streaming;
use tonic::transport::Channel;

use super::grpc;
use super::peer::{LAG_STREAM, Peer, Running, Subscriber, fetched};
use super::servers::Servers;
use crate::writers::Writer;

/// For clients; those between nodes are ten further up.
const FIRST_PORT: u16 = 19_440;
const NODES: u16 = 3;
/// Keys in one answer of a replay.
const PAGE: i64 = 10_000;
const PUT: &str = "/etcdserverpb.KV/Put";
const TXN: &str = "/etcdserverpb.KV/Txn";
const RANGE: &str = "/etcdserverpb.KV/Range";
const WATCH: &str = "/etcdserverpb.Watch/Watch";
const STATUS: &str = "/etcdserverpb.Maintenance/Status";

/// Three nodes.
pub struct Etcd {
    binary: PathBuf,
}

impl Etcd {
    /// Below the peers' folder.
    pub fn below(peers: &Path) -> Self {
        Self { binary: peers.join("root/usr/bin/etcd") }
    }
}

fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

fn args(node: u16, folder: &Path) -> Vec<String> {
    let (client, peer) = (url(FIRST_PORT + node), url(FIRST_PORT + 10 + node));
    let member = |node| format!("n{node}={}", url(FIRST_PORT + 10 + node));
    let members = (1..=NODES).map(member).collect::<Vec<_>>().join(",");
    let options = [
        ("--name", format!("n{node}")),
        ("--data-dir", folder.join(format!("n{node}")).display().to_string()),
        ("--listen-client-urls", client.clone()),
        ("--advertise-client-urls", client),
        ("--listen-peer-urls", peer.clone()),
        ("--initial-advertise-peer-urls", peer),
        ("--initial-cluster", members),
        ("--max-txn-ops", "10000".into()),
        ("--max-request-bytes", (16 << 20).to_string()),
        ("--quota-backend-bytes", (8_u64 << 30).to_string()),
        ("--log-level", "error".into()),
    ];
    options.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
}

#[async_trait]
impl Peer for Etcd {
    fn name(&self) -> &'static str {
        "etcd ×3"
    }
    fn nodes(&self) -> u16 {
        NODES
    }
    fn missing(&self) -> Option<String> {
        fetched(&self.binary)
    }
    async fn start(&self, folder: &Path) -> anyhow::Result<Box<dyn Running>> {
        let nodes: Vec<_> = (1..=NODES).map(|node| args(node, folder)).collect();
        let servers = Servers::start(&self.binary, folder, "etcd", |_| {}, &nodes)?;
        Ok(Box::new(Started { servers, connected: AtomicU64::new(0) }))
    }
}

struct Started {
    servers: Servers,
    /// Connections so far: they go to the nodes by turns.
    connected: AtomicU64,
}

impl Started {
    async fn connect(&self) -> anyhow::Result<Channel> {
        let mut ports: Vec<u16> = (1..=NODES).map(|node| FIRST_PORT + node).collect();
        let nth = self.connected.fetch_add(1, Ordering::Relaxed);
        ports.rotate_left((nth % u64::from(NODES)) as usize);
        grpc::connect(&ports).await
    }
}

#[async_trait]
impl Running for Started {
    fn pids(&self) -> anyhow::Result<Vec<u32>> {
        self.servers.pids()
    }
    async fn writer(&self) -> anyhow::Result<Box<dyn Writer>> {
        Ok(Box::new(Connection { channel: self.connect().await?, written: 0 }))
    }
    async fn replay(&self) -> anyhow::Result<u64> {
        let channel = self.connect().await?;
        let mut key = Bytes::from_static(b"e/");
        let mut read = 0;
        loop {
            let range_end = Bytes::from_static(b"e0");
            let asks = RangeRequest { key: key.clone(), range_end, limit: PAGE };
            let page: RangeResponse = grpc::call(&channel, RANGE, asks).await?;
            for found in &page.kvs {
                ensure!(found.key >= key, "{:?} after {key:?}", found.key);
                key = found.key.clone();
            }
            read += page.kvs.len() as u64;
            if !page.more {
                return Ok(read);
            }
            // The next key there can be.
            key = [&key[..], b"\0"].concat().into();
        }
    }
    async fn subscriber(&self) -> anyhow::Result<Box<dyn Subscriber>> {
        let channel = self.connect().await?;
        let create = WatchCreate {
            key: format!("e/{LAG_STREAM}/").into(),
            range_end: format!("e/{LAG_STREAM}0").into(),
        };
        let asks = tonic::codegen::tokio_stream::StreamExt::chain(
            tonic::codegen::tokio_stream::once(WatchRequest { create: Some(create) }),
            // The watch lives as long as its requests may come.
            tonic::codegen::tokio_stream::pending(),
        );
        let mut answers: Streaming<WatchResponse> = grpc::stream(&channel, WATCH, asks).await?;
        let first = answers.message().await?.context("the watch ended")?;
        ensure!(first.created, "the watch was not made");
        Ok(Box::new(Watched { answers, come: Vec::new().into_iter() }))
    }
    async fn leader(&self) -> anyhow::Result<usize> {
        for node in 0..NODES {
            let channel = grpc::connect(&[FIRST_PORT + 1 + node]).await?;
            let status: Status = grpc::call(&channel, STATUS, Nothing {}).await?;
            let own = status.header.context("a status without a header")?.member_id;
            if own == status.leader {
                return Ok(usize::from(node));
            }
        }
        anyhow::bail!("no node leads")
    }
}

struct Connection {
    channel: Channel,
    written: u64,
}

#[async_trait]
impl Writer for Connection {
    async fn append(&mut self, stream: &str, payloads: Vec<Bytes>) -> anyhow::Result<()> {
        let mut puts = Vec::new();
        for payload in payloads {
            self.written += 1;
            let key = format!("e/{stream}/{:010}", self.written).into();
            let value = [b"Measured\0", &payload[..]].concat().into();
            puts.push(Put { key, value });
        }
        if puts.len() == 1 {
            let _: Nothing = grpc::call(&self.channel, PUT, puts.remove(0)).await?;
            return Ok(());
        }
        let success = puts.into_iter().map(|put| Operation { put: Some(put) }).collect();
        let done: TxnResponse = grpc::call(&self.channel, TXN, TxnRequest { success }).await?;
        ensure!(done.succeeded, "the transaction did not succeed");
        Ok(())
    }
}

struct Watched {
    answers: Streaming<WatchResponse>,
    come: std::vec::IntoIter<Seen>,
}

#[async_trait]
impl Subscriber for Watched {
    async fn next(&mut self) -> anyhow::Result<Bytes> {
        loop {
            if let Some(seen) = self.come.next() {
                let value = seen.kv.context("an event without a key")?.value;
                return Ok(value.slice(b"Measured\0".len().min(value.len())..));
            }
            let answer = self.answers.message().await?.context("the watch ended")?;
            self.come = answer.events.into_iter();
        }
    }
}

// The messages of etcdserverpb 3.4, as far as they are used here.

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Nothing {}

#[derive(Clone, PartialEq, prost::Message)]
struct Put {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Operation {
    #[prost(message, optional, tag = "2")]
    put: Option<Put>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TxnRequest {
    #[prost(message, repeated, tag = "2")]
    success: Vec<Operation>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct TxnResponse {
    #[prost(bool, tag = "2")]
    succeeded: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RangeRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    range_end: Bytes,
    #[prost(int64, tag = "3")]
    limit: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct KeyValue {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "5")]
    value: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RangeResponse {
    #[prost(message, repeated, tag = "2")]
    kvs: Vec<KeyValue>,
    #[prost(bool, tag = "3")]
    more: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WatchCreate {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    range_end: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WatchRequest {
    #[prost(message, optional, tag = "1")]
    create: Option<WatchCreate>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Seen {
    #[prost(message, optional, tag = "2")]
    kv: Option<KeyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WatchResponse {
    #[prost(bool, tag = "3")]
    created: bool,
    #[prost(message, repeated, tag = "11")]
    events: Vec<Seen>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Header {
    #[prost(uint64, tag = "2")]
    member_id: u64,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Status {
    #[prost(message, optional, tag = "1")]
    header: Option<Header>,
    #[prost(uint64, tag = "4")]
    leader: u64,
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn a_transaction_is_encoded_as_its_contract_says() {
        let put = Put { key: Bytes::from_static(b"k"), value: Bytes::from_static(b"v") };
        let bytes = TxnRequest { success: vec![Operation { put: Some(put) }] }.encode_to_vec();
        // success (2) of one operation: request_put (2) of key (1) and value (2).
        assert_eq!(bytes, b"\x12\x08\x12\x06\x0a\x01k\x12\x01v");
    }

    #[test]
    fn every_node_knows_all_members() {
        for node in 1..=NODES {
            let args = args(node, Path::new("/d"));
            let members = args.iter().skip_while(|arg| *arg != "--initial-cluster").nth(1).unwrap();
            assert_eq!(members.matches("http://").count(), usize::from(NODES), "{members}");
        }
    }
}
