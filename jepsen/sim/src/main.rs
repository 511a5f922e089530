//! `anabranch-sim`: runs seeds, and says what happened.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anabranch_sim::corpus::{self, Job};
use anabranch_sim::many::{Campaign, Failure, Tally};
use anabranch_sim::minimise::minimise;
use anabranch_sim::nemesis::{Choice, Kind};
use anabranch_sim::outcome::Outcome;
use anabranch_sim::run::{Findings, Panicked, Settings, run};
use anabranch_sim::{bugs, report, still, timeline};
use anyhow::Context;
use clap::Parser;

/// Runs that are tried to find out which faults a failure needs.
const MINIMISING_RUNS: u32 = 60;

/// Simulates whole clusters under faults, from seeds, and checks every law.
///
/// Exit codes: 0 all laws hold (and were tested, with --coverage), 1 a law is broken or was not
/// tested, 2 the simulation could not be run.
#[derive(Debug, Parser)]
#[command(name = "anabranch-sim", version)]
struct Args {
    /// Runs one seed, and tells in words what happened.
    #[arg(long)]
    seed: Option<u64>,
    /// Runs many seeds: `FROM..TO`, without TO.
    #[arg(long, value_parser = range, default_value = "0..0")]
    seeds: Range<u64>,
    /// Runs the seeds that once failed first.
    #[arg(long)]
    corpus: bool,
    /// Goes on from the first seed of --seeds for so many minutes.
    #[arg(long)]
    minutes: Option<u64>,
    /// Runs at once.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Simulated seconds of work and faults in each run.
    #[arg(long, default_value_t = 40)]
    seconds: u64,
    /// Simulated seconds that a cluster may take to serve and agree after the faults.
    #[arg(long, default_value_t = 30)]
    patience: u64,
    /// Draws faults from this kind only; may be given several times.
    #[arg(long)]
    only: Vec<Kind>,
    /// Draws no scenes: faults in an order made for windows that chance seldom finds.
    #[arg(long)]
    plain: bool,
    /// Leaves out this fault of the seed's plan; may be given several times.
    #[arg(long)]
    without: Vec<usize>,
    /// Finds out which faults a failure needs, by leaving out others.
    #[arg(long)]
    minimise: bool,
    /// Says also what was not reached: fails unless every kind of fault struck often enough.
    #[arg(long)]
    coverage: bool,
    /// Puts a bug back into the code; may be given several times. Needs the feature planted-bugs.
    #[arg(long)]
    plant: Vec<String>,
    /// Puts every bug of the bank back, one after the other, and counts the seeds it takes to find it.
    #[arg(long)]
    bugs: bool,
    /// Where pages of failed runs go.
    #[arg(long, default_value = "target/simulation")]
    pages: PathBuf,
    /// Writes the page of a run also if nothing is broken.
    #[arg(long)]
    page: bool,
    /// Says what one run came to as one line of JSON, and nothing else.
    #[arg(long)]
    json: bool,
    /// Prints what nodes log, from this level on.
    #[arg(long)]
    log: Option<tracing::Level>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(seed) = args.seed.filter(|_| !still::is_still()) {
        return still::again(seed);
    }
    if let Some(level) = args.log {
        let lines = tracing_subscriber::fmt().with_max_level(level).with_ansi(false);
        lines.without_time().with_writer(std::io::stderr).init();
    }
    let done = match args.seed {
        Some(seed) => one(&args, seed),
        None if args.bugs => bank(&args),
        None => many(&args),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("the simulation could not be run: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let (from, to) = text.split_once("..").ok_or("must be FROM..TO")?;
    let number = |text: &str| text.parse::<u64>().map_err(|error| error.to_string());
    let range = number(from)?..number(to)?;
    if range.start <= range.end { Ok(range) } else { Err("ends before it begins".to_owned()) }
}

fn choice(args: &Args) -> Choice {
    Choice { only: args.only.clone(), plain: args.plain }
}

fn settings(args: &Args, seed: u64) -> Settings {
    Settings {
        seed,
        lasts: Duration::from_secs(args.seconds),
        patience: Duration::from_secs(args.patience),
        choice: choice(args),
        without: args.without.iter().copied().collect::<BTreeSet<_>>(),
        echo: !args.json,
    }
}

/// One run, told in words; true if it is clean.
fn one(args: &Args, seed: u64) -> anyhow::Result<bool> {
    bugs::plant(&args.plant)?;
    if args.json {
        // Eighty times what a simulated second takes.
        still::bound_processor_time(60 + 4 * args.seconds).context("bound the processor time")?;
    }
    let mut settings = settings(args, seed);
    let mut findings = match run(&settings) {
        Err(error) if error.is::<Panicked>() => {
            match args.json {
                true => println!("{}", json(&Outcome::of_panic(seed, &error.to_string()))?),
                false => println!("\nBROKEN processes: {error}"),
            }
            return Ok(false);
        }
        ran => ran?,
    };
    let clean = findings.is_clean();
    if args.json {
        if !clean {
            write_page(args, &settings, &findings)?;
        }
        println!("{}", json(&Outcome::of(seed, &findings))?);
        return Ok(clean);
    }
    if let (true, Some(law)) = (args.minimise, findings.verdicts.iter().find(|v| v.broken > 0)) {
        println!("\nlooking for fewer faults that break {}", law.name);
        settings = minimise(&settings, law.name, MINIMISING_RUNS)?;
        findings = run(&Settings { echo: true, ..settings.clone() })?;
    }
    println!("\n{}\n", report::summary(&findings));
    print!("{}", report::verdicts(&findings));
    if !clean {
        print!("\n{}", report::excerpts(&findings));
        println!("\nagain: {}", report::command(&settings, &args.plant));
    }
    if !clean || args.page {
        println!("to look at: {}", write_page(args, &settings, &findings)?.display());
    }
    Ok(clean)
}

fn json(outcome: &Outcome) -> anyhow::Result<String> {
    serde_json::to_string(outcome).context("write what it came to")
}

fn write_page(args: &Args, settings: &Settings, findings: &Findings) -> anyhow::Result<PathBuf> {
    let path = args.pages.join(format!("seed-{}.html", settings.seed));
    std::fs::create_dir_all(&args.pages).with_context(|| args.pages.display().to_string())?;
    std::fs::write(&path, timeline::page(settings, findings, &args.plant))
        .with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

fn campaign(args: &Args, first: Vec<Job>) -> Campaign {
    let mut then = args.seeds.clone();
    if args.minutes.is_some() {
        then.end = u64::MAX;
    }
    let like = Job { seed: 0, seconds: args.seconds, choice: choice(args) };
    Campaign {
        first,
        then,
        like,
        jobs: args.jobs,
        until: args.minutes.map(|minutes| Duration::from_secs(minutes * 60)),
        planted: args.plant.clone(),
        pages: args.pages.clone(),
        first_only: false,
        bar: true,
    }
}

/// Many runs; true if all are clean.
fn many(args: &Args) -> anyhow::Result<bool> {
    let first = if args.corpus { corpus::jobs().map_err(anyhow::Error::msg)? } else { Vec::new() };
    let tally = campaign(args, first).run()?;
    figures(&tally);
    for Failure { job, words, excerpt, .. } in &tally.failures {
        println!("\nseed {} failed: {words}", job.seed);
        excerpt.lines().for_each(|line| println!("  {line}"));
        let lasts = Duration::from_secs(job.seconds);
        let settings = Settings { choice: job.choice.clone(), lasts, ..settings(args, job.seed) };
        println!("  again: {}", report::command(&settings, &args.plant));
        let page = args.pages.join(format!("seed-{}.html", job.seed));
        if Path::new(&page).exists() {
            println!("  to look at: {}", page.display());
        }
    }
    let missing = if args.coverage { tally.coverage.missing() } else { Vec::new() };
    for missing in &missing {
        println!("not reached: {missing}");
    }
    Ok(tally.failures.is_empty() && missing.is_empty() && tally.coverage.seeds > 0)
}

fn figures(tally: &Tally) {
    let coverage = &tally.coverage;
    let (simulated, took) = (coverage.simulated.as_secs_f64(), tally.took.as_secs_f64());
    println!(
        "{} seeds, {} of them twice; {simulated:.0} simulated s in {took:.0} s, {:.1} to 1; {} \
         operations; {} failed",
        coverage.seeds,
        coverage.twice,
        simulated / took.max(0.001),
        coverage.ops,
        tally.failures.len()
    );
    println!("faults that struck:");
    for kind in Kind::all() {
        let times = coverage.struck.get(&kind.slug()).copied().unwrap_or_default();
        println!("  {times:6}  {}", kind.name());
    }
    println!("facts looked at:");
    for (law, facts) in &coverage.facts {
        println!("  {facts:9}  {law}");
    }
    println!("reached:");
    for (what, times) in &coverage.reached {
        println!("  {times:9}  {what}");
    }
    for (law, times) in tally.laws() {
        println!("broken in {times} runs: {law}");
    }
}

/// Every bug of the bank; true if all are found.
fn bank(args: &Args) -> anyhow::Result<bool> {
    let mut found_all = true;
    let names = if args.plant.is_empty() { bugs::all() } else { args.plant.clone() };
    anyhow::ensure!(!names.is_empty(), "build with `--features planted-bugs`");
    println!("| bug | seeds | found by |\n|---|---|---|");
    for bug in names {
        let mut campaign = campaign(args, Vec::new());
        campaign.planted = vec![bug.clone()];
        campaign.first_only = true;
        campaign.bar = false;
        let tally = campaign.run()?;
        match tally.failures.first() {
            Some(failure) => {
                let seeds = failure.job.seed - args.seeds.start + 1;
                let laws = match failure.laws.is_empty() {
                    true => failure.words.clone(),
                    false => failure.laws.join(", "),
                };
                println!("| {bug} | {seeds} | {laws} |");
            }
            None => {
                found_all = false;
                println!("| {bug} | not in {} | |", tally.coverage.seeds);
            }
        }
    }
    Ok(found_all)
}
