//! The cluster as its clients reach it.

use std::time::Duration;

use anabranch_client::Client;
use anabranch_workload::{Sites, Wanted};

use crate::world::SimNet;

/// Names and gRPC addresses of every node, by region.
#[derive(Debug, Clone, Default)]
pub struct SimSites {
    names: Vec<String>,
    nodes: Vec<Vec<(String, String)>>,
}

impl SimSites {
    /// Adds a region.
    pub fn add(&mut self, region: String, nodes: Vec<(String, String)>) {
        self.names.push(region);
        self.nodes.push(nodes);
    }

    fn addresses(&self, region: usize) -> Vec<String> {
        self.nodes[region].iter().map(|(_, address)| address.clone()).collect()
    }

    fn build(&self, builder: anabranch_client::Builder) -> Client {
        let net = SimNet::default();
        let dial = move |uri: http::Uri| {
            let net = net.clone();
            async move {
                let address = uri.authority().map_or("", http::uri::Authority::as_str);
                net.dial(address).await
            }
        };
        builder.connector(dial).build().expect("addresses of the simulation are fine")
    }
}

impl Sites for SimSites {
    fn regions(&self) -> &[String] {
        &self.names
    }
    fn nodes(&self, region: usize) -> usize {
        self.nodes[region].len()
    }

    fn client(&self, wanted: Wanted) -> Client {
        let Wanted { home, roams, seed } = wanted;
        let mut builder = Client::builder()
            .region(self.names[home].clone(), self.addresses(home))
            .seed(seed)
            .timeout(Duration::from_secs(5))
            .attempt_timeout(Duration::from_secs(2))
            .connect_timeout(Duration::from_millis(500));
        if roams {
            for steps in 1..self.names.len() {
                let other = self.around(home, steps);
                let (name, at) = (self.names[other].clone(), self.addresses(other));
                builder = builder.fallback_region(name, at);
            }
        }
        self.build(builder)
    }

    fn node_client(&self, region: usize, node: usize) -> Client {
        let address = self.nodes[region][node].1.clone();
        let seed = (region * 100 + node) as u64;
        self.build(Client::builder().region(self.names[region].clone(), [address]).seed(seed))
    }

    fn node_name(&self, region: usize, node: usize) -> String {
        self.nodes[region][node].0.clone()
    }
}
