//! Regions talking: how groups of events and digests travel from region to region.
//!
//! A shard leader *pulls*: it opens a QUIC session to a node of every other region and says which
//! origins it wants, each from which number on. The other side streams groups in origin order as they
//! are applied there. Resume, flow control and exactly-once are one mechanism: the number asked for.
//!
//! Reading order: [`traits`] (what the node gives and takes), [`frame`] and [`block`] (the bytes on
//! the wire), [`session`] (both ends of a session as machines without I/O), [`plan`] (through whom to
//! pull what), [`question`] (what regions ask each other beside history), [`driver`] (quinn, tasks, reconnecting), [`tls`] and [`dev_ca`] (who is who),
//! [`shaped`] (a UDP socket with delay and cuts, for demonstrations and tests).

pub mod block;
pub mod config;
pub mod dev_ca;
pub mod driver;
pub mod frame;
pub mod plan;
pub mod question;
pub mod session;
pub mod shaped;
pub mod tls;
pub mod traits;

pub use config::{GossipConfig, PeerRegion, ReadOn, Tuning};
pub use dev_ca::{DevCa, IssuedCert};
pub use driver::ask::AskError;
pub use driver::links::{LinkState, LinkStatus};
pub use driver::{Environment, Gossip, StartError};
pub use question::Refusal;
pub use shaped::{Cut, LinkRules, ShapedUdp};
pub use tls::{TlsError, TlsIdentity, certified_region, region_server_name};
pub use traits::{
    Answer, BoxFuture, ClockAnswer, ClockTrust, NotReady, OfferError, Resolve, Served, Sink,
    Source, SourceError, SystemResolver, WallClock,
};
