//! Law 8: with the token passed along, a client reads its own writes and never goes back, also in
//! another region, or gets a clear error at its deadline.
//!
//! Source: DESIGN.md law 8; Terry et al. (1994), read your writes and monotonic reads. Whatever a
//! writer was told is written, or was shown, before it sends a read is in what the read shows of that
//! stream. Writes follow reads and monotonic writes are `prefix.rs`: the context of a write covers
//! what its session has seen.
//!
//! It cannot see: reads that gave up, which are allowed and counted in the history; of reads that
//! asked for the newest events only, those older than what they show.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anabranch_client::Dot;

use super::{Broken, Verdict};
use crate::case::Case;
use crate::op::SessionRead;

/// What one writer learnt of one stream, and when.
#[derive(Default)]
struct Known<'a> {
    learnt: Vec<(Duration, Vec<Dot>)>,
    reads: Vec<&'a SessionRead>,
}

/// Holds every read against what its session had seen.
pub fn check(case: &Case<'_>) -> Verdict {
    let mut verdict =
        Verdict::new("sessions", "a session reads its own writes and never goes back");
    let mut sessions: BTreeMap<(u32, &str), Known<'_>> = BTreeMap::new();
    for read in &case.evidence.history.session_reads {
        let known = sessions.entry((read.writer, &read.stream)).or_default();
        known.learnt.push((read.returned, read.shown.clone()));
        known.reads.push(read);
    }
    for (_, op, ack) in case.acknowledged() {
        let mut by_stream: BTreeMap<&str, Vec<Dot>> = BTreeMap::new();
        for (dot, asked) in ack.dots().zip(&op.events) {
            by_stream.entry(&asked.stream).or_default().push(dot);
        }
        for (stream, dots) in by_stream {
            // Streams that its session never reads tell nothing.
            if let Some(known) = sessions.get_mut(&(op.writer, stream)) {
                known.learnt.push((op.returned, dots));
            }
        }
    }
    for known in sessions.into_values() {
        check_stream(&mut verdict, case, known);
    }
    verdict
}

fn check_stream(verdict: &mut Verdict, case: &Case<'_>, known: Known<'_>) {
    let Known { mut learnt, mut reads } = known;
    learnt.sort_by_key(|(at, _)| *at);
    reads.sort_by_key(|read| read.called);
    let mut learnt = learnt.into_iter().peekable();
    let mut seen: BTreeSet<Dot> = BTreeSet::new();
    for read in reads {
        while let Some((_, dots)) = learnt.next_if(|(at, _)| *at <= read.called) {
            seen.extend(dots);
        }
        let shown: BTreeSet<&Dot> = read.shown.iter().collect();
        let missing: Vec<&Dot> =
            seen.iter().filter(|dot| !shown.contains(dot) && must_show(case, read, dot)).collect();
        verdict.check(missing.is_empty(), || {
            let words = format!(
                "at {:.3?} {} did not show writer {} of {} the events {:?}, which its session has seen",
                read.returned,
                read.region,
                read.writer,
                read.stream,
                &missing[..missing.len().min(4)]
            );
            let some = missing.iter().take(4);
            some.fold(Broken::new(words), |broken, dot| broken.dot(dot).ops(case.op_of(dot)))
        });
    }
}

/// A read of the newest events may leave out those before the oldest it shows. Which region answered
/// is not certain, a client may have moved on: so they must be later in all of them.
fn must_show(case: &Case<'_>, read: &SessionRead, dot: &Dot) -> bool {
    if case.is_given_again(dot, |seen| seen.stream == read.stream) {
        return false;
    }
    if read.whole {
        return true;
    }
    let Some(oldest) = read.shown.first() else { return true };
    let mut logs = case.last_logs();
    logs.all(|log| log.place(oldest).zip(log.place(dot)).is_some_and(|(one, other)| one < other))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::{judge, sound};

    #[test]
    fn a_read_that_lacks_the_write_is_found() {
        let mut evidence = sound();
        assert!(judge(check, &evidence).holds(), "{:?}", judge(check, &evidence).words);
        evidence.history.session_reads[0].shown.pop();
        let verdict = judge(check, &evidence);
        assert_eq!(verdict.broken, 1);
        assert!(verdict.ops.contains(&0));
        // Of a read of the newest events, what is older than the oldest shown says nothing.
        evidence.history.session_reads[0].shown =
            vec![evidence.history.ops[0].ack().unwrap().dot(1)];
        evidence.history.session_reads[0].whole = false;
        assert!(judge(check, &evidence).holds());
    }

    #[test]
    fn a_number_that_a_forgetful_region_gave_out_twice_is_not_held_against_the_read() {
        let mut evidence = sound();
        let gone = evidence.history.session_reads[0].shown.pop().unwrap();
        evidence.expectations.lost.insert(gone.origin.region.to_string());
        assert_eq!(judge(check, &evidence).broken, 1, "it is where it was, and was not shown");
        for read in evidence.regions.values_mut() {
            for seen in read.regional.iter_mut().chain(&mut read.global) {
                if seen.dot == gone {
                    seen.stream = "other".into();
                }
            }
        }
        assert!(judge(check, &evidence).holds(), "{:?}", judge(check, &evidence).words);
        let lost = std::mem::take(&mut evidence.expectations.lost);
        assert_eq!(judge(check, &evidence).broken, 1, "no other region gives numbers out twice");
        // Set back, it gave the number out again, and went down before anybody read it.
        for read in evidence.regions.values_mut() {
            read.regional.retain(|seen| seen.dot != gone);
            read.global.retain(|seen| seen.dot != gone);
        }
        assert_eq!(judge(check, &evidence).broken, 1);
        evidence.expectations.lost = lost;
        assert!(judge(check, &evidence).holds(), "{:?}", judge(check, &evidence).words);
    }

    #[test]
    fn a_read_that_goes_back_behind_another_is_found() {
        let mut evidence = sound();
        let mut other = evidence.history.session_reads[0].clone();
        (other.writer, other.called, other.returned) =
            (9, Duration::from_secs(50), Duration::from_secs(51));
        let mut back = other.clone();
        (back.called, back.returned) = (Duration::from_secs(52), Duration::from_secs(53));
        back.shown.remove(0);
        evidence.history.session_reads.extend([other, back]);
        assert_eq!(judge(check, &evidence).broken, 1, "{:?}", judge(check, &evidence).words);
    }
}
