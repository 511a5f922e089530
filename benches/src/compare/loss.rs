//! From kill -9 of the node that leads to the next write that is taken, with the stores' default
//! time-outs for elections.

use anyhow::Context as _;

use super::append::end;
use super::peer::{Running, ready, takes_a_write};
use super::{Run, servers};

/// Seconds without writes, one for each round.
pub struct Losses {
    /// The peer.
    pub name: &'static str,
    /// Its nodes.
    pub nodes: u16,
    /// From the kill to the acknowledgement.
    pub seconds: Vec<f64>,
}

impl Run<'_> {
    /// Measures all peers of several nodes by turns.
    pub async fn losses(&self) -> anyhow::Result<Vec<Losses>> {
        let peers = || self.peers.iter().filter(|peer| peer.nodes() > 1);
        let new = |name, nodes| Losses { name, nodes, seconds: Vec::new() };
        let mut losses: Vec<_> = peers().map(|peer| new(peer.name(), peer.nodes())).collect();
        for round in 1..=self.rounds {
            for (peer, losses) in peers().zip(&mut losses) {
                let place = self.place(peer.name());
                let running = peer.start(&place).await?;
                let seconds = measure(running.as_ref()).await;
                end(running, &place).await?;
                let seconds = seconds.with_context(|| format!("{}, round {round}", losses.name))?;
                eprintln!("  {round} {:<22} {seconds:.2} s", losses.name);
                losses.seconds.push(seconds);
            }
        }
        Ok(losses)
    }
}

async fn measure(running: &dyn Running) -> anyhow::Result<f64> {
    ready(running).await?;
    let leader = running.leader().await?;
    let pids = running.pids()?;
    let lost =
        pids.get(leader).with_context(|| format!("node {leader} of {} leads", pids.len()))?;
    servers::kill(&[*lost]).await?;
    Ok(takes_a_write(running).await?.as_secs_f64())
}
