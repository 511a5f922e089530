//! A whole run, from the first process to the verdicts.

use std::sync::Arc;
use std::time::Duration;

use anabranch_history::checks::{self, Verdict};
use anabranch_history::evidence::{Death, Evidence, Recovery};
use anabranch_history::ledger::Ledger;
use anabranch_workload::harvest::{self, Agreed, Nodes};
use anabranch_workload::{Control, Plan, Sites, Workload};
use anyhow::bail;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::cluster::{Blueprint, Cluster, Lives, NODES, REGIONS, Sight, all_places};
use crate::nemesis::{Kind, Shape, plan};
use crate::proxy::Traffic;
use crate::torture::{Done, torture};

/// Pause between two rounds of questions to all nodes.
const OBSERVE_EVERY: Duration = Duration::from_millis(1_000);
/// In every so many rounds nodes are also asked for the hash of their global order.
const CHAINS_EVERY: u64 = 3;

/// What a run is to be.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What the cluster is; its seed also draws the faults and the workload.
    pub cluster: Blueprint,
    /// How long clients write while faults happen.
    pub lasts: Duration,
    /// Whether whole regions are killed, too.
    pub power: bool,
    /// Whether the data are to be kept in any case. They are if a law is broken.
    pub keep: bool,
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
    pub done: Done,
    /// Kinds of faults that there could not be, and why.
    pub impossible: Vec<(Kind, String)>,
    /// Packets between regions.
    pub packets: Traffic,
    /// Bytes between nodes of a region.
    pub bytes: Traffic,
    /// How long it took from the last healing until all nodes agreed.
    pub recovery: Duration,
}

/// Runs the test.
///
/// # Errors
/// If the cluster cannot be started or read: then nothing is known of the laws.
pub async fn run(settings: &Settings) -> anyhow::Result<Findings> {
    let mut cluster = Cluster::start(&settings.cluster).await?;
    let found = find_out(&mut cluster, settings).await.map_err(|error| {
        // A node that is gone may be why.
        match in_words(&cluster.deaths()) {
            deaths if deaths.is_empty() => error,
            deaths => error.context(deaths),
        }
    });
    let broken = |found: &Findings| found.verdicts.iter().any(|verdict| !verdict.holds());
    if settings.keep || found.as_ref().map_or(true, broken) {
        // What was found counts, also if the data are lost.
        let kept = cluster.keep_data().await;
        kept.unwrap_or_else(|error| eprintln!("cannot keep the data: {error:#}"));
    }
    found
}

async fn find_out(cluster: &mut Cluster, settings: &Settings) -> anyhow::Result<Findings> {
    wait_for_start(cluster, settings.patience).await?;
    let began = std::time::Instant::now();
    let ledger = Arc::new(Ledger::new(Arc::new(move || began.elapsed())));
    let sites: Arc<dyn Sites> = Arc::new(cluster.sites());
    let seed = settings.cluster.seed;
    let clients = Plan::busy(seed, settings.writers, settings.think);
    let every: Vec<usize> = (0..REGIONS.len()).collect();
    let start = |home: &usize| Workload::start(&sites, &clients, &ledger, *home);
    let mut workloads: Vec<Workload> = every.iter().map(start).collect();
    let observer = observe(sites.clone(), ledger.clone(), cluster.lives());

    let Settings { lasts, patience: within, .. } = *settings;
    let faults = plan(seed, &shape(cluster, settings));
    let controls: Vec<Control> = workloads.iter().map(Workload::control).collect();
    let tortured = torture(cluster, &faults, lasts, within, &ledger);
    let (done, ()) = tokio::join!(tortured, surge(&controls, lasts));
    let done = done?;
    cluster.heal().await?;
    let healed = ledger.now();
    let served = harvest::served(&*sites, &every, &ledger, healed, within).await;
    for workload in &mut workloads {
        workload.stop_writing().await;
    }

    let nodes = Nodes::all(&*sites);
    let converged = nodes.converge(true, within).await;
    let recovery = ledger.now().saturating_sub(healed);
    drop(observer);
    let agreed = converged.as_ref().ok().map(|_| recovery);
    let (agreed_on, not_converged) = match converged {
        Ok(agreed) => (agreed, Vec::new()),
        Err(words) => (Agreed { events: 0, global: 0 }, words),
    };
    let not_converged = done.problems.iter().cloned().chain(not_converged).collect();
    let mut evidence = Evidence::default();
    for control in &controls {
        let all = (0..REGIONS.len()).collect();
        control.finish_reading(agreed_on.events, agreed_on.global, all, within);
    }
    for workload in workloads {
        evidence.subscribed.extend(workload.subscribers_ended().await);
    }
    evidence.recovery = Some(Recovery { within: within * 2, served, agreed, not_converged });
    evidence.regions = harvest::read(&*sites, &every, seed).await?;
    evidence.selections = harvest::select(&*sites, &evidence.regions, seed).await?;
    evidence.served = nodes.served().await?;
    evidence.listed = nodes.listed().await?;
    evidence.prints = nodes.prints().await?;
    evidence.blames = nodes.blames(&evidence.expectations.lost, within).await;
    evidence.deaths = cluster.deaths();
    evidence.history = ledger.history();
    let verdicts = checks::all(&evidence);
    let impossible = cluster.no_disks().map(|why| (Kind::FullDisk, why.to_owned()));
    let impossible = impossible.into_iter().collect();
    let (packets, bytes) = cluster.traffic();
    Ok(Findings { evidence, verdicts, done, impossible, packets, bytes, recovery })
}

/// What can be done to the cluster. Says so if that is less than it should be.
fn shape(cluster: &Cluster, settings: &Settings) -> Shape {
    if let Some(why) = cluster.no_disks() {
        println!("no disk is filled: {why}");
    }
    let Settings { lasts, power, .. } = *settings;
    let disks = cluster.no_disks().is_none();
    Shape { regions: REGIONS.len(), nodes: NODES, lasts, power, disks }
}

/// Asks every node how it is, until the observer is dropped.
fn observe(sites: Arc<dyn Sites>, ledger: Arc<Ledger>, lives: Lives) -> JoinSet<()> {
    let mut observer = JoinSet::new();
    observer.spawn(async move {
        let nodes = Nodes::all(&*sites);
        for nth in 0_u64.. {
            let chains = nth % CHAINS_EVERY == 0;
            nodes.observe(&ledger, |region, node| lives.of(region, node), chains).await;
            sleep(OBSERVE_EVERY).await;
        }
    });
    observer
}

/// Ten times as many clients, for a tenth of the time.
async fn surge(controls: &[Control], lasts: Duration) {
    sleep(lasts * 4 / 10).await;
    controls.iter().for_each(|control| control.surge(true));
    sleep(lasts / 10).await;
    controls.iter().for_each(|control| control.surge(false));
}

/// Waits until every region has a leader and every node has heard of every region.
async fn wait_for_start(cluster: &mut Cluster, within: Duration) -> anyhow::Result<()> {
    let deadline = Instant::now() + within;
    let sight = cluster.network().sight.clone();
    loop {
        let waiting = without_leader(&sight).await;
        let deaths = cluster.deaths();
        if waiting.is_empty() && deaths.is_empty() {
            return Ok(());
        }
        if !deaths.is_empty() || Instant::now() >= deadline {
            bail!("the cluster did not start; waiting for {waiting:?}");
        }
        sleep(Duration::from_millis(200)).await;
    }
}

fn in_words(deaths: &[Death]) -> String {
    let words = deaths.iter().map(|death| format!("{}: {}", death.node, death.why));
    words.collect::<Vec<_>>().join("; ")
}

/// Addresses of the nodes that know of no leader.
async fn without_leader(sight: &Sight) -> Vec<String> {
    let mut waiting = Vec::new();
    for at in all_places() {
        if sight.status(at).await.is_none_or(|status| status.leader == 0) {
            waiting.push(sight.url(at).to_owned());
        }
    }
    waiting
}
