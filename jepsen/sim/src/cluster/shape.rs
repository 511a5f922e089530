//! What a simulated cluster is made of: drawn from the seed before anything runs.

use std::fmt;
use std::time::Duration;

use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;

use crate::world::seeds;

/// Most nodes of a cluster. Larger ones show nothing new and take long.
const NODES_MAX: usize = 12;

/// Regions, nodes, distances and speeds of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// Number of nodes of each region.
    pub nodes: Vec<usize>,
    /// Step of simulated time; messages arrive at steps.
    pub tick: Duration,
    /// One-way delay between nodes of one region.
    pub near: Duration,
    /// One-way delays between regions, by number.
    pub far: Vec<Vec<Duration>>,
    /// What a healthy disk takes to sync, on average.
    pub sync: Duration,
    /// Size of the log's segments; small ones are sealed within a run.
    pub segment_bytes: u64,
}

impl Shape {
    /// The shape of a seed's cluster.
    pub fn draw(seed: u64) -> Self {
        let mut random = seeds::rng(seed, "shape");
        let regions = *[2, 2, 2, 2, 3, 3, 3, 3, 4, 5].choose(&mut random).expect("not empty");
        let mut nodes: Vec<usize> = (0..regions).map(|_| draw_nodes(&mut random)).collect();
        while nodes.iter().sum::<usize>() > NODES_MAX {
            let largest = (0..regions).max_by_key(|at| nodes[*at]).expect("there are regions");
            nodes[largest] = if nodes[largest] > 3 { 3 } else { 1 };
        }
        let millis =
            |random: &mut SmallRng, from, to| Duration::from_millis(random.random_range(from..=to));
        let tick = *[2, 5, 5, 5, 5, 10, 10].choose(&mut random).expect("not empty");
        let mut far = vec![vec![Duration::ZERO; regions]; regions];
        for (one, other) in (0..regions).flat_map(|one| (0..one).map(move |other| (one, other))) {
            let way = millis(&mut random, 5, 120);
            (far[one][other], far[other][one]) = (way, way);
        }
        Self {
            nodes,
            tick: Duration::from_millis(tick),
            near: Duration::from_millis(1),
            far,
            sync: millis(&mut random, 0, 4),
            segment_bytes: *[64, 64, 64, 128].choose(&mut random).expect("not empty") * 1024,
        }
    }

    /// Number of regions.
    pub fn regions(&self) -> usize {
        self.nodes.len()
    }
    /// Number of nodes of all regions.
    pub fn size(&self) -> usize {
        self.nodes.iter().sum()
    }
    /// The nodes of a region.
    pub fn nodes_of(&self, region: usize) -> impl Iterator<Item = NodeAt> + use<> {
        (0..self.nodes[region]).map(move |node| NodeAt(region, node))
    }
    /// All nodes.
    pub fn all_nodes(&self) -> impl Iterator<Item = NodeAt> + '_ {
        (0..self.regions()).flat_map(|region| self.nodes_of(region))
    }
    /// The region in which a node can be replaced by a spare one: a quorum is left without it.
    pub fn spare(&self) -> Option<usize> {
        self.nodes.iter().position(|nodes| *nodes >= 3)
    }
}

fn draw_nodes(random: &mut SmallRng) -> usize {
    *[1, 1, 1, 2, 3, 3, 3, 3, 3, 4, 5].choose(random).expect("not empty")
}

/// Name of a region by its number.
pub fn region_name(region: usize) -> String {
    format!("r{}", region + 1)
}

/// A node: number of its region, and its number in it. Counted from 0; node ids count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeAt(pub usize, pub usize);

impl fmt::Display for NodeAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}n{}", self.0 + 1, self.1 + 1)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes: Vec<String> = self.nodes.iter().map(ToString::to_string).collect();
        let nodes = nodes.join("+");
        let (regions, tick, sync) = (self.regions(), self.tick, self.sync);
        write!(f, "{regions} regions of {nodes} nodes, steps of {tick:?}, sync {sync:?}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_within_bounds_and_of_all_sizes() {
        let shapes: Vec<Shape> = (0..300).map(Shape::draw).collect();
        for shape in &shapes {
            assert!((2..=5).contains(&shape.regions()), "{shape}");
            assert!(shape.nodes.iter().all(|nodes| (1..=5).contains(nodes)), "{shape}");
            assert!(shape.size() <= NODES_MAX, "{shape}");
        }
        for regions in 2..=5 {
            assert!(shapes.iter().any(|shape| shape.regions() == regions), "{regions} regions");
        }
        for nodes in 1..=5 {
            assert!(shapes.iter().any(|shape| shape.nodes.contains(&nodes)), "{nodes} nodes");
        }
        assert_eq!(Shape::draw(7), Shape::draw(7));
    }
}
