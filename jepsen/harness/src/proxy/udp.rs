//! A link between regions: UDP packets pass through this process, so that a link can be cut, healed
//! and made long.
//!
//! A proxy stands before one node, for the nodes of one other region: the region is configured with
//! the proxy's address in place of the node's. Each sender gets a socket of its own towards the node,
//! so answers find their way back. A cut drops packets in both directions, as a cable does: nobody is
//! told.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::Traffic;

/// Larger than any UDP packet.
const PACKET_BYTES_MAX: usize = 65_536;
/// Senders at once; when a new one comes, the one that was idle longest is forgotten.
const SENDERS_MAX: usize = 64;
/// Packets on their way in one direction; more are lost, as in a full router.
const ON_THEIR_WAY_MAX: usize = 4_096;

/// Passes packets on until it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
struct State {
    cut: AtomicBool,
    delay_micros: AtomicU64,
    passed: AtomicU64,
    dropped: AtomicU64,
}

impl State {
    /// Counts a packet. True if it may pass.
    fn passes(&self) -> bool {
        let cut = self.cut.load(Ordering::Relaxed);
        let counter = if cut { &self.dropped } else { &self.passed };
        counter.fetch_add(1, Ordering::Relaxed);
        !cut
    }
    fn delay(&self) -> Duration {
        Duration::from_micros(self.delay_micros.load(Ordering::Relaxed))
    }
    fn set_delay(&self, delay: Duration) {
        self.delay_micros.store(delay.as_micros() as u64, Ordering::Relaxed);
    }
}

impl Proxy {
    /// Stands before `target`, at a free port of 127.0.0.1. Each packet takes `delay` longer.
    ///
    /// # Errors
    /// If no socket can be bound.
    pub async fn start(target: SocketAddr, delay: Duration) -> io::Result<Self> {
        let front = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?);
        let address = front.local_addr()?;
        let state = Arc::new(State {
            cut: AtomicBool::new(false),
            delay_micros: AtomicU64::new(0),
            passed: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        });
        state.set_delay(delay);
        let mut tasks = JoinSet::new();
        tasks.spawn(pass_on(front, target, state.clone()));
        Ok(Self { address, state, _tasks: tasks })
    }
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
    /// Drops every packet from now on, or passes them again.
    pub fn set_cut(&self, cut: bool) {
        self.state.cut.store(cut, Ordering::Relaxed);
    }
    /// Lets each packet take so much longer from now on. Those that are on their way are not overtaken.
    pub fn set_delay(&self, delay: Duration) {
        self.state.set_delay(delay);
    }
    /// What it met so far.
    pub fn traffic(&self) -> Traffic {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Traffic { passed: load(&self.state.passed), stopped: load(&self.state.dropped) }
    }
}

/// A sender's way to the target and back.
struct Way {
    there: Lane,
    last: Instant,
    _back: JoinSet<()>,
}

async fn pass_on(front: Arc<UdpSocket>, target: SocketAddr, state: Arc<State>) {
    let mut ways: BTreeMap<SocketAddr, Way> = BTreeMap::new();
    let mut packet = vec![0; PACKET_BYTES_MAX];
    loop {
        // An error here is the echo of a packet that nobody took: the node is down.
        let Ok((len, sender)) = front.recv_from(&mut packet).await else { continue };
        if !state.passes() {
            continue;
        }
        if !ways.contains_key(&sender) {
            forget_idlest(&mut ways);
            let Ok(way) = open(&front, sender, target, &state).await else { continue };
            ways.insert(sender, way);
        }
        let way = ways.get_mut(&sender).expect("opened above");
        way.last = Instant::now();
        way.there.send(&packet[..len]);
    }
}

fn forget_idlest(ways: &mut BTreeMap<SocketAddr, Way>) {
    if ways.len() >= SENDERS_MAX {
        let idlest = ways.iter().min_by_key(|(_, way)| way.last).map(|(sender, _)| *sender);
        idlest.and_then(|sender| ways.remove(&sender));
    }
}

async fn open(
    front: &Arc<UdpSocket>,
    sender: SocketAddr,
    target: SocketAddr,
    state: &Arc<State>,
) -> io::Result<Way> {
    let back = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?);
    back.connect(target).await?;
    let there = Lane::new(back.clone(), target, state.clone());
    let here = Lane::new(front.clone(), sender, state.clone());
    let mut tasks = JoinSet::new();
    tasks.spawn(bring_back(back, here, state.clone()));
    Ok(Way { there, last: Instant::now(), _back: tasks })
}

async fn bring_back(from: Arc<UdpSocket>, lane: Lane, state: Arc<State>) {
    let mut packet = vec![0; PACKET_BYTES_MAX];
    loop {
        let Ok(len) = from.recv(&mut packet).await else { continue };
        if state.passes() {
            lane.send(&packet[..len]);
        }
    }
}

/// Packets in one direction, each delayed by what is in force when it comes, in order.
struct Lane {
    packets: mpsc::Sender<(Instant, Vec<u8>)>,
    state: Arc<State>,
    _task: JoinSet<()>,
}

impl Lane {
    fn new(socket: Arc<UdpSocket>, to: SocketAddr, state: Arc<State>) -> Self {
        let (packets, waiting) = mpsc::channel(ON_THEIR_WAY_MAX);
        let mut task = JoinSet::new();
        task.spawn(carry(socket, to, waiting));
        Self { packets, state, _task: task }
    }
    fn send(&self, packet: &[u8]) {
        // A full lane loses packets.
        let _ = self.packets.try_send((Instant::now() + self.state.delay(), packet.to_vec()));
    }
}

async fn carry(
    socket: Arc<UdpSocket>,
    to: SocketAddr,
    mut waiting: mpsc::Receiver<(Instant, Vec<u8>)>,
) {
    let connected = socket.peer_addr().is_ok();
    while let Some((due, packet)) = waiting.recv().await {
        if due > Instant::now() {
            sleep_until(due).await;
        }
        // A packet that cannot be sent is lost, as packets are.
        let _ = match connected {
            true => socket.send(&packet).await,
            false => socket.send_to(&packet, to).await,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    async fn socket() -> UdpSocket {
        UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap()
    }
    async fn heard(socket: &UdpSocket) -> Option<(Vec<u8>, SocketAddr)> {
        let mut packet = [0; 64];
        let heard = timeout(Duration::from_millis(300), socket.recv_from(&mut packet)).await;
        let (len, from) = heard.ok()?.unwrap();
        Some((packet[..len].to_vec(), from))
    }

    #[tokio::test]
    async fn answers_find_each_sender_and_a_cut_drops_both_directions() {
        let node = socket().await;
        let proxy = Proxy::start(node.local_addr().unwrap(), Duration::ZERO).await.unwrap();
        let (one, other) = (socket().await, socket().await);
        one.send_to(b"one", proxy.address()).await.unwrap();
        let (packet, way_of_one) = heard(&node).await.unwrap();
        assert_eq!(packet, b"one");
        other.send_to(b"other", proxy.address()).await.unwrap();
        let (_, way_of_other) = heard(&node).await.unwrap();
        node.send_to(b"to other", way_of_other).await.unwrap();
        node.send_to(b"to one", way_of_one).await.unwrap();
        assert_eq!(heard(&one).await.unwrap(), (b"to one".to_vec(), proxy.address()));
        assert_eq!(heard(&other).await.unwrap().0, b"to other");

        proxy.set_cut(true);
        one.send_to(b"lost", proxy.address()).await.unwrap();
        node.send_to(b"lost", way_of_one).await.unwrap();
        assert_eq!((heard(&node).await, heard(&one).await), (None, None));
        assert_eq!(proxy.traffic().stopped, 2);
        proxy.set_cut(false);
        one.send_to(b"again", proxy.address()).await.unwrap();
        assert_eq!(heard(&node).await.unwrap(), (b"again".to_vec(), way_of_one));
    }

    #[tokio::test]
    async fn a_node_that_is_away_and_comes_back_is_reached_again() {
        let node = socket().await;
        let address = node.local_addr().unwrap();
        let proxy = Proxy::start(address, Duration::ZERO).await.unwrap();
        let sender = socket().await;
        drop(node);
        for _ in 0..3 {
            sender.send_to(b"nobody", proxy.address()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let node = UdpSocket::bind(address).await.unwrap();
        let mut back = None;
        for _ in 0..10 {
            sender.send_to(b"back", proxy.address()).await.unwrap();
            back = back.or(heard(&node).await);
        }
        let (packet, way) = back.expect("packets arrive again");
        assert_eq!(packet, b"back");
        node.send_to(b"hello", way).await.unwrap();
        assert_eq!(heard(&sender).await.unwrap().0, b"hello");
    }

    #[tokio::test]
    async fn packets_on_a_link_that_becomes_long_arrive_late_and_in_order() {
        let node = socket().await;
        let delay = Duration::from_millis(60);
        let proxy = Proxy::start(node.local_addr().unwrap(), Duration::ZERO).await.unwrap();
        proxy.set_delay(delay);
        let (sender, sent) = (socket().await, Instant::now());
        for nth in 0..5_u8 {
            sender.send_to(&[nth], proxy.address()).await.unwrap();
        }
        for nth in 0..5_u8 {
            assert_eq!(heard(&node).await.unwrap().0, [nth]);
            assert!(sent.elapsed() >= delay);
        }
        // What comes when the link is short again does not overtake.
        sender.send_to(&[5], proxy.address()).await.unwrap();
        proxy.set_delay(Duration::ZERO);
        sender.send_to(&[6], proxy.address()).await.unwrap();
        for nth in 5..7 {
            assert_eq!(heard(&node).await.unwrap().0, [nth]);
        }
    }
}
