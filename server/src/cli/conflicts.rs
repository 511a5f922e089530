//! `anabranch conflicts`.

mod policy;
mod resolve;
pub mod show;

use std::io::{self, Write};

use anabranch_client::{Client, ConflictNews, Conflicts, Cursor, FoundConflict, Order};
use anyhow::{Context, Result};

use super::Exit;
use super::connect::{Connect, explain};
use super::read::{order, say_held_back, written};
use super::stop::Stop;
use anabranch_server::hex::{from_hex, to_hex};

/// Work with conflicts: events of one stream of which neither had seen the other
///
/// docs/conflicts.md says what policies there are, and which is for what.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    List(List),
    Watch(Watch),
    Policy(policy::Args),
    Resolve(resolve::Args),
}

/// Which conflicts
#[derive(Debug, clap::Args)]
struct Which {
    /// Of the streams of one category: `cart` has `cart-1` and `cart-2`
    #[arg(long, value_name = "NAME", conflicts_with = "stream")]
    category: Option<String>,
    /// Of one stream
    #[arg(long, value_name = "NAME")]
    stream: Option<String>,
    /// regional: as this region found them; global: the same list in every region, once final
    #[arg(long, value_name = "ORDER", default_value = "regional", value_parser = order)]
    order: Order,
    /// Only those after this cursor, of an earlier list
    #[arg(long, value_name = "CURSOR", value_parser = cursor)]
    after: Option<Cursor>,
    /// Only those that nobody has decided, under policy `resolver`
    #[arg(long)]
    open: bool,
}

impl Which {
    fn of(self, client: &Client) -> Conflicts {
        let mut conflicts = client.conflicts().order(self.order);
        if let Some(category) = self.category {
            conflicts = conflicts.category(category);
        }
        if let Some(stream) = self.stream {
            conflicts = conflicts.stream(stream);
        }
        if self.open {
            conflicts = conflicts.open_only();
        }
        match self.after {
            Some(cursor) => conflicts.after(cursor),
            None => conflicts,
        }
    }
}

/// Show the conflicts found so far, oldest first
///
/// Each is one group of events, and what it is concurrent with among what came before it.
#[derive(Debug, clap::Args)]
pub struct List {
    #[command(flatten)]
    which: Which,
    /// Stop after so many; 0 for no limit
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
    /// Print as JSON, one a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

/// Show conflicts as they are found, until interrupted
#[derive(Debug, clap::Args)]
pub struct Watch {
    #[command(flatten)]
    which: Which,
    /// Only what is found from now on
    #[arg(long, conflicts_with = "after")]
    from_now: bool,
    /// Stop after so many; 0 for no limit
    #[arg(long, value_name = "N", default_value_t = 0)]
    limit: usize,
    /// Print as JSON, one a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

/// Does what the command says.
pub async fn run(command: Command) -> Result<Exit> {
    match command {
        Command::List(args) => list(args).await,
        Command::Watch(args) => watch(args).await,
        Command::Policy(args) => policy::run(args).await,
        Command::Resolve(args) => resolve::run(args).await,
    }
}

async fn list(args: List) -> Result<Exit> {
    let client = args.connect.client().await?;
    let global = args.which.order == Order::Global;
    let mut conflicts = args.which.of(&client);
    let mut left = if args.limit == 0 { usize::MAX } else { args.limit };
    loop {
        let page = conflicts.clone().limit(left.min(PAGE) as u32).page().await.map_err(explain)?;
        for conflict in &page.conflicts {
            if !print(conflict, args.json)? {
                return Ok(Exit::Done);
            }
        }
        left -= page.conflicts.len();
        if !page.more {
            break;
        }
        if left == 0 {
            eprintln!("more follow: --after {}", to_hex(&page.cursor.encode()));
            return Ok(Exit::Done);
        }
        conflicts = conflicts.after(page.cursor);
    }
    if global {
        say_held_back(&client).await;
    }
    Ok(Exit::Done)
}

/// Conflicts asked for at once.
const PAGE: usize = 200;

async fn watch(args: Watch) -> Result<Exit> {
    let mut stop = Stop::listen()?;
    let mut conflicts = args.which.of(&args.connect.client().await?);
    if args.from_now {
        conflicts = conflicts.from_now();
    }
    let mut feed = conflicts.feed();
    let mut shown = 0;
    loop {
        let next = tokio::select! {
            biased;
            () = stop.asked() => return Ok(Exit::Done),
            next = feed.next() => next,
        };
        match next.context("the feed ended")?.map_err(explain)? {
            ConflictNews::Nothing(_) => {}
            ConflictNews::Found(conflict) => {
                shown += 1;
                if !print(&conflict, args.json)? || shown == args.limit {
                    return Ok(Exit::Done);
                }
            }
        }
    }
}

/// False once nobody reads any more.
fn print(conflict: &FoundConflict, as_json: bool) -> Result<bool> {
    let text = match as_json {
        true => show::as_json(conflict),
        false => show::as_text(conflict),
    };
    let mut out = io::stdout();
    written(writeln!(out, "{text}").and_then(|()| out.flush()))
}

fn cursor(text: &str) -> Result<Cursor, String> {
    let wrong = || "write the cursor as a list has printed it".to_owned();
    let bytes = from_hex(text).ok_or_else(wrong)?;
    Cursor::decode(bytes).map_err(|_| wrong())
}
