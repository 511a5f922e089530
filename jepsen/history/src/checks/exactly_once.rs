//! Law 2: each dot is in every region's log once; a retried append (same producer, epoch and
//! sequence, or same event ids) yields the first result, also when the retry went to another node,
//! or to another region that has the first.
//!
//! Source: DESIGN.md law 2, README "Exactly once" and "What it does not promise": an append that two
//! regions were sent before they met is in both logs, under two dots. So a second copy breaks the
//! law if it has the first one's origin, or if its region held the other when it wrote it.
//!
//! It cannot see: copies in a region whose log nobody could read; and it takes the memory of retries
//! (the last 1,024 requests of a producer, the last 100,000 event ids) for longer than the run.

use std::collections::BTreeMap;

use anabranch_client::{Dot, EventId, ProducerTag};

use super::{Broken, Verdict};
use crate::case::Case;
use crate::evidence::Seen;
use crate::op::Repeat;

/// Dots, event ids and producer sequences are there once, and repetitions got the first result.
pub fn check(case: &Case<'_>) -> Verdict {
    let law = "nothing is there twice, and a repeated append yields the first result";
    let mut verdict = Verdict::new("exactly_once", law);
    for (region, read) in case.evidence.regions.iter().chain(&case.evidence.before_loss) {
        for (order, events) in read.orders() {
            dots_once(&mut verdict, case, &format!("{region} ({order})"), events);
        }
    }
    for log in &case.logs {
        let id = |seen: &Seen| seen.id;
        copies::<EventId>(&mut verdict, case, &log.name, "event id", log.events(), id);
        let sequence = |seen: &Seen| {
            let of = |tag: ProducerTag| (tag.id, tag.epoch, tag.sequence);
            // An event whose mark cannot be read is honesty's matter.
            seen.mark.map(|mark| (of(mark.tag), mark.nth))
        };
        let marked: Vec<&Seen> = log.events().iter().filter(|seen| seen.mark.is_some()).collect();
        let marked = marked.into_iter();
        copies(&mut verdict, case, &log.name, "producer sequence", marked, sequence);
    }
    for repeat in &case.evidence.history.repeats {
        repeated(&mut verdict, case, repeat);
    }
    verdict
}

fn dots_once(verdict: &mut Verdict, case: &Case<'_>, place: &str, events: &[Seen]) {
    let mut first: BTreeMap<&Dot, u64> = BTreeMap::new();
    for seen in events {
        let before = first.insert(&seen.dot, seen.place);
        verdict.check(before.is_none(), || {
            let before = before.unwrap_or_default();
            let words = format!("{place} shows {} at {before} and at {}", seen.dot, seen.place);
            Broken::new(words).dot(&seen.dot).ops(case.op_of(&seen.dot))
        });
    }
}

fn copies<'a, K: Ord>(
    verdict: &mut Verdict,
    case: &Case<'_>,
    place: &str,
    what: &str,
    events: impl IntoIterator<Item = &'a Seen>,
    key: impl Fn(&'a Seen) -> K,
) {
    let mut copies: BTreeMap<K, Vec<&Dot>> = BTreeMap::new();
    for seen in events {
        let dots = copies.entry(key(seen)).or_default();
        let other = dots.iter().find(|dot| clash(case, dot, &seen.dot)).copied();
        verdict.check(other.is_none(), || {
            let other = other.unwrap_or(&seen.dot);
            let words = format!("{place} shows one {what} as {other} and as {}", seen.dot);
            Broken::new(words).dot(other).dot(&seen.dot).ops(case.op_of(other))
        });
        if dots.last() != Some(&&seen.dot) {
            dots.push(&seen.dot);
        }
    }
}

/// Whether one of two copies should not be there. The same dot twice is another finding.
fn clash(case: &Case<'_>, one: &Dot, other: &Dot) -> bool {
    one != other && (one.origin == other.origin || case.knew(one, other) || case.knew(other, one))
}

fn repeated(verdict: &mut Verdict, case: &Case<'_>, repeat: &Repeat) {
    let Repeat { first, again, region, said_so, .. } = repeat;
    let forgetful = case.evidence.expectations.forgetful();
    if [region.as_str(), first.first.origin.region.as_str()].iter().any(|it| forgetful.contains(it))
    {
        // It forgot what it had done; or what it had done went down with it.
        return;
    }
    let broken = |words: &str| {
        let words = format!("{words}: {repeat:?}");
        Broken::new(words).dot(&first.first).dot(&again.first).ops(case.op_of(&first.first))
    };
    if *region == first.first.origin.region.as_str() {
        let same = first.same_result(again) && *said_so;
        return verdict.check(same, || broken("a repetition got another result"));
    }
    // Elsewhere position and revisions are that region's.
    let first_result = first.first == again.first
        && (first.stamp, first.events) == (again.stamp, again.events)
        && *said_so;
    let second_copy =
        again.first.origin.region.as_str() == region && !clash(case, &first.first, &again.first);
    verdict
        .check(first_result || second_copy, || broken("a repetition elsewhere got another result"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::{judge, sound};

    #[test]
    fn a_second_copy_is_found_by_each_of_its_names() {
        assert!(judge(check, &sound()).holds());
        let mut evidence = sound();
        let us = evidence.regions.get_mut("us").unwrap();
        us.regional.push(us.regional[0].clone());
        assert_eq!(judge(check, &evidence).broken, 1, "by dot");

        // A retry that got a second dot of the same origin.
        let mut evidence = sound();
        let us = evidence.regions.get_mut("us").unwrap();
        us.regional[4].id = us.regional[0].id;
        us.regional[4].mark = us.regional[0].mark;
        let verdict = judge(check, &evidence);
        assert_eq!(verdict.broken, 2, "by id and by sequence: {:?}", verdict.words);
    }

    #[test]
    fn copies_in_two_regions_are_excused_only_if_the_regions_had_not_met() {
        // The copy in us, event 2, was written when us held events 0 and 1 of eu.
        let mut met = sound();
        for region in met.regions.values_mut() {
            (region.regional[2].id, region.regional[2].mark) =
                (region.regional[0].id, region.regional[0].mark);
        }
        assert_eq!(judge(check, &met).broken, 4, "by id and sequence, in two regions");
        // As before, but us received eu's events after it wrote its own.
        let mut apart = met.clone();
        apart.regions.get_mut("us").unwrap().regional.rotate_left(2);
        assert_eq!(judge(check, &apart).broken, 0, "{:?}", judge(check, &apart).words);
    }

    #[test]
    fn another_result_for_the_same_append_is_found() {
        let mut evidence = sound();
        evidence.history.repeats[0].again.regions += 1;
        assert!(judge(check, &evidence).holds(), "receipts may have come in");
        evidence.history.repeats[0].again.first.seq.0 += 1;
        assert_eq!(judge(check, &evidence).broken, 1);
        let mut silent = sound();
        silent.history.repeats[0].said_so = false;
        assert_eq!(judge(check, &silent).broken, 1);
    }

    #[test]
    fn a_repetition_elsewhere_yields_the_first_once_that_region_has_it() {
        let mut evidence = sound();
        let us = evidence.history.ops[1].ack().unwrap().clone();
        let repeat = &mut evidence.history.repeats[0];
        repeat.region = "us".into();
        repeat.again.position += 9;
        assert!(judge(check, &evidence).holds(), "the first result, at another position");
        evidence.history.repeats[0].again = us;
        assert_eq!(judge(check, &evidence).broken, 1, "us held the first when it wrote another");
    }
}
