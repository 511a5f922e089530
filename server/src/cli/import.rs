//! `anabranch import`.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anabranch_client::{AppendError, EventId, NewEvent, Producer, ProducerId, event};
use anabranch_server::feed::{Entry, HistoryFile};
use anyhow::{Context, Result, bail};
use indicatif::{HumanCount, ProgressBar, ProgressStyle};

use super::Exit;
use super::connect::Connect;

/// Bytes of payload after which a batch is sent, however few events it holds.
const BATCH_BYTES: usize = 512 * 1024;
const TIMEOUT: Duration = Duration::from_secs(60);
/// Metadata under which an imported event keeps the time at which it happened, in seconds.
pub const TIME_KEY: &str = "time";
/// Metadata under which an imported event keeps the region it happened in.
pub const REGION_KEY: &str = "region";

/// Append the events of a history file
///
/// The file holds newline-delimited JSON, plain or compressed with zstd:
/// {"region":"europe","time":1312242084,"stream":"file-A","type":"FileChanged","data":{..}}
///
/// Importing the same file again in the same way adds nothing, and an import that was interrupted is
/// simply repeated: file, --region and --batch together are one producer to the server, which it
/// remembers until 100,000 other producers were busy since. Repeat it in the same region.
///
/// Another --region or --batch, or a file that has grown, is another import. Events have ids made of
/// their line's number and content, so what is already there is recognised or refused, but only among
/// the last 100,000 events with ids: what is older would be added again.
///
/// Time and region of the file are kept as metadata `time` and `region`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The file
    file: PathBuf,
    /// Only events that happened in this region
    #[arg(long, value_name = "NAME")]
    region: Option<String>,
    /// Events in one append
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    batch: u32,
    #[command(flatten)]
    connect: Connect,
}

/// What an import came to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Tally {
    added: u64,
    known: u64,
    passed_over: u64,
}

/// Imports, and says how much was new.
pub async fn run(args: Args) -> Result<Exit> {
    let fingerprint = fingerprint(&args.file)?;
    let client = args.connect.client().await?;
    let id = producer_id(&fingerprint, args.region.as_deref(), args.batch);
    let producer = client.producer_with(id, 1, 1);
    let mut file = HistoryFile::open(&args.file)?;
    let bar = progress(file.bytes_total(), "importing");
    let mut tally = Tally::default();
    let mut batch = Batch::default();
    let import = async {
        while let Some(entry) = file.next() {
            let entry = entry?;
            if args.region.as_ref().is_some_and(|region| *region != entry.region) {
                tally.passed_over += 1;
                continue;
            }
            batch.add(entry);
            if batch.events.len() >= args.batch as usize || batch.bytes >= BATCH_BYTES {
                send(&producer, std::mem::take(&mut batch), &mut tally).await?;
                bar.set_position(file.bytes_read());
                bar.set_message(format!("{} events", HumanCount(tally.added + tally.known)));
            }
        }
        send(&producer, batch, &mut tally).await
    };
    let imported = import.await;
    bar.finish_and_clear();
    let Tally { added, known, passed_over } = tally;
    println!("{added} events added, {known} were there already, {passed_over} of other regions");
    match imported {
        Ok(()) => Ok(Exit::Done),
        Err(error) if error.downcast_ref::<AppendError>().is_some_and(AppendError::is_unknown) => {
            eprintln!("error: {error:#}; run the same import again, it adds nothing twice");
            Ok(Exit::Unknown)
        }
        Err(error) => Err(error),
    }
}

/// Events of consecutive lines, to be appended together.
#[derive(Default)]
struct Batch {
    events: Vec<(String, NewEvent)>,
    lines: Option<(u64, u64)>,
    bytes: usize,
}

impl Batch {
    fn add(&mut self, entry: Entry) {
        self.bytes += entry.payload.len() + entry.stream.len();
        let first = self.lines.map_or(entry.line, |(first, _)| first);
        self.lines = Some((first, entry.line));
        let id = event_id(&entry);
        let mut new = event(entry.kind).payload(entry.payload).id(id);
        for (key, value) in entry.metadata {
            new = new.metadata(key, value);
        }
        new = new.metadata(TIME_KEY, entry.time.to_string()).metadata(REGION_KEY, entry.region);
        self.events.push((entry.stream, new));
    }
}

/// Sends a batch and waits for its outcome: the next one is written after it, and what the server
/// has forgotten of this producer was therefore written.
async fn send(producer: &Producer, batch: Batch, tally: &mut Tally) -> Result<()> {
    let Some((first, last)) = batch.lines else { return Ok(()) };
    let count = batch.events.len() as u64;
    let mut events = batch.events.into_iter();
    let (stream, new) = events.next().expect("a batch with lines has events");
    let mut append = producer.append(stream, new).timeout(TIMEOUT);
    for (stream, new) in events {
        append = append.and(stream, new);
    }
    match append.await {
        Ok(appended) if appended.repeated => tally.known += count,
        Ok(_) => tally.added += count,
        Err(AppendError::Forgotten { .. }) => tally.known += count,
        Err(error) => {
            let error = anyhow::Error::new(error);
            return Err(error.context(format!("append the events of lines {first} to {last}")));
        }
    }
    Ok(())
}

/// Hash of the file as it lies on the disk.
fn fingerprint(path: &Path) -> Result<blake3::Hash> {
    let failed = || format!("read {}", path.display());
    let file = std::fs::File::open(path).with_context(failed)?;
    if !file.metadata().with_context(failed)?.is_file() {
        bail!("{} is no file; an import reads it twice", path.display());
    }
    let mut hasher = blake3::Hasher::new();
    let mut reader = BufReader::with_capacity(1 << 20, file);
    loop {
        let part = reader.fill_buf().with_context(failed)?;
        if part.is_empty() {
            return Ok(hasher.finalize());
        }
        hasher.update(part);
        let read = part.len();
        reader.consume(read);
    }
}

fn producer_id(file: &blake3::Hash, region: Option<&str>, batch: u32) -> ProducerId {
    let mut hasher = blake3::Hasher::new_derive_key("anabranch import producer");
    hasher.update(file.as_bytes()).update(&batch.to_le_bytes());
    if let Some(region) = region {
        hasher.update(region.as_bytes());
    }
    ProducerId(half(&hasher.finalize()))
}

/// Made of the line's number and content, so that a file which has grown is recognised, too.
fn event_id(entry: &Entry) -> EventId {
    let mut hasher = blake3::Hasher::new_derive_key("anabranch import event");
    let texts = [&entry.region, &entry.stream, &entry.kind].map(|text| text.as_bytes());
    for part in texts.into_iter().chain([&entry.payload[..]]) {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    hasher.update(&entry.line.to_le_bytes()).update(&entry.time.to_le_bytes());
    EventId(half(&hasher.finalize()))
}

fn half(hash: &blake3::Hash) -> [u8; 16] {
    hash.as_bytes()[..16].try_into().expect("a hash has 32 bytes")
}

/// A bar over `total` bytes or events; invisible unless standard error is a terminal.
pub fn progress(total: u64, what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(total).with_prefix(what);
    let style = ProgressStyle::with_template("{prefix} [{bar:40}] {percent:>3}% {msg} {elapsed}");
    bar.set_style(style.expect("the template is well-formed").progress_chars("=> "));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn entry(line: u64, payload: &'static str) -> Entry {
        Entry {
            region: "eu".into(),
            time: 1,
            stream: "s".into(),
            kind: "k".into(),
            payload: Bytes::from_static(payload.as_bytes()),
            metadata: std::collections::BTreeMap::new(),
            line,
        }
    }

    #[test]
    fn ids_depend_on_line_and_content_and_on_nothing_else() {
        let file = blake3::hash(b"file");
        let id = |line, payload| event_id(&entry(line, payload));
        assert_eq!(id(1, "a"), id(1, "a"));
        assert_ne!(id(1, "a"), id(2, "a"));
        assert_ne!(id(1, "a"), id(1, "b"));
        let producer = |region, batch| producer_id(&file, region, batch);
        assert_eq!(producer(None, 500), producer(None, 500));
        assert_ne!(producer(None, 500), producer(None, 501));
        assert_ne!(producer(None, 500), producer(Some("eu"), 500));
    }
}
