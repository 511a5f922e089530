//! Listeners as tonic wants them: with a bound on the connections that are open, and on how long one
//! may be silent before it says anything.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{Stream, stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tonic::transport::server::Connected;

use super::net::{BoxStream, Listener};

/// Pause after a connection could not be accepted: the process may be out of files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long a caller may take to say who it is: to send the first [`GREETING_BYTES`], and, with TLS,
/// to finish the handshake. Once HTTP/2 is spoken, pings find out who is gone.
pub const GREETING_WITHIN: Duration = Duration::from_secs(10);
/// The preface of HTTP/2; what opens TLS is longer.
const GREETING_BYTES: usize = 24;

/// The connections of a listener, for ever, at most `open_max` at once; more wait in the system's
/// backlog. `whose` names the listener in the log.
pub fn connections(
    listener: Box<dyn Listener>,
    whose: &'static str,
    open_max: usize,
) -> impl Stream<Item = io::Result<Connection>> {
    let places = Arc::new(Semaphore::new(open_max));
    stream::unfold((listener, places), move |(mut listener, places)| async move {
        let place = place(&places, whose, open_max).await;
        loop {
            match listener.accept().await {
                Ok((stream, from)) => {
                    let connection = Connection::new(stream, from, place, GREETING_WITHIN);
                    return Some((Ok(connection), (listener, places)));
                }
                Err(error) => {
                    tracing::warn!(%error, listener = whose, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    })
}

async fn place(places: &Arc<Semaphore>, whose: &str, open_max: usize) -> OwnedSemaphorePermit {
    if let Ok(place) = Arc::clone(places).try_acquire_owned() {
        return place;
    }
    tracing::warn!(
        listener = whose,
        open_max,
        "as many connections are open as may be: new ones wait until others are closed"
    );
    Arc::clone(places).acquire_owned().await.expect("nobody closes it")
}

/// A connection of whatever network.
pub struct Connection {
    stream: BoxStream,
    from: SocketAddr,
    /// Until the caller has said enough: what is missing, and until when it may be.
    greeting: Option<(usize, Pin<Box<Sleep>>)>,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    fn new(
        stream: BoxStream,
        from: SocketAddr,
        place: OwnedSemaphorePermit,
        greeting_within: Duration,
    ) -> Self {
        let until = Box::pin(tokio::time::sleep(greeting_within));
        Self { stream, from, greeting: Some((GREETING_BYTES, until)), _place: place }
    }

    /// Counts what came; fails once the caller has been silent for too long.
    fn poll_greeting(&mut self, cx: &mut Context<'_>, came: usize) -> io::Result<()> {
        let Some((missing, until)) = &mut self.greeting else { return Ok(()) };
        *missing = missing.saturating_sub(came);
        if *missing == 0 {
            self.greeting = None;
        } else if until.as_mut().poll(cx).is_ready() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }
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
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        let came = buf.filled().len() - before;
        self.poll_greeting(cx, came)?;
        read
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

#[cfg(test)]
mod tests;
