//! Connections without TLS, of which the first bytes are looked at.
//!
//! A node that speaks TLS answers what it does not understand with an alert, and closes. To HTTP/2 that
//! is an answer that was lost, so an append would be in doubt; but such a node has read nothing.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is said of a node that answers with TLS.
pub(crate) const SPEAKS_TLS: &str = "the node speaks TLS: write https";
/// How an alert of TLS begins, whatever its version.
const TLS_ALERT: [u8; 2] = [0x15, 0x03];

/// A connection without TLS.
pub(crate) struct Plain<C> {
    inner: C,
    /// Nothing was read yet.
    unheard: bool,
    /// Writing failed before anything was read. The node may have said why.
    failed: Option<io::Error>,
}

impl<C: AsyncRead + Unpin> Plain<C> {
    pub(crate) fn new(inner: C) -> Self {
        Self { inner, unheard: true, failed: None }
    }

    /// The error to return for `error`, once the node's last words were looked at. A connection that
    /// takes no more is at its end in the other direction, too, so this does not wait for long.
    fn poll_why(&mut self, cx: &mut Context<'_>, error: io::Error) -> Poll<io::Error> {
        let mut bytes = [0; TLS_ALERT.len()];
        let mut buf = ReadBuf::new(&mut bytes);
        match Pin::new(&mut self.inner).poll_read(cx, &mut buf) {
            Poll::Pending => {
                self.failed = Some(error);
                Poll::Pending
            }
            Poll::Ready(Ok(())) if buf.filled() == TLS_ALERT => Poll::Ready(speaks_tls()),
            Poll::Ready(_) => Poll::Ready(error),
        }
    }

    fn poll_written(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut C>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let failed = match self.failed.take() {
            Some(failed) => Err(failed),
            None => ready!(write(Pin::new(&mut self.inner), cx)),
        };
        match failed {
            Err(error) if self.unheard => Poll::Ready(Err(ready!(self.poll_why(cx, error)))),
            done => Poll::Ready(done),
        }
    }
}

fn speaks_tls() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, SPEAKS_TLS)
}

impl<C: AsyncRead + Unpin> AsyncRead for Plain<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        let first = std::mem::take(&mut self.unheard);
        match first && buf.filled()[before..].starts_with(&TLS_ALERT) {
            true => Poll::Ready(Err(speaks_tls())),
            false => Poll::Ready(Ok(())),
        }
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Plain<C> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_written(cx, |inner, cx| inner.poll_write(cx, buf))
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_written(cx, |inner, cx| inner.poll_write_vectored(cx, bufs))
    }
    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
