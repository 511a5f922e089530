//! Raft, within a region: one group a shard, whose log is the event log.
//!
//! openraft lives here and nowhere else. [`RaftGroup`] is the handle: propose, who leads, who is a
//! member. Below it: storage.rs puts openraft's log on ours, machine.rs applies what is committed,
//! network.rs and pipeline.rs talk to the other nodes, service.rs listens to them; encoding.rs and
//! wire.rs keep openraft's types off the disk and the wire.
//!
//! Two decisions shape all of it. The log is never purged, so there are no Raft snapshots: a node
//! that is far behind, or empty, catches up by replication. And the bytes of a command are final
//! when they are proposed; nothing here looks into them.

mod config;
mod encoding;
mod fatal;
mod group;
mod identity;
mod link;
mod listen;
mod machine;
mod members;
mod memory;
mod network;
mod pipeline;
mod propose;
mod service;
mod status;
mod storage;
mod types;
mod wire;

pub use config::{GroupConfig, InvalidTimings, Timings};
pub use group::{RaftGroup, StartError};
pub use identity::{Identity, Misdirected};
pub use link::RaftTls;
pub use listen::{serve, serve_beside};
pub use machine::{Machine, MachineFailed, Resume};
pub use members::{MembershipError, TransferError};
pub use propose::{ProposeError, Proposed, ReadIndexError};
pub use service::RaftService;
pub use status::{FollowerStatus, GroupStatus, Leadership, Role};
pub use types::Node;
