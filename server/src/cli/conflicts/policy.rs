//! `anabranch conflicts policy`.

use anabranch_client::{Order, PoliciesKnown, Policy, SetPolicyError};
use anabranch_core::RegionName;
use anyhow::Result;
use indicatif::HumanCount;
use serde_json::{Value, json};

use crate::cli::connect::{Connect, explain};
use crate::cli::print::{clean, harmless, utc};
use crate::cli::{Exit, WrongUsage};

/// Show or set which of several concurrent events counts
///
/// Without a policy, shows those that are set, and how many conflicts there are. All events stay readable,
/// whatever it is; it holds for what is there already, too.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Category: `cart` has the streams `cart-1` and `cart-2`
    category: Option<String>,
    /// keep-all, last-writer-wins, first-writer-wins, region-priority or resolver
    policy: Option<String>,
    /// Regions of region-priority, the first counts most
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    regions: Vec<String>,
    /// Version; the highest counts. The next one unless given
    #[arg(long = "as-version", value_name = "N")]
    version: Option<u32>,
    /// Print as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

pub async fn run(args: Args) -> Result<Exit> {
    match (args.category.clone(), args.policy.clone()) {
        (Some(category), Some(policy)) => set(args, &category, &policy).await,
        _ => show(args).await,
    }
}

async fn set(args: Args, category: &str, policy: &str) -> Result<Exit> {
    let usage = |problem: String| anyhow::Error::from(WrongUsage(problem));
    let regions = args.regions.iter().map(|name| RegionName::new(name));
    let regions = regions.collect::<Result<_, _>>().map_err(|error| usage(error.to_string()))?;
    let policy = Policy::named(policy, regions).map_err(|error| usage(error.to_string()))?;
    let client = args.connect.client().await?;
    let set = match client.set_policy(category, &policy, args.version).await {
        Ok(set) => set,
        Err(SetPolicyError::Refused(error)) => {
            return Err(explain(error).context("nothing was set"));
        }
        Err(error @ SetPolicyError::Unknown(_)) => {
            let error = clean(&error.to_string());
            eprintln!("error: {error}; it may be set: set the same again");
            return Ok(Exit::Unknown);
        }
    };
    let text = match (args.json, set.repeated) {
        (true, repeated) => {
            let dot = set.dot.map(|dot| dot.to_string());
            json!({ "category": set.category, "version": set.version, "repeated": repeated, "dot": dot })
                .to_string()
        }
        (false, true) => format!("{} version {} is {policy} already", set.category, set.version),
        (false, false) => format!("{} version {} is {policy}", set.category, set.version),
    };
    println!("{}", if args.json { harmless(&text) } else { clean(&text) });
    Ok(Exit::Done)
}

async fn show(args: Args) -> Result<Exit> {
    let client = args.connect.client().await?;
    let category = args.category.unwrap_or_default();
    let known = client.policies(category, Order::Regional).await.map_err(explain)?;
    match args.json {
        true => println!("{}", harmless(&as_json(&known).to_string())),
        false => lines(&known).iter().for_each(|line| println!("{}", clean(line))),
    }
    Ok(Exit::Done)
}

fn lines(known: &PoliciesKnown) -> Vec<String> {
    let count = |category: &str| known.counts.iter().find(|count| count.category == category);
    let counted = |category: &str| match count(category) {
        None => "no conflicts".to_owned(),
        Some(count) => format!(
            "{} conflicts of {} pairs of events",
            HumanCount(count.conflicts),
            HumanCount(count.pairs)
        ),
    };
    let declared = known.policies.iter().map(|of| {
        let (category, since) = (&of.category, utc(of.unix_ms));
        let counted = counted(category);
        format!("{category}  {}, version {}, since {since}; {counted}", of.policy, of.version)
    });
    let has_policy =
        |category: &str| known.policies.iter().any(|declared| declared.category == category);
    let others = known.counts.iter().filter(|count| !has_policy(&count.category));
    let others = others.map(|count| {
        let name = if count.category.is_empty() { "(others)" } else { &count.category };
        format!("{name}  keep-all, as nothing is set; {}", counted(&count.category))
    });
    let lines: Vec<_> = declared.chain(others).collect();
    match lines.is_empty() {
        true => vec!["no policy is set, and there are no conflicts".to_owned()],
        false => lines,
    }
}

fn as_json(known: &PoliciesKnown) -> Value {
    let policies = known.policies.iter().map(|of| {
        let regions = match &of.policy {
            Policy::RegionPriority(regions) => regions.iter().map(RegionName::as_str).collect(),
            _ => Vec::new(),
        };
        json!({
            "category": of.category,
            "version": of.version,
            "policy": of.policy.name(),
            "regions": regions,
            "unix_ms": of.unix_ms,
        })
    });
    let counts = known.counts.iter().map(|count| {
        json!({ "category": count.category, "conflicts": count.conflicts, "pairs": count.pairs })
    });
    json!({
        "policies": policies.collect::<Vec<_>>(),
        "counts": counts.collect::<Vec<_>>(),
        "position": known.position,
    })
}
