//! Processor time of this process.

use std::time::Duration;

use anyhow::Context as _;

/// `/proc` counts in ticks of a hundredth of a second on every Linux that a node runs on.
const TICK: Duration = Duration::from_millis(10);

/// User and system time of all threads of this process so far, from `/proc/self/stat`.
///
/// # Errors
/// If there is no such file, or it is not of the form in proc(5).
pub fn used() -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").context("read /proc/self/stat")?;
    of_stat(&stat).with_context(|| format!("no times in {stat:?}"))
}

fn of_stat(stat: &str) -> Option<Duration> {
    // The second field is the process's name, in brackets, and may hold anything.
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some(TICK * (user + system))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_the_process_may_hold_brackets_and_blanks() {
        let stat = "7 (a b) c) R 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 1 0 100 0 0";
        assert_eq!(of_stat(stat), Some(Duration::from_secs(3)));
        assert_eq!(of_stat("7 (a) R 1 7"), None);
    }

    #[test]
    fn work_takes_time() -> anyhow::Result<()> {
        let before = used()?;
        let mut sum = 0u64;
        while used()? < before + TICK {
            sum = (0..100_000u64).fold(sum, |sum, n| std::hint::black_box(sum ^ n));
        }
        Ok(())
    }
}
