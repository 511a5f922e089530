//! Lets the faults of a plan happen, each at its time.
//!
//! Every line of the plan is carried out by itself. On one line a fault begins when the one before has
//! ended, however long that took: a region whose node was wiped has nothing else happen to it until
//! the new one votes. What then no longer fits into the time is left out, and counted.

use std::collections::BTreeMap;
use std::time::Duration;

use anabranch_history::ledger::Ledger;
use futures_util::future::try_join_all;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, sleep_until};

use crate::cluster::{Cluster, NODES, Network, NodeAt, Region};
use crate::nemesis::{Fault, Filling, Kind, Line, Loss, What};

/// Pause between two looks for space that has become free on a disk that is to be full.
const FILL_AGAIN: Duration = Duration::from_millis(100);

/// What was really done.
#[derive(Debug, Clone, Default)]
pub struct Done {
    /// How often each kind of fault struck.
    pub struck: BTreeMap<Kind, u32>,
    /// Faults for which there was no time left.
    pub left_out: u32,
    /// Nodes that came back under their old id without their data, noticed it and stopped.
    pub noticed: u32,
    /// Nodes that took the place of one that was wiped, and vote.
    pub replaced: u32,
    /// What did not work that should have.
    pub problems: Vec<String>,
}

/// Where faults happen, and what comes of it.
struct Stage<'a> {
    network: &'a Network,
    ledger: &'a Ledger,
    began: Instant,
    /// No fault begins later.
    over: Instant,
    /// How long a new node may take until it votes.
    patience: Duration,
    done: Mutex<Done>,
}

/// Lets `faults` happen, and returns when all have ended and `lasts` has passed.
///
/// # Errors
/// If something cannot be done to the cluster that should be possible at any time.
pub async fn torture(
    cluster: &mut Cluster,
    faults: &[Fault],
    lasts: Duration,
    patience: Duration,
    ledger: &Ledger,
) -> anyhow::Result<Done> {
    let (regions, network) = cluster.split();
    let (began, done) = (Instant::now(), Mutex::default());
    let stage = Stage { network, ledger, began, over: began + lasts, patience, done };
    let of = |line: Line| faults.iter().filter(move |fault| fault.what.line() == line);
    let in_regions = regions.iter_mut().map(|region| {
        let faults = of(Line::Region(region.number()));
        stage.in_region(region, faults)
    });
    tokio::try_join!(
        try_join_all(in_regions),
        stage.between(of(Line::Links)),
        stage.of_clocks(of(Line::Clocks)),
    )?;
    sleep_until(stage.over).await;
    Ok(stage.done.into_inner())
}

impl Stage<'_> {
    /// Waits until it is time for a fault. False, and counted, if it is too late for it.
    async fn is_due(&self, fault: &Fault) -> bool {
        sleep_until(self.began + fault.at).await;
        let due = Instant::now() + fault.lasts <= self.over;
        if !due {
            self.done.lock().left_out += 1;
        }
        due
    }

    /// Counts a fault that begins now, and says so.
    fn begins(&self, what: &What, whom: &str) {
        *self.done.lock().struck.entry(what.kind()).or_default() += 1;
        let whom = if whom.is_empty() { String::new() } else { format!(" ({whom})") };
        self.say(&format!("{what}{whom}"));
    }

    /// Something did not work that should have.
    fn fails(&self, words: String) {
        self.say(&words);
        self.done.lock().problems.push(words);
    }

    fn say(&self, words: &str) {
        let (at, acknowledged) = (self.began.elapsed().as_secs_f32(), self.ledger.acknowledged());
        println!("{at:6.1?} s  {words}, {acknowledged} appends acknowledged");
    }

    async fn in_region(
        &self,
        region: &mut Region,
        faults: impl Iterator<Item = &Fault>,
    ) -> anyhow::Result<()> {
        for fault in faults {
            if !self.is_due(fault).await {
                continue;
            }
            let (what, lasts) = (&fault.what, fault.lasts);
            match what {
                What::Kill { victim, .. } => {
                    let (_, node) = self.network.sight.find(region.number(), *victim).await;
                    region.kill(node).await?;
                    self.begins(what, region.name(node));
                    sleep(lasts).await;
                    region.restart(node)?;
                }
                What::Pause { victim, .. } => {
                    let (_, node) = self.network.sight.find(region.number(), *victim).await;
                    region.pause(node).await?;
                    self.begins(what, region.name(node));
                    sleep(lasts).await;
                    region.resume(node).await?;
                }
                What::PowerOff { .. } => {
                    for node in 0..NODES {
                        region.kill(node).await?;
                    }
                    self.begins(what, "");
                    sleep(lasts).await;
                    (0..NODES).try_for_each(|node| region.restart(node))?;
                }
                What::Wipe { victim, returns, .. } => {
                    let (_, node) = self.network.sight.find(region.number(), *victim).await;
                    if !self.replace(region, node, fault, *returns).await? {
                        // One more fault could cost it its quorum.
                        return Ok(());
                    }
                }
                What::FullDisk { victim, filling, .. } => {
                    let (_, node) = self.network.sight.find(region.number(), *victim).await;
                    let Some(node) = region.fillable(node) else { continue };
                    self.fill(region, node, fault, *filling).await?;
                }
                What::NodeCut { victim, others, loss, .. } => {
                    let victim = self.network.sight.find(region.number(), *victim).await;
                    let ways = ways(victim, *others, *loss);
                    ways.iter().for_each(|way| self.network.wires.set_cut(*way, true));
                    self.begins(what, region.name(victim.1));
                    sleep(lasts).await;
                    ways.iter().for_each(|way| self.network.wires.set_cut(*way, false));
                }
                What::NodeDelay { by, .. } => {
                    self.network.wires.set_delay(region.number(), *by);
                    self.begins(what, "");
                    sleep(lasts).await;
                    self.network.wires.set_delay(region.number(), Duration::ZERO);
                }
                What::Cut { .. } | What::Delay { .. } | What::Jump { .. } | What::Skew { .. } => {
                    unreachable!("{what} is on another line")
                }
            }
        }
        Ok(())
    }

    /// A node is wiped, and after a while another takes its place, perhaps after the old one was tried
    /// once more. False if the new one does not come to vote.
    async fn replace(
        &self,
        region: &mut Region,
        node: usize,
        fault: &Fault,
        returns: bool,
    ) -> anyhow::Result<bool> {
        region.wipe(node).await?;
        self.begins(&fault.what, region.name(node));
        sleep(fault.lasts).await;
        let patience = self.patience;
        if returns && region.notices(node, patience).await? {
            self.done.lock().noticed += 1;
        } else if returns {
            let name = region.name(node);
            self.fails(format!("{name} came back without its data and runs on after {patience:?}"));
        }
        let votes = region.replace(node, patience).await?;
        let id = self.network.sight.id((region.number(), node));
        let name = region.name(node);
        if votes {
            self.done.lock().replaced += 1;
            self.say(&format!("node {id} votes in the place of {name}"));
        } else {
            self.fails(format!(
                "node {id}, new in the place of {name}, has no vote in {patience:?}"
            ));
        }
        Ok(votes)
    }

    /// A node's disk is full for a while.
    async fn fill(
        &self,
        region: &mut Region,
        node: usize,
        fault: &Fault,
        filling: Filling,
    ) -> anyhow::Result<()> {
        region.fill(node, filling.left).await?;
        self.begins(&fault.what, region.name(node));
        let (began, half) = (Instant::now(), fault.lasts / 2);
        let mut restarts = filling.restart;
        while began.elapsed() < fault.lasts {
            let left = fault.lasts.saturating_sub(began.elapsed());
            sleep(FILL_AGAIN.min(left)).await;
            if filling.greedy {
                region.fill(node, 0).await?;
            }
            if restarts && began.elapsed() >= half {
                restarts = false;
                region.kill(node).await?;
                region.restart(node)?;
            }
        }
        region.empty(node).await
    }

    async fn between(&self, faults: impl Iterator<Item = &Fault>) -> anyhow::Result<()> {
        let links = &self.network.links;
        for fault in faults {
            if !self.is_due(fault).await {
                continue;
            }
            match &fault.what {
                What::Cut { links: cut } => {
                    cut.iter().for_each(|link| links.set_cut(*link, true));
                    self.begins(&fault.what, "");
                    sleep(fault.lasts).await;
                    cut.iter().for_each(|link| links.set_cut(*link, false));
                }
                What::Delay { between, by } => {
                    links.set_delay(*between, *by);
                    self.begins(&fault.what, "");
                    sleep(fault.lasts).await;
                    links.set_delay(*between, Duration::ZERO);
                }
                what => unreachable!("{what} is on another line"),
            }
        }
        Ok(())
    }

    async fn of_clocks(&self, faults: impl Iterator<Item = &Fault>) -> anyhow::Result<()> {
        let Network { clocks, sight, .. } = self.network;
        for fault in faults {
            if !self.is_due(fault).await {
                continue;
            }
            let (nodes, by_ms) = match &fault.what {
                What::Jump { region, victim, by_ms } => {
                    (vec![sight.find(*region, *victim).await], *by_ms)
                }
                What::Skew { region, by_ms } => {
                    ((0..NODES).map(|node| (*region, node)).collect(), *by_ms)
                }
                what => unreachable!("{what} is on another line"),
            };
            nodes.iter().try_for_each(|at| clocks.set(*at, by_ms))?;
            self.begins(&fault.what, "");
            sleep(fault.lasts).await;
            nodes.iter().try_for_each(|at| clocks.set(*at, 0))?;
        }
        Ok(())
    }
}

/// The ways that are cut between a node and `others` of its region.
fn ways(victim: NodeAt, others: usize, loss: Loss) -> Vec<(NodeAt, NodeAt)> {
    let (region, node) = victim;
    let others = (1..=others).map(|step| (region, (node + step) % NODES));
    others
        .flat_map(|other| match loss {
            Loss::Both => vec![(victim, other), (other, victim)],
            Loss::To => vec![(other, victim)],
            Loss::From => vec![(victim, other)],
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deaf_node_hears_nothing_of_those_that_it_is_cut_off_from() {
        assert_eq!(ways((1, 2), 1, Loss::To), [((1, 0), (1, 2))]);
        assert_eq!(ways((1, 0), 2, Loss::From), [((1, 0), (1, 1)), ((1, 0), (1, 2))]);
        let both = ways((0, 1), 2, Loss::Both);
        assert_eq!(both.len(), 4);
        assert!(both.contains(&((0, 0), (0, 1))) && both.contains(&((0, 1), (0, 2))));
    }
}
