//! Looking at the cluster from outside, as an operator does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anabranch_client::Client;
use anabranch_client::wire::StatusResponse;
use tokio::time::timeout;

use super::{NODES, NodeAt, REGIONS};
use crate::nemesis::Victim;

/// How long a node may take to tell its status.
const STATUS_WAIT: Duration = Duration::from_millis(700);

/// A place in a region, and which node has it now.
struct Place {
    url: String,
    client: Client,
    /// Number that the node there is configured with.
    id: AtomicU64,
}

/// Asks nodes. Cheap to clone.
#[derive(Clone)]
pub struct Sight {
    places: Arc<BTreeMap<NodeAt, Place>>,
}

impl Sight {
    /// Of each place: gRPC address, and number of the node there.
    pub(super) fn new(nodes: impl Iterator<Item = (NodeAt, String, u64)>) -> anyhow::Result<Self> {
        let mut places = BTreeMap::new();
        for (at, url, id) in nodes {
            let client = Client::builder()
                .region(REGIONS[at.0], [&url])
                .timeout(Duration::from_secs(5))
                .build()?;
            places.insert(at, Place { url, client, id: AtomicU64::new(id) });
        }
        Ok(Self { places: Arc::new(places) })
    }

    /// gRPC address of a node.
    pub fn url(&self, at: NodeAt) -> &str {
        &self.places[&at].url
    }
    /// Number of the node that has a place now.
    pub fn id(&self, at: NodeAt) -> u64 {
        self.places[&at].id.load(Ordering::Relaxed)
    }
    /// Another node has the place from now on.
    pub(super) fn set_id(&self, at: NodeAt, id: u64) {
        self.places[&at].id.store(id, Ordering::Relaxed);
    }
    /// Numbers of the nodes that a region has now.
    pub fn ids(&self, region: usize) -> BTreeSet<u64> {
        (0..NODES).map(|node| self.id((region, node))).collect()
    }

    /// What a node says of itself; none if it does not answer soon.
    pub async fn status(&self, at: NodeAt) -> Option<StatusResponse> {
        let Place { url, client, .. } = &self.places[&at];
        timeout(STATUS_WAIT, client.status_at(url)).await.ok()?.ok()
    }
    /// The node that a fault is meant for now.
    pub async fn find(&self, region: usize, victim: Victim) -> NodeAt {
        match victim {
            Victim::Node(node) => (region, node),
            Victim::Leader => self.leader(region).await.unwrap_or((region, 0)),
        }
    }
    /// Who leads a region, as its nodes say; the word of the highest term counts.
    pub async fn leader(&self, region: usize) -> Option<NodeAt> {
        let mut best = None;
        for node in 0..NODES {
            if let Some(status) = self.status((region, node)).await {
                best = best.max(Some((status.term, status.leader)));
            }
        }
        let (_, id) = best?;
        (0..NODES).map(|node| (region, node)).find(|at| self.id(*at) == id)
    }
}
