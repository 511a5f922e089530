//! Law 2, of a producer's lives: once a region has acknowledged an append under an epoch, it takes
//! nothing new from the same producer under a lower one; and it says so only if the higher epoch is
//! there.
//!
//! Source: DESIGN.md section 9, "The epoch fences zombies".
//!
//! It cannot see: a zombie in another region that has not heard of the new life, which is allowed.

use std::collections::BTreeMap;

use anabranch_client::{ProducerId, ProducerTag};

use super::{Broken, Verdict};
use crate::case::Case;
use crate::note::{Note, Refusal};
use crate::op::Op;

/// Checks every append of a producer that has had several lives.
pub fn check(case: &Case<'_>) -> Verdict {
    let mut verdict = Verdict::new("fencing", "a producer's new life stops the old one");
    let mut producers: BTreeMap<ProducerId, Vec<(usize, &Op)>> = BTreeMap::new();
    for (at, op) in case.ops() {
        producers.entry(op.tag.id).or_default().push((at, op));
    }
    let fenced: BTreeMap<ProducerTag, u32> = case
        .evidence
        .history
        .notes
        .iter()
        .filter_map(|note| match note {
            Note::Refused { tag, by: Refusal::Fenced { epoch } } => Some((*tag, *epoch)),
            _ => None,
        })
        .collect();
    let forgetful = case.evidence.expectations.forgetful();
    for ops in producers.into_values() {
        for (at, op) in &ops {
            if let Some(epoch) = fenced.get(&op.tag) {
                let (called, tag) = (op.returned, op.tag);
                let there = ops.iter().any(|(_, other)| {
                    other.tag.epoch == *epoch && *epoch > tag.epoch && other.called <= called
                });
                verdict.check(there, || {
                    let words = format!(
                        "{} fenced {tag:?} by epoch {epoch}, which is not there",
                        op.region
                    );
                    Broken::new(words).op(*at)
                });
            }
        }
        taken(&mut verdict, &ops, |region| forgetful.contains(region));
    }
    verdict
}

/// Looks for appends that were taken after a higher epoch was, region by region.
fn taken(verdict: &mut Verdict, ops: &[(usize, &Op)], forgets: impl Fn(&str) -> bool) {
    let acks = ops.iter().filter_map(|(at, op)| Some((*at, *op, op.ack()?)));
    let mut regions: BTreeMap<&str, Vec<(usize, &Op)>> = BTreeMap::new();
    for (at, op, ack) in acks {
        regions.entry(ack.first.origin.region.as_str()).or_default().push((at, op));
    }
    for (region, mut acked) in regions {
        if forgets(region) || acked.iter().all(|(_, op)| op.tag.epoch == acked[0].1.tag.epoch) {
            continue;
        }
        // The highest epoch that was acknowledged before a moment, by a sweep over both.
        let mut answered = acked.clone();
        answered.sort_by_key(|(_, op)| op.returned);
        acked.sort_by_key(|(_, op)| op.called);
        let mut answered = answered.into_iter().peekable();
        let mut highest: Option<(usize, u32)> = None;
        for (at, op) in acked {
            while let Some((by, other)) = answered.next_if(|(_, other)| other.returned <= op.called)
            {
                if highest.is_none_or(|(_, epoch)| epoch < other.tag.epoch) {
                    highest = Some((by, other.tag.epoch));
                }
            }
            let Some((by, epoch)) = highest else { continue };
            // A retry that was sent to several regions may have been taken elsewhere first.
            verdict.check(op.roams || epoch <= op.tag.epoch, || {
                let words =
                    format!("{region} took {:?} after it had acknowledged epoch {epoch}", op.tag);
                Broken::new(words).op(at).op(by)
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::{judge, sound};
    use crate::op::Outcome;

    #[test]
    fn a_zombie_that_is_taken_is_found_and_one_that_is_fenced_is_fine() {
        // Appends 0 and 2 are of one producer and one region.
        let mut lives = sound();
        lives.history.ops[2].tag.epoch = 2;
        assert!(judge(check, &lives).holds(), "{:?}", judge(check, &lives).words);
        let mut zombie = sound();
        zombie.history.ops[0].tag.epoch = 2;
        assert_eq!(judge(check, &zombie).broken, 1);
        zombie.expectations.rebuilt.insert("eu".into());
        assert_eq!(judge(check, &zombie).broken, 0, "its memory is gone");
    }

    #[test]
    fn a_fence_that_nobody_put_up_is_found() {
        let mut evidence = sound();
        let tag = evidence.history.ops[2].tag;
        evidence.history.ops[2].outcome = Outcome::Refused { why: "fenced".into() };
        evidence.history.notes.push(Note::Refused { tag, by: Refusal::Fenced { epoch: 2 } });
        assert_eq!(judge(check, &evidence).broken, 1);
        evidence.history.ops[0].tag.epoch = 2;
        assert_eq!(judge(check, &evidence).broken, 0, "{:?}", judge(check, &evidence).words);
    }
}
