//! The log as its callers see it while nothing goes wrong.

mod support;

use std::sync::Arc;
use std::sync::mpsc;

use anabranch_log::disk::{MemoryDisk, RealDisk};
use anabranch_log::{HardState, Log, LogError, LogOptions, ReadError};
use support::{Reports, append, dir, open, options, read_all, record, truncate_after, try_open};

#[test]
fn appends_that_wait_together_share_one_sync() {
    let disk = MemoryDisk::new(1);
    let (log, mut writer, _) = try_open(&disk, LogOptions::new(support::LOG_ID)).unwrap();
    append(&log, &mut writer, vec![record(1, 1, 60)]);
    let (before, counted, reports) = (disk.sync_count(), log.syncs(), Reports::default());
    for index in 2..=100 {
        log.append(vec![record(index, 1, 60)], reports.done(index));
    }
    assert_eq!(log.read(2..101, usize::MAX).unwrap().len(), 99, "readable before it is durable");
    assert_eq!(log.durable_index(), Some(1));
    writer.write_pending();
    assert!(reports.take().is_empty(), "not before the sync");
    writer.sync_written();
    assert_eq!(reports.acknowledged(), Vec::from_iter(2..=100));
    assert_eq!((disk.sync_count(), log.syncs()), (before + 1, counted + 1));
    assert_eq!(log.durable_index(), Some(100));
    log.save_vote("v".into(), reports.done(101));
    writer.step();
    assert_eq!((disk.sync_count(), log.syncs()), (before + 2, counted + 2));
}

#[test]
fn segments_are_dense_bounded_and_read_across() {
    let disk = MemoryDisk::new(1);
    let (log, mut writer, _) = open(&disk);
    let expected: Vec<_> = (1..=100).map(|index| record(index, 1 + index / 30, 70)).collect();
    for batch in expected.chunks(7) {
        append(&log, &mut writer, batch.to_vec());
    }
    let segments = log.segments();
    assert!(4 < segments.len());
    for pair in segments.windows(2) {
        assert_eq!(pair[0].end_index, pair[1].first_index);
        assert!(pair[0].sealed && pair[0].bytes <= 2048 + 17, "{pair:?}");
    }
    assert_eq!(read_all(&log), expected);
    assert_eq!(log.read(10..95, usize::MAX).unwrap(), expected[9..94]);
    assert_eq!(log.read(10..95, 0).unwrap(), expected[9..10], "at least one");
    assert_eq!(log.read(90..1000, usize::MAX).unwrap(), expected[89..]);
    assert_eq!(log.read(101..102, 9).unwrap(), []);
    let before = log.read(0..5, 9);
    assert!(matches!(before, Err(ReadError::BeforeFirst { index: 0, first: 1 })), "{before:?}");
    let (log, _, opened) = open(&disk);
    assert_eq!((opened.range, opened.tables_rebuilt), (1..101, 0));
    assert_eq!(read_all(&log), expected);
    assert_eq!(log.last(), expected.last().map(|record| record.id()));
}

#[test]
fn cuts_hide_at_once_and_what_follows_takes_their_place() {
    for kept in [None, Some(1), Some(9), Some(17), Some(40), Some(58), Some(59), Some(60)] {
        let disk = MemoryDisk::new(1);
        let (log, mut writer, _) = open(&disk);
        let mut expected: Vec<_> = (1..=60).map(|index| record(index, 1, 60)).collect();
        append(&log, &mut writer, expected.clone());
        let reports = Reports::default();
        log.append(vec![record(61, 1, 60)], reports.done(1));
        log.truncate_after(kept, reports.done(2));
        let end = kept.map_or(1, |kept| kept + 1);
        assert_eq!(log.last().map(|last| last.index), kept);
        assert_eq!(log.durable_index(), kept);
        let after: Vec<_> = (end..end + 5).map(|index| record(index, 2, 50)).collect();
        log.append(after.clone(), reports.done(3));
        expected.truncate(end as usize - 1);
        expected.extend(after);
        assert_eq!(read_all(&log), expected, "kept {kept:?}, before it is written");
        while writer.step() {}
        assert_eq!(reports.acknowledged(), [1, 2, 3]);
        assert_eq!(read_all(&log), expected, "kept {kept:?}");
        disk.crash();
        let (log, _, opened) = open(&disk);
        assert_eq!(read_all(&log), expected, "kept {kept:?}, after a crash");
        assert_eq!(opened.torn, None);
    }
}

#[test]
fn a_cut_alone_is_durable_and_the_log_is_not_short_afterwards() {
    for kept in [None, Some(17), Some(18), Some(59)] {
        let disk = MemoryDisk::new(1);
        let (log, mut writer, _) = open(&disk);
        append(&log, &mut writer, (1..=60).map(|index| record(index, 1, 60)).collect());
        support::save_vote(&log, &mut writer, "marks 60 as acknowledged");
        truncate_after(&log, &mut writer, kept);
        disk.crash();
        let (log, mut writer, _) = open(&disk);
        assert_eq!(log.last().map(|last| last.index), kept);
        append(&log, &mut writer, vec![record(kept.unwrap_or(0) + 1, 2, 60)]);
    }
}

#[test]
fn what_does_not_follow_is_refused() {
    let disk = MemoryDisk::new(1);
    let (log, mut writer, _) = open(&disk);
    append(&log, &mut writer, vec![record(5, 3, 10)]);
    let reports = Reports::default();
    log.append(vec![record(7, 3, 10)], reports.done(1));
    log.append(vec![record(6, 2, 10)], reports.done(2));
    log.append(vec![record(6, 3, 10), record(8, 3, 10)], reports.done(3));
    let outcomes = reports.take();
    assert_eq!(outcomes.len(), 3);
    assert!(outcomes.iter().all(|(_, o)| matches!(o, Err(LogError::OutOfOrder { .. }))));
    log.truncate_after(Some(9), reports.done(4));
    log.truncate_after(Some(3), reports.done(5));
    let outcomes = reports.take();
    assert!(outcomes.iter().all(|(_, o)| matches!(o, Err(LogError::Cut { .. }))), "{outcomes:?}");
    assert_eq!(log.range(), 5..6);
}

#[test]
fn the_queue_is_bounded() {
    let disk = MemoryDisk::new(1);
    let bounded = LogOptions { queue_bytes: 300, max_record_bytes: 1000, ..options() };
    let (log, mut writer, _) = try_open(&disk, bounded).unwrap();
    let reports = Reports::default();
    log.append(vec![record(1, 1, 900)], reports.done(1));
    log.append(vec![record(2, 1, 10)], reports.done(2));
    let outcomes = reports.take();
    assert!(matches!(outcomes[..], [(2, Err(LogError::Busy { .. }))]), "{outcomes:?}");
    log.append(vec![record(2, 1, 1001)], reports.done(3));
    assert!(matches!(reports.take()[..], [(3, Err(LogError::TooLarge { max: 1000, .. }))]));
    while writer.step() {}
    assert_eq!(reports.acknowledged(), [1]);
    append(&log, &mut writer, vec![record(2, 1, 10)]);
}

#[test]
fn commit_marks_never_lead_the_durable_log() {
    let disk = MemoryDisk::new(1);
    let (log, mut writer, _) = open(&disk);
    support::save_vote(&log, &mut writer, "v1");
    log.append(vec![record(1, 1, 10)], Box::new(|_| {}));
    log.save_committed(1, "c1".into()).unwrap();
    assert_eq!(log.hard_state(), HardState { vote: "v1".into(), committed: "c1".into() });
    writer.write_pending();
    let (reopened, ..) = open(&disk.fork(1));
    assert_eq!(reopened.hard_state().committed, "", "its record is not durable yet");
    writer.sync_written();
    append(&log, &mut writer, vec![record(2, 1, 10)]);
    let (reopened, ..) = open(&disk.fork(1));
    assert_eq!(reopened.hard_state(), HardState { vote: "v1".into(), committed: "c1".into() });
}

#[test]
fn closing_writes_what_is_queued_and_refuses_the_rest() {
    let disk = MemoryDisk::new(1);
    let (log, mut writer, _) = open(&disk);
    let reports = Reports::default();
    log.append(vec![record(1, 1, 10)], reports.done(1));
    log.save_committed(1, "c1".into()).unwrap();
    log.close();
    log.append(vec![record(2, 1, 10)], reports.done(2));
    assert!(matches!(reports.take()[..], [(2, Err(LogError::Closed))]));
    while !writer.is_finished() {
        writer.step();
    }
    assert_eq!(reports.acknowledged(), [1]);
    disk.crash();
    let (log, _, opened) = open(&disk);
    assert_eq!(opened.torn, None);
    assert_eq!(log.hard_state().committed, "c1");
}

#[test]
fn a_thread_serves_many_appends_and_readers_on_a_real_disk() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(RealDisk::new(folder.path()));
    let small = || LogOptions { segment_bytes: 64 * 1024, queue_bytes: 4096, ..options() };
    let (log, writer, _) = Log::open(disk.clone(), dir(), small()).unwrap();
    writer.spawn_thread().unwrap();
    let (sender, durable) = mpsc::channel();
    let reader = std::thread::spawn({
        let log = log.clone();
        move || {
            for index in durable {
                let found = log.read(index..index + 1, 0).unwrap();
                assert_eq!(found, [record(index, 1, 100)]);
                assert!(log.durable_index() >= Some(index));
            }
        }
    });
    for index in 1..=3000 {
        let sender = sender.clone();
        let report = move |outcome: Result<(), LogError>| {
            outcome.expect("durable");
            sender.send(index).expect("the reader listens");
        };
        log.append(vec![record(index, 1, 100)], Box::new(report));
    }
    log.close();
    drop(sender);
    reader.join().unwrap();
    let (log, _, opened) = Log::open(disk, dir(), small()).unwrap();
    assert_eq!(opened.range, 1..3001);
    assert_eq!(opened.torn, None);
    assert!(2 < log.segments().len());
}
