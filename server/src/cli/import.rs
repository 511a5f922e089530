//! `anabranch import`.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anabranch_client::{
    Append, AppendError, Client, EventId, NewEvent, Producer, ProducerId, event,
};
use anabranch_core::Limits;
use anabranch_server::feed::{Entry, HistoryFile};
use anyhow::{Context, Result, bail};
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use serde_json::json;

use super::Exit;
use super::connect::Connect;
use super::print::clean;

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
/// simply repeated: file, --region, --batch and --from-line together are one producer to the server,
/// which it remembers until 100,000 other producers were busy since. Repeat it in the same region.
///
/// A file that has grown, or another --batch, is another import. Events have ids made of their line's
/// number and content, so what is already there is found and passed over, as long as it is among the
/// last 100,000 events with ids: what is older would be added again. Of a large file that has grown,
/// import the new lines only, with --from-line; each import says how far it got.
///
/// Time and region of the file are kept as metadata `time` and `region`, where there is room for them.
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
    /// Pass over the lines before this one
    #[arg(long, value_name = "LINE", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    from_line: u64,
    /// Print what it came to as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

/// What an import came to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Tally {
    added: u64,
    known: u64,
    passed_over: u64,
    /// Whose metadata had no room for time and region.
    bare: u64,
    /// Lines up to here are dealt with.
    last_line: u64,
}

impl Tally {
    fn print(&self, as_json: bool) {
        let Self { added, known, passed_over, bare, last_line } = self;
        if as_json {
            let tally = json!({
                "added": added,
                "known": known,
                "other_regions": passed_over,
                "without_time_and_region": bare,
                "last_line": last_line,
            });
            println!("{tally}");
            return;
        }
        let bare = match bare {
            0 => String::new(),
            bare => format!("; {bare} without their time and region, since their metadata is full"),
        };
        println!(
            "{added} events added, {known} were there already, {passed_over} of other regions, up to \
             line {last_line}{bare}"
        );
    }
}

/// Imports, and says how much was new.
pub async fn run(args: Args) -> Result<Exit> {
    let fingerprint = fingerprint(&args.file)?;
    let client = args.connect.client().await?;
    let producer = client.producer_with(producer_id(&fingerprint, &args), 1, 1);
    let mut file = HistoryFile::open(&args.file)?;
    let bar = progress(file.bytes_total(), "importing");
    let mut import = Import { client, producer, tally: Tally::default() };
    let mut batch = Batch::default();
    let importing = async {
        while let Some(entry) = file.next() {
            let entry = entry?;
            if entry.line < args.from_line {
                continue;
            }
            if args.region.as_ref().is_some_and(|region| *region != entry.region) {
                import.tally.passed_over += 1;
                batch.pass(entry.line);
                continue;
            }
            batch.add(entry);
            if batch.events.len() >= args.batch as usize || batch.bytes >= BATCH_BYTES {
                import.send(std::mem::take(&mut batch)).await?;
                bar.set_position(file.bytes_read());
                let done = import.tally.added + import.tally.known;
                bar.set_message(format!("{} events", HumanCount(done)));
            }
        }
        import.send(batch).await
    };
    let imported = importing.await;
    bar.finish_and_clear();
    import.tally.print(args.json);
    match imported {
        Ok(()) => Ok(Exit::Done),
        Err(error) if error.downcast_ref::<AppendError>().is_some_and(AppendError::is_unknown) => {
            let error = clean(&format!("{error:#}"));
            eprintln!("error: {error}; run the same import again, it adds nothing twice");
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
    bare: u64,
}

impl Batch {
    fn add(&mut self, entry: Entry) {
        self.bytes += entry.payload.len() + entry.stream.len();
        self.pass(entry.line);
        let (id, whole) = (event_id(&entry), has_room(&entry));
        let mut new = event(entry.kind).payload(entry.payload).id(id);
        for (key, value) in entry.metadata {
            new = new.metadata(key, value);
        }
        match whole {
            true => {
                new = new.metadata(TIME_KEY, entry.time.to_string());
                new = new.metadata(REGION_KEY, entry.region);
            }
            false => self.bare += 1,
        }
        self.events.push((entry.stream, new));
    }

    /// A line that is dealt with together with this batch.
    fn pass(&mut self, line: u64) {
        let first = self.lines.map_or(line, |(first, _)| first);
        self.lines = Some((first, line));
    }
}

/// Whether time and region fit beside the event's own metadata. An event that was read from a store may
/// have all that there is room for.
fn has_room(entry: &Entry) -> bool {
    let held: usize = entry.metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
    let added =
        TIME_KEY.len() + entry.time.to_string().len() + REGION_KEY.len() + entry.region.len();
    let limits = Limits::DEFAULT;
    held + added <= limits.metadata_bytes && entry.metadata.len() + 2 <= limits.metadata_entries
}

/// An import under way.
struct Import {
    client: Client,
    producer: Producer,
    tally: Tally,
}

impl Import {
    /// Sends a batch and waits for its outcome: the next one is written after it, and what the server
    /// has forgotten of this producer was therefore written.
    async fn send(&mut self, batch: Batch) -> Result<()> {
        let Some((first, last)) = batch.lines else { return Ok(()) };
        let sent = match batch.events.as_slice() {
            [] => Ok(()),
            events => self.append(events).await,
        };
        sent.map_err(|error| {
            let lines = format!("append the events of lines {first} to {last}");
            anyhow::Error::new(error).context(lines)
        })?;
        self.tally.bare += batch.bare;
        self.tally.last_line = last;
        Ok(())
    }

    async fn append(&mut self, events: &[(String, NewEvent)]) -> Result<(), AppendError> {
        let producer = self.producer.clone();
        match self.count(events, &|stream, new| producer.append(stream, new)).await {
            Err(error) if is_known(&error) => self.append_new(events).await,
            sent => sent,
        }
    }

    /// Appends those of the events that are not there: they are found by halving.
    ///
    /// Not under the import's own sequences: how many it takes depends on what is there, and the next
    /// attempt must use each sequence for the same events. Their ids alone keep them from being written
    /// twice.
    async fn append_new(&mut self, events: &[(String, NewEvent)]) -> Result<(), AppendError> {
        let client = self.client.clone();
        let mut parts = vec![events];
        while let Some(part) = parts.pop() {
            match self.count(part, &|stream, new| client.append(stream, new)).await {
                Err(error) if is_known(&error) && part.len() == 1 => self.tally.known += 1,
                Err(error) if is_known(&error) => {
                    let (left, right) = part.split_at(part.len() / 2);
                    parts.extend([right, left]);
                }
                sent => sent?,
            }
        }
        Ok(())
    }

    /// Sends events as one append, and counts them.
    async fn count(
        &mut self,
        events: &[(String, NewEvent)],
        begin: &(dyn Fn(String, NewEvent) -> Append + Sync),
    ) -> Result<(), AppendError> {
        let mut all = events.iter().cloned();
        let (stream, new) = all.next().expect("there is an event to send");
        let first = begin(stream, new).timeout(TIMEOUT);
        let append = all.fold(first, |append, (stream, new)| append.and(stream, new));
        let count = events.len() as u64;
        match append.await {
            Ok(appended) if appended.repeated => self.tally.known += count,
            Ok(_) => self.tally.added += count,
            Err(AppendError::Forgotten { .. }) => self.tally.known += count,
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// The server has an event with one of the ids, of another append. It is made of the line, so it is the
/// same event.
fn is_known(error: &AppendError) -> bool {
    matches!(error, AppendError::Invalid { field, .. } if field == "events.id")
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

fn producer_id(file: &blake3::Hash, args: &Args) -> ProducerId {
    let mut hasher = blake3::Hasher::new_derive_key("anabranch import producer");
    hasher.update(file.as_bytes()).update(&args.batch.to_le_bytes());
    hasher.update(&args.from_line.to_le_bytes());
    if let Some(region) = &args.region {
        hasher.update(region.as_bytes());
    }
    ProducerId(half(&hasher.finalize()))
}

/// Made of the line's number and content, so that a file which has grown is recognised, too.
fn event_id(entry: &Entry) -> EventId {
    let mut hasher = blake3::Hasher::new_derive_key("anabranch import event");
    let texts = [&entry.region, &entry.stream, &entry.kind].map(|text| text.as_bytes());
    let metadata = entry.metadata.iter().flat_map(|(key, value)| [key, value]);
    let metadata = metadata.map(|text| text.as_bytes());
    for part in texts.into_iter().chain([&entry.payload[..]]).chain(metadata) {
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
    use clap::Parser;

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
        let mut noted = entry(1, "a");
        noted.metadata.insert("by".into(), "x".into());
        assert_ne!(event_id(&noted), id(1, "a"));

        let producer = |flags: &[&str]| {
            let args = [&["import", "file"], flags].concat();
            producer_id(&file, &Command::parse_from(args).args)
        };
        assert_eq!(producer(&[]), producer(&["--json"]));
        for other in [["--batch", "501"], ["--region", "eu"], ["--from-line", "2"]] {
            assert_ne!(producer(&[]), producer(&other));
        }
    }

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn metadata_that_is_full_is_left_as_it_is() {
        let with = |bytes: usize, entries: usize| {
            let mut entry = entry(1, "a");
            entry.metadata = (0..entries).map(|nth| (format!("{nth:02}"), String::new())).collect();
            let left = bytes - 2 * entries;
            entry.metadata.insert("00".into(), "x".repeat(left));
            entry
        };
        let added = "time1regioneu".len();
        let limits = Limits::DEFAULT;
        assert!(has_room(&with(limits.metadata_bytes - added, 10)));
        assert!(!has_room(&with(limits.metadata_bytes - added + 1, 10)));
        assert!(has_room(&with(1_000, limits.metadata_entries - 2)));
        assert!(!has_room(&with(1_000, limits.metadata_entries - 1)));
    }
}
