//! Whether this node, while it leads, may write events of the region's own.
//!
//! Two things forbid it: a wall clock that is not believed ([`ClockGuard`]), and a log that has
//! *forgotten*: another region holds more of this region's events than its own log does. Its disks
//! were set back to an older copy then, and what it would write now would give numbers out twice.
//!
//! Both are learned from the other regions. So before the first append of a process's first
//! leadership it listens to them, for a moment: a region that is cut off must serve.

use std::sync::Arc;
use std::time::Duration;

use anabranch_core::{Origin, RegionName, Seq, Stamp};

use super::append::AppendError;
use super::clock_guard::{ClockDoubted, ClockGuard, Reading};
use super::inlet::Inlet;
use crate::env::Clock;
use crate::raft::GroupStatus;

/// How long a fresh process listens to other regions that it does not hear.
const LISTEN: Duration = Duration::from_secs(2);
/// How long if it hears nobody, and its clock is far ahead of what it wrote last: it was down for
/// long, or its clock is wrong, and wrong clocks are often set right soon after a start.
const LISTEN_AFTER_LEAP: Duration = Duration::from_secs(10);
/// What "far ahead" is.
const LEAP: Duration = Duration::from_secs(60);

/// How long a clock is doubted before another node is asked to lead.
const DOUBT: Duration = Duration::from_secs(1);
/// First and longest pause between two times that this node asks another to lead. If several have
/// wrong clocks, leadership must not go round in circles.
const HAND_OVER_PAUSE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(64));
/// A successor has answered within this time.
const ANSWERED: Duration = Duration::from_secs(2);

/// The region's log holds less of its own events than another region does, be it of this life of the
/// region or of one before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "region {knows} holds events of {origin} up to {theirs}, this region's own log only up to {ours}: \
     its disks were set back to an older copy, or lost. It writes nothing any more, so that no number \
     is given out twice; stop its nodes and put back their newest disks \
     (docs/runbooks/region-set-back.md)"
)]
pub struct Forgetful {
    /// Whose log has forgotten.
    pub origin: Origin,
    /// A region that knows more.
    pub knows: RegionName,
    /// Last number that it holds.
    pub theirs: Seq,
    /// Last number in the region's own log.
    pub ours: Seq,
}

/// What a leader may do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    /// Everything.
    Fit,
    /// Nothing yet: it listens to the other regions, or makes sure that it still leads.
    Waits,
    /// Import what others sent, but append and promise nothing.
    Doubted(ClockDoubted),
    /// Nothing any more: an import would raise its clock, and its word that it has no other events
    /// below that would be a lie.
    Forgetful(Box<Forgetful>),
}

impl Standing {
    /// Why appends are refused, if they are.
    pub(super) fn refusal(&self) -> Option<AppendError> {
        match self {
            Self::Fit | Self::Waits => None,
            Self::Doubted(doubted) => Some(AppendError::ClockDoubted(doubted.clone())),
            Self::Forgetful(forgetful) => Some(AppendError::Forgetful(forgetful.clone())),
        }
    }
}

/// Watches clocks and memory as long as the process runs.
pub(super) struct Watch {
    clock: Arc<dyn Clock>,
    inlet: Arc<Inlet>,
    region: RegionName,
    others: Vec<RegionName>,
    drift_max: Duration,
    guard: ClockGuard,
    /// It has listened to the other regions, once in this process.
    listened: bool,
    /// By the monotonic clock, as all times here.
    listening_since: Option<Duration>,
    /// What was said last of what is wrong.
    said: Option<String>,
    hand_over: HandOver,
    /// The log's last stamp at the last look, while another node leads.
    followed: Option<Stamp>,
}

impl Watch {
    pub(super) fn new(
        clock: Arc<dyn Clock>,
        inlet: Arc<Inlet>,
        region: RegionName,
        members: &[RegionName],
        drift_max: Duration,
    ) -> Self {
        let others: Vec<_> = members.iter().filter(|member| **member != region).cloned().collect();
        let guard = ClockGuard::new(drift_max, others.is_empty(), read(&*clock));
        let listened = others.is_empty();
        Self {
            clock,
            inlet,
            region,
            others,
            drift_max,
            guard,
            listened,
            listening_since: None,
            said: None,
            hand_over: HandOver::new(),
            followed: None,
        }
    }

    /// Looks at the clocks while another node leads: nobody is heard then.
    pub(super) fn look(&mut self, last: Stamp) {
        let now = read(&*self.clock);
        // A log that goes on after stamps ahead of the time counts on, and shows no time.
        if self.followed.is_some_and(|before| before.unix_ms() < last.unix_ms()) {
            self.guard.follow(now, last.unix_ms());
        }
        self.followed = Some(last);
        // What it says is said when this node leads.
        drop(self.check(now, last));
    }

    fn check(&mut self, now: Reading, last: Stamp) -> Result<(), ClockDoubted> {
        self.guard.know_log(now, last.unix_ms());
        let checked = self.inlet.with_times(now.monotonic, |times| self.guard.check(now, times));
        self.inlet.trust_clock(self.guard.judged(now, &checked));
        checked
    }

    /// A leadership begins.
    pub(super) fn begin(&mut self) {
        (self.listening_since, self.hand_over.since, self.followed) = (None, None, None);
    }

    /// A leadership is over: what was wrong with it is the next leader's to say.
    pub(super) fn end(&mut self) {
        self.said = None;
        self.inlet.set_trouble(None);
    }

    /// Judges this node's clock for a log whose last stamp is `last`. With the time now, in Unix
    /// milliseconds: the best there is for measuring what others stamped.
    pub(super) fn judge(&mut self, last: Stamp) -> (Standing, u64) {
        let now = read(&*self.clock);
        let checked = self.check(now, last);
        let time_ms = self.guard.time_ms(now);
        if self.listens(now, last) {
            return (Standing::Waits, time_ms);
        }
        match checked {
            Ok(()) => {
                self.hand_over.rest(now.monotonic);
                self.say(self.ahead(now, last));
                (Standing::Fit, time_ms)
            }
            Err(doubted) => {
                self.hand_over.since.get_or_insert(now.monotonic);
                self.say_doubted(&doubted);
                (Standing::Doubted(doubted), time_ms)
            }
        }
    }

    /// The wall time to stamp with, of a clock that was just found right.
    ///
    /// A log ahead of it goes on right after its last stamp, however far that is. To refuse would help
    /// nobody: what others hold back, they hold back already.
    pub(super) fn stamping_ms(&self, unix_ms: u64, last: Stamp) -> u64 {
        match last.ahead_of(unix_ms) > self.drift_max {
            true => last.unix_ms(),
            false => unix_ms,
        }
    }

    fn listens(&mut self, now: Reading, last: Stamp) -> bool {
        if self.listened {
            return false;
        }
        let since = *self.listening_since.get_or_insert(now.monotonic);
        let heard = self.others.iter().filter(|other| self.inlet.has_answered(other)).count();
        let leapt = last > Stamp::ZERO && now.unix_ms.saturating_sub(last.unix_ms()) > ms(LEAP);
        let patience = if heard == 0 && leapt { LISTEN_AFTER_LEAP } else { LISTEN };
        self.listened =
            heard == self.others.len() || now.monotonic.saturating_sub(since) >= patience;
        !self.listened
    }

    fn ahead(&self, now: Reading, last: Stamp) -> Option<String> {
        let ahead = last.ahead_of(now.unix_ms);
        (ahead > self.drift_max).then(|| {
            let until = last.unix_ms();
            format!(
                "this region's log is stamped ahead of the time, up to Unix millisecond {until}: \
                 other regions hold back what it writes, and the global order waits, until then \
                 (docs/runbooks/clock.md)"
            )
        })
    }

    fn say_doubted(&mut self, doubted: &ClockDoubted) {
        // The differences change from look to look; whom it is about seldom does.
        let whom = |by: &[super::clock_guard::Contradiction]| {
            by.iter().map(|other| other.region.to_string()).collect::<Vec<_>>().join(" ")
        };
        let about = match doubted {
            ClockDoubted::Contradicted { by, .. } => format!("contradicted by {}", whom(by)),
            ClockDoubted::Jumped { .. } => "jumped".to_owned(),
        };
        if self.said.as_ref() != Some(&about) {
            let trouble = format!("{doubted} (docs/runbooks/clock.md)");
            tracing::error!(region = %self.region, trouble, "not proposing");
            self.inlet.set_trouble(Some(trouble));
            self.said = Some(about);
        }
    }

    fn say(&mut self, trouble: Option<String>) {
        if self.said == trouble {
            return;
        }
        match &trouble {
            Some(trouble) => {
                tracing::error!(region = %self.region, trouble, "writing nevertheless")
            }
            None => tracing::info!(region = %self.region, "the clock is believed again"),
        }
        self.inlet.set_trouble(trouble.clone());
        self.said = trouble;
    }

    /// Whom to ask to lead in this node's place, if it is time to: the next node that is there.
    pub(super) fn successor(
        &mut self,
        own: u64,
        status: impl FnOnce() -> GroupStatus,
    ) -> Option<u64> {
        let now = self.clock.monotonic();
        if !self.hand_over.is_due(now) {
            return None;
        }
        self.hand_over.next(now, own, &status())
    }
}

/// When and to whom leadership is handed because of a clock.
struct HandOver {
    /// Since when the clock has been doubted.
    since: Option<Duration>,
    /// Not before.
    not_before: Option<Duration>,
    pause: Duration,
    /// Who was asked last.
    asked: Option<u64>,
}

impl HandOver {
    fn new() -> Self {
        Self { since: None, not_before: None, pause: HAND_OVER_PAUSE.0, asked: None }
    }

    /// The clock is believed. Long pauses are forgotten only after as long a time.
    fn rest(&mut self, now: Duration) {
        self.since = None;
        if self.not_before.is_some_and(|at| at + self.pause < now) {
            *self = Self::new();
        }
    }

    fn is_due(&self, now: Duration) -> bool {
        self.since.is_some_and(|since| since + DOUBT <= now)
            && self.not_before.is_none_or(|at| at <= now)
    }

    /// The first voter that is there after the one asked last, by number, round and round: whoever
    /// has a right clock has its turn.
    fn next(&mut self, now: Duration, own: u64, status: &GroupStatus) -> Option<u64> {
        let there = |id: &u64| {
            let answered = status.followers.get(id).and_then(|follower| follower.silent);
            *id != own && answered.is_some_and(|silent| silent <= ANSWERED)
        };
        let there: Vec<u64> = status.voters.keys().copied().filter(there).collect();
        let after = self.asked.unwrap_or(own);
        let to = *there.iter().find(|id| **id > after).or(there.first())?;
        self.asked = Some(to);
        self.not_before = Some(now + self.pause);
        self.pause = (self.pause * 2).min(HAND_OVER_PAUSE.1);
        Some(to)
    }
}

fn read(clock: &dyn Clock) -> Reading {
    Reading { unix_ms: clock.unix_ms(), monotonic: clock.monotonic() }
}

fn ms(duration: Duration) -> u64 {
    duration.as_millis() as u64
}

#[cfg(test)]
mod tests;
