//! `anabranch members`.

use std::path::PathBuf;
use std::time::Duration;

use anabranch_client::wire::{ChangeMembershipRequest, Member};
use anabranch_server::config::{self, Config};
use anyhow::{Context, Result};

use super::Exit;
use super::connect::{Connect, answered};
use super::status;

/// Show or change which nodes of a region vote
///
/// New nodes must run already, with `join = true`: they catch up first, then vote. Nodes that are no
/// longer named leave. The region takes writes meanwhile. A node id is never used again.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Ids of all nodes that vote from now on, separated by commas; shows the present ones if absent
    #[arg(long, value_name = "IDS", value_delimiter = ',', requires = "config")]
    voters: Vec<u64>,
    /// Configuration file of the region, whose `nodes` say where each is
    #[arg(long, short, env = "ANABRANCH_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// How long new nodes may take to catch up, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    within: u64,
    #[command(flatten)]
    connect: Connect,
}

/// Shows the members, after changing them if asked to.
pub async fn run(args: Args) -> Result<Exit> {
    let endpoint = args.connect.endpoints().first().context("--endpoint is empty")?;
    if let (false, Some(config)) = (args.voters.is_empty(), &args.config) {
        let nodes = Config::read(config)?.nodes;
        let voters = args.voters.iter().map(|id| member(*id, &nodes)).collect::<Result<_>>()?;
        let within = Duration::from_secs(args.within);
        let mut request = tonic::Request::new(ChangeMembershipRequest { shard: 0, voters });
        request.set_timeout(within);
        let mut cluster = args.connect.cluster_within(endpoint, within).await?;
        let changed = cluster.change_membership(request).await;
        changed.map_err(|status| answered(endpoint, status))?;
    }
    let status = status::ask(&args.connect, endpoint).await?;
    println!("{}", status::nodes(&status.nodes, status.leader));
    Ok(Exit::Done)
}

fn member(id: u64, nodes: &[config::Member]) -> Result<Member> {
    let node = nodes.iter().find(|node| node.id == id);
    let node = node.with_context(|| format!("node {id} is not among the configuration's nodes"))?;
    let (raft_address, api_address) = (node.raft.clone(), node.api.clone());
    Ok(Member { node: id, raft_address, api_address })
}
