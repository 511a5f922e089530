//! A long history: what it takes on disk and in memory, how long a start on it takes after kill -9,
//! and how fast one reader reads all of it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio::time::sleep;

use super::append::writers;
use super::peer::{Peer, ready, takes_a_write};
use super::{Run, remove, servers};
use crate::writers::{Load, write_by};
use crate::{cpu, disk};

/// How the history is written.
const BATCH: usize = 1_000;
const CLIENTS: usize = 4;
/// Bytes of a payload.
pub const PAYLOAD: usize = 256;
/// A history that is not written by then is taken for never to be.
const WRITTEN_WITHIN: Duration = Duration::from_secs(600);
/// Files are looked at this long after the last write, memory as well.
const SETTLES: Duration = Duration::from_millis(500);

/// What a peer's history is like.
pub struct History {
    /// The peer.
    pub name: &'static str,
    /// Its nodes.
    pub nodes: u16,
    /// Bytes on disk an event, over all nodes, besides what an empty store takes.
    pub disk: f64,
    /// MB in memory after writing it, over all nodes.
    pub written_mb: f64,
    /// One for each round.
    pub starts: Vec<Start>,
}

/// A start on a history, and a replay of it.
#[derive(Debug, Clone, Copy)]
pub struct Start {
    /// Seconds from starting the processes to the first write that is taken.
    pub ready_s: f64,
    /// Events replayed a second.
    pub rate: f64,
    /// Processor microseconds of all servers an event replayed.
    pub servers_us: f64,
    /// Of the reader.
    pub reader_us: f64,
    /// MB in memory after the replay, over all nodes.
    pub mb: f64,
}

impl Run<'_> {
    /// Writes all histories, then starts and reads by turns.
    pub async fn histories(&self) -> anyhow::Result<Vec<History>> {
        let mut histories = Vec::new();
        for peer in &self.peers {
            let history = self.written(peer.as_ref()).await.with_context(|| peer.name())?;
            eprintln!("  {:<22} {:>6.0} bytes/event on disk", history.name, history.disk);
            histories.push(history);
        }
        for round in 1..=self.rounds {
            for (peer, history) in self.peers.iter().zip(&mut histories) {
                let start = self.started(peer.as_ref()).await;
                let start = start.with_context(|| format!("{}, round {round}", peer.name()))?;
                eprintln!(
                    "  {round} {:<22} started in {:.2} s, {:>9.0} events/s {:>8.2} + {:.2} µs",
                    history.name, start.ready_s, start.rate, start.servers_us, start.reader_us
                );
                history.starts.push(start);
            }
        }
        for peer in &self.peers {
            remove(&self.place(peer.name()))?;
        }
        Ok(histories)
    }

    async fn written(&self, peer: &dyn Peer) -> anyhow::Result<History> {
        let place = self.place(peer.name());
        let running = peer.start(&place).await?;
        ready(running.as_ref()).await?;
        sleep(SETTLES).await;
        let empty = disk::allocated(&place)?;
        let at_most = self.events.div_ceil(BATCH as u64);
        let within = WRITTEN_WITHIN;
        let load = Load { batch: BATCH, clients: CLIENTS, payload: PAYLOAD, within, at_most };
        let written = write_by(writers(running.as_ref(), "load", CLIENTS).await?, load).await?;
        ensure!(written.events >= self.events, "only {} were written in time", written.events);
        sleep(SETTLES).await;
        let pids = running.pids()?;
        let written_mb = servers::resident(&pids)? as f64 / 1e6;
        let grown = disk::allocated(&place)?.saturating_sub(empty);
        servers::kill(&pids).await?;
        let disk = grown as f64 / written.events as f64;
        let (name, nodes) = (peer.name(), peer.nodes());
        Ok(History { name, nodes, disk, written_mb, starts: Vec::new() })
    }

    async fn started(&self, peer: &dyn Peer) -> anyhow::Result<Start> {
        let running = peer.start(&self.place(peer.name())).await?;
        let ready_s = takes_a_write(running.as_ref()).await?.as_secs_f64();
        let pids = running.pids()?;
        let before = (Instant::now(), servers::cpu(&pids)?, cpu::used()?);
        let read = running.replay().await.context("replay")?;
        let (took, reader) = (before.0.elapsed(), cpu::used()? - before.2);
        let spent = servers::cpu(&pids)? - before.1;
        ensure!(read >= self.events, "{read} events were read of {}", self.events);
        let mb = servers::resident(&pids)? as f64 / 1e6;
        servers::kill(&pids).await?;
        let each = |time: Duration| time.as_secs_f64() * 1e6 / read as f64;
        let rate = read as f64 / took.as_secs_f64();
        Ok(Start { ready_s, rate, servers_us: each(spent), reader_us: each(reader), mb })
    }
}
