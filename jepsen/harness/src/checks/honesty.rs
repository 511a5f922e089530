//! Law 11: what was refused was not written, what is unknown was written wholly or not at all, and
//! nothing is there that nobody wrote.

use std::collections::BTreeMap;

use anabranch_client::EventId;

use super::Verdict;
use crate::content::mark;
use crate::evidence::{Evidence, Seen};
use crate::history::{Op, Outcome};

/// Refused operations left nothing behind, unknown ones everything in one piece or nothing; every
/// event has an operation and the content that was written.
pub fn check(evidence: &Evidence) -> Verdict {
    let mut verdict = Verdict::new("refused is absent, unknown is whole or absent, content intact");
    let ops = &evidence.history.ops;
    let asked: BTreeMap<EventId, &Op> =
        ops.iter().flat_map(|op| op.events.iter().map(move |(id, _)| (*id, op))).collect();
    for (region, read) in &evidence.regions {
        let by_id: BTreeMap<EventId, &Seen> = read.regional.iter().map(|e| (e.id, e)).collect();
        for op in ops {
            match &op.outcome {
                Outcome::Acknowledged(_) => {}
                Outcome::Refused { why } => absent(&mut verdict, region, &by_id, op, why),
                Outcome::Unknown { .. } => whole(&mut verdict, region, &by_id, op),
            }
        }
        for seen in &read.regional {
            let op = asked.get(&seen.id);
            verdict.check(op.is_some(), || format!("{region} shows {seen:?}, which nobody wrote"));
            verdict.check(seen.intact, || format!("{region} shows {seen:?}, altered"));
            if let Some(op) = op {
                let named = op.events.iter().any(|(id, s)| *id == seen.id && *s == seen.stream);
                let sent = mark(op.tag, seen.id) == seen.producer;
                verdict
                    .check(named && sent, || format!("{region} shows {seen:?}, written as {op:?}"));
            }
        }
    }
    verdict
}

fn absent(
    verdict: &mut Verdict,
    region: &str,
    by_id: &BTreeMap<EventId, &Seen>,
    op: &Op,
    why: &str,
) {
    for (id, _) in &op.events {
        let seen = by_id.get(id);
        verdict
            .check(seen.is_none(), || format!("{region} shows {seen:?}, which was refused: {why}"));
    }
}

fn whole(verdict: &mut Verdict, region: &str, by_id: &BTreeMap<EventId, &Seen>, op: &Op) {
    let seen: Vec<&Seen> = op.events.iter().filter_map(|(id, _)| by_id.get(id).copied()).collect();
    let in_a_row = seen.windows(2).all(|pair| {
        pair[0].dot.origin == pair[1].dot.origin && pair[0].dot.seq.next() == pair[1].dot.seq
    });
    let whole = seen.is_empty() || (seen.len() == op.events.len() && in_a_row);
    verdict.check(whole, || format!("{region} shows only {seen:?} of {op:?}"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::sound;

    #[test]
    fn lies_are_found() {
        assert!(check(&sound()).holds(), "{:?}", check(&sound()).words);

        let mut refused = sound();
        refused.history.ops[0].outcome = Outcome::Refused { why: "a conflict".into() };
        let events = refused.history.ops[0].events.len() as u64;
        assert_eq!(check(&refused).broken, events * 2, "in both regions");

        let mut half = sound();
        half.history.ops[0].outcome = Outcome::Unknown { why: "no answer".into() };
        assert!(check(&half).holds(), "unknown and present is fine");
        half.regions.get_mut("us").unwrap().regional.remove(0);
        assert_eq!(check(&half).broken, 1, "half of it is not");

        let mut altered = sound();
        altered.regions.get_mut("us").unwrap().regional[0].intact = false;
        assert_eq!(check(&altered).broken, 1);

        let mut invented = sound();
        invented.history.ops.pop();
        assert!(check(&invented).broken > 0);
    }
}
