//! `anabranch members`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anabranch_client::wire::cluster_client::ClusterClient;
use anabranch_client::wire::{ChangeMembershipRequest, Member, StatusRequest, StatusResponse};
use anabranch_core::RegionName;
use anabranch_gossip::region_server_name;
use anabranch_server::config::{self, Config};
use anabranch_server::raft::RaftTls;
use anyhow::{Context, Result};
use tokio::time::{Instant, sleep};
use tonic::transport::{Channel, ClientTlsConfig};

use super::Exit;
use super::connect::{Connect, answered, connect};
use super::status;

/// Show or change which nodes of a region vote
///
/// With --config, asks the nodes of the configuration at their Raft ports, with its certificate; a change
/// is made there only. Else shows what --endpoint says.
///
/// New nodes must run already, with `join = true`: they catch up first, then vote. Nodes that are no
/// longer named leave. The region takes writes meanwhile. A node id is never used again.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Ids of all nodes that vote from now on, separated by commas; shows the present ones if absent
    #[arg(long, value_name = "IDS", value_delimiter = ',', requires = "config")]
    voters: Vec<u64>,
    /// Configuration file of a node of the region: says where the nodes are, and has the certificate
    #[arg(long, short, env = "ANABRANCH_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// How long new nodes may take to catch up, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    within: u64,
    /// Print as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

/// How long the nodes may take to agree on a leader.
const LEADER_WITHIN: Duration = Duration::from_secs(10);
const ASK_AGAIN: Duration = Duration::from_millis(300);

/// Shows the members, after changing them if asked to.
pub async fn run(args: Args) -> Result<Exit> {
    let status = match &args.config {
        Some(config) => Region::read(config)?.members(&args).await?,
        None => {
            let endpoint = args.connect.endpoints().first().context("--endpoint is empty")?;
            status::ask(&args.connect, endpoint).await?
        }
    };
    if args.json {
        println!("{}", status::nodes_json(&status));
        return Ok(Exit::Done);
    }
    println!("{}", status::nodes(&status.nodes, status.leader));
    if let Some(hint) = status::ask_the_leader(&status) {
        println!("{hint}");
    }
    Ok(Exit::Done)
}

/// A region as a configuration knows it.
struct Region {
    nodes: Vec<config::Member>,
    routes: Vec<config::Route>,
    tls: ClientTlsConfig,
}

impl Region {
    fn read(config: &Path) -> Result<Self> {
        let config = Config::read(config)?;
        let region = RegionName::new(&config.region)
            .with_context(|| format!("region {:?} of the configuration", config.region))?;
        let read =
            |path: &Path| std::fs::read(path).with_context(|| format!("read {}", path.display()));
        let tls = RaftTls {
            ca: read(&config.tls.ca)?,
            certificate: read(&config.tls.cert)?,
            key: read(&config.tls.key)?,
            server_name: region_server_name(&region),
        };
        Ok(Self { nodes: config.nodes, routes: config.routes, tls: tls.client() })
    }

    async fn members(&self, args: &Args) -> Result<StatusResponse> {
        let (at, status) = self.leader().await?;
        if args.voters.is_empty() {
            return Ok(status);
        }
        let voters =
            args.voters.iter().map(|id| member(*id, &self.nodes)).collect::<Result<_>>()?;
        let within = Duration::from_secs(args.within);
        let mut request = tonic::Request::new(ChangeMembershipRequest { shard: 0, voters });
        request.set_timeout(within);
        let mut cluster = self.connect(&at, within).await?;
        let changed = cluster.change_membership(request).await;
        changed.map_err(|status| answered(&at, status))?;
        Ok(self.leader().await?.1)
    }

    /// Where the leader is, and what it says of itself. Any node of the configuration may be down or
    /// have left.
    async fn leader(&self) -> Result<(String, StatusResponse)> {
        let until = Instant::now() + LEADER_WITHIN;
        let mut last = None;
        loop {
            for at in self.nodes.iter().map(|node| self.url(node)) {
                match self.ask(&at).await {
                    Ok(status) if status.leader == status.node => return Ok((at, status)),
                    Ok(status) => {
                        let led_by = match status.leader {
                            0 => "sees no leader".to_owned(),
                            leader => format!("says that node {leader} leads"),
                        };
                        last = Some(anyhow::anyhow!("node {} {led_by}", status.node));
                    }
                    Err(error) => last = Some(last.unwrap_or(error)),
                }
            }
            if Instant::now() >= until {
                let last =
                    last.unwrap_or_else(|| anyhow::anyhow!("the configuration has no nodes"));
                return Err(last.context(format!("find the leader within {LEADER_WITHIN:?}")));
            }
            sleep(ASK_AGAIN).await;
        }
    }

    async fn ask(&self, at: &str) -> Result<StatusResponse> {
        let mut cluster = self.connect(at, LEADER_WITHIN).await?;
        let status = cluster.status(StatusRequest { shard: 0 }).await;
        Ok(status.map_err(|status| answered(at, status))?.into_inner())
    }

    async fn connect(&self, at: &str, within: Duration) -> Result<ClusterClient<Channel>> {
        connect(at, Some(self.tls.clone()), within).await
    }

    /// Where a node takes Raft's connections, from where this configuration is.
    fn url(&self, node: &config::Member) -> String {
        let route = self.routes.iter().find(|route| route.to == node.raft);
        format!("https://{}", route.map_or(&node.raft, |route| &route.via))
    }
}

fn member(id: u64, nodes: &[config::Member]) -> Result<Member> {
    let node = nodes.iter().find(|node| node.id == id);
    let node = node.with_context(|| format!("node {id} is not among the configuration's nodes"))?;
    let (raft_address, api_address) = (node.raft.clone(), node.api.clone());
    Ok(Member { node: id, raft_address, api_address })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_moved_is_asked_where_it_is_and_named_as_the_members_have_it() {
        let node = |id: u64, raft: &str| config::Member {
            id,
            api: format!("api-{id}:1"),
            raft: raft.to_owned(),
            gossip: format!("gossip-{id}:1"),
        };
        let moved = config::Route { to: "b:1".to_owned(), via: "c:1".to_owned() };
        let region = Region {
            nodes: vec![node(1, "a:1"), node(2, "b:1")],
            routes: vec![moved],
            tls: ClientTlsConfig::new(),
        };
        let urls: Vec<_> = region.nodes.iter().map(|node| region.url(node)).collect();
        assert_eq!(urls, ["https://a:1", "https://c:1"]);
        assert_eq!(member(2, &region.nodes).unwrap().raft_address, "b:1");
        assert!(member(3, &region.nodes).unwrap_err().to_string().contains("node 3"));
    }
}
