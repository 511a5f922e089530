//! From region to region, nearly idle. Regions are on loopback, so the distance is none.

use std::time::Duration;

use super::{Figure, FloorsArgs};
use crate::lag;
use crate::target::{Target, scratch};

pub(super) const ROWS: [&str; 2] = ["lag", "global-lag"];

pub(super) async fn measure(args: &FloorsArgs) -> anyhow::Result<Vec<Figure>> {
    let folder = scratch(args.data.as_deref())?;
    let target = Target::start(3, 1, &folder.path().join("nodes"))?;
    target.ready().await?;
    let lag = lag::measure(&target, Duration::from_secs(args.seconds)).await?;
    let figure = |(row, us): (&'static str, &hdrhistogram::Histogram<u64>)| {
        let ms = |quantile| us.value_at_quantile(quantile) as f64 / 1e3;
        Figure { row, value: ms(0.99), note: format!("p50 {:.1}", ms(0.5)) }
    };
    Ok([(ROWS[0], &lag.regional), (ROWS[1], &lag.global)].map(figure).into())
}
