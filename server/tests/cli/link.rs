//! The link between two regions, through this process, so that a test can cut it.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::ports::free_address;

/// How often a way that is idle looks whether it is still needed.
const LOOKS_AFTER: Duration = Duration::from_millis(50);
/// Larger than any UDP packet.
const PACKET_BYTES_MAX: usize = 65_536;

/// Passes UDP packets on between two nodes, each of which takes one end of it for the other node.
pub struct Link {
    state: Arc<State>,
    /// What each node is told is the other's address.
    pub ends: [SocketAddr; 2],
    ways: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    cut: AtomicBool,
    over: AtomicBool,
}

impl Link {
    pub fn between(nodes: [SocketAddr; 2]) -> Self {
        let state = Arc::<State>::default();
        // What a node sends to its end leaves by the other end.
        let sockets = nodes.map(|_| Arc::new(UdpSocket::bind(free_address()).unwrap()));
        let ends = sockets.each_ref().map(|socket| socket.local_addr().unwrap());
        let way = |from: usize, to: usize| {
            let (state, from, by) = (state.clone(), sockets[from].clone(), sockets[to].clone());
            from.set_read_timeout(Some(LOOKS_AFTER)).unwrap();
            thread::spawn(move || state.pass(&from, &by, nodes[to]))
        };
        let ways = vec![way(0, 1), way(1, 0)];
        Self { state, ends, ways }
    }

    /// From now on packets are lost, as on a broken cable: nobody is told.
    pub fn cut(&self) {
        self.state.cut.store(true, Ordering::Relaxed);
    }

    pub fn heal(&self) {
        self.state.cut.store(false, Ordering::Relaxed);
    }
}

impl State {
    fn pass(&self, from: &UdpSocket, by: &UdpSocket, to: SocketAddr) {
        let mut packet = vec![0; PACKET_BYTES_MAX];
        while !self.over.load(Ordering::Relaxed) {
            let Ok(bytes) = from.recv(&mut packet) else { continue };
            if !self.cut.load(Ordering::Relaxed) {
                // A node that is down takes nothing; so it is on the network, too.
                let _ = by.send_to(&packet[..bytes], to);
            }
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.state.over.store(true, Ordering::Relaxed);
        for way in self.ways.drain(..) {
            way.join().unwrap();
        }
    }
}
