//! What nodes say of themselves during the run.

use std::time::Duration;

use anabranch_client::{Context, Stamp};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::text;

/// What a node said at some moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// When it answered, since the run began.
    #[serde(with = "text")]
    pub at: Duration,
    /// Its region.
    pub region: String,
    /// Its number within the region, from 0.
    pub node: u32,
    /// How often it was started before. Within one life nothing that it shows goes back; a node that
    /// comes back may first be behind itself.
    pub life: u32,
    /// What it holds.
    #[serde(with = "text")]
    pub frontier: Context,
    /// Its next regional position.
    pub position: u64,
    /// Its watermark, if it was asked for.
    #[serde(with = "text::option")]
    pub watermark: Option<Stamp>,
    /// Up to where the global order is final there.
    pub global_position: u64,
    /// Hash of the global order up to there, if it was asked for.
    #[serde(with = "text::option")]
    pub global_chain: Option<Bytes>,
    /// Regions that it says the global order waits for.
    pub blocked_by: Vec<String>,
}

impl Observation {
    /// The node, as reports name it.
    pub fn name(&self) -> String {
        format!("{}-{}", self.region, self.node + 1)
    }
}
