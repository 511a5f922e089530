//! Law 11: a refused append was not written; nothing is there that nobody wrote; what is there is as
//! it was written.
//!
//! Source: DESIGN.md law 11. That every acknowledged write is there or reported lost is `durable.rs`;
//! that an unknown one is there whole or not at all is `atomic.rs`; that a conflict tells the truth
//! is `expected_revision.rs`.
//!
//! It cannot see: an unknown outcome that could have been known; a refusal whose reason is wrong, if
//! it is no conflict.

use std::collections::BTreeMap;

use anabranch_client::EventId;

use super::{Broken, Verdict};
use crate::case::{Case, Log};
use crate::content::Mark;
use crate::evidence::Seen;
use crate::op::{Op, Outcome};
use crate::said::Said;

/// Looks for what was refused, invented or altered, in every log.
pub fn check(case: &Case<'_>) -> Verdict {
    let law = "refused is absent, nothing is invented or altered";
    let mut verdict = Verdict::new("honesty", law);
    for log in &case.logs {
        let by_id: BTreeMap<EventId, &Seen> =
            log.events().iter().map(|seen| (seen.id, seen)).collect();
        for (at, op) in case.ops() {
            match &op.outcome {
                Outcome::Acknowledged(_) | Outcome::Unknown { .. } => {}
                Outcome::Refused { why } => absent(&mut verdict, log, &by_id, (at, op), why),
                Outcome::Conflict { conflicts } => {
                    let why = format!("{conflicts:?}");
                    absent(&mut verdict, log, &by_id, (at, op), &why);
                }
            }
        }
        for seen in log.events() {
            as_written(&mut verdict, case, log, seen);
        }
    }
    verdict
}

fn absent(
    verdict: &mut Verdict,
    log: &Log<'_>,
    by_id: &BTreeMap<EventId, &Seen>,
    (at, op): (usize, &Op),
    why: &str,
) {
    for asked in &op.events {
        let seen = by_id.get(&asked.id);
        verdict.check(seen.is_none(), || {
            let words = format!("{} shows {seen:?}, which was refused: {why}", log.name);
            let broken = Broken::new(words).op(at);
            seen.into_iter().fold(broken, |broken, seen| broken.dot(&seen.dot))
        });
    }
}

fn as_written(verdict: &mut Verdict, case: &Case<'_>, log: &Log<'_>, seen: &Seen) {
    let broken = |words: &str| {
        let words = format!("{} shows {seen:?}, {words}", log.name);
        Broken::new(words).dot(&seen.dot).ops(case.op_of(&seen.dot))
    };
    let asked = case.asked(seen.id);
    // Whoever lacks rights has its region ask another one for some. What that one passes on has no id.
    let of_the_store =
        seen.id == EventId::of_dot(&seen.dot) && seen.says.as_ref().is_some_and(Said::passes_on);
    verdict.check(asked.is_some() || of_the_store, || broken("which nobody wrote"));
    let Some((at, nth)) = asked else { return };
    let op = case.op(at);
    let event = &op.events[nth as usize];
    let Mark { tag, nth: place, of, amount, size } = match seen.mark {
        Some(mark) => mark,
        None => return verdict.check(false, || broken("without its mark")),
    };
    // A repetition by its ids has a triple of its own, which is written only if it is no repetition.
    let same = (place, of as usize, amount, size)
        == (nth, op.events.len(), event.amount, event.size)
        && seen.stream == event.stream
        && seen.says == event.says
        && tag == op.tag;
    verdict.check(seen.intact && same, || broken(&format!("written as {event:?} of {:?}", op.tag)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::{conflict, judge, sound};

    #[test]
    fn lies_are_found() {
        assert!(judge(check, &sound()).holds(), "{:?}", judge(check, &sound()).words);

        let mut refused = sound();
        refused.history.ops[0].outcome = Outcome::Refused { why: "overload".into() };
        let events = refused.history.ops[0].events.len() as u64;
        assert_eq!(judge(check, &refused).broken, events * 2, "in both regions");
        let other = conflict("eu", &[("a", anabranch_client::Expect::NoStream, Some(1))], 4);
        refused.history.ops[0].outcome = other.outcome;
        assert_eq!(judge(check, &refused).broken, events * 2, "in both regions");

        let mut unknown = sound();
        unknown.history.ops[0].outcome = Outcome::Unknown { why: "no answer".into() };
        assert!(judge(check, &unknown).holds(), "unknown and present is fine");

        let mut altered = sound();
        altered.regions.get_mut("us").unwrap().regional[0].intact = false;
        assert_eq!(judge(check, &altered).broken, 1);
        let mut marked = sound();
        marked.regions.get_mut("us").unwrap().regional[0].mark.as_mut().unwrap().amount = 5;
        assert_eq!(judge(check, &marked).broken, 1);

        let mut invented = sound();
        invented.history.ops.pop();
        assert_eq!(judge(check, &invented).broken, 4, "two events, in two regions");
    }
}
