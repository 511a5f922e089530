//! The way from one node to another of its region: what TCP connections carry in that direction passes
//! through this process.
//!
//! A cut is no reset. Nobody is told: bytes do not arrive, connections open and stay silent, as when
//! all packets are lost; and when it heals, what was on its way arrives, as when TCP sends it again.
//! Where nobody listens, the connection ends at once.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::Traffic;

/// Bytes read at once.
const PIECE_BYTES: usize = 16 * 1024;
/// Pieces on their way in one direction of a connection. When there are more the sender has to wait.
const ON_THEIR_WAY_MAX: usize = 256;
/// Connections of a proxy at once. A node has two or three; those that it gave up during a cut stay
/// until it heals.
const CONNECTIONS_MAX: usize = 1_024;
/// Pause after a connection could not be accepted: the process may be out of files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// From one node to another: what either of them sends in this direction.
#[derive(Debug)]
pub(super) struct Way {
    state: watch::Sender<State>,
    passed: AtomicU64,
    stopped: AtomicU64,
}

#[derive(Debug, Clone, Copy, Default)]
struct State {
    cut: bool,
    delay: Duration,
}

impl Way {
    pub(super) fn new() -> Arc<Self> {
        let state = watch::Sender::new(State::default());
        Arc::new(Self { state, passed: AtomicU64::new(0), stopped: AtomicU64::new(0) })
    }
    /// Lets nothing through from now on, or lets it go on.
    pub(super) fn set_cut(&self, cut: bool) {
        self.state.send_modify(|state| state.cut = cut);
    }
    /// Lets everything take so much longer from now on.
    pub(super) fn set_delay(&self, delay: Duration) {
        self.state.send_modify(|state| state.delay = delay);
    }
    /// Bytes that it met so far.
    pub(super) fn traffic(&self) -> Traffic {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Traffic { passed: load(&self.passed), stopped: load(&self.stopped) }
    }

    fn delay(&self) -> Duration {
        self.state.borrow().delay
    }
    /// Waits until it is not cut, with `bytes` that want to pass.
    async fn pass(&self, bytes: usize) {
        if self.state.borrow().cut {
            self.stopped.fetch_add(bytes as u64, Ordering::Relaxed);
        }
        let healed = self.state.subscribe().wait_for(|state| !state.cut).await.map(|_| ());
        healed.expect("the way is here, so its state is");
        self.passed.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// Passes connections on until it is dropped.
#[derive(Debug)]
pub(super) struct Proxy {
    address: SocketAddr,
    _task: JoinSet<()>,
}

impl Proxy {
    /// Stands before `target`, at a free port of 127.0.0.1. What is sent to the target goes along
    /// `there`, what it answers along `back`.
    ///
    /// # Errors
    /// If no socket can be bound.
    pub(super) async fn start(
        target: SocketAddr,
        there: Arc<Way>,
        back: Arc<Way>,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let mut task = JoinSet::new();
        task.spawn(pass_on(listener, target, there, back));
        Ok(Self { address, _task: task })
    }
    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn pass_on(listener: TcpListener, target: SocketAddr, there: Arc<Way>, back: Arc<Way>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((from, _)) if connections.len() < CONNECTIONS_MAX => {
                connections.spawn(carry(from, target, there.clone(), back.clone()));
            }
            Ok(_) => {}
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// One connection, until both directions have ended.
async fn carry(from: TcpStream, target: SocketAddr, there: Arc<Way>, back: Arc<Way>) {
    // A cut loses the first packet of a connection, too.
    there.pass(0).await;
    let Ok(to) = TcpStream::connect(target).await else { return };
    // Else Nagle's algorithm would add delays of its own.
    let _ = (from.set_nodelay(true), to.set_nodelay(true));
    let ((from, answers), (to_read, to)) = (from.into_split(), to.into_split());
    tokio::join!(flow(from, to, &there), flow(to_read, answers, &back));
}

/// One direction of a connection, until it ends or breaks; its end goes along the way, too.
fn flow(from: OwnedReadHalf, to: OwnedWriteHalf, way: &Way) -> impl Future<Output = ()> {
    let (pieces, waiting) = mpsc::channel(ON_THEIR_WAY_MAX);
    async move {
        tokio::join!(take(from, pieces, way), give(waiting, to, way));
    }
}

async fn take(mut from: OwnedReadHalf, pieces: mpsc::Sender<(Instant, Vec<u8>)>, way: &Way) {
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        let read = tokio::select! {
            biased;
            // Who is to be given it is gone.
            () = pieces.closed() => return,
            read = from.read(&mut buffer) => read,
        };
        let (Ok(read @ 1..), delay) = (read, way.delay()) else { return };
        if pieces.send((Instant::now() + delay, buffer[..read].to_vec())).await.is_err() {
            return;
        }
    }
}

async fn give(mut waiting: mpsc::Receiver<(Instant, Vec<u8>)>, mut to: OwnedWriteHalf, way: &Way) {
    while let Some((due, piece)) = waiting.recv().await {
        sleep_until(due).await;
        way.pass(piece.len()).await;
        if to.write_all(&piece).await.is_err() {
            return;
        }
    }
    way.pass(0).await;
    let _ = to.shutdown().await;
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_secs(20);
    const A_WHILE: Duration = Duration::from_millis(200);

    /// A node, the ways to it and from it, and a connection through a proxy, at both ends.
    struct Rig {
        there: Arc<Way>,
        back: Arc<Way>,
        proxy: Proxy,
        node: TcpListener,
    }

    impl Rig {
        async fn new() -> Self {
            let node = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let (there, back) = (Way::new(), Way::new());
            let target = node.local_addr().unwrap();
            let proxy = Proxy::start(target, there.clone(), back.clone()).await.unwrap();
            Self { there, back, proxy, node }
        }
        async fn connect(&self) -> TcpStream {
            TcpStream::connect(self.proxy.address()).await.unwrap()
        }
        async fn accept(&self) -> Option<TcpStream> {
            Some(timeout(A_WHILE, self.node.accept()).await.ok()?.unwrap().0)
        }
    }

    /// The next byte; 0 at the end. None if nothing comes for a while.
    async fn heard(stream: &mut TcpStream) -> Option<u8> {
        let mut byte = [0];
        let read = timeout(A_WHILE, stream.read(&mut byte)).await.ok()?;
        Some(if read.unwrap() == 0 { 0 } else { byte[0] })
    }

    #[tokio::test]
    async fn a_cut_holds_up_one_direction_and_everything_arrives_when_it_heals() {
        let rig = Rig::new().await;
        let mut dialled = rig.connect().await;
        let mut accepted = rig.accept().await.expect("a connection");
        dialled.write_all(&[1]).await.unwrap();
        accepted.write_all(&[2]).await.unwrap();
        assert_eq!((heard(&mut accepted).await, heard(&mut dialled).await), (Some(1), Some(2)));

        rig.there.set_cut(true);
        dialled.write_all(&[3]).await.unwrap();
        accepted.write_all(&[4]).await.unwrap();
        assert_eq!((heard(&mut accepted).await, heard(&mut dialled).await), (None, Some(4)));
        assert_eq!(rig.there.traffic(), Traffic { passed: 1, stopped: 1 });
        rig.back.set_cut(true);
        rig.there.set_cut(false);
        accepted.write_all(&[5]).await.unwrap();
        assert_eq!((heard(&mut accepted).await, heard(&mut dialled).await), (Some(3), None));
        rig.back.set_cut(false);
        assert_eq!(heard(&mut dialled).await, Some(5));
    }

    #[tokio::test]
    async fn a_connection_opened_or_closed_in_a_cut_shows_when_it_heals() {
        let rig = Rig::new().await;
        let mut before = rig.connect().await;
        before.write_all(&[1]).await.unwrap();
        let mut accepted = rig.accept().await.expect("a connection");
        assert_eq!(heard(&mut accepted).await, Some(1));
        rig.there.set_cut(true);
        let mut during = rig.connect().await;
        during.write_all(&[2]).await.unwrap();
        assert_eq!(heard(&mut during).await, None, "no reset, no end");
        assert!(rig.accept().await.is_none());
        drop(before);
        assert_eq!(heard(&mut accepted).await, None, "the end does not arrive either");
        rig.there.set_cut(false);
        assert_eq!(heard(&mut accepted).await, Some(0));
        let mut accepted = rig.accept().await.expect("the other connection");
        assert_eq!(heard(&mut accepted).await, Some(2));
    }

    #[tokio::test]
    async fn a_node_that_is_down_ends_the_connection_and_one_that_comes_back_is_reached() {
        let rig = Rig::new().await;
        let (target, mut dialled) = (rig.node.local_addr().unwrap(), rig.connect().await);
        let accepted = rig.accept().await.expect("a connection");
        drop((rig.node, accepted));
        assert_eq!(heard(&mut dialled).await, Some(0), "it died");
        let mut dialled = TcpStream::connect(rig.proxy.address()).await.unwrap();
        assert_eq!(heard(&mut dialled).await, Some(0), "nobody listens");
        let node = TcpListener::bind(target).await.unwrap();
        let mut dialled = TcpStream::connect(rig.proxy.address()).await.unwrap();
        dialled.write_all(&[1]).await.unwrap();
        let (mut accepted, _) = timeout(SOON, node.accept()).await.unwrap().unwrap();
        assert_eq!(heard(&mut accepted).await, Some(1));
    }

    #[tokio::test]
    async fn bytes_on_a_slow_way_arrive_late_whole_and_in_order() {
        let rig = Rig::new().await;
        let mut dialled = rig.connect().await;
        let mut accepted = rig.accept().await.expect("a connection");
        let (delay, sent) = (Duration::from_millis(60), Instant::now());
        rig.there.set_delay(delay);
        dialled.write_all(&[1]).await.unwrap();
        assert_eq!(heard(&mut accepted).await, Some(1));
        assert!(sent.elapsed() >= delay);
        // More than may be on its way at once.
        let bytes: Vec<u8> =
            (0..PIECE_BYTES * (ON_THEIR_WAY_MAX + 100)).map(|nth| (nth % 251) as u8).collect();
        let sending = bytes.clone();
        let sender = tokio::spawn(async move {
            dialled.write_all(&sending).await.unwrap();
            dialled
        });
        let mut received = vec![0; bytes.len()];
        timeout(SOON, accepted.read_exact(&mut received)).await.expect("all of it").unwrap();
        assert!(received == bytes, "as it was sent");
        let mut dialled = sender.await.unwrap();
        rig.there.set_delay(Duration::ZERO);
        accepted.write_all(&[7]).await.unwrap();
        assert_eq!(heard(&mut dialled).await, Some(7));
    }
}
