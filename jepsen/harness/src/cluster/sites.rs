//! The regions as clients reach them: over TCP on this machine.

use std::time::Duration;

use anabranch_client::Client;
use anabranch_workload::{Sites, Wanted};

use super::REGIONS;

/// gRPC addresses of all nodes.
#[derive(Debug, Clone)]
pub struct Addresses {
    regions: Vec<String>,
    nodes: Vec<Vec<String>>,
}

impl Addresses {
    /// Of each region, the addresses of its nodes.
    pub(super) fn new(nodes: Vec<Vec<String>>) -> Self {
        Self { regions: REGIONS.map(str::to_owned).into(), nodes }
    }
}

impl Sites for Addresses {
    fn regions(&self) -> &[String] {
        &self.regions
    }
    fn nodes(&self, region: usize) -> usize {
        self.nodes[region].len()
    }
    fn client(&self, wanted: Wanted) -> Client {
        let Wanted { home, roams, seed } = wanted;
        let mut builder = Client::builder()
            .region(&self.regions[home], self.nodes[home].clone())
            .timeout(Duration::from_secs(5))
            .attempt_timeout(Duration::from_secs(2))
            .connect_timeout(Duration::from_millis(500))
            .seed(seed);
        if roams {
            for step in 1..self.regions.len() {
                let other = self.around(home, step);
                builder = builder.fallback_region(&self.regions[other], self.nodes[other].clone());
            }
        }
        builder.build().expect("addresses of this machine are addresses")
    }
    fn node_client(&self, region: usize, node: usize) -> Client {
        Client::builder()
            .region(&self.regions[region], [&self.nodes[region][node]])
            .timeout(Duration::from_secs(5))
            .build()
            .expect("an address of this machine is an address")
    }
}
