//! A UDP socket whose packets can be delayed and dropped, address by address: wide-area distances
//! and cut cables on one machine. Real packets, real sockets; nothing else is altered.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::net::UdpSocket;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

/// Bytes that may be on their way to one address; what is sent beyond is lost, as in a full queue.
const QUEUE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Which packets a cut takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Those in both directions.
    Both,
    /// Only those this socket sends.
    Outgoing,
    /// Only those this socket receives.
    Incoming,
}

#[derive(Debug, Clone, Copy, Default)]
struct Rule {
    cut: Option<Cut>,
    delay: Duration,
}

impl Rule {
    fn sends(&self) -> bool {
        !matches!(self.cut, Some(Cut::Both | Cut::Outgoing))
    }
    fn receives(&self) -> bool {
        !matches!(self.cut, Some(Cut::Both | Cut::Incoming))
    }
}

/// Delays and cuts by remote address. Clones share the rules; changes count from the next packet on.
#[derive(Debug, Clone, Default)]
pub struct LinkRules {
    rules: Arc<Mutex<BTreeMap<SocketAddr, Rule>>>,
}

impl LinkRules {
    /// No delay, no cut.
    pub fn new() -> Self {
        Self::default()
    }
    /// Drops packets to or from `remote` until [`heal`](Self::heal).
    pub fn cut(&self, remote: SocketAddr, cut: Cut) {
        self.lock().entry(remote).or_default().cut = Some(cut);
    }
    /// Ends a cut.
    pub fn heal(&self, remote: SocketAddr) {
        self.lock().entry(remote).or_default().cut = None;
    }
    /// Delays packets to `remote` by `one_way`, keeping their order. Those from it are delayed by
    /// the socket that sends them.
    pub fn delay(&self, remote: SocketAddr, one_way: Duration) {
        self.lock().entry(remote).or_default().delay = one_way;
    }
    fn of(&self, remote: SocketAddr) -> Rule {
        self.lock().get(&remote).copied().unwrap_or_default()
    }
    fn lock(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, Rule>> {
        self.rules.lock().expect("nothing panics under this lock")
    }
}

struct Packet {
    due: Instant,
    bytes: Vec<u8>,
}

/// Packets on their way, by destination, oldest first.
#[derive(Default)]
struct Queues {
    waiting: BTreeMap<SocketAddr, (VecDeque<Packet>, usize)>,
}

impl Queues {
    /// Keeps the order also when the delay is shortened.
    fn push(&mut self, remote: SocketAddr, due: Instant, bytes: &[u8]) {
        let (queue, queued) = self.waiting.entry(remote).or_default();
        if *queued + bytes.len() > QUEUE_BYTES_MAX {
            return;
        }
        let due = queue.back().map_or(due, |last| last.due.max(due));
        *queued += bytes.len();
        queue.push_back(Packet { due, bytes: bytes.to_vec() });
    }

    fn is_waiting(&self, remote: SocketAddr) -> bool {
        self.waiting.get(&remote).is_some_and(|(queue, _)| !queue.is_empty())
    }

    fn next_due(&self) -> Option<(Instant, SocketAddr)> {
        let heads =
            self.waiting.iter().filter_map(|(to, (queue, _))| Some((queue.front()?.due, *to)));
        heads.min()
    }

    fn pop(&mut self, remote: SocketAddr) -> Option<Packet> {
        let (queue, queued) = self.waiting.get_mut(&remote)?;
        let packet = queue.pop_front()?;
        *queued -= packet.bytes.len();
        Some(packet)
    }
}

struct Inner {
    io: UdpSocket,
    rules: LinkRules,
    queues: Mutex<Queues>,
    pushed: Notify,
}

impl Inner {
    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().expect("nothing panics under this lock")
    }

    /// Sends what is due, until aborted.
    async fn deliver(self: Arc<Self>) {
        loop {
            let next = self.queues().next_due();
            let Some((due, remote)) = next else {
                self.pushed.notified().await;
                continue;
            };
            tokio::select! {
                biased;
                () = sleep_until(due) => {}
                () = self.pushed.notified() => continue,
            }
            let packet = self.queues().pop(remote).expect("only this task takes packets out");
            if self.rules.of(remote).sends() {
                // As on a real network, whoever sent it learns of a failure by the missing answer.
                let _ = self.io.send_to(&packet.bytes, remote).await;
            }
        }
    }
}

/// A UDP socket for quinn that follows [`LinkRules`].
pub struct ShapedUdp {
    inner: Arc<Inner>,
    deliverer: JoinHandle<()>,
}

impl ShapedUdp {
    /// Binds `address`. Call within a tokio runtime.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub fn bind(address: SocketAddr, rules: LinkRules) -> io::Result<Self> {
        let socket = std::net::UdpSocket::bind(address)?;
        socket.set_nonblocking(true)?;
        let io = UdpSocket::from_std(socket)?;
        let (queues, pushed) = Default::default();
        let inner = Arc::new(Inner { io, rules, queues, pushed });
        let deliverer = tokio::spawn(inner.clone().deliver());
        Ok(Self { inner, deliverer })
    }

    fn send_one(&self, remote: SocketAddr, bytes: &[u8]) -> io::Result<()> {
        let rule = self.inner.rules.of(remote);
        if !rule.sends() {
            return Ok(());
        }
        let mut queues = self.inner.queues();
        if rule.delay > Duration::ZERO || queues.is_waiting(remote) {
            queues.push(remote, Instant::now() + rule.delay, bytes);
            self.inner.pushed.notify_one();
            return Ok(());
        }
        drop(queues);
        match self.inner.io.try_send_to(bytes, remote) {
            // The last packet to a closed port: nothing to do with this one.
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
            sent => sent.map(drop),
        }
    }
}

impl Drop for ShapedUdp {
    fn drop(&mut self) {
        self.deliverer.abort();
    }
}

impl fmt::Debug for ShapedUdp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShapedUdp").field("rules", &self.inner.rules).finish_non_exhaustive()
    }
}

impl AsyncUdpSocket for ShapedUdp {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable { inner: self.inner.clone(), waiting: None })
    }

    /// One datagram: quinn sends no batches, because `max_transmit_segments` is 1.
    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.send_one(transmit.destination, transmit.contents)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.inner.io.poll_recv_ready(cx))?;
            match self.inner.io.try_recv_from(&mut bufs[0]) {
                Ok((_, addr)) if !self.inner.rules.of(addr).receives() => {}
                Ok((len, addr)) => {
                    meta[0] = RecvMeta { addr, len, stride: len, ecn: None, dst_ip: None };
                    return Poll::Ready(Ok(1));
                }
                // Not ready after all, or a peer's port is closed: quinn finds out by itself.
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.io.local_addr()
    }
}

type Waiting = Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>;

struct Writable {
    inner: Arc<Inner>,
    waiting: Option<Waiting>,
}

impl fmt::Debug for Writable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writable").finish_non_exhaustive()
    }
}

impl UdpPoller for Writable {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let inner = self.inner.clone();
        let waiting =
            self.waiting.get_or_insert_with(|| Box::pin(async move { inner.io.writable().await }));
        let result = ready!(waiting.as_mut().poll(cx));
        self.waiting = None;
        Poll::Ready(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_keep_the_order_when_the_delay_is_shortened_and_lose_what_is_too_much() {
        let (start, remote) = (Instant::now(), SocketAddr::from(([127, 0, 0, 1], 9)));
        let mut queues = Queues::default();
        queues.push(remote, start + Duration::from_millis(80), b"first");
        queues.push(remote, start + Duration::from_millis(5), b"second");
        assert_eq!(queues.next_due(), Some((start + Duration::from_millis(80), remote)));
        assert_eq!(queues.pop(remote).unwrap().bytes, b"first");
        assert_eq!(queues.pop(remote).unwrap().bytes, b"second");
        queues.push(remote, start, &vec![0; QUEUE_BYTES_MAX]);
        queues.push(remote, start, b"lost");
        queues.pop(remote);
        assert!(!queues.is_waiting(remote));
    }
}
