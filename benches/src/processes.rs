//! Nodes as processes of their own, so that what they take is theirs alone.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anabranch_core::RegionName;
use anabranch_gossip::DevCa;
use anabranch_harness::cluster::{command, find_or_build};
use anabranch_server::demo::cluster::Endpoints;
use anyhow::{Context as _, ensure};
use tokio::process::Child;

use crate::cpu;

/// First port of the API, if no other is asked for; those of Raft and gossip come 100 and 200 later.
pub const FIRST_PORT: u16 = 17_100;
/// Ports of one region are this far from the next one's.
const REGION_PORTS: u16 = 10;

/// Nodes that run. Dropping it kills them.
pub struct Processes {
    binary: PathBuf,
    /// In the order of the regions and, in each, of the nodes.
    nodes: Vec<Node>,
    endpoints: Vec<Endpoints>,
}

struct Node {
    child: Child,
    /// Its data folder; configuration and log lie beside, under the same name.
    data: PathBuf,
}

/// Which node: the place of its region, and its own in it, both from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Of the region.
    pub region: usize,
    /// Of the node.
    pub node: usize,
}

impl Processes {
    /// Starts `nodes` nodes of each region below `folder`: the binary beside this one, built if need be.
    ///
    /// # Errors
    /// If a file or process cannot be made.
    pub fn start(
        regions: &[RegionName],
        nodes: u16,
        folder: &Path,
        first_port: u16,
    ) -> anyhow::Result<Self> {
        let binary = find_or_build(None)?;
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        let ca = DevCa::load_or_generate(&folder.join("ca"))?;
        let mut all = Self { binary, nodes: Vec::new(), endpoints: Vec::new() };
        for (at, region) in (0..).zip(regions) {
            let papers = Papers { regions, at, nodes, folder, first_port };
            ca.issue(region, &[])?.write(&papers.pem("cert"), &papers.pem("key"))?;
            for node in 1..=nodes {
                let data = papers.write(node)?;
                all.nodes.push(Node { child: start(&all.binary, &data)?, data });
            }
            let nodes = (1..=nodes).map(|node| format!("http://{}", papers.address(at, node, 0)));
            all.endpoints.push(Endpoints { region: region.clone(), nodes: nodes.collect() });
        }
        Ok(all)
    }

    /// What the nodes run.
    pub fn binary(&self) -> &Path {
        &self.binary
    }
    /// Where each region is reached.
    pub fn endpoints(&self) -> &[Endpoints] {
        &self.endpoints
    }

    /// Processor time of all nodes so far.
    ///
    /// # Errors
    /// If one does not run any more.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        self.ids().map(|id| cpu::used_by(&id?)).sum()
    }
    /// Bytes of all nodes in memory.
    ///
    /// # Errors
    /// If one does not run any more.
    pub fn resident(&self) -> anyhow::Result<u64> {
        self.ids().map(|id| cpu::resident(&id?)).sum()
    }

    /// Bytes that the nodes have written themselves: those of a node without what the kernel caches.
    ///
    /// # Errors
    /// If one does not run any more.
    pub fn anonymous(&self) -> anyhow::Result<u64> {
        self.ids().map(|id| cpu::anonymous(&id?)).sum()
    }

    /// Where a node keeps its data.
    ///
    /// # Errors
    /// If there is no such node.
    pub fn data(&self, place: Place) -> anyhow::Result<&Path> {
        Ok(&self.nodes[self.at(place)?].data)
    }
    /// Ends a node as a power cut does, but for the disk: signal 9. It has ended when this returns.
    ///
    /// # Errors
    /// If there is no such node, or it had ended.
    pub async fn kill(&mut self, place: Place) -> anyhow::Result<()> {
        let at = self.at(place)?;
        let child = &mut self.nodes[at].child;
        ensure!(child.try_wait()?.is_none(), "the node at {place:?} had ended by itself");
        child.kill().await.with_context(|| format!("kill the node at {place:?}"))
    }
    /// Starts a node that was killed, from what it has on its disk.
    ///
    /// # Errors
    /// If there is no such node, or no process can be made.
    pub fn start_again(&mut self, place: Place) -> anyhow::Result<()> {
        let at = self.at(place)?;
        let node = &mut self.nodes[at];
        ensure!(node.child.id().is_none(), "the node at {place:?} runs");
        node.child = start(&self.binary, &node.data)?;
        Ok(())
    }

    fn at(&self, place: Place) -> anyhow::Result<usize> {
        let Place { region, node } = place;
        let each = self.nodes.len() / self.endpoints.len().max(1);
        let there = region < self.endpoints.len() && node < each;
        ensure!(there, "no node at {place:?}: {} regions of {each}", self.endpoints.len());
        Ok(region * each + node)
    }

    /// The nodes' processes, in the order of their numbers.
    ///
    /// # Errors
    /// If one was waited for and is no more.
    pub fn pids(&self) -> anyhow::Result<Vec<u32>> {
        self.nodes.iter().map(|node| node.child.id().context("a node has ended")).collect()
    }

    fn ids(&self) -> impl Iterator<Item = anyhow::Result<String>> + '_ {
        let id = |node: &Node| Ok(node.child.id().context("a node has ended")?.to_string());
        self.nodes.iter().map(id)
    }
}

/// Starts the node whose data are, or will be, in this folder.
fn start(binary: &Path, data: &Path) -> anyhow::Result<Child> {
    let (config, log) = (data.with_extension("toml"), data.with_extension("log"));
    let mut command = command(binary, &log)?;
    command.args(["serve", "--log-level", "warn", "--config"]).arg(config);
    command.spawn().with_context(|| format!("start {}", binary.display()))
}

/// Whoever starts nodes next finds their ports free: they are waited for.
impl Drop for Processes {
    fn drop(&mut self) {
        const WITHIN: Duration = Duration::from_secs(5);
        let give_up = Instant::now() + WITHIN;
        for node in &mut self.nodes {
            let _ = node.child.start_kill();
        }
        for node in &mut self.nodes {
            while matches!(node.child.try_wait(), Ok(None)) && Instant::now() < give_up {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }
}

/// What the nodes of a region are configured by.
struct Papers<'a> {
    regions: &'a [RegionName],
    at: u16,
    nodes: u16,
    folder: &'a Path,
    first_port: u16,
}

impl Papers<'_> {
    fn region(&self) -> &RegionName {
        &self.regions[usize::from(self.at)]
    }
    fn address(&self, region: u16, node: u16, kind: u16) -> String {
        format!("127.0.0.1:{}", self.first_port + kind * 100 + region * REGION_PORTS + node)
    }
    fn pem(&self, what: &str) -> PathBuf {
        self.folder.join(format!("{}-{what}.pem", self.region()))
    }

    /// Writes the configuration of a node, and says where its data go.
    fn write(&self, node: u16) -> anyhow::Result<PathBuf> {
        let data = self.folder.join(format!("{}-{node}", self.region()));
        let config = data.with_extension("toml");
        fs::write(config, self.toml(node, &data)).context("write a configuration")?;
        Ok(data)
    }

    fn toml(&self, node: u16, data: &Path) -> String {
        let (region, data) = (self.region(), data.display());
        let [cert, key] = ["cert", "key"].map(|what| self.pem(what).display().to_string());
        let ca = self.folder.join("ca/ca.pem").display().to_string();
        let mut toml = format!(
            "cluster = \"bench\"\nregion = \"{region}\"\nnode = {node}\ndata-dir = \"{data}\"\n\n\
             [tls]\nca = \"{ca}\"\ncert = \"{cert}\"\nkey = \"{key}\"\n"
        );
        for id in 1..=self.nodes {
            let [api, raft, gossip] = [0, 1, 2].map(|kind| self.address(self.at, id, kind));
            let _ = write!(
                toml,
                "\n[[nodes]]\nid = {id}\napi = \"{api}\"\nraft = \"{raft}\"\ngossip = \"{gossip}\"\n"
            );
        }
        for (other, name) in (0..).zip(self.regions).filter(|(other, _)| *other != self.at) {
            let gossip = (1..=self.nodes).map(|id| format!("\"{}\"", self.address(other, id, 2)));
            let gossip = gossip.collect::<Vec<_>>().join(", ");
            let _ = write!(toml, "\n[[regions]]\nname = \"{name}\"\ngossip = [{gossip}]\n");
        }
        toml
    }
}
