//! Every decision of Anabranch's protocol, as plain data and synchronous state machines.
//!
//! Nothing here does I/O, owns a task, reads a clock or draws a random number: `now`, bytes and
//! randomness come in as arguments, decisions go out as values. That is what makes the protocol
//! testable as arithmetic and simulable from one seed.
//!
//! Reading order: [`id`] and [`stamp`] (names of things), [`context`] (cuts of history),
//! [`event`] and [`group`] (what is stored and shipped, byte for byte), [`command`] (what one
//! Raft entry holds), [`region`] (the deterministic apply: the authority), then the three deciders
//! that feed it or read it: [`sequencer`], [`import`] and [`order`].
#![deny(missing_docs)]

pub mod aggregate;
pub mod class;
pub mod codec;
pub mod command;
pub mod conflict;
pub mod context;
pub mod cursor;
pub mod declared;
pub mod digest;
pub mod event;
pub mod group;
pub mod id;
pub mod import;
pub mod limits;
pub mod order;
pub mod planted;
pub mod region;
pub mod rights;
#[cfg(test)]
mod sample;
pub mod sequencer;
pub mod stamp;

pub use codec::DecodeError;
pub use command::Command;
pub use context::Context;
pub use cursor::{Cursor, ReadOrder, SessionToken};
pub use digest::Digest;
pub use event::{Event, EventId, EventRef, EventView, Request, RequestRef};
pub use group::{Chain, Group};
pub use id::{Dot, Incarnation, NodeId, Origin, ProducerId, RegionName, Seq, ShardId};
pub use limits::Limits;
pub use region::Region;
pub use stamp::Stamp;
