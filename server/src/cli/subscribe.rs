//! `anabranch subscribe`.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anabranch_client::{Client, From, Message, Subscribe, Subscription};
use anyhow::{Context, Result, bail};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::Exit;
use super::connect::{Connect, explain};
use super::print::Format;
use super::read::{Choice, Target, written};

/// How often the cursor is saved while events come.
const SAVE_EVERY: Duration = Duration::from_secs(1);

/// Print events as they come, until interrupted
///
/// With --cursor-file, goes on after the last event of the run before, in any region: none is
/// skipped. The cursor is saved once a second and at the end; after a crash, the events of the last
/// second are printed again.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    choice: Choice,
    /// Where to keep the cursor between runs
    #[arg(long, value_name = "FILE", conflicts_with = "from")]
    cursor_file: Option<PathBuf>,
    /// Stop after so many events; 0 for no limit
    #[arg(long, value_name = "N", default_value_t = 0)]
    limit: u64,
    #[command(flatten)]
    format: Format,
    #[command(flatten)]
    connect: Connect,
}

fn subscribe(target: &Target, client: &Client) -> Subscribe {
    match (&target.stream, &target.category) {
        (Some(stream), _) => client.subscribe_stream(stream),
        (None, Some(category)) => client.subscribe_category(category),
        (None, None) => client.subscribe_all(),
    }
}

/// Follows until interrupted, until the limit, or until nobody reads any more.
pub async fn run(args: Args) -> Result<Exit> {
    let client = args.connect.client()?;
    let mut subscribe = subscribe(&args.target, &client).order(args.choice.order);
    subscribe = subscribe.filter(args.choice.filter());
    let saved = args.cursor_file.as_deref().map(load).transpose()?.flatten();
    if let Some(from) = saved.or(args.choice.from.clone()) {
        subscribe = subscribe.from(from);
    }
    let mut subscription = subscribe.start();
    let followed = follow(&args, &mut subscription).await;
    save(&args, &subscription)?;
    followed.map(|()| Exit::Done)
}

async fn follow(args: &Args, subscription: &mut Subscription) -> Result<()> {
    let mut out = BufWriter::new(io::stdout());
    let mut saving = interval_at(Instant::now() + SAVE_EVERY, SAVE_EVERY);
    saving.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut left = args.limit;
    let mut blocked = Vec::new();
    loop {
        let message = tokio::select! {
            biased;
            _ = tokio::signal::ctrl_c() => return out.flush().context("write to standard output"),
            _ = saving.tick() => {
                // What the cursor covers must have left this process first.
                if !written(out.flush())? {
                    return Ok(());
                }
                save(args, subscription)?;
                continue;
            }
            message = subscription.next() => message,
        };
        match message {
            Some(Ok(Message::Event(event))) => {
                if !written(args.format.print(&mut out, &event))? {
                    return Ok(());
                }
                left = left.wrapping_sub(1);
                if left == 0 {
                    written(out.flush())?;
                    return Ok(());
                }
            }
            Some(Ok(Message::Heartbeat { blocked_by })) => {
                say_blocked(&mut blocked, blocked_by);
                written(out.flush())?;
            }
            Some(Ok(Message::CaughtUp)) => drop(written(out.flush())?),
            Some(Ok(Message::FellBehind)) => eprintln!("fell behind; reading from disk again"),
            Some(Err(error)) => return Err(explain(error)),
            None => bail!("the subscription ended"),
        }
    }
}

/// Says once, and again when it changes, whom the global order waits for.
fn say_blocked(known: &mut Vec<String>, now: Vec<String>) {
    if *known == now {
        return;
    }
    match now.as_slice() {
        [] => eprintln!("the global order goes on"),
        regions => eprintln!("the global order waits for {}", regions.join(", ")),
    }
    *known = now;
}

fn load(file: &Path) -> Result<Option<From>> {
    match std::fs::read(file) {
        Ok(bytes) => {
            let from = From::saved(&bytes);
            from.map(Some).with_context(|| format!("{} holds no cursor", file.display()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {}", file.display())),
    }
}

/// Replaces the file whole: a cut cursor would be no cursor.
fn save(args: &Args, subscription: &Subscription) -> Result<()> {
    let (Some(file), Some(cursor)) = (&args.cursor_file, subscription.cursor()) else {
        return Ok(());
    };
    let mut new = file.clone().into_os_string();
    new.push(".new");
    let write = || {
        std::fs::write(&new, cursor.encode())?;
        std::fs::rename(&new, file)
    };
    write().with_context(|| format!("save the cursor in {}", file.display()))
}
