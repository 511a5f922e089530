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
use super::print::{clean, utc};
use anabranch_server::hex::to_hex;

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
    args.connect.check()?;
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
        false => found.iter().for_each(|(at, status)| println!("{}", as_text(at, status))),
    }
    Ok(exit)
}

/// Asks one node.
pub async fn ask(connect: &Connect, endpoint: &str) -> Result<StatusResponse> {
    let mut cluster = connect.cluster(endpoint).await?;
    let status = cluster.status(StatusRequest { shard: 0 }).await;
    Ok(status.map_err(|status| answered(endpoint, status))?.into_inner())
}

/// Lines for people.
fn as_text(endpoint: &str, status: &StatusResponse) -> String {
    let StatusResponse { region, node, term, version, .. } = status;
    let leader = match status.leader {
        0 => "nobody leads".to_owned(),
        leader if leader == *node => "leads".to_owned(),
        leader => format!("node {leader} leads"),
    };
    let mut text =
        format!("{region}, node {node} at {endpoint}: {leader}, term {term}, version {version}\n");
    text += &format!(
        "  {} events in {} streams, {} of log, applied {} of {} entries\n",
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
    text +=
        &format!("  global order is final up to {}{waits}\n", HumanCount(status.global_position));
    if status.conflicts > 0 {
        text += &format!(
            "  {} conflicts of {} pairs of events (anabranch conflicts list)\n",
            HumanCount(status.conflicts),
            HumanCount(status.concurrent_pairs),
        );
    }
    text += &format!("{}\n", nodes(&status.nodes, status.leader));
    text += &format!("{}\n", regions(&status.regions));
    for region in status.regions.iter().filter(|region| !region.problem.is_empty()) {
        text += &format!("  problem of {}: {}\n", region.region, clean(&region.problem));
    }
    if let Some(hint) = ask_the_leader(status) {
        text += &format!("  {hint}\n");
    }
    text
}

/// What a node that does not lead cannot say.
pub fn ask_the_leader(status: &StatusResponse) -> Option<String> {
    let StatusResponse { leader, node, leader_address, .. } = status;
    (*leader != 0 && leader != node).then(|| {
        format!("how far the nodes are, and links and problems, are known by the leader: node {leader} at {leader_address}")
    })
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
    let mut table =
        table(&["region", "link", "events held", "known", "heard up to", "lacks ours for"]);
    for region in regions {
        let heard = match (region.watermark, &*region.link) {
            // Born, and nobody has promised anything yet.
            (0, "own" | "direct" | "relayed") => "-".to_owned(),
            (0, _) => "never".to_owned(),
            (stamp, _) => utc(Stamp(stamp).unix_ms()),
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

/// The members of a region, and who leads it.
pub fn nodes_json(status: &StatusResponse) -> Value {
    json!({
        "region": status.region,
        "asked": status.node,
        "leader": status.leader,
        "leader_address": status.leader_address,
        "nodes": Value::from_iter(status.nodes.iter().map(node_json)),
    })
}

fn node_json(node: &NodeStatus) -> Value {
    json!({
        "node": node.node,
        "address": node.address,
        "voter": node.voter,
        "matched_index": node.matched_index,
        "lag_entries": node.lag_entries,
    })
}

fn as_json(endpoint: &str, status: &StatusResponse) -> Value {
    let region = |region: &RegionStatus| {
        json!({
            "region": region.region,
            "incarnation": to_hex(&region.incarnation),
            "seq": region.seq,
            "known_seq": region.known_seq,
            "watermark_unix_ms": (region.watermark > 0).then(|| Stamp(region.watermark).unix_ms()),
            "receipt_events": region.receipt_events,
            "lag_ms": region.lag_ms,
            "link": region.link,
            "held": region.held,
            "problem": region.problem,
            "carried_to": region.carried_to,
            "carried_failed": region.carried_failed,
            "carried_from": region.carried_from,
        })
    };
    json!({
        "endpoint": endpoint,
        "region": status.region,
        "node": status.node,
        "incarnation": to_hex(&status.incarnation),
        "version": status.version,
        "leader": status.leader,
        "leader_address": status.leader_address,
        "term": status.term,
        "conflicts": status.conflicts,
        "concurrent_pairs": status.concurrent_pairs,
        "last_index": status.last_index,
        "applied_index": status.applied_index,
        "position": status.position,
        "global_position": status.global_position,
        "streams": status.streams,
        "log_bytes": status.log_bytes,
        "log_syncs": status.log_syncs,
        "blocked_by": status.blocked_by,
        "frontier": frontier(status.frontier.as_ref()),
        "nodes": Value::from_iter(status.nodes.iter().map(node_json)),
        "regions": Value::from_iter(status.regions.iter().map(region)),
    })
}

fn frontier(context: Option<&Context>) -> Value {
    let dots = context.map(|context| context.dots.as_slice()).unwrap_or_default();
    let dot = |dot: &Dot| {
        let origin = dot.origin.as_ref();
        json!({
            "region": origin.map(|origin| origin.region.as_str()),
            "incarnation": origin.map(|origin| to_hex(&origin.incarnation)),
            "seq": dot.seq,
        })
    };
    Value::from_iter(dots.iter().map(dot))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_have_lines_of_their_own_and_who_knows_more_is_named() {
        let problem = "its disks were set back to an older copy, or lost; ".repeat(5);
        let region = |region: &str, link: &str, problem: &str| RegionStatus {
            region: region.to_owned(),
            link: link.to_owned(),
            problem: problem.to_owned(),
            ..RegionStatus::default()
        };
        let regions = vec![region("eu", "own", &problem), region("us", "down", "")];
        let leader_address = "a:1".to_owned();
        let asked = StatusResponse { node: 2, leader: 1, leader_address, regions, ..status() };
        let text = as_text("b:1", &asked);
        let lines: Vec<_> = text.lines().collect();
        assert!(lines.contains(&format!("  problem of eu: {problem}").as_str()), "{text}");
        let row = |start: &str| *lines.iter().find(|line| line.trim().starts_with(start)).unwrap();
        assert!(row("region ").chars().count() < 100, "{text}");
        assert!(
            lines.last().unwrap().ends_with("are known by the leader: node 1 at a:1"),
            "{text}"
        );
        assert!(!row("eu ").contains("never") && row("us ").contains("never"), "{text}");

        assert_eq!(ask_the_leader(&StatusResponse { node: 1, leader: 1, ..status() }), None);
        assert_eq!(ask_the_leader(&StatusResponse { node: 1, leader: 0, ..status() }), None);
    }

    fn status() -> StatusResponse {
        StatusResponse { region: "eu".to_owned(), ..StatusResponse::default() }
    }
}
