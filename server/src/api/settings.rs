//! What can be set about the interface.

use std::time::Duration;

use anabranch_core::{Limits, limits};
use tonic::transport::{Certificate, ClientTlsConfig, Identity, ServerTlsConfig};

use crate::env::GREETING_WITHIN;
use crate::read::Tuning;

/// Limits on requests, and bounds on what is in flight.
#[derive(Debug, Clone)]
pub struct ApiSettings {
    /// What one append may hold.
    pub limits: Limits,
    /// Bytes of appends that are being worked on at the same time.
    pub append_bytes_in_flight: usize,
    /// Reads that are open at the same time.
    pub reads_max: usize,
    /// How long an append may take if its caller does not say.
    pub append_within: Duration,
    /// How long a change of the members may take if its caller does not say.
    pub membership_within: Duration,
    /// Whoever reaches the interface may change who the members are; else only those who come to the
    /// Raft port with a certificate.
    pub membership_on_api: bool,
    /// How long connecting to the leader may take.
    pub connect_within: Duration,
    /// Connections that may be open.
    pub connections_max: usize,
    /// Calls that one connection may have open.
    pub streams_per_connection: u32,
    /// The longest a reader may ask to wait for its session.
    pub session_wait_max: Duration,
    /// Frames of readers.
    pub reading: Tuning,
}

impl Default for ApiSettings {
    fn default() -> Self {
        Self {
            limits: Limits::DEFAULT,
            append_bytes_in_flight: 64 * 1024 * 1024,
            reads_max: limits::READS,
            append_within: Duration::from_secs(10),
            membership_within: Duration::from_secs(60),
            membership_on_api: false,
            connect_within: Duration::from_secs(2),
            connections_max: 4096,
            streams_per_connection: 1024,
            session_wait_max: limits::SESSION_WAIT_MAX,
            reading: Tuning::DEFAULT,
        }
    }
}

/// TLS of the public interface. PEM.
#[derive(Clone)]
pub struct ApiTls {
    /// Who signs the certificates of nodes and, if they must have one, of callers.
    pub ca: Vec<u8>,
    /// This node's certificate chain.
    pub certificate: Vec<u8>,
    /// The key of that certificate.
    pub key: Vec<u8>,
    /// Name that every node's certificate carries, whatever its address.
    pub server_name: String,
    /// Whether callers must present a certificate.
    pub clients_need_certificate: bool,
}

impl std::fmt::Debug for ApiTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiTls").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

impl ApiTls {
    pub(super) fn server(&self) -> ServerTlsConfig {
        let tls = ServerTlsConfig::new().identity(self.pair()).timeout(GREETING_WITHIN);
        match self.clients_need_certificate {
            true => tls.client_ca_root(Certificate::from_pem(&self.ca)),
            false => tls,
        }
    }
    pub(super) fn client(&self) -> ClientTlsConfig {
        ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&self.ca))
            .identity(self.pair())
            .domain_name(self.server_name.clone())
    }
    fn pair(&self) -> Identity {
        Identity::from_pem(&self.certificate, &self.key)
    }
}
