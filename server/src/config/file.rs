//! The shape of `node.toml`: every key, its type and its default. docs/configuration.md explains them.

use std::path::PathBuf;

use anabranch_core::Limits;
use serde::{Deserialize, Serialize};

use super::units::{Size, Span};

/// A configuration as written, not yet checked; see [`validate`](Self::validate).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// Name of the whole installation; the same on all nodes of all regions.
    pub cluster: String,
    /// Region of this node.
    pub region: String,
    /// Number of this node, unique within its region for ever.
    pub node: u64,
    /// Folder for everything this node keeps.
    pub data_dir: PathBuf,
    /// Shards of every region.
    pub shards: u16,
    /// This node joins a region that runs already.
    pub join: bool,
    /// Whoever reaches the API may change who the members are.
    pub membership_on_api: bool,
    /// Nodes that form the first membership; all of `nodes` if empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bootstrap: Vec<u64>,
    /// Lowest level of log lines: `error`, `warn`, `info`, `debug` or `trace`.
    pub log_level: String,
    /// Where to listen, if not at this node's own addresses in `nodes`.
    pub listen: Listen,
    /// Certificates.
    pub tls: Tls,
    /// When to beat and to elect.
    pub raft: Raft,
    /// Clock defence.
    pub clock: Clock,
    /// Sizes of the event log.
    pub log: Log,
    /// Bounds on requests; may only be lowered.
    pub limits: RequestLimits,
    /// Pressure.
    pub admission: Admission,
    /// All nodes of this region, this one included.
    pub nodes: Vec<Member>,
    /// The other regions.
    pub regions: Vec<Peer>,
    /// Addresses of this region's nodes that are reached by way of others.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
}

/// Addresses to listen on, `ip:port`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Listen {
    /// gRPC for clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api: Option<String>,
    /// Raft between the nodes of the region.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raft: Option<String>,
    /// QUIC between regions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gossip: Option<String>,
}

/// Certificates, in PEM files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Tls {
    /// Who may sign the certificates of nodes.
    pub ca: PathBuf,
    /// This node's certificate chain; it names its region.
    pub cert: PathBuf,
    /// The key of that certificate.
    pub key: PathBuf,
    /// Whether clients are served over TLS, too.
    pub api: bool,
    /// Whether clients must show a certificate of the same authority.
    pub client_certificates: bool,
}

/// Raft's timings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Raft {
    /// Pause between heartbeats.
    pub heartbeat: Span,
    /// Least silence before an election.
    pub election_min: Span,
    /// Greatest silence before an election.
    pub election_max: Span,
}

/// Clock defence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Clock {
    /// How far clocks may be apart.
    pub max_drift: Span,
}

/// Sizes of the event log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Log {
    /// Size of a segment file.
    pub segment_size: Size,
    /// Newest records kept in memory.
    pub cache_size: Size,
    /// Records that may wait for the disk.
    pub queue_size: Size,
    /// Kept aside for when the disk is full.
    pub reserve_size: Size,
}

/// Bounds on requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct RequestLimits {
    /// Payload of one event.
    pub payload_size: Size,
    /// A stream name or an event type.
    pub name_size: Size,
    /// Metadata of one event.
    pub metadata_size: Size,
    /// Pairs of metadata of one event.
    pub metadata_entries: u64,
    /// Events in one append.
    pub append_events: u64,
    /// All events of one append together.
    pub append_size: Size,
    /// Streams that one append may check or write.
    pub append_streams: u64,
}

/// Pressure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Admission {
    /// Appends admitted and not yet answered; more are refused with a hint when to retry.
    pub bytes: Size,
}

/// A node of this region, under the addresses at which others reach it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Member {
    /// Its number.
    pub id: u64,
    /// `host:port` of its gRPC.
    pub api: String,
    /// `host:port` of its Raft.
    pub raft: String,
    /// `host:port` of its gossip.
    pub gossip: String,
}

/// Another region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// `host:port` of its nodes' gossip, tried in turn.
    pub gossip: Vec<String>,
}

/// Another way to a node's Raft or gRPC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Route {
    /// `host:port` as the region's members have it.
    pub to: String,
    /// `host:port` to connect to instead.
    pub via: String,
}

impl Config {
    /// What a key is if it is not written. Cluster, region, node, nodes and certificates have no
    /// default: they are refused as empty.
    pub const DEFAULT: Self = Self {
        cluster: String::new(),
        region: String::new(),
        node: 0,
        data_dir: PathBuf::new(),
        shards: 1,
        join: false,
        membership_on_api: false,
        bootstrap: Vec::new(),
        log_level: String::new(),
        listen: Listen { api: None, raft: None, gossip: None },
        tls: Tls {
            ca: PathBuf::new(),
            cert: PathBuf::new(),
            key: PathBuf::new(),
            api: false,
            client_certificates: false,
        },
        raft: Raft {
            heartbeat: Span::millis(100),
            election_min: Span::millis(300),
            election_max: Span::millis(600),
        },
        clock: Clock { max_drift: Span::millis(500) },
        log: Log {
            segment_size: Size::mib(64),
            cache_size: Size::mib(64),
            queue_size: Size::mib(64),
            reserve_size: Size::mib(8),
        },
        limits: RequestLimits {
            payload_size: Size(Limits::DEFAULT.payload_bytes as u64),
            name_size: Size(Limits::DEFAULT.name_bytes as u64),
            metadata_size: Size(Limits::DEFAULT.metadata_bytes as u64),
            metadata_entries: Limits::DEFAULT.metadata_entries as u64,
            append_events: Limits::DEFAULT.append_events as u64,
            append_size: Size(Limits::DEFAULT.append_bytes as u64),
            append_streams: Limits::DEFAULT.append_streams as u64,
        },
        admission: Admission { bytes: Size::mib(64) },
        nodes: Vec::new(),
        regions: Vec::new(),
        routes: Vec::new(),
    };

    /// As TOML, every key with its value.
    ///
    /// # Panics
    /// Never: every value has a TOML form.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("a configuration has a TOML form")
    }
}

impl Default for Config {
    fn default() -> Self {
        let (log_level, data_dir) = (DEFAULT_LOG_LEVEL.to_owned(), DEFAULT_DATA_DIR.into());
        Self { log_level, data_dir, ..Self::DEFAULT }
    }
}

/// Texts cannot be in a constant of an owned type; the two defaults that are texts.
const DEFAULT_LOG_LEVEL: &str = "info";
const DEFAULT_DATA_DIR: &str = "anabranch-data";

macro_rules! default_of {
    ($($section:ty => $field:ident),*) => {
        $(impl Default for $section {
            fn default() -> Self {
                Config::DEFAULT.$field.clone()
            }
        })*
    };
}
default_of!(Raft => raft, Clock => clock, Log => log, RequestLimits => limits, Admission => admission);
