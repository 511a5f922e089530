//! Serving the Raft service on the node's Raft listener.

use std::future::Future;
use std::time::Duration;

use tonic::service::Routes;
use tonic::transport::Server;

use super::link::{RaftTls, WINDOW_BYTES};
use super::service::RaftService;
use crate::env::{Listener, connections};

/// Two of each other node of the region, and what is being torn down.
const CONNECTIONS_MAX: usize = 256;
/// How often an idle connection is asked whether the other end is there, and how long that may take.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(20));
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
    serve_beside(listener, service, Routes::default(), tls, stop).await
}

/// As [`serve`], with other services for those who have shown a node's certificate.
///
/// # Errors
/// As [`serve`].
pub async fn serve_beside(
    listener: Box<dyn Listener>,
    service: RaftService,
    others: Routes,
    tls: Option<&RaftTls>,
    stop: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let mut server = Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .http2_keepalive_interval(Some(KEEP_ALIVE.0))
        .http2_keepalive_timeout(Some(KEEP_ALIVE.1));
    if let Some(tls) = tls {
        server = server.tls_config(tls.server())?;
    }
    let connections = connections(listener, "raft", CONNECTIONS_MAX);
    let services = server.add_routes(others.add_service(service.server()));
    services.serve_with_incoming_shutdown(connections, stop).await
}
