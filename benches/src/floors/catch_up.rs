//! How fast a region takes in what it missed.

use std::time::Duration;

use anabranch_client::Client;
use anyhow::ensure;
use tokio::time::{Instant, sleep};

use super::append::PAYLOAD;
use super::{Figure, FloorsArgs};
use crate::load::SETTLES_WITHIN;
use crate::processes::Place;
use crate::target::{Target, scratch};
use crate::writers::{self, Load};

pub(super) const ROW: &str = "catch-up";
/// Events in one append.
const BATCH: usize = 1_000;
const EVENTS: u64 = 200_000;
const POLL_EVERY: Duration = Duration::from_millis(5);

/// Kills the only node of the third region, writes in the first, and starts the node again. Measured from
/// its first answer until it holds everything: what a node shows is on its disk.
pub(super) async fn measure(args: &FloorsArgs) -> anyhow::Result<Vec<Figure>> {
    let folder = scratch(args.data.as_deref())?;
    let mut target = Target::start(3, 1, &folder.path().join("nodes"))?;
    let there = target.ready().await?;
    let away = Place { region: 2, node: 0 };
    target.processes()?.kill(away).await?;
    let (within, at_most) = (Duration::MAX, EVENTS / BATCH as u64);
    let load = Load { batch: BATCH, clients: 8, payload: PAYLOAD, within, at_most };
    let expected = there + writers::write_in(&target, 0..1, load).await?.events;
    for region in 0..2 {
        let other = target.client_of(Place { region, node: 0 })?;
        reaches(&other, expected).await?;
    }
    target.processes()?.start_again(away)?;
    let client = target.client_of(away)?;
    let missed = expected - client.status().await?.position;
    ensure!(missed > EVENTS / 2, "the node held most before it answered: {missed} were missing");
    let began = Instant::now();
    reaches(&client, expected).await?;
    let took = began.elapsed().as_secs_f64();
    let note = format!("{missed} events in {took:.2} s");
    Ok(vec![Figure { row: ROW, value: missed as f64 / took, note }])
}

async fn reaches(client: &Client, position: u64) -> anyhow::Result<()> {
    let give_up = Instant::now() + SETTLES_WITHIN;
    loop {
        let reached = client.status().await?.position;
        if reached >= position {
            return Ok(());
        }
        ensure!(Instant::now() < give_up, "{reached} events of {position} are held");
        sleep(POLL_EVERY).await;
    }
}
