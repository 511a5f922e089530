//! Clock defence at home: a leader whose wall clock is not believed does not propose.
//!
//! A stamp ahead of the time harms others: they hold back what carries it until the time is there. A
//! stamp behind harms nobody, since stamps go on from the log's last one. So what this looks for is a
//! clock that is ahead, by three witnesses:
//!
//! - the *other regions*, as far as they can be heard: a clock is believed that agrees with a majority
//!   of all whose time is known, itself included;
//! - its own *past*: a clock that others once agreed with, and that has kept pace with the monotonic
//!   clock since, is believed against a single other one, of which nothing more is known;
//! - the *monotonic clock* alone, while nobody is heard: what jumps ahead then is believed once it has
//!   lasted as long as it is far. A region that is cut off must serve, and a wrong clock makes others
//!   wait for as long as it is ahead: neither harm is ever more than twice the lesser of both.
//!
//! It watches as long as the process runs, leading or not: a jump is seen only by who looked before.

use std::fmt;
use std::time::Duration;

use anabranch_core::RegionName;
use anabranch_gossip::{ClockAnswer, ClockTrust};

/// What the way of an answer may add to a difference between two clocks.
const WAY: Duration = Duration::from_secs(1);
/// An answer that was longer under way says too little.
const ROUND_TRIP_MAX: Duration = Duration::from_secs(2);
/// How long another region's time is known after it was told.
const FRESH: Duration = Duration::from_secs(5);
/// A clock that jumped ahead is believed at the latest when it has kept pace for so long since, where
/// there are no other regions that could be harmed, or where they agree but nothing speaks for their
/// clocks either.
const STEADY: Duration = Duration::from_secs(10);

/// Both clocks at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) unix_ms: u64,
    pub(super) monotonic: Duration,
}

impl Reading {
    /// Wall time minus monotonic time, in milliseconds.
    fn offset_ms(self) -> i64 {
        offset_ms(self.unix_ms, self.monotonic)
    }
}

fn offset_ms(unix_ms: u64, monotonic: Duration) -> i64 {
    let monotonic = i64::try_from(monotonic.as_millis()).unwrap_or(i64::MAX);
    i64::try_from(unix_ms).unwrap_or(i64::MAX).saturating_sub(monotonic)
}

fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// The time in another region, as it was last told: its wall clock minus our monotonic one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Told {
    region: RegionName,
    offset_ms: i64,
    proven: bool,
    at: Duration,
}

/// What the other regions said their time is.
#[derive(Debug, Default)]
pub(super) struct Times {
    /// At most one a region, by its name.
    told: Vec<Told>,
}

impl Times {
    /// Takes an answer that came at `monotonic`.
    pub(super) fn hear(&mut self, region: &RegionName, answer: ClockAnswer, monotonic: Duration) {
        if answer.round_trip > ROUND_TRIP_MAX {
            return;
        }
        let half_way = ms(answer.round_trip) / 2;
        let offset_ms = offset_ms(answer.unix_ms, monotonic).saturating_add(half_way);
        let told = Told { region: region.clone(), offset_ms, proven: answer.proven, at: monotonic };
        match self.told.binary_search_by(|known| known.region.cmp(region)) {
            Ok(at) => self.told[at] = told,
            Err(at) => self.told.insert(at, told),
        }
    }

    /// Forgets what was told too long ago.
    pub(super) fn expire(&mut self, monotonic: Duration) {
        self.told.retain(|told| monotonic.saturating_sub(told.at) <= FRESH);
    }

    /// The times that count: those that are proven, or, as long as none is, all of them.
    fn counting(&self) -> Vec<&Told> {
        let proven = self.told.iter().any(|told| told.proven);
        self.told.iter().filter(|told| told.proven || !proven).collect()
    }

    /// The regions whose time is known.
    pub(super) fn regions(&self) -> impl Iterator<Item = &RegionName> {
        self.told.iter().map(|told| &told.region)
    }
}

/// How far another region's clock is from this node's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contradiction {
    /// Which region.
    pub region: RegionName,
    /// How far this node's clock is ahead of it, in milliseconds; negative if it is behind.
    pub ahead_ms: i64,
}

impl fmt::Display for Contradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = Duration::from_millis(self.ahead_ms.unsigned_abs());
        let which = if self.ahead_ms < 0 { "behind" } else { "ahead of" };
        write!(f, "{by:?} {which} {}'s", self.region)
    }
}

/// Why this node's wall clock is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClockDoubted {
    /// Other regions' clocks say another time.
    #[error(
        "this node's wall clock is {}, {allowed:?} is allowed; check the time services of this node \
         and of those regions. It does not write until they agree",
        list(.by)
    )]
    Contradicted {
        /// Which, and by how much.
        by: Vec<Contradiction>,
        /// How far clocks may be apart, the way between them included.
        allowed: Duration,
    },
    /// It jumped ahead of the monotonic clock, and no other region is heard whose clock is better.
    #[error(
        "this node's wall clock jumped ahead by {ahead:?} against its monotonic clock, {allowed:?} is \
         allowed, and no other region is heard that could vouch for it; check its time service. It does \
         not write until the clock is back, another region agrees with it, or it has gone on like that \
         for as long as it jumped; a restart accepts the clock as it is"
    )]
    Jumped {
        /// How far.
        ahead: Duration,
        /// How far it may.
        allowed: Duration,
    },
}

impl ClockDoubted {
    /// How far the clock is off at most, and how far it may be.
    pub fn off_and_allowed(&self) -> (Duration, Duration) {
        match self {
            Self::Contradicted { by, allowed } => {
                let off = by.iter().map(|other| other.ahead_ms.unsigned_abs()).max();
                (Duration::from_millis(off.unwrap_or_default()), *allowed)
            }
            Self::Jumped { ahead, allowed } => (*ahead, *allowed),
        }
    }
}

fn list(by: &[Contradiction]) -> String {
    by.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// What a look at this node's clock came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Judged {
    trust: ClockTrust,
    offset_ms: i64,
    drift_max: Duration,
}

impl Judged {
    /// What the look said of the clock as it shows `now`: nothing, if it has jumped since.
    pub(super) fn trust_at(&self, now: Reading) -> ClockTrust {
        match now.offset_ms().abs_diff(self.offset_ms) <= ms(self.drift_max).unsigned_abs() {
            true => self.trust,
            false => ClockTrust::Doubted,
        }
    }
}

/// Judges this node's wall clock, look by look.
#[derive(Debug)]
pub(super) struct ClockGuard {
    drift_max: Duration,
    /// No other region is a member.
    alone: bool,
    /// Offset of the wall clock when last believed.
    believed_ms: i64,
    /// The highest offset believed so far: a clock that comes back to it does not jump ahead.
    highest_ms: i64,
    /// Others agreed with `believed_ms`, and the clock has kept pace since.
    vouched: bool,
    /// A jump that is not believed: where to, and since when.
    jumped: Option<(i64, Duration)>,
    /// The offset that a majority of all regions agree on instead, if they do.
    others_ms: Option<i64>,
}

impl ClockGuard {
    pub(super) fn new(drift_max: Duration, alone: bool, now: Reading) -> Self {
        let offset = now.offset_ms();
        Self {
            drift_max,
            alone,
            believed_ms: offset,
            highest_ms: offset,
            vouched: false,
            jumped: None,
            others_ms: None,
        }
    }

    /// Judges one reading of both clocks by what others told. Call it often: slow drift, as when a time
    /// service slews the clock, is followed from look to look.
    pub(super) fn check(&mut self, now: Reading, times: &Times) -> Result<(), ClockDoubted> {
        self.others_ms = None;
        match times.told.is_empty() {
            true => self.check_alone(now),
            false => self.check_with(now, times),
        }
    }

    /// What others are told of the clock after [`check`](Self::check) said `checked` of it.
    ///
    /// Of one that jumped while nobody was heard, that nothing speaks for it. It may be right: were
    /// regions silent whose clocks are all set right at the same time, none would ever hear another.
    pub(super) fn judged(&self, now: Reading, checked: &Result<(), ClockDoubted>) -> Judged {
        let trust = match checked {
            Ok(()) if self.vouched => ClockTrust::Proven,
            Ok(()) | Err(ClockDoubted::Jumped { .. }) => ClockTrust::Unproven,
            Err(ClockDoubted::Contradicted { .. }) => ClockTrust::Doubted,
        };
        Judged { trust, offset_ms: now.offset_ms(), drift_max: self.drift_max }
    }

    /// The best there is for the time now: this node's clock, or, if it has no past that speaks for
    /// it, that of the others if a majority agrees on one. What others stamped is measured by it.
    pub(super) fn time_ms(&self, now: Reading) -> u64 {
        match self.others_ms {
            Some(offset) => u64::try_from(offset + ms(now.monotonic)).unwrap_or_default(),
            None => now.unix_ms,
        }
    }

    fn check_alone(&mut self, now: Reading) -> Result<(), ClockDoubted> {
        let (offset, drift) = (now.offset_ms(), ms(self.drift_max));
        let enough = if self.alone { STEADY } else { Duration::MAX };
        if self.has_jumped_ahead(now) && !self.has_lasted(now, enough) {
            return Err(self.jumped_to(offset));
        }
        let kept_pace = offset.abs_diff(self.believed_ms) <= drift.unsigned_abs();
        self.believe(offset, self.vouched && kept_pace);
        Ok(())
    }

    fn has_jumped_ahead(&self, now: Reading) -> bool {
        now.offset_ms() > self.highest_ms + ms(self.drift_max)
    }

    fn jumped_to(&self, offset_ms: i64) -> ClockDoubted {
        let ahead = Duration::from_millis(offset_ms.abs_diff(self.highest_ms));
        ClockDoubted::Jumped { ahead, allowed: self.drift_max }
    }

    /// Whether the clock has run on since it jumped, for as long as it jumped or for `enough`.
    fn has_lasted(&mut self, now: Reading, enough: Duration) -> bool {
        let offset = now.offset_ms();
        match self.jumped {
            Some((to, since)) if offset.abs_diff(to) <= self.drift_max.as_millis() as u64 => {
                let ahead = Duration::from_millis(offset.abs_diff(self.highest_ms));
                now.monotonic.saturating_sub(since) >= ahead.min(enough)
            }
            _ => {
                self.jumped = Some((offset, now.monotonic));
                false
            }
        }
    }

    /// The region's log is stamped up to `last_ms`: so late it must be by now, as far as the log is
    /// right, and where it is wrong, to reach it does no more harm.
    pub(super) fn know_log(&mut self, now: Reading, last_ms: u64) {
        self.highest_ms = self.highest_ms.max(offset_ms(last_ms, now.monotonic));
    }

    /// Another node of the region just wrote a stamp into the log, as this one follows it. If it is
    /// that node's time, and this clock's too, it is believed and vouched for.
    pub(super) fn follow(&mut self, now: Reading, stamped_ms: u64) {
        let apart = now.unix_ms.abs_diff(stamped_ms);
        if apart <= ms(self.drift_max + WAY).unsigned_abs() {
            self.highest_ms = now.offset_ms();
            self.believe(now.offset_ms(), true);
        }
    }

    fn check_with(&mut self, now: Reading, times: &Times) -> Result<(), ClockDoubted> {
        let offset = now.offset_ms();
        let allowed = self.drift_max + WAY;
        let apart = ms(allowed).unsigned_abs();
        let mut against = times.counting();
        let known = against.len() + 1;
        against.retain(|told| told.offset_ms.abs_diff(offset) > apart);
        if (known - against.len()) * 2 > known {
            let proven = times.told.iter().any(|told| told.proven);
            if !proven && self.has_jumped_ahead(now) && !self.has_lasted(now, STEADY) {
                return Err(self.jumped_to(offset));
            }
            self.highest_ms = offset;
            self.believe(offset, true);
            return Ok(());
        }
        let (other_ms, agreed) = largest_agreement(&against, apart);
        let kept_pace = offset.abs_diff(self.believed_ms) <= ms(self.drift_max).unsigned_abs();
        if agreed * 2 > known {
            // A clock with a past is not believed, but nor does it believe: those others may all
            // have been set wrong.
            self.others_ms = (!(self.vouched && kept_pace)).then_some(other_ms);
        } else {
            let behind = against.iter().all(|told| told.offset_ms > offset);
            // One against one. Without a past that speaks for either, the one that is behind goes on:
            // if it is the wrong one it harms nobody.
            if kept_pace && (self.vouched || behind) {
                self.believe(offset, self.vouched);
                return Ok(());
            }
        }
        let contradiction = |told: &&Told| Contradiction {
            region: told.region.clone(),
            ahead_ms: offset.saturating_sub(told.offset_ms),
        };
        Err(ClockDoubted::Contradicted { by: against.iter().map(contradiction).collect(), allowed })
    }

    fn believe(&mut self, offset_ms: i64, vouched: bool) {
        self.believed_ms = offset_ms;
        self.highest_ms = self.highest_ms.max(offset_ms);
        self.vouched = vouched;
        self.jumped = None;
    }
}

/// The most of `told` that are within `apart` of one of them: about what time, and how many.
fn largest_agreement(told: &[&Told], apart: u64) -> (i64, usize) {
    let around = |one: &&Told| {
        let with = told.iter().filter(|other| other.offset_ms.abs_diff(one.offset_ms) <= apart);
        (one.offset_ms, with.count())
    };
    told.iter().map(around).max_by_key(|(_, count)| *count).unwrap_or_default()
}

#[cfg(test)]
mod tests;
