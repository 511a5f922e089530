//! Law 9: a subscriber that moves with its cursor is given every event once, in order.

use std::collections::{BTreeMap, BTreeSet};

use anabranch_client::{Dot, Order, Origin};

use super::Verdict;
use crate::evidence::{Evidence, Seen, Subscribed};

/// Global subscribers were given exactly the final order, position by position, also while events
/// were not final yet; regional ones every event once, each origin in its own order.
pub fn check(evidence: &Evidence) -> Verdict {
    let mut verdict = Verdict::new("subscribers saw every event once, in order, across moves");
    let Some(read) = evidence.regions.values().next() else { return verdict };
    for subscribed in &evidence.subscribed {
        for problem in &subscribed.problems {
            verdict.check(false, || format!("{}: {problem}", subscribed.name));
        }
        match subscribed.order {
            Order::Global => check_global(&mut verdict, subscribed, &read.global),
            Order::Regional => check_regional(&mut verdict, subscribed, &read.global),
        }
    }
    verdict
}

fn check_global(verdict: &mut Verdict, subscribed: &Subscribed, order: &[Seen]) {
    let name = &subscribed.name;
    for (nth, (position, dot)) in (0..).zip(&subscribed.events) {
        let expected = order.get(nth as usize).map(|seen| &seen.dot);
        verdict.check(*position == nth && Some(dot) == expected, || {
            format!("{name} was given {dot} at {position}, the order has {expected:?} at {nth}")
        });
    }
    let (given, all) = (subscribed.events.len(), order.len());
    verdict.check(given >= all, || format!("{name} stopped after {given} of {all} events"));
}

fn check_regional(verdict: &mut Verdict, subscribed: &Subscribed, all: &[Seen]) {
    let name = &subscribed.name;
    let mut heads: BTreeMap<&Origin, u64> = BTreeMap::new();
    for (_, dot) in &subscribed.events {
        let head = heads.entry(&dot.origin).or_default();
        let (before, next) = (*head, *head + 1);
        verdict.check(dot.seq.0 == next, || {
            format!("{name} was given {dot} after number {before} of its origin")
        });
        *head = before.max(dot.seq.0);
    }
    let given: BTreeSet<&Dot> = subscribed.events.iter().map(|(_, dot)| dot).collect();
    let missed = all.iter().filter(|seen| !given.contains(&seen.dot)).count();
    verdict.check(missed == 0, || format!("{name} was not given {missed} of {} events", all.len()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::sound;

    #[test]
    fn gaps_repeats_and_problems_are_found() {
        assert!(check(&sound()).holds(), "{:?}", check(&sound()).words);
        for at in 0..sound().subscribed.len() {
            let mut gap = sound();
            gap.subscribed[at].events.remove(1);
            assert!(check(&gap).broken > 0, "gap, subscriber {at}");
            let mut twice = sound();
            let event = twice.subscribed[at].events[1].clone();
            twice.subscribed[at].events.insert(1, event);
            assert!(check(&twice).broken > 0, "repeat, subscriber {at}");
            let mut short = sound();
            short.subscribed[at].events.pop();
            assert_eq!(check(&short).broken, 1, "short, subscriber {at}");
            let mut problem = sound();
            problem.subscribed[at].problems.push("refused".into());
            assert_eq!(check(&problem).broken, 1);
        }
    }
}
