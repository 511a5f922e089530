//! `anabranch-harness`: kills, pauses and cuts off real nodes while clients write, then checks the laws.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anabranch_harness::cluster::{Blueprint, find_or_build, mib_for, new_folder};
use anabranch_harness::report;
use anabranch_harness::run::{Findings, Settings, run};
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
    /// How long clients write while faults happen. 60 s unless given.
    #[arg(long, conflicts_with = "minutes")]
    seconds: Option<u64>,
    /// The same, in minutes.
    #[arg(long)]
    minutes: Option<u64>,
    /// Draws faults and workload. Random unless given.
    #[arg(long)]
    seed: Option<u64>,
    /// The server to test. The one beside this executable unless given, built if need be.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Also kill whole regions at once.
    #[arg(long)]
    power: bool,
    /// Fail also if a kind of fault that there could be never struck.
    #[arg(long)]
    coverage: bool,
    /// Size of the disks that are filled, in MiB of memory; 0: fill none. By how long the run lasts
    /// unless given.
    #[arg(long)]
    disk_mib: Option<u64>,
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
    /// Keep the run's folder, with the history, also if all is well.
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
    let lasts = lasts(args);
    let cluster = Blueprint {
        binary: find_or_build(args.binary.as_deref())?,
        folder: new_folder(&parent, seed)?,
        delay: Duration::from_millis(args.delay_ms),
        disk_mib: args.disk_mib.unwrap_or(mib_for(lasts)),
        seed,
    };
    let settings = Settings {
        lasts,
        power: args.power,
        keep: args.keep,
        writers: args.writers.max(1),
        think: Duration::from_millis(args.think_ms),
        patience: Duration::from_secs(args.patience),
        cluster,
    };
    let folder = &settings.cluster.folder;
    println!(
        "seed {seed}, {lasts:?}, {} in {}",
        settings.cluster.binary.display(),
        folder.display()
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
    let kept = || eprintln!("logs and data are kept in {}", folder.display());
    let findings = result.inspect_err(|_| kept())?;
    println!("\n{}", report::tables(&findings));
    print!("{}", report::notes(&findings));
    let well = tell(args, &findings, &settings)?;
    if !well || args.keep {
        kept();
    } else {
        std::fs::remove_dir_all(folder).context("remove the run's folder")?;
    }
    Ok(well)
}

/// Says what is wrong, if anything is, and how to repeat it. True if all is well.
fn tell(args: &Args, findings: &Findings, settings: &Settings) -> anyhow::Result<bool> {
    let broken = report::broken(&findings.verdicts);
    let missing = report::missing(&findings.done, &findings.impossible, args.power);
    let covered = missing.is_empty() || !args.coverage;
    if !broken.is_empty() || args.keep {
        let mut lines = String::new();
        findings.evidence.write_jsonl(&mut lines);
        let history = settings.cluster.folder.join("history.jsonl");
        std::fs::write(&history, lines).context("keep the history")?;
    }
    if !broken.is_empty() {
        eprintln!("{}\n{broken}", report::excerpts(findings));
    }
    if !covered {
        eprintln!("these faults never struck: {}", missing.join(", "));
    }
    let well = broken.is_empty() && covered;
    if !well {
        let seed = settings.cluster.seed;
        eprintln!("seed {seed}; repeat with: anabranch-harness {}", repeat(args, seed));
    }
    Ok(well)
}

fn lasts(args: &Args) -> Duration {
    let minutes = args.minutes.map(|minutes| minutes * 60);
    Duration::from_secs(minutes.or(args.seconds).unwrap_or(60))
}

/// The arguments of the same run.
fn repeat(args: &Args, seed: u64) -> String {
    let Args { delay_ms, writers, think_ms, .. } = args;
    let lasts = match args.minutes {
        Some(minutes) => format!("--minutes {minutes}"),
        None => format!("--seconds {}", lasts(args).as_secs()),
    };
    let disks = args.disk_mib.map_or_else(String::new, |mib| format!(" --disk-mib {mib}"));
    let power = if args.power { " --power" } else { "" };
    let coverage = if args.coverage { " --coverage" } else { "" };
    format!(
        "--seed {seed} {lasts} --delay-ms {delay_ms} --writers {writers} --think-ms {think_ms}{disks}{power}{coverage}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(words: &str) -> Result<Args, clap::Error> {
        Args::try_parse_from(["anabranch-harness"].into_iter().chain(words.split_whitespace()))
    }

    #[test]
    fn what_is_printed_to_repeat_a_run_is_the_same_run() {
        for words in
            ["", "--seconds 90", "--minutes 5", "--minutes 2 --power --disk-mib 0 --coverage"]
        {
            let first = args(words).unwrap();
            let again = args(&repeat(&first, 7)).unwrap();
            assert_eq!(lasts(&again), lasts(&first));
            assert_eq!((again.seed, again.power), (Some(7), first.power));
            assert_eq!((again.disk_mib, again.coverage), (first.disk_mib, first.coverage));
            assert_eq!(repeat(&again, 7), repeat(&first, 7), "{words}");
        }
        assert_eq!(lasts(&args("--minutes 5").unwrap()), Duration::from_secs(300));
        assert_eq!(lasts(&args("").unwrap()), Duration::from_secs(60));
        assert!(args("--minutes 1 --seconds 60").is_err(), "one or the other");
    }
}
