//! `anabranch-harness`: kills, pauses and cuts off real nodes while clients write, then checks the laws.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anabranch_harness::cluster::{find_or_build, new_folder};
use anabranch_harness::report;
use anabranch_harness::run::{Settings, run};
use anyhow::Context;
use clap::Parser;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::signal::unix::{SignalKind, signal};

/// Runs three regions of three nodes, tortures them, and checks that they kept their promises.
///
/// Exit codes: 0 all laws hold, 1 a law is broken or was not tested, 2 the test could not be run.
#[derive(Debug, Parser)]
#[command(name = "anabranch-harness", version)]
struct Args {
    /// How long clients write while faults happen.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Draws faults and workload. Random unless given.
    #[arg(long)]
    seed: Option<u64>,
    /// The server to test. The one beside this executable unless given, built if need be.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Also kill whole regions at once.
    #[arg(long)]
    power: bool,
    /// How much longer packets take between regions, one way, in milliseconds.
    #[arg(long, default_value_t = 0)]
    delay_ms: u64,
    /// Writers of each region.
    #[arg(long, default_value_t = 4)]
    writers: u32,
    /// Longest pause of a writer between two appends, in milliseconds.
    #[arg(long, default_value_t = 30)]
    think_ms: u64,
    /// Seconds that the cluster may take to start, and to agree after the faults.
    #[arg(long, default_value_t = 60)]
    patience: u64,
    /// Folder to put the run's folder in. The system's folder for temporary files unless given.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Keep the run's folder also if all is well.
    #[arg(long)]
    keep: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match begin(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("the test could not be run: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// True if all laws hold.
fn begin(args: &Args) -> anyhow::Result<bool> {
    let seed = args.seed.unwrap_or_else(|| SmallRng::from_os_rng().random_range(0..1_000_000));
    let parent = args.folder.clone().unwrap_or_else(std::env::temp_dir);
    let settings = Settings {
        binary: find_or_build(args.binary.as_deref())?,
        folder: new_folder(&parent, seed)?,
        seed,
        lasts: Duration::from_secs(args.seconds),
        power: args.power,
        delay: Duration::from_millis(args.delay_ms),
        writers: args.writers.max(1),
        think: Duration::from_millis(args.think_ms),
        patience: Duration::from_secs(args.patience),
    };
    println!(
        "seed {seed}, {} s, {} in {}",
        args.seconds,
        settings.binary.display(),
        settings.folder.display()
    );
    let runtime = tokio::runtime::Runtime::new().context("start a runtime")?;
    let result = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            biased;
            findings = run(&settings) => findings,
            // Dropping the run kills the nodes.
            _ = terminate.recv() => Err(anyhow::anyhow!("terminated")),
            _ = interrupt.recv() => Err(anyhow::anyhow!("interrupted")),
        }
    });
    drop(runtime);
    let kept = || eprintln!("logs and data are kept in {}", settings.folder.display());
    let findings = result.inspect_err(|_| kept())?;
    println!("\n{}", report::tables(&findings));
    print!("{}", report::notes(&findings.verdicts));
    let broken = report::broken(&findings.verdicts);
    if !broken.is_empty() {
        eprintln!("{}", report::excerpts(&findings));
        let mut lines = String::new();
        findings.evidence.write_jsonl(&mut lines);
        let history = settings.folder.join("history.jsonl");
        std::fs::write(&history, lines).context("keep the history")?;
        eprintln!("{broken}\nseed {seed}; repeat with: anabranch-harness {}", repeat(args, seed));
        kept();
    } else if args.keep {
        kept();
    } else {
        std::fs::remove_dir_all(&settings.folder).context("remove the run's folder")?;
    }
    Ok(broken.is_empty())
}

fn repeat(args: &Args, seed: u64) -> String {
    let power = if args.power { " --power" } else { "" };
    let Args { seconds, delay_ms, writers, think_ms, .. } = args;
    format!(
        "--seed {seed} --seconds {seconds} --delay-ms {delay_ms} --writers {writers} --think-ms {think_ms}{power}"
    )
}
