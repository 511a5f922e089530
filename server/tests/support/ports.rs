//! Ports that stay free while a node of a test is down.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};

/// Below those that the system gives to outgoing connections, one of which could otherwise sit on a
/// node's port while the node is down; and apart from those of the demo and the harness.
const FIRST: u32 = 10_000;
const COUNT: u32 = 7_000;
/// Test processes that run side by side begin this far apart.
const APART: u32 = 97;

/// A loopback address that nobody uses, neither for TCP nor for UDP, and that this process hands
/// out once.
pub fn free_address() -> SocketAddr {
    static HANDED_OUT: AtomicU32 = AtomicU32::new(0);
    let begin = std::process::id().wrapping_mul(APART);
    for _ in 0..COUNT {
        let nth = begin.wrapping_add(HANDED_OUT.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(FIRST + nth % COUNT).expect("the range ends below 2^16");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no free port from {FIRST} on, of {COUNT}");
}
