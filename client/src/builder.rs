//! Putting a client together.

use std::future::Future;
use std::io;
use std::time::Duration;

use anabranch_core::ProducerId;
use http::Uri;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use crate::client::{Client, Options};
use crate::connect::Connector;
use crate::nodes::{Dialer, Node, Region};
use crate::producer::Line;
use crate::session::Session;

/// Why a client could not be put together.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// There must be exactly one own region; any number of fallback regions.
    #[error("{given} own regions were given, a client needs one")]
    OwnRegion {
        /// How many were given.
        given: usize,
    },
    /// Two regions have the same name.
    #[error("region {name} was given twice")]
    SameName {
        /// The name.
        name: String,
    },
    /// A region without addresses.
    #[error("region {region} has no address")]
    NoAddress {
        /// The region.
        region: String,
    },
    /// An address says https, and nothing says whom to trust.
    #[error("address {address} of region {region} is https, and no authority to trust is given")]
    NoAuthority {
        /// The region.
        region: String,
        /// The address.
        address: String,
    },
    /// An address that is not one, or TLS settings that cannot be used.
    #[error("address {address} of region {region} cannot be used")]
    Address {
        /// The region.
        region: String,
        /// The address.
        address: String,
        /// What is wrong.
        #[source]
        source: tonic::transport::Error,
    },
}

struct Given {
    name: String,
    addresses: Vec<String>,
}

/// Puts a client together; begin with [`Client::builder`].
pub struct Builder {
    own: Vec<Given>,
    fallback: Vec<Given>,
    tls: Option<ClientTlsConfig>,
    connector: Option<Connector>,
    connect_timeout: Duration,
    keep_alive: Duration,
    seed: Option<u64>,
    session: Session,
    options: Options,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self {
            own: Vec::new(),
            fallback: Vec::new(),
            tls: None,
            connector: None,
            connect_timeout: Duration::from_secs(2),
            keep_alive: Duration::from_secs(5),
            seed: None,
            session: Session::new(),
            options: Options::DEFAULT,
        }
    }

    /// The region to work in: its name and its nodes' addresses, any of them.
    pub fn region<A: Into<String>>(
        mut self,
        name: impl Into<String>,
        addresses: impl IntoIterator<Item = A>,
    ) -> Self {
        self.own.push(given(name, addresses));
        self
    }
    /// A region to go to when the own one cannot be reached, in the order given.
    ///
    /// Reads go there with the session, so they never go back. Appends go there only if nothing of
    /// them can have been written at home, see [`Append::retry_elsewhere`](crate::Append::retry_elsewhere),
    /// and if they expect nothing.
    pub fn fallback_region<A: Into<String>>(
        mut self,
        name: impl Into<String>,
        addresses: impl IntoIterator<Item = A>,
    ) -> Self {
        self.fallback.push(given(name, addresses));
        self
    }
    /// Speaks TLS and trusts this authority's certificates (PEM) only.
    pub fn ca_pem(mut self, pem: impl AsRef<[u8]>) -> Self {
        let tls = self.tls.take().unwrap_or_default();
        self.tls = Some(tls.ca_certificate(Certificate::from_pem(pem)));
        self
    }
    /// The name that the nodes' certificates carry, if it is not the host in their address.
    pub fn tls_domain(mut self, domain: impl Into<String>) -> Self {
        self.tls = Some(self.tls.take().unwrap_or_default().domain_name(domain));
        self
    }
    /// Shows this certificate and key (PEM) to the nodes.
    pub fn identity_pem(mut self, certificate: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Self {
        let tls = self.tls.take().unwrap_or_default();
        self.tls = Some(tls.identity(Identity::from_pem(certificate, key)));
        self
    }
    /// Makes connections with a function of yours instead of TCP: for simulations and tunnels.
    pub fn connector<F, Fut, C>(mut self, dial: F) -> Self
    where
        F: Fn(Uri) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = io::Result<C>> + Send + 'static,
        C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        self.connector = Some(Connector::custom(self.connect_timeout, dial));
        self
    }
    /// How long a connection may take to be made. 2 s unless given.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }
    /// How long to try, for every call that does not say otherwise. 10 s unless given.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = timeout;
        self
    }
    /// How long one node may take to answer before the next is asked. 3 s unless given.
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.options.attempt_timeout = timeout;
        self
    }
    /// How long a region may fail before a fallback region is tried. 3 s unless given.
    ///
    /// A region none of whose nodes takes a connection is left at once.
    pub fn region_patience(mut self, patience: Duration) -> Self {
        self.options.region_patience = patience;
        self
    }
    /// How long a node may wait for what the session has seen. 2 s unless given.
    pub fn session_wait(mut self, wait: Duration) -> Self {
        self.options.session_wait = wait;
        self
    }
    /// Goes on with this session, shared with whoever else holds it.
    pub fn session(mut self, session: Session) -> Self {
        self.session = session;
        self
    }
    /// Draws every random choice (producer ids, which node first, spread of waits) from this seed.
    ///
    /// For simulations only: two clients with one seed would share their producers' ids.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// The client. Connects when it is first used.
    ///
    /// # Errors
    /// [`BuildError`] if a region or an address is not as it must be.
    pub fn build(self) -> Result<Client, BuildError> {
        if self.own.len() != 1 {
            return Err(BuildError::OwnRegion { given: self.own.len() });
        }
        let mut rng = match self.seed {
            Some(seed) => SmallRng::seed_from_u64(seed),
            None => SmallRng::from_os_rng(),
        };
        let connector = self.connector.unwrap_or_else(|| Connector::tcp(self.connect_timeout));
        let connector = connector.with_patience(self.connect_timeout);
        let dialer = Dialer { connector, tls: self.tls, keep_alive: self.keep_alive };
        let mut regions: Vec<Region> = Vec::new();
        for given in self.own.into_iter().chain(self.fallback) {
            if regions.iter().any(|region| region.name == given.name) {
                return Err(BuildError::SameName { name: given.name });
            }
            regions.push(region(given, &dialer, rng.random_range(0..1024))?);
        }
        let mut line = || Line::new(ProducerId(rng.random()), 1, 1);
        let lines = [line(), line()];
        Ok(Client::new(regions, dialer, self.options, self.session, lines, rng))
    }
}

fn given<A: Into<String>>(
    name: impl Into<String>,
    addresses: impl IntoIterator<Item = A>,
) -> Given {
    let addresses = addresses.into_iter().map(Into::into).collect();
    Given { name: name.into(), addresses }
}

fn region(given: Given, dialer: &Dialer, first: usize) -> Result<Region, BuildError> {
    let name = given.name;
    if given.addresses.is_empty() {
        return Err(BuildError::NoAddress { region: name });
    }
    let no_tls = |address: &&String| dialer.tls.is_none() && address.starts_with("https://");
    if let Some(address) = given.addresses.iter().find(no_tls).cloned() {
        return Err(BuildError::NoAuthority { region: name, address });
    }
    let node = |address: String| match Node::new(&address, dialer) {
        Ok(node) => Ok(node.into()),
        Err(source) => Err(BuildError::Address { region: name.clone(), address, source }),
    };
    let nodes = given.addresses.into_iter().map(node).collect::<Result<Vec<_>, _>>()?;
    Ok(Region::new(name, nodes, first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_client_needs_one_own_region_with_addresses_that_are_addresses() {
        let none: [&str; 0] = [];
        let build = |builder: Builder| builder.build().map(|_| ()).unwrap_err();
        assert!(matches!(build(Builder::new()), BuildError::OwnRegion { given: 0 }));
        let empty = Builder::new().region("eu", none);
        assert!(matches!(build(empty), BuildError::NoAddress { .. }));
        let twice = Builder::new().region("eu", ["a:1"]).fallback_region("eu", ["b:1"]);
        assert!(matches!(build(twice), BuildError::SameName { .. }));
        let odd = Builder::new().region("eu", ["http://exa mple"]);
        assert!(matches!(build(odd), BuildError::Address { .. }));
        let untrusting = Builder::new().region("eu", ["a:1", "https://b:1"]);
        assert!(
            matches!(build(untrusting), BuildError::NoAuthority { address, .. } if address == "https://b:1")
        );
        assert!(Builder::new().region("eu", ["127.0.0.1:7101"]).build().is_ok());
    }
}
