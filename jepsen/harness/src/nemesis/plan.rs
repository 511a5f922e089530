//! Drawing the faults of a seed.
//!
//! Each region has a time line of its own on which one thing happens at a time, so never more than
//! one of its nodes is down, cut off or without its data; with `power` sometimes all of them are down,
//! at once. The links between regions have a time line of theirs, and so have the clocks: never are
//! those of two regions wrong at once.
//!
//! Kinds are dealt like cards: every one comes once before any comes again.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};

use super::{Fault, Filling, Kind, Line, Loss, Victim, What};

/// Faults begin after this: the cluster forms and the first appends pass.
const CALM_BEFORE: Duration = Duration::from_secs(3);
/// How far clocks of a region may be skewed together: not so far that other regions contradict them.
const SKEW_MS_MAX: i64 = 1_400;
const STEP_MS: std::ops::RangeInclusive<i64> = 200..=2_000;
/// No clock is wrong for longer. A node that starts with a clock far ahead, and hears nobody, listens
/// for 10 s before it writes with it: by then it is right again.
const CLOCK_MILLIS: std::ops::Range<u64> = 500..8_000;

/// What happens to the nodes of a region, and how often: an entry each time.
const OF_REGION: [Kind; 9] = [
    Kind::Kill,
    Kind::Kill,
    Kind::Pause,
    Kind::Wipe,
    Kind::FullDisk,
    Kind::NodeCut,
    Kind::OneWayNodeCut,
    Kind::NodeDelay,
    Kind::Pause,
];

/// What happens to the links between regions.
const OF_LINKS: [Kind; 3] = [Kind::RegionCut, Kind::RegionDelay, Kind::OneWayRegionCut];

/// What happens to clocks.
const OF_CLOCKS: [Kind; 4] = [Kind::ClockJump, Kind::ClockStep, Kind::ClockJump, Kind::ClockSkew];

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
    /// Whether disks can be filled.
    pub disks: bool,
}

/// The faults of a seed, by the time they begin. All are over before the plan's end.
pub fn plan(seed: u64, shape: &Shape) -> Vec<Fault> {
    // A stream of randomness each: a change to one time line leaves the others as they are.
    let rng =
        |line: u64| SmallRng::seed_from_u64(seed ^ (line + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut faults = line(&mut rng(1_000), shape, (1_000, 5_000), links(shape));
    faults.extend(line(&mut rng(3_000), shape, (1_500, 6_000), clocks(shape)));
    let mut first: Vec<Kind> = OF_REGION.into_iter().filter(|kind| can(shape, *kind)).collect();
    first.shuffle(&mut rng(4_000));
    for region in 0..shape.regions {
        // The regions begin at different places of one deck, so that between them they soon had
        // every kind.
        let mut cards = first.clone();
        cards.rotate_left(region * first.len() / shape.regions);
        let draw = nodes(shape, region, Deck::beginning_with(cards));
        faults.extend(line(&mut rng(region as u64), shape, (500, 4_000), draw));
    }
    if shape.power {
        power(&mut rng(2_000), shape, &mut faults);
    }
    faults.sort_by_key(|fault| fault.at);
    faults
}

/// Whether a cluster of this shape can have it.
fn can(shape: &Shape, kind: Kind) -> bool {
    match kind {
        Kind::FullDisk => shape.disks,
        Kind::PowerOff => shape.power,
        _ => true,
    }
}

/// Cards that are dealt; when all are, they are shuffled and dealt again.
struct Deck {
    cards: Vec<Kind>,
    dealt: usize,
}

impl Deck {
    fn beginning_with(cards: Vec<Kind>) -> Self {
        Self { cards, dealt: 0 }
    }
    fn shuffled(cards: &[Kind]) -> Self {
        Self { cards: cards.to_vec(), dealt: cards.len() }
    }
    fn deal(&mut self, rng: &mut SmallRng) -> Kind {
        if self.dealt == self.cards.len() {
            self.cards.shuffle(rng);
            self.dealt = 0;
        }
        self.dealt += 1;
        self.cards[self.dealt - 1]
    }
}

fn millis(rng: &mut SmallRng, from: u64, to: u64) -> Duration {
    Duration::from_millis(rng.random_range(from..to))
}

/// Fills a time line: a pause, a fault, a pause, and so on.
fn line(
    rng: &mut SmallRng,
    shape: &Shape,
    gap: (u64, u64),
    mut draw: impl FnMut(&mut SmallRng) -> (What, Duration),
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

fn nodes(
    shape: &Shape,
    region: usize,
    mut deck: Deck,
) -> impl FnMut(&mut SmallRng) -> (What, Duration) {
    let shape = *shape;
    // In turns, and not the same in all regions, so that no minute has one sort only.
    let mut returns = region.is_multiple_of(2);
    move |rng| {
        let kind = deck.deal(rng);
        let victim = victim(rng, &shape, 0.5);
        match kind {
            Kind::Kill => (What::Kill { region, victim }, millis(rng, 200, 5_000)),
            Kind::Pause => (What::Pause { region, victim }, millis(rng, 300, 6_000)),
            Kind::Wipe => {
                returns = !returns;
                (What::Wipe { region, victim, returns }, millis(rng, 200, 3_000))
            }
            Kind::FullDisk => {
                let left = rng.random_range(0..32_768);
                let (greedy, restart) = (rng.random_bool(0.5), rng.random_bool(0.3));
                let filling = Filling { left, greedy, restart };
                (What::FullDisk { region, victim, filling }, millis(rng, 2_000, 8_000))
            }
            Kind::NodeCut | Kind::OneWayNodeCut => {
                let others = rng.random_range(1..shape.nodes);
                let loss = match (kind, rng.random_bool(0.5)) {
                    (Kind::NodeCut, _) => Loss::Both,
                    (_, true) => Loss::To,
                    (_, false) => Loss::From,
                };
                (What::NodeCut { region, victim, others, loss }, millis(rng, 300, 8_000))
            }
            _ => (What::NodeDelay { region, by: millis(rng, 5, 400) }, millis(rng, 1_000, 8_000)),
        }
    }
}

fn victim(rng: &mut SmallRng, shape: &Shape, leads: f64) -> Victim {
    let (leader, node) = (rng.random_bool(leads), rng.random_range(0..shape.nodes));
    if leader { Victim::Leader } else { Victim::Node(node) }
}

fn links(shape: &Shape) -> impl FnMut(&mut SmallRng) -> (What, Duration) {
    let all: Vec<usize> = (0..shape.regions).collect();
    let mut deck = Deck::shuffled(&OF_LINKS);
    move |rng| {
        let pair: Vec<usize> = all.choose_multiple(rng, 2).copied().collect();
        let (one, other) = (pair[0], pair[1]);
        let isolated = rng.random_bool(0.4);
        let links = match deck.deal(rng) {
            Kind::RegionDelay => {
                let by = millis(rng, 20, 500);
                return (What::Delay { between: (one, other), by }, millis(rng, 1_000, 9_000));
            }
            Kind::OneWayRegionCut => vec![(one, other)],
            _ if isolated => {
                all.iter().filter(|r| **r != one).flat_map(|r| [(one, *r), (*r, one)]).collect()
            }
            _ => vec![(one, other), (other, one)],
        };
        (What::Cut { links }, millis(rng, 500, 9_000))
    }
}

fn clocks(shape: &Shape) -> impl FnMut(&mut SmallRng) -> (What, Duration) {
    let shape = *shape;
    let mut deck = Deck::shuffled(&OF_CLOCKS);
    let mut hour_ms = super::HOUR_MS as i64;
    move |rng| {
        let region = rng.random_range(0..shape.regions);
        // The clock of who follows is not asked for much.
        let victim = victim(rng, &shape, 0.7);
        let sign = if rng.random_bool(0.5) { 1 } else { -1 };
        let what = match deck.deal(rng) {
            Kind::ClockSkew => {
                What::Skew { region, by_ms: sign * rng.random_range(100..=SKEW_MS_MAX) }
            }
            Kind::ClockStep => {
                What::Jump { region, victim, by_ms: sign * rng.random_range(STEP_MS) }
            }
            _ => {
                // In turns, for the same reason.
                hour_ms = -hour_ms;
                What::Jump { region, victim, by_ms: hour_ms }
            }
        };
        (what, millis(rng, CLOCK_MILLIS.start, CLOCK_MILLIS.end))
    }
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
        faults.retain(|other| other.what.line() != Line::Region(region) || elsewhere(other));
        faults.push(fault);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn shape(power: bool) -> Shape {
        let lasts = Duration::from_secs(60);
        Shape { regions: 3, nodes: 3, lasts, power, disks: true }
    }

    fn of_line(faults: &[Fault], line: Line) -> Vec<&Fault> {
        let mut of_line: Vec<_> = faults.iter().filter(|f| f.what.line() == line).collect();
        of_line.sort_by_key(|fault| fault.at);
        of_line
    }

    #[test]
    fn a_seed_always_gives_the_same_plan_and_another_seed_another() {
        assert_eq!(plan(7, &shape(true)), plan(7, &shape(true)));
        assert_ne!(plan(7, &shape(true)), plan(8, &shape(true)));
    }

    #[test]
    fn one_thing_happens_on_a_line_at_a_time_and_all_is_over_in_time() {
        let lines = [0, 1, 2].map(Line::Region).into_iter().chain([Line::Links, Line::Clocks]);
        for seed in 0..200 {
            let faults = plan(seed, &shape(seed % 2 == 0));
            for line in lines.clone() {
                for pair in of_line(&faults, line).windows(2) {
                    let (one, next) = (pair[0], pair[1]);
                    assert!(one.end() < next.at, "seed {seed}: {one} then {next}");
                }
            }
            let last = faults.iter().map(Fault::end).max().expect("a minute is not calm");
            assert!(last < Duration::from_secs(60), "seed {seed}");
        }
    }

    #[test]
    fn every_minute_holds_every_kind_of_fault() {
        let kinds = |seed, power| -> BTreeSet<Kind> {
            plan(seed, &shape(power)).iter().map(|fault| fault.what.kind()).collect()
        };
        for seed in 0..200 {
            let mut all: BTreeSet<Kind> = Kind::ALL.into_iter().collect();
            assert!(kinds(seed, true).contains(&Kind::PowerOff), "in place of others");
            all.remove(&Kind::PowerOff);
            assert_eq!(kinds(seed, false), all, "seed {seed}");
        }
    }

    #[test]
    fn a_few_minutes_hold_every_way_of_doing_it() {
        let faults: Vec<Fault> = (0..5).flat_map(|seed| plan(seed, &shape(true))).collect();
        let any = |kind: &dyn Fn(&What) -> bool| faults.iter().any(|fault| kind(&fault.what));
        assert!(any(&|what| matches!(what, What::Kill { victim: Victim::Leader, .. })));
        assert!(any(&|what| matches!(what, What::Kill { victim: Victim::Node(_), .. })));
        for count in [1, 2, 4] {
            assert!(any(&|what| matches!(what, What::Cut { links } if links.len() == count)));
        }
        for wanted in [Loss::Both, Loss::To, Loss::From] {
            assert!(any(&|what| matches!(what, What::NodeCut { loss, .. } if *loss == wanted)));
        }
        for count in [1, 2] {
            let cut =
                |what: &What| matches!(what, What::NodeCut { others, .. } if *others == count);
            assert!(any(&cut));
        }
        for wanted in [true, false] {
            assert!(any(&|what| matches!(what, What::Wipe { returns, .. } if *returns == wanted)));
        }
        let filled = |wanted: &dyn Fn(Filling) -> bool| {
            any(&|what| matches!(what, What::FullDisk { filling, .. } if wanted(*filling)))
        };
        assert!(filled(&|filling| filling.greedy) && filled(&|filling| !filling.greedy));
        assert!(filled(&|filling| filling.restart) && filled(&|filling| !filling.restart));
        for sign in [1, -1] {
            let hour = sign * 3_600_000;
            assert!(any(&|what| matches!(what, What::Jump { by_ms, .. } if *by_ms == hour)));
            let step = |ms: i64| (200..=2_000).contains(&(ms * sign));
            assert!(any(&|what| matches!(what, What::Jump { by_ms, .. } if step(*by_ms))));
            let skew = |ms: i64| ms.signum() == sign;
            assert!(any(&|what| matches!(what, What::Skew { by_ms, .. } if skew(*by_ms))));
        }
    }

    #[test]
    fn what_cannot_be_done_is_not_planned() {
        let calm = Shape { disks: false, ..shape(false) };
        for seed in 0..20 {
            let kinds = |kind| plan(seed, &calm).iter().any(|fault| fault.what.kind() == kind);
            assert!(!kinds(Kind::FullDisk) && !kinds(Kind::PowerOff) && kinds(Kind::Wipe));
        }
    }

    #[test]
    fn no_clock_is_wrong_for_as_long_as_a_lonely_node_listens_to_others() {
        for seed in 0..50 {
            for fault in of_line(&plan(seed, &shape(true)), Line::Clocks) {
                assert!(fault.lasts < Duration::from_secs(9), "seed {seed}: {fault}");
            }
        }
    }
}
