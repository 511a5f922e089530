//! How much longer an append takes than the disk does.

use std::time::Duration;

use super::append::PAYLOAD;
use super::{Figure, FloorsArgs};
use crate::baseline;
use crate::target::{Target, scratch};
use crate::writers::{self, Load};

pub(super) const ROW: &str = "latency";
pub(super) async fn measure(args: &FloorsArgs) -> anyhow::Result<Vec<Figure>> {
    let folder = scratch(args.data.as_deref())?;
    let target = Target::start(1, 1, &folder.path().join("nodes"))?;
    target.ready().await?;
    let (mut disk, mut appended) = (writers::empty(), writers::empty());
    let (turn, turns) = (Duration::from_millis(500), args.seconds * 2);
    let load = Load { batch: 1, clients: 1, payload: PAYLOAD, within: turn, at_most: u64::MAX };
    // By turns, because the disk is not the same from one second to the next.
    for _ in 0..turns {
        disk.add(baseline::sync_latency(folder.path(), turn)?)?;
        appended.add(writers::write(&target, load).await?.latency)?;
    }
    let [append, sync] = [appended, disk].map(|us| us.value_at_quantile(0.5) as f64 / 1e3);
    let note = format!("{append:.3} less {sync:.3}");
    Ok(vec![Figure { row: ROW, value: append - sync, note }])
}
