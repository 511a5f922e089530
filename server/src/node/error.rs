//! Why a node does not start.

use std::net::SocketAddr;

use crate::config::ConfigError;
use crate::identity::FolderError;
use crate::raft::MembershipError;
use crate::shard;

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("listen for {what} on {address}")]
    Listen {
        /// `api`, `raft` or `gossip`.
        what: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The data folder is another node's, or in use, or damaged.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// Certificates that cannot be used.
    #[error("use the certificates (docs/runbooks/certificates.md)")]
    Certificates(#[from] ConfigError),
    /// The place for states cannot be used.
    #[error("open the states")]
    States(#[from] anabranch_log::derived::OpenError),
    /// A shard does not open.
    #[error(transparent)]
    Shard(#[from] shard::OpenError),
    /// Sessions with other regions cannot be had.
    #[error("start gossip")]
    Gossip(#[from] anabranch_gossip::StartError),
    /// The region could not be given its first members.
    #[error("give the region its first members")]
    Bootstrap(#[source] MembershipError),
}
