//! The driver: one QUIC endpoint a node, a session for every region that pulls from this node, and,
//! while this node leads a shard, a session to every region that it pulls from.

mod answer;
pub mod ask;
mod link;
pub mod links;
mod pull;
mod serve;
mod stream;
mod timing;
mod transport;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anabranch_core::{RegionName, ShardId};
use bytes::Bytes;
use quinn::{AsyncUdpSocket, ConnectionError, Endpoint, Runtime, TokioRuntime, VarInt};
use tokio::sync::watch;
use tokio::task::JoinSet;

use self::answer::Room;
use self::ask::{AskError, Lines};
use self::links::{Board, LinkStatus};
use crate::config::GossipConfig;
use crate::frame::{Hello, WIRE_VERSION};
use crate::session::SessionError;
use crate::tls::{TlsError, TlsIdentity};
use crate::traits::{
    Answer, Resolve, Served, Sink, Source, SourceError, SystemResolver, WallClock,
};

/// Time that a shutdown waits for answers, and for peers to hear of it.
const DRAIN: Duration = Duration::from_secs(1);

/// Codes that a session is closed with, for the other side's log, and a question's stream.
mod code {
    use quinn::VarInt;

    pub(super) const SHUTDOWN: VarInt = VarInt::from_u32(1);
    pub(super) const NOT_READY: VarInt = VarInt::from_u32(2);
    pub(super) const REFUSED: VarInt = VarInt::from_u32(3);
    pub(super) const FAILED: VarInt = VarInt::from_u32(4);
    pub(super) const OUT_OF_TIME: VarInt = VarInt::from_u32(5);
}

/// Why gossip could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Certificates or keys.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The TLS configuration has no cipher that QUIC needs.
    #[error("set up QUIC")]
    Quic(#[from] quinn::crypto::rustls::NoInitialCipherSuite),
    /// The certificate speaks for another region.
    #[error("certificate names region {certified}, the configuration {configured}")]
    WrongRegion {
        /// What the certificate says.
        certified: RegionName,
        /// What the configuration says.
        configured: RegionName,
    },
    /// A peer region without addresses, named twice, or that is this region.
    #[error("peer region {region}: {problem}")]
    Peer {
        /// Which.
        region: RegionName,
        /// What is wrong.
        problem: &'static str,
    },
    /// The socket.
    #[error("open the gossip endpoint")]
    Socket(#[from] io::Error),
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error("resolve {address}")]
    Resolve { address: String, source: io::Error },
    #[error("{address} has no address")]
    NoAddress { address: String },
    #[error("connect to {address}")]
    Connect { address: SocketAddr, source: quinn::ConnectError },
    #[error("no session with {address} within {waited:?}")]
    Timeout { address: String, waited: Duration },
    #[error("connection lost: {0}")]
    Lost(#[from] ConnectionError),
    #[error("the remote ended the session")]
    Ended,
    #[error(transparent)]
    Session(Box<SessionError>),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("region {region} is not configured as a peer")]
    UnknownRegion { region: RegionName },
    #[error("shard {shard} is not served here, or its log is not born yet")]
    NotReady { shard: ShardId },
    #[error("this node does not lead the shard")]
    NotLeader,
}

impl From<SessionError> for LinkError {
    fn from(error: SessionError) -> Self {
        Self::Session(error.into())
    }
}

impl LinkError {
    fn code(&self) -> VarInt {
        match self {
            Self::NotReady { .. } => code::NOT_READY,
            Self::UnknownRegion { .. } | Self::Tls(_) => code::REFUSED,
            _ => code::FAILED,
        }
    }

    /// The message and its causes, for logs and the other side.
    fn report(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(next) = cause {
            text = format!("{text}: {next}");
            cause = next.source();
        }
        text
    }
}

/// The world outside, passed in so that it can be simulated.
pub struct Environment {
    /// Where packets go.
    pub socket: Arc<dyn AsyncUdpSocket>,
    /// Timers and tasks of QUIC.
    pub runtime: Arc<dyn Runtime>,
    /// Names of nodes.
    pub resolver: Arc<dyn Resolve>,
    /// Wall time in Unix milliseconds.
    pub clock: WallClock,
}

impl Environment {
    /// The real world: a UDP socket bound to `address`. Call within a tokio runtime.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub fn udp(address: SocketAddr, clock: WallClock) -> io::Result<Self> {
        let runtime: Arc<dyn Runtime> = Arc::new(TokioRuntime);
        let socket = runtime.wrap_udp_socket(std::net::UdpSocket::bind(address)?)?;
        Ok(Self { socket, runtime, resolver: Arc::new(SystemResolver), clock })
    }
}

/// What every task of a node's gossip shares.
struct Shared {
    config: GossipConfig,
    endpoint: Endpoint,
    client: quinn::ClientConfig,
    resolver: Arc<dyn Resolve>,
    clock: WallClock,
    shards: BTreeMap<ShardId, Shard>,
    /// For the questions of others.
    room: Room,
}

/// What belongs to one shard.
struct Shard {
    source: Arc<dyn Source>,
    answer: Option<Arc<dyn Answer>>,
    board: Arc<Board>,
    lines: Lines,
    sink: watch::Sender<Option<Arc<dyn Sink>>>,
}

impl Shared {
    /// What this node says of itself at the start of a session about `shard`.
    fn hello(&self, shard: ShardId, source: &dyn Source) -> Hello {
        Hello {
            version: WIRE_VERSION,
            cluster: self.config.cluster.clone(),
            region: self.config.region.clone(),
            node: self.config.node,
            shard,
            origin: source.origin(),
        }
    }
}

/// A node's gossip. Sessions that others open are served as long as it runs; pulling is switched on
/// and off with leadership. Dropping the last handle ends it at once; prefer [`shutdown`](Self::shutdown).
#[derive(Clone)]
pub struct Gossip {
    shared: Arc<Shared>,
    tasks: Arc<Mutex<JoinSet<()>>>,
}

impl Gossip {
    /// Opens the endpoint and serves `shards`. Call within a tokio runtime.
    ///
    /// # Errors
    /// [`StartError`]; nothing runs then.
    pub fn start(
        config: GossipConfig,
        tls: &TlsIdentity,
        environment: Environment,
        shards: BTreeMap<ShardId, Served>,
    ) -> Result<Self, StartError> {
        check(&config, tls)?;
        let Environment { socket, runtime, resolver, clock } = environment;
        let server = transport::server_config(tls, clock.clone(), &config.tuning)?;
        let client = transport::client_config(tls)?;
        let endpoint_config = transport::endpoint_config(&config);
        let endpoint =
            Endpoint::new_with_abstract_socket(endpoint_config, Some(server), socket, runtime)?;
        let shards = shards.into_iter().map(|(id, Served { source, answer })| {
            let (board, lines) = (Arc::new(Board::new(&config)), Lines::default());
            (id, Shard { source, answer, board, lines, sink: watch::Sender::new(None) })
        });
        let shards = shards.collect();
        let room = Room::new(config.tuning.questions_bytes_max);
        let shared = Arc::new(Shared { config, endpoint, client, resolver, clock, shards, room });
        let mut tasks = JoinSet::new();
        tasks.spawn(serve::accept(shared.clone()));
        for id in shared.shards.keys() {
            tasks.spawn(pull::run(shared.clone(), *id));
        }
        Ok(Self { shared, tasks: Arc::new(Mutex::new(tasks)) })
    }

    /// Pulls into `sink` from now on; with `None`, stops. A new sink starts all sessions anew.
    ///
    /// # Panics
    /// If the shard is not one of those that [`start`](Self::start) was given.
    pub fn pull(&self, shard: ShardId, sink: Option<Arc<dyn Sink>>) {
        self.shard(shard).sink.send_replace(sink);
    }

    /// Asks a node of `region`, over the session that this node has with it, because it leads the shard.
    /// Waits for the answer, `within` at most.
    ///
    /// Dropped half-way, it is not known whether the other side has begun what is asked for.
    /// # Errors
    /// [`AskError`], which says whether the other side may have begun.
    /// # Panics
    /// As [`pull`](Self::pull).
    pub async fn ask(
        &self,
        region: &RegionName,
        shard: ShardId,
        question: Bytes,
        within: Duration,
    ) -> Result<Bytes, AskError> {
        let lines = &self.shard(shard).lines;
        lines.ask(region, question, within, &self.shared.config.tuning).await
    }

    /// How each peer region is doing, in the order of their names.
    ///
    /// # Panics
    /// As [`pull`](Self::pull).
    pub fn links(&self, shard: ShardId) -> Vec<LinkStatus> {
        self.shard(shard).board.statuses()
    }

    /// Where the endpoint listens.
    ///
    /// # Errors
    /// What the socket says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.shared.endpoint.local_addr()
    }

    /// Takes no more questions and gives those that are being answered a moment; then ends all sessions,
    /// tells the peers, and waits a moment until they know.
    pub async fn shutdown(&self) {
        for shard in self.shared.shards.values() {
            shard.sink.send_replace(None);
        }
        // What is not answered by then, its asker calls unknown.
        let _ = tokio::time::timeout(DRAIN, self.shared.room.emptied()).await;
        self.shared.endpoint.close(code::SHUTDOWN, b"the node shuts down");
        let idle = self.shared.endpoint.wait_idle();
        // A peer that cannot be reached does not learn of it; its silence timeout will tell it.
        let _ = tokio::time::timeout(DRAIN, idle).await;
        let mut tasks = std::mem::take(&mut *self.tasks.lock().expect("never poisoned"));
        tasks.shutdown().await;
    }

    fn shard(&self, shard: ShardId) -> &Shard {
        self.shared.shards.get(&shard).unwrap_or_else(|| panic!("shard {shard} is not gossiped"))
    }
}

fn check(config: &GossipConfig, tls: &TlsIdentity) -> Result<(), StartError> {
    let certified = tls.region()?;
    if certified != config.region {
        return Err(StartError::WrongRegion { certified, configured: config.region.clone() });
    }
    let mut seen = vec![&config.region];
    for peer in &config.peers {
        let region = peer.region.clone();
        if seen.contains(&&peer.region) {
            return Err(StartError::Peer { region, problem: "is named twice, or is this region" });
        }
        if peer.addresses.is_empty() {
            return Err(StartError::Peer { region, problem: "has no address" });
        }
        seen.push(&peer.region);
    }
    Ok(())
}

/// Waits until `deadline`; for ever if there is none.
async fn until(deadline: Option<std::time::Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// Time as the runtime tells it: virtual under simulation.
fn now() -> std::time::Instant {
    tokio::time::Instant::now().into_std()
}
