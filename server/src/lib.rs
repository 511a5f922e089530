//! A node of Anabranch.

pub mod env;
pub mod raft;
pub mod read;
pub mod shard;
