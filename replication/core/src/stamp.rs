//! Stamps: hybrid logical clock readings that order events, and the clock that proposes them.
//!
//! A stamp packs 42 bits of milliseconds since 2024-01-01 and a 22-bit counter (the layout of the
//! `hlc-gen` crate, whose generator proposes them). It is an order, never an identity: ties between
//! origins are broken by the origin. The stamp that counts is fixed by the region's log, where it is
//! always greater than every stamp before it (see [`crate::region`]).

use std::fmt;
use std::time::Duration;

use hlc_gen::{HlcGenerator, HlcTimestamp};

/// Milliseconds from the Unix epoch to the stamp epoch, 2024-01-01T00:00:00Z.
pub const EPOCH_UNIX_MS: u64 = 1_704_067_200_000;

const COUNTER_BITS: u32 = 22;

/// A hybrid logical clock reading.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stamp(pub u64);

impl Stamp {
    /// Before every event.
    pub const ZERO: Self = Self(0);
    /// After every event.
    pub const MAX: Self = Self(u64::MAX);

    /// The first stamp of a Unix millisecond; clamped to the range of stamps.
    pub fn from_unix_ms(unix_ms: u64) -> Self {
        let ms = unix_ms.saturating_sub(EPOCH_UNIX_MS).min(u64::MAX >> COUNTER_BITS);
        Self(ms << COUNTER_BITS)
    }
    /// Its wall time, in Unix milliseconds.
    pub fn unix_ms(self) -> u64 {
        (self.0 >> COUNTER_BITS) + EPOCH_UNIX_MS
    }
    /// The next stamp. An overfull millisecond borrows the next one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
    /// How far this stamp's wall time is ahead of `unix_ms`; zero if it is not.
    pub fn ahead_of(self, unix_ms: u64) -> Duration {
        Duration::from_millis(self.unix_ms().saturating_sub(unix_ms))
    }
}

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.unix_ms(), self.0 & ((1 << COUNTER_BITS) - 1))
    }
}

/// Proposes stamps from a wall time that is passed in.
///
/// It remembers nothing: what it has to stay ahead of is the log's last stamp. A generator kept from
/// proposal to proposal would keep a wall clock's leap although nothing was written then.
pub struct StampClock {
    drift_max: Duration,
}

/// The wall clock is behind what the log already holds by more than the drift that is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the log's last stamp is {ahead:?} ahead of this node's clock, {drift_max:?} is allowed; \
     check the clocks of this node and of its peers"
)]
pub struct ClockBehind {
    /// How far the log is ahead.
    pub ahead: Duration,
    /// How far it may be.
    pub drift_max: Duration,
}

impl StampClock {
    /// A clock that refuses to run more than `drift_max` ahead of the wall time it is given.
    ///
    /// # Panics
    /// If `drift_max` is below a millisecond: the generator would take that for "no limit".
    pub fn new(drift_max: Duration) -> Self {
        assert!(drift_max.as_millis() > 0, "a drift bound of 0 switches the check off");
        Self { drift_max }
    }

    /// A stamp after `last` and not before the wall time `unix_ms`.
    ///
    /// # Errors
    /// [`ClockBehind`] if `last` is further ahead of the wall time than the clock may run.
    pub fn propose(&self, unix_ms: u64, last: Stamp) -> Result<Stamp, ClockBehind> {
        let unix_ms = unix_ms.max(EPOCH_UNIX_MS);
        let ahead = last.ahead_of(unix_ms);
        if ahead > self.drift_max {
            return Err(ClockBehind { ahead, drift_max: self.drift_max });
        }
        let generator = HlcGenerator::manual(self.drift_max.as_millis() as usize);
        generator.set_current_timestamp(unix_ms as i64);
        let counter = last.0 & ((1 << COUNTER_BITS) - 1);
        let merged = HlcTimestamp::from_parts(last.unix_ms() as i64, counter)
            .and_then(|seen| generator.update(&seen));
        // The generator refuses to count past a full millisecond; the next stamp borrows one.
        Ok(merged.map_or(last.next(), |merged| Stamp(merged.as_u64()).max(last.next())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = EPOCH_UNIX_MS + 1_000_000;

    #[test]
    fn proposals_rise_past_the_log_and_follow_the_wall_clock() {
        let clock = StampClock::new(Duration::from_millis(500));
        let first = clock.propose(NOW, Stamp::ZERO).unwrap();
        assert_eq!(first.unix_ms(), NOW);
        let second = clock.propose(NOW, first).unwrap();
        assert!(second > first, "{second} after {first}");
        let remote = Stamp::from_unix_ms(NOW + 400);
        assert!(
            clock.propose(NOW, remote).unwrap() > remote,
            "an effect is stamped after its cause"
        );
        assert_eq!(clock.propose(NOW + 900, remote).unwrap().unix_ms(), NOW + 900);
    }

    #[test]
    fn a_clock_far_behind_its_log_does_not_propose() {
        let clock = StampClock::new(Duration::from_millis(500));
        let refused = clock.propose(NOW, Stamp::from_unix_ms(NOW + 501)).unwrap_err();
        assert_eq!(refused.ahead, Duration::from_millis(501));
    }

    #[test]
    fn a_leap_of_the_wall_clock_is_forgotten_if_nothing_was_written_then() {
        let clock = StampClock::new(Duration::from_millis(500));
        let last = clock.propose(NOW, Stamp::ZERO).unwrap();
        clock.propose(NOW + 600_000, last).unwrap();
        assert_eq!(clock.propose(NOW + 1, last).unwrap().unix_ms(), NOW + 1);
    }

    #[test]
    fn an_overfull_millisecond_borrows_the_next() {
        let clock = StampClock::new(Duration::from_millis(500));
        let full = Stamp(Stamp::from_unix_ms(NOW + 1).0 - 1);
        assert_eq!(clock.propose(NOW, full).unwrap(), Stamp::from_unix_ms(NOW + 1));
    }

    #[test]
    fn stamps_survive_the_trip_through_wall_time() {
        assert_eq!(Stamp::from_unix_ms(NOW).unix_ms(), NOW);
        assert_eq!(Stamp::from_unix_ms(0), Stamp::ZERO);
        assert_eq!(Stamp::from_unix_ms(NOW + 7).ahead_of(NOW), Duration::from_millis(7));
    }
}
