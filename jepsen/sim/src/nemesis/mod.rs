//! Lets things go wrong, and right again, each at its time; and does meanwhile what an operator's
//! machinery does: restarts processes that ended, and presses for the members that are wanted.

mod fault;
mod plan;
mod scene;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anabranch_log::disk::{Disk, MemoryDisk};
use tokio::sync::watch;

pub use fault::{Fault, Kind, What};
pub use plan::{Choice, Plan};

use crate::cluster::{Cluster, NodeAt, Order};

/// How often ended processes are looked for, and members pressed for.
const TEND_EVERY: Duration = Duration::from_millis(1_000);
/// Where a node keeps its log, below its data folder.
const LOG_FOLDER: &str = "shard-0/log";

/// A plan under way.
pub struct Nemesis {
    plan: Plan,
    /// Begins and ends, by time: when, whether it is an end, which fault.
    turns: Vec<(Duration, bool, usize)>,
    next: usize,
    struck: BTreeMap<Kind, u32>,
    /// Faults that hold a node down now.
    down: BTreeMap<NodeAt, BTreeSet<usize>>,
    /// Nodes that never come back.
    gone: BTreeSet<NodeAt>,
    /// Faults that pause a node now.
    paused: BTreeMap<NodeAt, BTreeSet<usize>>,
    /// Faults that cut a way now.
    cuts: BTreeMap<(NodeAt, NodeAt), BTreeSet<usize>>,
    /// Whom faults that strike a leader struck.
    leaders: BTreeMap<usize, NodeAt>,
    /// Faults that press now.
    pressing: BTreeSet<usize>,
    overload: watch::Sender<bool>,
    /// Nodes whose place another takes.
    replaced: BTreeSet<NodeAt>,
    /// Voters that a region shall have, where that was touched.
    voters: BTreeMap<usize, BTreeSet<NodeAt>>,
    /// Disks of a region as they were when it was copied.
    copies: BTreeMap<usize, Vec<MemoryDisk>>,
    tended: Duration,
}

impl Nemesis {
    /// Nothing has happened yet. `overload` tells clients when to press.
    pub fn new(plan: Plan, overload: watch::Sender<bool>) -> Self {
        let mut turns = Vec::new();
        for (nth, fault) in plan.active() {
            turns.extend([(fault.at, false, nth), (fault.until, true, nth)]);
        }
        turns.sort();
        Self {
            plan,
            turns,
            next: 0,
            struck: BTreeMap::new(),
            down: BTreeMap::new(),
            gone: BTreeSet::new(),
            paused: BTreeMap::new(),
            cuts: BTreeMap::new(),
            leaders: BTreeMap::new(),
            pressing: BTreeSet::new(),
            overload,
            replaced: BTreeSet::new(),
            voters: BTreeMap::new(),
            copies: BTreeMap::new(),
            tended: Duration::ZERO,
        }
    }

    /// What was planned.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }
    /// How often each kind really struck.
    pub fn struck(&self) -> &BTreeMap<Kind, u32> {
        &self.struck
    }
    /// Nodes that never come back.
    pub fn gone(&self) -> &BTreeSet<NodeAt> {
        &self.gone
    }

    /// Regions that are lost for good, or came back as somebody else than they were: the others go on
    /// without them.
    pub fn given_up(&self) -> BTreeSet<usize> {
        let regions = self.plan.active().filter_map(|(_, fault)| match fault.what {
            What::LostRegion(region)
            | What::RebuiltRegion(region)
            | What::RestoredRegion(region) => Some(region),
            _ => None,
        });
        regions.collect()
    }

    /// Takes the regions that the others go on without down for good. One that came back with less than
    /// it had may still have events that nobody else has, and nothing more is to come in while the
    /// others are compared.
    pub fn leave_behind(&mut self, cluster: &mut Cluster) {
        let regions = self.given_up().into_iter();
        let nodes: Vec<NodeAt> = regions.flat_map(|region| cluster.region_nodes(region)).collect();
        for at in nodes {
            if self.gone.insert(at) {
                cluster.power_off(at);
            }
        }
    }

    /// Does what is due. Call between steps.
    pub fn turn(&mut self, cluster: &mut Cluster) {
        while let Some((at, ends, nth)) = self.turns.get(self.next).copied() {
            if at > cluster.elapsed() {
                break;
            }
            self.next += 1;
            let Fault { what, .. } = self.plan.faults[nth].clone();
            if ends {
                self.end(cluster, nth, &what);
            } else if self.begin(cluster, nth, &what) {
                cluster.journal().note(format!("fault {nth}: {}", self.plan.faults[nth]));
                *self.struck.entry(what.kind()).or_default() += 1;
            }
        }
        if cluster.elapsed() >= self.tended + TEND_EVERY {
            self.tended = cluster.elapsed();
            self.tend(cluster);
        }
    }

    /// Ends everything that is not for good.
    pub fn heal(&mut self, cluster: &mut Cluster) {
        while let Some((_, ends, nth)) = self.turns.get(self.next).copied() {
            self.next += 1;
            if ends {
                self.end(cluster, nth, &self.plan.faults[nth].what.clone());
            }
        }
        cluster.weather().calm();
        cluster.set_distances();
        let seats: Vec<_> = cluster.seats().cloned().collect();
        for seat in seats {
            seat.clock.set_right();
            seat.storage.pace.heal();
            seat.storage.disk.set_capacity(None);
        }
        self.tend(cluster);
    }

    /// Whether the regions have the voters that they shall have.
    pub fn is_settled(&self, cluster: &Cluster) -> bool {
        let left_to = self.given_up();
        let mut touched = self.voters.iter().filter(|(region, _)| !left_to.contains(region));
        let mut replaced = self.replaced.iter().filter(|at| !left_to.contains(&at.0));
        touched.all(|(region, wanted)| &voters_of(cluster, *region) == wanted)
            && replaced.all(|at| self.gone.contains(at))
    }

    /// Whether all of the region's nodes vote: one of them may be lost for good then, or leave.
    fn is_whole(&self, cluster: &Cluster, region: usize) -> bool {
        let voters = voters_of(cluster, region);
        voters.len() == cluster.shape().nodes[region] && voters == self.wanted(cluster, region)
    }

    fn is_up(&self, cluster: &Cluster, at: NodeAt) -> bool {
        cluster.seat(at).serves() && !self.gone.contains(&at)
    }

    fn begin(&mut self, cluster: &mut Cluster, nth: usize, what: &What) -> bool {
        match what {
            What::Down { nodes, power, .. } => {
                let up: Vec<NodeAt> =
                    nodes.iter().copied().filter(|at| self.is_up(cluster, *at)).collect();
                up.iter().for_each(|at| self.take_down(cluster, nth, *at, *power));
                !up.is_empty()
            }
            What::Drain(at) => {
                self.is_up(cluster, *at) && {
                    self.down.entry(*at).or_default().insert(nth);
                    cluster.seat(*at).order(Order::Drain);
                    true
                }
            }
            What::FailedSync(at) => {
                self.is_up(cluster, *at) && {
                    cluster.seat(*at).storage.disk.fail_sync(1);
                    true
                }
            }
            What::FullDisk(at, room) => {
                self.is_up(cluster, *at) && {
                    let disk = &cluster.seat(*at).storage.disk;
                    disk.set_capacity(Some(disk.used() + room));
                    true
                }
            }
            What::SlowDisk(at, pace) => {
                self.is_up(cluster, *at) && {
                    cluster.seat(*at).storage.pace.slow(*pace);
                    true
                }
            }
            What::LostCheckpoints(at) => {
                self.is_up(cluster, *at) && {
                    self.take_down(cluster, nth, *at, false);
                    cluster.seat(*at).storage.lose_checkpoints();
                    true
                }
            }
            What::RottenBit(at, bit) => self.rot(cluster, nth, *at, *bit),
            What::Pause(at) => self.is_up(cluster, *at) && self.pause(cluster, nth, *at),
            What::Cut { pairs, .. } => self.cut(cluster, nth, pairs),
            What::Leader { kind, region } => {
                let Some(leader) = leader_of(cluster, *region) else { return false };
                self.leaders.insert(nth, leader);
                match kind {
                    Kind::LeaderPause => self.pause(cluster, nth, leader),
                    _ => self.cut(cluster, nth, &around(cluster, leader)),
                }
            }
            What::LostDisk(at) => self.lose_disk(cluster, nth, *at),
            What::Weather { regions: (one, other), conditions, .. } => {
                cluster.set_weather(*one, *other, *conditions);
                true
            }
            What::Delay(one, other, way) => {
                cluster.set_delay(*one, *other, *way);
                true
            }
            What::Jump { nodes, by_ms, .. } => {
                nodes.iter().for_each(|at| cluster.seat(*at).clock.jump(*by_ms));
                true
            }
            What::Drift(at, ppm) => {
                cluster.seat(*at).clock.drift(*ppm, cluster.elapsed());
                true
            }
            What::Membership(at) => {
                let mut wanted = self.wanted(cluster, at.0);
                self.is_whole(cluster, at.0) && wanted.remove(at) && {
                    self.voters.insert(at.0, wanted);
                    true
                }
            }
            What::EmptyNode(at) => {
                self.is_up(cluster, *at) && self.is_whole(cluster, at.0) && {
                    self.replace(cluster, *at);
                    true
                }
            }
            What::Overload => {
                self.pressing.insert(nth);
                self.overload.send_replace(true);
                true
            }
            What::LostRegion(region) => {
                for at in cluster.region_nodes(*region) {
                    self.gone.insert(at);
                    cluster.power_off(at);
                }
                true
            }
            What::RebuiltRegion(region) => {
                for at in cluster.region_nodes(*region) {
                    cluster.power_off(at);
                    cluster.seat(at).storage.lose();
                }
                cluster.region_nodes(*region).into_iter().for_each(|at| cluster.restart(at));
                true
            }
            What::RestoredRegion(region) => {
                let copy = |at| {
                    let copy = cluster.seat(at).storage.disk.fork(0);
                    copy.crash();
                    copy
                };
                let copies = cluster.region_nodes(*region).into_iter().map(copy).collect();
                self.copies.insert(*region, copies);
                true
            }
        }
    }

    fn end(&mut self, cluster: &mut Cluster, nth: usize, what: &What) {
        match what {
            What::Down { nodes, .. } => {
                nodes.iter().for_each(|at| self.bring_up(cluster, nth, *at));
            }
            What::Drain(at) | What::LostCheckpoints(at) => self.bring_up(cluster, nth, *at),
            What::FullDisk(at, _) => cluster.seat(*at).storage.disk.set_capacity(None),
            What::SlowDisk(at, _) => cluster.seat(*at).storage.pace.heal(),
            What::Pause(at) => self.unpause(cluster, nth, *at),
            What::Cut { pairs, .. } => self.uncut(cluster, nth, pairs),
            What::Leader { kind, .. } => match (self.leaders.remove(&nth), kind) {
                (Some(leader), Kind::LeaderPause) => self.unpause(cluster, nth, leader),
                (Some(leader), _) => self.uncut(cluster, nth, &around(cluster, leader)),
                (None, _) => {}
            },
            What::Weather { regions: (one, other), .. } => {
                cluster.set_weather(*one, *other, Default::default());
            }
            What::Delay(..) => cluster.set_distances(),
            What::Jump { nodes, .. } => {
                nodes.iter().for_each(|at| cluster.seat(*at).clock.set_right());
            }
            What::Drift(at, _) => cluster.seat(*at).clock.set_right(),
            What::Membership(at) => {
                let replaced = self.replaced.contains(at);
                if let Some(wanted) = self.voters.get_mut(&at.0).filter(|_| !replaced) {
                    wanted.insert(*at);
                }
            }
            What::Overload => {
                self.pressing.remove(&nth);
                self.overload.send_replace(!self.pressing.is_empty());
            }
            What::RestoredRegion(region) => {
                let Some(copies) = self.copies.remove(region) else { return };
                cluster.journal().note("the old copy is put back");
                for (at, copy) in cluster.region_nodes(*region).into_iter().zip(copies) {
                    cluster.power_off(at);
                    cluster.seat(at).storage.set_back(&copy);
                }
                cluster.region_nodes(*region).into_iter().for_each(|at| cluster.restart(at));
            }
            What::RottenBit(at, _) => {
                self.bring_up(cluster, nth, *at);
            }
            What::FailedSync(_)
            | What::LostDisk(_)
            | What::EmptyNode(_)
            | What::LostRegion(_)
            | What::RebuiltRegion(_) => {}
        }
    }

    fn pause(&mut self, cluster: &mut Cluster, nth: usize, at: NodeAt) -> bool {
        self.paused.entry(at).or_default().insert(nth);
        cluster.seat(at).gate.close();
        true
    }

    fn unpause(&mut self, cluster: &mut Cluster, nth: usize, at: NodeAt) {
        if let Some(faults) = self.paused.get_mut(&at) {
            faults.remove(&nth);
            if faults.is_empty() {
                cluster.seat(at).gate.open();
            }
        }
    }

    fn cut(&mut self, cluster: &mut Cluster, nth: usize, pairs: &[(NodeAt, NodeAt)]) -> bool {
        for (from, to) in pairs {
            self.cuts.entry((*from, *to)).or_default().insert(nth);
            cluster.cut(*from, *to);
        }
        true
    }

    fn uncut(&mut self, cluster: &mut Cluster, nth: usize, pairs: &[(NodeAt, NodeAt)]) {
        for (from, to) in pairs {
            let faults = self.cuts.entry((*from, *to)).or_default();
            if faults.remove(&nth) && faults.is_empty() {
                cluster.heal(*from, *to);
            }
        }
    }

    fn take_down(&mut self, cluster: &mut Cluster, nth: usize, at: NodeAt, power: bool) {
        self.down.entry(at).or_default().insert(nth);
        if power { cluster.power_off(at) } else { cluster.kill(at) }
    }

    fn bring_up(&mut self, cluster: &mut Cluster, nth: usize, at: NodeAt) {
        let Some(faults) = self.down.get_mut(&at) else { return };
        let mine = faults.remove(&nth);
        if mine && faults.is_empty() && !self.gone.contains(&at) && !cluster.runs(at) {
            cluster.kill(at);
            cluster.restart(at);
        }
    }

    /// Flips a bit of a sealed segment of a node that was just killed, and lets it start again: what
    /// it held in memory does not hide the damage. A spare node takes its place.
    fn rot(&mut self, cluster: &mut Cluster, nth: usize, at: NodeAt, bit: u64) -> bool {
        if !self.is_up(cluster, at) || !self.is_whole(cluster, at.0) {
            return false;
        }
        let disk = cluster.seat(at).storage.disk.clone();
        let names = disk.list(Path::new(LOG_FOLDER)).unwrap_or_default();
        let segments: Vec<&String> = names.iter().filter(|name| name.ends_with(".seg")).collect();
        let [sealed @ .., _active] = &segments[..] else { return false };
        if sealed.is_empty() {
            return false;
        }
        let file: PathBuf = Path::new(LOG_FOLDER).join(sealed[bit as usize % sealed.len()]);
        let bits = disk.content(&file).map_or(0, |content| content.len() as u64 * 8);
        self.take_down(cluster, nth, at, false);
        disk.flip_bit(&file, bit % bits);
        self.bring_up(cluster, nth, at);
        self.replace(cluster, at);
        true
    }

    /// A node loses its disk and comes back under its old id: what an orchestrator does that gives it a
    /// new volume. A spare node takes its place.
    fn lose_disk(&mut self, cluster: &mut Cluster, nth: usize, at: NodeAt) -> bool {
        if !self.is_whole(cluster, at.0) {
            return false;
        }
        self.take_down(cluster, nth, at, true);
        cluster.seat(at).storage.lose();
        self.bring_up(cluster, nth, at);
        self.replace(cluster, at);
        true
    }

    /// The region's spare node starts with an empty disk and takes the place of `out`.
    fn replace(&mut self, cluster: &mut Cluster, out: NodeAt) {
        let spare = cluster.spare_of(out.0);
        cluster.restart(spare);
        self.replaced.insert(out);
        let mut wanted = self.wanted(cluster, out.0);
        wanted.remove(&out);
        wanted.insert(spare);
        self.voters.insert(out.0, wanted);
    }

    fn wanted(&self, cluster: &Cluster, region: usize) -> BTreeSet<NodeAt> {
        let all = || cluster.shape().nodes_of(region).collect();
        self.voters.get(&region).cloned().unwrap_or_else(all)
    }

    fn tend(&mut self, cluster: &mut Cluster) {
        let seats: Vec<_> = cluster.seats().cloned().collect();
        for seat in &seats {
            let held = self.down.get(&seat.at).is_some_and(|faults| !faults.is_empty());
            let wanted = !held && !seat.is_dormant() && !self.gone.contains(&seat.at);
            if wanted && !cluster.runs(seat.at) {
                cluster.kill(seat.at);
                if seat.ended().is_some() {
                    // A process that died of its disk leaves what a power loss leaves.
                    seat.storage.disk.crash();
                }
                cluster.restart(seat.at);
            }
        }
        for (region, wanted) in self.voters.clone() {
            if voters_of(cluster, region) != wanted {
                let members = cluster.members(&wanted);
                for at in cluster.region_nodes(region) {
                    cluster.seat(at).order(Order::Voters(members.clone()));
                }
            } else {
                self.retire(cluster, region, &wanted);
            }
        }
    }

    /// Nodes that were replaced are switched off once they have no vote any more.
    fn retire(&mut self, cluster: &mut Cluster, region: usize, voters: &BTreeSet<NodeAt>) {
        for at in self.replaced.iter().copied().filter(|at| at.0 == region) {
            if !voters.contains(&at) && self.gone.insert(at) {
                cluster.journal().note(format!("{at} is switched off, its place is taken"));
                cluster.power_off(at);
            }
        }
    }
}

/// Who leads the region: of those that think they do, the one in the latest term.
fn leader_of(cluster: &Cluster, region: usize) -> Option<NodeAt> {
    let term = |at: &NodeAt| {
        cluster.seat(*at).with(|node| {
            let shard = node.shards().values().next()?;
            let seen = shard.raft().leadership().borrow().clone();
            seen.mine.then_some(seen.term)
        })?
    };
    let leads = cluster.region_nodes(region).into_iter().filter_map(|at| Some((term(&at)?, at)));
    leads.max().map(|(_, at)| at)
}

/// All ways between a node and the others of its region.
fn around(cluster: &Cluster, at: NodeAt) -> Vec<(NodeAt, NodeAt)> {
    let others = cluster.region_nodes(at.0).into_iter().filter(|other| *other != at);
    others.flat_map(|other| [(at, other), (other, at)]).collect()
}

/// The region's voters, as its leader says; none while there is no leader, or while they change: then
/// there are more ways to lose a quorum than their number tells.
fn voters_of(cluster: &Cluster, region: usize) -> BTreeSet<NodeAt> {
    let told = |at: NodeAt| {
        cluster.seat(at).with(|node| {
            let shard = node.shards().values().next()?;
            let leads = shard.raft().leadership().borrow().ready;
            let status = shard.raft().status();
            let voters = status.voters.into_keys();
            (leads && !status.changing)
                .then(|| voters.map(|id| NodeAt(region, id as usize - 1)).collect())
        })?
    };
    cluster.region_nodes(region).into_iter().find_map(told).unwrap_or_default()
}
