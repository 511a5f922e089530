//! Nodes as processes of their own, so that what they take is theirs alone.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anabranch_core::RegionName;
use anabranch_gossip::DevCa;
use anabranch_harness::cluster::{command, find_or_build};
use anabranch_server::demo::cluster::Endpoints;
use anyhow::Context as _;
use tokio::process::Child;

use crate::cpu;

/// First port of the API; those of Raft and gossip come 100 and 200 later.
const FIRST_PORT: u16 = 17_100;
/// Ports of one region are this far from the next one's.
const REGION_PORTS: u16 = 10;

/// Nodes that run. Dropping it kills them.
pub struct Processes {
    children: Vec<Child>,
    endpoints: Vec<Endpoints>,
}

impl Processes {
    /// Starts `nodes` nodes of each region below `folder`: the binary beside this one, built if need be.
    ///
    /// # Errors
    /// If a file or process cannot be made.
    pub fn start(regions: &[RegionName], nodes: u16, folder: &Path) -> anyhow::Result<Self> {
        let binary = find_or_build(None)?;
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        let ca = DevCa::load_or_generate(&folder.join("ca"))?;
        let mut all = Self { children: Vec::new(), endpoints: Vec::new() };
        for (at, region) in (0..).zip(regions) {
            let papers = Papers { regions, at, nodes, folder };
            ca.issue(region, &[])?.write(&papers.pem("cert"), &papers.pem("key"))?;
            for node in 1..=nodes {
                let child = papers.start(&binary, node)?;
                all.children.push(child);
            }
            let nodes = (1..=nodes).map(|node| format!("http://{}", address(at, node, 0)));
            all.endpoints.push(Endpoints { region: region.clone(), nodes: nodes.collect() });
        }
        Ok(all)
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

    fn ids(&self) -> impl Iterator<Item = anyhow::Result<String>> + '_ {
        self.children.iter().map(|child| Ok(child.id().context("a node has ended")?.to_string()))
    }
}

fn address(region: u16, node: u16, kind: u16) -> String {
    format!("127.0.0.1:{}", FIRST_PORT + kind * 100 + region * REGION_PORTS + node)
}

/// What the nodes of a region are configured by.
struct Papers<'a> {
    regions: &'a [RegionName],
    at: u16,
    nodes: u16,
    folder: &'a Path,
}

impl Papers<'_> {
    fn region(&self) -> &RegionName {
        &self.regions[usize::from(self.at)]
    }
    fn pem(&self, what: &str) -> PathBuf {
        self.folder.join(format!("{}-{what}.pem", self.region()))
    }

    fn start(&self, binary: &Path, node: u16) -> anyhow::Result<Child> {
        let name = self.folder.join(format!("{}-{node}", self.region()));
        let (config, log) = (name.with_extension("toml"), name.with_extension("log"));
        fs::write(&config, self.toml(node, &name)).context("write a configuration")?;
        let mut command = command(binary, &log)?;
        command.args(["serve", "--log-level", "warn", "--config"]).arg(&config);
        command.spawn().with_context(|| format!("start {}", binary.display()))
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
            let [api, raft, gossip] = [0, 1, 2].map(|kind| address(self.at, id, kind));
            let _ = write!(
                toml,
                "\n[[nodes]]\nid = {id}\napi = \"{api}\"\nraft = \"{raft}\"\ngossip = \"{gossip}\"\n"
            );
        }
        for (other, name) in (0..).zip(self.regions).filter(|(other, _)| *other != self.at) {
            let gossip = (1..=self.nodes).map(|id| format!("\"{}\"", address(other, id, 2)));
            let gossip = gossip.collect::<Vec<_>>().join(", ");
            let _ = write!(toml, "\n[[regions]]\nname = \"{name}\"\ngossip = [{gossip}]\n");
        }
        toml
    }
}
