//! The laws, one file each: pure functions from the evidence to a verdict.

pub mod convergence;
pub mod density;
pub mod durability;
pub mod fingerprints;
pub mod global_order;
pub mod honesty;
pub mod once;
pub mod processes;
pub mod repeats;
pub mod revisions;
pub mod sessions;
pub mod subscriptions;
#[cfg(test)]
mod testing;

use crate::evidence::Evidence;

/// Violations that are kept in words; the others are only counted.
const WORDS_MAX: usize = 8;

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The law, in a few words.
    pub law: &'static str,
    /// How many facts were looked at. A law that looked at none has not been tested.
    pub facts: u64,
    /// How many of them break the law.
    pub broken: u64,
    /// The first of them in words.
    pub words: Vec<String>,
}

impl Verdict {
    /// Nothing looked at yet.
    pub fn new(law: &'static str) -> Self {
        Self { law, facts: 0, broken: 0, words: Vec::new() }
    }
    /// Looks at one fact.
    pub fn check(&mut self, holds: bool, words: impl FnOnce() -> String) {
        self.facts += 1;
        if !holds {
            self.broken += 1;
            if self.words.len() < WORDS_MAX {
                self.words.push(words());
            }
        }
    }
    /// Whether the law was tested and holds.
    pub fn holds(&self) -> bool {
        self.facts > 0 && self.broken == 0
    }
}

/// Checks everything.
pub fn all(evidence: &Evidence) -> Vec<Verdict> {
    vec![
        processes::check(evidence),
        convergence::check(evidence),
        durability::check(evidence),
        once::check(evidence),
        honesty::check(evidence),
        repeats::check(evidence),
        density::check(evidence),
        revisions::check(evidence),
        global_order::check(evidence),
        fingerprints::check(evidence),
        subscriptions::check(evidence),
        sessions::check(evidence),
    ]
}
