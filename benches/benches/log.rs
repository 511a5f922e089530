//! The inner loops of the log: frame and write, index.
//!
//! `cargo bench -p anabranch-bench --bench log`. The disk is the one in memory, so this is the log's
//! own cost; what a real disk adds is measured by `anabranch-bench load`, beside that disk's rate.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anabranch_bench::sample;
use anabranch_core::Command;
use anabranch_log::disk::{Disk, MemoryDisk};
use anabranch_log::index::{EventIndex, IndexOptions};
use anabranch_log::{Log, LogOptions, Record, RecordKind, Writer};
use bytes::Bytes;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const PAYLOAD: usize = 256;
const LOG_ID: [u8; 16] = [7; 16];

/// One record a group: frame, checksum, write, sync.
fn append_and_sync(c: &mut Criterion) {
    let mut group = c.benchmark_group("append_and_sync");
    for events in [1, 100, 1000] {
        let commands = sample::commands("eu", 64, events, PAYLOAD);
        let payloads: Vec<_> = commands.iter().map(Command::encode).collect();
        group.throughput(Throughput::Elements(64 * events));
        group.bench_function(BenchmarkId::from_parameter(events), |b| {
            let append = |(log, mut writer): (Log, Writer)| {
                for (nth, payload) in payloads.iter().enumerate() {
                    append_one(&log, &mut writer, nth as u64 + 1, payload.clone());
                }
                (log, writer)
            };
            b.iter_batched(empty_log, append, BatchSize::LargeInput);
        });
    }
    group.finish();
}

fn empty_log() -> (Log, Writer) {
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new(1));
    let options = LogOptions::new(LOG_ID);
    let (log, writer, _) = Log::open(disk, Path::new("log"), options).expect("an empty disk");
    (log, writer)
}

fn append_one(log: &Log, writer: &mut Writer, index: u64, payload: Bytes) {
    let durable = Arc::new(AtomicBool::new(false));
    let done = Arc::clone(&durable);
    let record = Record { index, term: 1, leader: 1, kind: RecordKind::Command, payload };
    let note = move |outcome: Result<(), _>| done.store(outcome.is_ok(), Ordering::Relaxed);
    log.append(vec![record], Box::new(note));
    while writer.step() {}
    assert!(durable.load(Ordering::Relaxed), "record {index} is not durable");
}

/// What the index of the unsealed tail costs an event, in memory.
fn index_insert(c: &mut Criterion) {
    let mut group = c.benchmark_group("index_insert");
    for events in [1, 100, 1000] {
        let count = 4096 / events + 1;
        let commands = sample::commands("eu", count, events, PAYLOAD);
        group.throughput(Throughput::Elements(count * events));
        group.bench_function(BenchmarkId::from_parameter(events), |b| {
            let insert = |index: EventIndex| {
                for (entry, command) in commands.iter().enumerate() {
                    index.applied(entry as u64 + 1, command);
                }
                index
            };
            b.iter_batched(empty_index, insert, BatchSize::LargeInput);
        });
    }
    group.finish();
}

fn empty_index() -> EventIndex {
    let options = IndexOptions { log_id: LOG_ID, cache_bytes: 1024 * 1024 };
    EventIndex::new(Arc::new(MemoryDisk::new(1)), Path::new("index"), &options)
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = append_and_sync, index_insert
}
criterion_main!(benches);
