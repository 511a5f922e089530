//! A whole run, from the first process to the verdicts.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use tokio::time::{Instant, sleep, sleep_until};

use crate::checks::{self, Verdict};
use crate::cluster::{Cluster, NODES, NodeAt, REGIONS};
use crate::evidence::Evidence;
use crate::harvest;
use crate::history::Ledger;
use crate::nemesis::{Fault, Shape, What, plan};
use crate::proxy::Traffic;
use crate::workload::{Load, Workload};

/// What a run is to be.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The server.
    pub binary: PathBuf,
    /// Where everything is kept.
    pub folder: PathBuf,
    /// Draws the faults and the workload.
    pub seed: u64,
    /// How long clients write while faults happen.
    pub lasts: Duration,
    /// Whether whole regions are killed, too.
    pub power: bool,
    /// How much longer a packet takes between regions, one way.
    pub delay: Duration,
    /// Writers of each region.
    pub writers: u32,
    /// Longest pause of a writer between two appends.
    pub think: Duration,
    /// How long the cluster may take to start, and to agree after the faults.
    pub patience: Duration,
}

/// What came of it.
#[derive(Debug)]
pub struct Findings {
    /// What was found.
    pub evidence: Evidence,
    /// What the checks say of it.
    pub verdicts: Vec<Verdict>,
    /// What was done to the cluster.
    pub faults: Vec<Fault>,
    /// Packets between regions.
    pub traffic: Traffic,
    /// How long it took from the last healing until all nodes agreed.
    pub recovery: Duration,
}

/// Runs the test.
///
/// # Errors
/// If the cluster cannot be started or read: then nothing is known of the laws.
pub async fn run(settings: &Settings) -> anyhow::Result<Findings> {
    let mut cluster = Cluster::start(&settings.folder, &settings.binary, settings.delay).await?;
    wait_for_start(&mut cluster, settings.patience).await?;
    let ledger = Arc::new(Ledger::new());
    let addresses = std::array::from_fn(|region| cluster.api(region));
    let run = (settings.seed ^ (settings.seed >> 32)) as u32;
    let load = Load { seed: settings.seed, run, writers: settings.writers, think: settings.think };
    let mut workload = Workload::start(&addresses, load, &ledger)?;

    let Settings { seed, lasts, power, .. } = *settings;
    let faults = plan(seed, &Shape { regions: REGIONS.len(), nodes: NODES, lasts, power });
    torture(&mut cluster, &faults, lasts, &ledger).await?;
    cluster.heal().await?;
    let healed = Instant::now();
    workload.stop_writing().await;

    let converged = harvest::converge(&cluster, settings.patience).await;
    let recovery = healed.elapsed();
    let mut evidence = Evidence { history: ledger.history(), ..Evidence::default() };
    let events = match converged {
        Ok(events) => events,
        Err(not_converged) => {
            evidence.not_converged = not_converged;
            0
        }
    };
    evidence.subscribed = workload.finish_reading(events, settings.patience).await;
    evidence.regions = harvest::read(&cluster).await?;
    evidence.prints = harvest::prints(&cluster).await?;
    evidence.deaths = cluster.deaths();
    let verdicts = checks::all(&evidence);
    Ok(Findings { evidence, verdicts, faults, traffic: cluster.traffic(), recovery })
}

/// Waits until every region has a leader and every node has heard of every region.
async fn wait_for_start(cluster: &mut Cluster, within: Duration) -> anyhow::Result<()> {
    let deadline = Instant::now() + within;
    loop {
        let mut waiting = Vec::new();
        for at in cluster.all() {
            let ready = cluster.status(at).await.is_some_and(|status| status.leader != 0);
            if !ready {
                waiting.push(cluster.name(at).to_owned());
            }
        }
        let deaths = cluster.deaths();
        if waiting.is_empty() && deaths.is_empty() {
            return Ok(());
        }
        if !deaths.is_empty() || Instant::now() >= deadline {
            bail!("the cluster did not start; waiting for {waiting:?}; {}", deaths.join("; "));
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// Lets the faults happen, each at its time; at least until `lasts` has passed.
async fn torture(
    cluster: &mut Cluster,
    faults: &[Fault],
    lasts: Duration,
    ledger: &Ledger,
) -> anyhow::Result<()> {
    let began = Instant::now();
    let mut turns: Vec<(Duration, bool, usize)> = Vec::new();
    for (nth, fault) in faults.iter().enumerate() {
        turns.extend([(fault.at, false, nth), (fault.end(), true, nth)]);
    }
    turns.sort();
    let mut struck: BTreeMap<usize, NodeAt> = BTreeMap::new();
    for (at, ends, nth) in turns {
        sleep_until(began + at).await;
        let what = &faults[nth].what;
        if ends {
            end(cluster, what, struck.get(&nth).copied()).await?;
        } else {
            let victim = begin(cluster, what).await?;
            struck.extend(victim.map(|victim| (nth, victim)));
            let victim =
                victim.map_or(String::new(), |victim| format!(" ({})", cluster.name(victim)));
            println!(
                "{:6.1?} s  {what}{victim}, {} appends acknowledged",
                began.elapsed().as_secs_f32(),
                ledger.acknowledged()
            );
        }
    }
    sleep_until(began + lasts).await;
    Ok(())
}

async fn begin(cluster: &mut Cluster, what: &What) -> anyhow::Result<Option<NodeAt>> {
    match what {
        What::Kill { region, victim } => {
            let node = cluster.find(*region, *victim).await;
            cluster.kill(node).await?;
            Ok(Some(node))
        }
        What::Pause { region, victim } => {
            let node = cluster.find(*region, *victim).await;
            cluster.pause(node).await?;
            Ok(Some(node))
        }
        What::PowerOff { region } => {
            for node in 0..NODES {
                cluster.kill((*region, node)).await?;
            }
            Ok(None)
        }
        What::Cut { links } => {
            links.iter().for_each(|link| cluster.set_cut(*link, true));
            Ok(None)
        }
    }
}

async fn end(cluster: &mut Cluster, what: &What, struck: Option<NodeAt>) -> anyhow::Result<()> {
    match (what, struck) {
        (What::Kill { .. }, Some(node)) => cluster.restart(node)?,
        (What::Pause { .. }, Some(node)) => cluster.resume(node).await?,
        (What::PowerOff { region }, _) => {
            for node in 0..NODES {
                cluster.restart((*region, node))?;
            }
        }
        (What::Cut { links }, _) => links.iter().for_each(|link| cluster.set_cut(*link, false)),
        (What::Kill { .. } | What::Pause { .. }, None) => {}
    }
    Ok(())
}
