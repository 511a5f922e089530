//! `anabranch demo`: three regions in one process, a cut, a death, and the proof that nothing is lost.
//!
//! Everything is done as from outside: clients over gRPC write, subscribe and read back. What they
//! were told is kept in a [`ledger`]; in the end [`proof`] holds what the regions have against it.
//!
//! Reading order: [`run`](self::run()) and [`perform`] here, [`cluster`], [`workload`] or [`replay`],
//! [`scenes`], [`gather`], [`folds`], [`proof`], [`rift`].

mod act;
pub mod arrivals;
pub mod cluster;
pub mod folds;
mod gather;
pub mod ledger;
pub mod proof;
pub mod reading;
pub mod replay;
pub mod report;
pub mod rift;
mod running;
mod scenes;
mod serve;
mod sight;
mod view;
pub mod wan;
pub mod workload;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tempfile::TempDir;

use self::act::Act;
use self::cluster::{Cluster, Plan};
use self::replay::History;
use self::report::Report;
use self::wan::{Map, Profile};
use crate::env::{OsSeeds, Seeds as _};

/// Nodes in each region.
const NODES: u16 = 3;
/// Port from which free ones are sought.
const FIRST_PORT: u16 = 7_100;

/// Flags of `anabranch demo`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = wan::help())]
pub struct DemoArgs {
    /// Replay this file of events, each in its own region: newline-delimited JSON, plain or zstd.
    #[arg(long, value_name = "FILE")]
    pub input: Option<PathBuf>,
    /// Keep the regions up afterwards, until Ctrl-C.
    #[arg(long)]
    pub serve: bool,
    /// Put the regions as far apart as real cities; the profiles are listed below.
    #[arg(long, value_name = "PROFILE", value_parser = wan::parse_profile)]
    pub wan: Option<Profile>,
    /// Seconds to write for. 0: write nothing, or the whole file as fast as it goes.
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub seconds: u64,
    /// Keep the nodes' folders here; must be empty. Else in a temporary folder that is removed.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Seed of what is written; drawn at random unless given.
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Print the report as JSON.
    #[arg(long)]
    pub json: bool,
    /// First port to try; the first range that is free from there is taken.
    #[arg(long, value_name = "PORT", default_value_t = FIRST_PORT)]
    pub port: u16,
}

/// The folder of a demonstration, removed in the end if nobody asked for it and all went well.
enum Folder {
    Given(PathBuf),
    Temporary(TempDir),
}

impl Folder {
    fn of(args: &DemoArgs) -> anyhow::Result<Self> {
        match &args.data {
            Some(given) => Ok(Self::Given(given.clone())),
            None => {
                let made = tempfile::Builder::new().prefix("anabranch-demo-").tempdir();
                Ok(Self::Temporary(made.context("make a temporary folder")?))
            }
        }
    }
    fn path(&self) -> PathBuf {
        match self {
            Self::Given(path) => path.clone(),
            Self::Temporary(folder) => folder.path().to_owned(),
        }
    }
    /// Leaves it where it is, for whoever has to find out what went wrong.
    fn keep(self) -> PathBuf {
        match self {
            Self::Given(path) => path,
            Self::Temporary(folder) => folder.keep(),
        }
    }
    /// Leaves it where it is if there is anything in it: what went wrong may have come first.
    fn keep_what_is_there(self) -> Option<PathBuf> {
        let mut inside = std::fs::read_dir(self.path()).ok()?;
        inside.next().map(|_| self.keep())
    }
}

/// Runs the demonstration and prints its report on standard output.
///
/// Succeeds only if everything that was checked holds.
///
/// # Errors
/// If it could not be carried out: a folder or port that cannot be used, a region that is not ready
/// in time or cannot be read.
pub async fn run(args: DemoArgs) -> anyhow::Result<ExitCode> {
    let folder = Folder::of(&args)?;
    let performed = tokio::select! {
        biased;
        () = serve::interrupted() => bail!("interrupted"),
        performed = perform(&args, folder.path()) => performed,
    };
    let (report, cluster) = match performed {
        Ok(performed) => performed,
        Err(error) => {
            return Err(match folder.keep_what_is_there() {
                Some(kept) => {
                    error.context(format!("the nodes' folders are kept in {}", kept.display()))
                }
                None => error,
            });
        }
    };
    println!("{}", if args.json { report.to_json() } else { report.to_text() });
    if args.serve {
        serve::invite(&cluster.endpoints(), args.json);
        serve::interrupted().await;
    }
    // What nobody will look at again needs no good order.
    if args.serve || args.data.is_some() {
        cluster.drain().await;
    } else {
        cluster.kill().await;
    }
    if report.holds {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("The nodes' folders are kept in {}", folder.keep().display());
    Ok(ExitCode::FAILURE)
}

/// Starts the regions, writes, breaks, mends, proves; leaves the regions running.
///
/// # Errors
/// As [`run`](self::run()).
pub async fn perform(args: &DemoArgs, folder: PathBuf) -> anyhow::Result<(Report, Cluster)> {
    let history = read_input(args).await?;
    let map = match &history {
        Some(history) => Map::of_regions(history.regions.clone(), args.wan)?,
        None => Map::of_profile(args.wan),
    };
    let plan = Plan { map, nodes: NODES, folder, port: args.port };
    let mut cluster = Cluster::start(&plan).await?;
    let seed = args.seed.unwrap_or_else(|| OsSeeds.next_u64());
    let act = Act::new(&cluster, seed, Duration::from_secs(args.seconds));
    let report = act.play(&mut cluster, history).await?;
    Ok((report, cluster))
}

/// The whole file, read where it does not hold up anybody.
async fn read_input(args: &DemoArgs) -> anyhow::Result<Option<History>> {
    let Some(input) = args.input.clone() else { return Ok(None) };
    let read = tokio::task::spawn_blocking(move || History::read(&input)).await?;
    Ok(Some(read?))
}
