//! Instructions that a node takes for an event, counted by callgrind: they do not depend on how busy the
//! machine is, so one commit can be compared with another.
//!
//! What the node does by itself meanwhile (beats, promises, followers) is counted, too; the more events, the
//! less of it there is in each.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anabranch_client::Order;
use anyhow::{Context as _, ensure};
use clap::Args;

use crate::load::SETTLES_WITHIN;
use crate::processes::Place;
use crate::replay::read;
use crate::target::{Target, scratch};
use crate::writers::{self, Load};

const NODE: Place = Place { region: 0, node: 0 };
const BATCH: usize = 1_000;
const PAYLOAD: usize = 256;
const WITHIN: Duration = Duration::from_secs(600);

/// How much to count.
#[derive(Debug, Clone, Args)]
pub struct InstructionsArgs {
    /// Events to write and to read, in batches of 1,000
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    pub events: u64,
    /// Where the data folder goes [default: the system's temporary folder]
    #[arg(long)]
    pub data: Option<PathBuf>,
}

/// Instructions of the node for each event.
#[derive(Debug)]
pub struct Instructions {
    append: u64,
    replay: u64,
}

/// Counts them.
///
/// # Errors
/// If valgrind is not there, or the node cannot be written to or read.
pub async fn run(args: &InstructionsArgs) -> anyhow::Result<Instructions> {
    let folder = scratch(args.data.as_deref())?;
    let mut target = Target::start(1, 1, &folder.path().join("nodes"))?;
    target.ready().await?;
    // Its birth is not of interest, and quicker so.
    let processes = target.processes()?;
    processes.kill(NODE).await?;
    let (binary, data) = (processes.binary().to_owned(), processes.data(NODE)?.to_owned());
    let mut node = Counted::start(&binary, &data)?;
    let there = target.ready().await?;
    let at_most = args.events / BATCH as u64;
    let load = Load { batch: BATCH, clients: 1, payload: PAYLOAD, within: WITHIN, at_most };
    node.taken()?;
    let written = writers::write_in(&target, 0..1, load).await?.events;
    ensure!(written > 0, "nothing was written in {WITHIN:?}");
    target.settled(there + written, SETTLES_WITHIN).await?;
    let append = node.taken()? / written;
    let events = read(&target, Order::Regional).await?;
    Ok(Instructions { append, replay: node.taken()? / events })
}

/// A node under callgrind. Dropping it kills it.
struct Counted {
    child: Child,
    /// Where counts go, with a number behind the name.
    out: PathBuf,
    dumps: u32,
}

impl Counted {
    /// Starts the node whose data are in this folder.
    fn start(binary: &Path, data: &Path) -> anyhow::Result<Self> {
        let out = data.with_extension("callgrind");
        let mut valgrind = Command::new("valgrind");
        valgrind.arg("--tool=callgrind").arg(format!("--callgrind-out-file={}", out.display()));
        valgrind.arg(binary).args(["serve", "--log-level", "warn", "--config"]);
        valgrind.arg(data.with_extension("toml")).stdin(Stdio::null());
        let child = valgrind.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Ok(Self { child: child.context("start valgrind: is it installed?")?, out, dumps: 0 })
    }

    /// Instructions since the last time.
    fn taken(&mut self) -> anyhow::Result<u64> {
        let id = self.child.id().to_string();
        let asked = Command::new("callgrind_control").args(["--dump", &id]).output();
        let asked = asked.context("run callgrind_control")?;
        ensure!(asked.status.success(), "callgrind_control: {asked:?}");
        self.dumps += 1;
        let path = format!("{}.{}", self.out.display(), self.dumps);
        let dump = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        total(&dump).with_context(|| format!("no total in {path}"))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The instructions of a dump.
fn total(dump: &str) -> Option<u64> {
    let of = |name: &str| dump.lines().find_map(|line| line.strip_prefix(name));
    of("totals: ").or_else(|| of("summary: "))?.split_whitespace().next()?.parse().ok()
}

impl fmt::Display for Instructions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "append    {} instructions an event, batches of {BATCH}", self.append)?;
        writeln!(f, "replay    {} instructions an event, regional order", self.replay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_of_a_dump_is_found() {
        let dump = "version: 1\nevents: Ir\nsummary: 12\n\nfn=(1) main\n1 5\n\ntotals: 34\n";
        assert_eq!(total(dump), Some(34));
        assert_eq!(total("summary: 12 3\n"), Some(12));
        assert_eq!(total("fn=(1) totals\n"), None);
    }
}
