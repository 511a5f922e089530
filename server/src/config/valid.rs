//! Checking a configuration: each key by itself, and the keys against each other.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anabranch_core::{Limits, NodeId, RegionName};
use anabranch_gossip::PeerRegion;

use super::error::ConfigError;
use super::file::{Config, Log, Member, Raft, RequestLimits, Route};
use super::units::{Size, Span};
use crate::raft::{Node, Timings};

/// A configuration that was checked. Only [`Config::validate`] makes one.
#[derive(Debug, Clone)]
pub struct ValidConfig {
    pub(crate) cluster: String,
    pub(crate) region: RegionName,
    pub(crate) node: NodeId,
    pub(crate) data_dir: PathBuf,
    pub(crate) listen: Listening,
    pub(crate) api_address: String,
    pub(crate) tls: TlsFiles,
    pub(crate) voters: BTreeMap<u64, Node>,
    pub(crate) join: bool,
    pub(crate) membership_on_api: bool,
    pub(crate) peers: Vec<PeerRegion>,
    pub(crate) routes: BTreeMap<String, String>,
    pub(crate) timings: Timings,
    pub(crate) drift_max: Duration,
    pub(crate) log: Log,
    pub(crate) limits: Limits,
    pub(crate) admission_bytes: usize,
    pub(crate) log_level: tracing::Level,
}

/// Where a node listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listening {
    /// gRPC for clients.
    pub api: SocketAddr,
    /// Raft between the nodes of the region.
    pub raft: SocketAddr,
    /// QUIC between regions.
    pub gossip: SocketAddr,
}

/// Certificates, in PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Who may sign the certificates of nodes.
    pub ca: PathBuf,
    /// This node's certificate chain.
    pub cert: PathBuf,
    /// The key of that certificate.
    pub key: PathBuf,
    /// Whether clients are served over TLS, too.
    pub api: bool,
    /// Whether clients must show a certificate of the same authority.
    pub client_certificates: bool,
}

/// Below this, ordinary time services would stop the node now and then.
const DRIFT_LEAST: Span = Span::millis(50);
const DRIFT_MOST: Span = Span::millis(60_000);
/// Beyond this, a dead leader is a region that is down for minutes.
const ELECTION_MOST: Span = Span::millis(300_000);
const SEGMENT_LEAST: Size = Size(64 << 10);
const SEGMENT_MOST: Size = Size::mib(1023);
/// Room for a few large appends.
const MEMORY_LEAST: Size = Size::mib(16);
/// More than any machine of ours has to spare: a slip of the pen.
const MEMORY_MOST: Size = Size::mib(64 << 10);
/// It is written out at the start, and nothing else may use the space.
const RESERVE_MOST: Size = Size::mib(1 << 10);

impl ValidConfig {
    /// Name of the whole installation.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }
    /// Region of this node.
    pub fn region(&self) -> &RegionName {
        &self.region
    }
    /// This node.
    pub fn node(&self) -> NodeId {
        self.node
    }
    /// Where it listens.
    pub fn listen(&self) -> Listening {
        self.listen
    }
    /// `host:port` at which clients reach it.
    pub fn api_address(&self) -> &str {
        &self.api_address
    }
    /// Lowest level of log lines.
    pub fn log_level(&self) -> tracing::Level {
        self.log_level
    }
    /// Bounds on requests.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }
    /// All member regions, this one included, sorted.
    pub fn members(&self) -> Vec<RegionName> {
        let others = self.peers.iter().map(|peer| peer.region.clone());
        let mut members: Vec<_> = others.chain([self.region.clone()]).collect();
        members.sort();
        members
    }
}

impl Config {
    /// Checks every key, and the keys against each other.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] for the first that does not fit: key, value and what is allowed.
    pub fn validate(self) -> Result<ValidConfig, ConfigError> {
        let cluster = cluster(&self.cluster)?;
        let region = region_name("region", &self.region)?;
        if self.node == 0 {
            let allowed = "must be given: the number of this node, from 1, never reused";
            return Err(ConfigError::invalid("node", self.node, allowed));
        }
        if self.shards != 1 {
            let allowed = "must be 1: this version runs one shard a region";
            return Err(ConfigError::invalid("shards", self.shards, allowed));
        }
        if self.data_dir.as_os_str().is_empty() {
            return Err(ConfigError::invalid("data-dir", "\"\"", "must name a folder"));
        }
        check_nodes(&self.nodes)?;
        let own = own_node(&self)?;
        let (listen, api_address) = (listening(&self, own)?, own.api.clone());
        Ok(ValidConfig {
            cluster,
            node: NodeId(self.node),
            listen,
            api_address,
            tls: tls_files(&self)?,
            voters: voters(&self)?,
            join: self.join,
            membership_on_api: self.membership_on_api,
            peers: peers(&self, &region)?,
            routes: routes(&self.routes)?,
            timings: timings(&self.raft)?,
            drift_max: drift(self.clock.max_drift)?,
            limits: limits(&self.limits)?,
            admission_bytes: admission(&self)?,
            log_level: log_level(&self.log_level)?,
            log: log(self.log)?,
            data_dir: self.data_dir,
            region,
        })
    }
}

fn cluster(name: &str) -> Result<String, ConfigError> {
    if (1..=63).contains(&name.len()) && name.chars().all(|c| c.is_ascii_graphic()) {
        return Ok(name.to_owned());
    }
    let allowed = "must be 1 to 63 visible ASCII characters, the same on every node";
    Err(ConfigError::invalid("cluster", format!("{name:?}"), allowed))
}

fn region_name(key: impl Into<String>, name: &str) -> Result<RegionName, ConfigError> {
    let allowed = "must be 1 to 63 of a-z, 0-9 and -, not starting or ending with -";
    RegionName::new(name).map_err(|_| ConfigError::invalid(key, format!("{name:?}"), allowed))
}

fn check_nodes(nodes: &[Member]) -> Result<(), ConfigError> {
    for (nth, node) in nodes.iter().enumerate() {
        let key = |field: &str| format!("nodes[{nth}].{field}");
        if node.id == 0 {
            return Err(ConfigError::invalid(key("id"), 0, "must be 1 or more"));
        }
        if nodes[..nth].iter().any(|other| other.id == node.id) {
            return Err(ConfigError::invalid(key("id"), node.id, "is another node's already"));
        }
        for (field, address) in [("api", &node.api), ("raft", &node.raft), ("gossip", &node.gossip)]
        {
            check_address(key(field), address)?;
        }
        let others = nodes[..nth].iter();
        for (field, address, taken) in [
            ("api", &node.api, others.clone().any(|other| other.api == node.api)),
            ("raft", &node.raft, others.clone().any(|other| other.raft == node.raft)),
            ("gossip", &node.gossip, others.clone().any(|other| other.gossip == node.gossip)),
        ] {
            if taken {
                return Err(ConfigError::invalid(key(field), address, "is another node's already"));
            }
        }
    }
    Ok(())
}

fn check_address(key: String, address: &str) -> Result<(), ConfigError> {
    let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty());
    match port.and_then(|(_, port)| port.parse::<u16>().ok()) {
        Some(1..) => Ok(()),
        Some(0) | None => {
            let allowed = "must be host:port, reachable from the other nodes; port 0 is none";
            Err(ConfigError::invalid(key, format!("{address:?}"), allowed))
        }
    }
}

fn own_node(config: &Config) -> Result<&Member, ConfigError> {
    let own = config.nodes.iter().find(|member| member.id == config.node);
    own.ok_or_else(|| {
        let ids: Vec<_> = config.nodes.iter().map(|member| member.id).collect();
        let allowed = format!("must be one of nodes, whose ids are {ids:?}");
        ConfigError::invalid("node", config.node, allowed)
    })
}

fn listening(config: &Config, own: &Member) -> Result<Listening, ConfigError> {
    let listen = &config.listen;
    let address = |field: &str, given: &Option<String>, advertised: &str| {
        let (key, text) = (format!("listen.{field}"), given.as_deref().unwrap_or(advertised));
        text.parse::<SocketAddr>().map_err(|_| match given {
            Some(_) => ConfigError::invalid(&key, format!("{text:?}"), "must be ip:port"),
            None => {
                let allowed =
                    format!("must be given as ip:port, because this node's {field} is a name");
                ConfigError::invalid(&key, format!("{text:?}"), allowed)
            }
        })
    };
    let (api, raft) =
        (address("api", &listen.api, &own.api)?, address("raft", &listen.raft, &own.raft)?);
    if api == raft {
        let allowed = "must differ from listen.api";
        return Err(ConfigError::invalid("listen.raft", raft, allowed));
    }
    let gossip = address("gossip", &listen.gossip, &own.gossip)?;
    Ok(Listening { api, raft, gossip })
}

fn tls_files(config: &Config) -> Result<TlsFiles, ConfigError> {
    let tls = &config.tls;
    for (key, file) in [("tls.ca", &tls.ca), ("tls.cert", &tls.cert), ("tls.key", &tls.key)] {
        if file.as_os_str().is_empty() {
            let allowed = "must name a PEM file: regions and nodes talk over mutual TLS only; \
                           `anabranch certs init` makes a set for development";
            return Err(ConfigError::invalid(key, "\"\"", allowed));
        }
    }
    if tls.client_certificates && !tls.api {
        let allowed = "needs tls.api = true: certificates are shown over TLS only";
        return Err(ConfigError::invalid("tls.client-certificates", true, allowed));
    }
    let (ca, cert, key) = (tls.ca.clone(), tls.cert.clone(), tls.key.clone());
    Ok(TlsFiles { ca, cert, key, api: tls.api, client_certificates: tls.client_certificates })
}

fn voters(config: &Config) -> Result<BTreeMap<u64, Node>, ConfigError> {
    for id in &config.bootstrap {
        if !config.nodes.iter().any(|member| member.id == *id) {
            return Err(ConfigError::invalid("bootstrap", id, "must be the id of one of nodes"));
        }
    }
    let named = |id: u64| config.bootstrap.is_empty() || config.bootstrap.contains(&id);
    if !config.join && !named(config.node) {
        let allowed =
            format!("must hold this node, {}, or the node must have join = true", config.node);
        return Err(ConfigError::invalid("bootstrap", format!("{:?}", config.bootstrap), allowed));
    }
    let voters = config.nodes.iter().filter(|member| named(member.id));
    let node = |member: &Member| Node {
        raft_address: member.raft.clone(),
        api_address: member.api.clone(),
    };
    Ok(voters.map(|member| (member.id, node(member))).collect())
}

fn peers(config: &Config, own: &RegionName) -> Result<Vec<PeerRegion>, ConfigError> {
    let mut peers: Vec<PeerRegion> = Vec::new();
    for (nth, peer) in config.regions.iter().enumerate() {
        let key = |field: &str| format!("regions[{nth}].{field}");
        let region = region_name(key("name"), &peer.name)?;
        if region == *own {
            let allowed = "is this node's own region; list only the others";
            return Err(ConfigError::invalid(key("name"), region, allowed));
        }
        if peers.iter().any(|other| other.region == region) {
            return Err(ConfigError::invalid(key("name"), region, "is listed twice"));
        }
        if peer.gossip.is_empty() {
            let allowed = "must hold at least one host:port";
            return Err(ConfigError::invalid(key("gossip"), "[]", allowed));
        }
        for address in &peer.gossip {
            check_address(key("gossip"), address)?;
        }
        peers.push(PeerRegion { region, addresses: peer.gossip.clone() });
    }
    Ok(peers)
}

fn routes(given: &[Route]) -> Result<BTreeMap<String, String>, ConfigError> {
    let mut routes = BTreeMap::new();
    for (nth, Route { to, via }) in given.iter().enumerate() {
        let key = |field: &str| format!("routes[{nth}].{field}");
        check_address(key("to"), to)?;
        check_address(key("via"), via)?;
        if routes.insert(to.clone(), via.clone()).is_some() {
            return Err(ConfigError::invalid(key("to"), to, "has another route already"));
        }
    }
    Ok(routes)
}

fn timings(raft: &Raft) -> Result<Timings, ConfigError> {
    let Raft { heartbeat, election_min, election_max } = *raft;
    if heartbeat < Span::millis(10) {
        return Err(ConfigError::invalid("raft.heartbeat", heartbeat, "must be at least 10ms"));
    }
    if election_min.0 < heartbeat.0 * 2 {
        let allowed = format!(
            "must be at least twice raft.heartbeat, {heartbeat}: one late heartbeat is no loss of \
             the leader"
        );
        return Err(ConfigError::invalid("raft.election-min", election_min, allowed));
    }
    if election_max <= election_min {
        let allowed = format!("must be greater than raft.election-min, {election_min}");
        return Err(ConfigError::invalid("raft.election-max", election_max, allowed));
    }
    if election_max > ELECTION_MOST {
        let allowed = format!("must be at most {ELECTION_MOST}");
        return Err(ConfigError::invalid("raft.election-max", election_max, allowed));
    }
    Ok(Timings {
        heartbeat: heartbeat.0,
        election_min: election_min.0,
        election_max: election_max.0,
    })
}

fn drift(max_drift: Span) -> Result<Duration, ConfigError> {
    if (DRIFT_LEAST..=DRIFT_MOST).contains(&max_drift) {
        return Ok(max_drift.0);
    }
    let allowed = format!(
        "must be {DRIFT_LEAST} to {DRIFT_MOST}; the defence against bad clocks cannot be switched off"
    );
    Err(ConfigError::invalid("clock.max-drift", max_drift, allowed))
}

fn limits(given: &RequestLimits) -> Result<Limits, ConfigError> {
    let most = Limits::DEFAULT;
    let number = |field: &str, given: u64, most: usize, shown: &dyn Fn(u64) -> String| {
        let key = format!("limits.{field}");
        match usize::try_from(given) {
            Ok(given) if (1..=most).contains(&given) => Ok(given),
            _ => {
                let allowed = format!("must be {} to {}", shown(1), shown(most as u64));
                Err(ConfigError::invalid(key, shown(given), allowed))
            }
        }
    };
    let size = |field, given: Size, most| number(field, given.0, most, &|n| Size(n).to_string());
    let count = |field, given, most| number(field, given, most, &|n: u64| n.to_string());
    let limits = Limits {
        payload_bytes: size("payload-size", given.payload_size, most.payload_bytes)?,
        name_bytes: size("name-size", given.name_size, most.name_bytes)?,
        metadata_bytes: size("metadata-size", given.metadata_size, most.metadata_bytes)?,
        metadata_entries: count("metadata-entries", given.metadata_entries, most.metadata_entries)?,
        append_events: count("append-events", given.append_events, most.append_events)?,
        append_bytes: size("append-size", given.append_size, most.append_bytes)?,
        append_streams: count("append-streams", given.append_streams, most.append_streams)?,
    };
    if limits.append_bytes < limits.payload_bytes {
        let allowed = format!(
            "must be at least limits.payload-size, {}, or no such event could be appended",
            given.payload_size
        );
        return Err(ConfigError::invalid("limits.append-size", given.append_size, allowed));
    }
    Ok(limits)
}

fn admission(config: &Config) -> Result<usize, ConfigError> {
    let (bytes, append) = (config.admission.bytes, config.limits.append_size);
    if bytes < append {
        let allowed = format!("must be at least limits.append-size, {append}");
        return Err(ConfigError::invalid("admission.bytes", bytes, allowed));
    }
    if bytes > MEMORY_MOST {
        let allowed = format!("must be at most {MEMORY_MOST}");
        return Err(ConfigError::invalid("admission.bytes", bytes, allowed));
    }
    Ok(bytes.bytes())
}

fn log(log: Log) -> Result<Log, ConfigError> {
    if !(SEGMENT_LEAST..=SEGMENT_MOST).contains(&log.segment_size) {
        let allowed = format!("must be {SEGMENT_LEAST} to {SEGMENT_MOST}");
        return Err(ConfigError::invalid("log.segment-size", log.segment_size, allowed));
    }
    for (key, size) in [("log.cache-size", log.cache_size), ("log.queue-size", log.queue_size)] {
        if !(MEMORY_LEAST..=MEMORY_MOST).contains(&size) {
            let allowed = format!("must be {MEMORY_LEAST} to {MEMORY_MOST} of memory");
            return Err(ConfigError::invalid(key, size, allowed));
        }
    }
    if log.reserve_size > RESERVE_MOST {
        let allowed =
            format!("must be at most {RESERVE_MOST}: it is written to the disk, and kept");
        return Err(ConfigError::invalid("log.reserve-size", log.reserve_size, allowed));
    }
    Ok(log)
}

fn log_level(level: &str) -> Result<tracing::Level, ConfigError> {
    let named = ["error", "warn", "info", "debug", "trace"];
    let known = named.contains(&level).then(|| level.parse().ok()).flatten();
    let allowed = || format!("must be one of {}", named.join(", "));
    known.ok_or_else(|| ConfigError::invalid("log-level", format!("{level:?}"), allowed()))
}
