//! What an append costs the nodes, and how often it makes them wait for the disk.

use std::time::Duration;

use anyhow::ensure;

use super::{Figure, FloorsArgs};
use crate::load::SETTLES_WITHIN;
use crate::processes::Place;
use crate::target::{Target, scratch};
use crate::writers::{self, Load};

/// Regions, nodes in each, and who writes to them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// The floors that this measures: that of processor time and, if there is a second one, that of syncs.
    pub rows: &'static [&'static str],
    regions: usize,
    nodes: u16,
    batch: usize,
    /// In each region.
    clients: usize,
}

const fn batches(rows: &'static [&'static str], regions: usize, nodes: u16) -> Shape {
    Shape { rows, regions, nodes, batch: 1_000, clients: 8 }
}
const fn singles(rows: &'static [&'static str], nodes: u16) -> Shape {
    Shape { rows, regions: 1, nodes, batch: 1, clients: 64 }
}

pub(super) const BATCHES_1X1: Shape = batches(&["batches-1x1"], 1, 1);
pub(super) const BATCHES_1X3: Shape = batches(&["batches-1x3"], 1, 3);
pub(super) const REGIONS_3X1: Shape = batches(&["regions-3x1"], 3, 1);
pub(super) const SINGLES_1X1: Shape = singles(&["singles-1x1", "syncs"], 1);
pub(super) const SINGLES_1X3: Shape = singles(&["singles-1x3"], 3);

/// Bytes of an event's payload, here and in the other cases.
pub(super) const PAYLOAD: usize = 256;

/// Writes for a time, and counts until all nodes hold all of it.
pub(super) async fn measure(shape: Shape, args: &FloorsArgs) -> anyhow::Result<Vec<Figure>> {
    let folder = scratch(args.data.as_deref())?;
    let target = Target::start(shape.regions, shape.nodes, &folder.path().join("nodes"))?;
    let there = target.ready().await?;
    let Shape { batch, clients, .. } = shape;
    let within = Duration::from_secs(args.seconds);
    let load = Load { batch, clients, payload: PAYLOAD, within, at_most: u64::MAX };
    let first = target.client_of(Place { region: 0, node: 0 })?;
    let (before, synced) = (target.used()?, first.status().await?.log_syncs);
    let written = writers::write(&target, load).await?;
    let held = target.settled(there + written.events, SETTLES_WITHIN).await?;
    let expected = there + written.events;
    ensure!(held == expected, "{held} events are held, {expected} were written");
    let cpu = (target.used()? - before).each(written.events);
    let syncs = first.status().await?.log_syncs - synced;
    let rate = written.events as f64 / written.took.as_secs_f64();
    let each = syncs as f64 / written.latency.len() as f64;
    let values = [
        (cpu.nodes, format!("{rate:.0} events/s; clients {:.1} µs", cpu.here)),
        (each, format!("{syncs} for {} appends", written.latency.len())),
    ];
    let figure = |(row, (value, note))| Figure { row, value, note };
    Ok(shape.rows.iter().copied().zip(values).map(figure).collect())
}
