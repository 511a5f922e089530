//! Reading everything, from the first event to the last.

use std::time::Duration;

use anabranch_client::Order;
use anyhow::ensure;
use tokio::time::Instant;

use crate::cpu;
use crate::target::Target;

/// How fast everything was read.
#[derive(Debug, Clone, Copy)]
pub struct Replayed {
    /// Events a second.
    pub rate: f64,
    /// Processor microseconds an event, reader and node together.
    pub cpu_us: f64,
}

/// Reads everything that the first region holds, in one stream.
///
/// # Errors
/// If reading fails, or yields another number of events than `events`.
pub async fn replay(target: &Target, order: Order, events: u64) -> anyhow::Result<Replayed> {
    let client = target.client(0)?;
    let (started, before) = (Instant::now(), cpu::used()?);
    let mut all = client.read_all().order(order).timeout(Duration::from_secs(30)).events();
    let mut read = 0u64;
    while let Some(event) = all.next().await {
        event?;
        read += 1;
    }
    let (took, spent) = (started.elapsed(), cpu::used()? - before);
    ensure!(read == events, "read {read} events of {events} in {order:?} order");
    Ok(Replayed {
        rate: read as f64 / took.as_secs_f64(),
        cpu_us: spent.as_secs_f64() * 1e6 / read as f64,
    })
}
