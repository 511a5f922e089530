//! Looks into every node during the run, from outside of simulated time.

use anabranch_history::Ledger;
use anabranch_history::observation::Observation;
use anabranch_server::node::Node;
use bytes::Bytes;

use crate::cluster::{Cluster, NodeAt, region_name};

/// Enters what every running node shows now.
pub fn all(cluster: &Cluster, ledger: &Ledger) {
    for seat in cluster.seats() {
        let life = seat.lives();
        if let Some(Some(seen)) = seat.with(|node| look(node, seat.at, life)) {
            ledger.observe(Observation { at: cluster.elapsed(), ..seen });
        }
    }
}

fn look(node: &Node, NodeAt(region, number): NodeAt, life: u32) -> Option<Observation> {
    let shard = node.shards().values().next()?;
    let state = shard.state();
    let order = state.order();
    let finality = state.finality();
    let (frontier, position, watermark) =
        state.region(|region| (region.frontier().clone(), region.position(), region.watermark()));
    Some(Observation {
        at: std::time::Duration::ZERO,
        region: region_name(region),
        node: number as u32,
        life,
        frontier,
        position,
        watermark: Some(watermark),
        global_position: order.position,
        global_chain: Some(Bytes::copy_from_slice(&order.chain.0)),
        blocked_by: finality.blocked_by.iter().map(ToString::to_string).collect(),
    })
}
