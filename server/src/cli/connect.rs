//! Where the nodes are, and how to reach them.

use std::path::PathBuf;
use std::time::Duration;

use anabranch_client::wire::cluster_client::ClusterClient;
use anabranch_client::{Client, ReadError};
use anyhow::{Context, Result};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

/// What a region is called towards the client library, which only compares names.
const HOME: &str = "home";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// The node's own deadline should come first: it knows more.
const ANSWER_MARGIN: Duration = Duration::from_secs(2);

/// Where to connect
#[derive(Debug, clap::Args)]
pub struct Connect {
    /// A node's address; several of one region, separated by commas, stand in for each other
    #[arg(long, short, env = "ANABRANCH_ENDPOINT", value_name = "URL", value_delimiter = ',')]
    #[arg(default_value = "http://127.0.0.1:7101")]
    endpoint: Vec<String>,
    #[command(flatten)]
    tls: TlsOptions,
}

/// TLS towards nodes
#[derive(Debug, clap::Args)]
pub struct TlsOptions {
    /// PEM file of the authority that signs nodes' certificates; for https addresses
    #[arg(long, env = "ANABRANCH_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Name that nodes' certificates carry, if not the host in their address
    #[arg(long, env = "ANABRANCH_TLS_DOMAIN", value_name = "NAME")]
    tls_domain: Option<String>,
    /// PEM file of a certificate to show, if nodes want one
    #[arg(long, env = "ANABRANCH_CERT", value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// PEM file of the certificate's key
    #[arg(long, env = "ANABRANCH_KEY", value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
}

impl Connect {
    /// A client of the region that the addresses belong to.
    pub fn client(&self) -> Result<Client> {
        let mut builder = Client::builder().region(HOME, self.endpoint.clone());
        if let Some(ca) = &self.tls.ca {
            builder = builder.ca_pem(read(ca)?);
        }
        if let Some(domain) = &self.tls.tls_domain {
            builder = builder.tls_domain(domain);
        }
        if let Some((cert, key)) = self.tls.pair()? {
            builder = builder.identity_pem(cert, key);
        }
        Ok(builder.build()?)
    }

    /// The addresses, each by itself.
    pub fn endpoints(&self) -> &[String] {
        &self.endpoint
    }

    /// The cluster service of one node. Connects now.
    pub async fn cluster(&self, endpoint: &str) -> Result<ClusterClient<Channel>> {
        self.cluster_within(endpoint, ANSWER_TIMEOUT).await
    }

    /// As [`cluster`](Self::cluster), for calls that may take longer.
    pub async fn cluster_within(
        &self,
        endpoint: &str,
        within: Duration,
    ) -> Result<ClusterClient<Channel>> {
        let text = match endpoint.contains("://") {
            true => endpoint.to_owned(),
            false => format!("http://{endpoint}"),
        };
        let address = Endpoint::from_shared(text).with_context(|| endpoint.to_owned())?;
        let mut address = address.connect_timeout(CONNECT_TIMEOUT).timeout(within + ANSWER_MARGIN);
        if endpoint.starts_with("https") {
            address = address.tls_config(self.tls.config()?)?;
        }
        let channel = address.connect().await.with_context(|| format!("connect to {endpoint}"))?;
        Ok(ClusterClient::new(channel).max_decoding_message_size(64 * 1024 * 1024))
    }
}

impl TlsOptions {
    fn config(&self) -> Result<ClientTlsConfig> {
        let mut tls = ClientTlsConfig::new();
        if let Some(ca) = &self.ca {
            tls = tls.ca_certificate(Certificate::from_pem(read(ca)?));
        }
        if let Some(domain) = &self.tls_domain {
            tls = tls.domain_name(domain);
        }
        if let Some((cert, key)) = self.pair()? {
            tls = tls.identity(Identity::from_pem(cert, key));
        }
        Ok(tls)
    }
    fn pair(&self) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
        match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => Ok(Some((read(cert)?, read(key)?))),
            _ => Ok(None),
        }
    }
}

fn read(path: &PathBuf) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("read {}", path.display()))
}

/// What a node refused, in its words.
pub fn answered(endpoint: &str, status: tonic::Status) -> anyhow::Error {
    anyhow::anyhow!("{endpoint}: {} ({:?})", status.message(), status.code())
}

/// A reader's error, with what can be done about it.
pub fn explain(error: ReadError) -> anyhow::Error {
    let unreachable = matches!(error, ReadError::Unavailable { .. });
    let error = anyhow::Error::new(error);
    match unreachable {
        true => error.context("no node could be reached; is --endpoint right?"),
        false => error,
    }
}
