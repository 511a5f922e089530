//! Law 1: what was acknowledged is there, in every region, as it was acknowledged.

use std::collections::BTreeMap;

use anabranch_client::EventId;

use super::Verdict;
use crate::evidence::{Evidence, Seen};
use crate::history::{Ack, Op, Outcome};

/// Every acknowledged event is in every region, in both orders, under its dot and stamp; and at the
/// acknowledged position in the region that took it.
pub fn check(evidence: &Evidence) -> Verdict {
    let mut verdict = Verdict::new("acknowledged events are in every region, as acknowledged");
    for (region, read) in &evidence.regions {
        for (order, events) in read.orders() {
            let by_id: BTreeMap<EventId, &Seen> = events.iter().map(|e| (e.id, e)).collect();
            for op in &evidence.history.ops {
                if let Outcome::Acknowledged(ack) = &op.outcome {
                    let own = ack.first.origin.region.as_str() == region && order == "regional";
                    check_op(&mut verdict, &format!("{region} ({order})"), own, &by_id, op, ack);
                }
            }
        }
    }
    verdict
}

fn check_op(
    verdict: &mut Verdict,
    place: &str,
    own: bool,
    by_id: &BTreeMap<EventId, &Seen>,
    op: &Op,
    ack: &Ack,
) {
    let counted = ack.events as usize == op.events.len();
    verdict.check(counted, || format!("{} events acknowledged for {op:?}", ack.events));
    for (nth, (id, stream)) in (0..).zip(&op.events) {
        let Some(seen) = by_id.get(id) else {
            let dot = format!("{}:{}", ack.first.origin, ack.first.seq.0 + nth);
            verdict.check(false, || {
                format!("{place} lacks {dot} (id {id}), acknowledged after {:?}", op.returned)
            });
            continue;
        };
        let same = seen.dot.origin == ack.first.origin
            && seen.dot.seq == ack.first.seq.plus(nth)
            && seen.stamp == ack.stamp
            && seen.stream == *stream
            && (!own || seen.place == ack.position + nth);
        verdict.check(same, || {
            format!("{place} shows {seen:?}, acknowledged as event {nth} of {ack:?}")
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::sound;

    #[test]
    fn a_lost_or_altered_acknowledged_event_is_found_with_its_dot() {
        let mut evidence = sound();
        assert!(check(&evidence).holds(), "{:?}", check(&evidence).words);
        let lost = evidence.regions.get_mut("us").unwrap().regional.remove(0);
        let verdict = check(&evidence);
        assert_eq!(verdict.broken, 1);
        assert!(verdict.words[0].contains(&lost.dot.to_string()), "{:?}", verdict.words);

        let mut evidence = sound();
        evidence.regions.get_mut("us").unwrap().global[0].stamp.0 += 1;
        assert_eq!(check(&evidence).broken, 1);
    }
}
