//! A connection to one other node: dialled when needed, dropped when it is dead.

use std::sync::Arc;
use std::time::Duration;

use anabranch_proto::internal::raft_client::RaftClient;
use tokio::time::Instant;
use tonic::transport::{
    Certificate, Channel, ClientTlsConfig, Endpoint, Identity as Pair, ServerTlsConfig,
};

use crate::env::{GREETING_WITHIN, Net, dial};

/// Bytes of one message that a node takes. Messages are under 16 MiB; the rest is room for larger
/// limits in a rolling upgrade.
pub(super) const MESSAGE_BYTES: usize = 64 * 1024 * 1024;
/// HTTP/2 windows: several messages of replication in flight over one connection.
pub(super) const WINDOW_BYTES: u32 = 16 * 1024 * 1024;

/// Mutual TLS between the nodes of a region. PEM.
#[derive(Clone)]
pub struct RaftTls {
    /// Who may sign the certificates of nodes.
    pub ca: Vec<u8>,
    /// This node's certificate chain.
    pub certificate: Vec<u8>,
    /// The key of that certificate.
    pub key: Vec<u8>,
    /// Name that every node's certificate carries, whatever its address.
    pub server_name: String,
}

impl std::fmt::Debug for RaftTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RaftTls").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

impl RaftTls {
    fn pair(&self) -> Pair {
        Pair::from_pem(&self.certificate, &self.key)
    }
    /// What those who connect to a node's Raft port need.
    pub fn client(&self) -> ClientTlsConfig {
        ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&self.ca))
            .identity(self.pair())
            .domain_name(self.server_name.clone())
    }
    pub(super) fn server(&self) -> ServerTlsConfig {
        ServerTlsConfig::new()
            .identity(self.pair())
            .client_ca_root(Certificate::from_pem(&self.ca))
            .client_auth_optional(false)
            .timeout(GREETING_WITHIN)
    }
}

/// Dials other nodes.
#[derive(Clone)]
pub(super) struct Dialer {
    net: Arc<dyn Net>,
    tls: Option<RaftTls>,
    connect_timeout: Duration,
}

impl Dialer {
    pub(super) fn new(net: Arc<dyn Net>, tls: Option<RaftTls>, connect_timeout: Duration) -> Self {
        Self { net, tls, connect_timeout }
    }

    /// # Errors
    /// The address is no `host:port`, or the TLS files are unusable.
    fn dial(&self, address: &str) -> Result<Channel, tonic::transport::Error> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let mut endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))?
            .connect_timeout(self.connect_timeout)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES);
        if let Some(tls) = &self.tls {
            endpoint = endpoint.tls_config(tls.client())?;
        }
        Ok(dial(&endpoint, &self.net, address))
    }
}

/// One connection, and whether it still deserves the name.
pub(super) struct Link {
    dialer: Dialer,
    address: String,
    /// How long a connection may stay silent before it is taken for dead.
    patience: Duration,
    client: Option<RaftClient<Channel>>,
    heard: Instant,
}

impl Link {
    pub(super) fn new(dialer: Dialer, address: String, patience: Duration) -> Self {
        Self { dialer, address, patience, client: None, heard: Instant::now() }
    }

    /// The connection, made anew if there is none. It connects when it is first used.
    pub(super) fn client(&mut self) -> Result<RaftClient<Channel>, tonic::transport::Error> {
        if let Some(client) = &self.client {
            return Ok(client.clone());
        }
        let client = RaftClient::new(self.dialer.dial(&self.address)?)
            .max_decoding_message_size(MESSAGE_BYTES)
            .max_encoding_message_size(MESSAGE_BYTES);
        self.heard = Instant::now();
        self.client = Some(client.clone());
        Ok(client)
    }

    /// The other end answered.
    pub(super) fn on_heard(&mut self) {
        self.heard = Instant::now();
    }

    /// An answer did not come in time. A connection through which nothing came for too long may be
    /// half open, and TCP would hold on to it for minutes: drop it.
    pub(super) fn on_silence(&mut self) {
        if self.heard.elapsed() >= self.patience {
            self.client = None;
        }
    }

    /// The connection broke.
    pub(super) fn on_broken(&mut self) {
        self.client = None;
    }
}
