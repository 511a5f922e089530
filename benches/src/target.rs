//! What is put under load: regions started in this process as the demo starts them, or given ones.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anabranch_client::Client;
use anabranch_core::RegionName;
use anabranch_server::demo::cluster::{Cluster, Endpoints, Plan};
use anabranch_server::demo::wan::{DEFAULT_REGIONS, Map};
use anyhow::{Context as _, bail, ensure};
use tokio::time::Instant;

/// Ports from here on, so that a demo may run beside.
const FIRST_PORT: u16 = 17_100;
/// A region that takes no write for this long after its start is taken for broken.
const READY_WITHIN: Duration = Duration::from_secs(60);
const POLL_EVERY: Duration = Duration::from_millis(20);

/// Regions to write to.
pub struct Target {
    cluster: Option<Cluster>,
    endpoints: Vec<Endpoints>,
}

impl Target {
    /// Starts `regions` regions of `nodes` nodes below `folder`, without any delay between them.
    ///
    /// # Errors
    /// If they do not start.
    pub async fn start(regions: usize, nodes: u16, folder: PathBuf) -> anyhow::Result<Self> {
        let names = DEFAULT_REGIONS.get(..regions).context("1 to 3 regions can be started")?;
        let names = names.iter().map(|name| RegionName::new(name)).collect::<Result<_, _>>()?;
        let map = Map::of_regions(names, None)?;
        let cluster = Cluster::start(&Plan { map, nodes, folder, port: FIRST_PORT }).await?;
        let endpoints = cluster.endpoints();
        Ok(Self { cluster: Some(cluster), endpoints })
    }

    /// Regions that run already, one node of each given. Asks each for its name.
    ///
    /// # Errors
    /// If one does not answer, or two are of one region.
    pub async fn given(addresses: &[String]) -> anyhow::Result<Self> {
        let mut endpoints: Vec<Endpoints> = Vec::new();
        for address in addresses {
            let client = Client::builder().region("given", [address.clone()]).build()?;
            let status = client.status().await.with_context(|| format!("ask {address}"))?;
            let region = RegionName::new(&status.region)?;
            ensure!(
                endpoints.iter().all(|known| known.region != region),
                "{address} is of region {region}, as another endpoint: give one of each region"
            );
            endpoints.push(Endpoints { region, nodes: vec![address.clone()] });
        }
        Ok(Self { cluster: None, endpoints })
    }

    /// Whether the nodes run in this process, so that its processor time includes theirs.
    pub fn is_own(&self) -> bool {
        self.cluster.is_some()
    }

    /// Number of regions.
    pub fn regions(&self) -> usize {
        self.endpoints.len()
    }

    /// A client of a region by its place, with a connection of its own.
    ///
    /// # Errors
    /// If the address is none.
    pub fn client(&self, region: usize) -> anyhow::Result<Client> {
        self.endpoints[region].client()
    }

    /// Waits until every region takes a write, and holds what was written everywhere; returns how many
    /// events that is.
    ///
    /// # Errors
    /// If one does not in time.
    pub async fn ready(&self) -> anyhow::Result<u64> {
        for region in 0..self.regions() {
            let append = self.client(region)?.append("ready-1", anabranch_client::event("Ready"));
            let name = &self.endpoints[region].region;
            append.timeout(READY_WITHIN).await.with_context(|| format!("first write in {name}"))?;
        }
        self.settled(0, READY_WITHIN).await
    }

    /// Waits until all nodes hold the same, `least` events or more, and all of it is final; returns how
    /// many events that is. Every node is asked, because a follower may be behind its leader.
    ///
    /// # Errors
    /// If they do not in time.
    pub async fn settled(&self, least: u64, within: Duration) -> anyhow::Result<u64> {
        let give_up = Instant::now() + within;
        let node_of = |region: &str, node: &String| -> anyhow::Result<Client> {
            Ok(Client::builder().region(region, [node.clone()]).build()?)
        };
        let each = |site: &Endpoints| -> Vec<anyhow::Result<Client>> {
            site.nodes.iter().map(|node| node_of(site.region.as_str(), node)).collect()
        };
        let nodes = self.endpoints.iter().flat_map(each).collect::<anyhow::Result<Vec<_>>>()?;
        loop {
            let mut seen = Vec::new();
            for node in &nodes {
                let status = node.status().await?;
                seen.push((status.position, status.global_position));
            }
            let (position, _) = seen[0];
            if position >= least && seen.iter().all(|at| *at == (position, position)) {
                return Ok(position);
            }
            if Instant::now() > give_up {
                bail!("after {within:?} the nodes are at (regional, global) {seen:?}");
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
    }

    /// Ends what was started here.
    pub async fn end(self) {
        if let Some(cluster) = self.cluster {
            cluster.drain().await;
        }
    }
}

/// A folder for nodes' data: a new one below `parent`, removed when the value is dropped.
///
/// # Errors
/// The disk's.
pub fn scratch(parent: Option<&Path>) -> anyhow::Result<tempfile::TempDir> {
    let parent = parent.map_or_else(std::env::temp_dir, Path::to_owned);
    let made = tempfile::Builder::new().prefix("anabranch-bench-").tempdir_in(&parent);
    made.with_context(|| format!("make a folder in {}", parent.display()))
}
