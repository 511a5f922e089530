//! The network under test, all of it on this machine: between regions and between the nodes of a region
//! stand proxies that can be cut, healed and made slow.
//!
//! - [`Links`], between regions: UDP, one proxy before each node for each other region.
//! - [`Wires`], between the nodes of a region: TCP, one proxy for each node, each other node that it
//!   connects to, and each service there.

mod links;
mod tcp;
mod udp;
mod wires;

pub use links::Links;
pub use wires::{Addresses, Wires};

/// What proxies met.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Passed on.
    pub passed: u64,
    /// Stopped by a cut: lost for good, or held up until it healed.
    pub stopped: u64,
}

impl std::iter::Sum for Traffic {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            passed: sum.passed + one.passed,
            stopped: sum.stopped + one.stopped,
        })
    }
}
