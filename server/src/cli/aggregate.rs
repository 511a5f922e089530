//! `anabranch aggregate`.

mod condition;
mod definition;
mod operation;
mod show;

use std::io::{self, Write};

use anabranch_client::{Aggregate, Operation, ReadError};
use anyhow::{Context, Result, anyhow};

use super::Exit;
use super::append;
use super::connect::{Connect, explain};
use super::read::written;
use super::stop::Stop;
use condition::Condition;

/// Work with aggregates: what the events of a stream add up to, kept by the nodes
///
/// docs/aggregates.md says what definitions and operations are.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    Define(definition::Define),
    List(definition::List),
    Get(Get),
    Watch(Watch),
    Query(Query),
    Do(Do),
}

/// Show the aggregate of a stream
#[derive(Debug, clap::Args)]
pub struct Get {
    /// Stream, as `stock-42`
    stream: String,
    /// As of the final part of the global order: the same in every region that has come as far
    #[arg(long = "final")]
    is_final: bool,
    /// Print as JSON, with the ids of elements of lists
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

/// Show the aggregate of a stream, and again whenever it has changed, until interrupted
///
/// Changes in quick succession come as one.
#[derive(Debug, clap::Args)]
pub struct Watch {
    /// Stream, as `stock-42`
    stream: String,
    /// Stop after it was shown so many times; 0 for no limit
    #[arg(long, value_name = "N", default_value_t = 0)]
    limit: u64,
    /// Print as JSON, one a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

/// Show the aggregates of a category, by the names of their streams
#[derive(Debug, clap::Args)]
pub struct Query {
    /// Category: `stock` has the streams `stock-42` and `stock-7`
    category: String,
    /// Only those of which this holds, as `lines > 100` or `tags == "x"`; all must hold, if given
    /// several times. Values are JSON. Of a set or a list, one member must do
    #[arg(long = "where", value_name = "CONDITION")]
    conditions: Vec<Condition>,
    /// Stop after so many; 0 for no limit
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
    /// Only streams whose names come after this one
    #[arg(long, value_name = "NAME")]
    after: Option<String>,
    /// Print as JSON, one a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

/// What an operation looks like.
const OPERATIONS: &str = r#"Operations, each one argument; values are JSON:
  'on_hand += 5'  'on_hand -= 2'             counters
  'name = "x"'                               registers
  'highest offer 7'                          max, min
  'tags add "x"'  'tags remove "x"'          sets
  'open enable'  'open disable'              flags
  'todo insert "milk" at 0'                  lists; without `at`, at the end
  'todo delete at 0'
  'by[alice] += 1'  'by[alice] remove-key'   maps: any of these, under a key
  'tags clear'
  '{"field": "on_hand", "do": "increment", "by": 5}'"#;

/// Change an aggregate: all of the operations, or nothing
#[derive(Debug, clap::Args)]
#[command(after_help = OPERATIONS)]
pub struct Do {
    /// Stream, as `stock-42`
    stream: String,
    /// What to do, each in quotes of its own
    #[arg(value_name = "OP", required = true, value_parser = operation::parse)]
    operations: Vec<Operation>,
    /// Take from a bounded counter only what the region may, at once: do not ask other regions for rights
    #[arg(long)]
    own_rights: bool,
    /// Print the outcome as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

/// Does what the command says.
pub async fn run(command: Command) -> Result<Exit> {
    match command {
        Command::Define(args) => definition::define(args).await,
        Command::List(args) => definition::list(args).await,
        Command::Get(args) => get(args).await,
        Command::Watch(args) => watch(args).await,
        Command::Query(args) => query(args).await,
        Command::Do(args) => operate(args).await,
    }
}

async fn get(args: Get) -> Result<Exit> {
    let aggregate = args.connect.client().await?.aggregate(args.stream);
    let asked = match args.is_final {
        true => aggregate.get_final().await,
        false => aggregate.get().await,
    };
    print(&asked.map_err(why)?, args.json)?;
    Ok(Exit::Done)
}

async fn watch(args: Watch) -> Result<Exit> {
    let mut stop = Stop::listen()?;
    let mut watch = args.connect.client().await?.aggregate(args.stream).watch();
    let mut shown = 0;
    loop {
        let next = tokio::select! {
            biased;
            () = stop.asked() => return Ok(Exit::Done),
            next = watch.next() => next,
        };
        let aggregate = next.context("the watch ended")?.map_err(why)?;
        shown += 1;
        if !print(&aggregate, args.json)? || shown == args.limit {
            return Ok(Exit::Done);
        }
    }
}

async fn query(args: Query) -> Result<Exit> {
    let mut query = args.connect.client().await?.query(args.category);
    for Condition { field, comparison, value } in args.conditions {
        query = query.where_(field, comparison, value);
    }
    if let Some(after) = args.after {
        query = query.after(after);
    }
    // One more than is shown says whether more follow.
    let page = args.limit.saturating_add(1).min(PAGE_MAX);
    let mut all = query.limit(if args.limit == 0 { PAGE_MAX } else { page } as u32).all();
    let (mut shown, mut last) = (0, String::new());
    while let Some(aggregate) = all.next().await {
        let aggregate = aggregate.map_err(why)?;
        if args.limit > 0 && shown == args.limit {
            eprintln!("more follow: --after {}", super::print::clean(&last));
            break;
        }
        let line = match args.json {
            true => show::as_json(&aggregate),
            false => show::as_line(&aggregate),
        };
        if !written(writeln!(io::stdout(), "{line}"))? {
            break;
        }
        (shown, last) = (shown + 1, aggregate.stream);
    }
    Ok(Exit::Done)
}

/// Aggregates on a page, at most.
const PAGE_MAX: usize = 1000;

async fn operate(args: Do) -> Result<Exit> {
    let client = args.connect.client().await?;
    let operate = client.aggregate(&args.stream).operate(args.operations);
    let outcome = operate.own_rights_only(args.own_rights).await;
    append::tell(&args.stream, outcome, args.json)
}

/// False once nobody reads any more.
fn print(aggregate: &Aggregate, as_json: bool) -> Result<bool> {
    let text = match as_json {
        true => show::as_json(aggregate),
        false => show::as_text(aggregate),
    };
    let mut out = io::stdout();
    written(writeln!(out, "{text}").and_then(|()| out.flush()))
}

/// A reader's error, with what can be done about it.
fn why(error: ReadError) -> anyhow::Error {
    match error {
        error @ ReadError::NoDefinition { .. } => anyhow!("{error}; {DEFINE_ONE}"),
        error => explain(error),
    }
}

/// What to do where nothing is defined.
pub const DEFINE_ONE: &str = "declare one: anabranch aggregate define FILE, see docs/aggregates.md";
