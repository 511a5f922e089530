//! End to end: from sending an append in one region to holding the event in another.
//!
//! One process, so one clock. Appends are sent one at a time, paced: this is the delay of the system
//! at rest, not of a queue.

use std::time::Duration;

use anabranch_client::{Client, From, Message, Order, Subscription, event};
use anyhow::Context as _;
use hdrhistogram::Histogram;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::target::Target;
use crate::writers::empty;

/// Between two appends.
const PACE: Duration = Duration::from_millis(20);
/// An event that does not arrive for this long has failed to.
const ARRIVES_WITHIN: Duration = Duration::from_secs(30);

/// From sending an append to having it at a subscriber, in microseconds.
#[derive(Debug)]
pub struct Lag {
    /// A subscriber in regional order.
    pub regional: Histogram<u64>,
    /// A subscriber in global order: final once delivered.
    pub global: Histogram<u64>,
}

/// Writes in the first region, reads in the last: the same one if there is only one.
///
/// # Errors
/// If an append fails or an event does not arrive.
pub async fn measure(target: &Target, within: Duration) -> anyhow::Result<Lag> {
    let writer = target.client(0)?;
    let reader = target.client(target.regions() - 1)?;
    // Sessions would make the reader wait for the writer; these two know nothing of each other.
    let started = Instant::now();
    let count = (within.as_millis() / PACE.as_millis()).max(10) as u64;
    let (regional, ready) = subscribe(&reader, Order::Regional, started, count);
    ready.await.context("the subscriber in regional order ended")?;
    let (global, ready) = subscribe(&reader, Order::Global, started, count);
    ready.await.context("the subscriber in global order ended")?;
    let mut pace = tokio::time::interval(PACE);
    for _ in 0..count {
        pace.tick().await;
        let sent_us = started.elapsed().as_micros() as u64;
        let payload = sent_us.to_le_bytes().to_vec();
        writer.append("lag-1", event("Sent").payload(payload)).await?;
    }
    Ok(Lag { regional: regional.await??, global: global.await?? })
}

type Arrivals = JoinHandle<anyhow::Result<Histogram<u64>>>;

/// A subscriber from the end on, and word of when it is there: passing over what was written before
/// is not lag.
fn subscribe(
    reader: &Client,
    order: Order,
    started: Instant,
    count: u64,
) -> (Arrivals, oneshot::Receiver<()>) {
    let subscribe = reader.subscribe_category("lag").order(order).from(From::End);
    let (there, ready) = oneshot::channel();
    (tokio::spawn(arrivals(subscribe.start(), there, started, count)), ready)
}

async fn arrivals(
    mut subscription: Subscription,
    there: oneshot::Sender<()>,
    started: Instant,
    count: u64,
) -> anyhow::Result<Histogram<u64>> {
    let mut lag = empty();
    let mut there = Some(there);
    while lag.len() < count {
        let next = tokio::time::timeout(ARRIVES_WITHIN, subscription.next()).await;
        let missing = || format!("event {} of {count} did not arrive", lag.len() + 1);
        match next.with_context(missing)?.with_context(missing)?? {
            Message::Event(event) => {
                let sent = event.payload[..].try_into().context("a payload of ours")?;
                let now_us = started.elapsed().as_micros() as u64;
                lag.saturating_record(now_us.saturating_sub(u64::from_le_bytes(sent)));
            }
            Message::CaughtUp => drop(there.take().map(|there| there.send(()))),
            Message::FellBehind | Message::Heartbeat { .. } => {}
        }
    }
    Ok(lag)
}
