//! Power failures at any moment: what was acknowledged is there, and nothing that was not submitted.

mod support;

use std::collections::BTreeMap;

use anabranch_log::disk::MemoryDisk;
use anabranch_log::{Log, LogError, LogOptions, OpenError, Record, Room, Writer};
use bytes::Bytes;
use support::{Random, Reports, open, options, read_all, record, try_open};

/// What was asked of the log since it was opened.
#[derive(Clone, Debug)]
enum Asked {
    Append(Vec<Record>),
    Cut(u64),
    Vote(u64),
}

/// A log under test and what is known of it.
struct Trial {
    disk: MemoryDisk,
    random: Random,
    /// Content and vote once everything acknowledged is applied.
    sure: (Vec<Record>, u64),
    asked: BTreeMap<u64, Asked>,
    next_id: u64,
    term: u64,
    /// Raft cuts nothing at or before it.
    committed: u64,
    reports: Reports,
    /// The disk fills up and is freed again, too.
    fills: bool,
    /// How often nothing became durable for want of room.
    stalls: u64,
}

fn apply((records, vote): &mut (Vec<Record>, u64), asked: &Asked) {
    match asked {
        Asked::Append(more) => records.extend(more.iter().cloned()),
        Asked::Cut(end) => records.retain(|record| record.index < *end),
        Asked::Vote(next) => *vote = *next,
    }
}

impl Trial {
    fn new(seed: u64) -> Self {
        Self {
            disk: MemoryDisk::new(seed),
            random: Random(seed),
            sure: (Vec::new(), 0),
            asked: BTreeMap::new(),
            next_id: 0,
            term: 1,
            committed: 0,
            reports: Reports::default(),
            fills: false,
            stalls: 0,
        }
    }

    /// The disk fills up, or there is some space, or enough again.
    fn change_room(&mut self, log: &Log) {
        match self.random.below(3) {
            0 => self.disk.set_capacity(Some(self.disk.used() + self.random.below(1500))),
            1 => log.restore_reserve(),
            _ => {
                self.disk.set_capacity(None);
                log.restore_reserve();
            }
        }
        self.stalls += u64::from(log.room() == Room::None);
    }

    /// Ends the log in order. What was not acknowledged was refused, and may be there in part if it
    /// went to several segments.
    fn close(&mut self, log: &Log, writer: &mut Writer) {
        log.close();
        while !writer.is_finished() {
            writer.step();
        }
        let outcomes = self.reports.take();
        let reported: Vec<u64> = outcomes.iter().map(|(id, _)| *id).collect();
        let asked: Vec<u64> = self.asked.keys().copied().collect();
        assert_eq!(reported, asked, "each once, in order");
        let full = outcomes.iter().position(|(_, outcome)| outcome.is_err());
        let (done, refused) = outcomes.split_at(full.unwrap_or(outcomes.len()));
        assert!(refused.iter().all(|(_, o)| matches!(o, Err(LogError::Full))), "{refused:?}");
        for (id, _) in done {
            let asked = self.asked.remove(id).expect("it was asked");
            apply(&mut self.sure, &asked);
        }
    }

    fn ask(&mut self, log: &Log) {
        self.next_id += 1;
        let (id, range) = (self.next_id, log.range());
        let done = self.reports.done(id);
        let asked = match self.random.below(12) {
            0 => {
                self.term += 1;
                log.save_vote(Bytes::from(self.term.to_string()), done);
                Asked::Vote(self.term)
            }
            1 if !range.is_empty() => {
                let kept = self.random.below(range.end - range.start + 1);
                let end = (range.start + kept).max(range.end.saturating_sub(20));
                let end = end.max(range.start).max(self.committed + 1).min(range.end);
                log.truncate_after(end.checked_sub(1), done);
                self.term += 1;
                Asked::Cut(end)
            }
            _ => {
                let start = if range.is_empty() { 1 } else { range.end };
                let count = self.random.below(6);
                let size = |random: &mut Random| match random.below(8) {
                    0 => random.below(1500),
                    _ => random.below(120),
                };
                let records: Vec<Record> = (start..start + count)
                    .map(|index| record(index, self.term, size(&mut self.random) as usize))
                    .collect();
                log.append(records.clone(), done);
                if let Some(last) = records.last().filter(|_| self.random.below(3) == 0) {
                    self.committed = last.index;
                    let committed = Bytes::from(last.index.to_string());
                    log.save_committed(last.index, committed).expect("the log is open");
                }
                Asked::Append(records)
            }
        };
        self.asked.insert(id, asked);
    }

    /// Everything reported is acknowledged, in the order in which it was asked.
    fn settle(&mut self) {
        for id in self.reports.acknowledged() {
            let (first, asked) = self.asked.pop_first().expect("it was asked");
            assert_eq!(first, id, "reported in order");
            apply(&mut self.sure, &asked);
        }
    }

    fn run(&mut self, log: &Log, writer: &mut Writer) {
        for _ in 0..self.random.below(60) {
            match self.random.below(4) {
                0 => {
                    writer.step();
                }
                1 if self.fills && self.random.below(3) == 0 => self.change_room(log),
                _ => self.ask(log),
            }
            self.settle();
        }
        // Half the time the power fails between write and sync.
        if self.random.below(2) == 0 {
            writer.write_pending();
        }
    }

    /// The log must be what is sure, or what is sure with some more of what was asked, up to
    /// anywhere in an append.
    fn check(&mut self, log: &Log, seed: u64) {
        let found = read_all(log);
        let state = log.hard_state();
        let vote: u64 = std::str::from_utf8(&state.vote).unwrap().parse().unwrap_or(0);
        let mut possible = self.sure.clone();
        let mut matching = (found == possible.0 && vote == possible.1).then(|| possible.clone());
        for asked in self.asked.values() {
            let before = possible.clone();
            apply(&mut possible, asked);
            let fits = match asked {
                Asked::Append(_) => {
                    before.0.len() <= found.len()
                        && possible.0.starts_with(&found)
                        && vote == possible.1
                }
                // Whole segments go one by one, from the end.
                Asked::Cut(_) => {
                    possible.0.len() <= found.len()
                        && before.0.starts_with(&found)
                        && vote == possible.1
                }
                Asked::Vote(_) => found == possible.0 && vote == possible.1,
            };
            if fits {
                matching = Some((found.clone(), vote));
            }
        }
        let (indexes, sure) = (found.len(), self.sure.0.len());
        self.sure = matching.unwrap_or_else(|| {
            panic!(
                "seed {seed}: found {indexes} records, vote {vote}; sure of {sure}, {}",
                self.sure.1
            )
        });
        let committed = std::str::from_utf8(&state.committed).unwrap().parse().unwrap_or(0);
        let end = log.range().end;
        assert!(committed < end.max(1), "seed {seed}: commit mark {committed} beyond {end}");
        self.committed = committed;
        self.asked.clear();
        self.term += 1;
    }
}

#[test]
fn what_was_acknowledged_survives_any_crash_and_nothing_is_made_up() {
    let (mut torn, mut set_aside, mut records) = (0, 0, 0);
    for seed in 0..400 {
        let mut trial = Trial::new(seed);
        for _ in 0..6 {
            let (log, mut writer, opened) = match try_open(&trial.disk, options()) {
                Ok(opened) => opened,
                Err(error) => panic!("seed {seed}: {error}"),
            };
            torn += usize::from(opened.torn.is_some());
            set_aside += usize::from(opened.empty_segment.is_some());
            trial.check(&log, seed);
            trial.run(&log, &mut writer);
            records += trial.sure.0.len();
            trial.reports = Reports::default();
            trial.disk.crash();
        }
    }
    // Or else the test does not test what it says.
    assert!(50 < torn, "{torn} torn tails");
    assert!(5 < set_aside, "{set_aside} segments without a record");
    assert!(5_000 < records, "{records} records");
}

#[test]
fn a_full_disk_loses_nothing_whenever_it_fills_up_and_however_the_log_ends() {
    let (mut stalls, mut records, mut closed_full) = (0, 0, 0);
    for seed in 0..400 {
        let mut trial = Trial { fills: true, ..Trial::new(seed) };
        let reserve_bytes = [0, 500, 3000][seed as usize % 3];
        let reserved = || LogOptions { reserve_bytes, ..options() };
        for life in 0..6 {
            // Also on a full disk.
            let (log, mut writer, _) = match try_open(&trial.disk, reserved()) {
                Ok(opened) => opened,
                Err(error) => panic!("seed {seed}: {error}"),
            };
            trial.check(&log, seed);
            trial.run(&log, &mut writer);
            match life % 3 {
                0 => {}
                1 => {
                    writer.sync_written();
                    trial.settle();
                    trial.close(&log, &mut writer);
                    closed_full += u64::from(!trial.asked.is_empty());
                }
                _ => {
                    writer.sync_written();
                    trial.disk.set_capacity(None);
                    log.restore_reserve();
                    while writer.step() {}
                    trial.settle();
                    assert!(trial.asked.is_empty(), "seed {seed}: everything went on");
                    assert_eq!(log.room(), Room::Ok);
                    assert_eq!(read_all(&log), trial.sure.0, "seed {seed}");
                }
            }
            records += trial.sure.0.len();
            trial.reports = Reports::default();
            trial.disk.crash();
        }
        stalls += trial.stalls;
    }
    // Or else the test does not test what it says.
    assert!(200 < stalls, "{stalls} times without room");
    assert!(100 < closed_full, "{closed_full} logs closed without room");
    assert!(5_000 < records, "{records} records");
}

#[test]
fn a_cut_anywhere_in_the_last_batch_leaves_what_was_whole_before() {
    let disk = MemoryDisk::new(1);
    let (log, mut writer, _) = open(&disk);
    support::append(&log, &mut writer, vec![record(1, 1, 40), record(2, 1, 40)]);
    // Written, but the power fails before the sync.
    log.append((3..6).map(|index| record(index, 1, 50)).collect(), Box::new(|_| {}));
    writer.write_pending();
    let path = support::dir().join(format!("{:020}.seg", 1));
    let content = disk.content(&path).unwrap();
    let (acknowledged, all) = (log.segments()[0].bytes as usize, content.len());
    let mut lengths = std::collections::BTreeSet::new();
    for len in acknowledged..=all {
        let image = disk.fork(1);
        image.set_content(&path, &content[..len]);
        let (log, _, opened) = open(&image);
        let found = read_all(&log);
        let expected: Vec<Record> = (1..=found.len() as u64)
            .map(|index| record(index, 1, if index < 3 { 40 } else { 50 }))
            .collect();
        assert_eq!(found, expected, "cut at {len}");
        assert!(2 <= found.len(), "cut at {len}");
        lengths.insert(found.len());
        assert_eq!(
            image.content(&path).map(|c| c.len() as u64 >= log.segments()[0].bytes),
            Some(true)
        );
        let _ = opened;
    }
    assert_eq!(lengths, [2, 3, 4, 5].into());
}

#[test]
fn a_cut_into_what_was_acknowledged_is_an_error_and_touches_nothing() {
    let disk = MemoryDisk::new(1);
    let (log, mut writer, _) = open(&disk);
    for index in 1..6 {
        support::append(&log, &mut writer, vec![record(index, 1, 40)]);
    }
    log.close();
    while writer.step() {}
    let path = support::dir().join(format!("{:020}.seg", 1));
    let content = disk.content(&path).unwrap();
    for len in 0..content.len() - 17 {
        let image = disk.fork(1);
        image.set_content(&path, &content[..len]);
        let error = try_open(&image, options()).err();
        assert!(
            matches!(error, Some(OpenError::Short { .. } | OpenError::Corrupt { .. })),
            "cut at {len}: {error:?}"
        );
        assert_eq!(image.content(&path).unwrap(), &content[..len], "left as it was");
    }
}

#[test]
fn what_a_killed_process_left_in_memory_is_durable_once_the_log_is_open() {
    for seed in 0..20 {
        let disk = MemoryDisk::new(seed);
        let (log, mut writer, _) = open(&disk);
        support::append(&log, &mut writer, vec![record(1, 1, 40)]);
        log.append(vec![record(2, 1, 700)], Box::new(|_| {}));
        writer.write_pending();
        drop((log, writer));
        let (log, _, _) = open(&disk);
        assert_eq!(log.durable_index(), Some(2), "it was whole");
        disk.crash();
        let (log, _, _) = open(&disk);
        assert_eq!(log.durable_index(), Some(2), "seed {seed}");
    }
}
