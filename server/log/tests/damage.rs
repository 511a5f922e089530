//! Disks that lie, refuse or fill up.

mod support;

use anabranch_log::disk::{Disk, MemoryDisk};
use anabranch_log::{Log, LogError, LogOptions, OpenError, ReadError, Writer};
use support::{Reports, append, dir, open, options, read_all, record, try_open};

fn segment(first: u64) -> std::path::PathBuf {
    dir().join(format!("{first:020}.seg"))
}

fn table(first: u64) -> std::path::PathBuf {
    dir().join(format!("{first:020}.off"))
}

/// A log of several segments, written record by record.
fn filled(disk: &MemoryDisk, records: u64) -> (Log, Writer) {
    let (log, mut writer, _) = open(disk);
    for index in 1..=records {
        append(&log, &mut writer, vec![record(index, 1, 60)]);
    }
    (log, writer)
}

#[test]
fn every_flipped_bit_of_the_last_segment_is_found_on_open() {
    let disk = MemoryDisk::new(1);
    let (log, _writer) = filled(&disk, 4);
    let expected = read_all(&log);
    let content = disk.content(&segment(1)).unwrap();
    let bits = content.len() as u64 * 8;
    // Its last byte that is not zero is the first of the eight that say where the log ends.
    let mark = content.iter().rposition(|byte| *byte != 0).unwrap() as u64 + 8 - 17;
    assert!(mark + 17 < content.len() as u64, "zeroes follow, for records to come");
    for bit in 0..bits {
        let image = disk.fork(1);
        image.flip_bit(&segment(1), bit);
        let before = image.content(&segment(1));
        match try_open(&image, options()) {
            Err(OpenError::Corrupt { .. } | OpenError::Foreign { .. }) => {
                assert_eq!(image.content(&segment(1)), before, "bit {bit}: left as it was");
            }
            Err(error) => panic!("bit {bit}: {error}"),
            // The last mark follows everything and says only that, and behind it is nothing.
            Ok((log, _, opened)) => {
                assert!(mark * 8 <= bit && opened.torn.is_some(), "bit {bit} went unnoticed");
                assert_eq!(read_all(&log), expected, "bit {bit}");
            }
        }
    }
}

#[test]
fn every_flipped_bit_of_a_sealed_segment_is_found_on_open_or_read() {
    let disk = MemoryDisk::new(1);
    let (log, _writer) = filled(&disk, 40);
    assert!(log.segments()[0].sealed);
    let end = log.segments()[0].end_index;
    let bits = disk.content(&segment(1)).unwrap().len() as u64 * 8;
    let mut unnoticed = 0;
    for bit in 0..bits {
        let image = disk.fork(1);
        image.flip_bit(&segment(1), bit);
        let Ok((log, _, _)) = try_open(&image, options()) else { continue };
        let mut refused = Vec::new();
        for index in 1..end {
            match log.read(index..index + 1, 0) {
                Ok(records) => assert_eq!(records, [record(index, 1, 60)], "bit {bit}"),
                Err(ReadError::Corrupt { segment: 1, .. }) => refused.push(index),
                Err(error) => panic!("bit {bit}: {error}"),
            }
        }
        // A mark's damage is met by who looks for the record behind it by scanning: nobody here.
        unnoticed += u64::from(refused.is_empty());
    }
    assert_eq!(
        unnoticed,
        17 * 8 * (end - 1),
        "only in marks, which say nothing in a sealed segment"
    );
}

#[test]
fn a_damaged_sealed_record_is_refused_and_the_others_are_served() {
    let disk = MemoryDisk::new(1);
    let (log, mut writer) = filled(&disk, 40);
    let at = disk.content(&segment(1)).unwrap();
    let at = at.windows(4).position(|window| window == b"5/1 ").unwrap() as u64;
    disk.flip_bit(&segment(1), at * 8);
    let error = log.read(5..6, 0).err();
    assert!(matches!(error, Some(ReadError::Corrupt { segment: 1, index: 5, .. })), "{error:?}");
    assert_eq!(log.read(1..9, 10_000).unwrap().len(), 4, "what is whole before it");
    assert_eq!(log.read(6..7, 0).unwrap(), [record(6, 1, 60)]);
    append(&log, &mut writer, vec![record(41, 1, 60)]);
    // Without a table the segment is scanned on open, which finds it then.
    log.close();
    while writer.step() {}
    disk.remove(&table(1)).unwrap();
    let error = try_open(&disk, options()).err();
    assert!(matches!(error, Some(OpenError::Corrupt { segment: 1, .. })), "{error:?}");
}

#[test]
fn offset_tables_are_made_again_when_they_are_missing_or_damaged() {
    let disk = MemoryDisk::new(1);
    let (log, _writer) = filled(&disk, 40);
    let expected = read_all(&log);
    disk.remove(&table(1)).unwrap();
    let (log, _writer, opened) = open(&disk);
    assert_eq!(opened.tables_rebuilt, 1);
    assert_eq!(read_all(&log), expected);
    // Damage inside the table shows only when it is used.
    for bit in 0..32 {
        let image = disk.fork(1);
        image.flip_bit(&table(1), 60 * 8 + 32 + bit);
        let (log, _writer, opened) = open(&image);
        assert_eq!(opened.tables_rebuilt, 0);
        assert_eq!(log.read(2..3, 0).unwrap(), [record(2, 1, 60)], "bit {bit}");
        assert_eq!(read_all(&log), expected, "bit {bit}");
    }
}

#[test]
fn missing_segments_are_noticed() {
    let disk = MemoryDisk::new(1);
    let (log, mut writer) = filled(&disk, 60);
    log.close();
    while writer.step() {}
    let segments = log.segments();
    assert!(3 <= segments.len());
    for (nth, info) in segments.iter().enumerate() {
        let image = disk.fork(1);
        image.remove(&segment(info.first_index)).unwrap();
        let error = try_open(&image, options()).err();
        let last = nth + 1 == segments.len();
        match error {
            Some(OpenError::Short { acknowledged_end: 61, .. }) if last => {}
            Some(OpenError::Hole { records }) if !last => {
                assert_eq!(records, info.first_index..info.end_index);
            }
            other => panic!("without segment {nth}: {other:?}"),
        }
    }
    let image = disk.fork(1);
    image.remove(&dir().join("hard-state")).unwrap();
    let error = try_open(&image, options()).err();
    assert!(matches!(error, Some(OpenError::HardStateMissing { .. })), "{error:?}");
}

#[test]
fn another_logs_folder_is_refused() {
    let disk = MemoryDisk::new(1);
    filled(&disk, 3);
    let other = LogOptions { log_id: [9; 16], ..options() };
    let error = try_open(&disk, other).err();
    assert!(matches!(error, Some(OpenError::Foreign { .. })), "{error:?}");
}

#[test]
fn a_write_that_landed_elsewhere_is_found() {
    let disk = MemoryDisk::new(1);
    let (log, mut writer) = filled(&disk, 3);
    let second = disk.content(&segment(1)).unwrap();
    let second = second.windows(4).position(|window| window == b"2/1 ").unwrap() as u64 - 33;
    disk.misdirect_next_write(&segment(1), second);
    append(&log, &mut writer, vec![record(4, 1, 60)]);
    append(&log, &mut writer, vec![record(5, 1, 60)]);
    let error = try_open(&disk, options()).err();
    assert!(matches!(error, Some(OpenError::Corrupt { segment: 1, .. })), "{error:?}");
}

#[test]
fn what_a_new_process_reads_after_a_failed_sync_it_makes_durable_before_it_relies_on_it() {
    for what in ["records", "vote"] {
        let disk = MemoryDisk::new(1);
        let (log, mut writer) = filled(&disk, 3);
        let reports = Reports::default();
        disk.fail_sync(1);
        match what {
            "records" => log.append(vec![record(4, 1, 60)], reports.done(1)),
            _ => log.save_vote("v".into(), reports.done(1)),
        }
        writer.step();
        assert!(reports.take()[0].1.is_err(), "{what}");
        // The system's cache still shows what the disk never got, and takes it for clean.
        disk.kill();
        let (log, mut writer, _) = open(&disk);
        let (seen, vote) = (read_all(&log).len(), log.hard_state().vote);
        assert!(seen == 4 || vote == "v", "{what} can be read");
        append(&log, &mut writer, vec![record(seen as u64 + 1, 1, 60)]);
        disk.crash();
        let (log, _, _) = open(&disk);
        assert_eq!((read_all(&log).len(), log.hard_state().vote), (seen + 1, vote), "{what}");
    }
}

#[test]
fn a_failed_sync_ends_the_right_to_write_but_not_to_read() {
    let disk = MemoryDisk::new(1);
    let (log, mut writer) = filled(&disk, 3);
    let reports = Reports::default();
    disk.fail_sync(1);
    log.append(vec![record(4, 1, 60)], reports.done(4));
    assert!(writer.write_pending());
    log.append(vec![record(5, 1, 60)], reports.done(5));
    writer.sync_written();
    log.append(vec![record(4, 1, 60)], reports.done(6));
    log.save_vote("v".into(), reports.done(7));
    log.truncate_after(None, reports.done(8));
    let outcomes = reports.take();
    assert!(matches!(outcomes[0], (4, Err(LogError::Unknown { .. }))), "{outcomes:?}");
    for (nth, id) in [5, 6, 7, 8].into_iter().enumerate() {
        let (found, outcome) = &outcomes[nth + 1];
        assert_eq!(*found, id);
        assert!(matches!(outcome, Err(LogError::Poisoned { .. })), "{outcome:?}");
    }
    assert!(matches!(log.stopped(), Some(LogError::Poisoned { .. })));
    assert_eq!(read_all(&log).len(), 3);
    let writes = disk.content(&segment(1));
    writer.step();
    assert_eq!(disk.content(&segment(1)), writes, "nothing is written any more");
    disk.crash();
    let (log, mut writer, _) = open(&disk);
    assert_eq!(read_all(&log).len(), 3);
    append(&log, &mut writer, vec![record(4, 2, 60)]);
}

#[test]
fn damage_below_the_batch_being_written_is_not_taken_for_its_torn_end() {
    let disk = MemoryDisk::new(1);
    let (log, mut writer) = filled(&disk, 1);
    let reports = Reports::default();
    log.append(vec![record(2, 1, 60)], reports.done(2));
    writer.write_pending();
    // The next waits already, so the writer leaves no mark of its own behind the first.
    log.append(vec![record(3, 1, 60)], reports.done(3));
    writer.sync_written();
    assert_eq!(reports.acknowledged(), [2]);
    writer.write_pending();
    let content = disk.content(&segment(1)).unwrap();
    let of = |text: &[u8]| content.windows(4).position(|window| window == text).unwrap() as u64;
    let torn = disk.fork(1);
    torn.flip_bit(&segment(1), of(b"3/1 ") * 8);
    let (reopened, _, opened) = open(&torn);
    assert_eq!(reopened.range(), 1..3);
    assert!(opened.torn.is_some());
    let damaged = disk.fork(1);
    damaged.flip_bit(&segment(1), of(b"2/1 ") * 8);
    let error = try_open(&damaged, options()).err();
    assert!(matches!(error, Some(OpenError::Corrupt { segment: 1, .. })), "{error:?}");
}
