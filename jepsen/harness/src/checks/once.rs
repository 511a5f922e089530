//! Law 2: nothing is in a region twice, whatever was retried.

use std::collections::BTreeMap;

use super::Verdict;
use crate::evidence::{Evidence, Seen};

/// Dots, event ids, and (producer, epoch, sequence, event) are unique in every region and order.
pub fn check(evidence: &Evidence) -> Verdict {
    let mut verdict = Verdict::new("no event is there twice, by dot, id or producer sequence");
    for (region, read) in &evidence.regions {
        for (order, events) in read.orders() {
            let place = format!("{region} ({order})");
            unique(&mut verdict, &place, "dot", events, |seen| seen.dot.clone());
            unique(&mut verdict, &place, "event id", events, |seen| seen.id);
            unique(&mut verdict, &place, "producer sequence", events, |seen| &seen.producer);
        }
    }
    verdict
}

fn unique<'a, K: Ord>(
    verdict: &mut Verdict,
    place: &str,
    what: &str,
    events: &'a [Seen],
    key: impl Fn(&'a Seen) -> K,
) {
    let mut first: BTreeMap<K, &Seen> = BTreeMap::new();
    for seen in events {
        let before = first.insert(key(seen), seen);
        verdict.check(before.is_none(), || {
            let before = before.expect("it is there twice");
            format!("{place} shows one {what} twice: {before:?} and {seen:?}")
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::sound;

    #[test]
    fn a_second_copy_is_found_by_each_of_its_names() {
        let mut evidence = sound();
        assert!(check(&evidence).holds(), "{:?}", check(&evidence).words);
        let us = evidence.regions.get_mut("us").unwrap();
        us.regional.push(us.regional[0].clone());
        assert_eq!(check(&evidence).broken, 3, "by dot, by id, by sequence");

        // A retry that got a second dot and, by a fault of the server, a second id.
        let mut evidence = sound();
        let us = evidence.regions.get_mut("us").unwrap();
        us.regional[1].producer = us.regional[0].producer.clone();
        let verdict = check(&evidence);
        assert_eq!(verdict.broken, 1, "{:?}", verdict.words);
    }
}
