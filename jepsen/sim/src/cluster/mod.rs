//! A whole cluster in one thread: hosts, links, disks and clocks, and what can be done to them.

mod seat;
mod shape;
mod sites;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use anabranch_log::derived::states::MemoryStates;
use anabranch_log::disk::MemoryDisk;
use anabranch_server::config::{Config, Log, Member, Peer, Size};
use anyhow::Context;
use turmoil::{Builder, Sim};

pub use seat::{Certificates, Order, Seat};
pub use shape::{NodeAt, Shape, region_name};
pub use sites::SimSites;

use crate::journal::Journal;
use crate::world::{Conditions, DiskPace, Gate, SimStorage, Weather, clock, seeds};
use seat::SeatParts;

const API_PORT: u16 = 4000;
const RAFT_PORT: u16 = 4001;
const GOSSIP_PORT: u16 = 4002;
/// Packets and segments that a host's sockets hold: more than ever wait.
const SOCKET_ROOM: usize = 1 << 16;

/// A simulated cluster.
pub struct Cluster {
    sim: Sim<'static>,
    shape: Shape,
    seats: Vec<Vec<Arc<Seat>>>,
    clients: Vec<IpAddr>,
    /// Hosts that exist: links to others cannot be set yet.
    hosts: BTreeSet<IpAddr>,
    weather: Weather,
    journal: Journal,
}

impl Cluster {
    /// Makes the cluster of a seed, if asked to with a spare node in the region that can have one.
    /// Nothing has run when this returns.
    ///
    /// # Errors
    /// A configuration that the node refuses: a mistake of the simulation.
    pub fn new(
        seed: u64,
        shape: Shape,
        with_spare: bool,
        journal: Journal,
    ) -> anyhow::Result<Self> {
        let sim = Builder::new()
            .rng_seed(seed)
            .epoch(UNIX_EPOCH + Duration::from_millis(clock::EPOCH_MS))
            .simulation_duration(Duration::from_secs(1_000_000))
            .tick_duration(shape.tick)
            .min_message_latency(shape.near)
            .max_message_latency(shape.near)
            .tcp_capacity(SOCKET_ROOM)
            .udp_capacity(SOCKET_ROOM)
            .build();
        let weather = Weather::new();
        let mut seats = Vec::new();
        for (region, nodes) in shape.nodes.iter().enumerate() {
            let seat = |node| {
                let at = NodeAt(region, node);
                let ip = sim.lookup(at.to_string());
                let storage = storage(seed, at, shape.sync);
                let (weather, journal) = (weather.clone(), journal.clone());
                Arc::new(Seat::new(SeatParts { at, ip, storage, seed, weather, journal }))
            };
            let spare = usize::from(with_spare && shape.spare() == Some(region));
            let of_region: Vec<_> = (0..nodes + spare).map(seat).collect();
            of_region[*nodes..].iter().for_each(|spare| spare.sleep());
            seats.push(of_region);
        }
        let clients = (0..shape.regions()).map(|region| sim.lookup(client_name(region))).collect();
        let mut cluster =
            Self { sim, shape, seats, clients, hosts: BTreeSet::new(), weather, journal };
        cluster.configure()?;
        cluster.start();
        Ok(cluster)
    }

    fn configure(&self) -> anyhow::Result<()> {
        for seat in self.seats.iter().flatten() {
            let config = self.config(seat.at).validate();
            seat.configure(config.with_context(|| format!("configure {}", seat.at))?);
        }
        Ok(())
    }

    fn config(&self, NodeAt(region, node): NodeAt) -> Config {
        let name = region_name(region);
        let members = self.seats[region].iter().map(|seat| member(seat)).collect();
        let others = (0..self.shape.regions()).filter(|other| *other != region);
        let peer = |other: usize| Peer {
            name: region_name(other),
            gossip: self.seats[other].iter().map(|seat| address(seat.ip, GOSSIP_PORT)).collect(),
        };
        Config {
            cluster: "simulation".into(),
            region: name.clone(),
            node: node as u64 + 1,
            data_dir: PathBuf::from(format!("/simulated/{}", NodeAt(region, node))),
            tls: Certificates::new().of(&name),
            log: Log {
                segment_size: Size(self.shape.segment_bytes),
                reserve_size: Size(64 * 1024),
                ..Log::default()
            },
            nodes: members,
            join: node >= self.shape.nodes[region],
            bootstrap: (1..=self.shape.nodes[region] as u64).collect(),
            regions: others.map(peer).collect(),
            ..Config::default()
        }
    }

    fn start(&mut self) {
        for seat in self.seats.iter().flatten() {
            let seat = Arc::clone(seat);
            self.hosts.insert(seat.ip);
            self.sim.host(seat.at.to_string(), move || Arc::clone(&seat).live());
        }
        self.set_distances();
    }

    /// Lets every link take its usual time.
    pub fn set_distances(&self) {
        for one in 0..self.shape.regions() {
            for other in 0..self.shape.regions() {
                let way = if one == other { self.shape.near } else { self.shape.far[one][other] };
                self.set_delay(one, other, way);
            }
        }
    }

    /// Sets the one-way delay between the nodes and clients of two regions, both ways.
    pub fn set_delay(&self, one: usize, other: usize, way: Duration) {
        for from in self.places(one) {
            for to in self.places(other).into_iter().filter(|to| *to != from) {
                self.sim.set_link_latency(from, to, way);
            }
        }
    }

    /// Addresses of a region's nodes, and of the host of its clients.
    fn places(&self, region: usize) -> Vec<IpAddr> {
        let nodes = self.seats[region].iter().map(|seat| seat.ip);
        let places = nodes.chain([self.clients[region]]);
        places.filter(|place| self.hosts.contains(place)).collect()
    }

    /// Adds the host on which the clients of a region run.
    pub fn client_host<F>(&mut self, region: usize, program: F)
    where
        F: Future<Output = turmoil::Result> + 'static,
    {
        self.sim.client(client_name(region), program);
        self.hosts.insert(self.clients[region]);
        self.set_distances();
    }

    /// Adds a host for whoever judges in the end, near to everything.
    pub fn judge_host<F>(&mut self, program: F)
    where
        F: Future<Output = turmoil::Result> + 'static,
    {
        self.sim.client("judge", program);
    }

    /// Simulates one step. Returns whether all clients and the judge have ended.
    ///
    /// # Errors
    /// A client or the judge failed or panicked.
    pub fn step(&mut self) -> anyhow::Result<bool> {
        let ended = self.sim.step().map_err(|error| anyhow::anyhow!("{error}"));
        self.journal.tick(self.sim.elapsed());
        ended
    }

    /// Simulated time since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.sim.elapsed()
    }
    /// What it is made of.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }
    /// A node's seat.
    pub fn seat(&self, NodeAt(region, node): NodeAt) -> &Arc<Seat> {
        &self.seats[region][node]
    }
    /// All seats.
    pub fn seats(&self) -> impl Iterator<Item = &Arc<Seat>> {
        self.seats.iter().flatten()
    }
    /// All nodes of a region, but for a spare one that was not needed yet.
    pub fn region_nodes(&self, region: usize) -> Vec<NodeAt> {
        let awake = self.seats[region].iter().filter(|seat| !seat.is_dormant());
        awake.map(|seat| seat.at).collect()
    }
    /// The spare node of a region.
    ///
    /// # Panics
    /// If it was made without.
    pub fn spare_of(&self, region: usize) -> NodeAt {
        let spare = NodeAt(region, self.shape.nodes[region]);
        assert!(self.seats[region].len() > spare.1, "{spare} is no seat");
        spare
    }
    /// Nodes as members of their group.
    pub fn members(&self, nodes: &BTreeSet<NodeAt>) -> BTreeMap<u64, anabranch_server::raft::Node> {
        let member = |at: &NodeAt| {
            let Member { id, api, raft, .. } = member(self.seat(*at));
            (id, anabranch_server::raft::Node { raft_address: raft, api_address: api })
        };
        nodes.iter().map(member).collect()
    }
    /// Sets the conditions between the nodes of two regions, both ways.
    pub fn set_weather(&self, one: usize, other: usize, conditions: Conditions) {
        for from in &self.seats[one] {
            for to in &self.seats[other] {
                self.weather.set(from.ip, to.ip, conditions);
                self.weather.set(to.ip, from.ip, conditions);
            }
        }
    }
    /// Weather between regions.
    pub fn weather(&self) -> &Weather {
        &self.weather
    }
    /// The journal.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }
    /// The cluster as clients see it, without the nodes that are `gone`, and without regions that
    /// have no others.
    pub fn sites(&self, gone: &BTreeSet<NodeAt>) -> SimSites {
        let mut sites = SimSites::default();
        for (region, seats) in self.seats.iter().enumerate() {
            let there = seats.iter().filter(|seat| !seat.is_dormant() && !gone.contains(&seat.at));
            let nodes: Vec<_> = there
                .map(|seat| (seat.at.to_string(), format!("http://{}", address(seat.ip, API_PORT))))
                .collect();
            if !nodes.is_empty() {
                sites.add(region_name(region), nodes);
            }
        }
        sites
    }

    /// The process of a node ends at once; what it wrote and did not sync stays in the system's
    /// cache.
    pub fn kill(&mut self, at: NodeAt) {
        let seat = Arc::clone(self.seat(at));
        seat.vacate();
        self.sim.crash(seat.ip);
        seat.storage.disk.kill();
        seat.gate.open();
    }
    /// The node's power fails: what was not synced is lost or torn.
    pub fn power_off(&mut self, at: NodeAt) {
        self.kill(at);
        self.seat(at).storage.disk.crash();
    }
    /// Starts the node's process again.
    pub fn restart(&mut self, at: NodeAt) {
        let ip = self.seat(at).ip;
        self.seat(at).wake();
        self.sim.bounce(ip);
    }
    /// Whether a process runs there.
    pub fn runs(&mut self, at: NodeAt) -> bool {
        let ip = self.seat(at).ip;
        self.sim.is_host_running(ip)
    }
    /// Nothing passes from one node to the other any more.
    pub fn cut(&self, from: NodeAt, to: NodeAt) {
        self.sim.partition_oneway(self.seat(from).ip, self.seat(to).ip);
    }
    /// Ends a cut.
    pub fn heal(&self, from: NodeAt, to: NodeAt) {
        self.sim.repair_oneway(self.seat(from).ip, self.seat(to).ip);
    }
}

fn member(seat: &Seat) -> Member {
    let [api, raft, gossip] = [API_PORT, RAFT_PORT, GOSSIP_PORT].map(|port| address(seat.ip, port));
    Member { id: seat.at.1 as u64 + 1, api, raft, gossip }
}

fn address(ip: IpAddr, port: u16) -> String {
    SocketAddr::from((ip, port)).to_string()
}

fn client_name(region: usize) -> String {
    format!("c{}", region + 1)
}

fn storage(seed: u64, at: NodeAt, sync: Duration) -> SimStorage {
    use rand::RngCore;
    let disk_seed = seeds::rng(seed, &format!("disk of {at}")).next_u64();
    SimStorage {
        disk: MemoryDisk::new(disk_seed),
        states: MemoryStates::new(),
        pace: DiskPace::new(sync, seeds::rng(seed, &format!("pace of {at}"))),
        gate: Gate::new(),
    }
}
