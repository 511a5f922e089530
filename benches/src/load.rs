//! One case: append, replay, lag, beside the disk's own rate.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use anabranch_client::Order;
use anyhow::ensure;
use clap::Args;

use crate::baseline::{self, Baseline};
use crate::lag::{self, Lag};
use crate::replay::{Replayed, replay};
use crate::target::{CpuUs, Target, scratch};
use crate::writers::{self, Load, Written};

/// Each of the two baselines is measured for this long.
const BASELINE: Duration = Duration::from_millis(1_500);
const LAG: Duration = Duration::from_secs(4);
pub(crate) const SETTLES_WITHIN: Duration = Duration::from_secs(120);

/// What to measure.
#[derive(Debug, Clone, Args)]
pub struct LoadArgs {
    /// Regions to start
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=3))]
    pub regions: u16,
    /// Nodes in each
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=9))]
    pub nodes: u16,
    /// Events in one append
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub batch: u16,
    /// Writers in each region, each with one append on its way
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub clients: u16,
    /// Bytes of an event's payload
    #[arg(long, default_value_t = 256)]
    pub payload: usize,
    /// Write to the same streams in all regions, so that events conflict
    #[arg(long)]
    pub shared: bool,
    /// How long to write
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    pub seconds: u64,
    /// Load regions that run already, one node of each, instead of starting any
    #[arg(long, conflicts_with_all = ["regions", "nodes"])]
    pub endpoint: Vec<String>,
    /// Where the data folders go, and which disk is measured [default: the system's temporary folder]
    #[arg(long)]
    pub data: Option<PathBuf>,
}

impl LoadArgs {
    /// The arguments that repeat this case.
    pub fn command(&self) -> String {
        let Self { regions, nodes, batch, clients, payload, seconds, shared, .. } = self;
        let shared = if *shared { " --shared" } else { "" };
        format!(
            "load --regions {regions} --nodes {nodes} --batch {batch} --clients {clients} \
             --payload {payload}{shared} --seconds {seconds}"
        )
    }
}

/// What was measured.
#[derive(Debug)]
pub struct Measured {
    /// Events in one append.
    pub batch: u16,
    /// The disk alone.
    pub baseline: Baseline,
    /// Appends.
    pub written: Written,
    /// Processor time until every region held everything, in microseconds an event.
    pub append_cpu_us: CpuUs,
    /// From the last acknowledgement until every region held everything and all was final.
    pub settling: Duration,
    /// Reading everything in regional order.
    pub regional: Replayed,
    /// Reading everything in global order.
    pub global: Replayed,
    /// Delay at rest.
    pub lag: Lag,
}

impl Measured {
    /// Events acknowledged a second, over all regions.
    pub fn rate(&self) -> f64 {
        self.written.events as f64 / self.written.took.as_secs_f64()
    }
}

/// Runs one case.
///
/// # Errors
/// Anything that fails: a measurement with errors in it is none.
pub async fn run(args: &LoadArgs) -> anyhow::Result<Measured> {
    let folder = scratch(args.data.as_deref())?;
    let (batch, payload) = (usize::from(args.batch), args.payload);
    let baseline = baseline::measure(folder.path(), batch, payload, BASELINE)?;
    let target = match &args.endpoint[..] {
        [] => {
            let nodes = folder.path().join("nodes");
            Target::start(args.regions.into(), args.nodes, &nodes)?
        }
        given => Target::given(given).await?,
    };
    let measured = measure(args, &target, baseline).await;
    target.end().await;
    measured
}

async fn measure(args: &LoadArgs, target: &Target, baseline: Baseline) -> anyhow::Result<Measured> {
    let there = target.ready().await?;
    let load = Load {
        batch: args.batch.into(),
        clients: args.clients.into(),
        payload: args.payload,
        within: Duration::from_secs(args.seconds),
        at_most: u64::MAX,
    };
    let before = target.used()?;
    let written = match args.shared {
        true => writers::write_to_same_streams(target, load).await?,
        false => writers::write(target, load).await?,
    };
    let last = tokio::time::Instant::now();
    let expected = there + written.events;
    let held = target.settled(expected, SETTLES_WITHIN).await?;
    // Given regions may have other writers.
    ensure!(
        held == expected || !target.is_own(),
        "{held} events are held, {expected} were written"
    );
    let (settling, spent) = (last.elapsed(), target.used()? - before);
    let append_cpu_us = spent.each(written.events);
    let regional = replay(target, Order::Regional, held).await?;
    let global = replay(target, Order::Global, held).await?;
    let lag = lag::measure(target, LAG).await?;
    let batch = args.batch;
    Ok(Measured { batch, baseline, written, append_cpu_us, settling, regional, global, lag })
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rate, plain) = (self.rate(), self.baseline.plain);
        let ms = |us: u64| us as f64 / 1e3;
        let latency = |q| ms(self.written.latency.value_at_quantile(q));
        writeln!(f, "append    {rate:.0} events/s ({} events)", self.written.events)?;
        writeln!(f, "          p50 {:.2} ms, p99 {:.2} ms", latency(0.5), latency(0.99))?;
        writeln!(f, "          {} CPU µs an event, nodes + clients", self.append_cpu_us)?;
        writeln!(f, "settling  {:.2} s after the last one", self.settling.as_secs_f64())?;
        writeln!(f, "disk      {:.0} fdatasync/s", self.baseline.syncs)?;
        writeln!(
            f,
            "          plain file, batch of {} and fdatasync: {plain:.0} events/s, {:.2} CPU µs an event",
            self.batch, self.baseline.plain_cpu_us
        )?;
        writeln!(f, "          append is {:.2} of the plain file", rate / plain)?;
        for (name, replayed) in [("regional", self.regional), ("global", self.global)] {
            let Replayed { rate, cpu_us } = replayed;
            writeln!(
                f,
                "replay    {rate:.0} events/s, {cpu_us} CPU µs an event, nodes + reader, {name} order"
            )?;
        }
        for (name, lag) in [("regional", &self.lag.regional), ("global", &self.lag.global)] {
            let at = |q| ms(lag.value_at_quantile(q));
            let (p50, p99) = (at(0.5), at(0.99));
            writeln!(f, "lag       p50 {p50:.1} ms, p99 {p99:.1} ms, {name} order")?;
        }
        Ok(())
    }
}
