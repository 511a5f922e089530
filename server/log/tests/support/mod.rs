//! What the log's tests share.
#![allow(dead_code)] // Each test file uses its part.

pub mod refusing;

use std::path::Path;
use std::sync::Arc;

use anabranch_log::disk::MemoryDisk;
use anabranch_log::{
    Done, Log, LogError, LogOptions, OpenError, Opened, Record, RecordKind, Writer,
};
use bytes::Bytes;
use parking_lot::Mutex;

pub const LOG_ID: [u8; 16] = *b"a log for tests!";

pub fn dir() -> &'static Path {
    Path::new("shard-0")
}

pub fn options() -> LogOptions {
    LogOptions {
        segment_bytes: 2048,
        cache_bytes: 512,
        reserve_bytes: 0,
        ..LogOptions::new(LOG_ID)
    }
}

pub fn try_open(
    disk: &MemoryDisk,
    options: LogOptions,
) -> Result<(Log, Writer, Opened), OpenError> {
    Log::open(Arc::new(disk.clone()), dir(), options)
}

pub fn open(disk: &MemoryDisk) -> (Log, Writer, Opened) {
    try_open(disk, options()).expect("the log opens")
}

/// A record whose payload names it.
pub fn record(index: u64, term: u64, payload_bytes: usize) -> Record {
    let mut payload = format!("{index}/{term} ").into_bytes();
    payload.resize(payload.len().max(payload_bytes), b'.');
    Record { index, term, leader: 1 + term % 3, kind: RecordKind::Command, payload: payload.into() }
}

/// Outcomes in the order in which they were reported.
#[derive(Clone, Default)]
pub struct Reports(Arc<Mutex<Vec<Report>>>);

/// Which call, and how it went.
type Report = (u64, Result<(), LogError>);

impl Reports {
    pub fn done(&self, id: u64) -> Done {
        let reports = self.0.clone();
        Box::new(move |outcome| reports.lock().push((id, outcome)))
    }

    pub fn take(&self) -> Vec<Report> {
        std::mem::take(&mut self.0.lock())
    }

    /// Takes the reports, all of which must be good ones.
    pub fn acknowledged(&self) -> Vec<u64> {
        let ok = |(id, outcome): Report| {
            outcome.unwrap_or_else(|error| panic!("{id}: {error}"));
            id
        };
        self.take().into_iter().map(ok).collect()
    }
}

/// Appends and drives the writer until it is acknowledged.
pub fn append(log: &Log, writer: &mut Writer, records: Vec<Record>) {
    let reports = Reports::default();
    log.append(records, reports.done(0));
    while writer.step() {}
    assert_eq!(reports.acknowledged(), [0]);
}

pub fn truncate_after(log: &Log, writer: &mut Writer, last_kept: Option<u64>) {
    let reports = Reports::default();
    log.truncate_after(last_kept, reports.done(0));
    while writer.step() {}
    assert_eq!(reports.acknowledged(), [0]);
}

pub fn save_vote(log: &Log, writer: &mut Writer, vote: &str) {
    let reports = Reports::default();
    log.save_vote(Bytes::copy_from_slice(vote.as_bytes()), reports.done(0));
    while writer.step() {}
    assert_eq!(reports.acknowledged(), [0]);
}

pub fn read_all(log: &Log) -> Vec<Record> {
    let range = log.range();
    let mut records: Vec<Record> = Vec::new();
    while let Some(start) = Some(range.start + records.len() as u64).filter(|s| *s < range.end) {
        let more = log.read(start..range.end, 300).expect("everything can be read");
        assert!(!more.is_empty(), "at least one record from {start}");
        records.extend(more);
    }
    records
}

/// A small generator for what tests do at random.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % end
    }
}
