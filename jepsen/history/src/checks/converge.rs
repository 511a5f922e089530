//! Law 5: equal frontiers mean equal streams and global order; and after the faults all regions that
//! are left come to hold the same events.
//!
//! Source: DESIGN.md law 5; reliability table P5. Compares the sets of events that the regions show,
//! and the nodes' hashes: of streams, bucket by bucket, and of the global order.
//!
//! Where a region was lost for good the global order waits, so it is compared as far as it goes
//! (`global_order.rs`) and need not be complete.
//!
//! It cannot see: aggregates and conflicts (checks of their own), and what a hash of 16 bytes hides.

use std::collections::BTreeSet;

use anabranch_client::Dot;

use super::{Broken, Verdict};
use crate::case::Case;
use crate::evidence::Seen;

/// Compares what regions show and what nodes' hashes say.
pub fn check(case: &Case<'_>) -> Verdict {
    let mut verdict = Verdict::new("converge", "all regions come to hold the same events");
    compare_sets(&mut verdict, case);
    compare_prints(&mut verdict, case);
    verdict
}

fn compare_sets(verdict: &mut Verdict, case: &Case<'_>) {
    let waits = !case.evidence.expectations.lost.is_empty();
    let sets = case.evidence.regions.iter().flat_map(|(region, read)| {
        let wanted = read.orders().into_iter().filter(|(order, _)| !(waits && *order == "global"));
        let set = |(order, events): (&'static str, &[Seen])| {
            let dots: BTreeSet<Dot> = events.iter().map(|event| event.dot.clone()).collect();
            (format!("{region} in {order} order"), dots)
        };
        wanted.map(set).collect::<Vec<_>>()
    });
    let sets: Vec<(String, BTreeSet<Dot>)> = sets.collect();
    let Some((first_name, first)) = sets.first() else { return };
    for (name, dots) in &sets[1..] {
        verdict.check(dots == first, || {
            let missing: Vec<&Dot> = first.difference(dots).take(3).collect();
            let extra: Vec<&Dot> = dots.difference(first).take(3).collect();
            let (held, other) = (dots.len(), first.len());
            let words = format!(
                "{name} shows {held} events, {first_name} {other}; lacks {missing:?}, has besides {extra:?}"
            );
            let odd = missing.iter().chain(&extra);
            odd.fold(Broken::new(words), |broken, dot| broken.dot(dot).ops(case.op_of(dot)))
        });
    }
}

fn compare_prints(verdict: &mut Verdict, case: &Case<'_>) {
    let mut prints = case.evidence.prints.iter();
    let Some((first_name, one)) = prints.next() else { return };
    for (name, other) in prints {
        let names = format!("{first_name} and {name}");
        let same_cut = one.frontier == other.frontier;
        verdict.check(same_cut, || format!("{names} hold {} and {}", one.frontier, other.frontier));
        if same_cut {
            let count = (one.streams, one.events) == (other.streams, other.events);
            verdict.check(count, || format!("{names} count streams or events differently"));
            let differ: Vec<usize> = (0..one.buckets.len().max(other.buckets.len()))
                .filter(|at| one.buckets.get(*at) != other.buckets.get(*at))
                .collect();
            verdict.check(differ.is_empty(), || {
                format!("{names} differ in stream buckets {differ:?}")
            });
        }
        if one.global_position == other.global_position {
            verdict.check(one.global_chain == other.global_chain, || {
                format!("{names} have another hash of the global order, at {}", one.global_position)
            });
        } else if case.evidence.expectations.lost.is_empty() {
            let (one, other) = (one.global_position, other.global_position);
            verdict.check(false, || format!("{names} order {one} and {other} events globally"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::{judge, sound};

    #[test]
    fn a_region_that_lacks_an_event_is_found() {
        let mut evidence = sound();
        assert!(judge(check, &evidence).holds());
        let lacking = evidence.regions.get_mut("us").unwrap().global.pop().unwrap();
        let verdict = judge(check, &evidence);
        assert_eq!(verdict.broken, 1, "{:?}", verdict.words);
        assert!(verdict.dots.contains(&lacking.dot));
        evidence.expectations.lost.insert("asia".into());
        assert!(judge(check, &evidence).holds(), "the global order waits for the lost one");
    }

    #[test]
    fn a_node_that_differs_in_one_hash_is_found() {
        let mut buckets = sound();
        buckets.prints.get_mut("us-1").unwrap().buckets[1] = vec![9; 16].into();
        assert_eq!(judge(check, &buckets).broken, 1);
        let mut global = sound();
        global.prints.get_mut("us-1").unwrap().global_chain = vec![9; 32].into();
        assert_eq!(judge(check, &global).broken, 1);
        let mut behind = sound();
        behind.prints.get_mut("us-1").unwrap().global_position = 2;
        assert_eq!(judge(check, &behind).broken, 1);
    }
}
