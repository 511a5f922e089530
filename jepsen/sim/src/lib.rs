//! Whole clusters of Anabranch in one thread, in simulated time, from one seed.
//!
//! ```text
//!  seed ─► shape ─► cluster (hosts, links, disks, clocks) ◄── nemesis (faults, drawn up front)
//!            │                     ▲
//!            └─► workloads ────────┘──► history ─► checks (anabranch-history) ─► report, timeline
//! ```
//!
//! Nodes and clients are the real ones: openraft, gRPC over simulated TCP, gossip over QUIC over
//! simulated UDP, the log on a simulated disk. Only [`world`] differs from production.

#[cfg(not(any(tokio_unstable, doc, doctest)))]
compile_error!(
    "the simulation needs `--cfg tokio_unstable`, which .cargo/config.toml sets; \
     RUSTFLAGS in the environment replaces it"
);

pub mod bugs;
pub mod cluster;
pub mod corpus;
pub mod coverage;
pub mod journal;
pub mod many;
pub mod minimise;
pub mod nemesis;
pub mod outcome;
pub mod panics;
pub mod report;
pub mod run;
pub mod still;
pub mod timeline;
pub mod world;
