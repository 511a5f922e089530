//! Laws 8 and 9, of reads that go on by cursor: a walk through a category, region by region, is shown
//! every event once and skips none; and what comes to the end of what is there shows all that its
//! session has written or seen.
//!
//! Source: DESIGN.md laws 8 and 9. In regional order, what a walk was shown of an origin is the
//! beginning of that origin's events of the category, in their order; in global order, what it was
//! shown is the beginning of the final order, position by position.
//!
//! It cannot see: walks in global order that should have come further, because that order waits;
//! events of an origin that no region shows, if the region that wrote them was lost or rebuilt.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anabranch_client::{Dot, Order, Origin};

use super::{Broken, Verdict};
use crate::case::Case;
use crate::note::{Note, Walked};

/// The events of a category: of each origin by number, and in global order.
struct Category<'a> {
    by_origin: BTreeMap<&'a Origin, Vec<u64>>,
    global: Vec<(u64, &'a Dot)>,
}

/// Checks every walk, and every session that walks.
pub fn check(case: &Case<'_>) -> Verdict {
    let law = "walks by cursor show everything once, and their session's own";
    let mut verdict = Verdict::new("walks", law);
    let notes = case.evidence.history.notes.iter();
    let walked: Vec<&Walked> = notes
        .filter_map(|note| if let Note::Walked(walked) = note { Some(walked) } else { None })
        .collect();
    let mut categories: BTreeMap<&str, Category<'_>> = BTreeMap::new();
    let mut walks: BTreeMap<(u32, u32), Vec<&Walked>> = BTreeMap::new();
    let mut sessions: BTreeMap<(u32, &str), Vec<&Walked>> = BTreeMap::new();
    for walk in &walked {
        categories.entry(&walk.category).or_insert_with(|| find(case, &walk.category));
        walks.entry((walk.writer, walk.walk)).or_default().push(walk);
        sessions.entry((walk.writer, &walk.category)).or_default().push(walk);
    }
    for parts in walks.into_values() {
        let category = &categories[&*parts[0].category];
        match parts[0].order {
            Order::Regional => check_regional(&mut verdict, case, category, &parts),
            Order::Global => check_global(&mut verdict, case, category, &parts),
        }
    }
    for ((writer, category), reads) in sessions {
        check_session(&mut verdict, case, writer, category, &reads);
    }
    verdict
}

fn is_of(stream: &str, category: &str) -> bool {
    stream.split('-').next() == Some(category)
}

fn find<'a>(case: &Case<'a>, category: &str) -> Category<'a> {
    let mut by_origin: BTreeMap<&Origin, BTreeSet<u64>> = BTreeMap::new();
    for log in &case.logs {
        for seen in log.events().iter().filter(|seen| is_of(&seen.stream, category)) {
            by_origin.entry(&seen.dot.origin).or_default().insert(seen.dot.seq.0);
        }
    }
    let by_origin =
        by_origin.into_iter().map(|(origin, seqs)| (origin, seqs.into_iter().collect())).collect();
    let longest = case.evidence.regions.values().max_by_key(|read| read.global.len());
    let order = longest.map_or(&[][..], |read| &read.global);
    let of_category = order.iter().filter(|seen| is_of(&seen.stream, category));
    Category { by_origin, global: of_category.map(|seen| (seen.place, &seen.dot)).collect() }
}

fn broken(case: &Case<'_>, part: &Walked, dot: &Dot, words: &str) -> Broken {
    let Walked { writer, walk, region, category, returned, .. } = part;
    let words = format!(
        "walk {walk} of {writer} through {category}, in {region} at {returned:.3?}: {dot} {words}"
    );
    Broken::new(words).dot(dot).ops(case.op_of(dot))
}

fn check_regional(
    verdict: &mut Verdict,
    case: &Case<'_>,
    category: &Category<'_>,
    parts: &[&Walked],
) {
    let forgetful = case.evidence.expectations.forgetful();
    let mut shown: BTreeMap<&Origin, usize> = BTreeMap::new();
    for (part, (_, dot)) in
        parts.iter().flat_map(|part| part.shown.iter().map(move |at| (part, at)))
    {
        let nth = shown.entry(&dot.origin).or_default();
        let expected = category.by_origin.get(&dot.origin).and_then(|seqs| seqs.get(*nth)).copied();
        // What only a lost region held may have been shown there.
        let gone = forgetful.contains(dot.origin.region.as_str());
        verdict.check(gone || expected == Some(dot.seq.0), || {
            let words =
                format!("was shown as event {nth} of its origin there, that is {expected:?}");
            broken(case, part, dot, &words)
        });
        *nth += 1;
    }
}

fn check_global(
    verdict: &mut Verdict,
    case: &Case<'_>,
    category: &Category<'_>,
    parts: &[&Walked],
) {
    let waits = !case.evidence.expectations.lost.is_empty();
    let shown = parts.iter().flat_map(|part| part.shown.iter().map(move |at| (part, at)));
    for (nth, (part, (place, dot))) in shown.enumerate() {
        let expected = category.global.get(nth);
        let same = expected.is_some_and(|expected| *expected == (*place, dot));
        verdict.check(same || (waits && expected.is_none()), || {
            let words = format!("was shown at {place}; event {nth} in order is {expected:?}");
            broken(case, part, dot, &words)
        });
    }
}

/// A complete read of a regional walk ends with all that the session knew when it began.
fn check_session(
    verdict: &mut Verdict,
    case: &Case<'_>,
    writer: u32,
    category: &str,
    reads: &[&Walked],
) {
    let mut learnt: Vec<(Duration, Vec<&Dot>)> = Vec::new();
    for read in reads {
        learnt.push((read.returned, read.shown.iter().map(|(_, dot)| dot).collect()));
    }
    let written: Vec<(Duration, Vec<Dot>)> = case
        .acknowledged()
        .filter(|(_, op, _)| op.writer == writer)
        .map(|(_, op, ack)| {
            let dots = ack.dots().zip(&op.events);
            let own = dots.filter(|(_, asked)| is_of(&asked.stream, category));
            (op.returned, own.map(|(dot, _)| dot).collect())
        })
        .collect();
    learnt.extend(written.iter().map(|(at, dots)| (*at, dots.iter().collect())));
    learnt.sort_by_key(|(at, _)| *at);
    let mut known = learnt.into_iter().peekable();
    // Of each regional walk: what the session knows and the walk was not shown yet.
    let mut missing: BTreeMap<u32, BTreeSet<&Dot>> = BTreeMap::new();
    let mut shown: BTreeMap<u32, BTreeSet<&Dot>> = BTreeMap::new();
    for read in reads.iter().filter(|read| read.order == Order::Regional) {
        missing.entry(read.walk).or_default();
        shown.entry(read.walk).or_default();
    }
    let mut ordered: Vec<&&Walked> = reads.iter().collect();
    ordered.sort_by_key(|read| read.called);
    for read in ordered {
        while let Some((_, dots)) = known.next_if(|(at, _)| *at <= read.called) {
            for (walk, missing) in &mut missing {
                missing.extend(dots.iter().filter(|dot| !shown[walk].contains(**dot)));
            }
        }
        let Some(missing) = missing.get_mut(&read.walk) else { continue };
        for (_, dot) in &read.shown {
            missing.remove(dot);
            shown.entry(read.walk).or_default().insert(dot);
        }
        if read.complete {
            missing.retain(|dot| !case.is_given_again(dot, |seen| is_of(&seen.stream, category)));
            let dot = missing.first().copied();
            verdict.check(dot.is_none(), || match dot {
                Some(dot) => broken(case, read, dot, "was not shown, which its session knew"),
                None => Broken::default(),
            });
            missing.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::{judge, sound};
    use crate::evidence::Evidence;

    /// One walk in each order through streams "b", all of it, by the writer of the first of its appends.
    fn walked() -> Evidence {
        let mut evidence = sound();
        let order = &evidence.regions["eu"].global;
        let of_b: Vec<(u64, Dot)> = order
            .iter()
            .filter(|seen| seen.stream == "b")
            .map(|seen| (seen.place, seen.dot.clone()))
            .collect();
        for (walk, order) in [(0, Order::Regional), (1, Order::Global)] {
            for (part, at) in of_b.chunks(3).zip(10_u64..) {
                evidence.history.notes.push(Note::Walked(Walked {
                    writer: 1,
                    walk,
                    region: "us".into(),
                    category: "b".into(),
                    order,
                    called: Duration::from_secs(at),
                    returned: Duration::from_millis(at * 1_000 + 1),
                    shown: part.to_vec(),
                    complete: at > 10,
                }));
            }
        }
        evidence
    }

    fn part(evidence: &mut Evidence, at: usize) -> &mut Walked {
        match &mut evidence.history.notes[at] {
            Note::Walked(walked) => walked,
            _ => unreachable!("all notes are walks"),
        }
    }

    #[test]
    fn walks_that_skip_or_repeat_are_found_in_both_orders() {
        assert!(judge(check, &walked()).holds(), "{:?}", judge(check, &walked()).words);
        for first in [0, 2] {
            let mut skipped = walked();
            part(&mut skipped, first).shown.remove(1);
            assert!(judge(check, &skipped).broken > 0, "skipped, note {first}");
            let mut twice = walked();
            let again = part(&mut twice, first).shown[2].clone();
            part(&mut twice, first + 1).shown.insert(0, again);
            assert!(judge(check, &twice).broken > 0, "twice, note {first}");
        }
    }

    #[test]
    fn a_complete_walk_lacks_nothing_of_its_session_and_a_partial_one_may() {
        let mut late = walked();
        // The walk ends before its last event, which another walk of the session had shown before.
        part(&mut late, 1).shown.clear();
        (part(&mut late, 1).called, part(&mut late, 1).returned) =
            (Duration::from_secs(20), Duration::from_secs(21));
        let verdict = judge(check, &late);
        assert_eq!(verdict.broken, 1, "{:?}", verdict.words);
        part(&mut late, 1).complete = false;
        assert!(judge(check, &late).holds());
    }

    #[test]
    fn a_walk_lacks_what_its_writer_wrote() {
        let mut evidence = walked();
        evidence.history.notes.truncate(1);
        let only = part(&mut evidence, 0);
        (only.complete, only.shown) = (true, Vec::new());
        assert_eq!(judge(check, &evidence).broken, 1, "writer 1 wrote to b before");
    }

    #[test]
    fn a_number_that_a_forgetful_region_gave_out_twice_is_not_held_against_the_walk() {
        let mut evidence = walked();
        evidence.history.notes.truncate(1);
        let only = part(&mut evidence, 0);
        (only.complete, only.shown) = (true, Vec::new());
        let broken = |evidence: &Evidence| judge(check, evidence).broken;
        let dots: Vec<Dot> = evidence
            .history
            .ops
            .iter()
            .filter_map(|op| op.ack())
            .flat_map(|ack| ack.dots().collect::<Vec<_>>())
            .collect();
        evidence.expectations.lost.extend(["eu".to_owned(), "us".to_owned()]);
        assert_eq!(broken(&evidence), 1, "they are where they were");
        for read in evidence.regions.values_mut() {
            let seen = read.regional.iter_mut().chain(&mut read.global);
            for seen in seen.filter(|seen| dots.contains(&seen.dot) && seen.stream == "b") {
                seen.stream = "other".into();
            }
        }
        assert_eq!(broken(&evidence), 0, "{:?}", judge(check, &evidence).words);
        evidence.expectations.lost.clear();
        assert_eq!(broken(&evidence), 1, "no other region gives numbers out twice");
    }
}
