//! Gathering the evidence: waiting until the regions agree, and reading everything back.

use std::collections::BTreeMap;
use std::time::Duration;

use anabranch_client::{Client, Order, ReadError, wire};
use anabranch_core::{Context, Dot, RegionName};
use anyhow::Context as _;
use futures_util::future::join_all;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::cluster::Endpoints;
use super::proof::NodePrint;
use super::reading::{GlobalReading, RegionReading};

/// Pause between two looks at all nodes.
const LOOK: Duration = Duration::from_millis(200);

/// One client for each node.
pub struct Nodes {
    nodes: Vec<(RegionName, u64, Client)>,
}

/// What all nodes held when they were looked at last.
pub struct Converged {
    /// Every node that answered.
    pub prints: Vec<NodePrint>,
    /// Why they do not agree yet; none if they do.
    pub lacking: Option<String>,
}

impl Nodes {
    /// A client for each node of the regions.
    ///
    /// # Errors
    /// If an address is none.
    pub fn new(endpoints: &[Endpoints]) -> anyhow::Result<Self> {
        let mut nodes = Vec::new();
        for region in endpoints {
            for (node, client) in (1..).zip(region.clients_of_nodes()?) {
                nodes.push((region.region.clone(), node, client));
            }
        }
        Ok(Self { nodes })
    }

    /// Waits until every node holds everything up to `heads`, all hold the same, and the global order
    /// is final up to there; at most `within`.
    pub async fn converge(&self, heads: &BTreeMap<RegionName, u64>, within: Duration) -> Converged {
        let deadline = Instant::now() + within;
        loop {
            let (prints, mut lacking) = self.look().await;
            lacking = lacking.or_else(|| lag(&prints, heads));
            if lacking.is_none() || deadline <= Instant::now() {
                return Converged { prints, lacking };
            }
            sleep(LOOK).await;
        }
    }

    async fn look(&self) -> (Vec<NodePrint>, Option<String>) {
        let asked = self.nodes.iter().map(|(region, node, client)| async move {
            let print = client.fingerprint(&[]).await.map_err(anyhow::Error::from);
            let print = print.and_then(|print| node_print(region, *node, print));
            print.map_err(|error| format!("{region} node {node} does not answer: {error:#}"))
        });
        let (mut prints, mut silent) = (Vec::new(), None);
        for answer in join_all(asked).await {
            match answer {
                Ok(print) => prints.push(print),
                Err(error) => silent = silent.or(Some(error)),
            }
        }
        (prints, silent)
    }
}

/// What is still missing somewhere, if anything is.
fn lag(prints: &[NodePrint], heads: &BTreeMap<RegionName, u64>) -> Option<String> {
    let first = prints.first()?;
    for print in prints {
        let name = format!("{} node {}", print.region, print.node);
        for (origin, head) in heads {
            let of_region = print.frontier.iter().filter(|(o, _)| o.region == *origin);
            let held: u64 = of_region.map(|(_, seq)| seq.0).sum();
            if held < *head {
                return Some(format!("{name} holds {held} of {head} events of {origin}"));
            }
        }
        if print.frontier != first.frontier {
            return Some(format!("{name} holds {}, others {}", print.frontier, first.frontier));
        }
        let (events, position) = (print.frontier.events(), print.global_position);
        if position < events {
            return Some(format!("{name}: global order final up to {position} of {events}"));
        }
    }
    None
}

fn node_print(
    region: &RegionName,
    node: u64,
    print: wire::FingerprintResponse,
) -> anyhow::Result<NodePrint> {
    let chain = |at: wire::ChainAt| {
        let dot = wire::Dot { origin: at.origin, seq: at.seq };
        anyhow::Ok((Dot::try_from(dot)?, at.chain.to_vec()))
    };
    Ok(NodePrint {
        region: region.clone(),
        node,
        frontier: Context::try_from(print.frontier.unwrap_or_default())?,
        streams: print.streams,
        buckets: print.buckets.iter().map(|bucket| bucket.to_vec()).collect(),
        chains: print
            .chains
            .into_iter()
            .filter(|at| at.seq > 0)
            .map(chain)
            .collect::<Result<_, _>>()?,
        global_position: print.global_position,
        global_chain: print.global_chain.to_vec(),
    })
}

/// Reads everything from one node of every region, in both orders; all regions at once.
///
/// # Errors
/// If a region cannot be read to its end.
pub async fn read_back(
    endpoints: &[Endpoints],
) -> anyhow::Result<(Vec<RegionReading>, Vec<GlobalReading>)> {
    let mut reading = JoinSet::new();
    for (place, endpoints) in endpoints.iter().enumerate() {
        let (client, name) = (endpoints.client()?, endpoints.region.clone());
        reading.spawn(async move {
            let regional = read_regional(&client, &name).await;
            let regional = regional.with_context(|| format!("read {name} in its own order"))?;
            let global = read_global(&client, &name).await;
            let global = global.with_context(|| format!("read {name} in global order"))?;
            anyhow::Ok((place, (regional, global)))
        });
    }
    let mut read = BTreeMap::new();
    while let Some(done) = reading.join_next().await {
        read.extend([done??]);
    }
    Ok(read.into_values().unzip())
}

async fn read_regional(client: &Client, region: &RegionName) -> Result<RegionReading, ReadError> {
    let mut reading = RegionReading::new(region.clone());
    let mut events = client.read_all().order(Order::Regional).events();
    while let Some(event) = events.next().await {
        reading.add(&event?);
    }
    Ok(reading)
}

async fn read_global(client: &Client, region: &RegionName) -> Result<GlobalReading, ReadError> {
    let mut reading = GlobalReading::new(region.clone());
    let mut events = client.read_all().order(Order::Global).events();
    while let Some(event) = events.next().await {
        reading.add(&event?);
    }
    Ok(reading)
}

#[cfg(test)]
mod tests {
    use anabranch_core::{Incarnation, Origin, Seq, ShardId};

    use super::*;

    fn region(name: &str) -> RegionName {
        RegionName::new(name).unwrap()
    }
    fn print(node: u64, seq: u64, global_position: u64) -> NodePrint {
        let (region, shard) = (region("eu"), ShardId(0));
        let origin = Origin { region: region.clone(), incarnation: Incarnation(1), shard };
        NodePrint {
            region,
            node,
            frontier: [(origin, Seq(seq))].into_iter().collect(),
            streams: 1,
            buckets: Vec::new(),
            chains: Vec::new(),
            global_position,
            global_chain: Vec::new(),
        }
    }

    #[test]
    fn regions_agree_when_all_hold_the_same_no_less_than_was_acknowledged_and_all_is_final() {
        let heads = BTreeMap::from([(region("eu"), 5)]);
        assert_eq!(lag(&[print(1, 5, 5), print(2, 5, 5)], &heads), None);
        let says = |prints: &[NodePrint]| lag(prints, &heads).expect("they do not agree");
        assert!(says(&[print(1, 5, 5), print(2, 4, 4)]).contains("node 2 holds 4 of 5"));
        assert!(says(&[print(1, 5, 5), print(2, 6, 6)]).contains("holds eu:6, others eu:5"));
        assert!(says(&[print(1, 5, 4), print(2, 5, 5)]).contains("final up to 4 of 5"));
    }
}
