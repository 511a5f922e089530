//! Both ends of a session, as machines that own no socket, clock or task.
//!
//! The [`puller`] opens the session: hellos, then wants; it puts what arrives in order, checks it and
//! hands it on. The [`server`] keeps a place in each wanted origin and sends on as its log grows.

pub mod puller;
pub mod server;
#[cfg(test)]
pub(crate) mod testing;

use std::time::Duration;

use anabranch_core::{DecodeError, Origin, RegionName, Seq, ShardId};

use crate::block::BlockError;
use crate::frame::{Hello, WIRE_VERSION};

/// Most origins one session sends.
pub const WANTS_MAX: usize = 1_024;

/// Why a session cannot go on. The other side's fault, or the network's.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The other side speaks another version of the wire.
    #[error("remote speaks wire version {theirs}, this node {ours}")]
    Version {
        /// Theirs.
        theirs: u16,
        /// Ours.
        ours: u16,
    },
    /// The other side belongs to another installation.
    #[error("remote belongs to cluster {theirs:?}, this node to {ours:?}")]
    Cluster {
        /// Theirs.
        theirs: String,
        /// Ours.
        ours: String,
    },
    /// The other side is not the region its certificate, or our configuration, names.
    #[error("remote says it is region {theirs}, expected {expected}")]
    Region {
        /// What its hello, log or digest says.
        theirs: RegionName,
        /// What the certificate says.
        expected: RegionName,
    },
    /// The other side speaks about another shard.
    #[error("remote speaks about shard {theirs}, this session is about {ours}")]
    Shard {
        /// Theirs.
        theirs: ShardId,
        /// Ours.
        ours: ShardId,
    },
    /// A frame that may not come here, or not from this side.
    #[error("{frame} out of place")]
    OutOfPlace {
        /// Kind of frame.
        frame: &'static str,
    },
    /// Bytes that are no frame.
    #[error("read a frame")]
    Frame(#[source] DecodeError),
    /// A group that is malformed or was altered on the way.
    #[error("group of {origin} at {at} is damaged")]
    Group {
        /// Whose events were wanted.
        origin: Origin,
        /// Number expected next.
        at: Seq,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// A block that is malformed or was altered on the way.
    #[error("read a block")]
    Block(#[from] BlockError),
    /// A group that does not answer its want.
    #[error("group of {found} at {first} answers a want for {wanted} from {next}")]
    Mismatch {
        /// What was wanted.
        wanted: Origin,
        /// From which number on.
        next: Seq,
        /// What came.
        found: Origin,
        /// Its first number.
        first: Seq,
    },
    /// A group whose previous chain hash is not that of the group before.
    #[error("group of {origin} at {first} does not follow the group before it: its history forks")]
    Fork {
        /// Whose events.
        origin: Origin,
        /// First number of the group.
        first: Seq,
    },
    /// Later events came, the next ones did not.
    #[error("events of {origin} from {next} are missing")]
    Gap {
        /// Whose events.
        origin: Origin,
        /// Number expected next.
        next: Seq,
    },
    /// Nothing came for longer than several heartbeats.
    #[error("remote is silent for {waited:?}")]
    Silent {
        /// How long.
        waited: Duration,
    },
    /// More origins wanted than a session sends.
    #[error("remote wants more than {max} origins")]
    TooManyWants {
        /// The bound.
        max: usize,
    },
}

impl SessionError {
    /// True if the bytes themselves are wrong: a person must look, retrying will not help.
    pub fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::Group { .. } | Self::Block(_) | Self::Mismatch { .. } | Self::Fork { .. }
        )
    }
}

/// Checks the other side's hello against ours and against the region its certificate names.
///
/// # Errors
/// The first thing that does not match.
pub fn check_hello(
    ours: &Hello,
    theirs: &Hello,
    certified: &RegionName,
) -> Result<(), SessionError> {
    if theirs.version != WIRE_VERSION {
        return Err(SessionError::Version { theirs: theirs.version, ours: WIRE_VERSION });
    }
    if theirs.cluster != ours.cluster {
        let (theirs, ours) = (theirs.cluster.clone(), ours.cluster.clone());
        return Err(SessionError::Cluster { theirs, ours });
    }
    if theirs.shard != ours.shard {
        return Err(SessionError::Shard { theirs: theirs.shard, ours: ours.shard });
    }
    let region = |theirs: &RegionName| SessionError::Region {
        theirs: theirs.clone(),
        expected: certified.clone(),
    };
    if theirs.region != *certified {
        return Err(region(&theirs.region));
    }
    match &theirs.origin {
        Some(origin) if origin.region != *certified => Err(region(&origin.region)),
        Some(origin) if origin.shard != ours.shard => {
            Err(SessionError::Shard { theirs: origin.shard, ours: ours.shard })
        }
        _ => Ok(()),
    }
}
