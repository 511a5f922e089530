//! How one Raft group of this node is set up.

use std::sync::Arc;
use std::time::Duration;

use anabranch_core::ShardId;
use anabranch_core::planted::{self, Bug};
use openraft::{Config, SnapshotPolicy};

use super::identity::Identity;

/// Entries in one message to a follower, beside the bound on bytes.
const MESSAGE_ENTRIES: u64 = 4096;
/// Proposals that may wait for Raft to look at them. Each is a group of many events.
const PROPOSALS_WAITING: u64 = 8192;

/// What a group needs to know of its node.
#[derive(Debug, Clone)]
pub struct GroupConfig {
    /// Who this node is.
    pub identity: Arc<Identity>,
    /// The shard this group replicates.
    pub shard: ShardId,
    /// When to beat and when to elect.
    pub timings: Timings,
    /// Seed of the group's random numbers (election timeouts). Another one at each start.
    pub seed: u64,
}

/// When a leader beats, and when a follower gives up on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timings {
    /// Pause between heartbeats.
    pub heartbeat: Duration,
    /// A follower waits at least this long for a heartbeat before it asks for votes.
    pub election_min: Duration,
    /// And less than this long. Also the leader's lease, which followers let pass before they begin to wait,
    /// and how long replication waits for an answer before it reconnects. So a dead leader is replaced after
    /// `election_max + election_min` at the earliest, 0.9 s, and `2 * election_max`, 1.2 s, in most cases.
    pub election_max: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(100),
            election_min: Duration::from_millis(300),
            election_max: Duration::from_millis(600),
        }
    }
}

/// The timings contradict each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("raft timings of shard {shard} are unusable: {reason}")]
pub struct InvalidTimings {
    /// The shard.
    pub shard: ShardId,
    /// What does not fit.
    pub reason: String,
}

impl GroupConfig {
    /// # Errors
    /// [`InvalidTimings`] unless heartbeat < least < greatest election timeout.
    pub(super) fn openraft(&self) -> Result<Config, InvalidTimings> {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let config = Config {
            cluster_name: format!("{}/{}", self.identity.region(), self.shard),
            heartbeat_interval: millis(self.timings.heartbeat),
            election_timeout_min: millis(self.timings.election_min),
            election_timeout_max: millis(self.timings.election_max),
            max_payload_entries: MESSAGE_ENTRIES,
            max_append_entries: Some(MESSAGE_ENTRIES),
            api_channel_size: Some(PROPOSALS_WAITING),
            // Groups form in the sequencer while the one before is flushed: no timer here.
            api_batch_linger_ms: 0,
            // A restarted leader that went on in its old term would reuse the ids of entries which
            // followers have and its own disk lost: acknowledged writes would differ or vanish.
            enable_leader_restore: Some(planted::is(Bug::LeaderRestored)),
            // A node that was cut off does not depose a working leader when it comes back.
            enable_pre_vote: Some(true),
            // A log that went backwards is a lost disk, never to be papered over.
            allow_log_reversion: Some(false),
            // The log is the snapshot, and is never purged.
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: u64::MAX,
            replication_lag_threshold: u64::MAX,
            ..Config::default()
        };
        let shard = self.shard;
        config.validate().map_err(|error| InvalidTimings { shard, reason: error.to_string() })
    }
}
