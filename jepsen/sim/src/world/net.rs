//! TCP between simulated hosts.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use anabranch_server::env::{BoxStream, Listener, Net};
use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Gate;

/// TCP of one host. Connections of a paused host neither give nor take anything.
#[derive(Debug, Clone, Default)]
pub struct SimNet {
    gate: Gate,
}

impl SimNet {
    /// TCP of the host that `gate` pauses.
    pub fn new(gate: Gate) -> Self {
        Self { gate }
    }

    /// Connects to `ip:port`.
    ///
    /// # Errors
    /// It is no address, or nobody listens there.
    pub async fn dial(&self, address: &str) -> io::Result<SimStream> {
        let address = parse(address)?;
        self.gate.passed().await;
        let stream = turmoil::net::TcpStream::connect(address).await?;
        Ok(SimStream { stream, gate: self.gate.clone() })
    }
}

fn parse(address: &str) -> io::Result<SocketAddr> {
    address.parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}

#[async_trait]
impl Net for SimNet {
    async fn listen(&self, address: &str) -> io::Result<Box<dyn Listener>> {
        // A simulated host has one address and listens on all of them.
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, parse(address)?.port()));
        let listener = turmoil::net::TcpListener::bind(any).await?;
        Ok(Box::new(SimListener { listener, gate: self.gate.clone() }))
    }

    async fn connect(&self, address: &str) -> io::Result<BoxStream> {
        Ok(Box::new(self.dial(address).await?))
    }
}

struct SimListener {
    listener: turmoil::net::TcpListener,
    gate: Gate,
}

#[async_trait]
impl Listener for SimListener {
    async fn accept(&mut self) -> io::Result<(BoxStream, SocketAddr)> {
        self.gate.passed().await;
        let (stream, from) = self.listener.accept().await?;
        Ok((Box::new(SimStream { stream, gate: self.gate.clone() }), from))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection of a host that may be paused.
pub struct SimStream {
    stream: turmoil::net::TcpStream,
    gate: Gate,
}

impl AsyncRead for SimStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.gate.poll_open(cx));
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.gate.poll_open(cx));
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
