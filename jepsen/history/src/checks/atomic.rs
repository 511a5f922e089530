//! An append is all or nothing, over all of its streams: its events have dots in a row and stand in a
//! row in every region's log and in the global order. So money that is moved between streams within
//! appends is never lost, made or halved on the way.
//!
//! Source: the contract of `Events.Append` ("all of them or none"); DESIGN.md law 11 for unknown
//! outcomes. An event's mark says how many events its append has, so an append is judged also if the
//! ledger lost it. An operation whose amounts sum to something other than 0 issues that much money:
//! at the end of every append in every log, what streams hold together is what was issued before.
//! A stream of category [`GUARDED`] never holds less than nothing, in any log: a withdrawal from it
//! must expect the revision whose balance it was decided on, and one region alone must write it (its
//! name goes on with that region's; while the region was rebuilt its streams are not judged so).
//!
//! It cannot see: a half append that is gone again from every log by the time it is read, unless a
//! subscriber was given it; guarded streams that two regions write, where no store of this kind can
//! keep a balance.

use std::collections::{BTreeMap, BTreeSet};

use anabranch_client::Dot;

use super::{Broken, Verdict};
use crate::case::{Case, Log};
use crate::evidence::Seen;

/// Category of streams whose balance never falls below nothing.
pub const GUARDED: &str = "pay";

/// Checks every log, and the global orders.
pub fn check(case: &Case<'_>) -> Verdict {
    let mut verdict =
        Verdict::new("atomic", "appends are whole everywhere, and money is conserved");
    for log in &case.logs {
        in_a_row(&mut verdict, case, &log.name, log.events());
        money(&mut verdict, case, log);
        let name = format!("{} (global)", log.name);
        in_a_row(&mut verdict, case, &name, &log.read.global);
    }
    verdict
}

/// One run of events of one append.
struct Run<'a> {
    first: &'a Seen,
    events: u32,
    of: u32,
}

fn in_a_row(verdict: &mut Verdict, case: &Case<'_>, name: &str, events: &[Seen]) {
    let mut run: Option<Run<'_>> = None;
    for seen in events {
        let Some(mark) = seen.mark else { continue };
        let goes_on = run.as_ref().is_some_and(|run| {
            let next: Dot = Dot {
                origin: run.first.dot.origin.clone(),
                seq: run.first.dot.seq.plus(run.events.into()),
            };
            let same = run.first.mark.map(|mark| mark.tag) == Some(mark.tag);
            same && mark.nth == run.events && mark.of == run.of && seen.dot == next
        });
        match &mut run {
            Some(run) if goes_on => run.events += 1,
            _ => {
                whole(verdict, case, name, run.take());
                verdict.check(mark.nth == 0, || {
                    let words = format!(
                        "{name} shows {} as event {} of an append, not after the one before it",
                        seen.dot, mark.nth
                    );
                    Broken::new(words).dot(&seen.dot).ops(case.op_of(&seen.dot))
                });
                run = (mark.nth == 0).then_some(Run { first: seen, events: 1, of: mark.of });
            }
        }
    }
    whole(verdict, case, name, run);
}

fn whole(verdict: &mut Verdict, case: &Case<'_>, name: &str, run: Option<Run<'_>>) {
    let Some(Run { first, events, of }) = run else { return };
    verdict.check(events == of, || {
        let words = format!("{name} shows {events} of {of} events in a row from {}", first.dot);
        Broken::new(words).dot(&first.dot).ops(case.op_of(&first.dot))
    });
}

fn money(verdict: &mut Verdict, case: &Case<'_>, log: &Log<'_>) {
    let (mut issued, mut held) = (0_i64, 0_i64);
    let mut guarded: BTreeMap<&str, i64> = BTreeMap::new();
    let mut touched: BTreeSet<&str> = BTreeSet::new();
    // A region that begins anew opens its accounts again, before it has its old events back.
    let began_anew = |stream: &str| {
        let rebuilt = &case.evidence.expectations.rebuilt;
        rebuilt.iter().any(|region| stream.starts_with(&format!("{GUARDED}-{region}-")))
    };
    for seen in log.events() {
        let (Some(mark), Some((at, _))) = (seen.mark, case.asked(seen.id)) else { continue };
        let op = case.op(at);
        held += mark.amount;
        if seen.stream.split('-').next() == Some(GUARDED) && !began_anew(&seen.stream) {
            *guarded.entry(&seen.stream).or_default() += mark.amount;
            touched.insert(&seen.stream);
        }
        if mark.nth + 1 != mark.of {
            continue;
        }
        issued += op.events.iter().map(|asked| asked.amount).sum::<i64>();
        if op.events.iter().any(|asked| asked.amount != 0) {
            verdict.check(held == issued, || {
                let words = format!(
                    "{} holds {held} together after {}, {issued} were issued",
                    log.name, seen.dot
                );
                Broken::new(words).op(at).dot(&seen.dot)
            });
            // What is missing is told once.
            held = issued;
        }
        for stream in std::mem::take(&mut touched) {
            let balance = guarded[stream];
            verdict.check(balance >= 0, || {
                let words = format!("{} has {balance} on {stream} after {}", log.name, seen.dot);
                Broken::new(words).op(at).dot(&seen.dot)
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::{judge, renumber, sound};
    use crate::evidence::Evidence;

    fn amounts(amounts: [i64; 6]) -> Evidence {
        let mut evidence = sound();
        for region in evidence.regions.values_mut() {
            for events in [&mut region.regional, &mut region.global] {
                for (seen, amount) in events.iter_mut().zip(amounts) {
                    seen.mark.as_mut().unwrap().amount = amount;
                }
            }
        }
        let asked = evidence.history.ops.iter_mut().flat_map(|op| &mut op.events);
        for (asked, amount) in asked.zip(amounts) {
            asked.amount = amount;
        }
        evidence
    }

    #[test]
    fn half_an_append_is_found_in_either_order() {
        assert!(judge(check, &sound()).holds(), "{:?}", judge(check, &sound()).words);
        let mut half = sound();
        half.regions.get_mut("us").unwrap().regional.remove(0);
        assert_eq!(judge(check, &half).broken, 1, "its second half alone");
        let mut half = sound();
        half.regions.get_mut("us").unwrap().global.pop();
        assert_eq!(judge(check, &half).broken, 1, "its first half alone");
    }

    #[test]
    fn an_append_that_another_event_stands_within_is_found() {
        let mut evidence = sound();
        let us = &mut evidence.regions.get_mut("us").unwrap().regional;
        us.swap(1, 2);
        renumber(us);
        assert!(judge(check, &evidence).broken >= 2);
    }

    #[test]
    fn money_that_is_lost_or_made_is_found_once_where_it_happens() {
        // eu issues 100, us and eu move some of it.
        let mut evidence = amounts([100, 0, -40, 40, -5, 5]);
        assert!(judge(check, &evidence).holds(), "{:?}", judge(check, &evidence).words);
        evidence.regions.get_mut("us").unwrap().regional[3].mark.as_mut().unwrap().amount = 39;
        let verdict = judge(check, &evidence);
        assert_eq!(verdict.broken, 1, "{:?}", verdict.words);
        assert!(verdict.ops.contains(&1));
    }

    #[test]
    fn a_guarded_stream_below_nothing_is_found() {
        let guard = |mut evidence: Evidence, rebuilt: &[&str]| {
            evidence.expectations.rebuilt = rebuilt.iter().map(|name| (*name).into()).collect();
            for region in evidence.regions.values_mut() {
                let of_b = region.regional.iter_mut().filter(|seen| seen.stream == "b");
                of_b.for_each(|seen| seen.stream = "pay-us-0".into());
            }
            judge(check, &evidence)
        };
        assert!(guard(amounts([0, 0, 10, -10, 5, -3]), &[]).holds());
        let verdict = guard(amounts([0, 0, 10, -3, -8, 0]), &[]);
        assert_eq!(verdict.broken, 2, "in both logs: {:?}", verdict.words);
        assert!(guard(amounts([0, 0, 10, -3, -8, 0]), &["us"]).holds(), "us began anew");
    }
}
