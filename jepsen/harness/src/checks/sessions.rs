//! Law 8: with its session, a client reads its own writes, also in another region.

use super::Verdict;
use crate::evidence::Evidence;

/// Every read that was answered showed all of the write before it.
pub fn check(evidence: &Evidence) -> Verdict {
    let mut verdict = Verdict::new("a session reads its own writes in another region");
    for read in &evidence.history.session_reads {
        let wrote = &read.wrote;
        let missing: Vec<u64> = (0..u64::from(wrote.events))
            .map(|nth| wrote.first.seq.0 + nth)
            .filter(|seq| {
                !read.shown.iter().any(|dot| dot.origin == wrote.first.origin && dot.seq.0 == *seq)
            })
            .collect();
        verdict.check(missing.is_empty(), || {
            format!("{} did not show numbers {missing:?} of {}", read.read_in, wrote.first.origin)
        });
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::sound;

    #[test]
    fn a_read_that_lacks_the_write_is_found() {
        let mut evidence = sound();
        assert!(check(&evidence).holds(), "{:?}", check(&evidence).words);
        evidence.history.session_reads[0].shown.pop();
        assert_eq!(check(&evidence).broken, 1);
    }
}
