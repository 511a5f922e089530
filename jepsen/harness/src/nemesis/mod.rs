//! What is done to the cluster, and when: data, drawn from a seed before the run.
//!
//! Each region has a time line of its own on which one thing happens at a time, so never more than
//! one of its nodes is down or paused; with `power` sometimes all of them, at once. The links have a
//! time line of theirs.

use std::fmt;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// Faults begin after this: the cluster forms and the first appends pass.
const CALM_BEFORE: Duration = Duration::from_secs(3);

/// What the cluster is made of, and for how long it is tortured.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Number of regions; at least two.
    pub regions: usize,
    /// Nodes of each region; at least three.
    pub nodes: usize,
    /// How long the plan lasts.
    pub lasts: Duration,
    /// Whether whole regions are killed, too.
    pub power: bool,
}

/// Which node of a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victim {
    /// Whoever leads when the time comes.
    Leader,
    /// This one.
    Node(usize),
}

/// What is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A node is killed, and started again at the end.
    Kill {
        /// Its region.
        region: usize,
        /// Which node of it.
        victim: Victim,
    },
    /// A node is stopped, and goes on at the end.
    Pause {
        /// Its region.
        region: usize,
        /// Which node of it.
        victim: Victim,
    },
    /// All nodes of a region are killed at once, and started again at the end.
    PowerOff {
        /// The region.
        region: usize,
    },
    /// Sessions from the first to the second region of each pair hear nothing until the end.
    Cut {
        /// Directed: who opens the session, and to whom.
        links: Vec<(usize, usize)>,
    },
}

/// Something that is done for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// When it begins, since the beginning of the plan.
    pub at: Duration,
    /// How long it lasts.
    pub lasts: Duration,
    /// What it is.
    pub what: What,
}

impl Fault {
    /// When it is over.
    pub fn end(&self) -> Duration {
        self.at + self.lasts
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {:.1?} for {:.1?}: {}", self.at, self.lasts, self.what)
    }
}

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leader => f.write_str("the leader"),
            Self::Node(node) => write!(f, "node {}", node + 1),
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill { region, victim } => write!(f, "kill {victim} of region {region}"),
            Self::Pause { region, victim } => write!(f, "pause {victim} of region {region}"),
            Self::PowerOff { region } => write!(f, "kill all of region {region}"),
            Self::Cut { links } => write!(f, "cut {links:?}"),
        }
    }
}

/// The faults of a seed, by the time they begin. All are over before the plan's end.
pub fn plan(seed: u64, shape: &Shape) -> Vec<Fault> {
    // A stream of randomness each: a change to one time line leaves the others as they are.
    let rng =
        |line: u64| SmallRng::seed_from_u64(seed ^ (line + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut faults = links(&mut rng(1_000), shape);
    for region in 0..shape.regions {
        faults.extend(nodes(&mut rng(region as u64), shape, region));
    }
    if shape.power {
        power(&mut rng(2_000), shape, &mut faults);
    }
    faults.sort_by_key(|fault| fault.at);
    faults
}

fn millis(rng: &mut SmallRng, from: u64, to: u64) -> Duration {
    Duration::from_millis(rng.random_range(from..to))
}

/// Fills a time line: a pause, a fault, a pause, and so on.
fn line(
    rng: &mut SmallRng,
    shape: &Shape,
    gap: (u64, u64),
    draw: impl Fn(&mut SmallRng) -> (What, Duration),
) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut at = CALM_BEFORE + millis(rng, 0, gap.1);
    loop {
        let (what, lasts) = draw(rng);
        let fault = Fault { at, lasts, what };
        at = fault.end() + millis(rng, gap.0, gap.1);
        if fault.end() >= shape.lasts {
            return faults;
        }
        faults.push(fault);
    }
}

fn nodes(rng: &mut SmallRng, shape: &Shape, region: usize) -> Vec<Fault> {
    line(rng, shape, (1_000, 6_000), |rng| {
        let leader = rng.random_bool(0.5);
        let node = rng.random_range(0..shape.nodes);
        let victim = if leader { Victim::Leader } else { Victim::Node(node) };
        match rng.random_bool(0.65) {
            true => (What::Kill { region, victim }, millis(rng, 200, 5_000)),
            false => (What::Pause { region, victim }, millis(rng, 300, 6_000)),
        }
    })
}

fn links(rng: &mut SmallRng, shape: &Shape) -> Vec<Fault> {
    let all: Vec<usize> = (0..shape.regions).collect();
    line(rng, shape, (2_000, 8_000), |rng| {
        let pair: Vec<usize> = all.choose_multiple(rng, 2).copied().collect();
        let (one, other) = (pair[0], pair[1]);
        let links = match rng.random_range(0..4) {
            0 => vec![(one, other)],
            1 => all.iter().filter(|r| **r != one).flat_map(|r| [(one, *r), (*r, one)]).collect(),
            _ => vec![(one, other), (other, one)],
        };
        (What::Cut { links }, millis(rng, 500, 9_000))
    })
}

/// Replaces what happens in one region meanwhile, so that nobody starts its nodes too early.
fn power(rng: &mut SmallRng, shape: &Shape, faults: &mut Vec<Fault>) {
    let mut at = CALM_BEFORE + millis(rng, 0, 4_000);
    loop {
        let region = rng.random_range(0..shape.regions);
        let fault = Fault { at, lasts: millis(rng, 500, 4_000), what: What::PowerOff { region } };
        at = fault.end() + millis(rng, 6_000, 15_000);
        if fault.end() >= shape.lasts {
            return;
        }
        let elsewhere = |other: &Fault| other.end() < fault.at || fault.end() < other.at;
        faults.retain(|other| other.what.region() != Some(region) || elsewhere(other));
        faults.push(fault);
    }
}

impl What {
    /// The region whose nodes it strikes.
    pub fn region(&self) -> Option<usize> {
        match self {
            Self::Kill { region, .. } | Self::Pause { region, .. } | Self::PowerOff { region } => {
                Some(*region)
            }
            Self::Cut { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(power: bool) -> Shape {
        Shape { regions: 3, nodes: 3, lasts: Duration::from_secs(60), power }
    }

    #[test]
    fn a_seed_always_gives_the_same_plan_and_another_seed_another() {
        assert_eq!(plan(7, &shape(true)), plan(7, &shape(true)));
        assert_ne!(plan(7, &shape(true)), plan(8, &shape(true)));
    }

    #[test]
    fn one_thing_happens_to_a_region_at_a_time_and_all_is_over_in_time() {
        for seed in 0..200 {
            let faults = plan(seed, &shape(seed % 2 == 0));
            for region in 0..3 {
                let mut of_region: Vec<_> =
                    faults.iter().filter(|fault| fault.what.region() == Some(region)).collect();
                of_region.sort_by_key(|fault| fault.at);
                for pair in of_region.windows(2) {
                    assert!(
                        pair[0].end() < pair[1].at,
                        "seed {seed}: {} then {}",
                        pair[0],
                        pair[1]
                    );
                }
            }
            let last = faults.iter().map(Fault::end).max().expect("a minute is not calm");
            assert!(last < Duration::from_secs(60), "seed {seed}");
        }
    }

    #[test]
    fn cuts_never_overlap_so_healing_one_heals_no_other() {
        for seed in 0..200 {
            let mut end = Duration::ZERO;
            for fault in plan(seed, &shape(true)) {
                if let What::Cut { .. } = fault.what {
                    assert!(end < fault.at, "seed {seed}: {fault}");
                    end = fault.end();
                }
            }
        }
    }

    #[test]
    fn a_minute_holds_every_kind_of_fault() {
        let faults: Vec<Fault> = (0..5).flat_map(|seed| plan(seed, &shape(true))).collect();
        let any = |kind: &dyn Fn(&What) -> bool| faults.iter().any(|fault| kind(&fault.what));
        assert!(any(&|what| matches!(what, What::Kill { victim: Victim::Leader, .. })));
        assert!(any(&|what| matches!(what, What::Kill { victim: Victim::Node(_), .. })));
        assert!(any(&|what| matches!(what, What::Pause { .. })));
        assert!(any(&|what| matches!(what, What::PowerOff { .. })));
        for count in [1, 2, 4] {
            assert!(any(&|what| matches!(what, What::Cut { links } if links.len() == count)));
        }
        let calm = plan(1, &shape(false));
        assert!(!calm.iter().any(|fault| matches!(fault.what, What::PowerOff { .. })));
    }
}
