//! What many runs must have reached for their silence to mean anything.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::nemesis::Kind;
use crate::outcome::Outcome;

/// How often each kind of fault must have struck.
pub const STRIKES_LEAST: u32 = 20;
/// How often the runs must have got to each thing that some law says little without.
pub const REACHED_LEAST: u64 = 50;
/// How many seeds there must have been.
pub const SEEDS_LEAST: usize = 100;
/// How long clusters must have run, in simulated time.
pub const SIMULATED_LEAST: Duration = Duration::from_secs(15_000);

/// What was reached.
#[derive(Debug, Default, Clone)]
pub struct Coverage {
    /// Number of runs.
    pub seeds: usize,
    /// Simulated time.
    pub simulated: Duration,
    /// Operations of clients.
    pub ops: u64,
    /// How often each kind of fault struck.
    pub struck: BTreeMap<String, u32>,
    /// Facts looked at, by law.
    pub facts: BTreeMap<String, u64>,
    /// How often runs got to what they have to get to.
    pub reached: BTreeMap<String, u64>,
    /// Runs that were made twice.
    pub twice: usize,
}

impl Coverage {
    /// Counts a run.
    pub fn add(&mut self, outcome: &Outcome) {
        self.seeds += 1;
        self.simulated += outcome.simulated;
        self.ops += outcome.ops;
        for (kind, times) in &outcome.struck {
            *self.struck.entry(kind.clone()).or_default() += times;
        }
        for (law, facts) in &outcome.facts {
            *self.facts.entry(law.clone()).or_default() += facts;
        }
        for (what, times) in &outcome.reached {
            *self.reached.entry(what.clone()).or_default() += times;
        }
    }

    /// What was not reached, in words; nothing if everything was.
    pub fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        if self.seeds < SEEDS_LEAST {
            missing.push(format!("{} seeds ran, {SEEDS_LEAST} must", self.seeds));
        }
        if self.simulated < SIMULATED_LEAST {
            let (ran, must) = (self.simulated.as_secs(), SIMULATED_LEAST.as_secs());
            missing.push(format!("{ran} s were simulated, {must} s must be"));
        }
        for kind in Kind::all() {
            let times = self.struck.get(&kind.slug()).copied().unwrap_or_default();
            if times < STRIKES_LEAST {
                let name = kind.name();
                missing.push(format!("{name} struck {times} times, {STRIKES_LEAST} it must"));
            }
        }
        for (law, facts) in &self.facts {
            if *facts == 0 {
                missing.push(format!("{law} was not tested"));
            }
        }
        for (what, times) in self.reached.iter().filter(|(_, times)| **times < REACHED_LEAST) {
            missing.push(format!("{what} was reached {times} times, {REACHED_LEAST} it must"));
        }
        if self.twice * 10 < self.seeds {
            missing
                .push(format!("{} of {} seeds ran twice, one in ten must", self.twice, self.seeds));
        }
        missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_means_nothing_until_everything_was_reached() {
        let mut coverage = Coverage {
            seeds: 100,
            simulated: SIMULATED_LEAST,
            ops: 1,
            struck: Kind::all().map(|kind| (kind.slug(), STRIKES_LEAST)).collect(),
            facts: [("durable".to_owned(), 1)].into(),
            reached: [("a hand-over".to_owned(), REACHED_LEAST)].into(),
            twice: 10,
        };
        assert_eq!(coverage.missing(), Vec::<String>::new());
        coverage.struck.insert("pause".to_owned(), STRIKES_LEAST - 1);
        coverage.facts.insert("cursor".to_owned(), 0);
        coverage.twice = 9;
        coverage.reached.insert("a hand-over".to_owned(), REACHED_LEAST - 1);
        assert_eq!(coverage.missing().len(), 4, "{:?}", coverage.missing());
    }
}
