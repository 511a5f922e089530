//! Zeroes that small batches find in the file already, so that the disk syncs content alone.

mod support;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anabranch_log::disk::MemoryDisk;
use anabranch_log::{Log, LogError, LogOptions, Writer};
use support::refusing::{RefusingDisk, Step};
use support::{Reports, append, dir, read_all, record, try_open};

fn segment() -> std::path::PathBuf {
    dir().join(format!("{:020}.seg", 1))
}

fn open(disk: &MemoryDisk) -> (Log, Writer) {
    let options = LogOptions { segment_bytes: 4 * 1024 * 1024, ..support::options() };
    let (log, writer, opened) = try_open(disk, options).unwrap();
    assert_eq!(opened.torn, None);
    (log, writer)
}

fn file_len(disk: &MemoryDisk) -> usize {
    disk.content(&segment()).map_or(0, |content| content.len())
}

#[test]
fn the_file_grows_for_many_small_batches_at_once_and_not_beyond_a_large_one() {
    let disk = MemoryDisk::new(1);
    let (log, mut writer) = open(&disk);
    let mut lengths = Vec::new();
    for index in 1..=600 {
        append(&log, &mut writer, vec![record(index, 1, 1_000)]);
        lengths.push(file_len(&disk));
    }
    lengths.dedup();
    assert_eq!(lengths.len(), 3, "{lengths:?}: one growth takes about 250 records");
    append(&log, &mut writer, vec![record(601, 1, 700_000)]);
    let bytes = log.segments()[0].bytes as usize;
    assert!(file_len(&disk) <= bytes + 17, "{} for {bytes} and a mark", file_len(&disk));
    let expected = read_all(&log);
    disk.crash();
    let (log, mut writer) = open(&disk);
    assert_eq!(read_all(&log), expected);
    let cut = file_len(&disk);
    append(&log, &mut writer, vec![record(602, 1, 60)]);
    assert!(cut + 200_000 < file_len(&disk), "it goes on as before");
}

#[test]
fn what_there_is_no_room_for_is_not_needed() {
    let disk = MemoryDisk::new(1);
    let (log, mut writer) = open(&disk);
    append(&log, &mut writer, vec![record(1, 1, 40_000)]);
    disk.set_capacity(Some(disk.used() + 2_000));
    append(&log, &mut writer, vec![record(2, 1, 1_000)]);
    assert_eq!(log.durable_index(), Some(2));
    disk.crash();
    assert_eq!(read_all(&open(&disk).0).len(), 2);
}

#[test]
fn a_log_that_is_closed_leaves_none() {
    let disk = MemoryDisk::new(1);
    let (log, mut writer) = open(&disk);
    append(&log, &mut writer, vec![record(1, 1, 60)]);
    assert!(200_000 < file_len(&disk));
    log.close();
    while !writer.is_finished() {
        writer.step();
    }
    assert!(file_len(&disk) < 300, "{}", file_len(&disk));
}

#[test]
fn a_log_is_closed_in_order_also_where_they_cannot_be_cut_off() {
    let disk = MemoryDisk::new(1);
    let full = Arc::new(AtomicBool::new(false));
    let is_full = Arc::clone(&full);
    let refusing = RefusingDisk::new(&disk, move |step| match step {
        Step::SetLen if is_full.load(Ordering::SeqCst) => Err(io::ErrorKind::StorageFull.into()),
        _ => Ok(()),
    });
    let (log, mut writer, _) = Log::open(Arc::new(refusing), dir(), support::options()).unwrap();
    append(&log, &mut writer, vec![record(1, 1, 60)]);
    let expected = read_all(&log);
    full.store(true, Ordering::SeqCst);
    log.close();
    while !writer.is_finished() {
        writer.step();
    }
    let reports = Reports::default();
    log.append(vec![record(2, 1, 60)], reports.done(1));
    assert!(matches!(reports.take()[..], [(1, Err(LogError::Closed))]), "it did not fail");
    assert_eq!(read_all(&open(&disk).0), expected);
}
