//! Law 10: stamps rise along an origin over leader changes, restarts and clock steps; an effect is
//! stamped after its cause; one bad clock drags nobody else's.
//!
//! Source: DESIGN.md law 10; Kulkarni et al. (2014) for hybrid logical clocks. The stamp rises from
//! group to group: in any log, events of one origin with one stamp stand in a row (a group), and the
//! next group of it is stamped later. What a region wrote is stamped after everything before it in
//! that region's log. A region whose own clock was right, as those of most regions were, stamps nothing
//! further ahead of the time than it takes from others ([`DRIFT_MAX`]).
//!
//! It cannot see: how far stamps are from the time where clocks were wrong, or where nobody knows
//! whether they were.

use std::collections::BTreeMap;
use std::time::Duration;

use anabranch_client::{Origin, Stamp};

use super::{Broken, Verdict};
use crate::case::{Case, Log};
use crate::evidence::Seen;

/// The configured default: how far ahead of its clock a region takes what another stamped. Its own
/// stamps go on from there.
const DRIFT_MAX: Duration = Duration::from_millis(500);

/// Checks every log.
pub fn check(case: &Case<'_>) -> Verdict {
    let law = "stamps rise along an origin, effects are stamped after their causes";
    let mut verdict = Verdict::new("stamps", law);
    for log in &case.logs {
        check_log(&mut verdict, case, log);
    }
    check_time(&mut verdict, case);
    verdict
}

/// What was acknowledged where clocks were right is not stamped ahead of the time.
fn check_time(verdict: &mut Verdict, case: &Case<'_>) {
    let Some(right) = &case.evidence.expectations.right_clocks else { return };
    for (at, op, ack) in case.acknowledged() {
        if !right.regions.contains(ack.first.origin.region.as_str()) {
            continue;
        }
        // It was stamped before it was answered.
        let returned = right.began_unix_ms + op.returned.as_millis() as u64;
        let ahead = ack.stamp.ahead_of(returned);
        verdict.check(ahead <= DRIFT_MAX, || {
            let words = format!("{} is stamped {ahead:?} ahead of the time", ack.first);
            Broken::new(words).op(at).dot(&ack.first)
        });
    }
}

fn check_log(verdict: &mut Verdict, case: &Case<'_>, log: &Log<'_>) {
    let mut heads: BTreeMap<&Origin, (usize, &Seen)> = BTreeMap::new();
    let mut latest: Option<&Seen> = None;
    for (at, seen) in log.events().iter().enumerate() {
        let before = heads.insert(&seen.dot.origin, (at, seen));
        let in_a_row = before.is_some_and(|(place, _)| place + 1 == at);
        let last = before.map_or(Stamp::ZERO, |(_, before)| before.stamp);
        let same_group = in_a_row && seen.stamp == last;
        let broken = |other: Option<&Seen>| {
            let other_words = other.map(|other| format!("{} stamped {}", other.dot, other.stamp));
            let words = format!(
                "{} shows {} stamped {} after {}",
                log.name,
                seen.dot,
                seen.stamp,
                other_words.unwrap_or_default()
            );
            let dots = other.into_iter().chain([seen]).map(|seen| &seen.dot);
            dots.fold(Broken::new(words), |broken, dot| broken.dot(dot).ops(case.op_of(dot)))
        };
        verdict.check(seen.stamp > last || same_group, || broken(before.map(|(_, seen)| seen)));
        if Some(&seen.dot.origin) == log.own && !same_group {
            let after = latest.is_none_or(|latest| seen.stamp > latest.stamp);
            verdict.check(after, || broken(latest));
        }
        if latest.is_none_or(|latest| seen.stamp > latest.stamp) {
            latest = Some(seen);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::{judge, sound};
    use crate::evidence::RightClocks;

    #[test]
    fn falling_stamps_and_effects_before_causes_are_found() {
        assert!(judge(check, &sound()).holds(), "{:?}", judge(check, &sound()).words);
        // eu's second append falls behind its first, which us imported, too.
        let mut falling = sound();
        for region in falling.regions.values_mut() {
            region.regional[4..].iter_mut().for_each(|seen| seen.stamp = Stamp(99));
        }
        assert_eq!(judge(check, &falling).broken, 3, "in both logs, and after us's in its own");
        // us's append is stamped like what us held then.
        let mut tied = sound();
        for region in tied.regions.values_mut() {
            region.regional[2..4].iter_mut().for_each(|seen| seen.stamp = Stamp(100));
        }
        let verdict = judge(check, &tied);
        assert_eq!(verdict.broken, 1, "{:?}", verdict.words);
        assert_eq!(verdict.ops, [0, 1].into());
    }

    #[test]
    fn a_region_whose_clock_was_dragged_is_found() {
        let mut evidence = sound();
        let op = &evidence.history.ops[0];
        let (stamp, returned) = (op.ack().unwrap().stamp, op.returned.as_millis() as u64);
        let mut stamped = |ahead_ms: u64, right: &[&str]| {
            let regions = right.iter().map(|region| (*region).to_owned()).collect();
            let began_unix_ms = stamp.unix_ms() - returned - ahead_ms;
            evidence.expectations.right_clocks = Some(RightClocks { began_unix_ms, regions });
            let verdict = judge(check, &evidence);
            (verdict.broken, verdict.ops)
        };
        assert_eq!(stamped(500, &["eu"]), (0, [].into()));
        assert_eq!(stamped(501, &["eu"]), (1, [0].into()));
        assert_eq!(stamped(501, &["us"]).1, [].into(), "nobody knows of eu's");
    }

    #[test]
    fn one_stamp_belongs_to_one_group() {
        // eu's second append, after us's, has the stamp of its first.
        let mut evidence = sound();
        for region in evidence.regions.values_mut() {
            region.regional[2..4].iter_mut().for_each(|seen| seen.stamp = Stamp(50));
            region.regional[4..].iter_mut().for_each(|seen| seen.stamp = Stamp(100));
        }
        let verdict = judge(check, &evidence);
        assert_eq!(verdict.broken, 2 + 1 + 1, "{:?}", verdict.words);
    }
}
