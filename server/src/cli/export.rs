//! `anabranch export`.

use std::io;
use std::path::{Path, PathBuf};

use anabranch_client::{Event, From, Order};
use anabranch_server::feed::{Entry, FeedError, HistoryWriter};
use anyhow::Result;
use indicatif::HumanCount;
use serde_json::json;

use super::Exit;
use super::connect::{Connect, answered, explain};
use super::import::{REGION_KEY, TIME_KEY, progress};
use super::read::say_held_back;
use anabranch_client::wire::StatusRequest;

/// Events between two looks at the progress bar.
const SHOW_EVERY: u64 = 1_000;

/// Write events to a history file
///
/// In global order unless told otherwise: the same file from every region, as far as the order is
/// final there. The file can be imported again.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The file, compressed if its name ends in .zst; `-` for standard output
    file: PathBuf,
    /// regional: as this region received them; global: the same in every region, once final
    #[arg(long, value_name = "ORDER", default_value = "global", value_parser = super::read::order)]
    order: Order,
    /// Where to begin: start, a position, time:MS since 1970
    #[arg(long, value_name = "WHERE", default_value = "start", value_parser = super::read::from)]
    from: From,
    /// Print how many were written as JSON; on standard error if the events go to standard output
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

/// Exports what is there now.
pub async fn run(args: Args) -> Result<Exit> {
    let client = args.connect.client().await?;
    let total = total(&args).await?;
    let to_stdout = args.file == Path::new("-");
    let mut writer = match to_stdout {
        true => HistoryWriter::stdout(),
        false => HistoryWriter::create(&args.file)?,
    };
    let bar = progress(total, "exporting");
    let mut events = client.read_all().order(args.order).from(args.from).events();
    let mut count = 0;
    while let Some(event) = events.next().await {
        if !taken(writer.write(&entry(event.map_err(explain)?)))? {
            return Ok(Exit::Done);
        }
        count += 1;
        if count % SHOW_EVERY == 0 {
            bar.set_position(count);
            bar.set_message(format!("{} events", HumanCount(count)));
        }
    }
    if !taken(writer.finish())? {
        return Ok(Exit::Done);
    }
    bar.finish_and_clear();
    match (args.json, to_stdout) {
        (true, false) => println!("{}", json!({ "events": count })),
        (true, true) => eprintln!("{}", json!({ "events": count })),
        (false, _) => eprintln!("{count} events written"),
    }
    if args.order == Order::Global {
        say_held_back(&client).await;
    }
    Ok(Exit::Done)
}

/// False once whoever reads our output has had enough: `| head` is no failure.
fn taken(result: Result<(), FeedError>) -> Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(FeedError::Write { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => {
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

/// How many events there are to export at most, for the bar.
async fn total(args: &Args) -> Result<u64> {
    let endpoint = args.connect.endpoints().first().map_or("", String::as_str);
    let mut cluster = args.connect.cluster(endpoint).await?;
    let status = cluster.status(StatusRequest { shard: 0 }).await;
    let status = status.map_err(|status| answered(endpoint, status))?.into_inner();
    Ok(match args.order {
        Order::Regional => status.position,
        Order::Global => status.global_position,
    })
}

/// The event as it would be imported: with time and region of its first import, if it has them.
fn entry(event: Event) -> Entry {
    let stamped = event.unix_ms() / 1_000;
    let mut metadata = event.metadata;
    let time = metadata.remove(TIME_KEY);
    let time = time.and_then(|text| text.parse().ok()).unwrap_or(stamped);
    let origin = event.dot.origin.region.to_string();
    let region = metadata.remove(REGION_KEY).unwrap_or(origin);
    let Event { stream, kind, payload, .. } = event;
    Entry { region, time, stream, kind, payload, metadata, line: 0 }
}
