//! Scenes: a few faults in an order and at distances that chance seldom finds, each made for a window
//! that a rule of the store protects.

use std::time::Duration;

use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;

use super::fault::{Fault, Kind, What};
use crate::cluster::{NodeAt, Shape};

/// Scenes begin after this.
const CALM_BEFORE: Duration = Duration::from_secs(5);
/// How many runs have one.
const PART: f64 = 0.6;

/// What is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scene {
    /// One leader after the other is gone, and who votes loses power, on slow disks: a vote that was
    /// not synced is cast twice.
    LeadersFall,
    /// A failed sync, and a power loss some time after the process came back: what only the cache
    /// held was relied on.
    CacheRelied,
    /// A region that is cut off sets its clock ahead: what it writes then must drag nobody's clock.
    AloneAndAhead,
    /// A disk is lost while another node of the region lags behind.
    DiskLost,
}

/// The faults of a scene, if this run has one. None that is `for_good` if there is one already.
pub(super) fn draw(
    mut random: SmallRng,
    shape: &Shape,
    lasts: Duration,
    for_good: bool,
) -> Vec<Fault> {
    if !random.random_bool(PART) || lasts < CALM_BEFORE * 4 {
        return Vec::new();
    }
    let scenes = [Scene::LeadersFall, Scene::CacheRelied, Scene::AloneAndAhead, Scene::DiskLost];
    let large: Vec<usize> = (0..shape.regions()).filter(|at| shape.nodes[*at] >= 3).collect();
    let possible = |scene: &Scene| match scene {
        Scene::LeadersFall => !large.is_empty(),
        Scene::DiskLost => shape.spare().is_some() && !for_good,
        Scene::CacheRelied | Scene::AloneAndAhead => true,
    };
    // One is possible least often; one has few runs in which there is something to see.
    let weight = |scene: &Scene| match scene {
        Scene::DiskLost | Scene::AloneAndAhead => 2,
        Scene::LeadersFall | Scene::CacheRelied => 1,
    };
    let possible: Vec<Scene> = scenes.into_iter().filter(possible).collect();
    let scene = *possible.choose_weighted(&mut random, weight).expect("some always are");
    let region = match scene {
        Scene::LeadersFall => *large.choose(&mut random).expect("it is possible"),
        Scene::DiskLost => shape.spare().expect("it is possible"),
        Scene::CacheRelied | Scene::AloneAndAhead => random.random_range(0..shape.regions()),
    };
    let mut stage = Stage { random, shape, lasts, region, faults: Vec::new() };
    match scene {
        Scene::LeadersFall => stage.leaders_fall(),
        Scene::CacheRelied => stage.cache_relied(),
        Scene::AloneAndAhead => stage.alone_and_ahead(),
        Scene::DiskLost => stage.disk_lost(),
    }
    let over_in_time = |fault: &Fault| fault.at < lasts && fault.until <= lasts;
    stage.faults.retain(over_in_time);
    stage.faults
}

struct Stage<'a> {
    random: SmallRng,
    shape: &'a Shape,
    lasts: Duration,
    region: usize,
    faults: Vec<Fault>,
}

impl Stage<'_> {
    fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.random.random_range(from..=to))
    }
    fn node(&mut self) -> NodeAt {
        NodeAt(self.region, self.random.random_range(0..self.shape.nodes[self.region]))
    }
    fn put(&mut self, at: Duration, for_: Duration, what: What) {
        self.faults.push(Fault { at, until: at + for_, what });
    }
    fn begin(&mut self) -> Duration {
        let late = self.lasts.saturating_sub(Duration::from_secs(12)).max(CALM_BEFORE);
        self.millis(CALM_BEFORE.as_millis() as u64, late.as_millis() as u64)
    }

    fn leaders_fall(&mut self) {
        let mut at = self.begin();
        let region = self.region;
        let slow = self.millis(50, 400);
        for node in self.shape.nodes_of(region).collect::<Vec<_>>() {
            self.put(at, Duration::from_secs(9), What::SlowDisk(node, slow));
        }
        for _ in 0..self.random.random_range(2..=4) {
            let kind = *[Kind::LeaderCut, Kind::LeaderCut, Kind::LeaderPause]
                .choose(&mut self.random)
                .expect("not empty");
            let gone = self.millis(900, 2_200);
            self.put(at, gone, What::Leader { kind, region });
            // About when the next election is under way.
            let elects = at + self.millis(500, 1_600);
            let (nodes, down) = (vec![self.node()], self.millis(20, 150));
            self.put(elects, down, What::Down { kind: Kind::PowerLoss, nodes, power: true });
            at = elects + self.millis(50, 700);
        }
    }

    fn cache_relied(&mut self) {
        let mut at = self.begin();
        for _ in 0..self.random.random_range(1..=3) {
            let node = self.node();
            let failed = self.millis(500, 1_500);
            self.put(at, failed, What::FailedSync(node));
            let lost = at + failed + self.millis(1_200, 3_000);
            let down = self.millis(50, 500);
            let power = What::Down { kind: Kind::PowerLoss, nodes: vec![node], power: true };
            self.put(lost, down, power);
            at = lost + self.millis(500, 2_000);
        }
    }

    fn alone_and_ahead(&mut self) {
        let at = self.begin();
        let (one, cut) = (self.region, self.millis(5_500, 9_000));
        let these: Vec<NodeAt> = self.shape.nodes_of(one).collect();
        let others = self.shape.all_nodes().filter(|at| at.0 != one);
        let pairs = others
            .flat_map(|other| these.iter().flat_map(move |this| [(*this, other), (other, *this)]))
            .collect();
        self.put(at, cut, What::Cut { kind: Kind::RegionCut, pairs });
        // Longer ahead than the jump is far, so that it is believed while nobody is heard.
        let by_ms = self.random.random_range(600..=3_000);
        let jump = What::Jump { kind: Kind::ClockSkew, nodes: these, by_ms };
        let lasts = cut + self.millis(0, 2_000);
        let ahead = at + self.millis(100, 600);
        self.put(ahead, lasts, jump);
    }

    fn disk_lost(&mut self) {
        let at = self.begin();
        let loses = self.node();
        let others: Vec<NodeAt> =
            self.shape.nodes_of(self.region).filter(|other| *other != loses).collect();
        let lags = *others.choose(&mut self.random).expect("there are three nodes");
        // The one lags behind while the other acknowledges; then that loses its disk, and who leads
        // may be gone just when the one is back.
        let (behind, region) = (self.millis(500, 2_500), self.region);
        let power = What::Down { kind: Kind::PowerLoss, nodes: vec![lags], power: true };
        self.put(at, behind, power);
        let lost = at + behind.saturating_sub(self.millis(0, 400));
        self.put(lost, self.lasts.saturating_sub(lost), What::LostDisk(loses));
        let gone = self.millis(1_000, 4_000);
        self.put(lost, gone, What::Leader { kind: Kind::LeaderPause, region });
    }
}
