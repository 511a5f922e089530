//! Law 7: within an origin, conditional appends are linearizable.
//!
//! Source: DESIGN.md law 7; README "Expected revisions are regional"; reliability table P1. An
//! expectation speaks of a stream in the region that was asked, where imports move the revision, too.
//! The log of that region is the order in which everything took effect there, so the law comes down
//! to four things, on streams of one region and of several alike:
//!
//! - what was expected held in the log just before the append, on every stream that was named;
//! - acknowledged revisions are those of the log;
//! - a conflict reports a state that the log went through, in which exactly the expectations that it
//!   names failed, and never the middle of an append;
//! - moments for all of it can be found between calls and answers, in the order of the log (see
//!   [`crate::intervals`]): nothing that was answered comes after something that was not yet called,
//!   and no conflict is from the past or the future. An imported event cannot come before its call.
//!
//! Unknown outcomes: an append that is in the log may have taken effect at any time after its call,
//! one that is not never did.
//!
//! It cannot see: appends and conflicts of a region whose log nobody could read; conflicts on streams with
//! a home, which are those of `homes.rs`; reads, which are not
//! promised to be linearizable; the order of events that one import brought.

use std::collections::BTreeMap;
use std::time::Duration;

use anabranch_client::Expect;

use super::{Broken, Verdict};
use crate::case::{Case, Log};
use crate::intervals::{By, Impossible, Observer, Step, linearizable};
use crate::op::{Conflict, Expectation, Op, Outcome};
use crate::said::is_homed;

/// Checks the appends and conflicts of every region against its log.
pub fn check(case: &Case<'_>) -> Verdict {
    let law = "expectations held, conflicts are true, appends of a region are linearizable";
    let mut verdict = Verdict::new("expected_revision", law);
    for log in case.last_logs() {
        let steps = steps(case, log);
        for step in steps.iter().filter(|step| step.own) {
            check_append(&mut verdict, case, log, step);
        }
        let mut observers = Vec::new();
        // Of a stream with a home, the home answers.
        let answers =
            |op: &Op| op.region == log.region && !op.expects.iter().any(|on| is_homed(&on.stream));
        for (at, op) in case.ops().filter(|(_, op)| answers(op)) {
            if let Outcome::Conflict { conflicts } = &op.outcome {
                let observed = observe(log, &steps, op, conflicts);
                verdict.check(observed.is_ok(), || {
                    let why = observed.as_ref().err().cloned().unwrap_or_default();
                    Broken::new(format!("{} answered writer {}: {why}", log.name, op.writer)).op(at)
                });
                observers.extend(observed.ok().map(|observer| (at, observer)));
            }
        }
        check_moments(&mut verdict, case, log, &steps, &observers);
    }
    verdict
}

/// Events of one append, in the log of a region.
#[derive(Debug)]
struct Placed {
    begin: usize,
    end: usize,
    op: Option<usize>,
    /// Whether the region itself wrote it.
    own: bool,
    moment: Step,
}

fn steps(case: &Case<'_>, log: &Log<'_>) -> Vec<Placed> {
    let mut steps: Vec<Placed> = Vec::new();
    for (at, seen) in log.events().iter().enumerate() {
        let op = case.asked(seen.id).map(|(op, _)| op);
        let own = Some(&seen.dot.origin) == log.own;
        if let Some(last) = steps.last_mut()
            && op.is_some()
            && last.op == op
            && log.events()[at - 1].dot.origin == seen.dot.origin
        {
            last.end = at + 1;
            continue;
        }
        let called = op.map_or(Duration::ZERO, |op| case.op(op).called);
        let told = op
            .map(|op| case.op(op))
            .filter(|op| op.ack().is_some_and(|ack| own && ack.first == seen.dot));
        let returned = told.map_or(Duration::MAX, |op| op.returned);
        steps.push(Placed { begin: at, end: at + 1, op, own, moment: Step { called, returned } });
    }
    steps
}

fn holds(expected: Expect, events: u64) -> bool {
    match expected {
        Expect::Any => true,
        Expect::NoStream => events == 0,
        Expect::Exists => events > 0,
        Expect::Revision(revision) => revision.checked_add(1) == Some(events),
    }
}

fn check_append(verdict: &mut Verdict, case: &Case<'_>, log: &Log<'_>, step: &Placed) {
    let Some(at) = step.op else { return };
    let (op, first) = (case.op(at), &log.events()[step.begin].dot);
    for Expectation { stream, expected } in &op.expects {
        let events = log.revision_before(stream, step.begin);
        verdict.check(holds(*expected, events), || {
            let words = format!(
                "{} wrote {first} although {stream} had {events} events, expected was {expected:?}",
                log.name
            );
            let last = log.stream(stream).get(events.saturating_sub(1) as usize);
            let last = last.map(|place| &log.events()[*place].dot);
            let broken = Broken::new(words).op(at).dot(first);
            last.into_iter().fold(broken, |broken, dot| broken.dot(dot).ops(case.op_of(dot)))
        });
    }
    let Some(ack) = op.ack().filter(|ack| ack.first == *first && !op.roams) else { return };
    let mut found: BTreeMap<String, u64> = BTreeMap::new();
    for asked in &op.events {
        let events = log.revision_before(&asked.stream, step.end);
        found.insert(asked.stream.clone(), events.saturating_sub(1));
    }
    verdict.check(found == ack.revisions, || {
        let told = &ack.revisions;
        let words =
            format!("{} acknowledged {first} with revisions {told:?}, found {found:?}", log.name);
        Broken::new(words).op(at).dot(first)
    });
}

/// Number of events in the log, from and to, at which a stream had so many events; both ends closed.
fn while_at(log: &Log<'_>, stream: &str, events: u64) -> Option<(usize, usize)> {
    let places = log.stream(stream);
    let events = usize::try_from(events).ok().filter(|events| *events <= places.len())?;
    let from = events.checked_sub(1).map_or(0, |last| places[last] + 1);
    Some((from, places.get(events).copied().unwrap_or(log.events().len())))
}

/// While an expectation held.
fn while_held(log: &Log<'_>, expectation: &Expectation) -> Option<(usize, usize)> {
    let (stream, all) = (&expectation.stream, log.events().len());
    match expectation.expected {
        Expect::Any => Some((0, all)),
        Expect::NoStream => while_at(log, stream, 0),
        Expect::Exists => Some((log.stream(stream).first()? + 1, all)),
        Expect::Revision(revision) => while_at(log, stream, revision.checked_add(1)?),
    }
}

/// What a conflict says of the log; why it cannot be, if it cannot.
fn observe(
    log: &Log<'_>,
    steps: &[Placed],
    op: &Op,
    conflicts: &[Conflict],
) -> Result<Observer, String> {
    let (mut from, mut to) = (0, log.events().len());
    let mut narrow = |(begin, end): (usize, usize)| {
        from = from.max(begin);
        to = to.min(end);
    };
    for Conflict { expectation, actual } in conflicts {
        let Expectation { stream, expected } = expectation;
        let events = actual.map_or(0, |actual| actual.saturating_add(1));
        if !op.expects.contains(expectation) || holds(*expected, events) {
            return Err(format!("{expectation:?} is no conflict with {actual:?}"));
        }
        let Some(range) = while_at(log, stream, events) else {
            return Err(format!("{stream} was at {actual:?}, which it never is"));
        };
        narrow(range);
    }
    let failed = |expectation: &&Expectation| {
        conflicts.iter().any(|conflict| conflict.expectation == **expectation)
    };
    for expectation in op.expects.iter().filter(|expectation| !failed(expectation)) {
        let Some(range) = while_held(log, expectation) else {
            return Err(format!("{expectation:?} is not among the conflicts and never holds"));
        };
        narrow(range);
    }
    // States that anybody can see lie between appends.
    let after = match from {
        0 => 0,
        from => steps.partition_point(|step| step.end < from) + 1,
    };
    let until = steps.partition_point(|step| step.end <= to);
    if from > to || after > until {
        return Err(format!("{conflicts:?} never was so at one moment, between appends"));
    }
    Ok(Observer { after, until, called: op.called, returned: op.returned })
}

fn check_moments(
    verdict: &mut Verdict,
    case: &Case<'_>,
    log: &Log<'_>,
    steps: &[Placed],
    observers: &[(usize, Observer)],
) {
    let moments: Vec<Step> = steps.iter().map(|step| step.moment).collect();
    let seen: Vec<Observer> = observers.iter().map(|(_, observer)| *observer).collect();
    let found = linearizable(&moments, &seen);
    let facts = steps.iter().filter(|step| step.own).count() + observers.len();
    // Each is a fact; they hold together or not.
    (1..facts).for_each(|_| verdict.check(true, String::new));
    if facts == 0 {
        return;
    }
    verdict.check(found.is_ok(), || {
        let Impossible { late, early, not_before, not_after } =
            found.expect_err("it is looked at when it does not hold");
        let who = |by: By| match by {
            By::Step(step) => steps[step].op,
            By::Observer(observer) => Some(observers[observer].0),
        };
        let name = |by: By| match by {
            By::Step(step) => format!("{}", log.events()[steps[step].begin].dot),
            By::Observer(observer) => {
                format!("the conflict told to writer {}", case.op(observers[observer].0).writer)
            }
        };
        let words = format!(
            "the log of {} puts {} before {}, but the one was sent at {not_before:.3?}, the other answered at {not_after:.3?}",
            log.name,
            name(late),
            name(early)
        );
        Broken::new(words).ops(who(late)).ops(who(early))
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::{conflict, judge, sound};
    use crate::evidence::Evidence;

    fn expected(stream: &str, expected: Expect) -> Expectation {
        Expectation { stream: stream.into(), expected }
    }

    #[test]
    fn broken_expectations_and_wrong_revisions_are_found() {
        assert!(judge(check, &sound()).holds(), "{:?}", judge(check, &sound()).words);
        let mut written = sound();
        written.history.ops[0].expects = vec![expected("a", Expect::Exists)];
        assert_eq!(judge(check, &written).broken, 1, "its stream was new");
        let mut other = sound();
        other.history.ops[2].expects.push(expected("a", Expect::Revision(0)));
        assert_eq!(judge(check, &other).broken, 1, "a stream that is not written to");
        let mut revision = sound();
        let Outcome::Acknowledged(ack) = &mut revision.history.ops[2].outcome else { panic!() };
        *ack.revisions.get_mut("b").unwrap() += 1;
        assert_eq!(judge(check, &revision).broken, 1);
    }

    #[test]
    fn an_append_that_comes_after_a_later_one_is_found() {
        let mut evidence = sound();
        let first = &mut evidence.history.ops[0];
        (first.called, first.returned) = (Duration::from_secs(90), Duration::from_secs(91));
        let verdict = judge(check, &evidence);
        // In eu's log, and in us's, where it is imported before an append that was answered by then.
        assert_eq!(verdict.broken, 2, "{:?}", verdict.words);
        assert_eq!(verdict.ops, [0, 1, 2].into());
    }

    fn told(streams: &[(&str, Expect, Option<u64>)], at: u64) -> Evidence {
        let mut evidence = sound();
        evidence.history.ops.push(conflict("eu", streams, at));
        evidence
    }

    #[test]
    fn true_conflicts_are_believed() {
        // a has events 0 and 1 of eu from the first second on, b four from the third on.
        for (streams, at) in [
            (vec![("a", Expect::NoStream, Some(1))], 4),
            (vec![("a", Expect::Revision(7), Some(1)), ("b", Expect::NoStream, Some(3))], 4),
            (vec![("b", Expect::Exists, None)], 0),
            (vec![("c", Expect::Revision(0), None)], 3),
        ] {
            let verdict = judge(check, &told(&streams, at));
            assert!(verdict.holds(), "{streams:?}: {:?}", verdict.words);
        }
    }

    #[test]
    fn conflicts_that_never_were_are_found() {
        for (what, streams, at) in [
            ("beyond the log", vec![("a", Expect::NoStream, Some(5))], 4),
            ("no conflict", vec![("a", Expect::Revision(1), Some(1))], 4),
            ("half an append", vec![("a", Expect::NoStream, Some(0))], 0),
            (
                "no one moment",
                vec![("a", Expect::Exists, None), ("b", Expect::NoStream, Some(3))],
                1,
            ),
            ("stale", vec![("a", Expect::Exists, None)], 4),
            ("from the future", vec![("b", Expect::NoStream, Some(3))], 0),
        ] {
            let verdict = judge(check, &told(&streams, at));
            assert_eq!(verdict.broken, 1, "{what}: {:?}", verdict.words);
            assert!(verdict.ops.contains(&3), "{what}: {:?}", verdict.ops);
        }
    }

    #[test]
    fn an_unknown_append_may_have_taken_effect_at_any_time_after_its_call() {
        let mut evidence = sound();
        let last = &mut evidence.history.ops[2];
        last.outcome = Outcome::Unknown { why: "no answer".into() };
        last.returned = Duration::MAX;
        evidence.history.ops.push(conflict("eu", &[("b", Expect::NoStream, Some(1))], 60));
        let verdict = judge(check, &evidence);
        assert!(verdict.holds(), "not there yet: {:?}", verdict.words);
        evidence.history.ops[3] = conflict("eu", &[("b", Expect::NoStream, Some(3))], 1);
        assert_eq!(judge(check, &evidence).broken, 1, "there before its call");
    }
}
