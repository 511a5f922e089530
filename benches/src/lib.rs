//! What Anabranch costs, measured beside what this machine's disk and processor can do.
//!
//! `benches/` holds criterion benches of the inner loops of core and log; the binary is the load
//! generator: [`load`] runs one case, [`suite`] a table of them. Figures and the command behind each
//! of them: RESULTS.md. [`compare`] measures other stores beside it.

pub mod aggregates;
pub mod baseline;
pub mod catch_up;
pub mod compare;
pub mod cpu;
pub mod disk;
pub mod floors;
pub mod instructions;
pub mod lag;
pub mod load;
pub mod processes;
pub mod replay;
pub mod sample;
pub mod served;
pub mod spread;
pub mod suite;
pub mod target;
pub mod writers;
