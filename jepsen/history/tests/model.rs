//! Every law against runs of a small store that keeps them, and against the same store with a bug.
//!
//! The store is a model: regions with logs, imports that wait for contexts, stamps that rise, memory
//! of retries, sessions, cursors. It shows that the checks find nothing where nothing is wrong,
//! although everything is concurrent, and that each finds what it is for.

mod store;

use std::collections::BTreeMap;

use anabranch_history::checks::{self, Verdict};
use anabranch_history::excerpt;
use store::{Bug, Settings, run};

fn broken(verdicts: &[Verdict]) -> Vec<&'static str> {
    verdicts.iter().filter(|verdict| verdict.broken > 0).map(|verdict| verdict.name).collect()
}

#[test]
fn runs_without_a_bug_keep_all_laws() {
    let mut tested: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in 0..40 {
        let evidence = run(seed, Settings::default(), None);
        for verdict in checks::all(&evidence) {
            assert_eq!(
                verdict.broken,
                0,
                "seed {seed}: {verdict:#?}\n{}",
                excerpt(&evidence, &verdict)
            );
            *tested.entry(verdict.name).or_default() += verdict.facts;
        }
    }
    let idle: Vec<_> = tested.iter().filter(|(_, facts)| **facts == 0).collect();
    println!("{tested:?}");
    assert!(
        idle.iter().all(|(name, _)| OTHERS.contains(name)),
        "these looked at nothing: {idle:?}"
    );
}

#[test]
fn runs_that_lose_a_region_keep_what_is_promised_then() {
    let mut told = 0;
    for seed in 0..40 {
        let lost_at = Some(200 + seed * 26);
        let evidence = run(seed, Settings { lost_at, ..Settings::default() }, None);
        for verdict in checks::all(&evidence) {
            assert_eq!(
                verdict.broken,
                0,
                "seed {seed}: {verdict:#?}\n{}",
                excerpt(&evidence, &verdict)
            );
            told += u64::from(verdict.notes.iter().any(|note| note.contains("went down with us")));
        }
    }
    assert!(told > 5, "{told} runs lost acknowledged events that nobody else held");
}

/// Laws of single workloads, which the model does not run.
const OTHERS: [&str; 9] = [
    "aggregates",
    "conflicts",
    "homes",
    "bounded",
    "operations",
    "walks",
    "limits",
    "fencing",
    "answers",
];

#[test]
fn every_bug_is_found_by_its_law() {
    for bug in Bug::ALL {
        let found = (0..60).find(|seed| {
            let evidence = run(*seed, Settings::default(), Some(bug));
            let verdicts = checks::all(&evidence);
            let law = verdicts.iter().find(|verdict| verdict.name == bug.law()).expect("a law");
            if law.broken == 0 {
                return false;
            }
            // What shows it can be told.
            let text = excerpt(&evidence, law);
            assert!(!text.is_empty() || law.ops.is_empty(), "{bug:?}: {:?}", law.words);
            println!("{bug:?}: seed {seed}, {:?}", broken(&verdicts));
            true
        });
        assert!(found.is_some(), "{bug:?} was not found by {}", bug.law());
    }
}

#[test]
fn one_seed_gives_one_history_byte_for_byte() {
    let hash = |seed| run(seed, Settings::default(), None).hash();
    assert_eq!(hash(3), hash(3));
    assert_ne!(hash(3), hash(4));
}

#[test]
fn a_long_history_is_judged() {
    // Something quadratic would show as a test that takes minutes.
    let settings = Settings { ops: 12_000, streams: 4_000, lost_at: None };
    let evidence = run(1, settings, None);
    let events = evidence.regions.values().next().expect("a region").regional.len();
    assert!(events > 10_000, "{events}");
    assert_eq!(broken(&checks::all(&evidence)), Vec::<&str>::new());
}
