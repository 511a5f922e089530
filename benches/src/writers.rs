//! Writers: each appends a batch, waits for the acknowledgement, and goes on.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anabranch_client::{Client, event};
use bytes::Bytes;
use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::target::Target;

/// Streams that a writer takes in turn.
const STREAMS: u64 = 64;
/// The type of the events.
const KIND: &str = "Measured";

/// How much to write.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Events in one append.
    pub batch: usize,
    /// Writers in each region.
    pub clients: usize,
    /// Bytes of an event's payload.
    pub payload: usize,
    /// For how long.
    pub within: Duration,
}

/// What became of it.
#[derive(Debug)]
pub struct Written {
    /// Events acknowledged.
    pub events: u64,
    /// Bytes of their payloads, types and streams' names.
    pub bytes: u64,
    /// From the first append to the last acknowledgement.
    pub took: Duration,
    /// From sending an append to its acknowledgement, in microseconds.
    pub latency: Histogram<u64>,
}

/// Writes to every region at once.
///
/// # Errors
/// The first append that fails: none is expected to.
pub async fn write(target: &Target, load: Load) -> anyhow::Result<Written> {
    let end = End::At(Instant::now() + load.within);
    write_until(target, 0..target.regions(), load, end).await
}

/// Writes so many events to some regions, by their places, however long it takes; whole appends, so
/// that it may be a few less.
///
/// # Errors
/// As [`write`].
pub async fn write_events(
    target: &Target,
    regions: Range<usize>,
    load: Load,
    events: u64,
) -> anyhow::Result<Written> {
    let left = AtomicU64::new(events / load.batch as u64);
    write_until(target, regions, load, End::After(Arc::new(left))).await
}

/// When to stop.
#[derive(Clone)]
enum End {
    At(Instant),
    /// When no appends are left, over all writers.
    After(Arc<AtomicU64>),
}

impl End {
    /// Whether there is to be one more append.
    fn goes_on(&self) -> bool {
        match self {
            Self::At(end) => Instant::now() < *end,
            Self::After(left) => {
                let take = |left: u64| left.checked_sub(1);
                left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
            }
        }
    }
}

async fn write_until(
    target: &Target,
    regions: Range<usize>,
    load: Load,
    end: End,
) -> anyhow::Result<Written> {
    let mut writers = JoinSet::new();
    let started = Instant::now();
    for region in regions {
        for nth in 0..load.clients {
            let client = target.client(region)?;
            writers.spawn(one_writer(client, format!("load-{region}-{nth}"), load, end.clone()));
        }
    }
    let (mut latency, mut bytes) = (empty(), 0);
    while let Some(done) = writers.join_next().await {
        let (own, written) = done??;
        latency.add(&own)?;
        bytes += written;
    }
    let events = latency.len() * load.batch as u64;
    Ok(Written { events, bytes, took: started.elapsed(), latency })
}

/// A histogram of microseconds up to a minute, to three digits.
pub fn empty() -> Histogram<u64> {
    Histogram::new_with_max(60_000_000, 3).expect("the bounds are sound")
}

/// Returns what appends took, and the bytes of the events.
async fn one_writer(
    client: Client,
    name: String,
    load: Load,
    end: End,
) -> anyhow::Result<(Histogram<u64>, u64)> {
    let payload = Bytes::from(vec![7; load.payload]);
    let (mut latency, mut bytes) = (empty(), 0);
    for nth in 0.. {
        if !end.goes_on() {
            break;
        }
        let events: Vec<_> =
            (0..load.batch).map(|_| event(KIND).payload(payload.clone())).collect();
        let stream = format!("{name}-{}", nth % STREAMS);
        bytes += (load.batch * (load.payload + KIND.len() + stream.len())) as u64;
        let sent = Instant::now();
        client.append(stream, events).await?;
        latency.saturating_record(sent.elapsed().as_micros() as u64);
    }
    Ok((latency, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writers_share_a_number_of_appends() {
        let end = End::After(Arc::new(AtomicU64::new(3)));
        let other = end.clone();
        assert!(end.goes_on() && other.goes_on() && end.goes_on());
        assert!(!end.goes_on() && !other.goes_on());
        assert!(!End::At(Instant::now()).goes_on());
    }
}
