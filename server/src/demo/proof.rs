//! The proof: what the regions hold, against what clients were told and against each other.
//!
//! Pure: it is given readings, fingerprints and the ledger, and names everything that does not hold.

use std::collections::BTreeMap;

use anabranch_core::{Context, Dot, RegionName};
use serde::Serialize;

use super::folds::PlainFold;
use super::ledger::Ledger;
use super::reading::{Faults, GlobalReading, RegionReading};

/// What one node holds, as hashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodePrint {
    /// Its region.
    pub region: RegionName,
    /// Its number within the region.
    pub node: u64,
    /// What it holds.
    pub frontier: Context,
    /// Number of streams.
    pub streams: u64,
    /// Sum over the events of the streams in each bucket.
    pub buckets: Vec<Vec<u8>>,
    /// Chain hash at the last event of every origin.
    pub chains: Vec<(Dot, Vec<u8>)>,
    /// Length of the global order that is final there.
    pub global_position: u64,
    /// Hash over the global order up to there.
    pub global_chain: Vec<u8>,
}

/// How many events of each stream each region wrote, by the file they were replayed from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileCounts {
    /// By region.
    pub regions: BTreeMap<RegionName, u64>,
    /// By stream.
    pub streams: BTreeMap<String, u64>,
    /// The file's events, folded one after the other.
    pub folds: PlainFold,
}

/// Everything that was read back.
#[derive(Debug)]
pub struct Evidence<'a> {
    /// What clients were told.
    pub ledger: &'a Ledger,
    /// Every region, in its own order.
    pub regions: &'a [RegionReading],
    /// The global order from every region.
    pub globals: &'a [GlobalReading],
    /// Every node.
    pub prints: &'a [NodePrint],
    /// What was replayed, if a file was.
    pub file: Option<&'a FileCounts>,
    /// Events that the subscribers were given out of turn.
    pub out_of_turn: &'a [Dot],
    /// Why the regions did not converge in time, if they did not.
    pub not_converged: Option<&'a str>,
    /// Aggregates that are not what a plain fold gives.
    pub aggregates: &'a Faults,
}

/// One thing that must hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What must hold, as a sentence.
    pub law: &'static str,
    /// How often it does not.
    pub faults: u64,
    /// The first few places where it does not.
    pub examples: Vec<String>,
}

/// The outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Proof {
    /// Everything that was checked.
    pub checks: Vec<Check>,
    /// Acknowledged events that a region does not have, over all regions.
    pub missing: u64,
    /// Events that a region has more than once, over all regions.
    pub twice: u64,
}

impl Proof {
    /// Judges the evidence.
    pub fn of(evidence: &Evidence<'_>) -> Self {
        let (missing, twice) = (missing(evidence), twice(evidence));
        let counts = (missing.count, twice.count);
        let mut checks = vec![
            check("all nodes converge in time", not_converged(evidence)),
            check("every acknowledged event is in every region", missing),
            check("no event is in a region twice", twice),
            check("every event has the dot and content its client knows", altered(evidence)),
            check("nothing is there that nobody wrote", strays(evidence)),
            check("numbers are dense in every origin", each(evidence, |r| &r.origins)),
            check("revisions are dense in every stream", each(evidence, |r| &r.revisions)),
            check("a writer's events keep their order in a stream", each(evidence, |r| &r.writers)),
            check("subscribers are given every event once, in turn", out_of_turn(evidence)),
            check("the global order is dense and complete", global_steps(evidence)),
            check("the global order is the same in all regions", global_equal(evidence)),
            check("all nodes have equal fingerprints", prints(evidence)),
            check(
                "aggregates are in every region what a plain fold gives",
                evidence.aggregates.clone(),
            ),
        ];
        let of_file = evidence.file.map(|file| file_counts(evidence.regions, file));
        checks.extend(of_file.map(|faults| check("counts are those of the file", faults)));
        let (missing, twice) = counts;
        Self { checks, missing, twice }
    }

    /// Adds what was checked elsewhere.
    pub fn add(&mut self, law: &'static str, faults: Faults) {
        self.checks.push(check(law, faults));
    }

    /// Whether all holds.
    pub fn holds(&self) -> bool {
        self.checks.iter().all(|check| check.faults == 0)
    }
}

fn check(law: &'static str, faults: Faults) -> Check {
    Check { law, faults: faults.count, examples: faults.examples }
}

fn not_converged(evidence: &Evidence<'_>) -> Faults {
    let mut faults = Faults::default();
    if let Some(why) = evidence.not_converged {
        faults.add(|| why.to_owned());
    }
    faults
}

fn missing(evidence: &Evidence<'_>) -> Faults {
    let mut faults = Faults::default();
    for reading in evidence.regions {
        for (id, acked) in evidence.ledger.acked() {
            if !reading.found.contains_key(id) {
                faults.add(|| format!("{} lacks {} (id {id})", reading.region, acked.dot));
            }
        }
    }
    faults
}

fn twice(evidence: &Evidence<'_>) -> Faults {
    let mut faults = Faults::default();
    for reading in evidence.regions {
        for (id, found) in reading.found.iter().filter(|(_, found)| found.times > 1) {
            let (region, times, stream, dot) =
                (&reading.region, found.times, &found.stream, &found.dot);
            faults.add(|| format!("{region} has id {id} {times} times in {stream}, first {dot}"));
        }
    }
    for id in &evidence.ledger.contradicted {
        faults.add(|| format!("id {id} was acknowledged under two dots"));
    }
    faults
}

fn altered(evidence: &Evidence<'_>) -> Faults {
    let mut faults = Faults::default();
    for reading in evidence.regions {
        for (id, found) in &reading.found {
            let Some(acked) = evidence.ledger.find(id) else { continue };
            let (region, is, told) = (&reading.region, &found.dot, &acked.dot);
            if is != told {
                faults.add(|| format!("{region} has id {id} as {is}, acknowledged as {told}"));
            } else if found.content != acked.content {
                faults.add(|| format!("{region} has other content at {is} in {}", found.stream));
            }
        }
    }
    faults
}

/// A refused append must not be there; one whose outcome stayed unknown may be.
fn strays(evidence: &Evidence<'_>) -> Faults {
    let (mut faults, ledger) = (Faults::default(), evidence.ledger);
    for reading in evidence.regions {
        for (id, found) in &reading.found {
            if ledger.find(id).is_none() && !ledger.is_open(id) {
                faults.add(|| format!("{} has {} in {}", reading.region, found.dot, found.stream));
            }
        }
    }
    faults
}

fn each(evidence: &Evidence<'_>, which: impl Fn(&RegionReading) -> &Faults) -> Faults {
    let mut faults = Faults::default();
    for reading in evidence.regions {
        faults.extend(reading.region.as_str(), which(reading));
    }
    faults
}

fn out_of_turn(evidence: &Evidence<'_>) -> Faults {
    let mut faults = Faults::default();
    for dot in evidence.out_of_turn {
        faults.add(|| dot.to_string());
    }
    faults
}

fn global_steps(evidence: &Evidence<'_>) -> Faults {
    let mut faults = Faults::default();
    for global in evidence.globals {
        faults.extend(global.region.as_str(), &global.steps);
        let held = evidence.regions.iter().find(|reading| reading.region == global.region);
        let held: u64 = held.map_or(0, |reading| reading.heads().values().sum());
        if global.events() != held {
            let (region, events) = (&global.region, global.events());
            faults.add(|| format!("{region} delivers {events} in global order and holds {held}"));
        }
    }
    faults
}

fn global_equal(evidence: &Evidence<'_>) -> Faults {
    let mut faults = Faults::default();
    let Some((first, others)) = evidence.globals.split_first() else { return faults };
    for other in others {
        if let Some(position) = first.differs_at(other) {
            let (a, b) = (first.at(position), other.at(position));
            let (one, two) = (&first.region, &other.region);
            faults.add(|| format!("position {position} is {a} in {one} and {b} in {two}"));
        }
    }
    faults
}

fn prints(evidence: &Evidence<'_>) -> Faults {
    let mut faults = Faults::default();
    let Some((first, others)) = evidence.prints.split_first() else { return faults };
    for other in others {
        let (one, two) = (name(first), name(other));
        let differ = differing(first, other);
        if !differ.is_empty() {
            faults.add(|| format!("{one} and {two} differ in {}", differ.join(", ")));
        }
    }
    faults
}

fn name(print: &NodePrint) -> String {
    format!("{} node {}", print.region, print.node)
}

fn differing(a: &NodePrint, b: &NodePrint) -> Vec<String> {
    let mut differ = Vec::new();
    if a.frontier != b.frontier {
        differ.push(format!("frontier ({} and {})", a.frontier, b.frontier));
    }
    if a.streams != b.streams {
        differ.push(format!("number of streams ({} and {})", a.streams, b.streams));
    }
    let unequal = a.buckets.iter().zip(&b.buckets).filter(|(a, b)| a != b).count()
        + a.buckets.len().abs_diff(b.buckets.len());
    if unequal > 0 {
        differ.push(format!("{unequal} buckets of streams"));
    }
    if a.chains != b.chains {
        differ.push("chain hashes of the origins".to_owned());
    }
    if (a.global_position, &a.global_chain) != (b.global_position, &b.global_chain) {
        let (a, b) = (a.global_position, b.global_position);
        differ.push(format!("the global order (final up to {a} and {b})"));
    }
    differ
}

fn file_counts(regions: &[RegionReading], file: &FileCounts) -> Faults {
    let mut faults = Faults::default();
    for reading in regions {
        let region = &reading.region;
        let mut written: BTreeMap<&RegionName, u64> = BTreeMap::new();
        for (origin, seq) in reading.heads() {
            *written.entry(&origin.region).or_default() += seq;
        }
        for (of, expected) in &file.regions {
            let held = written.get(of).copied().unwrap_or_default();
            if held != *expected {
                faults.add(|| format!("{region} has {held} events of {of}, the file {expected}"));
            }
        }
        for (stream, expected) in &file.streams {
            let held = reading.events_of(stream);
            if held != *expected {
                faults
                    .add(|| format!("{region} has {held} events of {stream}, the file {expected}"));
            }
        }
        let extra = reading.streams().filter(|(stream, _)| !file.streams.contains_key(*stream));
        for (stream, held) in extra {
            faults.add(|| format!("{region} has {held} events of {stream}, the file none"));
        }
    }
    faults
}

#[cfg(test)]
#[path = "proof_tests.rs"]
mod tests;
