//! Addresses, certificates and configuration files of the nodes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};

use anabranch_core::RegionName;
use anabranch_gossip::DevCa;
use anyhow::{Context, bail};

use super::{NODES, NodeAt, REGIONS, node_name};
use crate::proxy::Links;

/// Ports are taken from here: below those that the system gives to outgoing connections, one of
/// which could otherwise sit on a node's port while the node is down.
const PORTS: std::ops::Range<u16> = 17_000..32_000;

/// Where a node listens.
#[derive(Debug, Clone, Copy)]
pub(super) struct NodeAddresses {
    api: SocketAddr,
    raft: SocketAddr,
    gossip: SocketAddr,
}

impl NodeAddresses {
    pub(super) fn api_url(&self) -> String {
        format!("http://{}", self.api)
    }
}

/// Where all nodes listen.
#[derive(Debug)]
pub(super) struct Layout {
    nodes: BTreeMap<NodeAt, NodeAddresses>,
}

impl Layout {
    /// Free ports for every node. Where the search begins depends on the process, so that two runs
    /// at once do not meet.
    pub(super) fn choose() -> anyhow::Result<Self> {
        let room = u32::from(PORTS.end - PORTS.start);
        let begin = PORTS.start + (std::process::id().wrapping_mul(97) % room) as u16;
        let mut ports = (begin..PORTS.end).chain(PORTS.start..begin).filter(|port| is_free(*port));
        let mut next = || match ports.next() {
            Some(port) => Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
            None => bail!("no free ports in {PORTS:?}"),
        };
        let mut nodes = BTreeMap::new();
        for at in all() {
            nodes.insert(at, NodeAddresses { api: next()?, raft: next()?, gossip: next()? });
        }
        Ok(Self { nodes })
    }
    pub(super) fn node(&self, at: NodeAt) -> NodeAddresses {
        self.nodes[&at]
    }
    pub(super) fn gossip(&self, region: usize) -> Vec<SocketAddr> {
        (0..NODES).map(|node| self.node((region, node)).gossip).collect()
    }
}

fn all() -> impl Iterator<Item = NodeAt> {
    (0..REGIONS.len()).flat_map(|region| (0..NODES).map(move |node| (region, node)))
}

fn is_free(port: u16) -> bool {
    let address = (Ipv4Addr::LOCALHOST, port);
    TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok()
}

/// The number that a node is configured with.
pub(super) fn node_id((region, node): NodeAt) -> u64 {
    (region as u64 + 1) * 10 + node as u64 + 1
}

/// Writes a configuration for every node, and its certificate.
pub(super) fn write(
    folder: &Path,
    layout: &Layout,
    links: &Links,
) -> anyhow::Result<BTreeMap<NodeAt, PathBuf>> {
    let ca = DevCa::generate()?;
    fs::write(folder.join("ca.pem"), ca.cert_pem()).context("write the authority's certificate")?;
    let mut files = BTreeMap::new();
    for at in all() {
        let name = node_name(at);
        let (cert, key) =
            (folder.join(format!("{name}.pem")), folder.join(format!("{name}-key.pem")));
        ca.issue(&RegionName::new(REGIONS[at.0])?, &[])?.write(&cert, &key)?;
        let file = folder.join(format!("{name}.toml"));
        fs::write(&file, node_toml(folder, at, layout, links)).context("write a configuration")?;
        files.insert(at, file);
    }
    Ok(files)
}

/// Small segments, so that a short run also crosses from one to the next.
fn node_toml(folder: &Path, at: NodeAt, layout: &Layout, links: &Links) -> String {
    let (name, region, id) = (node_name(at), REGIONS[at.0], node_id(at));
    let folder = folder.display();
    let mut toml = format!(
        "cluster = \"harness\"\nregion = \"{region}\"\nnode = {id}\ndata-dir = \"{folder}/{name}\"\n\n\
         [tls]\nca = \"{folder}/ca.pem\"\ncert = \"{folder}/{name}.pem\"\nkey = \"{folder}/{name}-key.pem\"\n\n\
         [log]\nsegment-size = \"1MiB\"\ncache-size = \"16MiB\"\n"
    );
    for node in 0..NODES {
        let (id, NodeAddresses { api, raft, gossip }) =
            (node_id((at.0, node)), layout.node((at.0, node)));
        let _ = write!(
            toml,
            "\n[[nodes]]\nid = {id}\napi = \"{api}\"\nraft = \"{raft}\"\ngossip = \"{gossip}\"\n"
        );
    }
    for other in (0..REGIONS.len()).filter(|other| *other != at.0) {
        let gossip: Vec<String> =
            links.addresses(at.0, other).iter().map(|address| format!("\"{address}\"")).collect();
        let _ = write!(
            toml,
            "\n[[regions]]\nname = \"{}\"\ngossip = [{}]\n",
            REGIONS[other],
            gossip.join(", ")
        );
    }
    toml
}
