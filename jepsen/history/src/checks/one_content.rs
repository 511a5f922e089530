//! Law 4: one content a dot. Chain hashes of an origin agree wherever two regions hold it.
//!
//! Source: DESIGN.md law 4. Whoever shows a dot shows the same id, stream, stamp and mark under it,
//! and nodes that hold an origin up to the same number have the same chain hash there.
//!
//! It cannot see: payload bytes that no read returned (a node that was not asked; its chain hash was
//! computed when it took the group, not from its disk now).

use std::collections::BTreeMap;

use anabranch_client::{Dot, Origin};
use bytes::Bytes;

use super::{Broken, Verdict};
use crate::case::Case;
use crate::evidence::Seen;

/// Compares every showing of a dot, and every chain hash.
pub fn check(case: &Case<'_>) -> Verdict {
    let mut verdict = Verdict::new("one_content", "a dot has one content, wherever it is shown");
    let mut first: BTreeMap<&Dot, (String, &Seen)> = BTreeMap::new();
    for (region, read) in case.evidence.regions.iter().chain(&case.evidence.before_loss) {
        for (order, events) in read.orders() {
            for seen in events {
                let place = || format!("{region} ({order})");
                let (name, one) = first.entry(&seen.dot).or_insert_with(|| (place(), seen));
                let same = (one.id, &one.stream, one.stamp, one.mark, one.intact, &one.says)
                    == (seen.id, &seen.stream, seen.stamp, seen.mark, seen.intact, &seen.says);
                verdict.check(same, || {
                    let words = format!("{name} shows {one:?}, {} shows {seen:?}", place());
                    Broken::new(words).dot(&seen.dot).ops(case.op_of(&seen.dot))
                });
            }
        }
    }
    let mut chains: BTreeMap<(&Origin, u64), (&str, &Bytes)> = BTreeMap::new();
    for (node, print) in &case.evidence.prints {
        for (origin, (seq, chain)) in &print.chains {
            let (name, one) = *chains.entry((origin, *seq)).or_insert((node, chain));
            verdict.check(one == chain, || {
                let dot = Dot { origin: origin.clone(), seq: anabranch_core::Seq(*seq) };
                Broken::new(format!("{name} and {node} have other chain hashes at {dot}")).dot(&dot)
            });
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::{judge, sound};

    #[test]
    fn a_dot_with_two_contents_and_a_fork_are_found() {
        assert!(judge(check, &sound()).holds());
        let mut evidence = sound();
        evidence.regions.get_mut("us").unwrap().regional[1].stream = "other".into();
        assert_eq!(judge(check, &evidence).broken, 1, "{:?}", judge(check, &evidence).words);
        let mut evidence = sound();
        let forked = evidence.prints.get_mut("us-1").unwrap().chains.first_entry().unwrap();
        forked.into_mut().1 = vec![9; 32].into();
        let verdict = judge(check, &evidence);
        assert!(verdict.broken == 1 && verdict.words[0].contains("eu/"), "{:?}", verdict.words);
    }
}
