//! The seams to the world: time, network, randomness, storage.
//!
//! A node takes these from whoever starts it. In production they are the operating system's; a
//! simulation passes its own, and everything a node does then follows from one seed.

pub mod blocking;
pub mod clock;
pub mod dial;
mod files;
pub mod net;
mod offset_clock;
mod routes;
pub mod seed;
mod serve;
pub mod storage;

pub use blocking::{blocking, in_background};
pub use clock::{Clock, SystemClock};
pub use dial::dial;
pub use files::raise_open_files;
pub use net::{BoxStream, ByteStream, Listener, Net, TokioNet};
pub use offset_clock::OffsetClock;
pub use routes::Routed;
pub use seed::{OsSeeds, Seeds};
pub use serve::{Connection, GREETING_WITHIN, connections};
pub use storage::{CHECKPOINTS, RealStorage, Storage};
