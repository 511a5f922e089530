//! Writers: each appends a batch, waits for the acknowledgement, and goes on.

use std::time::Duration;

use anabranch_client::{Client, event};
use bytes::Bytes;
use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::target::Target;

/// Streams that a writer takes in turn.
const STREAMS: u64 = 64;

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
    let mut writers = JoinSet::new();
    let started = Instant::now();
    for region in 0..target.regions() {
        for nth in 0..load.clients {
            let client = target.client(region)?;
            writers.spawn(one_writer(client, format!("load-{region}-{nth}"), load, started));
        }
    }
    let mut latency = empty();
    while let Some(done) = writers.join_next().await {
        latency.add(&done??)?;
    }
    let events = latency.len() * load.batch as u64;
    Ok(Written { events, took: started.elapsed(), latency })
}

/// A histogram of microseconds up to a minute, to three digits.
pub fn empty() -> Histogram<u64> {
    Histogram::new_with_max(60_000_000, 3).expect("the bounds are sound")
}

async fn one_writer(
    client: Client,
    name: String,
    load: Load,
    started: Instant,
) -> anyhow::Result<Histogram<u64>> {
    let payload = Bytes::from(vec![7; load.payload]);
    let mut latency = empty();
    for nth in 0.. {
        if started.elapsed() >= load.within {
            break;
        }
        let events: Vec<_> =
            (0..load.batch).map(|_| event("Measured").payload(payload.clone())).collect();
        let sent = Instant::now();
        client.append(format!("{name}-{}", nth % STREAMS), events).await?;
        latency.saturating_record(sent.elapsed().as_micros() as u64);
    }
    Ok(latency)
}
