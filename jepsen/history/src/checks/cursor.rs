//! Law 9: resuming from a cursor in any region delivers every event after it: none skipped, none
//! twice.
//!
//! Source: DESIGN.md law 9. A subscriber that moves between regions with its cursor is given, in
//! global order, exactly the final order (of its category) position by position; in regional order,
//! every event once, each origin's in their order, and none before its causes.
//!
//! It cannot see: after a region was lost, whether a category's subscriber that had been there lacks
//! anything (its cursor may cover what nobody holds any more); whether a subscriber that fell behind was
//! told so; positions of regional
//! subscribers, which change with the region.

use std::collections::{BTreeMap, BTreeSet};

use anabranch_client::{Dot, Order, Origin};

use super::{Broken, Verdict};
use crate::case::Case;
use crate::evidence::{Seen, Subscribed};

/// Holds what every subscriber was given against what the regions show.
pub fn check(case: &Case<'_>) -> Verdict {
    let law = "subscribers saw every event once, in order, across moves";
    let mut verdict = Verdict::new("cursor", law);
    let longest = case.evidence.regions.values().max_by_key(|read| read.global.len());
    let Some(longest) = longest else { return verdict };
    for given in &case.evidence.subscribed {
        let lost = !case.evidence.expectations.forgetful().is_empty();
        for problem in &given.problems {
            verdict.check(lost, || format!("{}: {problem}", given.name));
        }
        match given.order {
            Order::Global => check_global(&mut verdict, case, given, &longest.global),
            Order::Regional => check_regional(&mut verdict, case, given),
        }
    }
    verdict
}

fn check_global(verdict: &mut Verdict, case: &Case<'_>, given: &Subscribed, order: &[Seen]) {
    let name = &given.name;
    let wanted: Vec<&Seen> = order.iter().filter(|seen| given.wants(&seen.stream)).collect();
    // The order waits for a lost region, and regions need not have come equally far.
    let waits = !case.evidence.expectations.lost.is_empty();
    for (nth, (position, dot)) in given.events.iter().enumerate() {
        let expected = wanted.get(nth);
        let beyond = waits && expected.is_none();
        let same = expected.is_some_and(|seen| seen.place == *position && seen.dot == *dot);
        verdict.check(same || beyond, || {
            let words = format!(
                "{name} was given {dot} at {position}; its event {nth} is {:?}",
                expected.map(|seen| (&seen.dot, seen.place))
            );
            Broken::new(words).dot(dot).ops(case.op_of(dot))
        });
    }
    let (count, all) = (given.events.len(), wanted.len());
    verdict.check(!given.complete || waits || count >= all, || {
        let next = &wanted[count.min(all - 1)].dot;
        let words = format!("{name} stopped after {count} of {all} events, before {next}");
        Broken::new(words).dot(next).ops(case.op_of(next))
    });
}

fn check_regional(verdict: &mut Verdict, case: &Case<'_>, given: &Subscribed) {
    let name = &given.name;
    let mut heads: BTreeMap<&Origin, u64> = BTreeMap::new();
    let mut held = vec![0; case.origins.len()];
    let forgetful = case.evidence.expectations.forgetful();
    for (_, dot) in &given.events {
        let broken = |words: String| {
            Broken::new(format!("{name} was given {dot} {words}")).dot(dot).ops(case.op_of(dot))
        };
        let head = heads.entry(&dot.origin).or_default();
        let before = *head;
        *head = before.max(dot.seq.0);
        let next = match given.category {
            None => dot.seq.0 == before + 1,
            Some(_) => dot.seq.0 > before,
        };
        verdict.check(next, || broken(format!("after number {before} of its origin")));
        // A region that came back with an older copy while nobody who knew more could be heard gives
        // numbers out again: what shows now may not be what was given then.
        let again = forgetful.contains(dot.origin.region.as_str());
        if let Some(seen) = case.seen(dot).filter(|_| !again) {
            verdict.check(given.wants(&seen.stream), || {
                broken(format!("of {}, which is not for it", seen.stream))
            });
        }
        let Some(at) = case.origin(&dot.origin) else {
            let gone = forgetful.contains(dot.origin.region.as_str());
            verdict.check(gone, || broken("of an origin that no region shows".into()));
            continue;
        };
        held[at] = before.max(dot.seq.0);
        if given.category.is_none()
            && let Some(causes) = case.causes(dot)
        {
            let missing = (0..held.len()).find(|at| held[*at] < causes[*at]);
            verdict.check(missing.is_none(), || {
                let at = missing.unwrap_or_default();
                broken(format!("before its cause {}:{}", case.origins[at], causes[at]))
            });
        }
    }
    let Some(log) = case.last_logs().next() else { return };
    let all: BTreeSet<&Dot> = given.events.iter().map(|(_, dot)| dot).collect();
    let wanted = log.events().iter().filter(|seen| given.wants(&seen.stream));
    let missed: Vec<&Dot> = wanted.map(|seen| &seen.dot).filter(|dot| !all.contains(dot)).collect();
    // Who saw what went down with its region cannot go on elsewhere: the others never hold it. What a
    // category's cursor passed over there is not known.
    let unseen = || all.iter().any(|dot| log.place(dot).is_none());
    let stranded = !forgetful.is_empty() && (given.category.is_some() || unseen());
    verdict.check(!given.complete || stranded || missed.is_empty(), || {
        let some = &missed[..missed.len().min(3)];
        let words = format!("{name} was not given {} events, as {some:?}", missed.len());
        some.iter().fold(Broken::new(words), |broken, dot| broken.dot(dot).ops(case.op_of(dot)))
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::{judge, sound};

    #[test]
    fn gaps_repeats_and_problems_are_found() {
        assert!(judge(check, &sound()).holds(), "{:?}", judge(check, &sound()).words);
        for at in 0..sound().subscribed.len() {
            let mut gap = sound();
            gap.subscribed[at].events.remove(1);
            assert!(judge(check, &gap).broken > 0, "gap, subscriber {at}");
            let mut twice = sound();
            let event = twice.subscribed[at].events[1].clone();
            twice.subscribed[at].events.insert(1, event);
            assert!(judge(check, &twice).broken > 0, "repeat, subscriber {at}");
            let mut short = sound();
            short.subscribed[at].events.pop();
            assert_eq!(judge(check, &short).broken, 1, "short, subscriber {at}");
            short.subscribed[at].complete = false;
            assert!(judge(check, &short).holds(), "it ended early");
            let mut problem = sound();
            problem.subscribed[at].problems.push("refused".into());
            assert_eq!(judge(check, &problem).broken, 1);
        }
    }

    #[test]
    fn a_category_is_given_whole_and_alone() {
        for at in 0..sound().subscribed.len() {
            let mut evidence = sound();
            evidence.subscribed[at].category = Some("b".into());
            assert!(judge(check, &evidence).broken > 0, "it was given events of another");
            evidence.subscribed[at].events.drain(..2);
            assert!(judge(check, &evidence).holds(), "{:?}", judge(check, &evidence).words);
            evidence.subscribed[at].events.remove(1);
            assert!(judge(check, &evidence).broken > 0, "subscriber {at} lacks one");
        }
    }

    #[test]
    fn a_number_that_a_forgetful_region_gave_out_twice_is_not_held_against_the_reader() {
        let mut evidence = sound();
        // The second subscriber reads in regional order; the first event is eu's, of another stream.
        evidence.subscribed[1].category = Some("b".into());
        evidence.subscribed[1].events.drain(1..2);
        let before = judge(check, &evidence).broken;
        assert!(before > 0, "it was given events of another");
        evidence.expectations.lost.insert("eu".into());
        assert_eq!(judge(check, &evidence).broken, 0, "{:?}", judge(check, &evidence).words);
    }

    #[test]
    fn an_effect_that_is_delivered_before_its_cause_is_found() {
        let mut evidence = sound();
        evidence.subscribed[1].events.rotate_left(2);
        evidence.subscribed[1].events[2..].rotate_left(2);
        let verdict = judge(check, &evidence);
        assert_eq!(verdict.broken, 2, "{:?}", verdict.words);
    }
}
