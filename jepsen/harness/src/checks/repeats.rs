//! Law 2, seen by the client: a repetition yields the first result.

use super::Verdict;
use crate::evidence::Evidence;

/// Every repetition that was answered got the first acknowledgement, and was told so.
pub fn check(evidence: &Evidence) -> Verdict {
    let mut verdict = Verdict::new("a repeated append yields the first result");
    for repeat in &evidence.history.repeats {
        verdict.check(repeat.first == repeat.again && repeat.said_so, || format!("{repeat:?}"));
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::sound;

    #[test]
    fn another_result_for_the_same_append_is_found() {
        let mut evidence = sound();
        assert!(check(&evidence).holds());
        evidence.history.repeats[0].again.first.seq.0 += 1;
        assert_eq!(check(&evidence).broken, 1);
    }
}
