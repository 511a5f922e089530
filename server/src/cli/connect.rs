//! Where the nodes are, and how to reach them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anabranch_client::wire::StatusRequest;
use anabranch_client::wire::cluster_client::ClusterClient;
use anabranch_client::{Client, ReadError};
use anyhow::{Context, Result};
use futures_util::future::join_all;
use tokio::time::timeout;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::WrongUsage;

/// What a region is called towards the client library, which only compares names.
const HOME: &str = "home";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the nodes may take to say which region they are of; who does not say is not asked again.
const REGION_WITHIN: Duration = Duration::from_secs(1);
/// The node's own deadline should come first: it knows more.
const ANSWER_MARGIN: Duration = Duration::from_secs(2);

/// Where to connect
#[derive(Debug, clap::Args)]
pub struct Connect {
    /// A node's address; several are separated by commas. For `status` and `verify` each is one to
    /// ask; for every other command they are nodes of one region, and stand in for each other
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
    /// A client of the region that the addresses belong to, once it is seen that they belong to one.
    pub async fn client(&self) -> Result<Client> {
        self.check()?;
        if self.endpoint.len() > 1 {
            self.check_region().await?;
        }
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

    /// Looks at the addresses, without asking anybody.
    pub fn check(&self) -> Result<()> {
        for endpoint in &self.endpoint {
            check(endpoint, self.tls.ca.is_some())?;
        }
        Ok(())
    }

    /// Nodes that do not answer now may be of any region; those that do must be of one.
    async fn check_region(&self) -> Result<(), WrongUsage> {
        let ask = |endpoint| timeout(REGION_WITHIN, self.region_of(endpoint));
        let asked = join_all(self.endpoint.iter().map(|endpoint| ask(endpoint))).await;
        let answers = asked.into_iter().map(|answer| answer.ok().flatten());
        let answers: Vec<_> = self.endpoint.iter().cloned().zip(answers).collect();
        one_region(&answers)
    }

    async fn region_of(&self, endpoint: &str) -> Option<String> {
        let mut cluster = self.cluster(endpoint).await.ok()?;
        let status = cluster.status(StatusRequest { shard: 0 }).await.ok()?;
        Some(status.into_inner().region)
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
        check(endpoint, self.tls.ca.is_some())?;
        let (text, tls) = match endpoint.split_once("://") {
            Some(("https", _)) => (endpoint.to_owned(), Some(self.tls.config()?)),
            Some(_) => (endpoint.to_owned(), None),
            None => (format!("http://{endpoint}"), None),
        };
        connect(&text, tls, within).await
    }
}

/// The cluster service at a URL. Connects now.
pub async fn connect(
    url: &str,
    tls: Option<ClientTlsConfig>,
    within: Duration,
) -> Result<ClusterClient<Channel>> {
    let address = Endpoint::from_shared(url.to_owned()).with_context(|| url.to_owned())?;
    let mut address = address.connect_timeout(CONNECT_TIMEOUT).timeout(within + ANSWER_MARGIN);
    if let Some(tls) = tls {
        address = address.tls_config(tls)?;
    }
    let connected = address.connect().await;
    let channel =
        connected.map_err(|error| innermost(&error).context(format!("connect to {url}")))?;
    Ok(ClusterClient::new(channel).max_decoding_message_size(64 * 1024 * 1024))
}

/// The cause that lies below all others, which say the same in other words.
fn innermost(error: &(dyn std::error::Error + 'static)) -> anyhow::Error {
    let mut chain = std::iter::successors(Some(error), |error| error.source());
    anyhow::anyhow!("{}", chain.by_ref().last().map(ToString::to_string).unwrap_or_default())
}

/// What can be seen to be no node's address.
fn check(endpoint: &str, has_authority: bool) -> Result<(), WrongUsage> {
    let wrong = |problem: &str| Err(WrongUsage(format!("--endpoint {endpoint:?} {problem}")));
    let has_port = |rest: &str| {
        let port = rest.trim_end_matches('/').rsplit_once(':');
        port.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
    };
    match endpoint.split_once("://") {
        _ if endpoint.is_empty() => wrong("is empty: write http://host:port"),
        Some(("https", _)) if !has_authority => wrong("is https: --ca FILE says whom to trust"),
        Some(("http" | "https", rest)) if !rest.trim_matches('/').is_empty() => Ok(()),
        None if has_port(endpoint) => Ok(()),
        _ => wrong("is no node's address: write http://host:port, or host:port"),
    }
}

/// All that answered are of one region.
fn one_region(answers: &[(String, Option<String>)]) -> Result<(), WrongUsage> {
    let mut known = answers.iter().filter_map(|(at, region)| Some((at, region.as_ref()?)));
    let Some((first, region)) = known.next() else { return Ok(()) };
    match known.find(|(_, other)| *other != region) {
        None => Ok(()),
        Some((other, its)) => Err(WrongUsage(format!(
            "--endpoint names nodes of two regions, {first} of {region} and {other} of {its}: this \
             command works in one"
        ))),
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

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("read {}", path.display()))
}

/// What a node refused, in its words.
pub fn answered(endpoint: &str, status: tonic::Status) -> anyhow::Error {
    anyhow::anyhow!("{endpoint}: {} ({:?})", status.message(), status.code())
}

/// A reader's error, with what can be done about it.
pub fn explain(error: ReadError) -> anyhow::Error {
    let unreachable = error.is_unreachable();
    let error = anyhow::Error::new(error);
    match unreachable {
        true => error.context("no node could be reached; is --endpoint right?"),
        false => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_address_is_refused_before_anybody_is_asked() {
        for good in ["http://a:1", "a:1", "127.0.0.1:7101", "http://a", "[::1]:7101", "http://a:1/"]
        {
            assert_eq!(check(good, false), Ok(()), "{good}");
        }
        for bad in ["", "nonsense", "http://", "ftp://a:1", "a:", ":7101", "https://a:1"] {
            assert!(check(bad, false).is_err(), "{bad}");
        }
        assert_eq!(check("https://a:1", true), Ok(()));
    }

    #[test]
    fn addresses_of_two_regions_are_not_taken_for_one() {
        let of = |regions: &[Option<&str>]| {
            let answer = |(nth, region): (usize, &Option<&str>)| {
                (format!("n{nth}"), region.map(str::to_owned))
            };
            one_region(&regions.iter().enumerate().map(answer).collect::<Vec<_>>())
        };
        for fine in [&[][..], &[None, None], &[Some("us"), None, Some("us")]] {
            assert_eq!(of(fine), Ok(()), "{fine:?}");
        }
        let refused = of(&[None, Some("us"), Some("us"), Some("eu")]).unwrap_err().to_string();
        assert!(refused.contains("n1 of us and n3 of eu"), "{refused}");
    }
}
