//! The files that prove who a node is, read and held against each other and the configuration.

use std::path::Path;
use std::time::Duration;

use anabranch_gossip::{TlsError, TlsIdentity, region_server_name};

use crate::config::{ConfigError, TlsFiles, ValidConfig};
use crate::raft::RaftTls;

/// How long before its end a certificate is talked about.
const SOON: Duration = Duration::from_secs(30 * 24 * 3600);

/// What proves who this node is, to other regions and within its own.
#[derive(Debug)]
pub struct Certificates {
    pub(super) gossip: TlsIdentity,
    pub(super) raft: RaftTls,
}

impl Certificates {
    /// Reads the files that the configuration names.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with the key whose file cannot be used, and why: it cannot be read, it
    /// is of another region, or not of one pair.
    pub fn read(config: &ValidConfig) -> Result<Self, ConfigError> {
        let tls = &config.tls;
        let of_file = |error| wrong(tls, &error);
        let gossip = TlsIdentity::from_files(&tls.ca, &tls.cert, &tls.key).map_err(of_file)?;
        let server_name = region_server_name(&config.region);
        let region = gossip.region().map_err(of_file)?;
        if region != config.region {
            let allowed = format!(
                "names region {region}, this node is of region {}: it must carry the DNS name \
                 {server_name}",
                config.region
            );
            return Err(ConfigError::invalid("tls.cert", tls.cert.display(), allowed));
        }
        gossip.server_config().map_err(of_file)?;
        let read = |key: &str, path: &Path| {
            std::fs::read(path).map_err(|error| {
                ConfigError::invalid(key, path.display(), format!("cannot be read: {error}"))
            })
        };
        let raft = RaftTls {
            ca: read("tls.ca", &tls.ca)?,
            certificate: read("tls.cert", &tls.cert)?,
            key: read("tls.key", &tls.key)?,
            server_name,
        };
        Ok(Self { gossip, raft })
    }

    /// Whether other nodes would believe the certificate now.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`]: it is out of date, or not signed by the authority.
    pub fn check(&self, config: &ValidConfig) -> Result<(), ConfigError> {
        self.gossip.check(Duration::ZERO).map_err(|error| wrong(&config.tls, &error))
    }

    /// Says so if the certificate is out of date, or soon will be. Out of date is no reason not to
    /// start: others do not talk to this node, but clients may, and its clock may be what is wrong.
    pub(super) fn watch_their_end(&self, config: &ValidConfig) -> Result<(), ConfigError> {
        const SEE: &str = "see docs/runbooks/certificates.md";
        let cert = config.tls.cert.display();
        match (self.gossip.check(Duration::ZERO), self.gossip.check(SOON)) {
            (Err(error @ TlsError::OutOfDate { .. }), _) => {
                tracing::error!(%cert, %error, "other nodes refuse this certificate; {SEE}");
            }
            (Err(error), _) => return Err(wrong(&config.tls, &error)),
            (Ok(()), Err(error)) => {
                tracing::warn!(%cert, %error, "this certificate ends within 30 days; {SEE}");
            }
            (Ok(()), Ok(())) => {}
        }
        Ok(())
    }
}

/// The error in terms of the configuration: which key, which file.
fn wrong(tls: &TlsFiles, error: &TlsError) -> ConfigError {
    let is = |path: &Path| match error {
        TlsError::File { file, .. } => file == path,
        TlsError::Pem { what, .. } | TlsError::Certificate { what, .. } => {
            *what == path.display().to_string()
        }
        _ => false,
    };
    let (key, path) = match error {
        _ if is(&tls.ca) => ("tls.ca", &tls.ca),
        _ if is(&tls.key) => ("tls.key", &tls.key),
        TlsError::Rustls(_) => ("tls.key", &tls.key),
        _ => ("tls.cert", &tls.cert),
    };
    let problem = match error {
        TlsError::File { source, .. } => format!("cannot be read: {source}"),
        TlsError::Pem { expected, problem, .. } => {
            format!("holds no {expected} in PEM form: {problem}")
        }
        TlsError::Certificate { problem, .. } => format!("cannot be used: {problem}"),
        TlsError::Rustls(problem) => format!("does not belong to tls.cert: {problem}"),
        other => other.to_string(),
    };
    ConfigError::invalid(key, path.display(), problem)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use anabranch_core::RegionName;
    use anabranch_gossip::DevCa;

    use super::*;
    use crate::config::{Config, Member, Tls};

    /// Certificates of regions `eu` and `us`, and those of another authority.
    fn folder() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (folder, regions) in [("", &["eu", "us"][..]), ("other", &["eu"])] {
            let folder = dir.path().join(folder);
            let ca = DevCa::load_or_generate(&folder).unwrap();
            for region in regions {
                let issued = ca.issue(&RegionName::new(region).unwrap(), &[]).unwrap();
                let (cert, key) = (format!("{region}.pem"), format!("{region}-key.pem"));
                issued.write(&folder.join(cert), &folder.join(key)).unwrap();
            }
        }
        std::fs::write(dir.path().join("empty.pem"), "").unwrap();
        dir
    }

    fn config(tls: Tls) -> ValidConfig {
        let address = |port: u16| format!("127.0.0.1:{port}");
        let node = Member { id: 1, api: address(1), raft: address(2), gossip: address(3) };
        let (cluster, region) = ("test".into(), "eu".into());
        let config =
            Config { cluster, region, node: 1, tls, nodes: vec![node], ..Config::default() };
        config.validate().unwrap()
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named_with_its_key_and_what_is_wrong_with_it() {
        let dir = folder();
        let check = |ca: &str, cert: &str, key: &str| {
            let [ca, cert, key] = [ca, cert, key].map(|file| dir.path().join(file));
            let config = config(Tls { ca, cert, key, ..Tls::default() });
            let checked = Certificates::read(&config).and_then(|read| read.check(&config));
            checked.map_err(|error| error.to_string())
        };
        assert_eq!(check("ca.pem", "eu.pem", "eu-key.pem"), Ok(()));
        for (files, key, says) in [
            (["none.pem", "eu.pem", "eu-key.pem"], "tls.ca", "cannot be read: No such file"),
            (["ca.pem", "none.pem", "eu-key.pem"], "tls.cert", "cannot be read: No such file"),
            (["ca.pem", "eu.pem", "none.pem"], "tls.key", "cannot be read: No such file"),
            (["ca.pem", "empty.pem", "eu-key.pem"], "tls.cert", "holds no certificate"),
            (["ca.pem", "eu.pem", "eu.pem"], "tls.key", "holds no private key"),
            (
                ["ca.pem", "us.pem", "us-key.pem"],
                "tls.cert",
                "names region us, this node is of region eu",
            ),
            (["ca.pem", "eu.pem", "us-key.pem"], "tls.key", "does not belong to tls.cert"),
            (["ca.pem", "other/eu.pem", "other/eu-key.pem"], "tls.cert", "would not be believed"),
        ] {
            let error = check(files[0], files[1], files[2]).unwrap_err();
            let file = match key {
                "tls.ca" => files[0],
                "tls.cert" => files[1],
                _ => files[2],
            };
            let path: PathBuf = dir.path().join(file);
            assert!(error.starts_with(&format!("{key} = {}: ", path.display())), "{error}");
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn a_node_whose_certificate_nobody_would_believe_does_not_start() {
        let dir = folder();
        let start = |cert: &str, key: &str| {
            let [ca, cert, key] = ["ca.pem", cert, key].map(|file| dir.path().join(file));
            let config = config(Tls { ca, cert, key, ..Tls::default() });
            Certificates::read(&config).unwrap().watch_their_end(&config)
        };
        assert!(start("eu.pem", "eu-key.pem").is_ok());
        assert!(start("other/eu.pem", "other/eu-key.pem").is_err());
    }
}
