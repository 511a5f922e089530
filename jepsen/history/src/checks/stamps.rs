//! Law 10: stamps rise along an origin over leader changes, restarts and clock steps; an effect is
//! stamped after its cause.
//!
//! Source: DESIGN.md law 10; Kulkarni et al. (2014) for hybrid logical clocks. The stamp rises from
//! group to group: in any log, events of one origin with one stamp stand in a row (a group), and the
//! next group of it is stamped later. What a region wrote is stamped after everything before it in
//! that region's log.
//!
//! It cannot see: how far a stamp is from real time, so not by itself that one bad clock drags nobody
//! else's; a region that had to wait for that shows in `recovery.rs`.

use std::collections::BTreeMap;

use anabranch_client::{Origin, Stamp};

use super::{Broken, Verdict};
use crate::case::{Case, Log};
use crate::evidence::Seen;

/// Checks every log.
pub fn check(case: &Case<'_>) -> Verdict {
    let law = "stamps rise along an origin, effects are stamped after their causes";
    let mut verdict = Verdict::new("stamps", law);
    for log in &case.logs {
        check_log(&mut verdict, case, log);
    }
    verdict
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
