//! Writers: each appends a batch, waits for the acknowledgement, and goes on.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anabranch_client::{Client, event};
use async_trait::async_trait;
use bytes::Bytes;
use hdrhistogram::Histogram;
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};
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
    /// Appends of all writers together after which they stop earlier.
    pub at_most: u64,
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

/// What appends: a connection of its own to some store.
#[async_trait]
pub trait Writer: Send {
    /// Appends events of these payloads to a stream; returns when they are acknowledged.
    ///
    /// # Errors
    /// If they are not.
    async fn append(&mut self, stream: &str, payloads: Vec<Bytes>) -> anyhow::Result<()>;
}

#[async_trait]
impl Writer for Client {
    async fn append(&mut self, stream: &str, payloads: Vec<Bytes>) -> anyhow::Result<()> {
        let events = payloads.into_iter().map(|payload| event(KIND).payload(payload));
        Client::append(self, stream, events.collect::<Vec<_>>()).await?;
        Ok(())
    }
}

/// Writes to every region at once.
///
/// # Errors
/// The first append that fails: none is expected to.
pub async fn write(target: &Target, load: Load) -> anyhow::Result<Written> {
    write_in(target, 0..target.regions(), load).await
}

/// Writes to every region at once, and in all of them to the same streams: nearly every event is in
/// conflict with some.
///
/// # Errors
/// As [`write()`].
pub async fn write_to_same_streams(target: &Target, load: Load) -> anyhow::Result<Written> {
    write_to(target, 0..target.regions(), load, |_, nth| format!("load-{nth}")).await
}

/// Writes to some regions, by their places.
///
/// # Errors
/// As [`write()`].
pub async fn write_in(
    target: &Target,
    regions: Range<usize>,
    load: Load,
) -> anyhow::Result<Written> {
    write_to(target, regions, load, |region, nth| format!("load-{region}-{nth}")).await
}

/// Writes to some regions by writers of these names, told of their region and their number in it.
async fn write_to(
    target: &Target,
    regions: Range<usize>,
    load: Load,
    name: impl Fn(usize, usize) -> String,
) -> anyhow::Result<Written> {
    let mut writers: Vec<(String, Box<dyn Writer>)> = Vec::new();
    for region in regions {
        for nth in 0..load.clients {
            writers.push((name(region, nth), Box::new(target.client(region)?)));
        }
    }
    write_by(writers, load).await
}

/// Writes by these writers at once, each to streams that begin with its name.
///
/// # Errors
/// The first append that fails: none is expected to.
pub async fn write_by(
    writers: Vec<(String, Box<dyn Writer>)>,
    load: Load,
) -> anyhow::Result<Written> {
    let started = Instant::now();
    let left = Arc::new(AtomicU64::new(load.at_most));
    let mut running = JoinSet::new();
    for (name, writer) in writers {
        running.spawn(one_writer(writer, name, load, started, Arc::clone(&left)));
    }
    let (mut latency, mut bytes) = (empty(), 0);
    while let Some(done) = running.join_next().await {
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

/// Takes one of the appends that are left, over all writers.
fn take(left: &AtomicU64) -> bool {
    let less = |left: u64| left.checked_sub(1);
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
}

/// Returns what appends took, and the bytes of the events.
async fn one_writer(
    mut writer: Box<dyn Writer>,
    name: String,
    load: Load,
    started: Instant,
    left: Arc<AtomicU64>,
) -> anyhow::Result<(Histogram<u64>, u64)> {
    let mut payloads = Payloads::new(load.payload);
    let (mut latency, mut bytes) = (empty(), 0);
    for nth in 0.. {
        if started.elapsed() >= load.within || !take(&left) {
            break;
        }
        let events = payloads.by_ref().take(load.batch).collect();
        let stream = format!("{name}-{}", nth % STREAMS);
        bytes += (load.batch * (load.payload + KIND.len() + stream.len())) as u64;
        let sent = Instant::now();
        writer.append(&stream, events).await?;
        latency.saturating_record(sent.elapsed().as_micros() as u64);
    }
    Ok((latency, bytes))
}

/// Bytes that no store can make smaller, cut from one block at ever other places: no two payloads of a
/// batch are the same, and making them costs next to nothing.
struct Payloads {
    block: Bytes,
    at: usize,
    len: usize,
}

/// Places that payloads are cut from. Odd, so that a round through them takes no short cut.
const PLACES: usize = (1 << 18) - 1;

impl Payloads {
    fn new(len: usize) -> Self {
        let mut block = vec![0; PLACES + len];
        SmallRng::seed_from_u64(7).fill_bytes(&mut block);
        Self { block: block.into(), at: 0, len }
    }
}

impl Iterator for Payloads {
    type Item = Bytes;
    fn next(&mut self) -> Option<Bytes> {
        self.at = (self.at + self.len) % PLACES;
        Some(self.block.slice(self.at..self.at + self.len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_of_the_length_asked_for_and_differ() {
        for len in [0, 1, 256, PLACES + 1] {
            let some: Vec<Bytes> = Payloads::new(len).take(1_000).collect();
            assert!(some.iter().all(|payload| payload.len() == len));
        }
        let some: std::collections::BTreeSet<Bytes> = Payloads::new(256).take(1_000).collect();
        assert_eq!(some.len(), 1_000);
    }
}
