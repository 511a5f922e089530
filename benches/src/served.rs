//! What very many aggregates cost a node: folding them, memory, disk, and how long a read takes.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anabranch_client::{Client, event};
use anyhow::{Context as _, ensure};
use clap::Args;
use hdrhistogram::Histogram;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::target::{Target, Used, scratch};
use crate::writers::empty;

/// Streams that one append writes to.
const AT_ONCE: u64 = 1_000;
/// Streams that are read again and again.
const HOT: u64 = 100;
/// Aggregates on a page of a query.
const PAGE: u32 = 100;
/// Takes one from a stream to another that is far from it, and through all of them.
const STRIDE: u64 = 7_919;
/// What is not folded by then is taken for never to be.
const FOLDED_WITHIN: Duration = Duration::from_secs(1_800);
const LOOK: Duration = Duration::from_millis(20);

/// How many to serve, and how often to read.
#[derive(Debug, Args)]
pub struct ServedArgs {
    /// Aggregates, each of one event.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    aggregates: u64,
    /// Reads of each kind.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(100..))]
    reads: u64,
    /// Where the data folder goes [default: the system's temporary folder]
    #[arg(long)]
    data: Option<PathBuf>,
}

/// What a step took.
struct Cost {
    events: u64,
    took: Duration,
    used: Used,
    /// Bytes by which the node grew in memory.
    resident: i64,
    disk: i64,
}

/// Measures, and returns two tables.
///
/// # Errors
/// Anything that fails: a measurement with errors in it is none.
pub async fn run(args: &ServedArgs) -> anyhow::Result<String> {
    let folder = scratch(args.data.as_deref())?;
    let nodes = folder.path().join("nodes");
    let target = Target::start(1, 1, &nodes)?;
    target.ready().await?;
    measure(args, &target, &nodes).await
}

async fn measure(args: &ServedArgs, target: &Target, nodes: &Path) -> anyhow::Result<String> {
    let (client, count) = (target.client(0)?, args.aggregates / AT_ONCE * AT_ONCE);
    let written = cost(count, target, nodes, write(&client, count)).await?;
    let folded = cost(count, target, nodes, fold(&client)).await?;
    let mut out = String::new();
    writeln!(
        out,
        "| {count} events, one a stream | events/s | CPU µs/event, node + client | resident bytes/event | disk bytes/event |"
    )?;
    writeln!(out, "|---|---|---|---|---|")?;
    for (what, cost) in [("appended", written), ("folded into aggregates, besides", folded)] {
        let Cost { events, took, used, resident, disk } = cost;
        let of = |value: i64| value as f64 / events as f64;
        let (rate, cpu) = (events as f64 / took.as_secs_f64(), used.each(events));
        let (resident, disk) = (of(resident), of(disk));
        writeln!(out, "| {what} | {rate:.0} | {cpu} | {resident:.0} | {disk:.0} |")?;
    }
    writeln!(out, "\n| read, one at a time | p50 ms | p99 ms |\n|---|---|---|")?;
    let all = |nth: u64| nth * STRIDE % count;
    let any = timed(args.reads, async |nth| get(&client, all(nth)).await).await?;
    let hot = timed(args.reads, async |nth| get(&client, nth % HOT).await).await?;
    let bare = timed(args.reads, async |nth| events(&client, all(nth)).await).await?;
    // After the last page comes the first one.
    let mut after = None;
    let pages = timed(args.reads / 100, async |_| {
        after = page(&client, after.take()).await?;
        Ok(())
    });
    for (what, latency) in [
        ("the aggregate of any stream", any),
        ("one of a hundred", hot),
        ("the events of any stream", bare),
        ("a page of a hundred aggregates", pages.await?),
    ] {
        let ms = |quantile| latency.value_at_quantile(quantile) as f64 / 1e3;
        writeln!(out, "| {what} | {:.2} | {:.2} |", ms(0.5), ms(0.99))?;
    }
    Ok(out)
}

/// What `step` takes.
async fn cost(
    events: u64,
    target: &Target,
    nodes: &Path,
    step: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<Cost> {
    let resident = || anyhow::Ok(i64::try_from(target.resident()?)?);
    let before = (Instant::now(), target.used()?, resident()?, bytes_below(nodes)?);
    step.await?;
    let (took, used) = (before.0.elapsed(), target.used()? - before.1);
    let (resident, disk) = (resident()? - before.2, bytes_below(nodes)? - before.3);
    Ok(Cost { events, took, used, resident, disk })
}

fn stream(nth: u64) -> String {
    format!("stock-{nth}")
}

async fn write(client: &Client, count: u64) -> anyhow::Result<()> {
    for first in (0..count).step_by(AT_ONCE as usize) {
        let moved = |nth: u64| {
            event("Moved").payload(json!({ "by": nth % 10, "tag": nth % 7 }).to_string())
        };
        let mut append = client.append(stream(first), moved(first));
        for nth in first + 1..first + AT_ONCE {
            append = append.and(stream(nth), moved(nth));
        }
        append.await?;
    }
    Ok(())
}

/// Declares the definition and waits until all is folded.
async fn fold(client: &Client) -> anyhow::Result<()> {
    let definition = json!({
        "category": "stock",
        "version": 1,
        "fields": { "on_hand": "pn-counter", "tags": "or-set" },
        "on": { "Moved": ["on_hand += $.by", "tags add $.tag"] },
    });
    client.define(definition.to_string()).await?;
    let deadline = Instant::now() + FOLDED_WITHIN;
    loop {
        let standing = client.definitions("stock").await?;
        if standing.iter().any(|one| one.serving && one.position >= one.of) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "not folded within {FOLDED_WITHIN:?}: {standing:?}");
        sleep(LOOK).await;
    }
}

/// How long each of so many reads takes, one after the other.
async fn timed(
    reads: u64,
    mut read: impl AsyncFnMut(u64) -> anyhow::Result<()>,
) -> anyhow::Result<Histogram<u64>> {
    let mut latency = empty();
    for nth in 0..reads {
        let asked = Instant::now();
        read(nth).await?;
        latency.saturating_record(asked.elapsed().as_micros() as u64);
    }
    Ok(latency)
}

async fn get(client: &Client, which: u64) -> anyhow::Result<()> {
    let aggregate = client.aggregate(stream(which)).get().await?;
    let (found, wanted) = (aggregate.field("on_hand")?, json!(which % 10));
    ensure!(*found == wanted, "{} shows {found}, not {wanted}", aggregate.stream);
    Ok(())
}

/// The yardstick: what one would do without aggregates.
async fn events(client: &Client, which: u64) -> anyhow::Result<()> {
    let events = client.read_stream(stream(which)).collect().await?;
    ensure!(events.len() == 1, "{} events of one", events.len());
    Ok(())
}

/// A page; says after which stream the next one begins.
async fn page(client: &Client, after: Option<String>) -> anyhow::Result<Option<String>> {
    let mut query = client.query("stock").limit(PAGE);
    if let Some(after) = after {
        query = query.after(after);
    }
    let page = query.page().await?;
    let found = page.aggregates.len();
    ensure!(found == PAGE as usize, "a page of {found} aggregates");
    Ok(page.next)
}

fn bytes_below(folder: &Path) -> anyhow::Result<i64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let entry = entry?;
        bytes += match entry.metadata() {
            Ok(is) if is.is_dir() => bytes_below(&entry.path())?,
            Ok(is) => i64::try_from(is.len())?,
            // The node may have removed it meanwhile.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error.into()),
        };
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn every_aggregate_is_folded_and_read() {
        let args = ServedArgs { aggregates: 2_000, reads: 200, data: None };
        let folder = scratch(None).unwrap();
        let target = Target::here(1, 1, folder.path().join("nodes")).await.unwrap();
        target.ready().await.unwrap();
        let tables = measure(&args, &target, folder.path()).await.unwrap();
        target.end().await;
        assert_eq!(tables.lines().count(), 4 + 1 + 6, "{tables}");
    }
}
