//! What time it is, twice: the wall clock, which may jump, and the monotonic clock, which may not.

use std::time::{Duration, UNIX_EPOCH};

use tokio::time::Instant;

/// Reads the time.
pub trait Clock: Send + Sync + 'static {
    /// Wall time in milliseconds since 1970. May jump either way.
    fn unix_ms(&self) -> u64;
    /// Time since an arbitrary moment before the first call. Never goes back.
    fn monotonic(&self) -> Duration;
}

/// The operating system's clocks.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// Starts counting monotonic time from now.
    pub fn new() -> Self {
        Self { started: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the seam that others read")]
    fn unix_ms(&self) -> u64 {
        // A clock set to before 1970 reads as 0: the node's clock defence then sees the jump.
        let since = std::time::SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monotonic_time_goes_on_and_wall_time_is_plausible() {
        let clock = SystemClock::new();
        let before = clock.monotonic();
        std::thread::sleep(Duration::from_millis(2));
        assert!(clock.monotonic() > before, "{before:?}");
        let (year_2020, year_2200) = (1_577_836_800_000, 7_258_118_400_000);
        assert!((year_2020..year_2200).contains(&clock.unix_ms()), "{}", clock.unix_ms());
    }
}
