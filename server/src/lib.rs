//! A node of Anabranch.

pub mod aggregates;
pub mod api;
pub mod config;
pub mod conflicts;
pub mod demo;
pub mod env;
pub mod feed;
pub mod hex;
pub mod identity;
pub mod node;
mod pace;
pub mod raft;
pub mod read;
pub mod shard;
mod stability;
pub mod states;
pub mod telemetry;
