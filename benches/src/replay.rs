//! Reading everything, from the first event to the last.

use std::time::Duration;

use anabranch_client::Order;
use anyhow::ensure;
use tokio::time::Instant;

use crate::target::{CpuUs, Target};

/// How fast everything was read.
#[derive(Debug, Clone, Copy)]
pub struct Replayed {
    /// Events a second.
    pub rate: f64,
    /// Processor microseconds an event.
    pub cpu_us: CpuUs,
}

/// Reads everything that the first region holds, in one stream.
///
/// # Errors
/// If reading fails, skips or repeats an event, or yields another number than `events`.
pub async fn replay(target: &Target, order: Order, events: u64) -> anyhow::Result<Replayed> {
    let (started, before) = (Instant::now(), target.used()?);
    let read = read(target, order).await?;
    let (took, spent) = (started.elapsed(), target.used()? - before);
    ensure!(read == events, "read {read} events of {events} in {order:?} order");
    Ok(Replayed { rate: read as f64 / took.as_secs_f64(), cpu_us: spent.each(read) })
}

/// The same without looking at the clock; returns how many events there are.
///
/// # Errors
/// If reading fails, or skips or repeats an event.
pub async fn read(target: &Target, order: Order) -> anyhow::Result<u64> {
    let client = target.client(0)?;
    let mut all = client.read_all().order(order).timeout(Duration::from_secs(30)).events();
    let mut read = 0u64;
    while let Some(event) = all.next().await {
        // Checked as it goes: a fast reader that skips or repeats measures nothing.
        let event = event?;
        let place = event.global_position().or_else(|| event.position());
        ensure!(place == Some(read), "event {} came as {place:?}, not as number {read}", event.dot);
        read += 1;
    }
    Ok(read)
}
