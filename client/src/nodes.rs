//! The nodes of each region, and which of them to ask next.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

use crate::connect::Connector;
use crate::lane::Lane;

/// Nodes a region may grow to by learning leaders' addresses. The least recently learned go first.
const LEARNED_MAX: usize = 16;

/// How long a client that moved to another region stays before it tries its own again.
const RETURN_AFTER: Duration = Duration::from_secs(30);

/// Makes channels to addresses.
pub(crate) struct Dialer {
    pub(crate) connector: Connector,
    pub(crate) tls: Option<ClientTlsConfig>,
    pub(crate) keep_alive: Duration,
}

impl Dialer {
    /// A channel that connects when it is first used.
    pub(crate) fn channel(&self, address: &str) -> Result<Channel, tonic::transport::Error> {
        let mut endpoint = Endpoint::from_shared(self.with_scheme(address))?
            .http2_keep_alive_interval(self.keep_alive)
            .keep_alive_timeout(self.keep_alive)
            .keep_alive_while_idle(false)
            .http2_adaptive_window(true);
        if let Some(tls) = &self.tls {
            endpoint = endpoint.tls_config(tls.clone())?;
        }
        Ok(endpoint.connect_with_connector_lazy(self.connector.clone()))
    }

    /// Nodes advertise plain `host:port`.
    fn with_scheme(&self, address: &str) -> String {
        match (address.contains("://"), self.tls.is_some()) {
            (true, _) => address.to_owned(),
            (false, true) => format!("https://{address}"),
            (false, false) => format!("http://{address}"),
        }
    }
}

/// One node, and the way to it.
pub(crate) struct Node {
    pub(crate) address: String,
    way: Mutex<Way>,
}

/// The connection to a node, and what goes over it.
struct Way {
    channel: Channel,
    /// The call that small appends share; opened when one comes.
    lane: Option<Arc<Lane>>,
    /// Whether the node is known to have no such call: it is of an older release.
    no_lanes: bool,
}

impl Way {
    fn over(channel: Channel) -> Self {
        Self { channel, lane: None, no_lanes: false }
    }
}

impl Node {
    pub(crate) fn new(address: &str, dialer: &Dialer) -> Result<Self, tonic::transport::Error> {
        let address = dialer.with_scheme(address).trim_end_matches('/').to_owned();
        Ok(Self { way: Mutex::new(Way::over(dialer.channel(&address)?)), address })
    }
    pub(crate) fn channel(&self) -> Channel {
        self.way.lock().channel.clone()
    }
    /// The call that small appends share; none if the node does not know such calls.
    pub(crate) fn lane(&self) -> Option<Arc<Lane>> {
        let mut way = self.way.lock();
        if way.no_lanes {
            return None;
        }
        if let Some(lane) = way.lane.as_ref().filter(|lane| !lane.has_ended()) {
            return Some(lane.clone());
        }
        let lane = Arc::new(Lane::open(way.channel.clone()));
        way.lane = Some(lane.clone());
        Some(lane)
    }
    /// The node does not know calls that appends share.
    pub(crate) fn has_no_lanes(&self) {
        let mut way = self.way.lock();
        (way.no_lanes, way.lane) = (true, None);
    }
    /// Stops using a connection that may hang for ever. Calls already on it may still finish.
    pub(crate) fn renew(&self, dialer: &Dialer) {
        if let Ok(channel) = dialer.channel(&self.address) {
            *self.way.lock() = Way::over(channel);
        }
    }
}

/// A region's nodes: first those configured, then those learned.
pub(crate) struct Region {
    pub(crate) name: String,
    configured: usize,
    nodes: Mutex<Vec<Arc<Node>>>,
    leader: Mutex<Option<Arc<Node>>>,
    turn: AtomicUsize,
}

impl Region {
    /// `first` spreads the readers of many clients over the nodes.
    pub(crate) fn new(name: String, nodes: Vec<Arc<Node>>, first: usize) -> Self {
        let (configured, turn) = (nodes.len(), AtomicUsize::new(first));
        Self { name, configured, nodes: Mutex::new(nodes), leader: Mutex::new(None), turn }
    }
    /// Number of nodes configured; at least 1.
    pub(crate) fn size(&self) -> usize {
        self.configured
    }
    /// Where to begin counting nodes: the last one that was seen to answer.
    pub(crate) fn turn(&self) -> usize {
        self.turn.load(Ordering::Relaxed)
    }
    /// Node number `at`, counted round and round over those configured.
    pub(crate) fn node(&self, at: usize) -> Arc<Node> {
        self.nodes.lock()[at % self.configured].clone()
    }
    /// Node number `at` answered: others may begin there.
    pub(crate) fn answered(&self, at: usize) {
        self.turn.store(at, Ordering::Relaxed);
    }
    /// The leader, as far as is known.
    pub(crate) fn leader(&self) -> Option<Arc<Node>> {
        self.leader.lock().clone()
    }
    /// Forgets the leader, if it is still believed to be `node`.
    pub(crate) fn not_leader(&self, node: &Node) {
        let mut leader = self.leader.lock();
        if leader.as_ref().is_some_and(|known| known.address == node.address) {
            *leader = None;
        }
    }
    /// Remembers who leads. An address that cannot be one is ignored.
    pub(crate) fn learn_leader(&self, address: &str, dialer: &Dialer) -> Option<Arc<Node>> {
        let full = dialer.with_scheme(address);
        let full = full.trim_end_matches('/');
        if let Some(known) = self.leader.lock().as_ref().filter(|node| node.address == full) {
            return Some(known.clone());
        }
        let node = self.find_or_add(full, dialer)?;
        *self.leader.lock() = Some(node.clone());
        Some(node)
    }

    fn find_or_add(&self, address: &str, dialer: &Dialer) -> Option<Arc<Node>> {
        let mut nodes = self.nodes.lock();
        if let Some(node) = nodes.iter().find(|node| node.address == address) {
            return Some(node.clone());
        }
        let node = Arc::new(Node::new(address, dialer).ok()?);
        if nodes.len() == self.configured + LEARNED_MAX {
            nodes.remove(self.configured);
        }
        nodes.push(node.clone());
        Some(node)
    }
}

/// Where a client's calls begin: its own region, or the one it had to move to.
pub(crate) struct Base {
    home: usize,
    moved: Mutex<Option<(usize, Instant)>>,
}

impl Base {
    pub(crate) fn new(home: usize) -> Self {
        Self { home, moved: Mutex::new(None) }
    }
    pub(crate) fn home(&self) -> usize {
        self.home
    }
    /// The region to begin with. Now and then one call is sent home again, to see if it is back.
    pub(crate) fn region(&self, now: Instant) -> usize {
        let mut moved = self.moved.lock();
        match &mut *moved {
            None => self.home,
            Some((_, since)) if now.duration_since(*since) >= RETURN_AFTER => {
                *since = now;
                self.home
            }
            Some((region, _)) => *region,
        }
    }
    /// A call succeeded in `region` after it began in `began`.
    pub(crate) fn settled(&self, began: usize, region: usize, now: Instant) {
        let mut moved = self.moved.lock();
        if region == self.home {
            *moved = None;
        } else if began != region {
            *moved = Some((region, now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moved_client_probes_its_home_now_and_then_and_returns_when_it_answers() {
        let (base, start) = (Base::new(0), Instant::now());
        assert_eq!(base.region(start), 0);
        base.settled(0, 1, start);
        assert_eq!(base.region(start), 1, "stays where it was served");
        let later = start + RETURN_AFTER;
        assert_eq!(base.region(later), 0, "one call looks whether home is back");
        assert_eq!(base.region(later), 1, "the others stay");
        base.settled(0, 0, later);
        assert_eq!(base.region(later), 0);
    }
}
