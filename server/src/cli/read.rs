//! `anabranch read`.

use std::io::{self, BufWriter, Write};

use anabranch_client::{Client, Filter, From, Order, Read};
use anyhow::{Result, bail};

use super::Exit;
use super::connect::{Connect, explain};
use super::print::Format;

/// Print events that are there
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    choice: Choice,
    /// Newest first
    #[arg(long)]
    backwards: bool,
    /// Say of each event what it is concurrent with, and what became of it
    #[arg(long)]
    conflicts: bool,
    /// Stop after so many events; 0 for no limit
    #[arg(long, value_name = "N", default_value_t = 0)]
    limit: u64,
    #[command(flatten)]
    format: Format,
    #[command(flatten)]
    connect: Connect,
}

/// Whose events
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub struct Target {
    /// Events of one stream
    #[arg(long, value_name = "NAME")]
    pub stream: Option<String>,
    /// Events of all streams of a category: `cart` holds `cart-1` and `cart-2`
    #[arg(long, value_name = "NAME")]
    pub category: Option<String>,
    /// All events
    #[arg(long)]
    pub all: bool,
}

/// Which order, from where, what to let through
#[derive(Debug, clap::Args)]
pub struct Choice {
    /// regional: as this region received them; global: the same in every region, once final
    #[arg(long, value_name = "ORDER", default_value = "regional", value_parser = order)]
    pub order: Order,
    /// start, end, a position, revision:N of a stream, time:MS since 1970
    #[arg(long, value_name = "WHERE", value_parser = from)]
    pub from: Option<From>,
    /// Only events of this type; may be given several times
    #[arg(long = "type", value_name = "TYPE")]
    types: Vec<String>,
    /// Only events of streams that begin so; may be given several times
    #[arg(long, value_name = "TEXT")]
    prefix: Vec<String>,
}

impl Choice {
    pub fn filter(&self) -> Filter {
        Filter::new().types(self.types.clone()).stream_prefixes(self.prefix.clone())
    }
}

pub fn order(text: &str) -> Result<Order, String> {
    match text {
        "regional" => Ok(Order::Regional),
        "global" => Ok(Order::Global),
        _ => Err("write regional or global".to_owned()),
    }
}

pub fn from(text: &str) -> Result<From, String> {
    let number = |text: &str| {
        text.parse::<u64>()
            .map_err(|_| "write start, end, a position, revision:N or time:MS".to_owned())
    };
    match text.split_once(':') {
        Some(("revision", revision)) => number(revision).map(From::Revision),
        Some(("time", unix_ms)) => number(unix_ms).map(From::Time),
        Some(("position", position)) => number(position).map(From::Position),
        None if text == "start" => Ok(From::Start),
        None if text == "end" => Ok(From::End),
        _ => number(text).map(From::Position),
    }
}

impl Target {
    fn read(&self, client: &Client) -> Read {
        match (&self.stream, &self.category) {
            (Some(stream), _) => client.read_stream(stream),
            (None, Some(category)) => client.read_category(category),
            (None, None) => client.read_all(),
        }
    }
}

/// Prints what is there.
pub async fn run(args: Args) -> Result<Exit> {
    let client = args.connect.client().await?;
    let mut read = args.target.read(&client).order(args.choice.order).limit(args.limit);
    read = read.filter(args.choice.filter());
    if args.backwards {
        read = read.backwards();
    }
    if args.conflicts {
        read = read.with_conflicts();
    }
    if let Some(from) = args.choice.from {
        read = read.from(from);
    }
    let mut events = read.events();
    let mut out = BufWriter::new(io::stdout().lock());
    let mut count = 0;
    while let Some(event) = events.next().await {
        count += 1;
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                out.flush()?;
                return Err(explain(error));
            }
        };
        if !written(args.format.print(&mut out, &event))? {
            return Ok(Exit::Done);
        }
    }
    written(out.flush())?;
    let whole = !args.backwards && (args.limit == 0 || count < args.limit);
    if args.choice.order == Order::Global && whole {
        say_held_back(&client).await;
    }
    Ok(Exit::Done)
}

/// Says on standard error that the global order has not got to all events yet, and who holds it up.
pub async fn say_held_back(client: &Client) {
    // Only a remark: what was asked for is done.
    let Ok(status) = client.status().await else { return };
    if let Some(remark) = held_back(status.position, status.global_position, &status.blocked_by) {
        eprintln!("{remark}");
    }
}

/// `held` events are there, of which so many are `final_` in the global order.
fn held_back(held: u64, final_: u64, blocked_by: &[String]) -> Option<String> {
    let more = held.saturating_sub(final_);
    let regions = blocked_by.join(", ");
    (more > 0 && !regions.is_empty()).then(|| {
        format!(
            "{more} events that are here are not final yet: the global order waits for {regions}"
        )
    })
}

/// False once whoever reads our output has had enough: `| head` is no failure.
pub fn written(result: io::Result<()>) -> Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => bail!("write to standard output: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_that_the_order_has_not_got_to_are_counted_and_whoever_holds_them_up_is_named() {
        let blocked = ["asia".to_owned()];
        let said = held_back(15, 10, &blocked).unwrap();
        assert_eq!(
            said,
            "5 events that are here are not final yet: the global order waits for asia"
        );
        assert_eq!(held_back(15, 15, &blocked), None);
        assert_eq!(held_back(15, 10, &[]), None);
    }

    #[test]
    fn places_are_words_numbers_or_named_numbers() {
        for (text, place) in [
            ("start", From::Start),
            ("end", From::End),
            ("42", From::Position(42)),
            ("position:42", From::Position(42)),
            ("revision:7", From::Revision(7)),
            ("time:1700000000000", From::Time(1_700_000_000_000)),
        ] {
            assert_eq!(from(text), Ok(place));
        }
        for bad in ["", "first", "revision:", "revision:x", "when:5", "-1"] {
            assert!(from(bad).is_err(), "{bad:?}");
        }
    }
}
