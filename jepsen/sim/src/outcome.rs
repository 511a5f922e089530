//! What a run came to, small enough to be passed from process to process.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::report;
use crate::run::Findings;

/// A law that a run broke.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokenLaw {
    /// The law's name.
    pub law: String,
    /// How many facts broke it.
    pub broken: u64,
    /// The first in words.
    pub words: String,
}

/// What a run came to.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// Laws that were broken; empty for a clean run.
    pub broken: Vec<BrokenLaw>,
    /// The smallest parts of the history that show what was broken, in lines.
    pub excerpt: String,
    /// Facts looked at, by law.
    pub facts: BTreeMap<String, u64>,
    /// How often the run got to what it has to get to.
    pub reached: BTreeMap<String, u64>,
    /// How often each kind of fault struck, by its name.
    pub struck: BTreeMap<String, u32>,
    /// Operations of clients.
    pub ops: u64,
    /// Simulated time.
    pub simulated: Duration,
    /// Hash of everything that happened and was found.
    pub fingerprint: String,
}

impl Outcome {
    /// What these findings come to.
    pub fn of(seed: u64, findings: &Findings) -> Self {
        let broken = findings.verdicts.iter().filter(|verdict| verdict.broken > 0);
        let broken = broken.map(|verdict| BrokenLaw {
            law: verdict.name.to_owned(),
            broken: verdict.broken,
            words: verdict.words.first().cloned().unwrap_or_default(),
        });
        let facts = findings.verdicts.iter().map(|v| (v.name.to_owned(), v.facts));
        let mut reached: BTreeMap<String, u64> = BTreeMap::new();
        for (what, times) in findings.verdicts.iter().flat_map(|verdict| &verdict.reached) {
            *reached.entry((*what).to_owned()).or_default() += times;
        }
        let struck = findings.struck.iter().map(|(kind, times)| (kind.slug(), *times));
        Self {
            seed,
            broken: broken.collect(),
            excerpt: report::excerpts(findings),
            facts: facts.collect(),
            reached,
            struck: struck.collect(),
            ops: findings.evidence.history.ops.len() as u64,
            simulated: findings.simulated,
            fingerprint: findings.fingerprint(),
        }
    }

    /// What a run comes to that a panic ended.
    pub fn of_panic(seed: u64, words: &str) -> Self {
        let (law, words) = ("processes".to_owned(), words.to_owned());
        Self {
            seed,
            broken: vec![BrokenLaw { law, broken: 1, words }],
            excerpt: String::new(),
            facts: BTreeMap::new(),
            reached: BTreeMap::new(),
            struck: BTreeMap::new(),
            ops: 0,
            simulated: Duration::ZERO,
            fingerprint: String::new(),
        }
    }

    /// Whether no law was broken.
    pub fn is_clean(&self) -> bool {
        self.broken.is_empty()
    }
}
