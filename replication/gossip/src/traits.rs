//! What the node gives to gossip and takes from it.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anabranch_core::{Digest, Group, Origin, RegionName, Seq, ShardId};
use bytes::Bytes;
use tokio::sync::watch;

/// A future behind a pointer, so that traits that return one can be objects.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Wall time in Unix milliseconds, passed in.
pub type WallClock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Why events could not be read from the local log.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The range is damaged and not yet repaired, or the disk failed.
    #[error("read {origin} from {from}")]
    Read {
        /// Whose events.
        origin: Origin,
        /// First number asked for.
        from: Seq,
        /// What the log said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The node is shutting down.
    #[error("the log is closed")]
    Closed,
}

/// What a node thinks of its own wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockTrust {
    /// Others agreed with it, or its log does, and it has kept pace since.
    Proven,
    /// Nothing speaks for it or against it.
    Unproven,
    /// Others contradict it, or nobody has looked at it since it jumped.
    Doubted,
}

/// What this region has to give. Any node, leader or follower, serves it from its applied state.
pub trait Source: Send + Sync + 'static {
    /// Whose log this is; `None` until it has its first command.
    fn origin(&self) -> Option<Origin>;

    /// What is known of every origin: the region's own digest first, then the newest known of the
    /// others, for relaying.
    fn digests(&self) -> Vec<Digest>;

    /// Reads groups of `origin`, oldest first.
    ///
    /// Shape: dense; the first group holds `from`. Up to `max_bytes` of encoded groups, but at least
    /// one group if there is any; empty if there is none yet. May block on the disk.
    /// # Errors
    /// [`SourceError`]; the session that asked is closed and comes back later.
    fn read_origin(
        &self,
        origin: &Origin,
        from: Seq,
        max_bytes: usize,
    ) -> Result<Vec<Group>, SourceError>;

    /// What this node thinks of its own wall clock, which shows `unix_ms` now: it tells others no time
    /// that it doubts.
    fn clock_trust(&self, unix_ms: u64) -> ClockTrust;

    /// Moves whenever anything was applied.
    fn changed(&self) -> watch::Receiver<u64>;
}

/// Whoever could answer is starting or stopping. Nothing was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not ready to answer")]
pub struct NotReady;

/// Answers what other regions ask. Any node, leader or follower, is asked.
pub trait Answer: Send + Sync + 'static {
    /// Answers `question`, of region `from` as its certificate says, `within` at most: later, nobody
    /// waits for it any more. Neither may be longer than [`Tuning::question_bytes`].
    ///
    /// Dropped when the time has passed or the session ends; the asker then knows only that it does not
    /// know what came of it.
    /// # Errors
    /// [`NotReady`], only if nothing was begun.
    ///
    /// [`Tuning::question_bytes`]: crate::Tuning::question_bytes
    fn answer<'a>(
        &'a self,
        from: &'a RegionName,
        shard: ShardId,
        question: Bytes,
        within: Duration,
    ) -> BoxFuture<'a, Result<Bytes, NotReady>>;
}

/// What a node has for other regions of one shard.
#[derive(Clone)]
pub struct Served {
    /// Its events.
    pub source: Arc<dyn Source>,
    /// Who answers questions; without, they are refused as not ready.
    pub answer: Option<Arc<dyn Answer>>,
}

/// Why groups were not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    /// This node no longer leads the shard. Pulling stops until the node says otherwise.
    #[error("this node does not lead the shard")]
    NotLeader,
    /// These events may not be applied now, or never: a fork, a clock too far ahead, an incarnation
    /// that is not a member. The origin rests for a while and is then asked for again; other origins
    /// go on.
    #[error("{origin} is held: {reason}")]
    Held {
        /// Whose events.
        origin: Origin,
        /// Why, for people.
        reason: String,
    },
}

/// What a node of another region says its time is.
///
/// Shape: when the answer came, that clock showed `unix_ms` or up to `round_trip` more, if it runs as
/// ours does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockAnswer {
    /// Its wall clock when it answered, in Unix milliseconds.
    pub unix_ms: u64,
    /// From the question to the answer.
    pub round_trip: Duration,
    /// Whether something speaks for that clock besides itself.
    pub proven: bool,
}

/// Where what was pulled goes: the shard leader's importer.
pub trait Sink: Send + Sync + 'static {
    /// Number of the first event of `origin` not yet received, be it applied or queued.
    fn next_wanted(&self, origin: &Origin) -> Seq;

    /// Takes groups of one origin, dense from [`next_wanted`](Self::next_wanted), chain hashes
    /// checked. Waits while the queue is full: that is the back-pressure that reaches the remote
    /// region through QUIC flow control.
    ///
    /// Dropped half-way, the groups may or may not be queued; gossip asks `next_wanted` before it
    /// offers anything of that origin again.
    /// # Errors
    /// [`OfferError`]: none of the groups was taken, or a prefix that `next_wanted` reflects.
    fn offer(&self, via: &RegionName, groups: Vec<Group>) -> BoxFuture<'_, Result<(), OfferError>>;

    /// Takes what a region said of itself. Never waits; newest wins.
    fn offer_digest(&self, via: &RegionName, digest: Digest);

    /// Takes what a node of region `via` answered to the question for its time. Never waits.
    fn hear_clock(&self, via: &RegionName, answer: ClockAnswer);
}

/// Finds the addresses behind `host:port`. A seam, because a simulation has its own names.
pub trait Resolve: Send + Sync + 'static {
    /// Addresses of `host:port`, in the order in which to try them.
    fn resolve<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>>;
}

/// The operating system's resolver.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move { Ok(tokio::net::lookup_host(address).await?.collect()) })
    }
}
