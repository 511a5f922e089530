//! Law 1: an acknowledged append is never lost while a quorum of its region's disks survives; with
//! `regions(n)`, while any of those n regions does.
//!
//! Source: DESIGN.md law 1; README "Durable". What is acknowledged is in the log of the region that
//! took it, under the dot, stamp and position that the client was told. Of a region that was lost or
//! rebuilt, what was acknowledged in more regions than were lost is in a survivor; of the rest, what
//! nobody holds is counted and named in the notes, never passed over.
//!
//! It cannot see: whether disks were synced before the acknowledgement, unless power was lost after
//! it; and the loss of what nobody was told of.

use std::collections::BTreeMap;

use super::{Broken, Verdict};
use crate::case::{Case, Log};
use crate::evidence::Seen;
use crate::op::{Ack, Asked, Op};

/// Looks every acknowledged event up where it must be.
pub fn check(case: &Case<'_>) -> Verdict {
    let mut verdict = Verdict::new("durable", "acknowledged events are there, as acknowledged");
    let forgetful = case.evidence.expectations.forgetful();
    let mut lost: BTreeMap<&str, u64> = BTreeMap::new();
    for (at, op, ack) in case.acknowledged() {
        let counted = ack.events as usize == op.events.len();
        verdict.check(counted, || {
            let asked = op.events.len();
            Broken::new(format!("{} of {asked} events acknowledged at {}", ack.events, ack.first))
                .op(at)
        });
        let home = ack.first.origin.region.as_str();
        let forgot = forgetful.contains(home);
        // While more regions held it than were lost, one that held it is left.
        let may_be_gone = forgot && ack.regions as usize <= forgetful.len();
        for log in case.last_logs() {
            let must = log.region == home && !forgot;
            lost_here(&mut verdict, log, (at, op, ack), must, forgot);
        }
        if forgot {
            let held = |log: &Log<'_>| {
                let mut asked = ack.dots().zip(&op.events);
                asked.all(|(dot, asked)| log.seen(&dot).is_some_and(|seen| is_it(seen, asked, ack)))
            };
            let held = case.last_logs().any(held);
            if !held && may_be_gone {
                *lost.entry(home).or_default() += u64::from(ack.events);
            }
            verdict.check(held || may_be_gone, || {
                let words = format!(
                    "{} was acknowledged when {} regions held it, {} were lost, and no survivor holds it",
                    ack.first,
                    ack.regions,
                    forgetful.len()
                );
                Broken::new(words).op(at).dot(&ack.first)
            });
        }
    }
    verdict.notes = lost
        .into_iter()
        .map(|(region, events)| format!("{events} acknowledged events went down with {region}"))
        .collect();
    verdict
}

/// Whether it is what was acknowledged. Not if the number was given out once more after the region had
/// forgotten it, to another event or, at another time, to the same one, which was sent again.
fn is_it(seen: &Seen, asked: &Asked, ack: &Ack) -> bool {
    seen.id == asked.id && seen.stamp == ack.stamp
}

/// Checks the events of an operation that a region shows, and that it shows them if it `must`. A region
/// that `forgot` may have given their numbers to others that nobody had seen.
fn lost_here(
    verdict: &mut Verdict,
    log: &Log<'_>,
    (at, op, ack): (usize, &Op, &Ack),
    must: bool,
    forgot: bool,
) {
    for (nth, asked) in (0..).zip(&op.events).take(ack.events as usize) {
        let dot = ack.dot(nth);
        let Some(seen) = log.seen(&dot) else {
            if must {
                verdict.check(false, || {
                    let words = format!(
                        "{} lacks {dot}, acknowledged at {:.3?} to writer {}",
                        log.name, op.returned, op.writer
                    );
                    Broken::new(words).op(at).dot(&dot)
                });
            }
            continue;
        };
        if forgot && !is_it(seen, asked, ack) {
            continue;
        }
        // A retry that another region recognised is answered with that region's position: one that was
        // sent elsewhere, or was handed to the stream's home before.
        let told_here = must && !op.roams && op.region == dot.origin.region.as_str();
        let same = seen.id == asked.id
            && seen.stamp == ack.stamp
            && seen.stream == asked.stream
            && (!told_here || seen.place == ack.position + nth);
        verdict.check(same, || {
            let words =
                format!("{} shows {seen:?}, acknowledged as event {nth} of {ack:?}", log.name);
            Broken::new(words).op(at).dot(&dot)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::{judge, sound};

    #[test]
    fn a_lost_or_altered_acknowledged_event_is_found_with_its_dot() {
        let mut evidence = sound();
        assert!(judge(check, &evidence).holds());
        let lost = evidence.regions.get_mut("eu").unwrap().regional.remove(0);
        let verdict = judge(check, &evidence);
        assert_eq!(verdict.broken, 1);
        assert!(verdict.words[0].contains(&lost.dot.to_string()), "{:?}", verdict.words);
        assert!(verdict.ops.contains(&0) && verdict.dots.contains(&lost.dot));

        let mut evidence = sound();
        evidence.regions.get_mut("us").unwrap().regional[0].stamp.0 += 1;
        assert_eq!(judge(check, &evidence).broken, 1, "another stamp");
        let mut evidence = sound();
        evidence.regions.get_mut("eu").unwrap().regional[0].place = 7;
        assert_eq!(judge(check, &evidence).broken, 1, "another position at home");
    }

    #[test]
    fn what_a_lost_region_alone_held_is_counted_and_what_others_held_is_missed() {
        let mut evidence = sound();
        evidence.expectations.lost.insert("eu".into());
        evidence.regions.remove("eu");
        assert!(judge(check, &evidence).holds() && judge(check, &evidence).notes.is_empty());
        // The first append was known to be in one region only, the last one in two.
        evidence
            .regions
            .get_mut("us")
            .unwrap()
            .regional
            .retain(|seen| seen.dot.origin.region.as_str() != "eu");
        let verdict = judge(check, &evidence);
        assert_eq!(verdict.notes, ["2 acknowledged events went down with eu"]);
        assert_eq!(verdict.broken, 1, "{:?}", verdict.words);
    }

    #[test]
    fn a_number_that_a_forgetful_region_gave_out_twice_is_not_the_one_that_was_acknowledged() {
        let mut evidence = sound();
        evidence.expectations.lost.insert("eu".into());
        evidence.regions.remove("eu");
        let first = &mut evidence.regions.get_mut("us").unwrap().regional[0];
        assert_eq!(first.dot.origin.region.as_str(), "eu");
        first.stamp.0 += 1;
        let verdict = judge(check, &evidence);
        assert!(verdict.holds(), "sent again, and stamped later: {:?}", verdict.words);
        assert_eq!(verdict.notes, ["2 acknowledged events went down with eu"]);
        evidence.expectations.lost.clear();
        assert!(judge(check, &evidence).broken > 0, "no other region gives numbers out twice");
    }
}
