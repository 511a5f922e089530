//! Law 3: any prefix of any region's log holds, of every origin, exactly the events 1..k: no gap, and
//! never an event before one in its context.
//!
//! Source: DESIGN.md law 3; reliability table P4 (causal consistency). The context of an event is not
//! on the wire; it is what precedes the event in the log of the region that wrote it, which was read,
//! so every other region's log is held against that. Also: positions are dense from 0, revisions of
//! every stream are dense from 0, and whoever was observed held as many events as its frontier says.
//!
//! It cannot see: the contexts of events of a region whose log nobody could read; and causes that
//! went from client to client without a session.

use std::collections::BTreeMap;

use anabranch_client::Origin;

use super::{Broken, Verdict};
use crate::case::{Case, Causes, Log};
use crate::evidence::Seen;

/// Checks both orders of every region, and observations.
pub fn check(case: &Case<'_>) -> Verdict {
    let law = "every prefix holds events 1..k of each origin, causes before effects";
    let mut verdict = Verdict::new("prefix", law);
    for (region, read) in case.evidence.regions.iter().chain(&case.evidence.before_loss) {
        for (order, events) in read.orders() {
            check_order(&mut verdict, case, &format!("{region} ({order})"), events);
        }
    }
    for log in &case.logs {
        check_revisions(&mut verdict, case, log);
    }
    for (at, seen) in case.evidence.history.observations.iter().enumerate() {
        verdict.check(seen.frontier.events() == seen.position, || {
            let words = format!(
                "{} was at position {} and held {}",
                seen.name(),
                seen.position,
                seen.frontier
            );
            Broken::new(words).observation(at)
        });
    }
    verdict
}

fn check_order(verdict: &mut Verdict, case: &Case<'_>, place: &str, events: &[Seen]) {
    let mut held = vec![0_u64; case.origins.len()];
    // Of each origin, the causes looked at last: a row of events shares them.
    let mut looked_at: BTreeMap<&Origin, &Causes> = BTreeMap::new();
    for (position, seen) in (0..).zip(events) {
        let broken = |words: String| {
            Broken::new(format!("{place} {words}")).dot(&seen.dot).ops(case.op_of(&seen.dot))
        };
        verdict.check(seen.place == position, || {
            broken(format!("shows {} at {}, expected at {position}", seen.dot, seen.place))
        });
        let Some(origin) = case.origin(&seen.dot.origin) else {
            verdict.check(false, || broken(format!("shows {}, no log does", seen.dot)));
            continue;
        };
        let before = held[origin];
        verdict.check(seen.dot.seq.0 == before + 1, || {
            broken(format!("shows {} at {position}, after number {before} of its origin", seen.dot))
        });
        held[origin] = before.max(seen.dot.seq.0);
        if let Some(causes) = case.causes(&seen.dot) {
            let same = looked_at
                .insert(&seen.dot.origin, causes)
                .is_some_and(|before| std::rc::Rc::ptr_eq(before, causes));
            let missing = match same {
                true => None,
                false => (0..held.len()).find(|at| held[*at] < causes[*at]),
            };
            verdict.check(missing.is_none(), || {
                let at = missing.unwrap_or_default();
                let (origin, cause) = (case.origins[at], causes[at]);
                let held = held[at];
                let words = format!(
                    "shows {} at {position} when it held {origin} up to {held}; it was written after {origin}:{cause}",
                    seen.dot
                );
                let cause = anabranch_client::Dot {
                    origin: origin.clone(),
                    seq: anabranch_core::Seq(cause),
                };
                broken(words).dot(&cause).ops(case.op_of(&cause))
            });
        }
    }
}

fn check_revisions(verdict: &mut Verdict, case: &Case<'_>, log: &Log<'_>) {
    let mut heads: BTreeMap<&str, u64> = BTreeMap::new();
    for seen in log.events() {
        let next = heads.entry(&seen.stream).or_default();
        verdict.check(seen.revision == *next, || {
            let words = format!(
                "{} shows {} as revision {} of {}, expected {next}",
                log.name, seen.dot, seen.revision, seen.stream
            );
            Broken::new(words).dot(&seen.dot).ops(case.op_of(&seen.dot))
        });
        *next += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::{judge, renumber, sound};

    #[test]
    fn gaps_and_odd_numbers_are_found() {
        assert!(judge(check, &sound()).holds(), "{:?}", judge(check, &sound()).words);
        let mut gap = sound();
        gap.regions.get_mut("us").unwrap().global.remove(1);
        assert!(judge(check, &gap).broken > 0);
        let mut revision = sound();
        revision.regions.get_mut("us").unwrap().regional[0].revision = 9;
        assert_eq!(judge(check, &revision).broken, 1);
        let mut place = sound();
        place.regions.get_mut("us").unwrap().regional[5].place = 9;
        assert_eq!(judge(check, &place).broken, 1);
        let mut observed = sound();
        observed.history.observations[0].position += 1;
        assert_eq!(judge(check, &observed).broken, 1);
    }

    #[test]
    fn an_effect_before_its_cause_is_found() {
        // us wrote its events when it held eu's first two. Here a third region holds them first.
        let mut evidence = sound();
        let mut asia = evidence.regions["us"].clone();
        asia.own = None;
        asia.regional.swap(0, 2);
        asia.regional.swap(1, 3);
        renumber(&mut asia.regional);
        evidence.regions.insert("asia".into(), asia);
        let verdict = judge(check, &evidence);
        assert_eq!(verdict.broken, 1, "{:?}", verdict.words);
        assert!(verdict.words[0].contains("it was written after eu/"), "{:?}", verdict.words);
        assert!(verdict.ops.contains(&0) && verdict.ops.contains(&1));
    }
}
