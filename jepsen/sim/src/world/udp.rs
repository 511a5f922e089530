//! UDP between simulated hosts, as QUIC wants it, under the weather of the way.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use anabranch_gossip::{Environment, SystemResolver, WallClock};
use futures_util::FutureExt;
use parking_lot::Mutex;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, UdpPoller};
use rand::Rng;
use rand::rngs::SmallRng;
use tokio::time::{self, sleep_until};
use turmoil::net::UdpSocket;

use super::{Gate, Weather};

/// Opens the gossip socket of a host. Call on the host.
///
/// # Errors
/// The port is taken.
pub fn open(
    address: SocketAddr,
    clock: WallClock,
    weather: Weather,
    gate: Gate,
    random: SmallRng,
) -> io::Result<Environment> {
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
    let bound = UdpSocket::bind(any).now_or_never().expect("a simulated socket opens at once");
    let inner = Arc::new(Inner {
        io: bound?,
        address,
        weather,
        gate,
        random: Mutex::new(random),
        last_due: Mutex::default(),
        received: Mutex::default(),
    });
    tokio::spawn(Arc::clone(&inner).receive());
    Ok(Environment {
        socket: Arc::new(SimUdp(inner)),
        runtime: Arc::new(SimRuntime),
        resolver: Arc::new(SystemResolver),
        clock,
    })
}

struct Inner {
    io: UdpSocket,
    address: SocketAddr,
    weather: Weather,
    gate: Gate,
    random: Mutex<SmallRng>,
    /// When the packet sent last to each node is due, so that jitter keeps the order.
    last_due: Mutex<BTreeMap<IpAddr, time::Instant>>,
    received: Mutex<Received>,
}

#[derive(Default)]
struct Received {
    packets: VecDeque<(Vec<u8>, SocketAddr)>,
    reader: Option<Waker>,
}

impl Inner {
    async fn receive(self: Arc<Self>) {
        let mut buf = vec![0; 65_536];
        loop {
            let Ok((len, from)) = self.io.recv_from(&mut buf).await else { return };
            self.gate.passed().await;
            let mut received = self.received.lock();
            received.packets.push_back((buf[..len].to_vec(), from));
            if let Some(reader) = received.reader.take() {
                reader.wake();
            }
        }
    }

    /// One packet, through the weather.
    fn send(self: &Arc<Self>, to: SocketAddr, packet: &[u8]) {
        let conditions = self.weather.of(self.address.ip(), to.ip());
        let mut random = self.random.lock();
        let mut chance = |part: f64| part > 0.0 && random.random_bool(part);
        let (lost, twice) = (chance(conditions.loss), chance(conditions.duplicate));
        let overtaken = chance(conditions.reorder);
        if lost {
            return;
        }
        let mut delay = || random.random_range(time::Duration::ZERO..=conditions.jitter);
        let now = time::Instant::now();
        let copies = 1 + usize::from(twice);
        for _ in 0..copies {
            let mut due = now + delay();
            if !overtaken {
                let mut last = self.last_due.lock();
                let last = last.entry(to.ip()).or_insert(now);
                due = due.max(*last);
                *last = due;
            }
            self.send_at(due, to, packet);
        }
    }

    fn send_at(self: &Arc<Self>, due: time::Instant, to: SocketAddr, packet: &[u8]) {
        if due <= time::Instant::now() && !self.gate.is_closed() {
            return self.put(to, packet);
        }
        let (inner, packet) = (Arc::clone(self), packet.to_vec());
        tokio::spawn(async move {
            sleep_until(due).await;
            inner.gate.passed().await;
            inner.put(to, &packet);
        });
    }

    /// Nobody hears that a packet did not arrive.
    fn put(&self, to: SocketAddr, packet: &[u8]) {
        let _ = self.io.try_send_to(packet, to);
    }
}

struct SimUdp(Arc<Inner>);

impl fmt::Debug for SimUdp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SimUdp").field(&self.0.address).finish()
    }
}

#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncUdpSocket for SimUdp {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let size = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        for packet in transmit.contents.chunks(size) {
            self.0.send(transmit.destination, packet);
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut received = self.0.received.lock();
        let mut filled = 0;
        for (buf, meta) in bufs.iter_mut().zip(meta) {
            let Some((packet, from)) = received.packets.pop_front() else { break };
            let len = packet.len().min(buf.len());
            buf[..len].copy_from_slice(&packet[..len]);
            *meta = RecvMeta { addr: from, len, stride: len, ecn: None, dst_ip: None };
            filled += 1;
        }
        if filled > 0 {
            return Poll::Ready(Ok(filled));
        }
        received.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.0.address)
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

/// QUIC's timers and tasks, in simulated time.
#[derive(Debug)]
struct SimRuntime;

impl Runtime for SimRuntime {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        Box::pin(sleep_until(at.into()))
    }
    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        tokio::spawn(future);
    }
    fn wrap_udp_socket(&self, _: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "a simulation has no real sockets"))
    }
    fn now(&self) -> Instant {
        time::Instant::now().into_std()
    }
}
