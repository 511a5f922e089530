//! After the faults: waits until the regions agree, then reads everything.

use std::collections::BTreeMap;
use std::time::Duration;

use anabranch_client::{Client, Order};
use anyhow::Context;
use tokio::time::{Instant, sleep};

use crate::cluster::{Cluster, REGIONS};
use crate::evidence::{Print, RegionRead, Seen};

const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How a node stands, as far as agreement goes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Standing {
    frontier: anabranch_client::Context,
    position: u64,
    global_position: u64,
}

/// Waits until all nodes hold the same events and deliver all of them in global order. Returns how
/// many there are.
///
/// # Errors
/// What still differs after `within`.
pub async fn converge(cluster: &Cluster, within: Duration) -> Result<u64, Vec<String>> {
    let deadline = Instant::now() + within;
    loop {
        let standings = standings(cluster).await;
        match agreed(&standings) {
            Some(events) => return Ok(events),
            None if Instant::now() >= deadline => {
                let words = |(name, standing): (String, Option<Standing>)| match standing {
                    None => format!("{name} does not answer"),
                    Some(Standing { frontier, position, global_position }) => {
                        format!(
                            "{name} holds {frontier}, {position} events, {global_position} final"
                        )
                    }
                };
                return Err(standings.into_iter().map(words).collect());
            }
            None => sleep(LOOK_EVERY).await,
        }
    }
}

async fn standings(cluster: &Cluster) -> BTreeMap<String, Option<Standing>> {
    let mut standings = BTreeMap::new();
    for at in cluster.all() {
        let standing = cluster.status(at).await.and_then(|status| {
            Some(Standing {
                frontier: status.frontier?.try_into().ok()?,
                position: status.position,
                global_position: status.global_position,
            })
        });
        standings.insert(cluster.name(at).to_owned(), standing);
    }
    standings
}

fn agreed(standings: &BTreeMap<String, Option<Standing>>) -> Option<u64> {
    let first = standings.values().next()?.clone()?;
    let same = standings.values().all(|standing| standing.as_ref() == Some(&first));
    let all_final = first.position == first.global_position && first.position > 0;
    (same && all_final).then_some(first.position)
}

/// Reads every region in both orders.
///
/// # Errors
/// If a region cannot be read.
pub async fn read(cluster: &Cluster) -> anyhow::Result<BTreeMap<String, RegionRead>> {
    let mut regions = BTreeMap::new();
    for (region, name) in REGIONS.iter().enumerate() {
        let client = Client::builder().region(*name, cluster.api(region)).build()?;
        let regional = events(&client, Order::Regional).await;
        let global = events(&client, Order::Global).await;
        let reading = || format!("read all events of {name}");
        let read = RegionRead {
            regional: regional.with_context(reading)?,
            global: global.with_context(reading)?,
        };
        regions.insert((*name).to_owned(), read);
    }
    Ok(regions)
}

async fn events(client: &Client, order: Order) -> anyhow::Result<Vec<Seen>> {
    let mut events = client.read_all().order(order).events();
    let mut all = Vec::new();
    while let Some(event) = events.next().await {
        all.push(event?.into());
    }
    Ok(all)
}

/// Asks every node for its fingerprint.
///
/// # Errors
/// If a node does not answer.
pub async fn prints(cluster: &Cluster) -> anyhow::Result<BTreeMap<String, Print>> {
    let mut prints = BTreeMap::new();
    for at in cluster.all() {
        let name = cluster.name(at).to_owned();
        let wire = cluster.client(at).fingerprint(&[]).await;
        let wire = wire.with_context(|| format!("ask {name} for its fingerprint"))?;
        prints.insert(name, wire.try_into()?);
    }
    Ok(prints)
}
