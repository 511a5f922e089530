//! Listeners as tonic wants them.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{Stream, stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

use super::net::{BoxStream, Listener};

/// Pause after a connection could not be accepted: the process may be out of files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The connections of a listener, for ever. `whose` names the listener in the log.
pub fn connections(
    listener: Box<dyn Listener>,
    whose: &'static str,
) -> impl Stream<Item = io::Result<Connection>> {
    stream::unfold(listener, move |mut listener| async move {
        loop {
            match listener.accept().await {
                Ok((stream, from)) => return Some((Ok(Connection { stream, from }), listener)),
                Err(error) => {
                    tracing::warn!(%error, listener = whose, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    })
}

/// A connection of whatever network.
pub struct Connection {
    stream: BoxStream,
    from: SocketAddr,
}

impl Connected for Connection {
    type ConnectInfo = SocketAddr;
    fn connect_info(&self) -> SocketAddr {
        self.from
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
