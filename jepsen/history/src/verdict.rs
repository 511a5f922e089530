//! What a check says.

use std::collections::{BTreeMap, BTreeSet};

use anabranch_client::Dot;

/// Violations that are kept in words and with what shows them; the others are only counted.
const KEPT_MAX: usize = 8;

/// One violation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Broken {
    words: String,
    ops: Vec<usize>,
    dots: Vec<Dot>,
    observations: Vec<usize>,
}

impl Broken {
    /// A violation in words.
    pub fn new(words: impl Into<String>) -> Self {
        Self { words: words.into(), ..Self::default() }
    }
    /// It is shown by this operation, named by its index in the history.
    pub fn op(mut self, op: usize) -> Self {
        self.ops.push(op);
        self
    }
    /// It is shown by these operations.
    pub fn ops(mut self, ops: impl IntoIterator<Item = usize>) -> Self {
        self.ops.extend(ops);
        self
    }
    /// It is shown by this event.
    pub fn dot(mut self, dot: &Dot) -> Self {
        self.dots.push(dot.clone());
        self
    }
    /// It is shown by this observation, named by its index in the history.
    pub fn observation(mut self, observation: usize) -> Self {
        self.observations.push(observation);
        self
    }
}

impl From<String> for Broken {
    fn from(words: String) -> Self {
        Self::new(words)
    }
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The law's name: its file in `checks`.
    pub name: &'static str,
    /// The law, in a few words.
    pub law: &'static str,
    /// How many facts were looked at. A law that looked at none has not been tested.
    pub facts: u64,
    /// How many of them break the law.
    pub broken: u64,
    /// The first of them in words.
    pub words: Vec<String>,
    /// What is no violation and must still be known: acknowledged events that went down with their
    /// region, say.
    pub notes: Vec<String>,
    /// What the run has to get to for the law to mean something, and how often it did.
    pub reached: BTreeMap<&'static str, u64>,
    /// Operations that show the first violations, by their index in the history.
    pub ops: BTreeSet<usize>,
    /// Events that show them.
    pub dots: BTreeSet<Dot>,
    /// Observations that show them, by their index in the history.
    pub observations: BTreeSet<usize>,
}

impl Verdict {
    /// Nothing looked at yet.
    pub fn new(name: &'static str, law: &'static str) -> Self {
        Self {
            name,
            law,
            facts: 0,
            broken: 0,
            words: Vec::new(),
            notes: Vec::new(),
            reached: BTreeMap::new(),
            ops: BTreeSet::new(),
            dots: BTreeSet::new(),
            observations: BTreeSet::new(),
        }
    }
    /// Looks at one fact.
    pub fn check<B: Into<Broken>>(&mut self, holds: bool, broken: impl FnOnce() -> B) {
        self.facts += 1;
        if !holds {
            self.broken += 1;
            if self.words.len() < KEPT_MAX {
                let Broken { words, ops, dots, observations } = broken().into();
                self.words.push(words);
                self.ops.extend(ops);
                self.dots.extend(dots);
                self.observations.extend(observations);
            }
        }
    }
    /// Counts something that the run has to get to: also if it did `times` 0.
    pub fn reach(&mut self, what: &'static str, times: u64) {
        *self.reached.entry(what).or_default() += times;
    }
    /// Whether there was anything to look at.
    pub fn tested(&self) -> bool {
        self.facts > 0
    }
    /// Whether the law was tested and holds.
    pub fn holds(&self) -> bool {
        self.tested() && self.broken == 0
    }
}
