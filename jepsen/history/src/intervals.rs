//! Linearizability of a log in O(n log n).
//!
//! The order of the log is known, so nothing is searched for. Step i took effect at some moment p_i
//! between its call and its answer, and the moments follow the order of the log. An observer that
//! found the state after exactly `after` steps, or any later one before step `until` took effect,
//! says that some moment between its call and its answer lies in [p_after, p_until]. Such moments
//! exist if and only if for every i the latest lower bound up to i is not above the earliest upper
//! bound from i on.
//!
//! Source: Wing and Gong (1993) for the definition; the reduction to intervals is ours, and is
//! compared with stateright's search in the tests. It cannot see whether the steps and observations
//! themselves are right: `checks/expected_revision.rs` does that.

use std::time::Duration;

/// Something that changed the log, in the order of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// It cannot have taken effect before.
    pub called: Duration,
    /// It must have taken effect by then; the end of time if nobody knows when it was answered.
    pub returned: Duration,
}

/// Something that saw the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observer {
    /// Steps that had taken effect at least.
    pub after: usize,
    /// The first step that had not taken effect; the number of steps if all may have.
    pub until: usize,
    /// When it was asked.
    pub called: Duration,
    /// When it was answered.
    pub returned: Duration,
}

/// Who put a bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The step with this index.
    Step(usize),
    /// The observer with this index.
    Observer(usize),
}

/// Two that cannot both be: `late` says that something took effect no earlier than a moment, `early`
/// that something after it in the log took effect earlier than that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Impossible {
    /// Who puts the lower bound.
    pub late: By,
    /// Who puts the upper bound.
    pub early: By,
    /// The lower bound.
    pub not_before: Duration,
    /// The upper bound.
    pub not_after: Duration,
}

/// Whether the log is linearizable.
///
/// # Errors
/// The first step at which it is not.
pub fn linearizable(steps: &[Step], observers: &[Observer]) -> Result<(), Impossible> {
    let step = |at: usize| By::Step(at);
    let mut lower: Vec<(Duration, By)> =
        steps.iter().enumerate().map(|(at, s)| (s.called, step(at))).collect();
    let mut upper: Vec<(Duration, By)> =
        steps.iter().enumerate().map(|(at, s)| (s.returned, step(at))).collect();
    for (at, observer) in observers.iter().enumerate() {
        // It saw the last of the steps that had taken effect at least, ...
        if let Some(seen) = observer.after.checked_sub(1)
            && observer.returned < upper[seen].0
        {
            upper[seen] = (observer.returned, By::Observer(at));
        }
        // ... and did not see this one.
        if let Some(unseen) = lower.get_mut(observer.until)
            && observer.called > unseen.0
        {
            *unseen = (observer.called, By::Observer(at));
        }
    }
    for at in (1..upper.len()).rev() {
        if upper[at].0 < upper[at - 1].0 {
            upper[at - 1] = upper[at];
        }
    }
    let mut latest: Option<(Duration, By)> = None;
    for (lower, upper) in lower.into_iter().zip(upper) {
        if latest.is_none_or(|(so_far, _)| lower.0 > so_far) {
            latest = Some(lower);
        }
        let (not_before, late) = latest.expect("set just now");
        let (not_after, early) = upper;
        if not_before > not_after {
            return Err(Impossible { late, early, not_before, not_after });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
