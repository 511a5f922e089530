//! What clients do in a run: data, drawn from a seed before the run begins.

use std::time::Duration;

use anabranch_client::Order;
use anabranch_history::checks::atomic::GUARDED;
use rand::Rng;
use rand::rngs::SmallRng;

use crate::dice;

/// Clients of each kind in every region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mix {
    /// Conditional appends to a few hot streams.
    pub registers: u32,
    /// Appends to several streams at once, with expectations on others.
    pub transactors: u32,
    /// Elements of sets, added and read by cursor.
    pub collectors: u32,
    /// Clients that hop between regions with their session.
    pub hoppers: u32,
    /// Producers that repeat themselves, also in other regions.
    pub producers: u32,
    /// Tellers of the region's bank.
    pub tellers: u32,
    /// Clients that try every limit.
    pub probers: u32,
    /// Clients that define aggregates.
    pub definers: u32,
    /// Clients that append to streams with a home, declare homes and hand streams over.
    pub residents: u32,
    /// Clients that earn, spend and pass rights to bounded counters.
    pub spenders: u32,
    /// Clients that change aggregates by operations.
    pub changers: u32,
}

impl Mix {
    /// Clients of a region that write.
    pub fn clients(&self) -> u32 {
        let Self { registers, transactors, collectors, hoppers, producers, .. } = *self;
        let Self { tellers, probers, definers, residents, spenders, .. } = *self;
        let Self { changers, .. } = *self;
        let first = registers + transactors + collectors + hoppers + producers + tellers;
        first + probers + definers + residents + spenders + changers
    }
}

/// How large the events are with which limits are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// Names and metadata at their limits; nothing above 32 KiB.
    Small,
    /// Also payloads and appends at their limits: up to 4 MiB at once.
    Large,
    /// Also the most events and the most streams of one append: ten thousand at once.
    Huge,
}

/// What a subscriber follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Following {
    /// The category, or the one stream; everything if none.
    pub category: Option<String>,
    /// In which order.
    pub order: Order,
    /// Whether it pauses for long between events.
    pub slow: bool,
}

/// What is done to a region that is asked for far too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Surge {
    /// Clients that come besides the others in every region.
    pub clients: u32,
    /// Longest pause of each between two appends.
    pub think: Duration,
}

/// What clients do in a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Draws everything else that clients decide.
    pub seed: u64,
    /// Marks every event of this run.
    pub run: u32,
    /// How many clients there are.
    pub mix: Mix,
    /// Longest pause of a client between two operations; half of it on the average.
    pub think: Duration,
    /// How long a client tries before it gives up an append or a read.
    pub deadline: Duration,
    /// Subscribers of each region; see [`subscribers_of`](Self::subscribers_of).
    pub subscribers: u32,
    /// How large events get.
    pub reach: Reach,
    /// The one region in which they get that large; all of them if none. Every byte is written on
    /// every node of every region, and simulated disks are kept in memory.
    pub reaches_in: Option<usize>,
    /// What a surge is, whenever the driver begins one.
    pub surge: Surge,
}

impl Plan {
    /// The plan of a seed for a simulated cluster of `regions`: few appends a second, because each
    /// one costs real time.
    pub fn draw(seed: u64, regions: usize) -> Self {
        let mut rng = dice::rng(seed, "plan", 0, 0);
        let few = |rng: &mut SmallRng| rng.random_range(1..=2);
        let mix = Mix {
            registers: few(&mut rng),
            transactors: few(&mut rng),
            collectors: 1,
            hoppers: few(&mut rng),
            producers: few(&mut rng),
            tellers: few(&mut rng),
            probers: u32::from(rng.random_bool(0.6)),
            definers: 1,
            residents: 1,
            spenders: 1,
            changers: 1,
        };
        let reach = match rng.random_range(0..100) {
            0..75 => Reach::Small,
            75..95 => Reach::Large,
            _ => Reach::Huge,
        };
        let probers = mix.probers.max(u32::from(reach > Reach::Small));
        let mix = Mix { probers, ..mix };
        let per_second = rng.random_range(5.0..30.0);
        let surge = Surge { clients: mix.clients() * 9, think: Duration::ZERO };
        let plan = Self {
            seed,
            run: fold(seed),
            mix,
            think: Duration::ZERO,
            deadline: Duration::from_millis(rng.random_range(2_000..8_000)),
            subscribers: rng.random_range(1..=3),
            reach,
            reaches_in: Some(rng.random_range(0..regions.max(1))),
            surge,
        };
        plan.at_rate(per_second, regions)
    }

    /// The plan of a seed for processes that can take what they are given: `writers` of the plainest
    /// kind in every region and one client of each other kind.
    pub fn busy(seed: u64, writers: u32, think: Duration) -> Self {
        let mix = Mix {
            registers: writers.max(1),
            transactors: 1,
            collectors: 1,
            hoppers: 1,
            producers: 1,
            tellers: 2,
            probers: 1,
            definers: 1,
            residents: 1,
            spenders: 1,
            changers: 1,
        };
        Self {
            seed,
            run: fold(seed),
            mix,
            think,
            deadline: Duration::from_secs(5),
            subscribers: 3,
            reach: Reach::Large,
            reaches_in: None,
            surge: Surge { clients: mix.clients() * 9, think: Duration::from_millis(2) },
        }
    }

    /// The same with pauses such that the whole cluster is asked for about `per_second` operations a
    /// second, and ten times as many by a surge.
    ///
    /// Clients without pauses would still wait for their answers, so this is an upper bound.
    pub fn at_rate(self, per_second: f64, regions: usize) -> Self {
        let clients = f64::from(self.mix.clients()) * regions as f64;
        let surging = f64::from(self.surge.clients) * regions as f64;
        let pause =
            |clients: f64, rate: f64| Duration::from_secs_f64(2.0 * clients / rate.max(0.1));
        let think = pause(clients, per_second);
        let surge = Surge { think: pause(surging, per_second * 10.0), ..self.surge };
        Self { think, surge, ..self }
    }

    /// How large events of a region get.
    pub fn reach_of(&self, home: usize) -> Reach {
        if self.reaches_in.is_none_or(|only| only == home) { self.reach } else { Reach::Small }
    }

    /// Subscribers of a region. The first region has one more, which is slow.
    pub fn subscribers_of(&self, home: usize) -> u32 {
        self.subscribers + u32::from(home == 0)
    }

    /// What subscriber `nth` of a region follows: between them the regions have every kind.
    pub fn following(&self, home: usize, nth: u32) -> Following {
        let follow = |category: Option<&str>, order, slow| Following {
            category: category.map(str::to_owned),
            order,
            slow,
        };
        if home == 0 && nth >= self.subscribers {
            return follow(None, Order::Regional, true);
        }
        // The first two regions follow everything, in either order, whatever else there is.
        match (home + 2 * nth as usize) % 6 {
            0 => follow(None, Order::Global, false),
            1 => follow(None, Order::Regional, false),
            2 => follow(Some("set"), Order::Regional, false),
            3 => follow(Some("hot-0"), Order::Global, false),
            4 => follow(Some("made"), Order::Regional, false),
            _ => follow(Some(GUARDED), Order::Global, false),
        }
    }
}

/// Both halves of a seed in one number.
fn fold(seed: u64) -> u32 {
    (seed ^ (seed >> 32)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_always_gives_the_same_plan_and_another_seed_another() {
        assert_eq!(Plan::draw(7, 3), Plan::draw(7, 3));
        let plans: Vec<Plan> = (0..50).map(|seed| Plan::draw(seed, 3)).collect();
        for (nth, plan) in plans.iter().enumerate() {
            assert!(plans[..nth].iter().all(|other| other != plan), "seed {nth}");
        }
    }

    #[test]
    fn a_simulated_cluster_is_asked_for_five_to_thirty_operations_a_second() {
        for seed in 0..200 {
            for regions in 2..=5 {
                let plan = Plan::draw(seed, regions);
                let clients = f64::from(plan.mix.clients()) * regions as f64;
                let rate = clients / (plan.think.as_secs_f64() / 2.0);
                assert!((5.0..30.1).contains(&rate), "seed {seed}: {rate}");
                let surging = f64::from(plan.surge.clients) * regions as f64;
                let surge = surging / (plan.surge.think.as_secs_f64() / 2.0);
                assert!((9.9..10.1).contains(&(surge / rate)), "seed {seed}: {surge} to {rate}");
            }
        }
    }

    #[test]
    fn two_regions_with_a_subscriber_each_follow_everything_in_both_orders() {
        let plan = Plan::draw(1, 2);
        let all = |home, order| {
            plan.following(home, 0) == Following { category: None, order, slow: false }
        };
        assert!(all(0, Order::Global) && all(1, Order::Regional));
        let slow =
            |home| (0..plan.subscribers_of(home)).filter(|n| plan.following(home, *n).slow).count();
        assert_eq!([slow(0), slow(1)], [1, 0]);
    }

    #[test]
    fn some_seeds_reach_every_limit_and_most_do_not() {
        let plans: Vec<Plan> = (0..400).map(|seed| Plan::draw(seed, 3)).collect();
        let share = |reach| {
            let there = |plan: &&Plan| {
                let regions = (0..3).filter(|home| plan.reach_of(*home) == reach).count();
                plan.mix.probers > 0 && regions == if reach == Reach::Small { 3 } else { 1 }
            };
            plans.iter().filter(there).count()
        };
        let shares = [Reach::Small, Reach::Large, Reach::Huge].map(share);
        assert!(shares[0] > 100 && shares[1] > 30 && shares[2] > 5, "{shares:?}");
    }
}
