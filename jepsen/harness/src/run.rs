//! A whole run, from the first process to the verdicts.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anabranch_history::checks::{self, Verdict};
use anabranch_history::evidence::{Evidence, Recovery};
use anabranch_history::ledger::Ledger;
use anabranch_workload::harvest::{self, Agreed, Nodes};
use anabranch_workload::{Control, Plan, Sites, Workload};
use anyhow::bail;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::cluster::{Cluster, Lives, NODES, NodeAt, REGIONS};
use crate::nemesis::{Fault, Shape, What, plan};
use crate::proxy::Traffic;

/// Pause between two rounds of questions to all nodes.
const OBSERVE_EVERY: Duration = Duration::from_millis(1_000);
/// In every so many rounds nodes are also asked for the hash of their global order.
const CHAINS_EVERY: u64 = 3;

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
    let began = std::time::Instant::now();
    let ledger = Arc::new(Ledger::new(Arc::new(move || began.elapsed())));
    let sites: Arc<dyn Sites> = Arc::new(cluster.sites());
    let clients = Plan::busy(settings.seed, settings.writers, settings.think);
    let every: Vec<usize> = (0..REGIONS.len()).collect();
    let start = |home: &usize| Workload::start(&sites, &clients, &ledger, *home);
    let mut workloads: Vec<Workload> = every.iter().map(start).collect();
    let observer = observe(sites.clone(), ledger.clone(), cluster.lives());

    let Settings { seed, lasts, power, .. } = *settings;
    let faults = plan(seed, &Shape { regions: REGIONS.len(), nodes: NODES, lasts, power });
    let controls: Vec<Control> = workloads.iter().map(Workload::control).collect();
    let (tortured, ()) =
        tokio::join!(torture(&mut cluster, &faults, lasts, &ledger), surge(&controls, lasts));
    tortured?;
    cluster.heal().await?;
    let healed = ledger.now();
    let within = settings.patience;
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
    evidence.prints = nodes.prints().await?;
    evidence.blames = nodes.blames(&evidence.expectations.lost, within).await;
    evidence.deaths = cluster.deaths();
    evidence.history = ledger.history();
    let verdicts = checks::all(&evidence);
    Ok(Findings { evidence, verdicts, faults, traffic: cluster.traffic(), recovery })
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
            bail!(
                "the cluster did not start; waiting for {waiting:?}; {}",
                deaths
                    .iter()
                    .map(|death| format!("{}: {}", death.node, death.why))
                    .collect::<Vec<_>>()
                    .join("; ")
            );
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
