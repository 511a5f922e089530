//! Law 7: within an origin, appends are linearizable and expectations held when they were checked.

use std::collections::BTreeMap;
use std::time::Duration;

use anabranch_client::{EventId, Expect, Origin};

use super::Verdict;
use crate::evidence::{Evidence, Seen};
use crate::history::{Ack, Op, Outcome};

/// Revisions of every stream are dense from 0 in every region; expectations held and acknowledged
/// revisions are right in the region that took the append; of two appends of one origin, the one
/// that was answered before the other was sent comes first.
pub fn check(evidence: &Evidence) -> Verdict {
    let mut verdict = Verdict::new("revisions are dense, expectations held, appends linearizable");
    for (region, read) in &evidence.regions {
        let mut heads: BTreeMap<&str, u64> = BTreeMap::new();
        for seen in &read.regional {
            let next = heads.entry(&seen.stream).or_default();
            verdict.check(seen.revision == *next, || {
                format!(
                    "{region} shows {} as revision {} of {}, expected {next}",
                    seen.dot, seen.revision, seen.stream
                )
            });
            *next += 1;
        }
        let by_id: BTreeMap<EventId, &Seen> = read.regional.iter().map(|e| (e.id, e)).collect();
        for (op, ack) in acknowledged(evidence) {
            if ack.first.origin.region.as_str() == region {
                check_op(&mut verdict, &by_id, op, ack);
            }
        }
    }
    check_real_time(&mut verdict, evidence);
    verdict
}

fn acknowledged(evidence: &Evidence) -> impl Iterator<Item = (&Op, &Ack)> {
    evidence.history.ops.iter().filter_map(|op| match &op.outcome {
        Outcome::Acknowledged(ack) => Some((op, ack)),
        _ => None,
    })
}

fn check_op(verdict: &mut Verdict, by_id: &BTreeMap<EventId, &Seen>, op: &Op, ack: &Ack) {
    let Some(first) = op.events.first().and_then(|(id, _)| by_id.get(id)) else { return };
    let before = first.revision.checked_sub(1);
    let held = match op.expect {
        Expect::Any => true,
        Expect::NoStream => before.is_none(),
        Expect::Exists => before.is_some(),
        Expect::Revision(expected) => before == Some(expected),
    };
    verdict.check(held, || {
        format!("{} became revision {} in spite of {:?}", first.dot, first.revision, op.expect)
    });
    for (stream, last) in &ack.revisions {
        let of_stream = op.events.iter().filter(|(_, name)| name == stream);
        let seen = of_stream.filter_map(|(id, _)| by_id.get(id)).map(|seen| seen.revision).max();
        verdict.check(seen == Some(*last), || {
            format!(
                "{} acknowledged {last} as last revision of {stream}, found {seen:?}",
                ack.first
            )
        });
    }
}

/// Appends of an origin are ordered by their numbers. That order is a linearization if no append was
/// answered before one that comes earlier was sent: prefix-max(called) <= returned.
fn check_real_time(verdict: &mut Verdict, evidence: &Evidence) {
    let mut origins: BTreeMap<&Origin, Vec<(u64, &Op)>> = BTreeMap::new();
    for (op, ack) in acknowledged(evidence) {
        origins.entry(&ack.first.origin).or_default().push((ack.first.seq.0, op));
    }
    for (origin, mut ops) in origins {
        ops.sort_by_key(|(seq, _)| *seq);
        let mut latest = (Duration::ZERO, 0);
        for (seq, op) in ops {
            verdict.check(latest.0 <= op.returned, || {
                let (called, earlier) = latest;
                format!("{origin}:{seq} was answered at {:?}, before {origin}:{earlier} was sent at {called:?}", op.returned)
            });
            latest = latest.max((op.called, seq));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::sound;

    #[test]
    fn broken_expectations_and_turned_orders_are_found() {
        assert!(check(&sound()).holds(), "{:?}", check(&sound()).words);

        let mut evidence = sound();
        evidence.history.ops[0].expect = Expect::Exists;
        assert_eq!(check(&evidence).broken, 1, "its stream was new");

        let mut evidence = sound();
        let first = &mut evidence.history.ops[0];
        (first.called, first.returned) = (Duration::from_secs(90), Duration::from_secs(91));
        assert!(check(&evidence).broken > 0, "later ones were answered before it was sent");

        let mut evidence = sound();
        evidence.regions.get_mut("us").unwrap().regional[0].revision = 9;
        assert!(check(&evidence).broken > 0);
    }
}
