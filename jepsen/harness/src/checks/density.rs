//! Laws 3 and 10: any prefix of a region's log holds, of every origin, exactly events 1 to k, and
//! stamps rise along an origin.

use std::collections::BTreeMap;

use anabranch_client::{Origin, Stamp};

use super::Verdict;
use crate::evidence::{Evidence, Seen};

/// In both orders: positions dense from 0, seqs dense from 1 in each origin, stamps never falling
/// along an origin.
pub fn check(evidence: &Evidence) -> Verdict {
    let mut verdict = Verdict::new("positions and origins are dense, stamps rise along an origin");
    for (region, read) in &evidence.regions {
        for (order, events) in read.orders() {
            check_order(&mut verdict, &format!("{region} ({order})"), events);
        }
    }
    verdict
}

fn check_order(verdict: &mut Verdict, place: &str, events: &[Seen]) {
    let mut heads: BTreeMap<&Origin, (u64, Stamp)> = BTreeMap::new();
    for (position, seen) in (0..).zip(events) {
        verdict.check(seen.place == position, || {
            format!("{place} shows {} at {}, expected at {position}", seen.dot, seen.place)
        });
        let (seq, stamp) =
            heads.insert(&seen.dot.origin, (seen.dot.seq.0, seen.stamp)).unwrap_or_default();
        verdict.check(seen.dot.seq.0 == seq + 1, || {
            format!("{place} shows {} at {position}, after number {seq} of its origin", seen.dot)
        });
        verdict.check(seen.stamp >= stamp, || {
            format!("{place} shows {} stamped {}, after {stamp}", seen.dot, seen.stamp)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::sound;

    #[test]
    fn gaps_and_falling_stamps_are_found() {
        assert!(check(&sound()).holds(), "{:?}", check(&sound()).words);
        let mut evidence = sound();
        evidence.regions.get_mut("us").unwrap().regional.remove(1);
        assert!(check(&evidence).broken > 0);
        let mut evidence = sound();
        evidence.regions.get_mut("us").unwrap().regional[0].stamp = Stamp(u64::MAX);
        assert_eq!(check(&evidence).broken, 1);
    }
}
