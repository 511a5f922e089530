//! Clock defence at home: a leader whose wall clock jumped against its monotonic clock does not
//! propose.

use std::time::Duration;

/// The wall clock jumped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "this node's wall clock jumped by {jumped:?} against its monotonic clock, {allowed:?} is allowed; \
     check its time service. It does not lead until the clock is back"
)]
pub struct ClockJumped {
    /// How far.
    pub jumped: Duration,
    /// How far it may.
    pub allowed: Duration,
}

/// Compares two clocks from look to look.
///
/// Slow drift (a time service slewing the clock) is followed; a jump is remembered until the wall
/// clock is back where the monotonic clock says it should be.
#[derive(Debug)]
pub(super) struct ClockGuard {
    allowed: Duration,
    /// Wall time minus monotonic time when last believed, in milliseconds.
    offset_ms: i128,
}

impl ClockGuard {
    pub(super) fn new(allowed: Duration, unix_ms: u64, monotonic: Duration) -> Self {
        Self { allowed, offset_ms: offset(unix_ms, monotonic) }
    }

    /// Takes one reading of both clocks.
    pub(super) fn check(&mut self, unix_ms: u64, monotonic: Duration) -> Result<(), ClockJumped> {
        let offset_ms = offset(unix_ms, monotonic);
        let jumped = u64::try_from((offset_ms - self.offset_ms).unsigned_abs()).unwrap_or(u64::MAX);
        let jumped = Duration::from_millis(jumped);
        if jumped > self.allowed {
            return Err(ClockJumped { jumped, allowed: self.allowed });
        }
        self.offset_ms = offset_ms;
        Ok(())
    }
}

fn offset(unix_ms: u64, monotonic: Duration) -> i128 {
    i128::from(unix_ms) - i128::try_from(monotonic.as_millis()).unwrap_or(i128::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_drift_refuses_jumps_and_recovers_when_the_clock_is_back() {
        let ms = Duration::from_millis;
        let mut guard = ClockGuard::new(ms(500), 1_000_000, ms(0));
        for step in 1..100 {
            // 10 % fast: far off in the end, never by much from one look to the next.
            assert_eq!(guard.check(1_000_000 + step * 1_100, ms(step * 1_000)), Ok(()));
        }
        let (wall, mono) = (1_000_000 + 100 * 1_100, ms(100_000));
        let jumped = guard.check(wall + 3_600_000, mono).unwrap_err();
        assert!(jumped.jumped > ms(3_599_000), "{jumped}");
        assert!(guard.check(wall - 900_000, mono).is_err());
        assert_eq!(guard.check(wall, mono), Ok(()));
    }
}
