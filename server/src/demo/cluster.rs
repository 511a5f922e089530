//! Several regions of several nodes in this process: real sockets, folders and certificates.
//!
//! Every node is started as `anabranch serve` starts one. Only the UDP socket differs: it follows
//! rules by which the cables between regions are lengthened and cut.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anabranch_client::Client;
use anabranch_core::RegionName;
use anabranch_gossip::{Cut, DevCa, LinkRules, ShapedUdp, SystemResolver, WallClock};
use anyhow::{Context as _, ensure};

use super::running::Running;
use super::wan::Map;
use crate::config::{Config, Member, Peer, Raft, Span, Tls};
use crate::node::Environment;

/// Ports of one region: this many apart from the next region's.
const REGION_PORTS: u16 = 100;
/// Within a region, ports of one kind begin this many apart.
const KIND_PORTS: u16 = 10;
/// Ports are not sought beyond: from there on systems hand them out to whoever connects.
const PORT_END: u16 = 32_000;
/// How long a single node is asked before it counts as silent.
const NODE_ANSWERS_WITHIN: Duration = Duration::from_secs(2);
const LOCALHOST: [u8; 4] = [127, 0, 0, 1];

/// What to start.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The regions and how far apart they are.
    pub map: Map,
    /// Nodes in each region; at most 9.
    pub nodes: u16,
    /// Where the nodes keep everything. Must be empty or missing.
    pub folder: PathBuf,
    /// First port to try; the first free range from there is taken.
    pub port: u16,
}

/// Where a region's nodes are reached over gRPC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints {
    /// The region.
    pub region: RegionName,
    /// `http://host:port` of each node, in the order of their numbers.
    pub nodes: Vec<String>,
}

impl Endpoints {
    /// A client of the region.
    ///
    /// # Errors
    /// If an address is none.
    pub fn client(&self) -> anyhow::Result<Client> {
        let region = self.region.as_str();
        Ok(Client::builder().region(region, self.nodes.clone()).build()?)
    }
    /// A client of each node, that asks no other, in the order of their numbers.
    ///
    /// Questions to nodes are cheap and asked again, so these give up early.
    /// # Errors
    /// If an address is none.
    pub fn clients_of_nodes(&self) -> anyhow::Result<Vec<Client>> {
        let client = |node: &String| {
            let client = Client::builder().region(self.region.as_str(), [node.clone()]);
            Ok(client.timeout(NODE_ANSWERS_WITHIN).build()?)
        };
        self.nodes.iter().map(client).collect()
    }
}

/// A place for a node, taken or empty.
struct Seat {
    config: Config,
    gossip: SocketAddr,
    rules: LinkRules,
    node: Option<Running>,
}

struct Site {
    region: RegionName,
    seats: Vec<Seat>,
}

/// The regions, running.
pub struct Cluster {
    sites: Vec<Site>,
}

impl Cluster {
    /// Starts every node of every region.
    ///
    /// # Errors
    /// If the folder is in use, no ports are free, or a node does not start.
    pub async fn start(plan: &Plan) -> anyhow::Result<Self> {
        ensure!((1..=9).contains(&plan.nodes), "a region has 1 to 9 nodes, not {}", plan.nodes);
        let folder = std::path::absolute(&plan.folder)?;
        ensure_empty(&folder)?;
        let ports = Ports::find(plan)?;
        let mut cluster = Self { sites: sites(plan, &folder, &ports)? };
        cluster.lengthen_cables(&plan.map);
        for region in 0..cluster.sites.len() {
            for place in 0..usize::from(plan.nodes) {
                cluster.start_node(region, place).await?;
            }
        }
        Ok(cluster)
    }

    /// Where each region is reached.
    pub fn endpoints(&self) -> Vec<Endpoints> {
        let of = |site: &Site| Endpoints {
            region: site.region.clone(),
            nodes: site.seats.iter().map(|seat| format!("http://{}", seat.api())).collect(),
        };
        self.sites.iter().map(of).collect()
    }

    /// Starts the node of an empty seat, on what its folder holds.
    ///
    /// # Errors
    /// If it does not start.
    ///
    /// # Panics
    /// If the seat is taken.
    pub async fn start_node(&mut self, region: usize, place: usize) -> anyhow::Result<()> {
        let site = &mut self.sites[region];
        let seat = &mut site.seats[place];
        assert!(seat.node.is_none(), "node {} of {} runs already", place + 1, site.region);
        let config = seat.config.clone().validate()?;
        let node = Running::start(config, environment(seat.rules.clone())).await;
        let started = node.with_context(|| format!("start node {} of {}", place + 1, site.region));
        seat.node = Some(started?);
        Ok(())
    }

    /// Ends a node at once, as if its process had died: nothing is handed over or flushed.
    ///
    /// # Panics
    /// If the seat is empty.
    pub async fn kill_node(&mut self, region: usize, place: usize) {
        let node = self.sites[region].seats[place].node.take().expect("a node that runs");
        node.kill().await;
    }

    /// Cuts every cable of a region to the others, in both directions.
    pub fn cut_off(&self, region: usize) {
        self.for_each_cable(region, |rules, remote| rules.cut(remote, Cut::Both));
    }

    /// Mends every cable of a region.
    pub fn heal(&self, region: usize) {
        self.for_each_cable(region, LinkRules::heal);
    }

    /// Stops every node in good order.
    pub async fn drain(mut self) {
        let seats = self.sites.iter_mut().flat_map(|site| &mut site.seats);
        let nodes = seats.filter_map(|seat| seat.node.take());
        futures_util::future::join_all(nodes.map(Running::drain)).await;
    }

    /// Ends every node at once.
    pub async fn kill(mut self) {
        let seats = self.sites.iter_mut().flat_map(|site| &mut site.seats);
        let nodes = seats.filter_map(|seat| seat.node.take());
        futures_util::future::join_all(nodes.map(Running::kill)).await;
    }

    /// Ends of all cables between `region` and the others: whose rules, and the other end.
    fn for_each_cable(&self, region: usize, act: impl Fn(&LinkRules, SocketAddr)) {
        let inside = &self.sites[region].seats;
        let outside = self.sites.iter().enumerate().filter(|(other, _)| *other != region);
        for far in outside.flat_map(|(_, site)| &site.seats) {
            for near in inside {
                act(&near.rules, far.gossip);
                act(&far.rules, near.gossip);
            }
        }
    }

    fn lengthen_cables(&self, map: &Map) {
        for (a, site) in self.sites.iter().enumerate() {
            for (b, other) in self.sites.iter().enumerate().filter(|(b, _)| *b != a) {
                for near in &site.seats {
                    for far in &other.seats {
                        near.rules.delay(far.gossip, map.one_way(a, b));
                    }
                }
            }
        }
    }
}

impl Seat {
    fn api(&self) -> &str {
        let own = self.config.nodes.iter().find(|member| member.id == self.config.node);
        &own.expect("a configuration lists its own node").api
    }
}

fn ensure_empty(folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    let mut held =
        std::fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    // Old nodes would be asked for at addresses that are no longer theirs.
    ensure!(held.next().is_none(), "{} is not empty; name a new folder", folder.display());
    Ok(())
}

/// A range of free ports, laid out by region, kind and node.
struct Ports {
    base: u16,
}

#[derive(Clone, Copy)]
enum Kind {
    Api = 0,
    Raft = 1,
    Gossip = 2,
}

impl Ports {
    /// The first range from the plan's port on of which every port is free.
    fn find(plan: &Plan) -> anyhow::Result<Self> {
        let span = REGION_PORTS * u16::try_from(plan.map.regions.len())?;
        let last = u16::MAX - span;
        ensure!(
            (1..=last).contains(&plan.port),
            "port {}: {span} ports are needed from there on, so it must be 1 to {last}",
            plan.port
        );
        let end = PORT_END.saturating_sub(span);
        let mut bases = (plan.port..=end.max(plan.port)).step_by(usize::from(span));
        let free = bases.find(|base| Self { base: *base }.are_free(plan));
        let base = free.with_context(|| format!("find free ports from {} on", plan.port))?;
        Ok(Self { base })
    }

    fn are_free(&self, plan: &Plan) -> bool {
        let regions = 0..plan.map.regions.len();
        let mut places = regions.flat_map(|region| (0..plan.nodes).map(move |node| (region, node)));
        places.all(|(region, place)| {
            let at = |kind| self.at(region, kind, place);
            let tcp = [at(Kind::Api), at(Kind::Raft)];
            tcp.iter().all(|at| TcpListener::bind(at).is_ok())
                && UdpSocket::bind(at(Kind::Gossip)).is_ok()
        })
    }

    fn at(&self, region: usize, kind: Kind, place: u16) -> SocketAddr {
        let region = u16::try_from(region).expect("few regions") * REGION_PORTS;
        let port = self.base + region + KIND_PORTS * kind as u16 + place + 1;
        SocketAddr::from((LOCALHOST, port))
    }
}

fn sites(plan: &Plan, folder: &Path, ports: &Ports) -> anyhow::Result<Vec<Site>> {
    let ca = DevCa::load_or_generate(&folder.join("ca"))?;
    let regions = &plan.map.regions;
    let members = |region: usize| -> Vec<Member> {
        let member = |place: u16| Member {
            id: u64::from(place) + 1,
            api: ports.at(region, Kind::Api, place).to_string(),
            raft: ports.at(region, Kind::Raft, place).to_string(),
            gossip: ports.at(region, Kind::Gossip, place).to_string(),
        };
        (0..plan.nodes).map(member).collect()
    };
    let peer = |region: usize| Peer {
        name: regions[region].to_string(),
        gossip: members(region).into_iter().map(|member| member.gossip).collect(),
    };
    let mut sites = Vec::new();
    for (at, region) in regions.iter().enumerate() {
        let peers: Vec<Peer> = (0..regions.len()).filter(|other| *other != at).map(peer).collect();
        let mut seats = Vec::new();
        for place in 0..plan.nodes {
            let node = format!("{region}-{}", place + 1);
            let tls = Tls {
                ca: folder.join("ca/ca.pem"),
                cert: folder.join("certs").join(format!("{node}.pem")),
                key: folder.join("certs").join(format!("{node}-key.pem")),
                api: false,
                ..Tls::default()
            };
            ca.issue(region, &[])?.write(&tls.cert, &tls.key)?;
            let config = Config {
                cluster: "demo".to_owned(),
                region: region.to_string(),
                node: u64::from(place) + 1,
                data_dir: folder.join(&node),
                tls,
                raft: patient(),
                nodes: members(at),
                regions: peers.clone(),
                ..Config::default()
            };
            let gossip = ports.at(at, Kind::Gossip, place);
            seats.push(Seat { config, gossip, rules: LinkRules::new(), node: None });
        }
        sites.push(Site { region: region.clone(), seats });
    }
    Ok(sites)
}

/// Many nodes share few cores here: what is a dead leader elsewhere may be a busy one.
fn patient() -> Raft {
    Raft {
        heartbeat: Span::millis(150),
        election_min: Span::millis(900),
        election_max: Span::millis(1_800),
    }
}

/// The machine's clock, disk, network and randomness, with shaped cables between regions.
fn environment(rules: LinkRules) -> Environment {
    let bind = move |address: SocketAddr, clock: WallClock| {
        Ok(anabranch_gossip::Environment {
            socket: Arc::new(ShapedUdp::bind(address, rules.clone())?),
            runtime: Arc::new(quinn::TokioRuntime),
            resolver: Arc::new(SystemResolver),
            clock,
        })
    };
    Environment { gossip: Arc::new(bind), ..Environment::system() }
}
