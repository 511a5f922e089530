//! Replaying a file of events: each is written in its own region, in the file's order of its stream.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anabranch_client::event;
use anabranch_core::RegionName;
use anabranch_core::event::shard_of;
use anyhow::{Context as _, ensure};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::ledger::Ids;
use super::proof::FileCounts;
use super::workload::{Batch, Refused, Writer};
use crate::feed::{Entry, HistoryFile};

/// Events in one append, at most.
const BATCH_EVENTS: usize = 500;
/// Bytes of payload in one append, at most: well within what a node takes.
const BATCH_BYTES: usize = 1024 * 1024;
/// Streams in one append, at most: as many as a node takes.
const BATCH_STREAMS: usize = 1_000;
/// Writers in each region. Streams are hashed to them, so each keeps its streams' order.
const LANES: u16 = 4;
/// Appends that a writer makes of its part if it is to take its time, at least.
const PACED_APPENDS: usize = 60;

/// A file's events, by region and writer.
pub struct History {
    /// The regions, in the order in which the file names them first.
    pub regions: Vec<RegionName>,
    /// What must be there in the end.
    pub counts: FileCounts,
    /// Events in all.
    pub events: u64,
    lanes: BTreeMap<(RegionName, u16), Vec<Entry>>,
}

impl History {
    /// Reads a whole file into memory.
    ///
    /// # Errors
    /// If it cannot be read, a line is no event, or there is no event.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let (mut regions, mut counts) = (Vec::new(), FileCounts::default());
        let (mut lanes, mut events) = (BTreeMap::<_, Vec<Entry>>::new(), 0);
        for entry in HistoryFile::open(path)? {
            let entry = entry?;
            let region = RegionName::new(&entry.region)
                .with_context(|| format!("{}, line {}", path.display(), entry.line))?;
            if !regions.contains(&region) {
                regions.push(region.clone());
            }
            *counts.regions.entry(region.clone()).or_default() += 1;
            *counts.streams.entry(entry.stream.clone()).or_default() += 1;
            counts.folds.add(&entry.stream, &entry.kind, &entry.payload);
            lanes.entry((region, shard_of(&entry.stream, LANES).0)).or_default().push(entry);
            events += 1;
        }
        ensure!(events > 0, "{} holds no event", path.display());
        Ok(Self { regions, counts, events, lanes })
    }

    /// The parts, each for one writer of its region.
    pub fn into_lanes(self) -> impl Iterator<Item = (RegionName, Vec<Entry>)> {
        self.lanes.into_iter().map(|((region, _), entries)| (region, entries))
    }
}

/// Writes one part in order, spread evenly over `over`, or as fast as it goes if that is zero.
///
/// # Errors
/// [`Refused`].
pub async fn write_lane(
    writer: Writer,
    mut ids: Ids,
    entries: Vec<Entry>,
    over: Duration,
    stop: CancellationToken,
) -> Result<(), Refused> {
    let (began, total) = (Instant::now(), entries.len().max(1));
    let events_max = batch_events(total, over);
    let mut left = &entries[..];
    while !left.is_empty() {
        let (batch, taken) = batch(&mut ids, left, events_max);
        left = &left[taken..];
        writer.write(&batch).await?;
        let done = 1.0 - left.len() as f64 / total as f64;
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            () = sleep_until(began + over.mul_f64(done)) => {}
        }
    }
    Ok(())
}

/// Smaller appends if there is time, so that the regions do not move in a few leaps.
fn batch_events(total: usize, over: Duration) -> usize {
    if over.is_zero() { BATCH_EVENTS } else { (total / PACED_APPENDS).clamp(50, BATCH_EVENTS) }
}

/// The next append, and how many entries it takes.
fn batch(ids: &mut Ids, entries: &[Entry], events_max: usize) -> (Batch, usize) {
    let (mut batch, mut bytes) = (Batch::default(), 0);
    let mut streams = std::collections::BTreeSet::new();
    for entry in entries.iter().take(events_max) {
        bytes += entry.payload.len();
        streams.insert(entry.stream.as_str());
        if batch.events() > 0 && (bytes > BATCH_BYTES || streams.len() > BATCH_STREAMS) {
            break;
        }
        let mut new = event(entry.kind.clone()).metadata("time", entry.time.to_string());
        for (key, value) in &entry.metadata {
            new = new.metadata(key.clone(), value.clone());
        }
        batch.add(ids, &entry.stream, &entry.kind, new, &entry.payload);
    }
    let taken = batch.events();
    (batch, taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(region: &str, stream: &str, nth: usize) -> String {
        format!(
            r#"{{"region":"{region}","time":{nth},"stream":"{stream}","type":"T","data":{{"n":{nth}}}}}"#
        )
    }

    #[test]
    fn a_file_is_split_by_region_and_stream_and_keeps_their_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history.ndjson");
        let lines: Vec<String> = (0..400)
            .map(|nth| line(["eu", "us", "asia"][nth % 3], &format!("s-{}", nth % 7), nth))
            .collect();
        std::fs::write(&path, lines.join("\n")).unwrap();
        let history = History::read(&path).unwrap();
        let names: Vec<&str> = history.regions.iter().map(RegionName::as_str).collect();
        assert_eq!((names, history.events), (vec!["eu", "us", "asia"], 400));
        assert_eq!(history.counts.regions.values().sum::<u64>(), 400);
        assert_eq!(history.counts.streams["s-0"], 58);
        let mut of_stream: BTreeMap<(String, String), (usize, u64)> = BTreeMap::new();
        for (lane, (region, entries)) in history.into_lanes().enumerate() {
            for entry in entries {
                assert_eq!(entry.region, region.as_str());
                let key = (entry.region, entry.stream);
                let seen = of_stream.insert(key, (lane, entry.time));
                if let Some((before, time)) = seen {
                    assert_eq!(before, lane, "a stream has one writer in a region");
                    assert!(time < entry.time, "in the order of the file");
                }
            }
        }
        assert_eq!(of_stream.len(), 21);
    }

    #[test]
    fn appends_are_bounded_in_events_and_bytes_but_never_empty() {
        let entry = |bytes: usize| Entry {
            region: "eu".into(),
            time: 1,
            stream: "s-1".into(),
            kind: "T".into(),
            payload: vec![b'1'; bytes].into(),
            metadata: BTreeMap::new(),
            line: 1,
        };
        let mut ids = Ids::new(1, 1);
        let small = vec![entry(1); 700];
        assert_eq!(batch(&mut ids, &small, BATCH_EVENTS).1, 500);
        let large = vec![entry(600 * 1024); 3];
        assert_eq!(batch(&mut ids, &large, BATCH_EVENTS).1, 1);
        assert_eq!(batch(&mut ids, &[entry(2 * BATCH_BYTES)], BATCH_EVENTS).1, 1);
        assert_eq!(batch_events(8_000, Duration::ZERO), 500);
        assert_eq!(batch_events(8_000, Duration::from_secs(20)), 133);
        assert_eq!(batch_events(10, Duration::from_secs(20)), 50);
    }

    #[test]
    fn a_file_without_events_or_with_a_bad_region_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history.ndjson");
        let refused = |text: &str| {
            std::fs::write(&path, text).unwrap();
            format!("{:#}", History::read(&path).err().expect("refused"))
        };
        assert!(refused("").contains("holds no event"));
        let bad = refused(&format!("{}\n{}", line("eu", "s", 1), line("Not A Region", "s", 2)));
        assert!(bad.contains("line 2"), "{bad}");
    }
}
