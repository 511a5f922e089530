//! What is put under load: regions of nodes that are processes of their own, or are in this one, as the
//! demo starts them, or run already.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anabranch_client::Client;
use anabranch_core::RegionName;
use anabranch_server::demo::cluster::{Cluster, Endpoints, Plan};
use anabranch_server::demo::wan::{DEFAULT_REGIONS, Map};
use anyhow::{Context as _, bail, ensure};
use tokio::time::Instant;

use crate::cpu;
use crate::processes::{self, Place, Processes};

/// Ports from here on, so that a demo may run beside.
const FIRST_PORT: u16 = 18_100;
/// A region that takes no write for this long after its start is taken for broken.
const READY_WITHIN: Duration = Duration::from_secs(60);
const POLL_EVERY: Duration = Duration::from_millis(20);

/// Regions to write to.
pub struct Target {
    nodes: Nodes,
    endpoints: Vec<Endpoints>,
}

enum Nodes {
    /// Processes of their own.
    Apart(Processes),
    /// In this process.
    Here(Cluster),
    /// Somewhere.
    Given,
}

/// What was taken of the processor so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Used {
    /// By this process: the clients, and also the nodes if they are in it.
    pub here: Duration,
    /// By the nodes' own processes; none if they have none that can be looked at.
    pub nodes: Duration,
}

impl std::ops::Sub for Used {
    type Output = Self;
    fn sub(self, before: Self) -> Self {
        Self { here: self.here - before.here, nodes: self.nodes - before.nodes }
    }
}

impl Used {
    /// Divided by a number of events.
    pub fn each(self, events: u64) -> CpuUs {
        let us = |time: Duration| time.as_secs_f64() * 1e6 / events as f64;
        CpuUs { here: us(self.here), nodes: us(self.nodes) }
    }
}

/// Processor microseconds an event, as [`Used`] has them.
#[derive(Debug, Clone, Copy)]
pub struct CpuUs {
    /// Of this process.
    pub here: f64,
    /// Of the nodes' own.
    pub nodes: f64,
}

impl std::fmt::Display for CpuUs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.1} + {:.1}", self.nodes, self.here)
    }
}

fn names(regions: usize) -> anyhow::Result<Vec<RegionName>> {
    let names = DEFAULT_REGIONS.get(..regions).context("1 to 3 regions can be started")?;
    Ok(names.iter().map(|name| RegionName::new(name)).collect::<Result<_, _>>()?)
}

impl Target {
    /// Starts `regions` regions of `nodes` nodes below `folder`, each a process.
    ///
    /// # Errors
    /// If they do not start.
    pub fn start(regions: usize, nodes: u16, folder: &Path) -> anyhow::Result<Self> {
        Self::start_at(regions, nodes, folder, processes::FIRST_PORT)
    }

    /// The same, with ports from `first_port` on.
    ///
    /// # Errors
    /// If they do not start.
    pub fn start_at(
        regions: usize,
        nodes: u16,
        folder: &Path,
        first_port: u16,
    ) -> anyhow::Result<Self> {
        let processes = Processes::start(&names(regions)?, nodes, folder, first_port)?;
        let endpoints = processes.endpoints().to_vec();
        Ok(Self { nodes: Nodes::Apart(processes), endpoints })
    }

    /// The same, in this process.
    ///
    /// # Errors
    /// If they do not start.
    pub async fn here(regions: usize, nodes: u16, folder: PathBuf) -> anyhow::Result<Self> {
        Self::here_at(regions, nodes, folder, FIRST_PORT).await
    }

    /// The same, with ports from `port` on.
    ///
    /// # Errors
    /// If they do not start.
    pub async fn here_at(
        regions: usize,
        nodes: u16,
        folder: PathBuf,
        port: u16,
    ) -> anyhow::Result<Self> {
        let map = Map::of_regions(names(regions)?, None)?;
        let cluster = Cluster::start(&Plan { map, nodes, folder, port }).await?;
        let endpoints = cluster.endpoints();
        Ok(Self { nodes: Nodes::Here(cluster), endpoints })
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
        Ok(Self { nodes: Nodes::Given, endpoints })
    }

    /// Whether nobody else writes to it.
    pub fn is_own(&self) -> bool {
        !matches!(self.nodes, Nodes::Given)
    }
    /// Processor time so far.
    ///
    /// # Errors
    /// If a node has ended.
    pub fn used(&self) -> anyhow::Result<Used> {
        let nodes = match &self.nodes {
            Nodes::Apart(processes) => processes.cpu()?,
            Nodes::Here(_) | Nodes::Given => Duration::ZERO,
        };
        Ok(Used { here: cpu::used()?, nodes })
    }
    /// Bytes that the nodes hold in memory; with those of this process if they are in it.
    ///
    /// # Errors
    /// If a node has ended.
    pub fn resident(&self) -> anyhow::Result<u64> {
        match &self.nodes {
            Nodes::Apart(processes) => processes.resident(),
            Nodes::Here(_) | Nodes::Given => cpu::resident("self"),
        }
    }

    /// The nodes, which have to be processes of their own: for what can be done to no others.
    ///
    /// # Errors
    /// If they are none.
    pub fn processes(&mut self) -> anyhow::Result<&mut Processes> {
        match &mut self.nodes {
            Nodes::Apart(processes) => Ok(processes),
            Nodes::Here(_) | Nodes::Given => bail!("the nodes are no processes of this one"),
        }
    }

    /// The processes of the nodes; none if they have none of their own.
    ///
    /// # Errors
    /// If a node has ended.
    pub fn pids(&self) -> anyhow::Result<Vec<u32>> {
        match &self.nodes {
            Nodes::Apart(processes) => processes.pids(),
            Nodes::Here(_) | Nodes::Given => Ok(Vec::new()),
        }
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

    /// A client that asks one node and no other, with a connection of its own.
    ///
    /// # Errors
    /// If there is no such node.
    pub fn client_of(&self, place: Place) -> anyhow::Result<Client> {
        let site = self.endpoints.get(place.region).with_context(|| format!("{place:?}"))?;
        let node = site.nodes.get(place.node).with_context(|| format!("{place:?}"))?;
        Ok(Client::builder().region(site.region.as_str(), [node.clone()]).build()?)
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
        if let Nodes::Here(cluster) = self.nodes {
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
