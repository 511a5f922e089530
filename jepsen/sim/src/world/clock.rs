//! A node's clocks: the wall clock may be wrong, jump and drift; the monotonic clock is right.

use std::sync::Arc;
use std::time::Duration;

use anabranch_server::env::Clock;
use parking_lot::Mutex;

/// Wall time at the beginning of every simulation: 2026-01-01, in Unix milliseconds.
pub const EPOCH_MS: u64 = 1_767_225_600_000;

/// Clocks of one node. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct SimClock(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// What the wall clock is off by.
    offset_ms: i64,
    /// What it gains, in millionths.
    ppm: i64,
    /// Since when it gains that.
    since: Duration,
    /// True time when the clock was last read; a node that just ended still reads it.
    last: Duration,
}

impl State {
    fn now(&mut self) -> Duration {
        self.last = turmoil::sim_elapsed().unwrap_or(self.last).max(self.last);
        self.last
    }
    fn gained_ms(&self, now: Duration) -> i64 {
        let run = now.saturating_sub(self.since).as_millis() as i64;
        run * self.ppm / 1_000_000
    }
}

impl SimClock {
    /// Right clocks.
    pub fn new() -> Self {
        Self::default()
    }
    /// The wall clock jumps by `by_ms`. Call at true time `now`.
    pub fn jump(&self, by_ms: i64) {
        self.0.lock().offset_ms += by_ms;
    }
    /// The wall clock gains `ppm` millionths from true time `now` on.
    pub fn drift(&self, ppm: i64, now: Duration) {
        let mut state = self.0.lock();
        state.offset_ms += state.gained_ms(now);
        (state.ppm, state.since) = (ppm, now);
    }
    /// The wall clock is set right.
    pub fn set_right(&self) {
        let mut state = self.0.lock();
        (state.offset_ms, state.ppm) = (0, 0);
    }
}

impl Clock for SimClock {
    fn unix_ms(&self) -> u64 {
        let mut state = self.0.lock();
        let now = state.now();
        let off = state.offset_ms + state.gained_ms(now);
        (EPOCH_MS + now.as_millis() as u64).saturating_add_signed(off)
    }
    fn monotonic(&self) -> Duration {
        self.0.lock().now()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_time_jumps_and_drifts_and_can_be_set_right() {
        let clock = SimClock::new();
        assert_eq!(clock.unix_ms(), EPOCH_MS);
        clock.jump(-3_600_000);
        assert_eq!(clock.unix_ms(), EPOCH_MS - 3_600_000);
        clock.0.lock().last = Duration::from_secs(100);
        clock.drift(50_000, Duration::from_secs(40));
        assert_eq!(clock.unix_ms(), EPOCH_MS + 100_000 - 3_600_000 + 3_000);
        clock.set_right();
        assert_eq!(clock.unix_ms(), EPOCH_MS + 100_000);
        assert_eq!(clock.monotonic(), Duration::from_secs(100));
    }
}
