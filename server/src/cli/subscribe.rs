//! `anabranch subscribe`.

use std::fs::OpenOptions;
use std::future::Future;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use anabranch_client::{Client, From, Message, Subscribe, Subscription};
use anyhow::{Context, Result, bail};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::Exit;
use super::connect::{Connect, explain};
use super::print::Format;
use super::read::{Choice, Target, written};
use super::stop::Stop;

/// How often the cursor is saved while events come.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// Silence after which it is said that no node answers.
const SILENCE: Duration = Duration::from_secs(3);

/// Print events as they come, until interrupted
///
/// With --cursor-file, goes on after the last event of the run before, in any region: none is
/// skipped. The cursor is saved once a second and at the end, also when SIGTERM or SIGINT ends it;
/// after a crash, the events of the last second are printed again.
///
/// A cursor belongs to what it was taken from: with another --stream, --category, --all, --type or
/// --prefix, all that is new to these before the cursor is skipped, without a word.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    choice: Choice,
    /// Where to keep the cursor between runs, one file for each thing that is followed
    #[arg(long, value_name = "FILE", conflicts_with = "from")]
    cursor_file: Option<PathBuf>,
    /// Stop after so many events; 0 for no limit
    #[arg(long, value_name = "N", default_value_t = 0)]
    limit: u64,
    /// Say of each event what it is concurrent with, as far as that is known when it comes
    #[arg(long)]
    conflicts: bool,
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
    let mut stop = Stop::listen()?;
    args.cursor_file.as_deref().map(check_writable).transpose()?;
    let client = args.connect.client().await?;
    let mut subscribe = subscribe(&args.target, &client).order(args.choice.order);
    subscribe = subscribe.filter(args.choice.filter());
    if args.conflicts {
        subscribe = subscribe.with_conflicts();
    }
    let saved = args.cursor_file.as_deref().map(load).transpose()?.flatten();
    if let Some(from) = saved.or(args.choice.from.clone()) {
        subscribe = subscribe.from(from);
    }
    let mut subscription = subscribe.start();
    let followed = follow(&args, &mut subscription, stop.asked()).await;
    save(&args, &subscription)?;
    followed.map(|()| Exit::Done)
}

async fn follow(
    args: &Args,
    subscription: &mut Subscription,
    stopped: impl Future<Output = ()>,
) -> Result<()> {
    let mut stopped = pin!(stopped);
    let mut silence = Silence::new(Instant::now(), args.connect.endpoints().join(", "));
    let mut out = BufWriter::new(io::stdout());
    let mut saving = interval_at(Instant::now() + SAVE_EVERY, SAVE_EVERY);
    saving.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut left = args.limit;
    let mut blocked = Vec::new();
    loop {
        let message = tokio::select! {
            biased;
            () = &mut stopped => {
                written(out.flush())?;
                return Ok(());
            }
            now = saving.tick() => {
                silence.look(now).iter().for_each(|line| eprintln!("{line}"));
                // What the cursor covers must have left this process first.
                if !written(out.flush())? {
                    return Ok(());
                }
                save(args, subscription)?;
                continue;
            }
            message = subscription.next() => message,
        };
        if let Some(Ok(_)) = message {
            silence.heard(Instant::now()).iter().for_each(|line| eprintln!("{line}"));
        }
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

/// Notices that no node answers: those that do say something every second.
struct Silence {
    at: String,
    heard: Instant,
    said: bool,
}

impl Silence {
    fn new(now: Instant, at: String) -> Self {
        Self { at, heard: now, said: false }
    }
    /// What to say after a look, once.
    fn look(&mut self, now: Instant) -> Option<String> {
        let say = !self.said && now.duration_since(self.heard) >= SILENCE;
        self.said |= say;
        say.then(|| format!("no node answers at {}, trying again", self.at))
    }
    /// What to say when a node is heard.
    fn heard(&mut self, now: Instant) -> Option<String> {
        self.heard = now;
        std::mem::take(&mut self.said).then(|| "a node answers".to_owned())
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

/// Looks whether the cursor will find its place, before anything is printed.
fn check_writable(file: &Path) -> Result<()> {
    let new = beside(file);
    let open = OpenOptions::new().write(true).create(true).truncate(false).open(&new);
    drop(open.with_context(|| format!("write {}, beside the cursor file", new.display()))?);
    std::fs::remove_file(&new).with_context(|| format!("remove {}", new.display()))
}

/// Where a cursor is written before it takes the place of the last one.
fn beside(file: &Path) -> PathBuf {
    let mut new = file.as_os_str().to_owned();
    new.push(".new");
    new.into()
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
    let new = beside(file);
    let write = || {
        std::fs::write(&new, cursor.encode())?;
        std::fs::rename(&new, file)
    };
    write().with_context(|| format!("save the cursor in {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_said_once_and_ends_when_a_node_answers() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut silence = Silence::new(start, "a:1".to_owned());
        assert_eq!(silence.look(at(2)), None);
        assert_eq!(silence.look(at(3)).as_deref(), Some("no node answers at a:1, trying again"));
        assert_eq!(silence.look(at(9)), None);
        assert_eq!(silence.heard(at(10)).as_deref(), Some("a node answers"));
        assert_eq!(silence.heard(at(11)), None);
        assert_eq!(silence.look(at(13)), None);
        assert!(silence.look(at(14)).is_some(), "again");
    }

    #[test]
    fn a_cursor_file_that_cannot_be_written_is_found_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("cursor");
        check_writable(&file).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "and nothing is left there");
        let nowhere = dir.path().join("no/such/folder");
        let error = format!("{:#}", check_writable(&nowhere).unwrap_err());
        assert!(error.contains("beside the cursor file"), "{error}");
    }
}
