//! Law 5: after the faults, every region comes to hold the same events.

use std::collections::BTreeSet;

use anabranch_client::Dot;

use super::Verdict;
use crate::evidence::Evidence;

/// In time, and every region shows the same set of events in both orders.
pub fn check(evidence: &Evidence) -> Verdict {
    let mut verdict = Verdict::new("all regions come to hold the same events");
    verdict.check(evidence.not_converged.is_empty(), || evidence.not_converged.join("; "));
    let sets = evidence.regions.iter().flat_map(|(region, read)| {
        let set = |(order, events): (&'static str, &[crate::evidence::Seen])| {
            let dots: BTreeSet<Dot> = events.iter().map(|event| event.dot.clone()).collect();
            (format!("{region} in {order} order"), dots)
        };
        read.orders().map(set)
    });
    let sets: Vec<(String, BTreeSet<Dot>)> = sets.collect();
    let Some((first_name, first)) = sets.first() else { return verdict };
    for (name, dots) in &sets[1..] {
        verdict.check(dots == first, || {
            let missing: Vec<_> = first.difference(dots).take(3).collect();
            let extra: Vec<_> = dots.difference(first).take(3).collect();
            let (held, other) = (dots.len(), first.len());
            format!("{name} shows {held} events, {first_name} {other}; lacks {missing:?}, has besides {extra:?}")
        });
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::sound;

    #[test]
    fn a_region_that_lacks_an_event_is_found() {
        let mut evidence = sound();
        assert!(check(&evidence).holds());
        evidence.regions.get_mut("us").unwrap().global.pop();
        let verdict = check(&evidence);
        assert_eq!(verdict.broken, 1, "{:?}", verdict.words);
        let mut late = sound();
        late.not_converged.push("us-1 holds less".into());
        assert!(!check(&late).holds());
    }
}
