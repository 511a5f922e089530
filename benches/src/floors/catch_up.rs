//! How fast a region takes in what it missed.

use super::{Figure, FloorsArgs};
use crate::catch_up::{self, EVENTS, Regions};
use crate::processes::FIRST_PORT;
use crate::target::scratch;

pub(super) const ROW: &str = "catch-up";
const REGIONS: usize = 3;

/// The third region misses what is written in the first.
pub(super) async fn measure(args: &FloorsArgs) -> anyhow::Result<Vec<Figure>> {
    let folder = scratch(args.data.as_deref())?;
    let mut regions = Regions::start(REGIONS, &folder.path().join("nodes"), FIRST_PORT)?;
    let caught = catch_up::measure(&mut regions, EVENTS).await?;
    let note = format!("{} events in {:.2} s", caught.missed, caught.took.as_secs_f64());
    Ok(vec![Figure { row: ROW, value: caught.rate(), note }])
}
