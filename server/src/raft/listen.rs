//! Serving the Raft service on the node's Raft listener.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{Stream, stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::Server;
use tonic::transport::server::Connected;

use super::link::{RaftTls, WINDOW_BYTES};
use super::service::RaftService;
use crate::env::{BoxStream, Listener};

/// Pause after a connection could not be accepted: the process may be out of files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Streams one connection may have open: a few a shard, and what is being torn down.
const STREAMS_MAX: u32 = 4096;

/// Serves `service` on `listener` until `stop` is done.
///
/// # Errors
/// The TLS files are unusable. A connection that breaks concerns nobody else.
pub async fn serve(
    listener: Box<dyn Listener>,
    service: RaftService,
    tls: Option<&RaftTls>,
    stop: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let mut server = Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES);
    if let Some(tls) = tls {
        server = server.tls_config(tls.server())?;
    }
    let connections = connections(listener);
    server.add_service(service.server()).serve_with_incoming_shutdown(connections, stop).await
}

fn connections(listener: Box<dyn Listener>) -> impl Stream<Item = io::Result<Connection>> {
    stream::unfold(listener, |mut listener| async move {
        loop {
            match listener.accept().await {
                Ok((stream, from)) => return Some((Ok(Connection { stream, from }), listener)),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a Raft connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    })
}

/// A connection of whatever network, as tonic wants it.
struct Connection {
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
