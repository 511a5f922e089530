//! Law 6: the global order is the same in every region, position by position.

use super::Verdict;
use crate::evidence::{Evidence, Seen};

/// Every region shows the same event at the same position, and the order is that of (stamp, origin,
/// seq).
pub fn check(evidence: &Evidence) -> Verdict {
    let mut verdict = Verdict::new("the global order is one, position by position");
    let mut regions = evidence.regions.iter();
    let Some((first_name, first)) = regions.next() else { return verdict };
    for pair in first.global.windows(2) {
        verdict.check(key(&pair[0]) < key(&pair[1]), || {
            format!("{first_name} shows {} before {}", pair[0].dot, pair[1].dot)
        });
    }
    for (name, read) in regions {
        for (position, (one, other)) in first.global.iter().zip(&read.global).enumerate() {
            let same = one.dot == other.dot && one.id == other.id && one.stamp == other.stamp;
            verdict.check(same, || {
                format!("at {position} {first_name} shows {}, {name} shows {}", one.dot, other.dot)
            });
        }
        let (one, other) = (first.global.len(), read.global.len());
        verdict.check(one == other, || {
            format!("{first_name} shows {one} events in global order, {name} {other}")
        });
    }
    verdict
}

fn key(seen: &Seen) -> (anabranch_client::Stamp, &anabranch_client::Origin, u64) {
    (seen.stamp, &seen.dot.origin, seen.dot.seq.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::sound;

    #[test]
    fn two_events_that_changed_places_are_found() {
        let mut evidence = sound();
        assert!(check(&evidence).holds(), "{:?}", check(&evidence).words);
        evidence.regions.get_mut("us").unwrap().global.swap(1, 2);
        assert_eq!(check(&evidence).broken, 2, "two positions differ");
        let mut short = sound();
        short.regions.get_mut("us").unwrap().global.pop();
        assert_eq!(check(&short).broken, 1);
    }
}
