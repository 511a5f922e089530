//! `anabranch conflicts resolve`.

use std::collections::BTreeSet;

use anabranch_client::{Client, Dot, FoundConflict, Origin};
use anabranch_core::Seq;
use anyhow::{Context, Result, bail};
use bytes::Bytes;

use crate::cli::connect::{Connect, explain};
use crate::cli::{Exit, append};

/// Say which event of a stream counts, where the policy of its category is `resolver`
///
/// It resolves what this command finds when it looks, and nothing that comes later.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Stream, as `cart-42`
    stream: String,
    /// The event that counts, as `eu/1f2e3d4c/0:17`, or `eu:17`
    event: String,
    /// Print the outcome as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

pub async fn run(args: Args) -> Result<Exit> {
    let client = args.connect.client().await?;
    let (conflicts, seen) = look(&client, &args.stream).await?;
    let winner = find(&conflicts, &args.event)
        .with_context(|| format!("nothing was written; {} in {}", args.event, args.stream))?;
    let resolving = client.resolve(&args.stream, &winner, Some(seen)).map_err(explain)?;
    append::tell(&args.stream, resolving.await, args.json)
}

/// All conflicts of the stream, and what was seen with them.
async fn look(client: &Client, stream: &str) -> Result<(Vec<FoundConflict>, Bytes)> {
    let mut asking = client.conflicts().stream(stream).limit(1000);
    let mut all = Vec::new();
    loop {
        let page = asking.page().await.map_err(explain)?;
        all.extend(page.conflicts);
        if !page.more {
            return Ok((all, page.session_token));
        }
        asking = asking.after(page.cursor);
    }
}

/// The event of that name, of all that are in conflicts.
fn find(conflicts: &[FoundConflict], name: &str) -> Result<Dot> {
    let (of, seq) = name.rsplit_once(':').context("write it as REGION:NUMBER")?;
    let seq = Seq(seq.parse().context("write it as REGION:NUMBER")?);
    let runs = conflicts.iter().flat_map(|of| of.against.iter().chain([&of.events]));
    let named = |origin: &Origin| origin.to_string() == of || origin.region.as_str() == of;
    let runs = runs.filter(|run| named(&run.origin) && run.holds(&run.origin, seq));
    let origins: BTreeSet<&Origin> = runs.map(|run| &run.origin).collect();
    match origins.iter().collect::<Vec<_>>()[..] {
        [origin] => Ok(Dot { origin: (*origin).clone(), seq }),
        [] => bail!("no conflict has such an event"),
        _ => bail!("several events have this name: write the origin in full"),
    }
}
