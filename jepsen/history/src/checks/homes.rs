//! Law 7, of streams with a home: an expected revision is one number, over all regions.
//!
//! Source: docs/classes.md; ADR 0010. Once a region holds the declaration of a category's home, what it
//! appends there with an expectation is *strict*. From a stream's first strict append on, its events form
//! one chain: each was written where all before it were held, and what came before the first strict one
//! was held there, too. So the expectation held of everything that any region has appended, the event has
//! one revision everywhere, no revision is given to two acknowledged appends, and nothing that was
//! acknowledged is lost. A conflict tells of a state of that chain that was there between call and answer.
//!
//! It cannot see: who refused although it was the home, which is allowed until all regions have confirmed
//! it. What a region wrote that lost its disks is left out, and what it was acknowledged: what only it
//! knew is forgotten, also that the stream has a home.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anabranch_client::{Dot, Expect};
use anabranch_core::class::Change;
use anabranch_core::event::category;

use super::{Broken, Verdict};
use crate::case::Case;
use crate::evidence::Seen;
use crate::note::{Note, Refusal};
use crate::op::{Expectation, Op, Outcome};
use crate::said::is_homed;

/// To be reached: an append with an expectation that held over all regions.
pub const STRICT: &str = "a homed append acknowledged";
/// To be reached: an append that was asked for elsewhere than in the home.
pub const ELSEWHERE: &str = "a homed append refused, or passed on, where the home is not";
/// To be reached: an append in a home that got the stream from another one.
pub const HANDED_OVER: &str = "a homed append acknowledged after a hand-over";

/// Checks every stream that got a home.
pub fn check(case: &Case<'_>) -> Verdict {
    let mut verdict = Verdict::new("homes", "a homed stream is one chain, over all regions");
    let mut streams: BTreeMap<&str, Vec<&Seen>> = BTreeMap::new();
    let forgetful = case.evidence.expectations.forgetful();
    let mut known: BTreeSet<&Dot> = BTreeSet::new();
    for seen in case.logs.iter().flat_map(|log| log.events()) {
        let counts = is_homed(&seen.stream) && !forgetful.contains(seen.dot.origin.region.as_str());
        if counts && known.insert(&seen.dot) {
            streams.entry(&seen.stream).or_default().push(seen);
        }
    }
    let changes = changes(case);
    for what in [STRICT, HANDED_OVER] {
        verdict.reach(what, 0);
    }
    for (stream, mut events) in streams {
        events.sort_by_key(|seen| (seen.stamp, &seen.dot));
        let of = changes.get(category(stream)).map_or(&[][..], Vec::as_slice);
        let chain = Chain::new(case, stream, events, of);
        chain.check(&mut verdict);
    }
    elsewhere(&mut verdict, case);
    verdict
}

/// Changes of class of each category, in the order of their stamps.
fn changes<'a>(case: &Case<'a>) -> BTreeMap<String, Vec<(&'a Seen, Change)>> {
    let mut changes: BTreeMap<String, BTreeMap<_, _>> = BTreeMap::new();
    for seen in case.logs.iter().flat_map(|log| log.events()) {
        let change = seen.says.as_ref().and_then(|said| said.as_change(&seen.stream));
        if let Some(change) = change {
            let of = changes.entry(change.category().to_owned()).or_default();
            of.insert((seen.stamp, &seen.dot), (seen, change));
        }
    }
    changes.into_iter().map(|(category, of)| (category, of.into_values().collect())).collect()
}

/// A stream with a home, over all regions.
struct Chain<'c, 'a> {
    case: &'c Case<'a>,
    stream: &'c str,
    /// In global order.
    events: Vec<&'a Seen>,
    /// Which of them is the first strict one.
    strict_from: Option<usize>,
    changes: &'c [(&'a Seen, Change)],
    /// Whether all that was ever written to it is here.
    whole: bool,
}

impl<'c, 'a> Chain<'c, 'a> {
    fn new(
        case: &'c Case<'a>,
        stream: &'c str,
        events: Vec<&'a Seen>,
        changes: &'c [(&'a Seen, Change)],
    ) -> Self {
        let whole = case.evidence.expectations.forgetful().is_empty();
        let mut chain = Self { case, stream, events, strict_from: None, changes, whole };
        chain.strict_from = chain.events.iter().position(|seen| chain.is_strict(seen));
        chain
    }

    fn op(&self, seen: &Seen) -> Option<(usize, &'a Op)> {
        let (at, _) = self.case.asked(seen.id)?;
        Some((at, self.case.op(at)))
    }

    fn expects(&self, op: &'a Op) -> impl Iterator<Item = &'a Expectation> {
        let on_it = |on: &&Expectation| on.stream == self.stream && on.expected != Expect::Any;
        op.expects.iter().filter(on_it)
    }

    /// Whether it was written with an expectation, by a region that held a declaration.
    fn is_strict(&self, seen: &Seen) -> bool {
        let expects = self.op(seen).is_some_and(|(_, op)| self.expects(op).next().is_some());
        let is_declaration = |change: &Change| matches!(change, Change::Declared { .. });
        let mut declared = self.changes.iter().filter(|(_, change)| is_declaration(change));
        expects && declared.any(|(by, _)| self.knew(&seen.dot, &by.dot) == Some(true))
    }

    /// Whether `later` was written where `earlier` was held; none if nobody could read the log that it
    /// was written to.
    fn knew(&self, later: &Dot, earlier: &Dot) -> Option<bool> {
        if later.origin == earlier.origin {
            return Some(earlier.seq < later.seq);
        }
        self.case.causes(later).map(|_| self.case.knew(later, earlier))
    }

    fn check(&self, verdict: &mut Verdict) {
        let Some(from) = self.strict_from else { return };
        let first = self.events[from];
        for earlier in &self.events[..from] {
            self.check_knew(verdict, first, earlier);
        }
        for pair in self.events[from..].windows(2) {
            self.check_knew(verdict, pair[1], pair[0]);
        }
        if self.whole {
            self.check_revisions(verdict, from);
        }
        let acknowledged = self.check_acknowledged(verdict);
        self.check_conflicts(verdict, &acknowledged);
    }

    fn check_knew(&self, verdict: &mut Verdict, later: &Seen, earlier: &Seen) {
        let Some(knew) = self.knew(&later.dot, &earlier.dot) else { return };
        verdict.check(knew, || {
            let (stream, one, other) = (self.stream, &earlier.dot, &later.dot);
            let words = format!(
                "{other} was written to {stream} where {one} was not held: two homes at once"
            );
            let ops = [earlier, later].into_iter().filter_map(|seen| self.op(seen));
            Broken::new(words).dot(one).dot(other).ops(ops.map(|(at, _)| at))
        });
    }

    /// Expectations hold of the whole chain, and everybody shows its numbers.
    fn check_revisions(&self, verdict: &mut Verdict, from: usize) {
        for (revision, seen) in (0_u64..).zip(&self.events).skip(from) {
            for log in self.case.last_logs() {
                let Some(here) = log.seen(&seen.dot) else { continue };
                verdict.check(here.revision == revision, || {
                    let (stream, shown) = (self.stream, here.revision);
                    let words = format!(
                        "{} has {} at revision {shown} of {stream}, over all regions it is {revision}",
                        log.name, seen.dot
                    );
                    Broken::new(words).dot(&seen.dot).ops(self.case.op_of(&seen.dot))
                });
            }
            let begins = self.case.asked(seen.id).filter(|(_, nth)| *nth == 0);
            let Some((at, _)) = begins.filter(|_| self.is_strict(seen)) else { continue };
            for Expectation { expected, .. } in self.expects(self.case.op(at)) {
                let holds = match expected {
                    Expect::Any => true,
                    Expect::NoStream => revision == 0,
                    Expect::Exists => revision > 0,
                    Expect::Revision(last) => last.checked_add(1) == Some(revision),
                };
                verdict.check(holds, || {
                    let (stream, dot) = (self.stream, &seen.dot);
                    let words = format!(
                        "{dot} is revision {revision} of {stream} over all regions, expected was {expected:?}"
                    );
                    Broken::new(words).op(at).dot(dot)
                });
            }
        }
    }

    /// No revision is given twice, and what was given is there. Returns what was.
    fn check_acknowledged(&self, verdict: &mut Verdict) -> Vec<(&'a Op, u64)> {
        let forgetful = self.case.evidence.expectations.forgetful();
        let mut given: BTreeMap<u64, usize> = BTreeMap::new();
        let mut acknowledged = Vec::new();
        for (at, op, ack) in self.case.acknowledged() {
            let events =
                op.events.iter().filter(|asked| asked.stream == self.stream).count() as u64;
            if events == 0 || forgetful.contains(ack.first.origin.region.as_str()) {
                continue;
            }
            for log in self.case.last_logs() {
                verdict.check(log.place(&ack.first).is_some(), || {
                    let words = format!("{} lacks {} of {}", log.name, ack.first, self.stream);
                    Broken::new(words).op(at).dot(&ack.first)
                });
            }
            let seen = self.case.seen(&ack.first).filter(|seen| self.is_strict(seen));
            let last = ack.revisions.get(self.stream).filter(|_| seen.is_some());
            let Some(last) = last.copied() else { continue };
            verdict.reach(STRICT, 1);
            verdict.reach(HANDED_OVER, u64::from(self.is_handed_over(&ack.first)));
            for revision in (last + 1).saturating_sub(events)..=last {
                let other = given.insert(revision, at);
                verdict.check(other.is_none(), || {
                    let words = format!("revision {revision} of {} was given twice", self.stream);
                    Broken::new(words).op(at).ops(other)
                });
            }
            acknowledged.push((op, last));
        }
        acknowledged
    }

    /// Whether it was written in a home that got the stream by a release.
    fn is_handed_over(&self, dot: &Dot) -> bool {
        self.changes.iter().any(|(by, change)| match change {
            Change::Released { stream, to, .. } => {
                let of_it = stream.as_ref().is_none_or(|stream| stream == self.stream);
                of_it && *to == dot.origin.region && self.knew(dot, &by.dot) == Some(true)
            }
            Change::Declared { .. } | Change::Ended { .. } => false,
        })
    }

    /// A conflict that was asked for after the first strict answer is not from the past, nor from the
    /// future.
    fn check_conflicts(&self, verdict: &mut Verdict, acknowledged: &[(&Op, u64)]) {
        let Some(since) = acknowledged.iter().map(|(op, _)| op.returned).min() else { return };
        // A region that began anew under its name knows of no home before it has heard of it.
        let rebuilt = &self.case.evidence.expectations.rebuilt;
        let asked = self.case.ops().filter(|(_, op)| !rebuilt.contains(&op.region));
        for (at, op) in asked.filter(|(_, op)| op.called > since) {
            let Outcome::Conflict { conflicts } = &op.outcome else { continue };
            let found = conflicts.iter().filter(|found| found.expectation.stream == self.stream);
            for actual in found.map(|found| found.actual) {
                let next = actual.map_or(0, |actual| actual.saturating_add(1));
                let answered =
                    |(other, last): &&(&Op, u64)| other.returned < op.called && *last >= next;
                let stale = acknowledged.iter().find(answered);
                verdict.check(stale.is_none(), || {
                    let last = stale.map_or(0, |(_, last)| *last);
                    let words = format!(
                        "{} was told to be at {actual:?} after {last} had been acknowledged",
                        self.stream
                    );
                    Broken::new(words).op(at)
                });
                let early = self.whole.then(|| self.called(actual)).flatten();
                verdict.check(early.is_none_or(|called| called <= op.returned), || {
                    let words = format!(
                        "{} was told to be at {actual:?} before that was asked for",
                        self.stream
                    );
                    Broken::new(words).op(at)
                });
            }
        }
    }

    /// When the event of this revision was asked for; the end of time if there is none.
    fn called(&self, revision: Option<u64>) -> Option<Duration> {
        let Some(seen) = self.events.get(revision? as usize) else { return Some(Duration::MAX) };
        self.op(seen).map(|(_, op)| op.called)
    }
}

/// Counts what was asked for where the home is not.
fn elsewhere(verdict: &mut Verdict, case: &Case<'_>) {
    let refused = |note: &&Note| matches!(note, Note::Refused { by: Refusal::NotHome { .. }, .. });
    let refused = case.evidence.history.notes.iter().filter(refused).count();
    let carried = case.acknowledged().filter(|(_, op, ack)| {
        let homed = op.events.iter().all(|asked| is_homed(&asked.stream));
        homed && !op.roams && ack.first.origin.region.as_str() != op.region
    });
    verdict.reach(ELSEWHERE, (refused + carried.count()) as u64);
}

#[cfg(test)]
mod tests {
    use anabranch_core::RegionName;
    use anabranch_core::class::stream_of;

    use super::*;
    use crate::checks::testing::{conflict, judge, renumber, sound};
    use crate::evidence::Evidence;
    use crate::said::Said;

    const DEED: &str = "deed-1";

    /// The first append of eu declares its home and hands over to us, which then writes two events and
    /// hands back; eu writes two more.
    fn homed() -> Evidence {
        let mut evidence = sound();
        let region = |name| RegionName::new(name).unwrap();
        let category = || "deed".to_owned();
        let declared = Change::Declared { category: category(), home: region("eu"), epoch: 1 };
        let released =
            Change::Released { category: category(), stream: None, to: region("us"), epoch: 2 };
        let says = [declared, released].map(|change| Said::change(&change));
        let events =
            evidence.regions.values_mut().flat_map(|read| [&mut read.regional, &mut read.global]);
        for events in events {
            for (nth, seen) in events.iter_mut().enumerate() {
                seen.stream = if nth < 2 { stream_of("deed") } else { DEED.into() };
                seen.says = says.get(nth).cloned();
            }
        }
        for (nth, op) in evidence.history.ops.iter_mut().enumerate() {
            let stream = if nth == 0 { stream_of("deed") } else { DEED.into() };
            for (asked, said) in op.events.iter_mut().zip(&says) {
                asked.stream = stream.clone();
                asked.says = (nth == 0).then(|| said.clone());
            }
            op.expects.iter_mut().for_each(|on| on.stream = stream.clone());
            let Outcome::Acknowledged(ack) = &mut op.outcome else { panic!() };
            let last = ack.revisions.pop_first().unwrap().1;
            ack.revisions.insert(stream, last);
        }
        evidence
    }

    #[test]
    fn a_stream_that_is_handed_over_is_one_chain() {
        let verdict = judge(check, &homed());
        assert!(verdict.holds(), "{:?}", verdict.words);
        assert_eq!((verdict.reached[STRICT], verdict.reached[HANDED_OVER]), (2, 1));
        assert_eq!(verdict.reached[ELSEWHERE], 0);
        assert!(!judge(check, &sound()).tested(), "no stream has a home there");
    }

    #[test]
    fn two_homes_at_once_are_found() {
        let mut evidence = homed();
        // eu wrote its two events without those of us.
        evidence.regions.get_mut("eu").unwrap().regional[2..].rotate_left(2);
        renumber(&mut evidence.regions.get_mut("eu").unwrap().regional);
        let verdict = judge(check, &evidence);
        assert_eq!(verdict.broken, 1, "{:?}", verdict.words);
        assert!(verdict.ops.contains(&1) && verdict.ops.contains(&2));
        // As before, but it did so without an expectation, and before it heard of any home.
        evidence.history.ops[2].expects.clear();
        evidence.regions.get_mut("eu").unwrap().own = None;
        assert_eq!(judge(check, &evidence).broken, 1, "us has not waited for it");
    }

    #[test]
    fn an_expectation_that_holds_in_one_region_only_is_found() {
        let mut evidence = homed();
        evidence.history.ops[2].expects[0].expected = Expect::NoStream;
        assert_eq!(judge(check, &evidence).broken, 1);
        let mut shown = homed();
        shown.regions.get_mut("us").unwrap().regional[4].revision = 0;
        assert_eq!(judge(check, &shown).broken, 1);
        shown.expectations.lost.insert("asia".into());
        assert!(judge(check, &shown).holds(), "what asia knew of it is gone");
    }

    #[test]
    fn a_revision_that_is_given_twice_is_found_and_one_that_is_lost() {
        let mut evidence = homed();
        let Outcome::Acknowledged(ack) = &mut evidence.history.ops[2].outcome else { panic!() };
        ack.revisions.insert(DEED.into(), 1);
        let verdict = judge(check, &evidence);
        assert_eq!(verdict.broken, 2, "{:?}", verdict.words);
        assert_eq!(verdict.ops, [1, 2].into());
        let mut lost = homed();
        lost.regions.get_mut("us").unwrap().regional.truncate(4);
        assert_eq!(judge(check, &lost).broken, 1, "{:?}", judge(check, &lost).words);
    }

    #[test]
    fn conflicts_from_the_past_and_from_the_future_are_found() {
        // us had written revision 1 at 1.5 s, eu revision 3 at 2.5 s.
        let told = |actual, at| {
            let mut evidence = homed();
            let expected = Expect::Revision(9);
            evidence.history.ops.push(conflict("us", &[(DEED, expected, actual)], at));
            judge(check, &evidence).broken
        };
        assert_eq!(told(Some(1), 2), 0);
        assert_eq!(told(Some(3), 2), 0);
        assert_eq!(told(Some(3), 9), 0);
        assert_eq!(told(Some(1), 9), 1, "stale");
        assert_eq!(told(None, 2), 1, "stale");
        assert_eq!(told(Some(4), 9), 1, "there is no such revision");
    }

    #[test]
    fn what_was_asked_for_elsewhere_is_counted() {
        let mut evidence = homed();
        let tag = evidence.history.ops[0].tag;
        let by = Refusal::NotHome { home: "eu".into(), epoch: 1 };
        evidence.history.notes.push(Note::Refused { tag, by });
        evidence.history.ops[2].region = "us".into();
        let verdict = judge(check, &evidence);
        assert!(verdict.holds(), "{:?}", verdict.words);
        assert_eq!(verdict.reached[ELSEWHERE], 2);
    }
}
