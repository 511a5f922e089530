//! No node ends by itself: a server that is killed and cut off all day is expected to go on.

use super::Verdict;
use crate::evidence::Evidence;

/// Every node lived until it was killed, without a panic.
pub fn check(evidence: &Evidence) -> Verdict {
    let mut verdict = Verdict::new("no node ended or panicked by itself");
    evidence.prints.keys().for_each(|_| verdict.check(true, String::new));
    for death in &evidence.deaths {
        verdict.check(false, || death.clone());
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::sound;

    #[test]
    fn a_death_is_found() {
        let mut evidence = sound();
        assert!(check(&evidence).holds());
        evidence.deaths.push("us-1 exited with code 101".into());
        assert!(!check(&evidence).holds());
    }
}
