//! A network whose connections can go silent: nothing is refused, nothing arrives.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use anabranch_server::env::{BoxStream, Listener, Net, TokioNet};
use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

/// The connections of one node.
#[derive(Clone)]
pub struct Cuttable {
    /// How often it was cut, and whether it is.
    state: Arc<watch::Sender<(u64, bool)>>,
}

impl Cuttable {
    pub fn new() -> Self {
        Self { state: Arc::new(watch::Sender::new((0, false))) }
    }
    /// Every connection falls silent, for good. New ones hang.
    pub fn cut(&self) {
        self.state.send_modify(|(cuts, cut)| {
            *cuts += 1;
            *cut = true;
        });
    }
    /// New connections work again.
    pub fn heal(&self) {
        self.state.send_modify(|(_, cut)| *cut = false);
    }

    async fn wrap(&self, stream: BoxStream) -> BoxStream {
        let mut state = self.state.subscribe();
        let born = state.wait_for(|(_, cut)| !cut).await.expect("the sender is here").0;
        Box::new(Silenced { stream, state: Arc::clone(&self.state), born })
    }
}

#[async_trait]
impl Net for Cuttable {
    async fn listen(&self, address: &str) -> io::Result<Box<dyn Listener>> {
        let listener = TokioNet.listen(address).await?;
        Ok(Box::new(Accepting { net: self.clone(), listener }))
    }
    async fn connect(&self, address: &str) -> io::Result<BoxStream> {
        let stream = TokioNet.connect(address).await?;
        Ok(self.wrap(stream).await)
    }
}

struct Accepting {
    net: Cuttable,
    listener: Box<dyn Listener>,
}

#[async_trait]
impl Listener for Accepting {
    async fn accept(&mut self) -> io::Result<(BoxStream, SocketAddr)> {
        let (stream, from) = self.listener.accept().await?;
        Ok((self.net.wrap(stream).await, from))
    }
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

struct Silenced {
    stream: BoxStream,
    state: Arc<watch::Sender<(u64, bool)>>,
    born: u64,
}

impl Silenced {
    fn dead(&self) -> bool {
        self.state.borrow().0 != self.born
    }
}

impl AsyncRead for Silenced {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if self.dead() {
            buf.set_filled(before);
            return Poll::Pending;
        }
        read
    }
}

impl AsyncWrite for Silenced {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.dead() {
            return Poll::Ready(Ok(buf.len()));
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Not even the end of a connection gets through.
        Poll::Ready(Ok(()))
    }
}
