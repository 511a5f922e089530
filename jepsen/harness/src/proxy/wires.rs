//! The proxies between the nodes of each region.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::Traffic;
use super::tcp::{Proxy, Way};
use crate::cluster::NodeAt;

/// Where a node listens for the others of its region.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    /// Raft.
    pub raft: SocketAddr,
    /// gRPC: for appends that are passed on to the leader.
    pub api: SocketAddr,
}

/// The proxies between the nodes of each region.
#[derive(Debug, Default)]
pub struct Wires {
    /// Directed: from the first node to the second.
    ways: BTreeMap<(NodeAt, NodeAt), Arc<Way>>,
    /// By who connects: where it wants to, and the proxy it goes through.
    proxies: BTreeMap<NodeAt, Vec<(SocketAddr, Proxy)>>,
}

impl Wires {
    /// Stands between these nodes of one region.
    ///
    /// # Errors
    /// If a socket cannot be bound.
    pub async fn add(&mut self, nodes: &[(NodeAt, Addresses)]) -> io::Result<()> {
        for (from, _) in nodes {
            for (to, addresses) in nodes.iter().filter(|(to, _)| to != from) {
                for target in [addresses.raft, addresses.api] {
                    let (there, back) = (self.way(*from, *to), self.way(*to, *from));
                    let proxy = Proxy::start(target, there, back).await?;
                    self.proxies.entry(*from).or_default().push((target, proxy));
                }
            }
        }
        Ok(())
    }
    /// The way from one node to another, which begins here if there is none yet.
    fn way(&mut self, from: NodeAt, to: NodeAt) -> Arc<Way> {
        self.ways.entry((from, to)).or_insert_with(Way::new).clone()
    }
    /// Where a node has to connect to instead, to go through its proxies.
    pub fn routes(&self, from: NodeAt) -> impl Iterator<Item = (SocketAddr, SocketAddr)> {
        self.proxies.get(&from).into_iter().flatten().map(|(to, proxy)| (*to, proxy.address()))
    }
    /// Cuts or heals the way from the first node to the second.
    pub fn set_cut(&self, way: (NodeAt, NodeAt), cut: bool) {
        self.ways[&way].set_cut(cut);
    }
    /// Lets everything between the nodes of a region take so much longer, one way.
    pub fn set_delay(&self, region: usize, by: Duration) {
        let within = self.ways.iter().filter(|((from, _), _)| from.0 == region);
        within.for_each(|(_, way)| way.set_delay(by));
    }
    /// Heals everything.
    pub fn heal(&self) {
        for way in self.ways.values() {
            way.set_cut(false);
            way.set_delay(Duration::ZERO);
        }
    }
    /// Bytes that all of them met.
    pub fn traffic(&self) -> Traffic {
        self.ways.values().map(|way| way.traffic()).sum()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::timeout;

    use super::*;

    /// Sends a byte from one node to another along its route and back; whether it came back.
    async fn speaks(wires: &Wires, from: NodeAt, listener: &TcpListener) -> bool {
        let to = listener.local_addr().unwrap();
        let (_, via) = wires.routes(from).find(|(target, _)| *target == to).expect("a route");
        let echo = async {
            let mut dialled = TcpStream::connect(via).await.unwrap();
            dialled.write_all(&[1]).await.unwrap();
            let (mut accepted, _) = listener.accept().await.unwrap();
            assert_eq!(accepted.read_u8().await.unwrap(), 1);
            accepted.write_all(&[2]).await.unwrap();
            assert_eq!(dialled.read_u8().await.unwrap(), 2);
        };
        timeout(Duration::from_millis(300), echo).await.is_ok()
    }

    #[tokio::test]
    async fn a_way_that_is_cut_silences_what_either_end_opened_and_no_other() {
        let mut listeners = Vec::new();
        for _ in 0..6 {
            listeners.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
        }
        let at = |nth: usize| listeners[nth].local_addr().unwrap();
        let nodes = [0, 1, 2]
            .map(|node| ((7, node), Addresses { raft: at(2 * node), api: at(2 * node + 1) }));
        let mut wires = Wires::default();
        wires.add(&nodes).await.unwrap();
        assert!(speaks(&wires, (7, 0), &listeners[2]).await);
        wires.set_cut(((7, 0), (7, 1)), true);
        // Questions of the first and answers to the second take that way.
        assert!(!speaks(&wires, (7, 0), &listeners[2]).await);
        assert!(!speaks(&wires, (7, 1), &listeners[1]).await);
        assert!(speaks(&wires, (7, 0), &listeners[4]).await);
        assert!(speaks(&wires, (7, 2), &listeners[3]).await);
        assert!(wires.traffic().stopped > 0);
        wires.heal();
        // What was held up arrives first.
        while timeout(Duration::from_millis(100), listeners[2].accept()).await.is_ok() {}
        while timeout(Duration::from_millis(100), listeners[1].accept()).await.is_ok() {}
        assert!(speaks(&wires, (7, 0), &listeners[2]).await);
        assert!(speaks(&wires, (7, 1), &listeners[1]).await);
    }
}
