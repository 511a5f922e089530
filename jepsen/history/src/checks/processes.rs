//! Nodes run until they are stopped: none ends or panics by itself, unless a fault was to make it.
//!
//! Source: facts of the fault matrix. A failed fsync ends the process's right to write, so that death
//! is excused and counted; any other is not.
//!
//! It cannot see: nodes that hang; those show as regions that do not serve (`recovery.rs`).

use std::collections::BTreeSet;

use super::Verdict;
use crate::case::Case;

/// Each node is a fact, and each death.
pub fn check(case: &Case<'_>) -> Verdict {
    let mut verdict = Verdict::new("processes", "no node ended or panicked by itself");
    let observed = case.evidence.history.observations.iter().map(|seen| seen.name());
    let nodes: BTreeSet<String> = case.evidence.prints.keys().cloned().chain(observed).collect();
    nodes.iter().for_each(|_| verdict.check(true, String::new));
    for death in &case.evidence.deaths {
        match &death.excuse {
            Some(excuse) => verdict.notes.push(format!("{} ended after {excuse}", death.node)),
            None => verdict.check(false, || format!("{}: {}", death.node, death.why)),
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::{judge, sound};
    use crate::evidence::Death;

    #[test]
    fn a_death_is_found_unless_it_is_excused() {
        let mut evidence = sound();
        assert!(judge(check, &evidence).holds());
        let (node, why) = ("us-1".into(), "exited with code 101".into());
        evidence.deaths.push(Death { node, why, excuse: Some("a failed fsync".into()) });
        assert!(judge(check, &evidence).holds());
        assert_eq!(judge(check, &evidence).notes, ["us-1 ended after a failed fsync"]);
        evidence.deaths[0].excuse = None;
        assert!(!judge(check, &evidence).holds());
    }
}
