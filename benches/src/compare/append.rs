//! Appending: every peer alone, started anew for its turn.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::sleep;

use super::case::Shape;
use super::peer::{Peer, Running, ready};
use super::{Run, remove, servers};
use crate::cpu;
use crate::writers::{Load, Writer, Written, write_by};

/// Written before it counts: connections, files and leaders are there then.
const WARM_UP: Duration = Duration::from_millis(300);
/// What servers do in this time after the last acknowledgement belongs to the events: followers and
/// writers in the background come a little later.
const AFTER: Duration = Duration::from_millis(200);

/// One turn of a peer.
#[derive(Debug, Clone, Copy)]
pub struct Turn {
    /// Events acknowledged a second.
    pub rate: f64,
    /// Processor microseconds of all servers an event.
    pub servers_us: f64,
    /// Of the clients.
    pub clients_us: f64,
    /// Milliseconds from sending an append to its acknowledgement: half of them, 99 of 100.
    pub p50_ms: f64,
    /// The same, 99 of 100.
    pub p99_ms: f64,
}

/// An append case.
pub struct Appends {
    /// How it was written.
    pub shape: Shape,
    /// By peer: name, nodes, turns in the order of the rounds.
    pub peers: Vec<(&'static str, u16, Vec<Turn>)>,
    /// fdatasync calls a second at the begin of each round.
    pub syncs: Vec<f64>,
}

impl Run<'_> {
    /// Measures an append case.
    pub async fn append(&self, shape: Shape) -> anyhow::Result<Appends> {
        let named = self.peers.iter().map(|peer| (peer.name(), peer.nodes(), Vec::new()));
        let mut peers: Vec<_> = named.collect();
        let mut syncs = Vec::new();
        for round in 1..=self.rounds {
            syncs.push(self.syncs()?);
            for (peer, (name, _, turns)) in self.peers.iter().zip(&mut peers) {
                let turn = self.turn(peer.as_ref(), shape).await;
                let turn = turn.with_context(|| format!("{name}, round {round}"))?;
                eprintln!(
                    "  {round} {name:<22} {:>9.0} events/s {:>8.2} + {:.2} µs",
                    turn.rate, turn.servers_us, turn.clients_us
                );
                turns.push(turn);
            }
        }
        Ok(Appends { shape, peers, syncs })
    }

    async fn turn(&self, peer: &dyn Peer, shape: Shape) -> anyhow::Result<Turn> {
        let place = self.place(peer.name());
        let running = peer.start(&place).await?;
        let turn = write(running.as_ref(), shape, self.within).await;
        end(running, &place).await?;
        turn
    }
}

/// Kills a peer and removes what it held.
pub async fn end(running: Box<dyn Running>, place: &Path) -> anyhow::Result<()> {
    servers::kill(&running.pids()?).await?;
    drop(running);
    remove(place)
}

async fn write(running: &dyn Running, shape: Shape, within: Duration) -> anyhow::Result<Turn> {
    ready(running).await?;
    let warm = load(shape, WARM_UP);
    write_by(writers(running, "warm", shape.clients).await?, warm).await.context("warm up")?;
    let writers = writers(running, "load", shape.clients).await?;
    let pids = running.pids()?;
    let before = (servers::cpu(&pids)?, cpu::used()?);
    let written = write_by(writers, load(shape, within)).await?;
    let clients = cpu::used()? - before.1;
    sleep(AFTER).await;
    let servers = servers::cpu(&pids)? - before.0;
    Ok(Turn::of(&written, servers, clients))
}

fn load(shape: Shape, within: Duration) -> Load {
    let Shape { batch, clients, payload } = shape;
    Load { batch, clients, payload, within, at_most: u64::MAX }
}

/// Writers, each named.
pub async fn writers(
    running: &dyn Running,
    name: &str,
    count: usize,
) -> anyhow::Result<Vec<(String, Box<dyn Writer>)>> {
    let mut writers = Vec::new();
    for nth in 0..count {
        writers.push((format!("{name}-{nth}"), running.writer().await?));
    }
    Ok(writers)
}

impl Turn {
    fn of(written: &Written, servers: Duration, clients: Duration) -> Self {
        let each = |time: Duration| time.as_secs_f64() * 1e6 / written.events as f64;
        let ms = |quantile| written.latency.value_at_quantile(quantile) as f64 / 1e3;
        Self {
            rate: written.events as f64 / written.took.as_secs_f64(),
            servers_us: each(servers),
            clients_us: each(clients),
            p50_ms: ms(0.5),
            p99_ms: ms(0.99),
        }
    }
}
