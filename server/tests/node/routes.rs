//! Nodes that are not where the region's members have them.

use anabranch_client::event;
use anabranch_server::config::{Config, Listen, Route};

use super::{client, free_address, region, start};

/// Lets the node listen somewhere else, and returns the ways there from where it was.
fn move_away(config: &mut Config) -> Vec<Route> {
    let own = config.nodes.iter().find(|member| member.id == config.node).unwrap();
    let [api, raft] =
        [&own.api, &own.raft].map(|to| Route { to: to.clone(), via: free_address().to_string() });
    let at = |route: &Route| Some(route.via.clone());
    config.listen = Listen { api: at(&api), raft: at(&raft), ..Listen::default() };
    vec![api, raft]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_moved_is_reached_by_the_routes_of_the_others() {
    let (_dir, mut configs) = region(2);
    // The one that writes the first members knows the other's old place, and the way from there.
    configs[0].routes = move_away(&mut configs[1]);
    configs[1].routes = move_away(&mut configs[0]);
    let nodes = [start(&configs[0]).await, start(&configs[1]).await];
    // A majority of two is both: they speak Raft with each other. And whichever does not lead passes
    // the append on to the other.
    for config in &configs {
        let mut alone = config.clone();
        alone.nodes.retain(|member| member.id == config.node);
        alone.nodes[0].api = config.listen.api.clone().unwrap();
        client(&[alone]).append("s-1", event("Moved")).await.unwrap();
    }
    for node in &nodes {
        node.drain().await;
    }
}
