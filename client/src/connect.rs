//! How bytes reach a node: TCP unless the builder was given something else.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tonic::codegen::Service;

use crate::plain::Plain;

/// A connection, whatever carries it.
pub(crate) trait Connection: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Connection for T {}

type Connecting = BoxFuture<'static, io::Result<Box<dyn Connection>>>;

/// Makes connections, giving each attempt at most `patience`.
///
/// The limit is here and not on the whole channel so that an attempt that never got a connection is
/// told apart from one that was sent and not answered.
#[derive(Clone)]
pub(crate) struct Connector {
    dial: Arc<dyn Fn(Uri) -> Connecting + Send + Sync>,
    patience: Duration,
}

impl Connector {
    /// Connects over TCP.
    pub(crate) fn tcp(patience: Duration) -> Self {
        Self::custom(patience, |uri: Uri| async move {
            let host = uri.host().ok_or_else(|| no_host(&uri))?;
            let host = host.trim_matches(['[', ']']);
            let https = uri.scheme_str() == Some("https");
            let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
            let stream = TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            Ok(match https {
                true => Box::new(stream) as Box<dyn Connection>,
                false => Box::new(Plain::new(stream)),
            })
        })
    }

    /// Connects with a function of the caller's.
    pub(crate) fn custom<F, Fut, C>(patience: Duration, dial: F) -> Self
    where
        F: Fn(Uri) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = io::Result<C>> + Send + 'static,
        C: Connection,
    {
        let boxed = move |uri| -> Connecting {
            let dialing = dial(uri);
            Box::pin(async move { Ok(Box::new(dialing.await?) as Box<dyn Connection>) })
        };
        Self { dial: Arc::new(boxed), patience }
    }

    pub(crate) fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }
}

fn no_host(uri: &Uri) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{uri} names no host"))
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Box<dyn Connection>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (dialing, patience) = ((self.dial)(uri), self.patience);
        Box::pin(async move {
            let connection = tokio::time::timeout(patience, dialing).await;
            let late = || io::Error::new(io::ErrorKind::TimedOut, "it took no connection in time");
            Ok(TokioIo::new(connection.unwrap_or_else(|_| Err(late()))?))
        })
    }
}
