//! The world of a simulated node: time, network, randomness and storage, all made from one seed.

pub mod clock;
pub mod gate;
pub mod net;
pub mod seeds;
pub mod storage;
pub mod udp;
pub mod weather;

pub use clock::{EPOCH_MS, SimClock};
pub use gate::Gate;
pub use net::SimNet;
pub use seeds::SimSeeds;
pub use storage::{DiskPace, SimStorage};
pub use weather::{Conditions, Weather};
