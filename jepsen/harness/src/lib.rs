//! The kill test: three regions of three real processes, written to and read while they are killed,
//! paused, cut off, wiped, out of disk and set wrong; then the laws are checked against what clients
//! were told.
//!
//! ```text
//!  nemesis ──► torture ──► cluster (processes, disks, clocks) ── proxy (between regions, between nodes)
//!  workload ──► evidence ──► checks
//! ```
//!
//! Workload, evidence and checks are those of the simulation: crates `anabranch-workload` and
//! `anabranch-history`.
//!
//! What was done to the cluster is data, drawn from the seed before the run begins. What the cluster
//! made of it is not: a seed repeats the faults, not the races.

pub mod cluster;
pub mod nemesis;
pub mod proxy;
pub mod report;
pub mod run;
pub mod torture;
