//! What happens to the regions while they are written to: a cut, a death, a return, a reunion.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anabranch_core::RegionName;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::cluster::Cluster;
use super::ledger::Ledger;
use super::sight::Sights;

/// Parts of the whole, in time or in events, after which each thing happens.
const CUT_AT: f64 = 0.25;
const KILL_AT: f64 = 0.40;
const RESTART_AT: f64 = 0.55;
const HEAL_AT: f64 = 0.70;
/// How long the death of a leader is waited out, if no other leads.
const SUCCESSION_WITHIN: Duration = Duration::from_secs(10);
/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// What happened, and when.
#[derive(Debug, Default, Clone)]
pub struct Story {
    /// The region that was cut off, and when.
    pub cut: Option<(RegionName, Instant)>,
    /// The region and number of the node that died.
    pub killed: Option<(RegionName, u64)>,
    /// When the cables were mended, and what every region had acknowledged by then.
    pub healed: Option<(Instant, BTreeMap<RegionName, u64>)>,
}

/// What the scenes act on and tell.
pub struct Stage<'a> {
    /// The regions.
    pub cluster: &'a mut Cluster,
    /// Their names, in the cluster's order.
    pub regions: &'a [RegionName],
    /// What they say of themselves.
    pub sights: &'a Sights,
    /// What clients were told.
    pub ledger: &'a Arc<Mutex<Ledger>>,
    /// What is going on, for people.
    pub phase: &'a watch::Sender<String>,
}

impl Stage<'_> {
    fn say(&self, phase: impl Into<String>) {
        let phase = phase.into();
        tracing::info!(phase, "the next scene");
        self.phase.send_replace(phase);
    }

    /// Plays all scenes along `progress`, which rises to 1.
    ///
    /// # Errors
    /// If the node that died does not start again.
    pub async fn play(&mut self, progress: impl Fn() -> f64) -> anyhow::Result<Story> {
        let mut story = Story::default();
        let until = async |part: f64| {
            while progress() < part {
                sleep(LOOK).await;
            }
        };
        self.say("all regions connected");
        until(CUT_AT).await;
        let cut = self.regions.len().checked_sub(1).filter(|last| *last > 0);
        if let Some(region) = cut {
            self.cluster.cut_off(region);
            story.cut = Some((self.regions[region].clone(), Instant::now()));
            self.say(format!("{} is cut off, all go on writing", self.regions[region]));
        }
        until(KILL_AT).await;
        // The first region is another than the last, unless there is only one.
        let (region, place) = (0, self.leader_of(0));
        let victim = format!("node {} of {}", place + 1, self.regions[region]);
        self.say(format!("{victim} dies"));
        self.cluster.kill_node(region, place).await;
        story.killed = Some((self.regions[region].clone(), place as u64 + 1));
        self.say(match &story.cut {
            Some((cut, _)) => format!("{victim} is dead, {cut} still cut off"),
            None => format!("{victim} is dead"),
        });
        self.succession(region, place).await;
        until(RESTART_AT).await;
        self.say(format!("{victim} starts again from its folder"));
        self.cluster.start_node(region, place).await?;
        until(HEAL_AT).await;
        if let Some(region) = cut {
            self.cluster.heal(region);
            story.healed = Some((Instant::now(), self.ledger.lock().heads()));
            self.say(format!("{} is back", self.regions[region]));
        }
        until(1.0).await;
        self.say("writing ends");
        Ok(story)
    }

    /// Waits until another node than the one that died leads, so that its death is seen to be
    /// survived; a bounded time, because nothing later depends on it.
    async fn succession(&self, region: usize, died: usize) {
        let other = || {
            let sights = self.sights.lock();
            let leader = sights.get(&self.regions[region]).map_or(0, |sight| sight.leader);
            leader != 0 && leader != died as u64 + 1
        };
        let elected = async {
            while !other() {
                sleep(LOOK).await;
            }
        };
        if timeout(SUCCESSION_WITHIN, elected).await.is_err() {
            tracing::warn!(region = %self.regions[region], "no other node leads yet");
        }
    }

    /// Place of the node that leads a region; the first one if none is known to.
    fn leader_of(&self, region: usize) -> usize {
        let sights = self.sights.lock();
        let leader = sights.get(&self.regions[region]).map_or(0, |sight| sight.leader);
        usize::try_from(leader).unwrap_or_default().saturating_sub(1)
    }
}
