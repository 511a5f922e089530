//! Law 11, of answers: every call ends by its deadline, with a result or an error that says what is
//! known; and who is refused because there is too much to do is told when to come back.
//!
//! Source: DESIGN.md law 11 ("no silence") and section 10 ("a clear `RESOURCE_EXHAUSTED` with a retry
//! hint, before anything is written"). Each call is guarded from outside, well beyond its deadline.
//!
//! It cannot see: whether the hint is a good one.

use std::time::Duration;

use super::Verdict;
use crate::case::Case;
use crate::note::{Note, Refusal};

/// Looks for calls that did not end, and for refusals without a hint.
pub fn check(case: &Case<'_>) -> Verdict {
    let mut verdict = Verdict::new("answers", "every call is answered by its deadline");
    let history = &case.evidence.history;
    let mut answered = history.ops.len() + history.session_reads.len();
    let mut overloads = 0;
    for note in &history.notes {
        match note {
            Note::Silent { writer, at, what } => {
                verdict.check(false, || {
                    format!("client {writer} gave up {what} at {at:.3?}, unanswered")
                });
            }
            Note::Refused { tag, by: Refusal::Overloaded { what, retry_after } } => {
                overloads += 1;
                verdict.check(*retry_after > Duration::ZERO, || {
                    format!("{tag:?} was refused because of {what}, without a hint when to retry")
                });
            }
            Note::Refused { .. } => {}
            Note::Walked(_) => answered += 1,
        }
    }
    (0..answered).for_each(|_| verdict.check(true, String::new));
    if overloads > 0 {
        verdict.notes.push(format!("{overloads} appends were refused because of overload"));
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::{judge, sound};

    #[test]
    fn silence_is_found_and_so_is_a_refusal_without_a_hint() {
        let mut evidence = sound();
        assert!(judge(check, &evidence).holds());
        let tag = evidence.history.ops[0].tag;
        let overloaded = |retry_after| Note::Refused {
            tag,
            by: Refusal::Overloaded { what: "appends".into(), retry_after },
        };
        evidence.history.notes.push(overloaded(Duration::from_millis(100)));
        assert!(judge(check, &evidence).holds());
        evidence.history.notes.push(overloaded(Duration::ZERO));
        assert_eq!(judge(check, &evidence).broken, 1);
        let at = Duration::from_secs(9);
        evidence.history.notes.push(Note::Silent { writer: 1, at, what: "an append".into() });
        assert_eq!(judge(check, &evidence).broken, 2);
    }
}
