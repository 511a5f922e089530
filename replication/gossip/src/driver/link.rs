//! One link: keeps a session with a peer region, and carries out what its [`Puller`] decides.

use std::sync::Arc;
use std::time::Duration;

use anabranch_core::{Group, Origin, RegionName, ShardId};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use quinn::{Connection, SendStream};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use super::ask::OpenLine;
use super::links::{Board, Measured};
use super::stream::FrameReader;
use super::{LinkError, Shared, now, timing, until};
use crate::block::{BLOCK_WIRE_BYTES_MAX, Block, BlockError};
use crate::config::PeerRegion;
use crate::frame::Report;
use crate::plan::Assignment;
use crate::session::SessionError;
use crate::session::puller::{Action, BLOCKS_HELD_MAX, Input, Puller};
use crate::tls::region_server_name;
use crate::traits::{OfferError, Sink};

/// An address that has not answered for so long is not waited for alone: the next one is tried beside it.
const NEXT_ADDRESS: Duration = Duration::from_millis(500);

/// A session that lasted so long was no failed attempt: the next one comes at once.
const HEALTHY: Duration = Duration::from_secs(5);

/// What one link works with.
pub(super) struct Link {
    pub(super) shared: Arc<Shared>,
    pub(super) shard: ShardId,
    pub(super) peer: PeerRegion,
    pub(super) sink: Arc<dyn Sink>,
    pub(super) assignment: watch::Receiver<Assignment>,
}

/// Opens session after session, at the peer's addresses in turn, until aborted.
pub(super) async fn run(link: Link) {
    let region = &link.peer.region;
    let mut rng = SmallRng::from_seed(seed(&link));
    let (backoff_min, backoff_max) = link.shared.config.tuning.backoff;
    let mut backoff = backoff_min;
    let mut reported = String::new();
    for attempt in 0.. {
        let began = now();
        let (address, Err(error)) = session(&link, attempt).await;
        let lasted = now() - began;
        let report = error.report();
        if matches!(&error, LinkError::Session(e) if e.is_damage()) {
            // The session's end named origin and number; say what to do about it.
            tracing::error!(
                %region, address, error = report,
                "refused history from this region; compare the origin's chain hashes in both \
                 regions before trusting either"
            );
        } else if lasted >= HEALTHY || reported != report {
            tracing::warn!(%region, address, error = report, "session ended or not opened");
        } else {
            // Once is enough for a region that stays out of reach.
            tracing::debug!(%region, address, error = report, "still out of reach");
        }
        link.board().down(region, report.clone());
        reported = report;
        backoff = if lasted >= HEALTHY { backoff_min } else { (backoff * 2).min(backoff_max) };
        tokio::time::sleep(backoff.mul_f64(rng.random_range(0.5..1.0))).await;
    }
}

/// A different sequence for each link, the same in each run with the same seed.
fn seed(link: &Link) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_keyed(&link.shared.config.seed);
    hasher.update(link.peer.region.as_str().as_bytes());
    hasher.update(&link.shard.0.to_le_bytes());
    hasher.finalize().into()
}

impl Link {
    fn board(&self) -> &Board {
        &self.shared.shards[&self.shard].board
    }

    async fn connect(&self, address: &str, attempt: usize) -> Result<Connection, LinkError> {
        let resolved = self.shared.resolver.resolve(address).await;
        let resolved = resolved
            .map_err(|source| LinkError::Resolve { address: address.to_owned(), source })?;
        let none = || LinkError::NoAddress { address: address.to_owned() };
        let turn = attempt / self.peer.addresses.len();
        let remote = *resolved.get(turn % resolved.len().max(1)).ok_or_else(none)?;
        let (endpoint, client) = (&self.shared.endpoint, self.shared.client.clone());
        let connecting = endpoint
            .connect_with(client, remote, &region_server_name(&self.peer.region))
            .map_err(|source| LinkError::Connect { address: remote, source })?;
        Ok(connecting.await?)
    }

    /// Connects to the first that answers of the peer's addresses, beginning with the `attempt`th. The
    /// others are tried beside it, one after the other: a node that is gone says nothing.
    async fn connect_to_any(&self, attempt: usize) -> (&str, Result<Connection, LinkError>) {
        let addresses = &self.peer.addresses;
        let nth = |nth: usize| addresses[(attempt + nth) % addresses.len()].as_str();
        let mut dialling = FuturesUnordered::new();
        let mut failed = None;
        for next in 0..=addresses.len() {
            if next < addresses.len() {
                let address = nth(next);
                dialling.push(self.connect(address, attempt).map(move |made| (address, made)));
            }
            let rests = next == addresses.len();
            let mut turn = std::pin::pin!(tokio::time::sleep(NEXT_ADDRESS));
            while !dialling.is_empty() {
                tokio::select! {
                    biased;
                    Some((address, made)) = dialling.next() => match made {
                        Ok(connection) => return (address, Ok(connection)),
                        Err(error) => failed = Some((address, error)),
                    },
                    () = &mut turn, if !rests => break,
                }
            }
        }
        let (address, error) = failed.expect("there is an address, and every attempt has ended");
        (address, Err(error))
    }
}

/// One session from dialling to its end. Says with whom it was, or should have been.
async fn session(
    link: &Link,
    attempt: usize,
) -> (&str, Result<std::convert::Infallible, LinkError>) {
    let waited = link.shared.config.tuning.connect_timeout;
    let first = link.peer.addresses[attempt % link.peer.addresses.len()].as_str();
    let (address, connection) =
        match tokio::time::timeout(waited, link.connect_to_any(attempt)).await {
            Ok((address, Ok(connection))) => (address, connection),
            Ok((address, Err(error))) => return (address, Err(error)),
            Err(_) => {
                let timeout = LinkError::Timeout { address: first.to_owned(), waited };
                return (first, Err(timeout));
            }
        };
    let Err(error) = Session::run(link, &connection).await;
    connection.close(error.code(), error.report().as_bytes());
    (address, Err(error))
}

/// A session that is open.
struct Session<'a> {
    link: &'a Link,
    connection: &'a Connection,
    puller: Puller,
    send: SendStream,
    frames: FrameReader,
    /// Room for blocks that wait for earlier ones.
    room: Arc<Semaphore>,
    blocks: mpsc::Receiver<Result<Block, BlockError>>,
    assignment: watch::Receiver<Assignment>,
    connected: bool,
    /// Takes questions, once the session is open.
    line: Option<OpenLine<'a>>,
    /// Stream frames received when the deadline was last looked at.
    stream_frames: u64,
}

impl<'a> Session<'a> {
    async fn run(
        link: &'a Link,
        connection: &'a Connection,
    ) -> Result<std::convert::Infallible, LinkError> {
        let (send, recv) = connection.open_bi().await?;
        let shard = &link.shared.shards[&link.shard];
        let ours = link.shared.hello(link.shard, &*shard.source);
        let silence = link.shared.config.tuning.silence;
        let room = Arc::new(Semaphore::new(BLOCKS_HELD_MAX));
        let (arrived, blocks) = mpsc::channel(BLOCKS_HELD_MAX);
        // Owned by the set, so that it ends with the session.
        let mut tasks = JoinSet::new();
        tasks.spawn(accept_blocks(connection.clone(), room.clone(), arrived));
        tasks.spawn(timing::ask(connection.clone(), link.peer.region.clone(), link.sink.clone()));
        let mut session = Self {
            link,
            connection,
            puller: Puller::new(now(), ours, link.peer.region.clone(), silence),
            send,
            frames: FrameReader::new(recv),
            room,
            blocks,
            assignment: link.assignment.clone(),
            connected: false,
            line: None,
            stream_frames: 0,
        };
        loop {
            session.step().await?;
        }
    }

    /// Carries out what is decided, then waits for the next fact.
    async fn step(&mut self) -> Result<(), LinkError> {
        while let Some(action) = self.puller.poll_action() {
            self.carry_out(action).await?;
        }
        tokio::select! {
            biased;
            changed = self.assignment.changed(), if self.connected => match changed {
                Ok(()) => self.adjust_wants()?,
                Err(_) => return Err(LinkError::NotLeader),
            },
            Some(block) = self.blocks.recv() => {
                let block = block.map_err(SessionError::from)?;
                self.link.board().block_arrived(&self.link.peer.region);
                self.puller.handle(now(), Input::Block(block))?;
            }
            filled = self.frames.fill(), if self.puller.reads_frames() => {
                filled?;
                self.take_frames().await?;
            }
            () = until(self.puller.deadline()) => self.handle_deadline()?,
            error = self.connection.closed() => return Err(error.into()),
        }
        Ok(())
    }

    /// Every frame that is whole goes to the machine, unless it asks to wait.
    async fn take_frames(&mut self) -> Result<(), LinkError> {
        self.puller.handle(now(), Input::Heard)?;
        while self.puller.reads_frames()
            && let Some(frame) = self.frames.buffered()?
        {
            self.puller.handle(now(), Input::Frame(frame))?;
        }
        Ok(())
    }

    fn handle_deadline(&mut self) -> Result<(), LinkError> {
        let received = self.connection.stats().frame_rx.stream;
        let heard = received != std::mem::replace(&mut self.stream_frames, received);
        if heard {
            self.puller.handle(now(), Input::Heard)?;
        }
        Ok(self.puller.handle(now(), Input::Elapsed)?)
    }

    /// Pulls what the plan says goes through this link, and nothing else.
    fn adjust_wants(&mut self) -> Result<(), LinkError> {
        let assignment = self.assignment.borrow_and_update().clone();
        let region = &self.link.peer.region;
        let ours = |origin: &Origin| assignment.get(origin) == Some(region);
        let current: Vec<Origin> = self.puller.wanted().cloned().collect();
        for origin in current.iter().filter(|origin| !ours(origin)) {
            self.puller.handle(now(), Input::Unwant(origin.clone()))?;
        }
        for origin in assignment.keys().filter(|origin| ours(origin) && !current.contains(origin)) {
            self.want(origin.clone())?;
        }
        Ok(())
    }

    fn want(&mut self, origin: Origin) -> Result<(), LinkError> {
        let from = self.link.sink.next_wanted(&origin);
        tracing::debug!(region = %self.link.peer.region, %origin, %from, "pulling");
        Ok(self.puller.handle(now(), Input::Want { origin, from })?)
    }

    async fn carry_out(&mut self, action: Action) -> Result<(), LinkError> {
        let region = &self.link.peer.region;
        match action {
            Action::Send(frame) => {
                self.send.write_all(&frame.encode()).await.map_err(|_| LinkError::Ended)?;
            }
            Action::Connected(hello) => {
                tracing::info!(%region, node = %hello.node, "session open");
                let shard = &self.link.shared.shards[&self.link.shard];
                let tuning = &self.link.shared.config.tuning;
                self.line = Some(shard.lines.open(region, self.connection, tuning));
                self.link.board().up(region, &hello, self.connection.remote_address());
                self.connected = true;
                self.adjust_wants()?;
            }
            Action::Offer(groups) => self.offer(groups).await?,
            Action::Release(blocks) => self.room.add_permits(blocks),
            Action::Report(report) => self.take_report(report),
        }
        Ok(())
    }

    /// Hands groups on, if they are what the sink wants next; otherwise asks for what it wants.
    async fn offer(&mut self, mut groups: Vec<Group>) -> Result<(), LinkError> {
        let (link, region) = (self.link, &self.link.peer.region);
        let origin = groups[0].origin().clone();
        let next = link.sink.next_wanted(&origin);
        groups.retain(|group| group.last() >= next);
        let Some(first) = groups.first().map(Group::first) else { return Ok(()) };
        // One that begins earlier is of another history: the sink says so.
        if first > next {
            tracing::warn!(%region, %origin, %next, %first, "importer wants other events; pulling anew");
            return self.want(origin);
        }
        let count = groups.len() as u64;
        // Dropped here when pulling stops: the next sink says itself what it wants.
        match link.sink.offer(region, groups).await {
            Ok(()) => link.board().arrived(region, &origin, count),
            Err(OfferError::NotLeader) => return Err(LinkError::NotLeader),
            Err(OfferError::Held { origin, reason }) => {
                tracing::warn!(%region, %origin, reason, "importer holds this origin; asking again later");
                self.puller.handle(now(), Input::Unwant(origin.clone()))?;
                link.board().held(&origin);
            }
        }
        Ok(self.puller.handle(now(), Input::Heard)?)
    }

    fn take_report(&self, report: Report) {
        let (link, region) = (self.link, &self.link.peer.region);
        let measured = Measured {
            rtt: self.connection.rtt(),
            bytes: self.connection.stats().udp_rx.bytes,
            local_unix_ms: (link.shared.clock)(),
        };
        link.board().report(region, &report, &measured);
        let own = link.shared.shards[&link.shard].source.origin();
        for digest in report.digests {
            // What others relay of this region is older than what it knows of itself.
            if Some(&digest.origin) != own.as_ref() {
                link.sink.offer_digest(region, digest);
            }
        }
    }
}

/// Reads blocks, several at once, never more than there is room for.
///
/// Room is taken before a stream is accepted, and streams are accepted in the order in which they
/// were opened, so the block that all others wait for always has room.
async fn accept_blocks(
    connection: Connection,
    room: Arc<Semaphore>,
    arrived: mpsc::Sender<Result<Block, BlockError>>,
) {
    let mut readers = JoinSet::new();
    loop {
        let accepted = async {
            let permit = room.clone().acquire_owned().await.expect("never closed");
            Ok::<_, quinn::ConnectionError>((permit, connection.accept_uni().await?))
        };
        tokio::select! {
            biased;
            Some(_) = readers.join_next() => {}
            accepted = accepted => match accepted {
                Ok((permit, stream)) => {
                    readers.spawn(read_block(stream, permit, arrived.clone()));
                }
                // The session sees the loss of its connection itself.
                Err(_) => return,
            },
        }
    }
}

async fn read_block(
    mut stream: quinn::RecvStream,
    permit: OwnedSemaphorePermit,
    arrived: mpsc::Sender<Result<Block, BlockError>>,
) {
    // Too long, reset or lost: the block is missing, and the session ends for that or of itself.
    let Ok(bytes) = stream.read_to_end(BLOCK_WIRE_BYTES_MAX).await else { return };
    let block = Block::decode(bytes.into());
    // Given back by `Action::Release`, once the block is handed on.
    permit.forget();
    let _ = arrived.send(block).await;
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let region: &RegionName = &self.peer.region;
        f.debug_struct("Link").field("region", region).field("shard", &self.shard).finish()
    }
}
