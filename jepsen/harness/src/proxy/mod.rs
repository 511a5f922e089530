//! Links between the regions: proxies that can be cut, healed and made slow.

mod udp;

pub use udp::{Links, Proxy, Traffic};
