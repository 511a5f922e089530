//! A certificate authority for development and tests: Ed25519, valid until 2044.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use anabranch_core::RegionName;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ED25519, SanType, date_time_ymd,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::tls::{TlsError, TlsIdentity, certificate_error, read, region_server_name};

const CA_NAME: &str = "Anabranch development CA";

/// File names within a folder of the authority.
const CA_CERT_FILE: &str = "ca.pem";
const CA_KEY_FILE: &str = "ca-key.pem";

/// An authority that can issue certificates for nodes.
#[derive(Debug)]
pub struct DevCa {
    cert_pem: String,
    key_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, as PEM.
#[derive(Debug, Clone)]
pub struct IssuedCert {
    /// The node's certificate.
    pub cert_pem: String,
    /// Its private key.
    pub key_pem: String,
}

impl DevCa {
    /// Makes a new authority.
    ///
    /// # Errors
    /// [`TlsError::Make`].
    pub fn generate() -> Result<Self, TlsError> {
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        let cert_pem = ca_params().self_signed(&key)?.pem();
        Ok(Self { cert_pem, key_pem: key.serialize_pem(), issuer: Issuer::new(ca_params(), key) })
    }

    /// Takes up an authority that was made by [`generate`](Self::generate).
    ///
    /// # Errors
    /// [`TlsError::Pem`], [`TlsError::Make`]; [`TlsError::Certificate`] if key and certificate do not
    /// belong together.
    pub fn from_pem(cert_pem: &str, key_pem: &str) -> Result<Self, TlsError> {
        let key = KeyPair::from_pem(key_pem)?;
        let cert = CertificateDer::from_pem_slice(cert_pem.as_bytes()).map_err(|e| {
            let (what, expected) = ("CA certificate".to_owned(), "certificate");
            TlsError::Pem { what, expected, problem: e.to_string() }
        })?;
        let anchor = webpki::anchor_from_trusted_cert(&cert)
            .map_err(|e| certificate_error("CA certificate", e))?;
        if !anchor.subject_public_key_info.ends_with(key.public_key_raw()) {
            return Err(certificate_error("CA certificate", "belongs to another key"));
        }
        let (cert_pem, key_pem) = (cert_pem.to_owned(), key_pem.to_owned());
        Ok(Self { cert_pem, key_pem, issuer: Issuer::new(ca_params(), key) })
    }

    /// Reads the authority in `folder`, or makes one there if there is none.
    ///
    /// # Errors
    /// [`TlsError`], naming the file.
    pub fn load_or_generate(folder: &Path) -> Result<Self, TlsError> {
        let (cert, key) = (folder.join(CA_CERT_FILE), folder.join(CA_KEY_FILE));
        if cert.exists() && key.exists() {
            return Self::from_pem(&read(&cert)?, &read(&key)?);
        }
        let ca = Self::generate()?;
        write(&cert, &ca.cert_pem)?;
        write_secret(&key, &ca.key_pem)?;
        Ok(ca)
    }

    /// The authority's certificate.
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// The authority's private key.
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// Issues a certificate for a node of `region`, good for gossip and, as `localhost`, 127.0.0.1
    /// and each of `hosts` (names or IP addresses), for the node's other ports.
    ///
    /// # Errors
    /// [`TlsError::Make`] if a host is no name or address.
    pub fn issue(&self, region: &RegionName, hosts: &[String]) -> Result<IssuedCert, TlsError> {
        let mut params = CertificateParams::new(hosts.to_vec())?;
        let names = &mut params.subject_alt_names;
        names.push(SanType::DnsName(region_server_name(region).try_into()?));
        names.push(SanType::DnsName("localhost".try_into()?));
        names.push(SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        params.distinguished_name = named(&format!("Anabranch node in {region}"));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params);
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        let cert_pem = params.signed_by(&key, &self.issuer)?.pem();
        Ok(IssuedCert { cert_pem, key_pem: key.serialize_pem() })
    }

    /// Issues a certificate and takes it as an identity, in memory.
    ///
    /// # Errors
    /// As [`issue`](Self::issue).
    pub fn identity(&self, region: &RegionName, hosts: &[String]) -> Result<TlsIdentity, TlsError> {
        let issued = self.issue(region, hosts)?;
        TlsIdentity::from_pem(&self.cert_pem, &issued.cert_pem, &issued.key_pem)
    }
}

impl IssuedCert {
    /// Writes certificate and key; the key is readable by its owner only.
    ///
    /// # Errors
    /// [`TlsError::File`], naming the file.
    pub fn write(&self, cert: &Path, key: &Path) -> Result<(), TlsError> {
        write(cert, &self.cert_pem)?;
        write_secret(key, &self.key_pem)
    }
}

/// The same each time, so that a stored key is enough to go on issuing under the same name.
fn ca_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(CA_NAME);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params);
    params
}

fn set_validity(params: &mut CertificateParams) {
    params.not_before = date_time_ymd(2024, 1, 1);
    params.not_after = date_time_ymd(2044, 1, 1);
}

fn named(name: &str) -> DistinguishedName {
    let mut named = DistinguishedName::new();
    named.push(DnType::CommonName, name);
    named
}

fn write(file: &Path, text: &str) -> Result<(), TlsError> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder).map_err(|source| write_error(folder, source))?;
    }
    std::fs::write(file, text).map_err(|source| write_error(file, source))
}

fn write_secret(file: &Path, text: &str) -> Result<(), TlsError> {
    use std::io::Write;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut open = options.open(file).map_err(|source| write_error(file, source))?;
    open.write_all(text.as_bytes()).map_err(|source| write_error(file, source))
}

fn write_error(file: &Path, source: std::io::Error) -> TlsError {
    TlsError::File { action: "write", file: file.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(name: &str) -> RegionName {
        RegionName::new(name).unwrap()
    }

    #[test]
    fn a_certificate_names_its_region_and_an_authority_on_disk_goes_on_issuing() {
        let folder = tempfile::tempdir().unwrap();
        let first = DevCa::load_or_generate(folder.path()).unwrap();
        let again = DevCa::load_or_generate(folder.path()).unwrap();
        assert_eq!(first.cert_pem(), again.cert_pem());
        let identity =
            again.identity(&region("eu"), &["node-1".into(), "10.0.0.1".into()]).unwrap();
        assert_eq!(identity.region().unwrap(), region("eu"));
        identity.server_config().unwrap();
        identity.client_config().unwrap();
    }

    #[test]
    fn errors_name_the_file_and_the_problem() {
        let folder = tempfile::tempdir().unwrap();
        let ca = DevCa::generate().unwrap();
        let path = |name: &str| folder.path().join(name);
        let issued = ca.issue(&region("eu"), &[]).unwrap();
        issued.write(&path("node.pem"), &path("node-key.pem")).unwrap();
        let load =
            || TlsIdentity::from_files(&path("ca.pem"), &path("node.pem"), &path("node-key.pem"));
        let missing = load().unwrap_err().to_string();
        assert!(missing.contains("read") && missing.contains("ca.pem"), "{missing}");
        write(&path("ca.pem"), "not pem").unwrap();
        let garbage = load().unwrap_err().to_string();
        assert!(garbage.contains("ca.pem") && garbage.contains("certificate"), "{garbage}");
        write(&path("ca.pem"), ca.cert_pem()).unwrap();
        load().unwrap();
        let other = DevCa::generate().unwrap();
        assert!(DevCa::from_pem(ca.cert_pem(), other.key_pem()).is_err());
    }

    #[test]
    fn a_certificate_that_names_no_region_or_two_speaks_for_none() {
        let ca = DevCa::generate().unwrap();
        let extra = region_server_name(&region("us"));
        let two = ca.identity(&region("eu"), &[extra]).unwrap();
        let refused = two.region().unwrap_err();
        assert!(matches!(&refused, TlsError::Regions { names } if names.len() == 2), "{refused}");
        let none = TlsIdentity::from_pem(ca.cert_pem(), ca.cert_pem(), ca.key_pem()).unwrap();
        assert!(none.region().is_err());
    }
}
