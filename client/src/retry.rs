//! Whether to try again, where, and when: for appends and for reads.
//!
//! Both deciders are fed what an attempt met and say what to do next. They own no socket, no clock
//! and no randomness (`now` and `jitter` are passed in), so the policy is tested as arithmetic.
//!
//! The rule that matters most: **a refusal is believed only if no attempt before it went
//! unanswered**. An unanswered attempt may still be on its way when the later one is refused, and the
//! node that refuses may be a deposed leader that has not heard of the first. So after an unanswered
//! attempt there are two outcomes: success (the same triple yields the first result), or unknown.

use std::time::Duration;

use anabranch_core::Context;
use anabranch_core::planted::{self, Bug};
use anabranch_proto::convert::cause;
use tokio::time::Instant;
use tonic::{Code, Status};

use crate::append::Ticket;
use crate::error::{AppendError, Doubt, ReadError};
use crate::failure::{Failure, ReadFailure};

const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// An append is not sent with less time than this left: it could only turn a refusal into a doubt.
const ATTEMPT_MIN: Duration = Duration::from_millis(10);
/// Redirects in a row that are followed at once. Two nodes that name each other are not chased.
const REDIRECTS_MAX: u32 = 3;

/// Where to try next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Whom {
    /// The node that was just asked.
    Same,
    /// The next node of the region.
    Next,
    /// The node at this address.
    Leader(String),
    /// The next region.
    NextRegion,
}

/// What to do next. `Stop` carries why.
#[derive(Debug)]
pub(crate) enum Step<E> {
    /// Wait, then try there.
    Try { whom: Whom, after: Duration },
    /// Give up.
    Stop(E),
}

/// Waits that double from try to try, up to a bound, each spread by chance over its upper half.
#[derive(Debug, Default)]
struct Backoff {
    failures: u32,
}

impl Backoff {
    /// `jitter` is in `[0, 1)`.
    fn next(&mut self, jitter: f64) -> Duration {
        let full = BACKOFF_MIN.saturating_mul(1 << self.failures.min(16)).min(BACKOFF_MAX);
        self.failures += 1;
        full.mul_f64(0.5 + jitter / 2.0)
    }
}

/// What the caller allows, and what is there to try.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    /// When to give up; none: never.
    pub(crate) deadline: Option<Instant>,
    /// How long a region may fail before the next one is tried.
    pub(crate) region_patience: Duration,
    /// Whether another region may be tried at all.
    pub(crate) may_move: bool,
    /// Whether it may also be tried when an earlier attempt went unanswered.
    pub(crate) move_in_doubt: bool,
}

/// Where the tries stand within the regions; shared by both deciders.
#[derive(Debug)]
struct Tour {
    policy: Policy,
    nodes: usize,
    region_since: Instant,
    not_sent_in_row: usize,
    /// Nodes in a row that would say the same if they were asked again.
    hopeless_in_row: usize,
    backoff: Backoff,
}

impl Tour {
    fn new(now: Instant, nodes: usize, policy: Policy) -> Self {
        let (region_since, backoff) = (now, Backoff::default());
        let (not_sent_in_row, hopeless_in_row) = (0, 0);
        Self { policy, nodes, region_since, not_sent_in_row, hopeless_in_row, backoff }
    }

    /// Counts failures in a row of the two kinds that say something about the whole region.
    fn count(&mut self, not_sent: bool, hopeless: bool) {
        self.not_sent_in_row = if not_sent { self.not_sent_in_row + 1 } else { 0 };
        self.hopeless_in_row = if hopeless { self.hopeless_in_row + 1 } else { 0 };
    }

    /// Whether every node of the region has said what it would say again.
    fn is_hopeless(&self) -> bool {
        self.hopeless_in_row >= self.nodes
    }

    /// The next node, at once while there are nodes that were not asked; or the next region.
    fn next(&mut self, now: Instant, jitter: f64, in_doubt: bool) -> (Whom, Duration) {
        let allowed = self.policy.may_move && (!in_doubt || self.policy.move_in_doubt);
        let unreachable = self.not_sent_in_row >= self.nodes || self.is_hopeless();
        let failing = now.duration_since(self.region_since) >= self.policy.region_patience;
        if allowed && (unreachable || failing) {
            return (Whom::NextRegion, Duration::ZERO);
        }
        let after = self.backoff.next(jitter);
        let another_is_fresh = (self.backoff.failures as usize) < self.nodes;
        (Whom::Next, if another_is_fresh { Duration::ZERO } else { after })
    }

    /// Another region if there is one to try: it may see what this one does not.
    fn elsewhere(&self, after: Duration, in_doubt: bool) -> (Whom, Duration) {
        let allowed = self.policy.may_move && (!in_doubt || self.policy.move_in_doubt);
        (if allowed { Whom::NextRegion } else { Whom::Same }, after)
    }

    fn entered(&mut self, now: Instant, nodes: usize) {
        (self.nodes, self.region_since) = (nodes, now);
        self.count(false, false);
        self.backoff = Backoff::default();
    }

    fn too_late(&self, now: Instant, after: Duration) -> bool {
        self.policy.deadline.is_some_and(|deadline| deadline <= now + after)
    }
}

/// Decides what follows a failed attempt to append.
#[derive(Debug)]
pub(crate) struct AppendRetry {
    ticket: Ticket,
    started: Instant,
    tour: Tour,
    attempts: u32,
    redirects: u32,
    /// Since when every attempt has found the stream without a home that can be asked. A home that is
    /// cut off stays so for longer than anybody wants to wait.
    homeless_since: Option<Instant>,
    homeless: Backoff,
    unanswered: Option<Status>,
    last: Option<AppendError>,
}

impl AppendRetry {
    /// `nodes` are those of the first region. `unanswered` is what an earlier call met, if this one
    /// repeats it.
    pub(crate) fn new(
        now: Instant,
        nodes: usize,
        policy: Policy,
        ticket: Ticket,
        unanswered: Option<Status>,
    ) -> Self {
        let tour = Tour::new(now, nodes, policy);
        let (attempts, redirects, last) = (0, 0, None);
        let (homeless_since, homeless) = (None, Backoff::default());
        Self {
            ticket,
            started: now,
            tour,
            attempts,
            redirects,
            homeless_since,
            homeless,
            unanswered,
            last,
        }
    }

    /// The next region is being tried; it has this many nodes.
    pub(crate) fn entered_region(&mut self, now: Instant, nodes: usize, name: &str) {
        // In doubt, the ticket goes on naming the region that may hold the append.
        if self.unanswered.is_none() {
            self.ticket.region = name.to_owned();
        }
        self.tour.entered(now, nodes);
    }

    /// Takes what an attempt met. `jitter` is in `[0, 1)`; `now` never goes backwards.
    pub(crate) fn handle(
        &mut self,
        now: Instant,
        jitter: f64,
        failure: Failure,
    ) -> Step<AppendError> {
        self.attempts += 1;
        let redirected = matches!(&failure, Failure::NotLeader { leader: Some(_) });
        self.redirects = if redirected { self.redirects + 1 } else { 0 };
        self.tour
            .count(matches!(failure, Failure::NotSent(_)), matches!(failure, Failure::Misfit(_)));
        let in_doubt = self.unanswered.is_some();
        if !matches!(failure, Failure::Homeless { .. }) {
            self.homeless_since = None;
        }
        let (whom, after) = match failure {
            Failure::Final(error) => return Step::Stop(self.believe(now, error)),
            Failure::Later { error, after } => {
                self.last = Some(error);
                let backoff = self.tour.backoff.next(jitter);
                // Those who were told the same time should not all come back at once.
                (Whom::Same, backoff.max(after.mul_f64(1.0 + jitter / 4.0)))
            }
            Failure::Homeless { error } => {
                let since = *self.homeless_since.get_or_insert(now);
                self.last = Some(error);
                if now.duration_since(since) >= self.tour.policy.region_patience {
                    return Step::Stop(self.give_up(now));
                }
                self.tour.elsewhere(self.homeless.next(jitter), in_doubt)
            }
            Failure::NotLeader { leader: Some(leader) } if self.redirects <= REDIRECTS_MAX => {
                self.last = Some(self.unavailable(now, format!("{leader} is said to lead")));
                (Whom::Leader(leader), Duration::ZERO)
            }
            Failure::NotLeader { leader } => {
                let last = leader.map_or("there is no leader".into(), |l| format!("{l} leads not"));
                self.last = Some(self.unavailable(now, last));
                self.tour.next(now, jitter, in_doubt)
            }
            Failure::NotSent(status) | Failure::Misfit(status) => {
                self.last = Some(self.unavailable(now, cause(&status)));
                self.tour.next(now, jitter, in_doubt)
            }
            Failure::NoAnswer(status) => {
                self.unanswered = Some(status);
                self.tour.next(now, jitter, true)
            }
        };
        let hopeless = self.tour.is_hopeless() && whom != Whom::NextRegion;
        if hopeless || self.tour.too_late(now, after + ATTEMPT_MIN) {
            return Step::Stop(self.give_up(now));
        }
        Step::Try { whom, after }
    }

    /// The deadline has come, or no node would answer otherwise, while nothing was on its way.
    pub(crate) fn give_up(&mut self, now: Instant) -> AppendError {
        let waited = now.duration_since(self.started);
        if let Some(last) = self.unanswered.take() {
            let doubt = Doubt::NoAnswer { attempts: self.attempts, last: Box::new(last) };
            return AppendError::Unknown { ticket: self.ticket.clone(), waited, doubt };
        }
        match self.last.take() {
            Some(AppendError::Unavailable { last, .. }) => {
                AppendError::Unavailable { waited, last }
            }
            Some(error) => error,
            None => self.unavailable(now, "nothing was tried".into()),
        }
    }

    fn unavailable(&self, now: Instant, last: String) -> AppendError {
        AppendError::Unavailable { waited: now.duration_since(self.started), last }
    }

    fn believe(&self, now: Instant, error: AppendError) -> AppendError {
        let in_doubt = self.unanswered.is_some() && !planted::is(Bug::RefusalBelievedInDoubt);
        if !in_doubt || !error.is_refused() {
            return error;
        }
        let waited = now.duration_since(self.started);
        let doubt = Doubt::RefusedLater { refusal: Box::new(error) };
        AppendError::Unknown { ticket: self.ticket.clone(), waited, doubt }
    }
}

/// Decides what follows a failed attempt to read.
#[derive(Debug)]
pub(crate) struct ReadRetry {
    since: Instant,
    tour: Tour,
    missing: Option<Context>,
}

impl ReadRetry {
    pub(crate) fn new(now: Instant, nodes: usize, policy: Policy) -> Self {
        Self { since: now, tour: Tour::new(now, nodes, policy), missing: None }
    }

    /// The next region is being tried; it has this many nodes.
    pub(crate) fn entered_region(&mut self, now: Instant, nodes: usize) {
        self.tour.entered(now, nodes);
    }

    /// Takes what an attempt met. `jitter` is in `[0, 1)`.
    pub(crate) fn handle(
        &mut self,
        now: Instant,
        jitter: f64,
        failure: ReadFailure,
    ) -> Step<ReadError> {
        self.tour.count(
            matches!(failure, ReadFailure::NotSent(_)),
            matches!(failure, ReadFailure::Misfit(_) | ReadFailure::Damaged(_)),
        );
        let (status, (whom, after)) = match failure {
            ReadFailure::Final(error) => return Step::Stop(error),
            ReadFailure::NotCaughtUp { missing } => {
                self.missing = Some(missing);
                let status = Status::failed_precondition("not caught up with the session");
                (status, self.tour.next(now, jitter, false))
            }
            ReadFailure::Later { status, after } => {
                let backoff = self.tour.backoff.next(jitter);
                (status, (Whom::Same, backoff.max(after.mul_f64(1.0 + jitter / 4.0))))
            }
            ReadFailure::NotSent(status)
            | ReadFailure::Misfit(status)
            | ReadFailure::Damaged(status)
            | ReadFailure::Broken(status) => (status, self.tour.next(now, jitter, false)),
        };
        if self.tour.is_hopeless() && whom != Whom::NextRegion {
            return Step::Stop(hopeless(now.duration_since(self.since), status));
        }
        if self.tour.too_late(now, after) {
            return Step::Stop(self.give_up(now, status));
        }
        Step::Try { whom, after }
    }

    fn give_up(&mut self, now: Instant, last: Status) -> ReadError {
        let waited = now.duration_since(self.since);
        match self.missing.take() {
            Some(missing) => ReadError::NotCaughtUp { missing, waited },
            None => ReadError::Unavailable { waited, last: Box::new(last) },
        }
    }
}

/// Why every node of a region says the same, and will: they hold damage, or cannot be talked to.
fn hopeless(waited: Duration, last: Status) -> ReadError {
    match last.code() {
        Code::DataLoss => {
            ReadError::Refused { code: Code::DataLoss, message: last.message().to_owned() }
        }
        _ => ReadError::Unavailable { waited, last: Box::new(last) },
    }
}

#[cfg(test)]
mod tests;
