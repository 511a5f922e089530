//! How gossip is set up.

use std::time::Duration;

use anabranch_core::{NodeId, RegionName};

/// Where blocking reads of the log run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadOn {
    /// On the runtime's pool for blocking work.
    BlockingPool,
    /// Where the session runs. For simulations, which have no other threads.
    Session,
}

/// A region to pull from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerRegion {
    /// Its name, as its certificates say.
    pub region: RegionName,
    /// `host:port` of its nodes; at least one. Tried in turn.
    pub addresses: Vec<String>,
}

/// Who this node is and whom it talks to.
#[derive(Debug, Clone)]
pub struct GossipConfig {
    /// Name of the whole installation. Both ends must agree.
    pub cluster: String,
    /// This node's region.
    pub region: RegionName,
    /// This node.
    pub node: NodeId,
    /// The other regions. Sessions of any other region are refused.
    pub peers: Vec<PeerRegion>,
    /// Seed for back-off jitter and QUIC's packet numbers. Random in production.
    pub seed: [u8; 32],
    /// Kept across restarts, so that peers notice a restart at once. Random when first made.
    pub reset_key: [u8; 32],
    /// Times and bounds.
    pub tuning: Tuning,
}

/// Times and bounds. The defaults suit regions 1 to 300 ms apart.
#[derive(Debug, Clone)]
pub struct Tuning {
    /// Least time between two digests on a session.
    pub digest_gap: Duration,
    /// Most time between two digests on a session: the heartbeat.
    pub heartbeat: Duration,
    /// A session that hears nothing for so long is closed and opened anew. Several heartbeats.
    pub silence: Duration,
    /// How long an origin's own region may be out of reach before a neighbour is asked.
    pub relay_after: Duration,
    /// How long an origin rests after the importer held it.
    pub hold: Duration,
    /// Time for name look-up, QUIC handshake and the exchange of hellos.
    pub connect_timeout: Duration,
    /// First and longest wait between two attempts to connect.
    pub backoff: (Duration, Duration),
    /// Events behind, beyond which history travels as compressed blocks.
    pub catch_up_events: u64,
    /// Bytes read without reaching the tail, beyond which history travels as compressed blocks.
    pub catch_up_bytes: usize,
    /// Bytes of groups read at once for the live tail.
    pub live_bytes: usize,
    /// Bytes of groups in one block.
    pub block_bytes: usize,
    /// Blocks under way at once on one session.
    pub block_streams: u32,
    /// Sessions served at once; more are refused.
    pub sessions_max: usize,
    /// Questions that may be under way at once on one session, either way.
    pub questions_max: usize,
    /// Bytes of the longest question, and of the longest answer.
    pub question_bytes: usize,
    /// Bytes of questions that a node answers at once, over all sessions; more are refused.
    pub questions_bytes_max: usize,
    /// Where log reads run.
    pub read_on: ReadOn,
}

impl Tuning {
    /// What a node uses unless told otherwise.
    pub const DEFAULT: Self = Self {
        digest_gap: Duration::from_millis(10),
        heartbeat: Duration::from_millis(500),
        silence: Duration::from_millis(2_500),
        relay_after: Duration::from_secs(1),
        hold: Duration::from_secs(1),
        connect_timeout: Duration::from_secs(3),
        backoff: (Duration::from_millis(100), Duration::from_secs(1)),
        catch_up_events: 10_000,
        catch_up_bytes: 4 * 1024 * 1024,
        live_bytes: 256 * 1024,
        block_bytes: 1024 * 1024,
        block_streams: 4,
        sessions_max: 256,
        questions_max: 1_024,
        question_bytes: 10 * 1024 * 1024,
        questions_bytes_max: 64 * 1024 * 1024,
        read_on: ReadOn::BlockingPool,
    };
}

impl Default for Tuning {
    fn default() -> Self {
        Self::DEFAULT
    }
}
