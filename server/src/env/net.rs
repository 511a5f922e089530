//! Reliable byte streams between addresses.

use std::io;
use std::net::SocketAddr;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

/// A connected byte stream.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> ByteStream for T {}

/// A byte stream of whatever kind the network is made of.
pub type BoxStream = Box<dyn ByteStream>;

/// Opens connections, and waits for them.
#[async_trait]
pub trait Net: Send + Sync + 'static {
    /// Listens on `address`, `host:port`. Port 0 picks a free one.
    ///
    /// # Errors
    /// The address cannot be resolved, is in use, or is not ours.
    async fn listen(&self, address: &str) -> io::Result<Box<dyn Listener>>;
    /// Connects to `address`, `host:port`. Takes as long as the network takes: callers set the
    /// deadline.
    ///
    /// # Errors
    /// The address cannot be resolved, or nobody answers there.
    async fn connect(&self, address: &str) -> io::Result<BoxStream>;
}

/// Accepts connections.
#[async_trait]
pub trait Listener: Send + 'static {
    /// Waits for the next connection. Nothing is lost when it is cancelled.
    ///
    /// # Errors
    /// This connection failed, or the process is out of something; the listener stays usable.
    async fn accept(&mut self) -> io::Result<(BoxStream, SocketAddr)>;
    /// Where it listens, with the port that was picked.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// TCP, with Nagle's algorithm off: every message of ours is written whole.
#[derive(Debug, Clone, Copy, Default)]
pub struct TokioNet;

#[async_trait]
impl Net for TokioNet {
    async fn listen(&self, address: &str) -> io::Result<Box<dyn Listener>> {
        Ok(Box::new(TcpListener::bind(address).await?))
    }
    async fn connect(&self, address: &str) -> io::Result<BoxStream> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }
}

#[async_trait]
impl Listener for TcpListener {
    async fn accept(&mut self) -> io::Result<(BoxStream, SocketAddr)> {
        let (stream, from) = TcpListener::accept(self).await?;
        stream.set_nodelay(true)?;
        Ok((Box::new(stream), from))
    }
    fn local_addr(&self) -> io::Result<SocketAddr> {
        TcpListener::local_addr(self)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn bytes_sent_to_a_listener_arrive() -> io::Result<()> {
        let net: Box<dyn Net> = Box::new(TokioNet);
        let mut listener = net.listen("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let mut dialled = net.connect(&address).await?;
        let (mut accepted, _) = listener.accept().await?;
        dialled.write_all(b"river").await?;
        let mut read = [0; 5];
        accepted.read_exact(&mut read).await?;
        assert_eq!(&read, b"river");
        Ok(())
    }

    #[tokio::test]
    async fn an_address_nobody_listens_on_is_an_error() {
        let free = TokioNet.listen("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        assert!(TokioNet.connect(&free.to_string()).await.is_err());
    }
}
