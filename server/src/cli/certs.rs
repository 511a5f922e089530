//! `anabranch certs`.

use std::path::PathBuf;

use anabranch_core::RegionName;
use anabranch_gossip::DevCa;
use anyhow::{Context, Result};

use super::Exit;

/// Make certificates for development
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Make an authority and a certificate for each region
    ///
    /// Writes ca.pem, ca-key.pem and, for each region, REGION.pem and REGION-key.pem. An authority
    /// that is there is used again. Certificates are valid until 2044 and their keys lie on the disk
    /// unencrypted: for development, not for production.
    Init(Init),
}

/// What to make
#[derive(Debug, clap::Args)]
pub struct Init {
    /// Folder to write to
    dir: PathBuf,
    /// Names of the regions, separated by commas
    #[arg(long, value_name = "NAMES", value_delimiter = ',', required = true)]
    regions: Vec<RegionName>,
    /// Host names and addresses of nodes, beside localhost and 127.0.0.1, separated by commas
    #[arg(long, value_name = "HOSTS", value_delimiter = ',')]
    hosts: Vec<String>,
}

/// Makes certificates.
pub fn run(command: Command) -> Result<Exit> {
    let Command::Init(init) = command;
    let ca = DevCa::load_or_generate(&init.dir).context("make the authority")?;
    println!("{}", init.dir.join("ca.pem").display());
    for region in &init.regions {
        let (cert, key) =
            (init.dir.join(format!("{region}.pem")), init.dir.join(format!("{region}-key.pem")));
        let issued = ca.issue(region, &init.hosts);
        let issued = issued.with_context(|| format!("issue a certificate for {region}"))?;
        issued.write(&cert, &key)?;
        println!("{}  {}", cert.display(), key.display());
    }
    Ok(Exit::Done)
}
