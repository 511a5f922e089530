//! Three regions of three real processes on this machine, and the links between them.

mod binary;
mod config;
mod process;
mod sites;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anabranch_client::Client;
use anabranch_client::wire::StatusResponse;
use anabranch_history::evidence::Death;
use anyhow::{Context, ensure};
use parking_lot::Mutex;

use crate::nemesis::Victim;
use crate::proxy::{Links, Traffic};

pub use binary::find_or_build;
use config::{Layout, NodeAddresses};
use process::Process;
pub use sites::Addresses;

/// Names of the regions.
pub const REGIONS: [&str; 3] = ["asia", "eu", "us"];
/// Nodes of each region.
pub const NODES: usize = 3;

/// How long a node may take to tell its status.
const STATUS_WAIT: Duration = Duration::from_millis(700);

/// Which node: number of its region, number within it.
pub type NodeAt = (usize, usize);

/// How often each node was started after it was killed, by the name of its region and its number.
#[derive(Debug, Clone, Default)]
pub struct Lives {
    ended: Arc<Mutex<BTreeMap<(String, usize), u32>>>,
}

impl Lives {
    /// Lives of a node that are over.
    pub fn of(&self, region: &str, node: usize) -> u32 {
        self.ended.lock().get(&(region.to_owned(), node)).copied().unwrap_or_default()
    }
    fn end(&self, (region, node): NodeAt) {
        *self.ended.lock().entry((REGIONS[region].to_owned(), node)).or_default() += 1;
    }
}

/// The processes and the links between their regions. Dropping it kills the processes.
pub struct Cluster {
    nodes: BTreeMap<NodeAt, Node>,
    links: Links,
    lives: Lives,
}

struct Node {
    name: String,
    addresses: NodeAddresses,
    process: Process,
    client: Client,
}

impl Cluster {
    /// Writes configurations and certificates into `folder` and starts all nodes.
    ///
    /// # Errors
    /// If a file, a socket or a process cannot be made.
    pub async fn start(folder: &Path, binary: &Path, delay: Duration) -> anyhow::Result<Self> {
        let layout = Layout::choose()?;
        let mut links = Links::new(delay);
        for from in 0..REGIONS.len() {
            for to in (0..REGIONS.len()).filter(|to| *to != from) {
                let targets = layout.gossip(to);
                links.add(from, to, &targets).await.context("bind a proxy")?;
            }
        }
        let configs = config::write(folder, &layout, &links)?;
        let mut nodes = BTreeMap::new();
        for (at, config) in configs {
            let name = node_name(at);
            let log = folder.join(format!("{name}.log"));
            let addresses = layout.node(at);
            let client = alone(at, &addresses)?;
            let process = Process::start(binary, &config, &log)?;
            nodes.insert(at, Node { name, addresses, process, client });
        }
        Ok(Self { nodes, links, lives: Lives::default() })
    }

    /// All nodes.
    pub fn all(&self) -> Vec<NodeAt> {
        self.nodes.keys().copied().collect()
    }
    /// The name of a node, as files and reports have it.
    pub fn name(&self, at: NodeAt) -> &str {
        &self.nodes[&at].name
    }
    /// gRPC addresses of a region's nodes.
    pub fn api(&self, region: usize) -> Vec<String> {
        let own = self.nodes.iter().filter(|((of, _), _)| *of == region);
        own.map(|(_, node)| node.addresses.api_url()).collect()
    }
    /// Where clients find the nodes: the same all the time, also while nodes are down.
    pub fn sites(&self) -> Addresses {
        Addresses::new((0..REGIONS.len()).map(|region| self.api(region)).collect())
    }
    /// What a node says of itself; none if it does not answer soon.
    pub async fn status(&self, at: NodeAt) -> Option<StatusResponse> {
        let node = &self.nodes[&at];
        let address = node.addresses.api_url();
        tokio::time::timeout(STATUS_WAIT, node.client.status_at(&address)).await.ok()?.ok()
    }

    /// Kills a node with SIGKILL and waits until it is gone.
    ///
    /// # Errors
    /// If it cannot be killed.
    pub async fn kill(&mut self, at: NodeAt) -> anyhow::Result<()> {
        self.lives.end(at);
        self.node(at).process.kill().await
    }
    /// Starts a node that was killed.
    ///
    /// # Errors
    /// If the process cannot be made.
    pub fn restart(&mut self, at: NodeAt) -> anyhow::Result<()> {
        self.node(at).process.restart()
    }
    /// Stops a node with SIGSTOP.
    ///
    /// # Errors
    /// If the signal cannot be sent.
    pub async fn pause(&mut self, at: NodeAt) -> anyhow::Result<()> {
        self.node(at).process.signal("STOP").await
    }
    /// Lets a stopped node go on with SIGCONT.
    ///
    /// # Errors
    /// If the signal cannot be sent.
    pub async fn resume(&mut self, at: NodeAt) -> anyhow::Result<()> {
        self.node(at).process.signal("CONT").await
    }
    /// Cuts or heals the sessions that the first region opens to the second.
    pub fn set_cut(&self, link: (usize, usize), cut: bool) {
        self.links.set_cut(link, cut);
    }
    /// Heals every link and starts every node that is down.
    ///
    /// # Errors
    /// If a process cannot be made or told to go on.
    pub async fn heal(&mut self) -> anyhow::Result<()> {
        self.links.heal();
        for node in self.nodes.values_mut() {
            node.process.signal("CONT").await?;
            node.process.restart()?;
        }
        Ok(())
    }
    /// Packets that the links carried and lost.
    pub fn traffic(&self) -> Traffic {
        self.links.traffic()
    }
    /// The node that a fault is meant for now.
    pub async fn find(&self, region: usize, victim: Victim) -> NodeAt {
        match victim {
            Victim::Node(node) => (region, node),
            Victim::Leader => self.leader(region).await.unwrap_or((region, 0)),
        }
    }

    /// Who leads a region, as its nodes say; the word of the highest term counts.
    async fn leader(&self, region: usize) -> Option<NodeAt> {
        let mut best = None;
        for node in 0..NODES {
            if let Some(status) = self.status((region, node)).await {
                best = best.max(Some((status.term, status.leader)));
            }
        }
        let (_, id) = best?;
        (0..NODES).map(|node| (region, node)).find(|at| config::node_id(*at) == id)
    }

    /// Nodes that ended by themselves so far, and panics in the logs.
    pub fn deaths(&mut self) -> Vec<Death> {
        let mut deaths = Vec::new();
        for Node { name, process, .. } in self.nodes.values_mut() {
            let death = |why| Death { node: name.clone(), why, excuse: None };
            deaths.extend(process.deaths().into_iter().map(death));
        }
        deaths
    }
    /// How often each node was started.
    pub fn lives(&self) -> Lives {
        self.lives.clone()
    }

    fn node(&mut self, at: NodeAt) -> &mut Node {
        self.nodes.get_mut(&at).expect("a node of this cluster")
    }
}

/// A folder for a run, new and empty.
///
/// # Errors
/// If it exists or cannot be made.
pub fn new_folder(parent: &Path, seed: u64) -> anyhow::Result<PathBuf> {
    let folder = parent.join(format!("anabranch-harness-{}-{seed}", std::process::id()));
    ensure!(!folder.exists(), "{} exists already", folder.display());
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    Ok(folder)
}

fn node_name((region, node): NodeAt) -> String {
    format!("{}-{}", REGIONS[region], node + 1)
}

fn alone(at: NodeAt, addresses: &NodeAddresses) -> anyhow::Result<Client> {
    let client = Client::builder()
        .region(REGIONS[at.0], [addresses.api_url()])
        .timeout(Duration::from_secs(5))
        .build()?;
    Ok(client)
}
