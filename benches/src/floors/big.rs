//! One long history: what an append costs at its end, what the node keeps in memory, how soon it is back.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anabranch_client::{Client, event};
use anyhow::{Context as _, ensure};
use bytes::Bytes;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::append::PAYLOAD;
use super::{Figure, FloorsArgs};
use crate::load::SETTLES_WITHIN;
use crate::processes::Place;
use crate::target::{CpuUs, Target, scratch};

pub(super) const ROWS: [&str; 4] = ["start", "memory", "size", "size-both"];
const NODE: Place = Place { region: 0, node: 0 };
const WRITERS: usize = 8;
/// Events in one append.
const BATCH: u64 = 1_000;
/// Events at the beginning and at the end of the history that are compared, if there are twice as many.
const PART: u64 = 2_000_000;
/// How long one attempt to read may take while the node starts.
const ATTEMPT: Duration = Duration::from_millis(20);
const LOOK: Duration = Duration::from_millis(2);
const STARTS_WITHIN: Duration = Duration::from_secs(300);
const MIB: f64 = 1024.0 * 1024.0;

/// Loads once, then kills and starts for all rounds.
pub(super) async fn measure(args: &FloorsArgs) -> anyhow::Result<Vec<Figure>> {
    let folder = scratch(args.data.as_deref())?;
    let mut target = Target::start(1, 1, &folder.path().join("nodes"))?;
    target.ready().await?;
    let history = History::new(args.events, args.streams);
    let History { events, part, begun, .. } = history;
    load(&target, 0..begun, history).await?;
    let first = load(&target, begun..begun + part, history).await?;
    load(&target, begun + part..events - part, history).await?;
    let last = load(&target, events - part..events, history).await?;
    let memory = target.processes()?.anonymous()? as f64 / MIB;
    let streams = target.client_of(NODE)?.status().await?.streams;
    let words = format!("{events} events in {streams} streams");
    let mut figures = Vec::new();
    for _ in 0..args.rounds {
        let of = stream(history.stream_of(events - 1));
        let value = start(&mut target, &of).await?.as_secs_f64();
        figures.push(Figure { row: "start", value, note: words.clone() });
        target.settled(events, SETTLES_WITHIN).await?;
    }
    let after = target.processes()?.anonymous()? as f64 / MIB;
    let note = format!("{words}; after a start {after:.0}");
    figures.push(Figure { row: "memory", value: memory, note });
    let (begin, end) = (first.nodes, last.nodes);
    let note = format!(
        "{end:.2} over {begin:.2} µs, {part} events each, the first after {begun}; {words}"
    );
    figures.push(Figure { row: "size", value: end / begin, note });
    let [begin, end] = [first, last].map(|cpu| cpu.nodes + cpu.here);
    let note = format!("{end:.2} over {begin:.2} µs");
    figures.push(Figure { row: "size-both", value: end / begin, note });
    Ok(figures)
}

/// What is written. All streams begin in its first events; from then on one event is like another, and
/// only the length of the history grows.
#[derive(Debug, Clone, Copy)]
struct History {
    events: u64,
    streams: u64,
    /// One event in so many begins a stream.
    each: u64,
    /// Events after which all streams have begun.
    begun: u64,
    /// Events at the beginning and at the end that are compared.
    part: u64,
}

impl History {
    /// Sizes are rounded to whole batches.
    fn new(events: u64, streams: Option<u64>) -> Self {
        let events = events / BATCH * BATCH;
        let streams = streams.unwrap_or(events / 10).clamp(1, events / 2);
        let part = PART.min(events / 4) / BATCH * BATCH;
        let each = (part / streams).max(1);
        let begun = (streams * each).next_multiple_of(BATCH).min(events - 2 * part);
        Self { events, streams, each, begun, part }
    }

    /// The stream of event `nth`.
    fn stream_of(&self, nth: u64) -> u64 {
        let known = (nth / self.each + 1).min(self.streams);
        if nth < self.streams * self.each && nth.is_multiple_of(self.each) {
            nth / self.each
        } else {
            // A large odd number spreads them, the same way each time.
            nth.wrapping_mul(0x9e37_79b9_7f4a_7c15) % known
        }
    }
}

fn stream(number: u64) -> String {
    format!("account-{number}")
}

/// Writes the events of these numbers, and returns what one of them cost until all was final.
async fn load(target: &Target, events: Range<u64>, history: History) -> anyhow::Result<CpuUs> {
    let count = events.end - events.start;
    let (next, before) = (Arc::new(AtomicU64::new(events.start)), target.used()?);
    let mut writers = JoinSet::new();
    for _ in 0..WRITERS {
        writers.spawn(writer(target.client(0)?, Arc::clone(&next), events.end, history));
    }
    while let Some(done) = writers.join_next().await {
        done??;
    }
    target.settled(events.end, SETTLES_WITHIN).await?;
    Ok((target.used()? - before).each(count.max(1)))
}

async fn writer(
    client: Client,
    next: Arc<AtomicU64>,
    end: u64,
    history: History,
) -> anyhow::Result<()> {
    let payload = Bytes::from(vec![7; PAYLOAD]);
    loop {
        let first = next.fetch_add(BATCH, Ordering::Relaxed);
        if end <= first {
            return Ok(());
        }
        let mut streams = BTreeMap::<u64, usize>::new();
        for nth in first..first + BATCH {
            *streams.entry(history.stream_of(nth)).or_default() += 1;
        }
        let events = |count| vec![event("Measured").payload(payload.clone()); count];
        let mut streams = streams.into_iter();
        let (number, count) = streams.next().context("a batch has events")?;
        let mut append = client.append(stream(number), events(count));
        for (number, count) in streams {
            append = append.and(stream(number), events(count));
        }
        append.await?;
    }
}

/// Kills the node, starts it, and reads until it answers with an event of `stream`.
async fn start(target: &mut Target, stream: &str) -> anyhow::Result<Duration> {
    target.processes()?.kill(NODE).await?;
    let began = Instant::now();
    target.processes()?.start_again(NODE)?;
    loop {
        // A new client each time: an old one would wait ever longer between its attempts.
        let client = target.client_of(NODE)?;
        let read = client.read_stream(stream).limit(1).timeout(ATTEMPT).collect().await;
        let took = began.elapsed();
        match read {
            Ok(events) if !events.is_empty() => return Ok(took),
            Ok(_) => ensure!(took < STARTS_WITHIN, "{stream} is empty after {took:?}"),
            Err(error) if took > STARTS_WITHIN => return Err(error.into()),
            Err(_) => {}
        }
        sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_begin_first_and_none_is_written_to_before() {
        for (events, streams) in [(100_000, 10_000), (100_000, 40_000), (100_000, 7)] {
            let history = History::new(events, Some(streams));
            let mut begun = 0;
            for nth in 0..events {
                let stream = history.stream_of(nth);
                assert!(stream <= begun, "event {nth} is of stream {stream}, {begun} is the next");
                begun += u64::from(stream == begun);
                assert!(nth < history.begun || begun == streams, "event {nth}: {begun} streams");
            }
            assert!(history.begun + 2 * history.part <= events, "{history:?}");
        }
    }
}
