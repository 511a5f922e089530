//! A million events: what reading them costs, and how much room they take.

use std::time::Duration;

use anabranch_client::Order;

use super::append::PAYLOAD;
use super::{Figure, FloorsArgs};
use crate::disk;
use crate::load::SETTLES_WITHIN;
use crate::processes::Place;
use crate::replay::replay;
use crate::target::{Target, scratch};
use crate::writers::{self, Load};

pub(super) const ROWS: [&str; 3] = ["replay", "replay-global", "disk"];
/// Events in one append.
const BATCH: usize = 1_000;
const EVENTS: u64 = 1_000_000;

pub(super) async fn measure(args: &FloorsArgs) -> anyhow::Result<Vec<Figure>> {
    let folder = scratch(args.data.as_deref())?;
    let mut target = Target::start(1, 1, &folder.path().join("nodes"))?;
    let there = target.ready().await?;
    let (within, at_most) = (Duration::MAX, EVENTS / BATCH as u64);
    let load = Load { batch: BATCH, clients: 8, payload: PAYLOAD, within, at_most };
    let written = writers::write_in(&target, 0..1, load).await?;
    let held = target.settled(there + written.events, SETTLES_WITHIN).await?;
    let data = target.processes()?.data(Place { region: 0, node: 0 })?.to_owned();
    let taken = disk::allocated(&data)?;
    let mut figures = Vec::new();
    for (row, order) in [("replay", Order::Regional), ("replay-global", Order::Global)] {
        let replayed = replay(&target, order, held).await?;
        let cpu = replayed.cpu_us;
        let note = format!("{cpu} µs, node + reader; {:.0} events/s", replayed.rate);
        figures.push(Figure { row, value: cpu.nodes + cpu.here, note });
    }
    let note = format!("{:.1} MB for {:.1} MB", taken as f64 / 1e6, written.bytes as f64 / 1e6);
    let value = taken as f64 / written.bytes as f64;
    figures.push(Figure { row: "disk", value, note });
    Ok(figures)
}
