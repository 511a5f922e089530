//! Bounded counters: never below zero, in any region, at any time; and no region spends what is another's.
//!
//! Source: DESIGN.md law 7; ADR 0010 ("in every causal cut each region's rights are at or above zero").
//! In every prefix of every region's log, and of the global order, what the regions hold of a counter is
//! at or above zero, each by itself and so all together. What was acknowledged is there once, and what
//! is left in the end is the same everywhere. That a spend that was refused for want of rights is absent
//! is `honesty.rs`; what nodes serve of a counter, `aggregates.rs`.
//!
//! It cannot see: a refusal although there were rights enough, which is allowed: what is on its way
//! counts, too. Regions whose every disk was lost are left out: what they had spent and nobody else held
//! is forgotten, and their name is at work again.

use std::collections::{BTreeMap, BTreeSet};

use anabranch_client::Dot;
use anabranch_core::{RegionName, rights};

use super::{Broken, Verdict};
use crate::case::{Case, Log};
use crate::evidence::Seen;
use crate::note::{Note, Refusal};
use crate::op::{Ack, Op};

/// To be reached: a spend that was refused for want of rights.
pub const SHORT: &str = "a spend refused for want of rights";
/// To be reached: a region that spent what another one had passed to it.
pub const PASSED: &str = "rights spent that another region had passed on";

type Held<'a> = BTreeMap<&'a str, BTreeMap<RegionName, i128>>;

/// Adds up every log and every global order.
pub fn check(case: &Case<'_>) -> Verdict {
    let law = "no bounded counter is ever below zero, and no region's part of one";
    let mut verdict = Verdict::new("bounded", law);
    let mut last: Option<(&str, Held<'_>)> = None;
    for log in &case.logs {
        let held = add_up(&mut verdict, case, &log.name, log.events());
        add_up(&mut verdict, case, &format!("{} (global)", log.name), &log.read.global);
        verdict.reach(PASSED, passed(log));
        if log.lost {
            continue;
        }
        let (name, first) = last.get_or_insert((log.region, held.clone()));
        if first.is_empty() && held.is_empty() {
            continue;
        }
        verdict.check(*first == held, || {
            format!("{name} and {} end with other rights: {first:?} and {held:?}", log.name)
        });
    }
    for (at, op, ack) in case.acknowledged().filter(|(_, op, _)| is_about_rights(op)) {
        there_once(&mut verdict, case, (at, op, ack));
    }
    refusals(&mut verdict, case);
    verdict
}

fn is_about_rights(op: &Op) -> bool {
    let said = op.events.iter().filter_map(|asked| asked.says.as_ref());
    said.into_iter().any(|said| said.kind == rights::EVENT_TYPE)
}

/// What each region holds of each counter at the end of these events.
fn add_up<'a>(verdict: &mut Verdict, case: &Case<'_>, name: &str, events: &'a [Seen]) -> Held<'a> {
    let rebuilt = &case.evidence.expectations.rebuilt;
    let mut held: Held<'a> = BTreeMap::new();
    for seen in events {
        let Some(said) = &seen.says else { continue };
        let by = &seen.dot.origin.region;
        for (region, change) in said.as_rights(by) {
            let regions = held.entry(&seen.stream).or_default();
            let now = regions.entry(region.clone()).or_default();
            *now += change;
            let left = *now;
            let excused = rebuilt.contains(region.as_str());
            verdict.check(change > 0 || left >= 0 || excused, || {
                let stream = &seen.stream;
                let words = format!("{name} has {region} at {left} of {stream} after {}", seen.dot);
                Broken::new(words).dot(&seen.dot).ops(case.op_of(&seen.dot))
            });
        }
        let Some(regions) = held.get(&*seen.stream) else { continue };
        let all: i128 = regions.values().sum();
        verdict.check(all >= 0 || !rebuilt.is_empty(), || {
            let words = format!("{name} has {} at {all} after {}", seen.stream, seen.dot);
            Broken::new(words).dot(&seen.dot).ops(case.op_of(&seen.dot))
        });
    }
    held
}

/// How many of the region's own spends took more than it had earned itself.
fn passed(log: &Log<'_>) -> u64 {
    let mut earned: BTreeMap<&str, i128> = BTreeMap::new();
    let mut times = 0;
    for seen in log.events().iter().filter(|seen| Some(&seen.dot.origin) == log.own) {
        let Some(said) = &seen.says else { continue };
        let by = &seen.dot.origin.region;
        let own: i128 = said.as_rights(by).iter().filter(|(to, _)| to == by).map(|one| one.1).sum();
        let earned = earned.entry(&seen.stream).or_default();
        *earned += own;
        if *earned < 0 {
            // What was passed on and is spent now is not told again.
            *earned = 0;
            times += 1;
        }
    }
    times
}

fn there_once(verdict: &mut Verdict, case: &Case<'_>, (at, op, ack): (usize, &Op, &Ack)) {
    if case.evidence.expectations.forgetful().contains(ack.first.origin.region.as_str()) {
        return;
    }
    for log in case.last_logs() {
        for asked in &op.events {
            let copies = log.stream(&asked.stream).iter().map(|place| &log.events()[*place]);
            let dots: BTreeSet<&Dot> =
                copies.filter(|seen| seen.id == asked.id).map(|seen| &seen.dot).collect();
            verdict.check(dots.len() == 1 || (op.roams && !dots.is_empty()), || {
                let words = format!(
                    "{} shows {} times what was acknowledged as {}",
                    log.name,
                    dots.len(),
                    ack.first
                );
                let broken = Broken::new(words).op(at).dot(&ack.first);
                dots.iter().fold(broken, |broken, dot| broken.dot(dot))
            });
        }
    }
}

/// Who is refused for want of rights is told that there are too few.
fn refusals(verdict: &mut Verdict, case: &Case<'_>) {
    verdict.reach(SHORT, 0);
    for note in &case.evidence.history.notes {
        if let Note::Refused { tag, by: Refusal::RightsShort { wanted, held } } = note {
            verdict.reach(SHORT, 1);
            verdict.check(held < wanted, || {
                format!("{tag:?} was refused {wanted} although there were {held}")
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use anabranch_core::aggregate::Action;

    use super::*;
    use crate::checks::testing::{judge, sound};
    use crate::evidence::Evidence;
    use crate::said::Said;

    fn earn(amount: u64) -> Action {
        Action::Earn(amount)
    }
    fn spend(amount: u64) -> Action {
        Action::Spend(amount)
    }
    fn pass(amount: u64, to: &str) -> Action {
        Action::Pass { amount, to: RegionName::new(to).unwrap() }
    }

    /// Two events of eu, two of us, two of eu, on one counter; the same in both orders and regions.
    fn counted(actions: [Action; 6]) -> Evidence {
        let mut evidence = sound();
        let says: Vec<Said> = actions.into_iter().map(|action| Said::rights([action])).collect();
        for region in evidence.regions.values_mut() {
            for events in [&mut region.regional, &mut region.global] {
                for (seen, says) in events.iter_mut().zip(&says) {
                    (seen.stream, seen.says) = ("seats-1".into(), Some(says.clone()));
                }
            }
        }
        let asked = evidence.history.ops.iter_mut().flat_map(|op| &mut op.events);
        for (asked, says) in asked.zip(says) {
            (asked.stream, asked.says) = ("seats-1".into(), Some(says));
        }
        evidence
    }

    fn fine() -> Evidence {
        counted([earn(9), pass(5, "us"), spend(2), spend(3), earn(1), spend(5)])
    }

    #[test]
    fn a_counter_that_keeps_its_rights_is_believed_and_passed_rights_are_counted() {
        let verdict = judge(check, &fine());
        assert!(verdict.holds(), "{:?}", verdict.words);
        assert_eq!(verdict.reached[PASSED], 2, "both spends of us");
        assert_eq!(verdict.reached[SHORT], 0);
    }

    #[test]
    fn a_region_that_spends_what_another_one_holds_is_found_in_every_order() {
        // There are 9, but us has 5 of them.
        let evidence = counted([earn(9), pass(5, "us"), spend(2), spend(4), earn(1), spend(1)]);
        let verdict = judge(check, &evidence);
        assert_eq!(verdict.broken, 4, "two orders of two regions: {:?}", verdict.words);
        assert!(verdict.ops.contains(&1));
        let mut rebuilt = evidence;
        rebuilt.expectations.rebuilt.insert("us".into());
        assert_eq!(judge(check, &rebuilt).broken, 0, "its name began anew");
    }

    #[test]
    fn a_counter_below_zero_is_found() {
        let evidence = counted([earn(3), spend(4), earn(1), spend(1), earn(9), spend(1)]);
        let verdict = judge(check, &evidence);
        assert_eq!(verdict.broken, 12, "eu's part, and the sum twice: {:?}", verdict.words);
    }

    #[test]
    fn an_order_in_which_a_part_was_spent_before_it_was_there_is_found() {
        let mut evidence = fine();
        evidence.regions.get_mut("us").unwrap().regional[..4].rotate_left(2);
        // us spends first, twice, and the sum is below zero as often.
        assert_eq!(judge(check, &evidence).broken, 4);
    }

    #[test]
    fn sums_that_differ_and_spends_that_are_gone_or_there_twice_are_found() {
        let mut lost = fine();
        lost.regions.get_mut("us").unwrap().regional.pop();
        assert_eq!(judge(check, &lost).broken, 2, "{:?}", judge(check, &lost).words);
        let mut twice = fine();
        for region in twice.regions.values_mut() {
            region.regional[3].id = region.regional[2].id;
        }
        assert_eq!(judge(check, &twice).broken, 4, "one twice and one not at all, in two regions");
    }

    #[test]
    fn a_refusal_although_there_is_enough_is_found() {
        let mut evidence = fine();
        let tag = evidence.history.ops[0].tag;
        let short = |wanted, held| Note::Refused { tag, by: Refusal::RightsShort { wanted, held } };
        evidence.history.notes.push(short(3, 2));
        assert!(judge(check, &evidence).holds());
        evidence.history.notes.push(short(2, 2));
        let verdict = judge(check, &evidence);
        assert_eq!((verdict.broken, verdict.reached[SHORT]), (1, 2));
    }
}
