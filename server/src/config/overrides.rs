//! Flags and environment variables that win over the file.

use std::path::PathBuf;

use clap::Args;

use super::file::Config;

/// Keys of `node.toml` that can be given on the command line or in the environment.
///
/// A flag wins over the variable, the variable over the file.
#[derive(Debug, Clone, Default, Args)]
pub struct Overrides {
    /// Name of the whole installation
    #[arg(long, env = "ANABRANCH_CLUSTER", value_name = "NAME")]
    pub cluster: Option<String>,
    /// Region of this node
    #[arg(long, env = "ANABRANCH_REGION", value_name = "NAME")]
    pub region: Option<String>,
    /// Number of this node in its region
    #[arg(long, env = "ANABRANCH_NODE", value_name = "ID")]
    pub node: Option<u64>,
    /// Folder for everything this node keeps
    #[arg(long, env = "ANABRANCH_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where to listen for clients
    #[arg(long, env = "ANABRANCH_LISTEN_API", value_name = "IP:PORT")]
    pub listen_api: Option<String>,
    /// Where to listen for the other nodes of the region
    #[arg(long, env = "ANABRANCH_LISTEN_RAFT", value_name = "IP:PORT")]
    pub listen_raft: Option<String>,
    /// Where to listen for the other regions
    #[arg(long, env = "ANABRANCH_LISTEN_GOSSIP", value_name = "IP:PORT")]
    pub listen_gossip: Option<String>,
    /// Whether this node joins a region that runs already
    #[arg(long, env = "ANABRANCH_JOIN", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub join: Option<bool>,
    /// Lowest level of log lines: error, warn, info, debug, trace
    #[arg(long, env = "ANABRANCH_LOG_LEVEL", value_name = "LEVEL")]
    pub log_level: Option<String>,
}

impl Overrides {
    /// Puts what was given over what the file says.
    pub fn apply(self, config: &mut Config) {
        put(&mut config.cluster, self.cluster);
        put(&mut config.region, self.region);
        put(&mut config.node, self.node);
        put(&mut config.data_dir, self.data_dir);
        put(&mut config.join, self.join);
        put(&mut config.log_level, self.log_level);
        let listen = &mut config.listen;
        for (held, given) in [
            (&mut listen.api, self.listen_api),
            (&mut listen.raft, self.listen_raft),
            (&mut listen.gossip, self.listen_gossip),
        ] {
            if given.is_some() {
                *held = given;
            }
        }
    }
}

fn put<T>(held: &mut T, given: Option<T>) {
    if let Some(given) = given {
        *held = given;
    }
}
