//! From sending an append to holding the event at a subscriber: one writer, one subscriber, paced, so
//! it is the delay of a store at rest.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use hdrhistogram::Histogram;
use tokio::time::{Instant, interval, timeout};

use super::Run;
use super::append::end;
use super::peer::{LAG_STREAM, Running, ready};
use crate::writers::empty;

/// Between two appends.
const PACE: Duration = Duration::from_millis(20);
/// Appends in one turn.
const COUNT: u64 = 75;
/// An event that does not arrive for this long has failed to.
const ARRIVES_WITHIN: Duration = Duration::from_secs(30);

/// Milliseconds, one for each round.
pub struct Lags {
    /// The peer.
    pub name: &'static str,
    /// Its nodes.
    pub nodes: u16,
    /// Half of the events arrive within.
    pub p50_ms: Vec<f64>,
    /// 99 of 100 do.
    pub p99_ms: Vec<f64>,
}

impl Run<'_> {
    /// Measures all peers by turns.
    pub async fn lags(&self) -> anyhow::Result<Vec<Lags>> {
        let new = |name, nodes| Lags { name, nodes, p50_ms: Vec::new(), p99_ms: Vec::new() };
        let named = self.peers.iter().map(|peer| new(peer.name(), peer.nodes()));
        let mut lags: Vec<_> = named.collect();
        for round in 1..=self.rounds {
            for (peer, lags) in self.peers.iter().zip(&mut lags) {
                let place = self.place(peer.name());
                let running = peer.start(&place).await?;
                let lag = measure(running.as_ref()).await;
                end(running, &place).await?;
                let lag = lag.with_context(|| format!("{}, round {round}", lags.name))?;
                let ms = |quantile| lag.value_at_quantile(quantile) as f64 / 1e3;
                eprintln!(
                    "  {round} {:<22} p50 {:.2} ms, p99 {:.2} ms",
                    lags.name,
                    ms(0.5),
                    ms(0.99)
                );
                lags.p50_ms.push(ms(0.5));
                lags.p99_ms.push(ms(0.99));
            }
        }
        Ok(lags)
    }
}

async fn measure(running: &dyn Running) -> anyhow::Result<Histogram<u64>> {
    ready(running).await?;
    let mut writer = running.writer().await?;
    // Some stores make a stream's structures with its first event.
    writer.append(LAG_STREAM, vec![Bytes::from_static(b"first")]).await?;
    let mut subscriber = running.subscriber().await?;
    let started = Instant::now();
    let mut pace = interval(PACE);
    let writing = async {
        for _ in 0..COUNT {
            pace.tick().await;
            let sent_us = started.elapsed().as_micros() as u64;
            let payload = Bytes::copy_from_slice(&sent_us.to_le_bytes());
            writer.append(LAG_STREAM, vec![payload]).await?;
        }
        anyhow::Ok(())
    };
    let reading = async {
        let mut lag = empty();
        let mut last = None;
        while lag.len() < COUNT {
            let next = timeout(ARRIVES_WITHIN, subscriber.next()).await;
            let payload = next.with_context(|| format!("event {} did not arrive", lag.len()))??;
            let sent_us = u64::from_le_bytes(payload[..].try_into().context("a payload of ours")?);
            ensure!(last < Some(sent_us), "an event came twice or out of order");
            last = Some(sent_us);
            let now_us = started.elapsed().as_micros() as u64;
            lag.saturating_record(now_us.saturating_sub(sent_us));
        }
        Ok(lag)
    };
    let (_, lag) = tokio::try_join!(writing, reading)?;
    Ok(lag)
}
