//! Law 7, of streams with a home: an expected revision is one number, over all regions.
//!
//! Source: docs/classes.md; ADR 0010. Once a region holds the declaration of a category's home, what it
//! appends there with an expectation is *strict*, until it holds the end of that home. Ends divide a
//! stream into *eras*. From an era's first strict append on, its events form one chain: each was written
//! where all before it were held, and what came before the first strict one was held there, too; whoever
//! ended the home held all of it, and what comes after the end was written where the end was held. So the
//! expectation held of everything that any region has appended, the event has one revision everywhere, no
//! revision is given to two acknowledged appends, and nothing that was acknowledged is lost. A conflict
//! tells of a state of that chain that was there between call and answer.
//!
//! It cannot see: who refused although it was the home, which is allowed until all regions have confirmed
//! it; conflicts between the end of a home and the next home. What a region wrote that lost its disks is
//! left out, and what it was acknowledged: what only it knew is forgotten, also that the stream has a home.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use anabranch_client::{Dot, Expect, Stamp};
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
/// To be reached: an append by whoever likes, once a home had ended.
pub const ENDED: &str = "an append acknowledged after the end of a home";
/// To be reached: an append in a home that was declared after another one had ended.
pub const HOMED_AGAIN: &str = "a homed append acknowledged in a second home";

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
    for what in [STRICT, HANDED_OVER, ENDED, HOMED_AGAIN] {
        verdict.reach(what, 0);
    }
    for (stream, mut events) in streams {
        events.sort_by_key(|seen| place(seen));
        let of = changes.get(category(stream)).map_or(&[][..], Vec::as_slice);
        let whole = forgetful.is_empty();
        Stream { case, name: stream, events, changes: of, whole }.check(&mut verdict);
    }
    elsewhere(&mut verdict, case);
    verdict
}

/// Where an event is in the global order.
fn place(seen: &Seen) -> (Stamp, &Dot) {
    (seen.stamp, &seen.dot)
}

/// Changes of class of each category, in the order of their stamps.
fn changes<'a>(case: &Case<'a>) -> BTreeMap<String, Vec<(&'a Seen, Change)>> {
    let mut changes: BTreeMap<String, BTreeMap<_, _>> = BTreeMap::new();
    for seen in case.logs.iter().flat_map(|log| log.events()) {
        let change = seen.says.as_ref().and_then(|said| said.as_change(&seen.stream));
        if let Some(change) = change {
            let of = changes.entry(change.category().to_owned()).or_default();
            of.insert(place(seen), (seen, change));
        }
    }
    changes.into_iter().map(|(category, of)| (category, of.into_values().collect())).collect()
}

/// A stream with a home, over all regions.
struct Stream<'c, 'a> {
    case: &'c Case<'a>,
    name: &'c str,
    /// In global order.
    events: Vec<&'a Seen>,
    changes: &'c [(&'a Seen, Change)],
    /// Whether all that was ever written to it is here.
    whole: bool,
}

/// What is written to a stream between two ends of its homes.
struct Era<'a> {
    /// Which of its events these are.
    events: Range<usize>,
    /// The end of the home before.
    begun: Option<&'a Seen>,
    /// The end of its own home.
    ended: Option<&'a Seen>,
}

/// An append that was acknowledged as strict.
struct Acknowledged<'a> {
    op: &'a Op,
    /// The revision of its last event.
    last: u64,
    /// Its first event, by number.
    event: usize,
}

impl<'a> Stream<'_, 'a> {
    fn eras(&self) -> Vec<Era<'a>> {
        let is_end = |change: &Change| matches!(change, Change::Ended { .. });
        let ends = self.changes.iter().filter(|(_, change)| is_end(change));
        let ends = ends.map(|(by, _)| Some(*by)).chain([None]);
        let (mut eras, mut begun, mut first) = (Vec::new(), None, 0);
        for ended in ends {
            let before = |seen: &&Seen| ended.is_none_or(|end| place(seen) < place(end));
            let next = self.events.partition_point(before);
            eras.push(Era { events: first..next, begun, ended });
            (begun, first) = (ended, next);
        }
        eras
    }

    fn op(&self, seen: &Seen) -> Option<(usize, &'a Op)> {
        let (at, _) = self.case.asked(seen.id)?;
        Some((at, self.case.op(at)))
    }

    fn expects(&self, op: &'a Op) -> impl Iterator<Item = &'a Expectation> {
        let on_it = |on: &&Expectation| on.stream == self.name && on.expected != Expect::Any;
        op.expects.iter().filter(on_it)
    }

    /// Changes of class that were held where it was written.
    fn known(&self, dot: &Dot) -> impl Iterator<Item = &Change> {
        let known = self.changes.iter().filter(|(by, _)| self.knew(dot, &by.dot) == Some(true));
        known.map(|(_, change)| change)
    }

    /// Epoch of the last end of a home that was held where it was written; 0: of none.
    fn since(&self, dot: &Dot) -> u32 {
        let epochs = self.known(dot).map(|change| match change {
            Change::Ended { epoch, .. } => *epoch,
            Change::Declared { .. } | Change::Released { .. } => 0,
        });
        epochs.max().unwrap_or(0)
    }

    /// Whether it was written with an expectation, by a region that held a declaration and not the end
    /// of that home.
    fn is_strict(&self, seen: &Seen) -> bool {
        let expects = self.op(seen).is_some_and(|(_, op)| self.expects(op).next().is_some());
        let next = self.since(&seen.dot) + 1;
        let declares =
            |change: &Change| matches!(change, Change::Declared { epoch, .. } if *epoch == next);
        expects && self.known(&seen.dot).any(declares)
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
        let acknowledged = self.check_acknowledged(verdict);
        for era in self.eras() {
            self.check_bounds(verdict, &era);
            let strict = era.events.clone().find(|at| self.is_strict(self.events[*at]));
            let Some(from) = strict else { continue };
            let first = self.events[from];
            for earlier in &self.events[..from] {
                self.check_knew(verdict, first, earlier);
            }
            for pair in self.events[from..era.events.end].windows(2) {
                self.check_knew(verdict, pair[1], pair[0]);
            }
            if self.whole {
                self.check_revisions(verdict, from..era.events.end);
            }
            self.check_conflicts(verdict, &era, &acknowledged);
        }
    }

    /// Whoever ends a home holds all of its era, and whoever appends after it holds the end.
    fn check_bounds(&self, verdict: &mut Verdict, era: &Era<'a>) {
        for seen in &self.events[era.events.clone()] {
            if let Some(end) = era.ended {
                self.check_knew(verdict, end, seen);
            }
            if let Some(end) = era.begun {
                self.check_knew(verdict, seen, end);
                let acknowledged = self.op(seen).is_some_and(|(_, op)| op.ack().is_some());
                verdict.reach(ENDED, u64::from(acknowledged && !self.is_strict(seen)));
            }
        }
    }

    fn check_knew(&self, verdict: &mut Verdict, later: &Seen, earlier: &Seen) {
        let Some(knew) = self.knew(&later.dot, &earlier.dot) else { return };
        verdict.check(knew, || {
            let (stream, one, other) = (self.name, &earlier.dot, &later.dot);
            let words = format!(
                "{other} was written, of {stream} or its home, where {one} was not held: two homes at once"
            );
            let ops = [earlier, later].into_iter().filter_map(|seen| self.op(seen));
            Broken::new(words).dot(one).dot(other).ops(ops.map(|(at, _)| at))
        });
    }

    /// Expectations hold of the whole chain, and everybody shows its numbers.
    fn check_revisions(&self, verdict: &mut Verdict, chain: Range<usize>) {
        for (revision, seen) in (chain.start as u64..).zip(&self.events[chain]) {
            for log in self.case.last_logs() {
                let Some(here) = log.seen(&seen.dot) else { continue };
                verdict.check(here.revision == revision, || {
                    let (stream, shown) = (self.name, here.revision);
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
                    let (stream, dot) = (self.name, &seen.dot);
                    let words = format!(
                        "{dot} is revision {revision} of {stream} over all regions, expected was {expected:?}"
                    );
                    Broken::new(words).op(at).dot(dot)
                });
            }
        }
    }

    /// What was acknowledged is there, and of what is strict no revision was given twice. Returns that.
    fn check_acknowledged(&self, verdict: &mut Verdict) -> Vec<Acknowledged<'a>> {
        if !self.events.iter().any(|seen| self.is_strict(seen)) {
            return Vec::new();
        }
        let forgetful = self.case.evidence.expectations.forgetful();
        let mut given: BTreeMap<u64, usize> = BTreeMap::new();
        let mut acknowledged = Vec::new();
        for (at, op, ack) in self.case.acknowledged() {
            let events = op.events.iter().filter(|asked| asked.stream == self.name).count() as u64;
            if events == 0 || forgetful.contains(ack.first.origin.region.as_str()) {
                continue;
            }
            for log in self.case.last_logs() {
                verdict.check(log.place(&ack.first).is_some(), || {
                    let words = format!("{} lacks {} of {}", log.name, ack.first, self.name);
                    Broken::new(words).op(at).dot(&ack.first)
                });
            }
            let Some(event) = self.events.iter().position(|seen| seen.dot == ack.first) else {
                continue;
            };
            let last = ack.revisions.get(self.name).copied();
            let Some(last) = last.filter(|_| self.is_strict(self.events[event])) else { continue };
            verdict.reach(STRICT, 1);
            verdict.reach(HANDED_OVER, u64::from(self.is_handed_over(&ack.first)));
            verdict.reach(HOMED_AGAIN, u64::from(self.since(&ack.first) > 0));
            for revision in (last + 1).saturating_sub(events)..=last {
                let other = given.insert(revision, at);
                verdict.check(other.is_none(), || {
                    let words = format!("revision {revision} of {} was given twice", self.name);
                    Broken::new(words).op(at).ops(other)
                });
            }
            acknowledged.push(Acknowledged { op, last, event });
        }
        acknowledged
    }

    /// Whether it was written in a home that got the stream by a release.
    fn is_handed_over(&self, dot: &Dot) -> bool {
        let since = self.since(dot);
        self.known(dot).any(|change| match change {
            Change::Released { stream, to, epoch, .. } => {
                let of_it = stream.as_ref().is_none_or(|stream| stream == self.name);
                of_it && *to == dot.origin.region && *epoch > since
            }
            Change::Declared { .. } | Change::Ended { .. } => false,
        })
    }

    /// A conflict that was asked for after an era's first strict answer, and answered before anybody
    /// asked for the end of its home, is not from the past, nor from the future.
    fn check_conflicts(
        &self,
        verdict: &mut Verdict,
        era: &Era<'a>,
        acknowledged: &[Acknowledged<'a>],
    ) {
        let of_era = acknowledged.iter().filter(|it| era.events.contains(&it.event));
        let Some(since) = of_era.map(|it| it.op.returned).min() else { return };
        let asked_for = |end| self.op(end).map_or(Duration::ZERO, |(_, op)| op.called);
        let until = era.ended.map_or(Duration::MAX, asked_for);
        // A region that began anew under its name knows of no home before it has heard of it.
        let rebuilt = &self.case.evidence.expectations.rebuilt;
        let asked = self.case.ops().filter(|(_, op)| !rebuilt.contains(&op.region));
        for (at, op) in asked.filter(|(_, op)| op.called > since && op.returned < until) {
            let Outcome::Conflict { conflicts } = &op.outcome else { continue };
            let found = conflicts.iter().filter(|found| found.expectation.stream == self.name);
            for actual in found.map(|found| found.actual) {
                let next = actual.map_or(0, |actual| actual.saturating_add(1));
                let answered =
                    |it: &&Acknowledged<'_>| it.op.returned < op.called && it.last >= next;
                let stale = acknowledged.iter().find(answered);
                verdict.check(stale.is_none(), || {
                    let last = stale.map_or(0, |it| it.last);
                    let words = format!(
                        "{} was told to be at {actual:?} after {last} had been acknowledged",
                        self.name
                    );
                    Broken::new(words).op(at)
                });
                let early = self.whole.then(|| self.called(actual)).flatten();
                verdict.check(early.is_none_or(|called| called <= op.returned), || {
                    let words = format!(
                        "{} was told to be at {actual:?} before that was asked for",
                        self.name
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

    fn region(name: &str) -> RegionName {
        RegionName::new(name).unwrap()
    }
    fn declared(home: &str, epoch: u32) -> Option<Change> {
        Some(Change::Declared { category: "deed".into(), home: region(home), epoch })
    }
    fn released(to: &str, epoch: u32) -> Option<Change> {
        let (category, to) = ("deed".into(), region(to));
        Some(Change::Released { category, stream: None, to, epoch })
    }
    fn ended(epoch: u32) -> Option<Change> {
        Some(Change::Ended { category: "deed".into(), epoch })
    }

    /// The sound run, with these changes of class as its events, two an append; what is none goes to
    /// the deed.
    fn with(changes: [Option<Change>; 6]) -> Evidence {
        let mut evidence = sound();
        let says = changes.map(|change| change.map(|change| Said::change(&change)));
        let stream = |said: &Option<Said>| match said {
            Some(_) => stream_of("deed"),
            None => DEED.to_owned(),
        };
        let events =
            evidence.regions.values_mut().flat_map(|read| [&mut read.regional, &mut read.global]);
        for events in events {
            let mut next: BTreeMap<String, u64> = BTreeMap::new();
            for (seen, said) in events.iter_mut().zip(&says) {
                seen.stream = stream(said);
                seen.says.clone_from(said);
                let next = next.entry(seen.stream.clone()).or_default();
                seen.revision = *next;
                *next += 1;
            }
        }
        let mut last: BTreeMap<String, u64> = BTreeMap::new();
        for (op, says) in evidence.history.ops.iter_mut().zip(says.chunks(2)) {
            let before = last.get(DEED).copied();
            let Outcome::Acknowledged(ack) = &mut op.outcome else { panic!() };
            ack.revisions.clear();
            for (asked, said) in op.events.iter_mut().zip(says) {
                asked.stream = stream(said);
                asked.says.clone_from(said);
                let last = last.entry(asked.stream.clone()).and_modify(|last| *last += 1);
                ack.revisions.insert(asked.stream.clone(), *last.or_default());
            }
            op.expects.iter_mut().for_each(|on| {
                on.stream = DEED.into();
                on.expected = before.map_or(Expect::NoStream, Expect::Revision);
            });
        }
        evidence
    }

    /// A region held two appends the other way round, the first of them at `place`.
    fn swap(evidence: &mut Evidence, region: &str, place: usize) {
        let regional = &mut evidence.regions.get_mut(region).unwrap().regional;
        regional[place..place + 4].rotate_left(2);
        renumber(regional);
    }

    /// The first append of eu declares its home and hands over to us, which then writes two events; eu
    /// writes two more.
    fn homed() -> Evidence {
        with([declared("eu", 1), released("us", 2), None, None, None, None])
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
        swap(&mut evidence, "eu", 2);
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

    /// us is the home for one event and ends it; then eu writes twice.
    fn with_an_end() -> Evidence {
        with([declared("us", 1), declared("us", 1), None, ended(2), None, None])
    }

    #[test]
    fn after_the_end_of_a_home_expectations_are_of_a_region() {
        let verdict = judge(check, &with_an_end());
        assert!(verdict.holds(), "{:?}", verdict.words);
        assert_eq!((verdict.reached[STRICT], verdict.reached[ENDED]), (1, 2));
        assert_eq!(verdict.reached[HOMED_AGAIN], 0);
        let mut regional = with_an_end();
        regional.history.ops[2].expects[0].expected = Expect::NoStream;
        regional.regions.get_mut("us").unwrap().regional[5].revision = 7;
        let told = conflict("eu", &[(DEED, Expect::Revision(9), None)], 9);
        regional.history.ops.push(told);
        assert!(judge(check, &regional).holds(), "{:?}", judge(check, &regional).words);
    }

    #[test]
    fn a_second_home_is_as_strict_as_the_first() {
        // The two regions write nothing between the homes.
        let again = || with([declared("eu", 1), ended(2), declared("us", 3), None, None, None]);
        let verdict = judge(check, &again());
        assert_eq!(verdict.reached[HOMED_AGAIN], 1, "{:?}", verdict.reached);
        assert!(verdict.holds(), "{:?}", verdict.words);
        let mut evidence = again();
        evidence.history.ops[2].expects[0].expected = Expect::NoStream;
        assert_eq!(judge(check, &evidence).broken, 1);
        // One that began anew and knows of no home declares the first: it comes too late.
        let late = with([declared("eu", 1), ended(2), declared("us", 1), None, None, None]);
        assert_eq!(judge(check, &late).reached[STRICT], 0);
    }

    #[test]
    fn what_is_written_without_the_end_of_the_home_is_found() {
        let mut evidence = with_an_end();
        // eu wrote its two events without those of us.
        swap(&mut evidence, "eu", 2);
        let verdict = judge(check, &evidence);
        assert_eq!(
            verdict.broken, 3,
            "both lack the end, the first one the event: {:?}",
            verdict.words
        );
        // us ends the home without an event of eu from before.
        let mut evidence = with([declared("us", 1), None, None, ended(2), None, None]);
        swap(&mut evidence, "us", 0);
        evidence.history.ops[..2].iter_mut().for_each(|op| op.expects.clear());
        let verdict = judge(check, &evidence);
        assert_eq!(verdict.broken, 1, "{:?}", verdict.words);
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
