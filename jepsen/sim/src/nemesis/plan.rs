//! What goes wrong when: data, drawn from the seed before the run, so that a run can be repeated with
//! fewer faults.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::{IndexedRandom, SliceRandom};

use super::fault::{Fault, Kind, What};
use super::scene;
use crate::cluster::{NodeAt, Shape};
use crate::world::{Conditions, seeds};

/// Faults begin after this: the cluster forms and the first appends pass.
const CALM_BEFORE: Duration = Duration::from_secs(4);

/// How often something happens that changes a region for the rest of the run.
const FOR_GOOD: f64 = 0.5;

/// What faults are drawn from.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Only these kinds, and no scenes; all if empty.
    pub only: Vec<Kind>,
    /// No scenes.
    pub plain: bool,
}

/// The faults of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The kinds it was drawn from.
    pub swarm: BTreeSet<Kind>,
    /// By the time they begin.
    pub faults: Vec<Fault>,
    /// Faults that do not happen, by their number.
    pub left_out: BTreeSet<usize>,
}

impl Plan {
    /// Nothing goes wrong.
    pub fn calm() -> Self {
        Self { swarm: BTreeSet::new(), faults: Vec::new(), left_out: BTreeSet::new() }
    }

    /// Faults that happen, with their numbers.
    pub fn active(&self) -> impl Iterator<Item = (usize, &Fault)> {
        self.faults.iter().enumerate().filter(|(nth, _)| !self.left_out.contains(nth))
    }

    /// Whether a node is replaced by a spare one.
    pub fn needs_spare(&self) -> bool {
        let replaces = |what: &What| {
            matches!(what, What::EmptyNode(_) | What::RottenBit(..) | What::LostDisk(_))
        };
        self.active().any(|(_, fault)| replaces(&fault.what))
    }

    /// The faults of a seed for a cluster of `shape`, all over by `lasts` but for what is for good.
    pub fn draw(seed: u64, shape: &Shape, lasts: Duration, from: &Choice) -> Self {
        let mut random = seeds::rng(seed, "faults");
        let swarm = swarm(&mut random, shape, &from.only);
        let mut draw = Draw { shape, lasts, random, faults: Vec::new() };
        let kinds: Vec<Kind> = swarm.iter().copied().filter(|kind| !is_for_good(*kind)).collect();
        draw.fill(&kinds);
        for kind in swarm.iter().copied().filter(|kind| is_for_good(*kind)) {
            draw.for_good(kind);
        }
        let mut faults = draw.faults;
        if from.only.is_empty() && !from.plain {
            let for_good = swarm.iter().any(|kind| is_for_good(*kind));
            faults.extend(scene::draw(seeds::rng(seed, "scenes"), shape, lasts, for_good));
        }
        faults.sort_by_key(|fault| (fault.at, fault.until));
        Self { swarm, faults, left_out: BTreeSet::new() }
    }
}

/// Kinds that change the region for the rest of the run; at most one of them in a run.
fn is_for_good(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::LostRegion
            | Kind::RebuiltRegion
            | Kind::RestoredRegion
            | Kind::EmptyNode
            | Kind::RottenBit
            | Kind::LostDisk
    )
}

/// Whether a cluster of this shape can have it.
fn is_possible(kind: Kind, shape: &Shape) -> bool {
    match kind {
        Kind::EmptyNode | Kind::RottenBit | Kind::LostDisk => shape.spare().is_some(),
        Kind::Membership | Kind::LeaderCut => shape.nodes.iter().any(|nodes| *nodes >= 3),
        Kind::NodeCut | Kind::OneWayNodeCut => shape.nodes.iter().any(|nodes| *nodes >= 2),
        _ => true,
    }
}

fn swarm(random: &mut SmallRng, shape: &Shape, only: &[Kind]) -> BTreeSet<Kind> {
    let given = if only.is_empty() { &Kind::SWARM[..] } else { only };
    let possible = given.iter().copied().filter(|kind| is_possible(*kind, shape));
    let (for_good, mut kinds): (Vec<Kind>, Vec<Kind>) = possible.partition(|k| is_for_good(*k));
    kinds.shuffle(random);
    let alone = random.random_bool(0.15);
    kinds.truncate(if alone { 1 } else { random.random_range(3..=8) });
    let mut swarm: BTreeSet<Kind> = kinds.into_iter().collect();
    if swarm.is_empty() || random.random_bool(FOR_GOOD) {
        swarm.extend(for_good.choose(random));
    }
    swarm
}

struct Draw<'a> {
    shape: &'a Shape,
    lasts: Duration,
    random: SmallRng,
    faults: Vec<Fault>,
}

impl Draw<'_> {
    fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.random.random_range(from..=to))
    }
    fn region(&mut self) -> usize {
        self.random.random_range(0..self.shape.regions())
    }
    fn two_regions(&mut self) -> (usize, usize) {
        let one = self.region();
        let step = self.random.random_range(1..self.shape.regions());
        (one, (one + step) % self.shape.regions())
    }
    fn node(&mut self) -> NodeAt {
        let region = self.region();
        self.node_of(region)
    }
    fn node_of(&mut self, region: usize) -> NodeAt {
        NodeAt(region, self.random.random_range(0..self.shape.nodes[region]))
    }
    fn region_with(&mut self, least: usize) -> usize {
        let fit: Vec<usize> =
            (0..self.shape.regions()).filter(|at| self.shape.nodes[*at] >= least).collect();
        *fit.choose(&mut self.random).expect("the kind is possible")
    }

    /// Faults one after the other, some overlapping.
    fn fill(&mut self, kinds: &[Kind]) {
        if kinds.is_empty() {
            return;
        }
        let gap = *[500, 1_500, 4_000].choose(&mut self.random).expect("not empty");
        let mut at = CALM_BEFORE;
        loop {
            at += self.millis(100, 2 * gap);
            let kind = *kinds.choose(&mut self.random).expect("not empty");
            let (what, lasts) = self.fault(kind);
            let until = at + lasts;
            if at + Duration::from_secs(1) >= self.lasts {
                return;
            }
            let until = until.min(self.lasts);
            self.faults.push(Fault { at, until, what });
        }
    }

    fn fault(&mut self, kind: Kind) -> (What, Duration) {
        match kind {
            Kind::Kill | Kind::PowerLoss => {
                let down = What::Down { kind, nodes: vec![self.node()], power: kind != Kind::Kill };
                (down, self.millis(50, 6_000))
            }
            Kind::RegionPowerLoss => {
                let region = self.region();
                let nodes = self.shape.nodes_of(region).collect();
                (What::Down { kind, nodes, power: true }, self.millis(100, 4_000))
            }
            Kind::TotalPowerLoss => {
                let nodes = self.shape.all_nodes().collect();
                (What::Down { kind, nodes, power: true }, self.millis(100, 2_000))
            }
            Kind::Drain => (What::Drain(self.node()), self.millis(500, 4_000)),
            Kind::FailedSync => (What::FailedSync(self.node()), self.millis(1_000, 4_000)),
            Kind::FullDisk => {
                let room = self.random.random_range(0..32_768);
                (What::FullDisk(self.node(), room), self.millis(1_000, 8_000))
            }
            Kind::SlowDisk => {
                let pace = self.millis(20, 1_500);
                (What::SlowDisk(self.node(), pace), self.millis(1_000, 8_000))
            }
            Kind::LostCheckpoints => (What::LostCheckpoints(self.node()), self.millis(100, 3_000)),
            Kind::Pause => (What::Pause(self.node()), self.millis(200, 8_000)),
            Kind::NodeCut | Kind::OneWayNodeCut => {
                let region = self.region_with(2);
                let node = self.node_of(region);
                let others: Vec<NodeAt> =
                    self.shape.nodes_of(region).filter(|other| *other != node).collect();
                let some = self.random.random_range(1..=others.len());
                let chosen: Vec<NodeAt> =
                    others.choose_multiple(&mut self.random, some).copied().collect();
                let inward = self.random.random_bool(0.5);
                let pairs = pairs(&[node], &chosen, kind == Kind::NodeCut, inward);
                (What::Cut { kind, pairs }, self.millis(300, 8_000))
            }
            Kind::RegionCut | Kind::OneWayRegionCut => {
                let (one, other) = self.two_regions();
                let both = kind == Kind::RegionCut;
                let pairs = self.between(one, &[other], both);
                (What::Cut { kind, pairs }, self.millis(500, 10_000))
            }
            Kind::LongCut => {
                // Longer than QUIC's idle timeout, and than sessions are kept.
                let one = self.region();
                let others: Vec<usize> =
                    (0..self.shape.regions()).filter(|other| *other != one).collect();
                let pairs = self.between(one, &others, true);
                (What::Cut { kind, pairs }, self.millis(12_000, 20_000))
            }
            Kind::PacketLoss | Kind::Duplication | Kind::Reordering => {
                let regions = self.two_regions();
                let conditions = self.conditions(kind);
                (What::Weather { kind, regions, conditions }, self.millis(2_000, 12_000))
            }
            Kind::Delay => {
                let (one, other) = match self.random.random_bool(0.3) {
                    true => {
                        let one = self.region();
                        (one, one)
                    }
                    false => self.two_regions(),
                };
                (What::Delay(one, other, self.millis(20, 500)), self.millis(1_000, 10_000))
            }
            Kind::ClockJump => {
                let hour = 3_600_000_i64;
                let by_ms = match self.random.random_range(0..4) {
                    0 => hour,
                    1 => -hour,
                    _ => self.random.random_range(-2_000..=2_000),
                };
                (What::Jump { kind, nodes: vec![self.node()], by_ms }, self.millis(500, 10_000))
            }
            Kind::ClockSkew => {
                let region = self.region();
                let nodes = self.shape.nodes_of(region).collect();
                let by_ms = self.random.random_range(-1_500..=1_500);
                (What::Jump { kind, nodes, by_ms }, self.millis(2_000, 15_000))
            }
            Kind::ClockDrift => {
                let ppm = self.random.random_range(-50_000..=50_000);
                (What::Drift(self.node(), ppm), self.millis(3_000, 15_000))
            }
            Kind::Membership => {
                let region = self.region_with(3);
                (What::Membership(self.node_of(region)), self.millis(1_000, 6_000))
            }
            Kind::Overload => (What::Overload, self.millis(1_000, 4_000)),
            Kind::LeaderPause => {
                (What::Leader { kind, region: self.region() }, self.millis(300, 8_000))
            }
            Kind::LeaderCut => {
                let region = self.region_with(3);
                (What::Leader { kind, region }, self.millis(500, 6_000))
            }
            Kind::LostRegion
            | Kind::RebuiltRegion
            | Kind::RestoredRegion
            | Kind::EmptyNode
            | Kind::LostDisk
            | Kind::RottenBit => unreachable!("drawn elsewhere"),
        }
    }

    /// Something that is never undone, in the second half of the run.
    fn for_good(&mut self, kind: Kind) {
        let (lasts, half) = (self.lasts, self.lasts / 2);
        let late = lasts.saturating_sub(Duration::from_secs(5)).max(half);
        let at = self.millis(half.as_millis() as u64, late.as_millis() as u64);
        let region = self.region();
        let what = match kind {
            Kind::LostRegion => What::LostRegion(region),
            Kind::RebuiltRegion => What::RebuiltRegion(region),
            Kind::RestoredRegion => What::RestoredRegion(region),
            Kind::EmptyNode | Kind::RottenBit | Kind::LostDisk => {
                let region = self.shape.spare().expect("the kind is possible");
                let node = self.node_of(region);
                match kind {
                    Kind::RottenBit => What::RottenBit(node, self.random.random()),
                    Kind::LostDisk => What::LostDisk(node),
                    _ => What::EmptyNode(node),
                }
            }
            _ => unreachable!("the others pass"),
        };
        self.faults.push(Fault { at, until: lasts, what });
    }

    fn conditions(&mut self, kind: Kind) -> Conditions {
        let part = self.random.random_range(0.01..0.3);
        let jitter = self.millis(5, 60);
        match kind {
            Kind::PacketLoss => Conditions { loss: part, ..Conditions::default() },
            Kind::Duplication => Conditions { duplicate: part, jitter, ..Conditions::default() },
            _ => Conditions { reorder: part, jitter, ..Conditions::default() },
        }
    }

    fn between(&self, one: usize, others: &[usize], both: bool) -> Vec<(NodeAt, NodeAt)> {
        let these: Vec<NodeAt> = self.shape.nodes_of(one).collect();
        let those: Vec<NodeAt> =
            others.iter().flat_map(|other| self.shape.nodes_of(*other)).collect();
        pairs(&these, &those, both, false)
    }
}

fn pairs(these: &[NodeAt], those: &[NodeAt], both: bool, inward: bool) -> Vec<(NodeAt, NodeAt)> {
    let mut pairs = Vec::new();
    for one in these {
        for other in those {
            if both || !inward {
                pairs.push((*one, *other));
            }
            if both || inward {
                pairs.push((*other, *one));
            }
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    const LASTS: Duration = Duration::from_secs(40);

    fn plan(seed: u64) -> Plan {
        Plan::draw(seed, &Shape::draw(seed), LASTS, &Choice::default())
    }

    #[test]
    fn a_seed_always_gives_the_same_plan() {
        assert_eq!(plan(7), plan(7));
        assert_ne!(plan(7), plan(8));
    }

    #[test]
    fn every_kind_occurs_and_all_is_over_in_time() {
        let mut seen = BTreeSet::new();
        for seed in 0..300 {
            let plan = plan(seed);
            assert!((1..=9).contains(&plan.swarm.len()), "seed {seed}");
            for fault in &plan.faults {
                assert!(fault.at <= fault.until && fault.until <= LASTS, "seed {seed}: {fault}");
                assert!(fault.at >= CALM_BEFORE, "seed {seed}: {fault}");
                seen.insert(fault.what.kind());
            }
            let for_good = plan.faults.iter().filter(|fault| is_for_good(fault.what.kind()));
            assert!(for_good.count() <= 1, "seed {seed}");
        }
        assert_eq!(seen, Kind::all().collect());
    }

    #[test]
    fn only_what_is_asked_for_goes_wrong() {
        for seed in 0..20 {
            let only = Choice { only: vec![Kind::Pause], plain: false };
            let plan = Plan::draw(seed, &Shape::draw(seed), LASTS, &only);
            assert!(plan.faults.iter().all(|fault| fault.what.kind() == Kind::Pause));
            assert!(!plan.faults.is_empty());
        }
    }
}
