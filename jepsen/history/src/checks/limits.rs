//! Limits: an append that is exactly as large as it may be is taken; one that is a byte, an event or
//! a stream larger is refused, and the refusal names the field and the limit.
//!
//! Source: `core::limits` ("Errors name the limit they enforce"); the contract of `Events.Append`.
//! What is refused for a limit is refused at every time and in every state, so an acknowledgement of
//! one is as wrong as a refusal of what fits. That content at a limit comes back as it was written is
//! `honesty.rs`.
//!
//! It cannot see: limits that a configuration lowers; probes whose outcome is unknown.

use std::collections::BTreeMap;

use anabranch_client::ProducerTag;

use super::{Broken, Verdict};
use crate::case::Case;
use crate::content::Name;
use crate::note::{Note, Refusal};
use crate::op::{Op, Outcome};
use crate::shape::Probe;

/// Checks the answers to all probes.
pub fn check(case: &Case<'_>) -> Verdict {
    let mut verdict = Verdict::new("limits", "what fits is taken, what does not is told its limit");
    let refusals: BTreeMap<ProducerTag, &Refusal> = case
        .evidence
        .history
        .notes
        .iter()
        .filter_map(
            |note| if let Note::Refused { tag, by } = note { Some((*tag, by)) } else { None },
        )
        .collect();
    for (at, op) in case.ops() {
        if let Some(probe) = probe(op) {
            let right = as_it_must_be(probe, &op.outcome, refusals.get(&op.tag).copied());
            verdict.check(right != Some(false), || {
                let (region, told) = (&op.region, refusals.get(&op.tag));
                let words = format!("{region} answered {probe:?} with {:?}, {told:?}", op.outcome);
                Broken::new(words).op(at)
            });
        }
    }
    verdict
}

fn probe(op: &Op) -> Option<Probe> {
    let Name { writer, op, .. } = Name::of(op.events.first()?.id);
    Probe::of(writer, op)
}

/// None if the answer says nothing: the region was busy or not there, or nobody knows.
fn as_it_must_be(probe: Probe, outcome: &Outcome, refusal: Option<&Refusal>) -> Option<bool> {
    match (outcome, refusal, probe.breaks()) {
        (Outcome::Acknowledged(_), _, breaks) => Some(breaks.is_none()),
        (Outcome::Refused { .. }, Some(Refusal::Invalid { field, limit, .. }), Some(breaks)) => {
            let (of, number) = breaks;
            Some(field.contains(of) && *limit == number)
        }
        (Outcome::Refused { .. }, Some(Refusal::Overloaded { .. } | Refusal::Unavailable), _) => {
            None
        }
        (Outcome::Refused { .. }, _, _) => Some(false),
        // A stream that nobody writes to was expected not to be there.
        (Outcome::Conflict { .. }, _, _) => Some(false),
        (Outcome::Unknown { .. }, _, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::{judge, sound};
    use crate::evidence::Evidence;
    use crate::shape::Class;

    fn probed(probe: Probe, refusal: Option<Refusal>) -> u64 {
        let mut evidence: Evidence = sound();
        let at = Probe::ALL.iter().position(|other| *other == probe).unwrap() as u32;
        let op = &mut evidence.history.ops[0];
        let writer = Class::Prober.writer(0, 0);
        op.events[0].id = Name { run: 1, writer, op: at, nth: 0 }.id();
        let tag = op.tag;
        if let Some(by) = refusal {
            op.outcome = Outcome::Refused { why: "no".into() };
            evidence.history.notes.push(Note::Refused { tag, by });
        }
        let verdict = judge(check, &evidence);
        assert_eq!(verdict.facts, 1);
        verdict.broken
    }

    fn invalid(field: &str, limit: Option<u64>) -> Option<Refusal> {
        Some(Refusal::Invalid { field: field.into(), limit, actual: None })
    }

    #[test]
    fn what_fits_is_taken() {
        assert_eq!(probed(Probe::LongestStream, None), 0);
        assert_eq!(probed(Probe::LongestStream, invalid("events[0].stream", Some(512))), 1);
        assert_eq!(probed(Probe::LongestStream, Some(Refusal::Other)), 1);
        assert_eq!(probed(Probe::LongestStream, Some(Refusal::Unavailable)), 0, "says nothing");
    }

    #[test]
    fn what_does_not_fit_is_told_its_limit() {
        assert_eq!(probed(Probe::StreamTooLong, None), 1, "it was taken");
        assert_eq!(probed(Probe::StreamTooLong, invalid("events[0].stream", Some(512))), 0);
        assert_eq!(probed(Probe::StreamTooLong, invalid("events[0].stream", Some(511))), 1);
        assert_eq!(probed(Probe::StreamTooLong, invalid("events[0].type", Some(512))), 1);
        assert_eq!(probed(Probe::StreamTooLong, Some(Refusal::Other)), 1, "no limit is named");
        assert_eq!(probed(Probe::NoStreamName, invalid("events[0].stream", None)), 0);
    }
}
