//! NATS JetStream with `sync_interval: always`, one node (R1) or three (R3), file storage.
//!
//! The subject is the stream's and the type's name. A batch of one is a publish that waits for its
//! acknowledgement. What a larger one is follows what serves NATS best, measured (RESULTS.md): with one
//! node an atomic batch publish (server 2.12 and later), in parts of the thousand messages that the
//! server takes at most; with three, all are published and then all acknowledgements awaited, which is
//! less than the other stores promise, since a part of it may be stored. Replay and subscription pull,
//! without acknowledgements. Two sites are a stream and its mirror.

mod mirror;
mod wire;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::time::timeout;

use self::mirror::Mirror;
use self::wire::{Connection, Message};
use super::peer::{LAG_STREAM, Pair, Peer, Running, Subscriber, fetched};
use super::servers::Servers;
use crate::writers::Writer;

/// For clients; routes between nodes are ten further up.
const FIRST_PORT: u16 = 19_420;
/// The stream that holds all events.
const STREAM: &str = "EVENTS";
/// Atomic batches on their way, more than there are clients; the default is 50.
const IN_FLIGHT: u16 = 200;
/// Messages that a reader asks for at once.
const AT_ONCE: u64 = 5_000;
/// A reader to whom nothing comes for so long begins anew where it is: of a cluster that was only just
/// started the first requests are now and then lost.
const SILENCE: Duration = Duration::from_secs(2);
const TRIES_MAX: usize = 15;
/// Messages in one atomic batch, the server's limit.
const BATCH_MAX: usize = 1_000;

/// A cluster of so many nodes and copies.
pub struct Nats {
    /// Nodes, and copies of the stream.
    pub nodes: u16,
    binary: PathBuf,
}

impl Nats {
    /// Below the peers' folder.
    pub fn below(peers: &Path, nodes: u16) -> Self {
        Self { nodes, binary: peers.join("venv/bin/nats-server") }
    }

    fn config(&self, node: u16, folder: &Path) -> String {
        let (port, data) = (FIRST_PORT + node, folder.join(format!("n{node}")));
        let mut config = format!(
            "server_name: n{node}\nlisten: \"127.0.0.1:{port}\"\n{}",
            jetstream(&data, Syncs::Always, None)
        );
        if self.nodes > 1 {
            let route = |node| format!("\"nats://127.0.0.1:{}\"", FIRST_PORT + 10 + node);
            let routes = (1..=self.nodes).map(route).collect::<Vec<_>>().join(", ");
            config += &format!(
                "cluster {{ name: bench, listen: \"127.0.0.1:{}\", routes: [{routes}] }}\n",
                FIRST_PORT + 10 + node
            );
        }
        config
    }
}

/// When a server syncs what it wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Syncs {
    /// Before it acknowledges.
    Always,
    /// Every two minutes, which is the default.
    Seldom,
}

/// That part of a server's configuration.
fn jetstream(data: &Path, syncs: Syncs, domain: Option<&str>) -> String {
    let domain = domain.map(|name| format!("domain: {name}, ")).unwrap_or_default();
    let syncs = if syncs == Syncs::Always { "sync_interval: always, " } else { "" };
    format!(
        "jetstream {{ store_dir: \"{}\", {domain}{syncs}max_file_store: 64GB,\n  \
         limits {{ batch {{ max_inflight_per_stream: {IN_FLIGHT} }} }} }}\n",
        data.display()
    )
}

/// The stream that holds all events, of so many copies.
fn stream(copies: u16) -> Value {
    json!({
        "name": STREAM, "subjects": ["e.>"], "storage": "file", "retention": "limits",
        "num_replicas": copies, "discard": "new", "allow_atomic": true,
        "duplicate_window": 100_000_000_u64,
    })
}

#[async_trait]
impl Peer for Nats {
    fn name(&self) -> &'static str {
        if self.nodes == 1 { "NATS R1" } else { "NATS R3" }
    }
    fn nodes(&self) -> u16 {
        self.nodes
    }
    fn missing(&self) -> Option<String> {
        fetched(&self.binary)
    }
    async fn start(&self, folder: &Path) -> anyhow::Result<Box<dyn Running>> {
        fs::create_dir_all(folder).context("create a folder for NATS")?;
        let mut nodes = Vec::new();
        for node in 1..=self.nodes {
            let config = folder.join(format!("n{node}.conf"));
            fs::write(&config, self.config(node, folder)).context("write a configuration")?;
            nodes.push(vec!["--config".to_owned(), config.display().to_string()]);
        }
        let servers = Servers::start(&self.binary, folder, "nats", |_| {}, &nodes)?;
        let ports = (1..=self.nodes).map(|node| FIRST_PORT + node).collect();
        Ok(Box::new(Started { servers, ports, copies: self.nodes }))
    }
    fn pairs(&self) -> Vec<Box<dyn Pair>> {
        let pair =
            |syncs| -> Box<dyn Pair> { Box::new(Mirror { binary: self.binary.clone(), syncs }) };
        if self.nodes == 1 { [Syncs::Always, Syncs::Seldom].map(pair).into() } else { Vec::new() }
    }
}

struct Started {
    servers: Servers,
    ports: Vec<u16>,
    copies: u16,
}

impl Started {
    /// A connection to the first node that answers.
    async fn connect(&self) -> anyhow::Result<Connection> {
        let mut failed = None;
        for port in &self.ports {
            match Connection::open(*port).await {
                Ok(connection) => return Ok(connection),
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.context("no node")?)
    }

    /// Asks JetStream's own API, on a connection of its own. A cluster that was only just started drops
    /// questions without a word, so they are asked again.
    async fn ask(&self, what: &str, asks: Value) -> anyhow::Result<(Connection, Value)> {
        for _ in 0..TRIES_MAX {
            let mut connection = self.connect().await?;
            if let Ok(answer) = timeout(SILENCE, api(&mut connection, what, &asks)).await {
                return Ok((connection, answer?));
            }
        }
        bail!("{what} was not answered, {TRIES_MAX} times")
    }

    /// A reader of the messages that `from` describes, with a connection of its own.
    async fn pull(&self, mut from: Value) -> anyhow::Result<Reader> {
        from["ack_policy"] = "none".into();
        from["mem_storage"] = true.into();
        from["num_replicas"] = 1.into();
        from["inactive_threshold"] = 60_000_000_000_u64.into();
        let asks = json!({ "stream_name": STREAM, "config": from });
        let (connection, made) = self.ask(&format!("CONSUMER.CREATE.{STREAM}"), asks).await?;
        let name = made["name"].as_str().context("a consumer without a name")?;
        if self.copies > 1 {
            // It is made before the node that serves it serves it.
            let asks = format!("CONSUMER.INFO.{STREAM}.{name}");
            while !self.ask(&asks, Value::Null).await?.1["cluster"]["leader"].is_string() {}
        }
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{STREAM}.{name}");
        Ok(Reader { connection, subject, asked: 0 })
    }

    /// Reads from number `read` + 1 up to number `held`, or as far as something comes; returns how far.
    async fn part(&self, read: u64, held: u64) -> anyhow::Result<u64> {
        let from = json!({ "deliver_policy": "by_start_sequence", "opt_start_seq": read + 1 });
        let mut reader = self.pull(from).await?;
        for wanted in read + 1..=held {
            let Ok(next) = timeout(SILENCE, reader.next()).await else { return Ok(wanted - 1) };
            let message = next?;
            let at = message.sequence().with_context(|| format!("not an event: {message:?}"))?;
            ensure!(at == wanted, "event {wanted} is at {at}");
        }
        Ok(held)
    }
}

/// Of a consumer. It asks for more while half of what it asked for is on its way.
struct Reader {
    connection: Connection,
    subject: String,
    /// Messages that were asked for and did not come yet.
    asked: u64,
}

impl Reader {
    async fn ask(&mut self) -> anyhow::Result<()> {
        let asks = json!({ "batch": AT_ONCE, "expires": 60_000_000_000_u64 }).to_string();
        self.connection.publish(&self.subject, Some("read"), None, asks.as_bytes()).await?;
        self.connection.flush().await?;
        self.asked += AT_ONCE;
        Ok(())
    }

    async fn next(&mut self) -> anyhow::Result<Message> {
        while self.asked <= AT_ONCE {
            self.ask().await?;
        }
        self.asked -= 1;
        self.connection.next().await
    }
}

/// A question to JetStream's own API.
async fn api(connection: &mut Connection, what: &str, asks: &Value) -> anyhow::Result<Value> {
    let asks = if asks.is_null() { String::new() } else { asks.to_string() };
    let subject = format!("$JS.API.{what}");
    connection.publish(&subject, Some("api"), None, asks.as_bytes()).await?;
    connection.flush().await?;
    let answer = connection.next().await?;
    let answer: Value = serde_json::from_slice(&answer.payload)
        .with_context(|| format!("{what}: {:?}", answer.headers))?;
    ensure!(answer["error"].is_null(), "{what}: {}", answer["error"]);
    Ok(answer)
}

#[async_trait]
impl Running for Started {
    fn pids(&self) -> anyhow::Result<Vec<u32>> {
        self.servers.pids()
    }
    async fn prepare(&self) -> anyhow::Result<()> {
        // The same again is no error.
        self.ask(&format!("STREAM.CREATE.{STREAM}"), stream(self.copies)).await?;
        Ok(())
    }
    async fn writer(&self) -> anyhow::Result<Box<dyn Writer>> {
        let connection = self.connect().await?;
        Ok(Box::new(Publisher { connection, atomic: self.copies == 1, made: 0 }))
    }
    async fn replay(&self) -> anyhow::Result<u64> {
        let (_, info) = self.ask(&format!("STREAM.INFO.{STREAM}"), Value::Null).await?;
        let held = info["state"]["messages"].as_u64().context("a stream without a count")?;
        let mut read = 0;
        for _ in 0..TRIES_MAX {
            read = self.part(read, held).await?;
            if read == held {
                return Ok(read);
            }
        }
        bail!("only {read} of {held} events came, in {TRIES_MAX} tries")
    }
    async fn subscriber(&self) -> anyhow::Result<Box<dyn Subscriber>> {
        let filter = format!("e.{LAG_STREAM}.>");
        let from = json!({ "deliver_policy": "new", "filter_subject": filter });
        let mut reader = self.pull(from).await?;
        reader.ask().await?;
        Ok(Box::new(Subscribed(reader)))
    }
    async fn leader(&self) -> anyhow::Result<usize> {
        let (_, info) = self.ask(&format!("STREAM.INFO.{STREAM}"), Value::Null).await?;
        let leader = info["cluster"]["leader"].as_str().context("no node leads")?;
        let number: usize = leader.trim_start_matches('n').parse()?;
        number.checked_sub(1).with_context(|| format!("a leader named {leader}"))
    }
}

struct Publisher {
    connection: Connection,
    /// Whether a batch is stored as a whole or not at all.
    atomic: bool,
    /// Batches so far.
    made: u64,
}

impl Publisher {
    async fn one_by_one(&mut self, subject: &str, payloads: &[Bytes]) -> anyhow::Result<()> {
        for payload in payloads {
            self.connection.publish(subject, Some("ack"), None, payload).await?;
        }
        self.connection.flush().await?;
        for _ in payloads {
            acknowledged(&self.connection.next().await?)?;
        }
        Ok(())
    }

    async fn atomic(&mut self, subject: &str, payloads: &[Bytes]) -> anyhow::Result<()> {
        self.made += 1;
        let id = format!("{}-{}", self.connection.id(), self.made);
        for (at, payload) in (1..).zip(payloads) {
            let last = at == payloads.len();
            let headers = batch_headers(&id, at, last);
            let reply = last.then_some("ack");
            self.connection.publish(subject, reply, Some(&headers), payload).await?;
        }
        self.connection.flush().await?;
        let answer = acknowledged(&self.connection.next().await?)?;
        let count = answer["count"].as_u64();
        ensure!(count == Some(payloads.len() as u64), "a batch was acknowledged as {answer}");
        Ok(())
    }
}

fn batch_headers(id: &str, at: usize, last: bool) -> String {
    let commit = if last { "Nats-Batch-Commit: 1\r\n" } else { "" };
    format!("NATS/1.0\r\nNats-Batch-Id: {id}\r\nNats-Batch-Sequence: {at}\r\n{commit}\r\n")
}

fn acknowledged(message: &Message) -> anyhow::Result<Value> {
    let Ok(answer) = serde_json::from_slice::<Value>(&message.payload) else {
        bail!("no acknowledgement but {message:?}");
    };
    ensure!(answer["error"].is_null() && answer["seq"].is_u64(), "refused: {answer}");
    Ok(answer)
}

#[async_trait]
impl Writer for Publisher {
    async fn append(&mut self, stream: &str, payloads: Vec<Bytes>) -> anyhow::Result<()> {
        let subject = format!("e.{stream}.Measured");
        if !self.atomic || payloads.len() == 1 {
            return self.one_by_one(&subject, &payloads).await;
        }
        for part in payloads.chunks(BATCH_MAX) {
            self.atomic(&subject, part).await?;
        }
        Ok(())
    }
}

struct Subscribed(Reader);

#[async_trait]
impl Subscriber for Subscribed {
    async fn next(&mut self) -> anyhow::Result<Bytes> {
        Ok(self.0.next().await?.payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_of_a_batch_commits_it() {
        assert_eq!(
            batch_headers("a", 1, false),
            "NATS/1.0\r\nNats-Batch-Id: a\r\nNats-Batch-Sequence: 1\r\n\r\n"
        );
        assert!(batch_headers("a", 2, true).ends_with("Nats-Batch-Commit: 1\r\n\r\n"));
    }

    #[test]
    fn what_is_no_acknowledgement_is_refused() {
        let message = |text: &str| Message {
            reply: None,
            headers: String::new(),
            payload: Bytes::copy_from_slice(text.as_bytes()),
        };
        assert!(acknowledged(&message(r#"{"stream":"EVENTS","seq":7}"#)).is_ok());
        assert!(acknowledged(&message(r#"{"error":{"code":503},"seq":0}"#)).is_err());
        assert!(acknowledged(&message("")).is_err());
    }

    #[test]
    fn every_sync_is_asked_for() {
        let nats = |nodes| Nats::below(Path::new("/p"), nodes);
        let one = nats(1).config(1, Path::new("/d"));
        assert!(one.contains("sync_interval: always") && !one.contains("cluster"), "{one}");
        let three = nats(3).config(2, Path::new("/d"));
        assert_eq!(three.matches("nats://127.0.0.1:").count(), 3, "{three}");
    }
}
