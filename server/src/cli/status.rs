//! `anabranch status`.

use anabranch_client::Stamp;
use anabranch_client::wire::{
    Context, Dot, NodeStatus, RegionStatus, StatusRequest, StatusResponse,
};
use anyhow::Result;
use comfy_table::{Table, presets};
use indicatif::{HumanBytes, HumanCount};
use serde_json::{Value, json};

use super::Exit;
use super::connect::{Connect, answered};
use super::print::utc;

/// Show how regions and nodes are
///
/// Asks every address in --endpoint. Fails if one of them does not answer.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

/// Asks all, prints what was answered.
pub async fn run(args: Args) -> Result<Exit> {
    let mut found = Vec::new();
    let mut exit = Exit::Done;
    for endpoint in args.connect.endpoints() {
        match ask(&args.connect, endpoint).await {
            Ok(status) => found.push((endpoint.clone(), status)),
            Err(error) => {
                eprintln!("error: {error:#}");
                exit = Exit::Failed;
            }
        }
    }
    match args.json {
        true => println!("{}", Value::from_iter(found.iter().map(|(at, s)| as_json(at, s)))),
        false => found.iter().for_each(|(endpoint, status)| print(endpoint, status)),
    }
    Ok(exit)
}

/// Asks one node.
pub async fn ask(connect: &Connect, endpoint: &str) -> Result<StatusResponse> {
    let mut cluster = connect.cluster(endpoint).await?;
    let status = cluster.status(StatusRequest { shard: 0 }).await;
    Ok(status.map_err(|status| answered(endpoint, status))?.into_inner())
}

fn print(endpoint: &str, status: &StatusResponse) {
    let StatusResponse { region, node, term, version, .. } = status;
    let leader = match status.leader {
        0 => "nobody leads".to_owned(),
        leader if leader == *node => "leads".to_owned(),
        leader => format!("node {leader} leads"),
    };
    println!("{region}, node {node} at {endpoint}: {leader}, term {term}, version {version}");
    println!(
        "  {} events in {} streams, {} of log, applied {} of {} entries",
        HumanCount(status.position),
        HumanCount(status.streams),
        HumanBytes(status.log_bytes),
        HumanCount(status.applied_index),
        HumanCount(status.last_index),
    );
    let waits = match status.blocked_by.as_slice() {
        [] => String::new(),
        regions => format!(", waits for {}", regions.join(", ")),
    };
    println!("  global order is final up to {}{waits}", HumanCount(status.global_position));
    println!("{}", nodes(&status.nodes, status.leader));
    println!("{}\n", regions(&status.regions));
}

/// The nodes of a region.
pub fn nodes(nodes: &[NodeStatus], leader: u64) -> Table {
    let mut table = table(&["node", "address", "role", "log up to", "behind"]);
    for node in nodes {
        let role = match (node.node == leader, node.voter) {
            (true, _) => "leader",
            (false, true) => "voter",
            (false, false) => "learner",
        };
        let known =
            |count: Option<u64>| count.map_or_else(|| "-".into(), |count| count.to_string());
        table.add_row([
            node.node.to_string(),
            node.address.clone(),
            role.to_owned(),
            known(node.matched_index),
            known(node.lag_entries),
        ]);
    }
    table
}

fn regions(regions: &[RegionStatus]) -> Table {
    let mut table = table(&[
        "region",
        "link",
        "events held",
        "known",
        "heard up to",
        "lacks ours for",
        "problem",
    ]);
    for region in regions {
        let heard = match region.watermark {
            0 => "never".to_owned(),
            stamp => utc(Stamp(stamp).unix_ms()),
        };
        let lag = match region.lag_ms {
            0 => "-".to_owned(),
            lag_ms => format!("{lag_ms} ms"),
        };
        table.add_row([
            region.region.clone(),
            region.link.clone(),
            region.seq.to_string(),
            region.known_seq.to_string(),
            heard,
            lag,
            region.problem.clone(),
        ]);
    }
    table
}

/// A table of ours, with its head.
pub fn table(head: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_header(head);
    table
}

fn as_json(endpoint: &str, status: &StatusResponse) -> Value {
    let node = |node: &NodeStatus| {
        json!({
            "node": node.node,
            "address": node.address,
            "voter": node.voter,
            "matched_index": node.matched_index,
            "lag_entries": node.lag_entries,
        })
    };
    let region = |region: &RegionStatus| {
        json!({
            "region": region.region,
            "incarnation": hex(&region.incarnation),
            "seq": region.seq,
            "known_seq": region.known_seq,
            "watermark_unix_ms": (region.watermark > 0).then(|| Stamp(region.watermark).unix_ms()),
            "receipt_events": region.receipt_events,
            "lag_ms": region.lag_ms,
            "link": region.link,
            "held": region.held,
            "problem": region.problem,
        })
    };
    json!({
        "endpoint": endpoint,
        "region": status.region,
        "node": status.node,
        "incarnation": hex(&status.incarnation),
        "version": status.version,
        "leader": status.leader,
        "leader_address": status.leader_address,
        "term": status.term,
        "last_index": status.last_index,
        "applied_index": status.applied_index,
        "position": status.position,
        "global_position": status.global_position,
        "streams": status.streams,
        "log_bytes": status.log_bytes,
        "blocked_by": status.blocked_by,
        "frontier": frontier(status.frontier.as_ref()),
        "nodes": Value::from_iter(status.nodes.iter().map(node)),
        "regions": Value::from_iter(status.regions.iter().map(region)),
    })
}

fn frontier(context: Option<&Context>) -> Value {
    let dots = context.map(|context| context.dots.as_slice()).unwrap_or_default();
    let dot = |dot: &Dot| {
        let origin = dot.origin.as_ref();
        json!({
            "region": origin.map(|origin| origin.region.as_str()),
            "incarnation": origin.map(|origin| hex(&origin.incarnation)),
            "seq": dot.seq,
        })
    };
    Value::from_iter(dots.iter().map(dot))
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
