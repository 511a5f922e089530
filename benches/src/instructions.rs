//! Instructions and allocations that a node takes for an event, counted by callgrind: they do not depend on how
//! busy the machine is, so one commit can be compared with another.
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
/// Clients that append one event at a time, and how many of the events are written so.
const SINGLES_CLIENTS: usize = 64;
const SINGLES_SHARE: u64 = 10;
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

/// What the node takes for each event.
#[derive(Debug)]
pub struct Instructions {
    batches: Taken,
    singles: Taken,
    replay: Taken,
}

/// Instructions, and calls that allocate memory or make what was allocated larger.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Taken {
    instructions: f64,
    allocations: f64,
}

impl Taken {
    fn each(self, events: u64) -> Self {
        let events = events.max(1) as f64;
        let (instructions, allocations) = (self.instructions / events, self.allocations / events);
        Self { instructions, allocations }
    }
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
    let mut there = target.ready().await?;
    let mut append = async |batch, clients, at_most| -> anyhow::Result<Taken> {
        let load = Load { batch, clients, payload: PAYLOAD, within: WITHIN, at_most };
        node.taken()?;
        let written = writers::write_in(&target, 0..1, load).await?.events;
        ensure!(written > 0, "nothing was written in {WITHIN:?}");
        there += written;
        target.settled(there, SETTLES_WITHIN).await?;
        Ok(node.taken()?.each(written))
    };
    let singles = append(1, SINGLES_CLIENTS, args.events / SINGLES_SHARE).await?;
    let batches = append(BATCH, 1, args.events / BATCH as u64).await?;
    let events = read(&target, Order::Regional).await?;
    Ok(Instructions { batches, singles, replay: node.taken()?.each(events) })
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

    /// What was taken since the last time.
    fn taken(&mut self) -> anyhow::Result<Taken> {
        let id = self.child.id().to_string();
        let asked = Command::new("callgrind_control").args(["--dump", &id]).output();
        let asked = asked.context("run callgrind_control")?;
        ensure!(asked.status.success(), "callgrind_control: {asked:?}");
        self.dumps += 1;
        let path = format!("{}.{}", self.out.display(), self.dumps);
        let dump = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let total = total(&dump).with_context(|| format!("no total in {path}"))?;
        Ok(Taken { instructions: total as f64, allocations: allocations(&dump) as f64 })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What Rust's code calls for memory, whichever allocator is behind it.
const ALLOCATORS: [&str; 3] = ["__rust_alloc", "__rust_alloc_zeroed", "__rust_realloc"];

/// The instructions of a dump.
fn total(dump: &str) -> Option<u64> {
    let of = |name: &str| dump.lines().find_map(|line| line.strip_prefix(name));
    of("totals: ").or_else(|| of("summary: "))?.split_whitespace().next()?.parse().ok()
}

/// Calls of the allocator in a dump. Callgrind writes `cfn=(number) name` above the calls of a function, and the
/// name only the first time.
fn allocations(dump: &str) -> u64 {
    let mut numbers: Vec<&str> = Vec::new();
    let mut allocates = false;
    let mut calls = 0;
    for line in dump.lines() {
        if let Some(of) = line.strip_prefix("cfn=").or_else(|| line.strip_prefix("fn=")) {
            let (number, name) = of.split_once(' ').unwrap_or((of, ""));
            if ALLOCATORS.iter().any(|allocator| name.ends_with(allocator)) {
                numbers.push(number);
            }
            allocates = numbers.contains(&number);
        } else if let Some(rest) = line.strip_prefix("calls=").filter(|_| allocates) {
            let count = rest.split_whitespace().next().and_then(|count| count.parse::<u64>().ok());
            calls += count.unwrap_or(0);
        }
    }
    calls
}

impl fmt::Display for Instructions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| an event of | instructions of the node | allocations |")?;
        writeln!(f, "|---|---|---|")?;
        let rows = [
            ("an append of 1,000", self.batches),
            ("single appends of 64 clients", self.singles),
            ("a replay in regional order", self.replay),
        ];
        for (what, Taken { instructions, allocations }) in rows {
            writeln!(f, "| {what} | {instructions:.0} | {allocations:.2} |")?;
        }
        Ok(())
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

    #[test]
    fn calls_of_the_allocator_are_counted_whoever_calls_it() {
        let dump = "fn=(1) main\n1 5\ncfn=(2) __rustc::__rust_alloc\ncalls=3 7\n1 90\n\
                    cfn=(3) other\ncalls=50 8\n1 9\n\
                    fn=(4) __rustc::__rust_realloc\n2 4\n\
                    fn=(3)\n4 4\ncfn=(2)\ncalls=4 7\n1 2\ncfn=(4)\ncalls=10 7\n1 2\n";
        assert_eq!(allocations(dump), 17);
    }
}
