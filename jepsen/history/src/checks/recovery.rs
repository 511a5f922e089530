//! After the last fault is healed every region that is left finds a leader, serves, and all come to
//! agree, in time; and while a region that is lost for good holds the global order back, everybody
//! says so and names it.
//!
//! Source: facts of the fault matrix (leader in 30 s, converged in 60 s); DESIGN.md section 1 ("waits
//! at the last stable point; says who blocks it").
//!
//! It cannot see: slowness below the bound, and regions that failed for a time in between.

use super::Verdict;
use crate::case::Case;
use crate::evidence::Blame;

/// Checks the times and the blame.
pub fn check(case: &Case<'_>) -> Verdict {
    let mut verdict = Verdict::new("recovery", "healed regions serve and agree in time");
    check_blame(&mut verdict, case);
    let Some(recovery) = &case.evidence.recovery else { return verdict };
    let within = recovery.within;
    for (region, served) in &recovery.served {
        verdict.check(served.is_some_and(|served| served <= within), || match served {
            Some(served) => format!("{region} served after {served:.1?}, {within:.1?} are allowed"),
            None => format!("{region} did not serve within {within:.1?}"),
        });
    }
    let agreed = recovery.agreed.is_some_and(|agreed| agreed <= within);
    verdict.check(agreed && recovery.not_converged.is_empty(), || {
        let stand = recovery.not_converged.join("; ");
        match recovery.agreed {
            Some(agreed) => {
                format!("all agreed after {agreed:.1?}, {within:.1?} are allowed; {stand}")
            }
            None => format!("not all agreed within {within:.1?}: {stand}"),
        }
    });
    verdict
}

/// Whoever has events that are not final names who they wait for: regions that are lost, and no other.
fn check_blame(verdict: &mut Verdict, case: &Case<'_>) {
    let lost = &case.evidence.expectations.lost;
    for (node, blame) in &case.evidence.blames {
        let Blame { events, ordered, blocked_by } = blame;
        verdict.check(blame.is_just(lost), || {
            format!(
                "{node} has ordered {ordered} of {events} events and says that it waits for \
                 {blocked_by:?}, lost are {lost:?}"
            )
        });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::*;
    use crate::checks::testing::{judge, sound};

    #[test]
    fn late_and_missing_recoveries_are_found() {
        assert!(judge(check, &sound()).holds(), "{:?}", judge(check, &sound()).words);
        let broken = |change: &dyn Fn(&mut crate::evidence::Recovery)| {
            let mut evidence = sound();
            change(evidence.recovery.as_mut().unwrap());
            judge(check, &evidence).broken
        };
        assert_eq!(broken(&|recovery| recovery.agreed = None), 1);
        assert_eq!(broken(&|recovery| recovery.agreed = Some(Duration::from_secs(99))), 1);
        assert_eq!(broken(&|recovery| recovery.served.extend([("us".to_owned(), None)])), 1);
        assert_eq!(broken(&|recovery| recovery.not_converged.push("us-1 lags".into())), 1);
        let mut untold = sound();
        untold.recovery = None;
        untold.blames.clear();
        assert!(!judge(check, &untold).tested());
    }

    #[test]
    fn a_node_that_blames_nobody_or_somebody_else_is_found() {
        let mut evidence = sound();
        evidence.expectations.lost.insert("asia".into());
        let mut says = |ordered: u64, who: &[&str]| {
            let blocked_by: BTreeSet<String> = who.iter().map(|who| (*who).to_owned()).collect();
            evidence.blames.insert("us-1".into(), Blame { events: 3, ordered, blocked_by });
            judge(check, &evidence).broken
        };
        assert_eq!(says(2, &["asia"]), 0);
        assert_eq!(says(2, &[]), 1);
        assert_eq!(says(2, &["asia", "eu"]), 1);
        assert_eq!(says(3, &[]), 0);
        assert_eq!(says(3, &["asia"]), 1, "it has ordered everything");
    }
}
