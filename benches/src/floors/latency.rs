//! How much longer an append takes than the disk does.

use std::time::Duration;

use super::append::PAYLOAD;
use super::{Figure, FloorsArgs};
use crate::baseline;
use crate::target::{Target, scratch};
use crate::writers::{self, Load};

pub(super) const ROW: &str = "latency";
/// The disk alone is measured for this long, before and after.
const DISK: Duration = Duration::from_millis(1_500);

pub(super) async fn measure(args: &FloorsArgs) -> anyhow::Result<Vec<Figure>> {
    let folder = scratch(args.data.as_deref())?;
    let target = Target::start(1, 1, &folder.path().join("nodes"))?;
    target.ready().await?;
    let mut disk = baseline::sync_latency(folder.path(), DISK)?;
    let within = Duration::from_secs(args.seconds);
    let load = Load { batch: 1, clients: 1, payload: PAYLOAD, within, at_most: u64::MAX };
    let appended = writers::write(&target, load).await?.latency;
    disk.add(baseline::sync_latency(folder.path(), DISK)?)?;
    let [append, sync] = [appended, disk].map(|us| us.value_at_quantile(0.5) as f64 / 1e3);
    let note = format!("{append:.3} less {sync:.3}");
    Ok(vec![Figure { row: ROW, value: append - sync, note }])
}
