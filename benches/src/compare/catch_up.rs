//! A second site that was killed, missed what was written at the first, and is started again: how fast it
//! takes that in.

use anyhow::Context as _;

use super::peer::Pair;
use super::{Run, remove, servers};
use crate::catch_up::{self, CaughtUp, EVENTS};

/// What it took, one for each round.
pub struct CatchUps {
    /// The pair of sites.
    pub name: &'static str,
    /// Events that were written while the second was away.
    pub events: u64,
    /// In the order of the rounds.
    pub turns: Vec<CaughtUp>,
}

impl Run<'_> {
    /// Measures all stores that have sites, by turns.
    pub async fn catch_ups(&self) -> anyhow::Result<Vec<CatchUps>> {
        let events = self.events.min(EVENTS);
        let pairs: Vec<Box<dyn Pair>> = self.peers.iter().flat_map(|peer| peer.pairs()).collect();
        let new = |name| CatchUps { name, events, turns: Vec::new() };
        let mut all: Vec<_> = pairs.iter().map(|pair| new(pair.name())).collect();
        for round in 1..=self.rounds {
            for (pair, CatchUps { name, turns, .. }) in pairs.iter().zip(&mut all) {
                let caught = self.caught_up(pair.as_ref(), events).await;
                let caught = caught.with_context(|| format!("{name}, round {round}"))?;
                eprintln!(
                    "  {round} {name:<22} {:>9.0} events/s {:>8.2} µs, {} in {:.2} s",
                    caught.rate(),
                    caught.servers_us(),
                    caught.missed,
                    caught.took.as_secs_f64()
                );
                turns.push(caught);
            }
        }
        Ok(all)
    }

    async fn caught_up(&self, pair: &dyn Pair, events: u64) -> anyhow::Result<CaughtUp> {
        let place = self.place(pair.name());
        let mut sites = pair.start(&place)?;
        let caught = catch_up::measure(sites.as_mut(), events).await?;
        servers::kill(&sites.pids()?).await?;
        drop(sites);
        remove(&place)?;
        Ok(caught)
    }
}
