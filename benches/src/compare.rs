//! Other stores beside Anabranch, in one run, by turns: a shared machine is never the same twice, so
//! only what was measured next to each other may be compared.
//!
//! Every store runs alone, is started anew for each turn of an append case, and syncs to disk before it
//! acknowledges. What a batch is for each of them stands at the head of its file.
//!
//! ```text
//!  for each case:  disk, A, B, C … │ disk, A, B, C … │ … --rounds times; then medians and ratios
//! ```

mod anabranch;
mod append;
mod case;
mod catch_up;
mod etcd;
mod grpc;
mod history;
mod lag;
mod loss;
mod nats;
mod peer;
mod postgres;
mod redis;
mod report;
mod servers;
mod svg;
mod umadb;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Args;

use self::case::Case;
use self::peer::Peer;
use self::report::Report;
use crate::baseline;
use crate::target::scratch;

/// The disk is measured for this long in every round.
const BASELINE: Duration = Duration::from_millis(250);

/// What to compare.
#[derive(Debug, Clone, Args)]
pub struct CompareArgs {
    /// Peers beside Anabranch, by parts of their names: umadb, nats, redis, postgresql, etcd [default: all]
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Appends as BATCHxCLIENTSxPAYLOAD, and `history`, `lag`, `loss`, `catch-up` [default: those of RESULTS.md]
    #[arg(long, value_delimiter = ',')]
    cases: Vec<Case>,
    /// Turns of each peer in each case
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,
    /// How long one peer appends in one turn
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Events that are replayed, and at most 200,000 of them that a site misses
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    events: u64,
    /// The markdown file whose section is written anew; plots go to `plots` beside it [default: printed]
    #[arg(long)]
    out: Option<PathBuf>,
    /// Where the data folders go, and which disk is measured [default: the system's temporary folder]
    #[arg(long)]
    data: Option<PathBuf>,
    /// Where the peers' programs are [default: where benches/peers.sh puts them]
    #[arg(long)]
    peers: Option<PathBuf>,
}

/// What all parts of a run share.
struct Run<'a> {
    peers: Vec<Box<dyn Peer>>,
    rounds: u16,
    within: Duration,
    events: u64,
    /// Of the disk that is measured. Servers' folders are below it, one at a time.
    folder: &'a Path,
}

/// Measures, and writes or prints the result.
///
/// # Errors
/// If a case failed. The others are written all the same.
pub async fn run(args: &CompareArgs) -> anyhow::Result<()> {
    let folder = scratch(args.data.as_deref())?;
    let peers = all(&args.peers.clone().unwrap_or_else(peer::peers_folder));
    let run = Run {
        peers: chosen(peers, &args.only)?,
        rounds: args.rounds,
        within: Duration::from_secs(args.seconds),
        events: args.events,
        folder: folder.path(),
    };
    let cases = if args.cases.is_empty() { case::usual() } else { args.cases.clone() };
    let mut report = Report::default();
    let mut failed = 0;
    for case in &cases {
        eprintln!("{case}");
        if let Err(error) = run.measure(*case, &mut report).await {
            // What was measured before, and what can be after, is worth having.
            eprintln!("{case} failed and is left out: {error:#}");
            failed += 1;
            run.clear();
        }
        if let Some(out) = &args.out {
            report.write(out, &command(args))?;
        }
    }
    if args.out.is_none() {
        report.print(&command(args));
    }
    ensure!(failed == 0, "{failed} of {} cases failed", cases.len());
    Ok(())
}

/// The arguments that repeat this run.
fn command(args: &CompareArgs) -> String {
    let mut command = format!(
        "compare --rounds {} --seconds {} --events {}",
        args.rounds, args.seconds, args.events
    );
    if !args.only.is_empty() {
        command += &format!(" --only {}", args.only.join(","));
    }
    if !args.cases.is_empty() {
        let cases = args.cases.iter().map(Case::to_string).collect::<Vec<_>>();
        command += &format!(" --cases {}", cases.join(","));
    }
    command
}

/// Every store known here.
fn all(folder: &Path) -> Vec<Box<dyn Peer>> {
    vec![
        Box::new(anabranch::Anabranch { nodes: 1 }),
        Box::new(umadb::UmaDb::below(folder)),
        Box::new(postgres::Postgres::usual()),
        Box::new(redis::Redis::below(folder)),
        Box::new(nats::Nats::below(folder, 1)),
        Box::new(anabranch::Anabranch { nodes: 3 }),
        Box::new(nats::Nats::below(folder, 3)),
        Box::new(etcd::Etcd::below(folder)),
    ]
}

/// Anabranch, and of the others those that are asked for and there.
fn chosen(peers: Vec<Box<dyn Peer>>, only: &[String]) -> anyhow::Result<Vec<Box<dyn Peer>>> {
    let asked = |peer: &dyn Peer| {
        let name = peer.name().to_lowercase();
        let of_it = |part: &String| name.contains(&part.to_lowercase());
        only.is_empty() || name.starts_with("anabranch") || only.iter().any(of_it)
    };
    let unknown = only.iter().find(|part| {
        !peers.iter().any(|peer| peer.name().to_lowercase().contains(&part.to_lowercase()))
    });
    ensure!(unknown.is_none(), "no peer is named {}", unknown.map_or("", String::as_str));
    let mut chosen = Vec::new();
    for peer in peers.into_iter().filter(|peer| asked(peer.as_ref())) {
        match peer.missing() {
            None => chosen.push(peer),
            Some(how) => eprintln!("{} is left out: {how}", peer.name()),
        }
    }
    Ok(chosen)
}

impl Run<'_> {
    async fn measure(&self, case: Case, report: &mut Report) -> anyhow::Result<()> {
        match case {
            Case::Append(shape) => report.appends.push(self.append(shape).await?),
            Case::History => report.histories = self.histories().await?,
            Case::Lag => report.lags = self.lags().await?,
            Case::Loss => report.losses = self.losses().await?,
            Case::CatchUp => report.catch_ups = self.catch_ups().await?,
        }
        Ok(())
    }

    /// A folder for one start of one peer, or of sites, by its name.
    fn place(&self, name: &str) -> PathBuf {
        let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
        self.folder.join(name)
    }

    /// After a failure: no case begins on what another one left.
    fn clear(&self) {
        let pairs = self.peers.iter().flat_map(|peer| peer.pairs());
        let names = self.peers.iter().map(|peer| peer.name()).chain(pairs.map(|pair| pair.name()));
        for name in names {
            // Most are not there, and a run's folder goes as a whole at its end.
            let _ = std::fs::remove_dir_all(self.place(name));
        }
    }

    /// fdatasync calls a second, now.
    fn syncs(&self) -> anyhow::Result<f64> {
        let disk = baseline::measure(self.folder, 1, 256, BASELINE);
        Ok(disk.context("measure the disk")?.syncs)
    }
}

fn remove(folder: &Path) -> anyhow::Result<()> {
    std::fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        args: CompareArgs,
    }

    #[test]
    fn the_command_of_a_run_is_one_that_the_program_takes() {
        let words = "compare --rounds 3 --seconds 1 --events 5000 --only umadb,nats --cases 1x64x256,lag,catch-up";
        let args = Program::try_parse_from(words.split(' ')).unwrap_or_else(|e| panic!("{e}")).args;
        assert_eq!(command(&args), words);
    }

    #[test]
    fn who_is_not_asked_for_or_not_there_is_left_out() {
        let nowhere = Path::new("/nowhere");
        let names = |peers: Vec<Box<dyn Peer>>| peers.iter().map(|p| p.name()).collect::<Vec<_>>();
        let asked = chosen(all(nowhere), &["UmaDB".into()]).unwrap();
        assert_eq!(names(asked), ["Anabranch", "Anabranch ×3"]);
        assert!(chosen(all(nowhere), &["mongo".into()]).is_err());
    }
}
