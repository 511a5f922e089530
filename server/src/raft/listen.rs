//! Serving the Raft service on the node's Raft listener.

use std::future::Future;

use tonic::transport::Server;

use super::link::{RaftTls, WINDOW_BYTES};
use super::service::RaftService;
use crate::env::{Listener, connections};

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
    let connections = connections(listener, "raft");
    server.add_service(service.server()).serve_with_incoming_shutdown(connections, stop).await
}
