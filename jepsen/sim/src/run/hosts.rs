//! What runs on the hosts that are no nodes: each region's clients, and the judge.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anabranch_history::Ledger;
use anabranch_history::evidence::{
    Blame, Listed, Print, RegionRead, Selection, Served, Subscribed,
};
use anabranch_workload::harvest::{self, Agreed, Nodes};
use anabranch_workload::{Plan, Sites, Workload};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::timeout;

use super::READING;

/// Where the run stands; clients and the judge wait for their turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Clients work, faults happen.
    Work,
    /// The faults are over; clients finish what they are at.
    Rest,
    /// Do the regions agree?
    Agree,
    /// Subscribers are given what they still lack, and everything is read.
    Read,
}

/// What the hosts bring back.
#[derive(Default)]
pub struct Gathered {
    /// Clients' hosts that have finished writing.
    pub rested: usize,
    /// What the judge works with.
    pub judging: Option<Judging>,
    /// Numbers of the regions that nobody has to do without.
    pub left: Vec<usize>,
    /// What the regions agree on, or what still differs.
    pub agreed: Option<Result<Agreed, Vec<String>>>,
    /// What subscribers were given.
    pub subscribed: Vec<Subscribed>,
    /// What regions show.
    pub regions: BTreeMap<String, RegionRead>,
    /// Parts of it.
    pub selections: Vec<Selection>,
    /// What nodes serve of aggregates.
    pub served: Vec<Served>,
    /// What nodes list of conflicts.
    pub listed: Vec<Listed>,
    /// What nodes hold.
    pub prints: BTreeMap<String, Print>,
    /// Whom nodes wait for.
    pub blames: BTreeMap<String, Blame>,
    /// What could not be read.
    pub unread: Vec<String>,
}

/// What the judge works with.
#[derive(Clone)]
pub struct Judging {
    /// What is left of the cluster.
    pub sites: Arc<dyn Sites>,
    /// Regions that are lost for good; without any, everything must become final.
    pub lost: BTreeSet<String>,
}

/// What was gathered so far, on whatever host.
pub type Shared = Arc<Mutex<Gathered>>;

/// The clients of a region.
pub struct Clients {
    /// The cluster.
    pub sites: Arc<dyn Sites>,
    /// What they do.
    pub work: Plan,
    /// Where they enter it.
    pub ledger: Arc<Ledger>,
    /// Number of their region.
    pub home: usize,
    /// What comes of it.
    pub shared: Shared,
}

impl Clients {
    /// Works, rests, reads.
    pub async fn run(
        self,
        mut stages: watch::Receiver<Stage>,
        mut pressed: watch::Receiver<bool>,
    ) -> turmoil::Result {
        let mut workload = Workload::start(&self.sites, &self.work, &self.ledger, self.home);
        let control = workload.control();
        tokio::spawn(async move {
            while pressed.changed().await.is_ok() {
                control.surge(*pressed.borrow_and_update());
            }
        });
        stages.wait_for(|stage| *stage != Stage::Work).await?;
        workload.stop_writing().await;
        self.shared.lock().rested += 1;
        stages.wait_for(|stage| *stage == Stage::Read).await?;
        let agreed = self.shared.lock().agreed.clone();
        let (regional, global) = match agreed {
            Some(Ok(agreed)) => (agreed.events, agreed.global),
            // What subscribers have so far counts.
            Some(Err(_)) | None => (0, 0),
        };
        let left = self.shared.lock().left.clone();
        let subscribed = workload.finish_reading(regional, global, left, READING).await;
        let mut shared = self.shared.lock();
        shared.subscribed.extend(subscribed);
        // Hosts end in any order.
        shared.subscribed.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(())
    }
}

/// Waits until the regions agree, and reads them.
pub async fn judge(
    seed: u64,
    patience: Duration,
    mut stages: watch::Receiver<Stage>,
    shared: Shared,
) -> turmoil::Result {
    stages.wait_for(|stage| *stage == Stage::Agree).await?;
    let Judging { sites, lost } = shared.lock().judging.clone().expect("set before");
    let nodes = Nodes::all(&*sites);
    let agreed = nodes.converge(lost.is_empty(), patience).await;
    shared.lock().agreed = Some(agreed);
    stages.wait_for(|stage| *stage == Stage::Read).await?;
    for (home, name) in sites.regions().iter().enumerate() {
        let reading = async {
            let read = harvest::read(&*sites, &[home], seed).await?;
            let parts = harvest::select(&*sites, &read, seed).await?;
            anyhow::Ok((read, parts))
        };
        match timeout(READING, reading).await {
            Ok(Ok((read, parts))) => {
                let mut shared = shared.lock();
                shared.regions.extend(read);
                shared.selections.extend(parts);
            }
            Ok(Err(error)) => shared.lock().unread.push(format!("{error:#}")),
            Err(_) => shared.lock().unread.push(format!("read {name}: takes too long")),
        }
    }
    match nodes.prints().await {
        Ok(prints) => shared.lock().prints = prints,
        Err(error) => shared.lock().unread.push(format!("{error:#}")),
    }
    match timeout(READING, nodes.served()).await {
        Ok(Ok(served)) => shared.lock().served = served,
        Ok(Err(error)) => shared.lock().unread.push(format!("{error:#}")),
        Err(_) => shared.lock().unread.push("read aggregates: takes too long".into()),
    }
    match timeout(READING, nodes.listed()).await {
        Ok(Ok(listed)) => shared.lock().listed = listed,
        Ok(Err(error)) => shared.lock().unread.push(format!("{error:#}")),
        Err(_) => shared.lock().unread.push("read conflicts: takes too long".into()),
    }
    let blames = nodes.blames(&lost, patience).await;
    shared.lock().blames = blames;
    Ok(())
}
