//! `anabranch verify`.

mod compare;

use std::collections::BTreeMap;
use std::time::Duration;

use anabranch_client::wire::cluster_client::ClusterClient;
use anabranch_client::wire::{FingerprintRequest, FingerprintResponse};
use anyhow::{Result, bail};
use indicatif::HumanCount;
use tokio::time::{Instant, sleep};
use tonic::transport::Channel;

use super::Exit;
use super::connect::{Connect, answered};
use compare::{Agreement, Difference, Held, compare, differing_streams};

/// Pause between two looks while regions catch up with each other.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Streams named at most.
const STREAMS_SHOWN: usize = 20;

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
        bail!("give the addresses of at least two nodes, as --endpoint A,B");
    }
    let deadline = Instant::now() + Duration::from_secs(args.wait);
    loop {
        let held = look(&mut nodes, &[]).await?;
        match compare(&held) {
            Ok(Agreement::Partial { .. }) if Instant::now() < deadline => sleep(LOOK_EVERY).await,
            Ok(agreement) => return Ok(report(&agreement)),
            Err(difference) => return differs(&mut nodes, difference).await,
        }
    }
}

/// What every node holds now, with the streams of `buckets` one by one.
async fn look(nodes: &mut Nodes, buckets: &[u32]) -> Result<Vec<Held>> {
    let mut held = Vec::new();
    for (endpoint, cluster) in nodes {
        let request = FingerprintRequest { shard: 0, buckets: buckets.to_vec() };
        let answer: FingerprintResponse = match cluster.fingerprint(request).await {
            Ok(answer) => answer.into_inner(),
            Err(status) => return Err(answered(endpoint, status)),
        };
        held.push(Held::new(endpoint, answer)?);
    }
    Ok(held)
}

fn report(agreement: &Agreement) -> Exit {
    match agreement {
        Agreement::Full { events, streams } => {
            println!(
                "equal: all {} events of {} streams",
                HumanCount(*events),
                HumanCount(*streams)
            );
            Exit::Done
        }
        Agreement::Partial { global, chains: 0 } if *global == 0 => {
            println!("not comparable yet: the regions have nothing in common that is final");
            Exit::Failed
        }
        Agreement::Partial { global, chains } => {
            println!(
                "equal up to global position {}, and {chains} origins' chains as far as held; the \
                 regions do not hold the same events yet",
                HumanCount(*global),
            );
            Exit::Done
        }
    }
}

async fn differs(nodes: &mut Nodes, difference: Difference) -> Result<Exit> {
    println!("DIFFERENT: {difference}");
    let Difference::Buckets { buckets, .. } = &difference else { return Ok(Exit::Failed) };
    let held = look(nodes, buckets).await?;
    let streams = differing_streams(&held);
    for (stream, counts) in streams.iter().take(STREAMS_SHOWN) {
        let counts: Vec<_> = counts.iter().map(|(at, events)| format!("{at}: {events}")).collect();
        println!("  {stream}  events {}", counts.join(", "));
    }
    if streams.len() > STREAMS_SHOWN {
        println!("  and {} more streams", streams.len() - STREAMS_SHOWN);
    }
    Ok(Exit::Failed)
}
