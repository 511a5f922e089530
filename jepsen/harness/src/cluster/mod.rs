//! Three regions of three real processes on this machine, and the network between them.

mod binary;
mod clocks;
mod config;
mod disk;
mod operator;
mod process;
mod region;
mod sight;
mod sites;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anabranch_history::evidence::Death;
use anyhow::{Context, ensure};
use parking_lot::Mutex;

use crate::proxy::{Links, Traffic, Wires};

pub use binary::find_or_build;
pub use clocks::Clocks;
use config::{Layout, Papers, Role, node_id, others};
use disk::SmallDisk;
pub use disk::mib_for;
use operator::Operator;
use process::Process;
pub use process::command;
use region::Node;
pub use region::Region;
pub use sight::Sight;
pub use sites::Addresses;

/// Names of the regions.
pub const REGIONS: [&str; 3] = ["asia", "eu", "us"];
/// Nodes of each region.
pub const NODES: usize = 3;

/// Which node: number of its region, number of its place within it.
pub type NodeAt = (usize, usize);

/// How often the node of each place was started after it was killed, by the name of its region and its
/// number.
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

/// What a cluster is started from.
#[derive(Debug, Clone)]
pub struct Blueprint {
    /// Where everything is kept.
    pub folder: PathBuf,
    /// The server.
    pub binary: PathBuf,
    /// How much longer a packet takes between regions, one way.
    pub delay: Duration,
    /// Size of disks that can be filled; 0 for none.
    pub disk_mib: u64,
    /// Draws which nodes are on such disks.
    pub seed: u64,
}

/// The processes and the network between them. Dropping it kills the processes.
pub struct Cluster {
    regions: Vec<Region>,
    network: Network,
    lives: Lives,
    no_disks: Option<String>,
}

/// What is not of one region, and can be worked on from anywhere.
pub struct Network {
    /// Between regions.
    pub links: Links,
    /// Between nodes of a region.
    pub wires: Wires,
    /// The nodes' wall clocks.
    pub clocks: Clocks,
    /// Looks at all nodes.
    pub sight: Sight,
}

impl Cluster {
    /// Writes configurations and certificates and starts all nodes.
    ///
    /// # Errors
    /// If a file, a socket or a process cannot be made.
    pub async fn start(blueprint: &Blueprint) -> anyhow::Result<Self> {
        let Blueprint { folder, binary, delay, disk_mib, seed } = blueprint;
        let layout = Layout::choose()?;
        let (mut links, mut wires) = (Links::new(*delay), Wires::default());
        for from in 0..REGIONS.len() {
            for to in others(from) {
                links.add(from, to, &layout.gossip(to)).await.context("bind a proxy")?;
            }
            wires.add(&layout.inside(from)).await.context("bind a proxy")?;
        }
        let clocks = Clocks::new(folder, all_places())?;
        let first = |at: NodeAt| node_id(at.0, at.1 as u64);
        let urls = all_places().map(|at| (at, layout.node(at).api_url(), first(at)));
        let sight = Sight::new(urls)?;
        let (mut disks, no_disks) = match disks(folder, *disk_mib, *seed) {
            Ok(disks) => (disks, None),
            Err(error) => (BTreeMap::new(), Some(format!("{error:#}"))),
        };
        let papers = Arc::new(Papers::new(folder, layout, &links, &wires)?);
        let lives = Lives::default();
        let mut regions = Vec::new();
        for number in 0..REGIONS.len() {
            let mut nodes = Vec::new();
            for at in (0..NODES).map(|node| (number, node)) {
                let name = node_name(at);
                let disk = disks.remove(&at).map(Arc::new);
                let data = disk.as_ref().map_or_else(|| folder.join(&name), |disk| disk.data());
                let role = Role { id: first(at), data, joined: false };
                let log = folder.join(format!("{name}.log"));
                let process = Process::new(binary, &papers.file(at), clocks.file(at), &log);
                nodes.push(Node { name, role, process, disk, was_full: false });
            }
            let (papers, sight, lives) = (papers.clone(), sight.clone(), lives.clone());
            let (operator, ever) = (Operator::new(binary, folder), NODES as u64);
            let mut region = Region { number, nodes, ever, papers, operator, sight, lives };
            region.write_papers()?;
            (0..NODES).try_for_each(|node| region.restart(node))?;
            regions.push(region);
        }
        Ok(Self { regions, network: Network { links, wires, clocks, sight }, lives, no_disks })
    }

    /// The regions, each to be worked on by somebody else, and what they share.
    pub fn split(&mut self) -> (&mut [Region], &Network) {
        (&mut self.regions, &self.network)
    }
    /// What is not of one region.
    pub fn network(&self) -> &Network {
        &self.network
    }
    /// Why no disk can be filled, if none can.
    pub fn no_disks(&self) -> Option<&str> {
        self.no_disks.as_deref()
    }
    /// gRPC addresses of a region's nodes.
    pub fn api(&self, region: usize) -> Vec<String> {
        (0..NODES).map(|node| self.network.sight.url((region, node)).to_owned()).collect()
    }
    /// Where clients find the nodes: the same all the time, also while nodes are down.
    pub fn sites(&self) -> Addresses {
        Addresses::new((0..REGIONS.len()).map(|region| self.api(region)).collect())
    }

    /// Heals everything and starts every node that is down.
    ///
    /// # Errors
    /// If a process cannot be made or told to go on, or a clock not be set right.
    pub async fn heal(&mut self) -> anyhow::Result<()> {
        self.network.links.heal();
        self.network.wires.heal();
        self.network.clocks.set_right()?;
        for region in &mut self.regions {
            region.heal().await?;
        }
        Ok(())
    }
    /// Packets that passed between regions, and bytes within them.
    pub fn traffic(&self) -> (Traffic, Traffic) {
        (self.network.links.traffic(), self.network.wires.traffic())
    }
    /// Nodes that ended by themselves so far, and panics in the logs.
    pub fn deaths(&mut self) -> Vec<Death> {
        self.regions.iter_mut().flat_map(Region::deaths).collect()
    }
    /// How often each node was started.
    pub fn lives(&self) -> Lives {
        self.lives.clone()
    }
    /// Ends all nodes and sees to it that their data outlive the run.
    ///
    /// # Errors
    /// If a node cannot be killed, or its data not be copied.
    pub async fn keep_data(&mut self) -> anyhow::Result<()> {
        for region in &mut self.regions {
            region.keep_data().await?;
        }
        Ok(())
    }
}

/// Small disks for all nodes but one of each region: that one stays where syncing takes its time.
fn disks(folder: &Path, mib: u64, seed: u64) -> anyhow::Result<BTreeMap<NodeAt, SmallDisk>> {
    ensure!(mib > 0, "not wanted");
    let spared = |region: usize| (seed as usize).wrapping_add(region) % NODES;
    let places: Vec<NodeAt> = all_places().filter(|at| spared(at.0) != at.1).collect();
    disk::check_memory(mib * places.len() as u64)?;
    let mount = |at: NodeAt| {
        let disk = SmallDisk::mount(&folder.join(format!("{}.disk", node_name(at))), mib)?;
        Ok((at, disk))
    };
    places.into_iter().map(mount).collect()
}

/// All places that a node can have.
pub fn all_places() -> impl Iterator<Item = NodeAt> {
    (0..REGIONS.len()).flat_map(|region| (0..NODES).map(move |node| (region, node)))
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
