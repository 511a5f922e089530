//! `anabranch verify`.

mod compare;
mod report;

use std::collections::BTreeMap;
use std::time::Duration;

use anabranch_client::wire::cluster_client::ClusterClient;
use anabranch_client::wire::{FingerprintRequest, StatusRequest};
use anyhow::Result;
use tokio::time::{Instant, sleep};
use tonic::transport::Channel;

use super::connect::{Connect, answered};
use super::print::clean;
use super::{Exit, WrongUsage};
use compare::{Agreement, Difference, Held, compare, differing_streams};
use report::Report;

/// Pause between two looks while regions catch up with each other.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Compare what regions hold
///
/// Give one address of each region. Regions that hold the same events are compared stream by stream.
/// While they receive events they never do; then they are compared as far as the global order is final
/// in all of them, and where they hold the same number of an origin's events.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How long to wait until all hold the same events, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    wait: u64,
    /// Print the outcome as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

type Nodes = BTreeMap<String, ClusterClient<Channel>>;

/// Compares, waiting until that says the most.
pub async fn run(args: Args) -> Result<Exit> {
    let mut nodes = Nodes::new();
    for endpoint in args.connect.endpoints() {
        nodes.insert(endpoint.clone(), args.connect.cluster(endpoint).await?);
    }
    if nodes.len() < 2 {
        let problem = "give the addresses of at least two nodes, as --endpoint A,B";
        return Err(WrongUsage(problem.to_owned()).into());
    }
    let deadline = Instant::now() + Duration::from_secs(args.wait);
    let report = loop {
        let held = look(&mut nodes, &[]).await?;
        match compare(&held) {
            Ok(Agreement::Partial { .. }) if Instant::now() < deadline => sleep(LOOK_EVERY).await,
            Ok(agreement) => break Report::agree(&held, agreement),
            Err(difference) => break differ(&mut nodes, difference).await?,
        }
    };
    match args.json {
        true => println!("{}", report.as_json()),
        false => print!("{}", clean_lines(&report.as_text())),
    }
    Ok(if report.holds() { Exit::Done } else { Exit::Failed })
}

fn clean_lines(text: &str) -> String {
    text.lines().map(|line| clean(line) + "\n").collect()
}

/// What every node holds now, with the streams of `buckets` one by one.
async fn look(nodes: &mut Nodes, buckets: &[u32]) -> Result<Vec<Held>> {
    let mut held = Vec::new();
    for (endpoint, cluster) in nodes {
        let failed = |status| answered(endpoint, status);
        let request = FingerprintRequest { shard: 0, buckets: buckets.to_vec() };
        let answer = cluster.fingerprint(request).await.map_err(failed)?.into_inner();
        let status = cluster.status(StatusRequest { shard: 0 }).await.map_err(failed)?.into_inner();
        held.push(Held::new(endpoint, answer, status)?);
    }
    Ok(held)
}

async fn differ(nodes: &mut Nodes, difference: Difference) -> Result<Report> {
    let streams = match &difference {
        Difference::Buckets { buckets, .. } => differing_streams(&look(nodes, buckets).await?),
        _ => BTreeMap::new(),
    };
    Ok(Report::Differ { difference, streams })
}
