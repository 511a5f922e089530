//! What processes take: processor time and memory.

use std::time::Duration;

use anyhow::Context as _;

/// `/proc` counts in ticks of a hundredth of a second on every Linux that a node runs on.
const TICK: Duration = Duration::from_millis(10);

/// User and system time of all threads of this process so far, from `/proc/self/stat`.
///
/// # Errors
/// If there is no such file, or it is not of the form in proc(5).
pub fn used() -> anyhow::Result<Duration> {
    used_by("self")
}

/// The same of another process, by its number.
///
/// # Errors
/// As [`used`]; also if there is no such process.
pub fn used_by(process: &str) -> anyhow::Result<Duration> {
    let stat = of(process, "stat")?;
    of_stat(&stat).with_context(|| format!("no times in {stat:?}"))
}

/// The same with what its children used that have ended and were waited for.
///
/// # Errors
/// As [`used_by`].
pub fn used_with_ended(process: &str) -> anyhow::Result<Duration> {
    let stat = of(process, "stat")?;
    times(&stat, 4).with_context(|| format!("no times in {stat:?}"))
}

/// Bytes of a process in memory, from `/proc/…/status`.
///
/// # Errors
/// As [`used_by`].
pub fn resident(process: &str) -> anyhow::Result<u64> {
    of_status(&of(process, "status")?, "VmRSS")
}

/// Of those, the bytes that no file stands behind: its own, apart from what the kernel caches of files.
///
/// # Errors
/// As [`used_by`].
pub fn anonymous(process: &str) -> anyhow::Result<u64> {
    of_status(&of(process, "status")?, "RssAnon")
}

fn of_status(status: &str, name: &str) -> anyhow::Result<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    Ok(kib.with_context(|| format!("no {name} in {status:?}"))? * 1024)
}

fn of(process: &str, file: &str) -> anyhow::Result<String> {
    let path = format!("/proc/{process}/{file}");
    std::fs::read_to_string(&path).with_context(|| format!("read {path}"))
}

fn of_stat(stat: &str) -> Option<Duration> {
    times(stat, 2)
}

/// The first so many of: user time, system time, and both of children that have ended.
fn times(stat: &str, count: usize) -> Option<Duration> {
    // The second field is the process's name, in brackets, and may hold anything.
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let ticks: Option<u32> = (0..count).map(|_| fields.next()?.parse::<u32>().ok()).sum();
    Some(TICK * ticks?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_the_process_may_hold_brackets_and_blanks() {
        let stat = "7 (a b) c) R 1 7 7 0 -1 4194304 100 0 0 0 250 50 60 40 20 0 1 0 100 0 0";
        assert_eq!(of_stat(stat), Some(Duration::from_secs(3)));
        assert_eq!(times(stat, 4), Some(Duration::from_secs(4)));
        assert_eq!(of_stat("7 (a) R 1 7"), None);
    }

    #[test]
    fn bytes_of_a_status_are_found_by_their_whole_name() {
        let status = "Name:\tRssAnon\nVmRSS:\t  300 kB\nRssAnonymous:\t1 kB\nRssAnon:\t  200 kB\n";
        assert_eq!(of_status(status, "RssAnon").unwrap(), 200 * 1024);
        assert_eq!(of_status(status, "VmRSS").unwrap(), 300 * 1024);
        let error = of_status("VmRSS: many\n", "VmRSS").unwrap_err();
        assert!(error.to_string().starts_with("no VmRSS in "), "{error}");
    }

    #[test]
    fn memory_that_is_written_to_is_resident() -> anyhow::Result<()> {
        let before = resident("self")?;
        let held = std::hint::black_box(vec![1_u8; 64 << 20]);
        assert!(resident("self")? > before + (32 << 20), "{} bytes are held", held.len());
        Ok(())
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
