//! Work that follows the log is done for many groups at once.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Lets one pass after another begin, none sooner than `gap` after the one before it: whoever follows a
/// busy log looks at what has come together, and at a quiet one at once.
#[derive(Debug)]
pub(crate) struct Pace {
    gap: Duration,
    next: Instant,
}

impl Pace {
    /// The first one may begin now.
    pub(crate) fn new(gap: Duration) -> Self {
        Self { gap, next: Instant::now() }
    }

    /// Waits until the next one may begin.
    pub(crate) async fn turn(&mut self) {
        if Instant::now() < self.next {
            sleep_until(self.next).await;
        }
        self.next = Instant::now() + self.gap;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn the_first_begins_at_once_and_the_next_one_waits_its_turn() {
        let mut pace = Pace::new(Duration::from_secs(3600));
        assert!(pace.turn().now_or_never().is_some());
        assert!(pace.turn().now_or_never().is_none());
        let (gap, begin) = (Duration::from_millis(5), Instant::now());
        let mut pace = Pace::new(gap);
        pace.turn().await;
        pace.turn().await;
        assert!(begin.elapsed() >= gap);
    }
}
