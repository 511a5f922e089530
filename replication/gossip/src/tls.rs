//! Who is who: mutual TLS 1.3, where a certificate names the region it speaks for.
//!
//! The name is a DNS entry of the certificate, `<region>.region.anabranch`. The side that connects
//! asks for the name of the region it wants and rustls checks it; the side that accepts reads the
//! region out of the certificate it was shown.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anabranch_core::RegionName;
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use rustls::version::TLS13;
use rustls::{CertificateError, ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use webpki::EndEntityCert;

/// Protocol of gossip within TLS, with the version of its framing and its first frame. What else there
/// is has the version in that frame.
pub const ALPN: &[u8] = b"anabranch-gossip/1";

const REGION_SUFFIX: &str = ".region.anabranch";

/// The DNS name that certificates of `region` carry, and that those who connect to it ask for.
pub fn region_server_name(region: &RegionName) -> String {
    format!("{region}{REGION_SUFFIX}")
}

/// Why certificates or keys could not be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file could not be read or written.
    #[error("{action} {file}")]
    File {
        /// `read` or `write`.
        action: &'static str,
        /// Which file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The text is not PEM, or holds nothing of the kind expected.
    #[error("{what}: no {expected} in PEM form: {problem}")]
    Pem {
        /// File name, or what the text was passed in as.
        what: String,
        /// `certificate` or `private key`.
        expected: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// A certificate that is malformed or does not fit its key.
    #[error("{what}: {problem}")]
    Certificate {
        /// File name, or what the certificate was passed in as.
        what: String,
        /// What is wrong.
        problem: String,
    },
    /// rustls refused the configuration.
    #[error("set up TLS")]
    Rustls(#[from] rustls::Error),
    /// The verifier of client certificates could not be made.
    #[error("set up the verification of client certificates")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    /// The certificate names no region, or several.
    #[error("certificate names {} regions, it must name one: {names:?}", names.len())]
    Regions {
        /// The region names found.
        names: Vec<String>,
    },
    /// The node's own certificate is not valid at this time, by this machine's clock.
    #[error("certificate is out of date: {problem}")]
    OutOfDate {
        /// What rustls says.
        problem: String,
    },
    /// Others would not believe the node's own certificate.
    #[error("certificate would not be believed by those who trust the same authorities: {problem}")]
    Unbelieved {
        /// What rustls says.
        problem: String,
    },
    /// A certificate could not be made.
    #[error("make a certificate")]
    Make(#[from] rcgen::Error),
}

/// A node's certificate chain and key, and the authorities that it trusts.
#[derive(Debug)]
pub struct TlsIdentity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: Arc<RootCertStore>,
    time: Arc<dyn TimeProvider>,
}

impl TlsIdentity {
    /// Reads `ca` (one or more authorities), `cert` (the node's chain, its own first) and `key`.
    ///
    /// # Errors
    /// [`TlsError`], naming the file.
    pub fn from_files(ca: &Path, cert: &Path, key: &Path) -> Result<Self, TlsError> {
        let (ca_pem, cert_pem, key_pem) = (read(ca)?, read(cert)?, read(key)?);
        let name = |path: &Path| path.display().to_string();
        let named = [(name(ca), ca_pem), (name(cert), cert_pem), (name(key), key_pem)];
        Self::from_named_pem(named)
    }

    /// As [`from_files`](Self::from_files), from PEM texts.
    ///
    /// # Errors
    /// [`TlsError`], naming `ca`, `certificate` or `key`.
    pub fn from_pem(ca: &str, cert: &str, key: &str) -> Result<Self, TlsError> {
        let named = [("ca", ca), ("certificate", cert), ("key", key)];
        Self::from_named_pem(named.map(|(name, pem)| (name.to_owned(), pem.to_owned())))
    }

    /// Takes the time at which certificates must be valid from elsewhere: for simulations.
    pub fn with_time(mut self, time: Arc<dyn TimeProvider>) -> Self {
        self.time = time;
        self
    }

    /// The region that the node's own certificate names.
    ///
    /// # Errors
    /// [`TlsError::Regions`] unless it names exactly one; [`TlsError::Certificate`].
    pub fn region(&self) -> Result<RegionName, TlsError> {
        certified_region(&self.chain)
    }

    /// Looks at the node's own certificate as other nodes will, `ahead` from now: as that of a server,
    /// and as that of a client.
    ///
    /// # Errors
    /// [`TlsError::OutOfDate`], [`TlsError::Unbelieved`]; those of [`region`](Self::region).
    pub fn check(&self, ahead: Duration) -> Result<(), TlsError> {
        let name = region_server_name(&self.region()?);
        let name = ServerName::try_from(name).map_err(|e| certificate_error("certificate", e))?;
        let missing = || certificate_error("certificate", "the chain is empty");
        let (own, others) = self.chain.split_first().ok_or_else(missing)?;
        let timeless = || certificate_error("certificate", "nobody knows the time");
        let now = self.time.current_time().ok_or_else(timeless)?;
        let then = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs()) + ahead);
        let (roots, provider) = (&self.roots, provider());
        let server =
            WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone()).build()?;
        let client =
            WebPkiClientVerifier::builder_with_provider(roots.clone(), provider).build()?;
        let as_server = server.verify_server_cert(own, others, &name, &[], then).map(drop);
        let as_client = || client.verify_client_cert(own, others, then).map(drop);
        as_server.and_then(|()| as_client()).map_err(unbelieved)
    }

    /// TLS for those who connect to us: they must show a certificate of ours.
    ///
    /// # Errors
    /// [`TlsError`] if the key does not fit the certificate.
    pub fn server_config(&self) -> Result<ServerConfig, TlsError> {
        let provider = provider();
        let verifier =
            WebPkiClientVerifier::builder_with_provider(self.roots.clone(), provider.clone());
        let mut config = ServerConfig::builder_with_details(provider, self.time.clone())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(verifier.build()?)
            .with_single_cert(self.chain.clone(), self.key.clone_key())?;
        // Every session proves itself anew, so that a withdrawn certificate ends with its session.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(config)
    }

    /// TLS for connecting to others.
    ///
    /// # Errors
    /// [`TlsError`] if the key does not fit the certificate.
    pub fn client_config(&self) -> Result<ClientConfig, TlsError> {
        let mut config = ClientConfig::builder_with_details(provider(), self.time.clone())
            .with_protocol_versions(&[&TLS13])?
            .with_root_certificates(self.roots.clone())
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())?;
        config.resumption = Resumption::disabled();
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(config)
    }

    fn from_named_pem([ca, cert, key]: [(String, String); 3]) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        for root in certificates(&ca.0, &ca.1)? {
            roots.add(root).map_err(|e| certificate_error(&ca.0, e))?;
        }
        let chain = certificates(&cert.0, &cert.1)?;
        let key = private_key(&key.0, &key.1)?;
        Ok(Self { chain, key, roots: Arc::new(roots), time: Arc::new(DefaultTimeProvider) })
    }
}

/// The one region that the first certificate of a verified chain names.
///
/// # Errors
/// [`TlsError::Regions`] unless it names exactly one; [`TlsError::Certificate`].
pub fn certified_region(chain: &[CertificateDer<'_>]) -> Result<RegionName, TlsError> {
    let missing = || certificate_error("certificate", "the chain is empty");
    let leaf = chain.first().ok_or_else(missing)?;
    let leaf = EndEntityCert::try_from(leaf).map_err(|e| certificate_error("certificate", e))?;
    let mut names: Vec<String> = leaf
        .valid_dns_names()
        .filter_map(|name| name.strip_suffix(REGION_SUFFIX))
        .map(str::to_owned)
        .collect();
    names.sort();
    names.dedup();
    match names.as_slice() {
        [name] => RegionName::new(name).map_err(|e| certificate_error("certificate", e)),
        _ => Err(TlsError::Regions { names }),
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn certificates(what: &str, pem: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match read {
        Ok(found) if found.is_empty() => Err(pem_error(what, "certificate", "nothing found")),
        Ok(found) => Ok(found),
        Err(e) => Err(pem_error(what, "certificate", e)),
    }
}

fn private_key(what: &str, pem: &str) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|e| pem_error(what, "private key", e))
}

fn pem_error(what: &str, expected: &'static str, problem: impl ToString) -> TlsError {
    TlsError::Pem { what: what.to_owned(), expected, problem: problem.to_string() }
}

pub(crate) fn certificate_error(what: &str, problem: impl ToString) -> TlsError {
    TlsError::Certificate { what: what.to_owned(), problem: problem.to_string() }
}

fn unbelieved(error: rustls::Error) -> TlsError {
    use CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    let problem = error.to_string();
    match error {
        rustls::Error::InvalidCertificate(
            Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. },
        ) => TlsError::OutOfDate { problem },
        _ => TlsError::Unbelieved { problem },
    }
}

pub(crate) fn read(file: &Path) -> Result<String, TlsError> {
    std::fs::read_to_string(file).map_err(|source| TlsError::File {
        action: "read",
        file: file.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DevCa;

    #[test]
    fn a_certificate_is_judged_as_other_nodes_will_judge_it() {
        let region = RegionName::new("eu").unwrap();
        let (ca, other) = (DevCa::generate().unwrap(), DevCa::generate().unwrap());
        let identity = ca.identity(&region, &[]).unwrap();
        identity.check(Duration::ZERO).unwrap();
        let century = Duration::from_secs(100 * 365 * 24 * 3600);
        let late = identity.check(century).unwrap_err();
        assert!(matches!(late, TlsError::OutOfDate { .. }), "{late}");

        let issued = other.issue(&region, &[]).unwrap();
        let foreign = TlsIdentity::from_pem(ca.cert_pem(), &issued.cert_pem, &issued.key_pem);
        let foreign = foreign.unwrap().check(Duration::ZERO).unwrap_err();
        assert!(matches!(foreign, TlsError::Unbelieved { .. }), "{foreign}");
    }
}
