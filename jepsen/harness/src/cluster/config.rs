//! Addresses, certificates and configuration files of the nodes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};

use anabranch_core::RegionName;
use anabranch_gossip::DevCa;
use anyhow::{Context, bail};

use super::{NODES, NodeAt, REGIONS, all_places, node_name};
use crate::proxy::{Addresses, Links, Wires};

/// Ports are taken from here: below those that the system gives to outgoing connections, one of
/// which could otherwise sit on a node's port while the node is down.
const PORTS: std::ops::Range<u16> = 17_000..32_000;

/// Where a node listens.
#[derive(Debug, Clone, Copy)]
pub(super) struct NodeAddresses {
    pub(super) inside: Addresses,
    gossip: SocketAddr,
}

impl NodeAddresses {
    pub(super) fn api_url(&self) -> String {
        format!("http://{}", self.inside.api)
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
        for at in all_places() {
            let inside = Addresses { api: next()?, raft: next()? };
            nodes.insert(at, NodeAddresses { inside, gossip: next()? });
        }
        Ok(Self { nodes })
    }
    pub(super) fn node(&self, at: NodeAt) -> NodeAddresses {
        self.nodes[&at]
    }
    pub(super) fn gossip(&self, region: usize) -> Vec<SocketAddr> {
        (0..NODES).map(|node| self.node((region, node)).gossip).collect()
    }
    pub(super) fn inside(&self, region: usize) -> [(NodeAt, Addresses); NODES] {
        std::array::from_fn(|node| ((region, node), self.node((region, node)).inside))
    }
}

fn is_free(port: u16) -> bool {
    let address = (Ipv4Addr::LOCALHOST, port);
    TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok()
}

/// The number of the `nth` node that a region ever had, from 0.
pub(super) fn node_id(region: usize, nth: u64) -> u64 {
    (region as u64 + 1) * 100 + nth + 1
}

/// Who a node is, as its configuration says.
#[derive(Debug, Clone)]
pub(super) struct Role {
    /// Its number.
    pub(super) id: u64,
    /// Its data folder.
    pub(super) data: PathBuf,
    /// Whether it joined a region that ran already.
    pub(super) joined: bool,
}

/// What configurations of nodes are written from, and where to.
#[derive(Debug)]
pub(super) struct Papers {
    folder: PathBuf,
    layout: Layout,
    /// Of each place: whom it reaches, and by way of which proxy.
    routes: BTreeMap<NodeAt, Vec<(SocketAddr, SocketAddr)>>,
    /// Of each region and each other: where its nodes' gossip is.
    gossip: BTreeMap<(usize, usize), Vec<SocketAddr>>,
}

impl Papers {
    /// Writes a certificate for every place.
    pub(super) fn new(
        folder: &Path,
        layout: Layout,
        links: &Links,
        wires: &Wires,
    ) -> anyhow::Result<Self> {
        let ca = DevCa::generate()?;
        let authority = folder.join("ca.pem");
        fs::write(&authority, ca.cert_pem()).context("write the authority's certificate")?;
        for at in all_places() {
            let name = node_name(at);
            let (cert, key) =
                (folder.join(format!("{name}.pem")), folder.join(format!("{name}-key.pem")));
            ca.issue(&RegionName::new(REGIONS[at.0])?, &[])?.write(&cert, &key)?;
        }
        let routes = all_places().map(|at| (at, wires.routes(at).collect())).collect();
        let pairs = (0..REGIONS.len())
            .flat_map(|from| others(from).map(move |to| (from, to)))
            .map(|(from, to)| ((from, to), links.addresses(from, to)));
        Ok(Self { folder: folder.to_owned(), layout, routes, gossip: pairs.collect() })
    }

    /// The configuration file of a place.
    pub(super) fn file(&self, at: NodeAt) -> PathBuf {
        self.folder.join(format!("{}.toml", node_name(at)))
    }

    /// Writes the configurations of the nodes that a region has now, by their places.
    pub(super) fn write(&self, region: usize, roles: &[Role]) -> anyhow::Result<()> {
        for node in 0..NODES {
            let at = (region, node);
            fs::write(self.file(at), self.toml(at, roles)).context("write a configuration")?;
        }
        Ok(())
    }

    /// Small segments, so that a short run also crosses from one to the next.
    fn toml(&self, at: NodeAt, roles: &[Role]) -> String {
        let (name, region) = (node_name(at), REGIONS[at.0]);
        let Role { id, data, joined } = &roles[at.1];
        let (folder, data) = (self.folder.display(), data.display());
        let mut toml = format!(
            "cluster = \"harness\"\nregion = \"{region}\"\nnode = {id}\njoin = {joined}\n\
             data-dir = \"{data}\"\n\n\
             [tls]\nca = \"{folder}/ca.pem\"\ncert = \"{folder}/{name}.pem\"\nkey = \"{folder}/{name}-key.pem\"\n\n\
             [log]\nsegment-size = \"1MiB\"\ncache-size = \"16MiB\"\n"
        );
        for (node, Role { id, .. }) in roles.iter().enumerate() {
            let NodeAddresses { inside: Addresses { api, raft }, gossip } =
                self.layout.node((at.0, node));
            let _ = write!(
                toml,
                "\n[[nodes]]\nid = {id}\napi = \"{api}\"\nraft = \"{raft}\"\ngossip = \"{gossip}\"\n"
            );
        }
        for (to, via) in &self.routes[&at] {
            let _ = write!(toml, "\n[[routes]]\nto = \"{to}\"\nvia = \"{via}\"\n");
        }
        for other in others(at.0) {
            let gossip: Vec<String> =
                self.gossip[&(at.0, other)].iter().map(|at| format!("\"{at}\"")).collect();
            let gossip = gossip.join(", ");
            let name = REGIONS[other];
            let _ = write!(toml, "\n[[regions]]\nname = \"{name}\"\ngossip = [{gossip}]\n");
        }
        toml
    }
}

/// Numbers of the other regions.
pub(super) fn others(region: usize) -> impl Iterator<Item = usize> {
    (0..REGIONS.len()).filter(move |other| *other != region)
}
