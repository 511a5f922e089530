//! What the disk itself does, measured in the same run: a figure without it says little.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use hdrhistogram::Histogram;

use crate::cpu;
use crate::writers::empty;

/// The least a group commit can cost here.
#[derive(Debug, Clone, Copy)]
pub struct Baseline {
    /// fdatasync calls a second, each after an overwrite of 4 KiB in place.
    pub syncs: f64,
    /// Events a second when a plain file takes a batch and one fdatasync, one after the other.
    pub plain: f64,
    /// Processor time of the latter, in microseconds an event.
    pub plain_cpu_us: f64,
}

/// Measures the disk below `folder` for `within` each.
///
/// # Errors
/// The disk's.
pub fn measure(
    folder: &Path,
    batch: usize,
    payload: usize,
    within: Duration,
) -> anyhow::Result<Baseline> {
    let (syncs, _) = overwrites(folder, within)?;
    let (batches, plain_cpu_us) = appends(folder, &vec![7; batch * payload], within)?;
    let events = batch as f64;
    Ok(Baseline { syncs, plain: batches * events, plain_cpu_us: plain_cpu_us / events })
}

/// How long one fdatasync takes after an overwrite of 4 KiB in place, in microseconds.
///
/// # Errors
/// The disk's.
pub fn sync_latency(folder: &Path, within: Duration) -> anyhow::Result<Histogram<u64>> {
    let file = tempfile::tempfile_in(folder).context("make a file for the baseline")?;
    let (started, mut latency) = (Instant::now(), empty());
    while started.elapsed() < within {
        file.write_all_at(&[7; 4096], 0).context("write for the baseline")?;
        let asked = Instant::now();
        file.sync_data().context("fdatasync for the baseline")?;
        latency.saturating_record(asked.elapsed().as_micros() as u64);
    }
    Ok(latency)
}

fn overwrites(folder: &Path, within: Duration) -> anyhow::Result<(f64, f64)> {
    let block = [7; 4096];
    repeat(folder, within, |file| file.write_all_at(&block, 0))
}

fn appends(folder: &Path, bytes: &[u8], within: Duration) -> anyhow::Result<(f64, f64)> {
    repeat(folder, within, |mut file| file.write_all(bytes))
}

/// Times `write` followed by fdatasync: times a second, and processor microseconds each.
fn repeat(
    folder: &Path,
    within: Duration,
    write: impl Fn(&File) -> std::io::Result<()>,
) -> anyhow::Result<(f64, f64)> {
    let file = tempfile::tempfile_in(folder).context("make a file for the baseline")?;
    let (started, cpu) = (Instant::now(), cpu::used()?);
    let mut times = 0u32;
    while started.elapsed() < within {
        write(&file).context("write for the baseline")?;
        file.sync_data().context("fdatasync for the baseline")?;
        times += 1;
    }
    let rate = f64::from(times) / started.elapsed().as_secs_f64();
    let spent = (cpu::used()? - cpu).as_secs_f64() * 1e6;
    Ok((rate, spent / f64::from(times)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_counts_as_its_events() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let measured = measure(folder.path(), 1000, 16, Duration::from_millis(50))?;
        assert!(measured.syncs > 0.0);
        assert!(measured.plain >= 1000.0, "{measured:?}");
        assert!(!sync_latency(folder.path(), Duration::from_millis(50))?.is_empty());
        Ok(())
    }
}
