//! A wall clock that is wrong on purpose: for tests of whole processes, whose machine has one clock.
//!
//! The offset is in a file, so that a test lets the clock of a running node jump by replacing the file.
//! A thread looks at it all the time; reading it for every stamp would put the disk in the way.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use super::clock::{Clock, SystemClock};

/// Pause between two looks at the file.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The operating system's clocks, the wall clock set off by what a file says.
#[derive(Debug)]
pub struct OffsetClock {
    system: SystemClock,
    /// Milliseconds. The thread ends when the last clock that holds it is gone.
    offset_ms: Arc<AtomicI64>,
}

impl OffsetClock {
    /// Follows the offset in `file`: one whole number of milliseconds, ahead of the system's clock or,
    /// below 0, behind it. Replace the file as a whole; while it cannot be read the offset stays.
    ///
    /// # Errors
    /// There is no such file, or no such number in it; or a thread cannot be had.
    pub fn follow(file: PathBuf) -> io::Result<Self> {
        let offset_ms = Arc::new(AtomicI64::new(read(&file)?));
        let held = Arc::downgrade(&offset_ms);
        thread::Builder::new().name("test-clock".into()).spawn(move || watch(&file, &held))?;
        Ok(Self { system: SystemClock::new(), offset_ms })
    }

    /// How far the wall clock is ahead now, in milliseconds.
    pub fn offset_ms(&self) -> i64 {
        self.offset_ms.load(Ordering::Relaxed)
    }
}

impl Clock for OffsetClock {
    fn unix_ms(&self) -> u64 {
        self.system.unix_ms().saturating_add_signed(self.offset_ms())
    }
    fn monotonic(&self) -> Duration {
        self.system.monotonic()
    }
}

fn read(file: &Path) -> io::Result<i64> {
    let text = std::fs::read_to_string(file)?;
    text.trim().parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

fn watch(file: &Path, held: &Weak<AtomicI64>) {
    let mut readable = true;
    while let Some(offset_ms) = held.upgrade() {
        match read(file) {
            Ok(now) => {
                let before = offset_ms.swap(now, Ordering::Relaxed);
                if before != now {
                    tracing::warn!(before, now, "TEST: the wall clock is set off by milliseconds");
                }
                readable = true;
            }
            // Said once, not fifty times a second.
            Err(error) if readable => {
                readable = false;
                tracing::warn!(?file, %error, "TEST: the wall clock's offset stays as it is");
            }
            Err(_) => {}
        }
        drop(offset_ms);
        thread::sleep(LOOK_EVERY);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn eventually(what: &str, happened: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !happened() {
            assert!(Instant::now() < deadline, "not soon: {what}");
            thread::sleep(Duration::from_millis(2));
        }
    }

    #[test]
    fn the_wall_clock_follows_the_file_and_the_monotonic_one_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("offset");
        std::fs::write(&file, "3600000\n").unwrap();
        let (clock, system) = (OffsetClock::follow(file.clone()).unwrap(), SystemClock::new());
        let ahead_ms = || clock.unix_ms() as i64 - system.unix_ms() as i64;
        assert!((3_590_000..3_610_000).contains(&ahead_ms()), "from the start: {}", ahead_ms());

        std::fs::write(&file, "-2000").unwrap();
        eventually("it jumps back", || ahead_ms() < 0);
        assert!((-12_000..=-2_000).contains(&ahead_ms()), "{}", ahead_ms());
        std::fs::write(&file, "nonsense").unwrap();
        let before = clock.monotonic();
        eventually("some looks later", || clock.monotonic() > before + 5 * LOOK_EVERY);
        assert_eq!(clock.offset_ms(), -2_000, "what cannot be read changes nothing");
        assert!(clock.monotonic() < before + Duration::from_secs(60), "it never jumps");
    }

    #[test]
    fn a_clock_that_nothing_sets_off_does_not_start() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("offset");
        assert_eq!(OffsetClock::follow(file.clone()).unwrap_err().kind(), io::ErrorKind::NotFound);
        std::fs::write(&file, "an hour").unwrap();
        assert_eq!(OffsetClock::follow(file).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
