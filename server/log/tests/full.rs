//! Disks that are full, for a while.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;
use std::{io, thread};

use anabranch_log::disk::MemoryDisk;
use anabranch_log::{Log, LogError, LogOptions, Room, Writer};
use support::refusing::{RefusingDisk, Step};
use support::{Reports, append, dir, open, options, read_all, record, try_open};

/// A log of some segments, written record by record. Opened anew, so that no room is left in its files.
fn filled(disk: &MemoryDisk, records: u64) -> (Log, Writer) {
    filled_with(disk, records, options())
}

fn filled_with(disk: &MemoryDisk, records: u64, options: LogOptions) -> (Log, Writer) {
    let (log, mut writer, _) = try_open(disk, options.clone()).unwrap();
    for index in 1..=records {
        append(&log, &mut writer, vec![record(index, 1, 60)]);
    }
    let (log, writer, _) = try_open(disk, options).unwrap();
    (log, writer)
}

fn free(disk: &MemoryDisk, log: &Log) {
    disk.set_capacity(None);
    log.restore_reserve();
}

#[test]
fn a_full_disk_keeps_what_waits_and_goes_on_in_order_when_there_is_room() {
    for extra in 0..200 {
        let disk = MemoryDisk::new(1);
        let (log, mut writer) = filled(&disk, 17);
        disk.set_capacity(Some(disk.used() + extra));
        let reports = Reports::default();
        log.append(vec![record(18, 1, 300)], reports.done(1));
        log.append(vec![record(19, 1, 30)], reports.done(2));
        log.save_vote("v".into(), reports.done(3));
        log.append(vec![record(20, 1, 1500)], reports.done(4));
        log.truncate_after(Some(19), reports.done(5));
        while writer.step() {}
        assert!(reports.take().is_empty(), "{extra}: nothing is reported");
        assert_eq!(log.room(), Room::None);
        assert_eq!((log.range(), log.durable_index()), (1..20, Some(17)));
        assert_eq!(read_all(&log).last(), Some(&record(19, 1, 30)), "what waits can be read");
        log.restore_reserve();
        while writer.step() {}
        assert_eq!(log.room(), Room::None, "asking makes no room");
        free(&disk, &log);
        while writer.step() {}
        assert_eq!(reports.acknowledged(), [1, 2, 3, 4, 5]);
        assert_eq!(log.room(), Room::Ok);
        let expected = read_all(&log);
        assert_eq!(expected.len(), 19);
        disk.crash();
        let (log, _, _) = open(&disk);
        assert_eq!(read_all(&log), expected, "{extra}");
        assert_eq!(log.hard_state().vote, "v");
    }
}

#[test]
fn a_log_that_found_no_room_is_not_tried_again_before_somebody_asks() {
    let disk = MemoryDisk::new(1);
    let (log, mut writer) = filled(&disk, 1);
    disk.set_capacity(Some(disk.used()));
    let wakes = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&wakes);
    writer.on_work(Arc::new(move || {
        count.fetch_add(1, Ordering::SeqCst);
    }));
    let reports = Reports::default();
    log.append(vec![record(2, 1, 60)], reports.done(1));
    assert!(writer.step());
    disk.set_capacity(None);
    assert!(!writer.step(), "who drives it can rest");
    let before = wakes.load(Ordering::SeqCst);
    log.restore_reserve();
    assert!(before < wakes.load(Ordering::SeqCst), "who drives it is woken");
    while writer.step() {}
    assert_eq!(reports.acknowledged(), [1]);
}

#[test]
fn a_vote_passes_on_a_full_disk_as_long_as_nothing_waits() {
    let disk = MemoryDisk::new(1);
    let (log, mut writer) = filled(&disk, 3);
    disk.set_capacity(Some(disk.used()));
    support::save_vote(&log, &mut writer, "still votes");
    disk.crash();
    let (log, ..) = open(&disk);
    assert_eq!(log.hard_state().vote, "still votes");
}

#[test]
fn the_reserve_carries_small_entries_over_a_full_disk() {
    let disk = MemoryDisk::new(1);
    let reserved = || LogOptions { reserve_bytes: 4096, ..options() };
    let (log, mut writer) = filled_with(&disk, 1, reserved());
    assert_eq!(log.room(), Room::Ok);
    disk.set_capacity(Some(disk.used()));
    append(&log, &mut writer, vec![record(2, 1, 60)]);
    assert_eq!(log.room(), Room::Low, "acknowledged, from the reserve");
    append(&log, &mut writer, vec![record(3, 1, 60)]);
    log.restore_reserve();
    while writer.step() {}
    assert_eq!(log.room(), Room::Low, "there is still no room to set aside");
    let (log, mut writer, _) = try_open(&disk, reserved()).unwrap();
    assert_eq!(log.room(), Room::Low, "also after a restart");
    let reports = Reports::default();
    for index in 4..60 {
        log.append(vec![record(index, 1, 80)], reports.done(index));
        writer.step();
    }
    assert_eq!(log.room(), Room::None, "the reserve is used up");
    let acknowledged = reports.acknowledged().len();
    assert!((1..56).contains(&acknowledged), "{acknowledged}");
    free(&disk, &log);
    while writer.step() {}
    assert_eq!(log.room(), Room::Ok);
    assert_eq!(reports.acknowledged().len(), 56 - acknowledged);
    assert_eq!(read_all(&log).len(), 59);
}

#[test]
fn a_log_that_is_closed_without_room_refuses_what_waits() {
    let disk = MemoryDisk::new(1);
    let (log, mut writer) = filled(&disk, 3);
    disk.set_capacity(Some(disk.used()));
    let reports = Reports::default();
    log.append(vec![record(4, 1, 60)], reports.done(1));
    while writer.step() {}
    log.save_vote("v".into(), reports.done(2));
    log.append(vec![record(5, 1, 60)], reports.done(3));
    log.close();
    while !writer.is_finished() {
        assert!(writer.step(), "it comes to an end");
    }
    let outcomes = reports.take();
    let ids: Vec<u64> = outcomes.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids, [1, 2, 3]);
    assert!(outcomes.iter().all(|(_, o)| matches!(o, Err(LogError::Full))), "{outcomes:?}");
    assert_eq!(log.range(), 1..4, "what was refused is gone");
    let (log, ..) = open(&disk);
    assert_eq!(log.range(), 1..4);
    assert_eq!(log.hard_state().vote, "");
}

#[test]
fn a_close_finds_the_room_that_came_in_the_meantime() {
    let disk = MemoryDisk::new(1);
    let (log, mut writer) = filled(&disk, 3);
    disk.set_capacity(Some(disk.used()));
    let reports = Reports::default();
    log.append(vec![record(4, 1, 60)], reports.done(1));
    while writer.step() {}
    disk.set_capacity(None);
    log.close();
    while !writer.is_finished() {
        writer.step();
    }
    assert_eq!(reports.acknowledged(), [1]);
}

#[test]
fn a_log_told_not_to_wait_refuses_at_once_and_takes_no_more() {
    let disk = MemoryDisk::new(1);
    let (log, mut writer) = filled(&disk, 3);
    disk.set_capacity(Some(disk.used()));
    let reports = Reports::default();
    log.append(vec![record(4, 1, 60)], reports.done(1));
    while writer.step() {}
    log.refuse_when_full();
    while writer.step() {}
    log.save_vote("v".into(), reports.done(2));
    let outcomes = reports.take();
    assert!(
        matches!(outcomes[..], [(1, Err(LogError::Full)), (2, Err(LogError::Full))]),
        "{outcomes:?}"
    );
    assert!(!writer.is_finished(), "it is not closed");
    log.close();
    writer.step();
    assert!(writer.is_finished());
}

#[test]
fn a_thread_waits_for_room_and_is_asked_from_another() {
    let disk = MemoryDisk::new(1);
    let small = LogOptions { queue_bytes: 300, ..options() };
    let (log, writer) = filled_with(&disk, 1, small);
    writer.spawn_thread().unwrap();
    disk.set_capacity(Some(disk.used()));
    let reports = Reports::default();
    log.append(vec![record(2, 1, 60)], reports.done(2));
    while log.room() != Room::None {
        thread::yield_now();
    }
    log.append(vec![record(3, 1, 200)], reports.done(3));
    let next = [record(4, 1, 100)];
    let (ready, space) = mpsc::channel();
    log.on_space(&next, Box::new(move || ready.send(()).expect("the test waits")));
    let early = space.recv_timeout(Duration::from_millis(50));
    assert_eq!(early, Err(mpsc::RecvTimeoutError::Timeout), "the queue is full");
    free(&disk, &log);
    space.recv_timeout(Duration::from_secs(20)).expect("there is space");
    log.append(next.to_vec(), reports.done(4));
    log.close();
    assert_eq!(reports.acknowledged(), [2, 3, 4]);
    assert_eq!(read_all(&log).len(), 4);
}

#[test]
fn a_thread_without_room_ends_when_the_log_is_closed_and_so_do_those_who_wait() {
    let disk = MemoryDisk::new(1);
    let small = LogOptions { queue_bytes: 300, ..options() };
    let (log, writer) = filled_with(&disk, 1, small);
    writer.spawn_thread().unwrap();
    disk.set_capacity(Some(disk.used()));
    let reports = Reports::default();
    log.append(vec![record(2, 1, 200)], reports.done(2));
    while log.room() != Room::None {
        thread::yield_now();
    }
    log.append(vec![record(3, 1, 200)], reports.done(3));
    let (ready, space) = mpsc::channel();
    log.on_space(&[record(4, 1, 200)], Box::new(move || ready.send(()).expect("heard")));
    log.close();
    space.recv_timeout(Duration::from_secs(20)).expect("who waits is told");
    log.append(vec![record(4, 1, 200)], reports.done(4));
    let outcomes = reports.take();
    let ids: Vec<u64> = outcomes.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids, [2, 3, 4]);
    assert!(outcomes.iter().all(|(_, o)| matches!(o, Err(LogError::Full))), "{outcomes:?}");
}

#[test]
fn what_a_full_disk_took_of_a_batch_does_not_come_back_behind_a_later_one() {
    let disk = MemoryDisk::new(1);
    let (log, mut writer) = filled(&disk, 1);
    let two_records = 2 * record(2, 1, 60).stored_bytes() as u64;
    disk.set_capacity(Some(disk.used() + two_records + 20));
    let reports = Reports::default();
    log.append((2..6).map(|index| record(index, 1, 60)).collect(), reports.done(1));
    while writer.step() {}
    log.close();
    while !writer.is_finished() {
        writer.step();
    }
    assert!(matches!(reports.take()[..], [(1, Err(LogError::Full))]));
    disk.set_capacity(None);
    let (log, mut writer, _) = open(&disk);
    // As long as the record that was refused, so the next refused one would follow it.
    let mut other = record(2, 1, 60);
    other.leader += 1;
    log.append(vec![other.clone()], reports.done(2));
    writer.write_pending();
    let (reopened, ..) = open(&disk.fork(1));
    assert_eq!(read_all(&reopened), [record(1, 1, 60), other]);
}

#[test]
fn votes_and_cuts_wait_too_where_nothing_can_be_overwritten() {
    // Cut in the middle of the last segment, before it, and to where it begins.
    for last_kept in [38, 20, 3] {
        let disk = MemoryDisk::new(1);
        let full = Arc::new(AtomicBool::new(false));
        // A file system that copies on write: when it is full, nothing can be written, in place or
        // not, and no name can be given.
        let is_full = Arc::clone(&full);
        let copying = RefusingDisk::new(&disk, move |step| match step {
            Step::Create | Step::Rename | Step::Write if is_full.load(Ordering::SeqCst) => {
                Err(io::ErrorKind::StorageFull.into())
            }
            _ => Ok(()),
        });
        let (log, mut writer, _) = Log::open(Arc::new(copying), dir(), options()).unwrap();
        for index in 1..=40 {
            append(&log, &mut writer, vec![record(index, 1, 60)]);
        }
        full.store(true, Ordering::SeqCst);
        let reports = Reports::default();
        log.save_vote("v".into(), reports.done(1));
        while writer.step() {}
        assert_eq!((log.room(), reports.take().len()), (Room::None, 0));
        full.store(false, Ordering::SeqCst);
        log.restore_reserve();
        while writer.step() {}
        assert_eq!(reports.acknowledged(), [1]);
        full.store(true, Ordering::SeqCst);
        log.truncate_after(Some(last_kept), reports.done(2));
        log.append(vec![record(last_kept + 1, 2, 60)], reports.done(3));
        while writer.step() {}
        assert_eq!((log.room(), reports.take().len()), (Room::None, 0));
        let waiting = disk.fork(1);
        full.store(false, Ordering::SeqCst);
        log.restore_reserve();
        while writer.step() {}
        assert_eq!(reports.acknowledged(), [2, 3], "cut after {last_kept}");
        let (reopened, ..) = open(&disk);
        assert_eq!(reopened.range(), 1..last_kept + 2);
        assert_eq!(reopened.hard_state().vote, "v");
        let (reopened, ..) = open(&waiting);
        assert_eq!(reopened.range(), 1..41, "a crash while it waited lost nothing");
    }
}

#[test]
fn a_log_that_cannot_open_a_file_waits_until_it_can() {
    const EMFILE: i32 = 24;
    for refused in [Step::Create, Step::SyncDir] {
        let disk = MemoryDisk::new(1);
        let crowded = Arc::new(AtomicBool::new(false));
        let is_crowded = Arc::clone(&crowded);
        let refusing = RefusingDisk::new(&disk, move |step| {
            match step == refused && is_crowded.load(Ordering::SeqCst) {
                true => Err(io::Error::from_raw_os_error(EMFILE)),
                false => Ok(()),
            }
        });
        let (log, mut writer, _) = Log::open(Arc::new(refusing), dir(), options()).unwrap();
        append(&log, &mut writer, vec![record(1, 1, 60)]);
        crowded.store(true, Ordering::SeqCst);
        let reports = Reports::default();
        let segments = log.segments().len();
        for index in 2..=40 {
            log.append(vec![record(index, 1, 60)], reports.done(index));
            while writer.step() {}
        }
        assert_eq!(log.room(), Room::None, "{refused:?}");
        assert!(reports.take().iter().all(|(_, outcome)| outcome.is_ok()), "nothing fails");
        assert_eq!(log.segments().len(), segments, "a second segment cannot be made");
        crowded.store(false, Ordering::SeqCst);
        log.restore_reserve();
        while writer.step() {}
        let expected = read_all(&log);
        assert_eq!(expected.len(), 40);
        assert_eq!((log.room(), log.durable_index()), (Room::Ok, Some(40)));
        disk.crash();
        let (reopened, ..) = open(&disk);
        assert_eq!(read_all(&reopened), expected, "{refused:?}");
    }
}
