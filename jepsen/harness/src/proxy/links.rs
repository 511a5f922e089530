//! The proxies between regions: for each pair of regions, those before the nodes of the second.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::Traffic;
use super::udp::Proxy;

/// The proxies between regions.
#[derive(Debug)]
pub struct Links {
    proxies: BTreeMap<(usize, usize), Vec<Proxy>>,
    /// How long a packet takes when nothing is wrong.
    delay: Duration,
}

impl Links {
    /// No links yet. Each packet takes `delay` longer, one way.
    pub fn new(delay: Duration) -> Self {
        Self { proxies: BTreeMap::new(), delay }
    }
    /// Stands before the nodes at `targets` of region `to`, for the nodes of region `from`.
    ///
    /// # Errors
    /// If a socket cannot be bound.
    pub async fn add(&mut self, from: usize, to: usize, targets: &[SocketAddr]) -> io::Result<()> {
        let mut proxies = Vec::new();
        for target in targets {
            proxies.push(Proxy::start(*target, self.delay).await?);
        }
        self.proxies.insert((from, to), proxies);
        Ok(())
    }
    /// Where `from` finds the nodes of `to`.
    pub fn addresses(&self, from: usize, to: usize) -> Vec<SocketAddr> {
        self.proxies[&(from, to)].iter().map(Proxy::address).collect()
    }
    /// Cuts or heals the sessions that the first region opens to the second.
    pub fn set_cut(&self, link: (usize, usize), cut: bool) {
        self.proxies[&link].iter().for_each(|proxy| proxy.set_cut(cut));
    }
    /// Lets packets between two regions take `by` longer than they do when nothing is wrong.
    pub fn set_delay(&self, (one, other): (usize, usize), by: Duration) {
        let both = [&self.proxies[&(one, other)], &self.proxies[&(other, one)]];
        both.into_iter().flatten().for_each(|proxy| proxy.set_delay(self.delay + by));
    }
    /// Heals everything.
    pub fn heal(&self) {
        for proxy in self.proxies.values().flatten() {
            proxy.set_cut(false);
            proxy.set_delay(self.delay);
        }
    }
    /// Packets that all of them met.
    pub fn traffic(&self) -> Traffic {
        self.proxies.values().flatten().map(Proxy::traffic).sum()
    }
}
