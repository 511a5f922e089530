//! Where the clients' clients come from: a simulated network, or real sockets.

use anabranch_client::Client;

/// A client that somebody wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Number of the region it is at home in.
    pub home: usize,
    /// Whether it may go to the other regions when its own is gone. A client that may not has no
    /// fallback regions at all.
    pub roams: bool,
    /// Draws its random choices, its producers' ids too: never the same for two clients of a run.
    pub seed: u64,
}

/// The regions under test, as clients reach them. Their number and size do not change in a run.
pub trait Sites: Send + Sync + 'static {
    /// Names of the regions, sorted.
    fn regions(&self) -> &[String];
    /// Number of nodes of a region.
    fn nodes(&self, region: usize) -> usize;
    /// A client of a whole region.
    fn client(&self, wanted: Wanted) -> Client;
    /// A client that asks this node only. In a simulation its random choices follow from the seed, too.
    fn node_client(&self, region: usize, node: usize) -> Client;

    /// The name of a node, as reports have it.
    fn node_name(&self, region: usize, node: usize) -> String {
        format!("{}-{}", self.regions()[region], node + 1)
    }
    /// Every node: number of its region, number within it.
    fn all_nodes(&self) -> Vec<(usize, usize)> {
        let regions = 0..self.regions().len();
        regions.flat_map(|region| (0..self.nodes(region)).map(move |node| (region, node))).collect()
    }
    /// A region `steps` further round the circle than `region`.
    fn around(&self, region: usize, steps: usize) -> usize {
        (region + steps) % self.regions().len()
    }
}
