//! A node that shows the past, or has forgotten it, says so.

use std::collections::BTreeMap;

use anabranch_client::event;
use anabranch_core::ShardId;
use anabranch_server::node::Node;
use anabranch_server::raft;
use tokio::time::{sleep, timeout};
use tonic::transport::Endpoint;
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::*;

async fn health(config: &Config) -> i32 {
    let own = config.nodes.iter().find(|node| node.id == config.node).unwrap();
    let endpoint = Endpoint::from_shared(format!("http://{}", own.api)).unwrap();
    let mut client = HealthClient::new(endpoint.connect().await.unwrap());
    let asked = HealthCheckRequest { service: String::new() };
    client.check(asked).await.unwrap().into_inner().status
}

async fn becomes(config: &Config, wanted: ServingStatus) {
    let wanted = wanted as i32;
    let polled = async {
        while health(config).await != wanted {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(SOON, polled).await.unwrap_or_else(|_| panic!("node {} is not {wanted}", config.node));
}

fn group(node: &Option<Node>) -> raft::RaftGroup {
    node.as_ref().unwrap().shards()[&ShardId(0)].raft().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_no_longer_a_member_is_not_healthy_though_nobody_tells_it() {
    let (_dir, configs) = region(3);
    let nodes = start_all(&configs).await;
    let first = leader(&nodes).await;
    for config in &configs {
        becomes(config, ServingStatus::Serving).await;
    }
    let leaves = (first + 1) % 3;
    let stay: BTreeMap<u64, raft::Node> = group(&nodes[first]).status().voters;
    let stay = stay.into_iter().filter(|(id, _)| *id != configs[leaves].node).collect();
    group(&nodes[first]).change_membership(stay, SOON).await.unwrap();
    becomes(&configs[leaves], ServingStatus::NotServing).await;
    becomes(&configs[first], ServingStatus::Serving).await;
    for node in nodes.iter().flatten() {
        node.drain().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_data_folder_was_lost_stops_and_says_what_to_do() {
    let (_dir, configs) = region(3);
    let mut nodes = start_all(&configs).await;
    let client = client(&configs);
    client.append("s-1", event("Before")).await.unwrap();
    let loses = (leader(&nodes).await + 1) % 3;
    nodes[loses].take().unwrap().drain().await;
    std::fs::remove_dir_all(&configs[loses].data_dir).unwrap();
    let forgetful = start(&configs[loses]).await;
    let why = timeout(SOON, forgetful.failed()).await.expect("it is told soon");
    assert!(why.contains("its disk was lost") && why.contains("new node id"), "{why}");
    forgetful.drain().await;
    client.append("s-1", event("After")).await.unwrap();
    for node in nodes.iter().flatten() {
        node.drain().await;
    }
}
