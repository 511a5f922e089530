use std::path::Path;
use std::sync::Arc;

use anabranch_core::{Command, Seq};

use super::*;
use crate::disk::{Disk, MemoryDisk};
use crate::log::Log;
use crate::options::LogOptions;
use crate::record::{Record, RecordKind};
use crate::testing::{Entry, History, Known, REGIONS, origin};

const LOG_ID: [u8; 16] = [3; 16];

struct Node {
    disk: MemoryDisk,
    log: Log,
    store: Store,
    recovery: Recovery,
}

fn record(index: u64, entry: &Entry) -> Record {
    let (kind, payload) = match entry {
        Entry::Blank => (RecordKind::Blank, Default::default()),
        Entry::Accepted(command) | Entry::Refused(command) => {
            (RecordKind::Command, command.encode())
        }
    };
    Record { index, term: 1, leader: 1, kind, payload }
}

/// Writes a history into a log of small segments.
fn log_of(disk: &MemoryDisk, entries: &[Entry]) -> Log {
    let log = open_log(disk, entries);
    assert!(log.segments().iter().filter(|segment| segment.sealed).count() > 3);
    log
}

fn open_log(disk: &MemoryDisk, entries: &[Entry]) -> Log {
    let options =
        LogOptions { segment_bytes: 8 * 1024, cache_bytes: 1024, ..LogOptions::new(LOG_ID) };
    let (log, mut writer, _) =
        Log::open(Arc::new(disk.clone()), Path::new("log"), options).unwrap();
    let held = log.last().map_or(0, |last| last.index);
    for (index, entry) in (1..).zip(entries).skip(held as usize) {
        log.append(vec![record(index, entry)], Box::new(|done| done.unwrap()));
        while writer.step() {}
    }
    log
}

fn options(cache_bytes: usize) -> StoreOptions {
    StoreOptions { command_cache_bytes: cache_bytes, index_cache_bytes: 32 * 1024, log_id: LOG_ID }
}

fn open(disk: &MemoryDisk, entries: &[Entry], applied: Option<u64>) -> Node {
    let log = open_log(disk, entries);
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let (store, recovery) =
        Store::open(shared, Path::new("index"), log.clone(), &options(20_000), applied).unwrap();
    Node { disk: disk.clone(), log, store, recovery }
}

/// Applies the entries from `first` on, sealing when it is due.
fn apply(store: &Store, history: &History, first: u64) {
    for (entry, what) in (1..).zip(&history.entries).skip(first as usize - 1) {
        match what {
            Entry::Accepted(command) => {
                store.applied(entry, command);
            }
            Entry::Blank | Entry::Refused(_) => store.passed(entry),
        }
        if entry % 50 == 0 {
            store.seal_applied().unwrap();
        }
    }
    store.seal_applied().unwrap();
}

fn node(history: &History) -> Node {
    let disk = MemoryDisk::new(1);
    log_of(&disk, &history.entries);
    let node = open(&disk, &history.entries, None);
    apply(&node.store, history, 1);
    node
}

fn known(event: &PlacedEvent) -> Known {
    Known {
        position: event.position,
        entry: event.entry(),
        stream: event.event.stream.to_string(),
        revision: event.revision,
        origin: event.origin().clone(),
        seq: event.seq(),
        stamp: event.stamp(),
        payload: event.event.payload.clone(),
    }
}

fn read_all_positions(store: &Store, from: u64, direction: Direction, max: usize) -> Vec<Known> {
    let (mut found, mut from) = (Vec::new(), from);
    loop {
        let slices = store.read_positions(from, direction, max, 2_000).unwrap();
        let events: usize = slices.iter().map(GroupSlice::len).sum();
        assert!(events <= max);
        let bytes: usize = slices.iter().map(|slice| slice.group().encoded().len()).sum();
        assert!(slices.len() == 1 || bytes <= 2_000, "{bytes} bytes in {} slices", slices.len());
        for slice in &slices {
            match direction {
                Direction::Forward => found.extend(slice.events().map(|event| known(&event))),
                Direction::Backward => {
                    found.extend(slice.events().rev().map(|event| known(&event)));
                }
            }
        }
        let Some(last) = slices.last() else { return found };
        match direction {
            Direction::Forward => from = last.positions().end,
            Direction::Backward if last.positions().start == 0 => return found,
            Direction::Backward => from = last.positions().start - 1,
        }
    }
}

fn read_whole_stream(store: &Store, name: &str, from: u64, direction: Direction) -> Vec<Known> {
    let (mut found, mut from) = (Vec::new(), from);
    loop {
        let events = store.read_stream(name, from, direction, 7, 500).unwrap();
        let bytes: usize = events.iter().map(|event| event.event.encoded.len()).sum();
        assert!(events.len() <= 7 && (events.len() <= 1 || bytes <= 500));
        found.extend(events.iter().map(known));
        match (events.last(), direction) {
            (None, _) => return found,
            (Some(last), Direction::Forward) => from = last.revision + 1,
            (Some(last), Direction::Backward) if last.revision == 0 => return found,
            (Some(last), Direction::Backward) => from = last.revision - 1,
        }
    }
}

fn check(store: &Store, history: &History) {
    let all = &history.known;
    for from in [0, 1, all.len() as u64 / 2, all.len() as u64] {
        for max in [1, 3, 1000] {
            let newer = read_all_positions(store, from, Direction::Forward, max);
            assert!(newer == all[from as usize..], "from {from}, {max} at a time");
            let mut older = read_all_positions(store, from, Direction::Backward, max);
            older.reverse();
            assert!(older == all[..(from as usize + 1).min(all.len())], "back from {from}");
        }
    }
    for name in History::streams() {
        let stream: Vec<_> = all.iter().filter(|known| known.stream == name).cloned().collect();
        for from in [0, 3, stream.len() / 2, stream.len()] {
            let newer = read_whole_stream(store, &name, from as u64, Direction::Forward);
            assert!(newer == stream[from..], "{name} from {from}");
            let mut older = read_whole_stream(store, &name, from as u64, Direction::Backward);
            older.reverse();
            assert!(older == stream[..(from + 1).min(stream.len())], "{name} back from {from}");
        }
    }
    check_origins(store, history);
}

fn check_origins(store: &Store, history: &History) {
    for region in REGIONS {
        let origin = origin(region);
        let own = history.groups.iter().map(|(_, group)| group);
        let groups: Vec<_> = own.filter(|group| *group.origin() == origin).collect();
        let (mut from, mut nth) = (Seq(2), 0);
        nth += usize::from(groups[0].last() < from);
        loop {
            let read = store.read_origin(&origin, from, 900).unwrap();
            let Some(last) = read.last() else { break };
            from = last.group().last().next();
            for slice in &read {
                assert_eq!(slice.group().encoded(), groups[nth].encoded(), "{origin} from {from}");
                assert_eq!(slice.len() as u32, slice.group().header().events);
                let first = history.known[slice.source.position as usize].seq;
                assert_eq!(first, slice.group().first());
                nth += 1;
            }
        }
        assert_eq!(nth, groups.len(), "all groups of {origin}");
    }
}

#[test]
fn every_event_is_read_back_in_every_way() {
    for seed in 0..3 {
        let history = History::with_entries(seed, 500);
        let node = node(&history);
        assert!(node.store.index().sealed_end() > 100, "segments were indexed");
        check(&node.store, &history);
    }
}

#[test]
fn a_restart_loads_the_index_and_scans_only_what_is_not_sealed() {
    let history = History::with_entries(10, 500);
    let first = node(&history);
    let sealed = first.log.segments().iter().filter(|segment| segment.sealed).count();
    let again = open(&first.disk, &history.entries, Some(500));
    let scanned = 500 + 1 - first.store.index().sealed_end();
    assert_eq!(again.recovery, Recovery { loaded: sealed, rebuilt: 0, scanned });
    assert_eq!(again.store.frontier(), first.store.frontier());
    check(&again.store, &history);
}

#[test]
fn a_deleted_index_is_rebuilt_from_the_log_and_answers_the_same() {
    let history = History::with_entries(11, 500);
    let first = node(&history);
    let folder = Path::new("index");
    let files = first.disk.list(folder).unwrap();
    for name in &files {
        first.disk.remove(&folder.join(name)).unwrap();
    }
    let again = open(&first.disk, &history.entries, Some(500));
    assert_eq!((again.recovery.loaded, again.recovery.rebuilt), (0, files.len()));
    assert_eq!(again.store.frontier(), first.store.frontier());
    check(&again.store, &history);
}

#[test]
fn a_checkpoint_behind_the_index_or_none_at_all_is_made_up_by_replay() {
    let history = History::with_entries(12, 500);
    let first = node(&history);
    for applied in [None, Some(1), Some(120), Some(430)] {
        let again = open(&first.disk, &history.entries, applied);
        apply(&again.store, &history, applied.map_or(1, |entry| entry + 1));
        assert_eq!(again.store.frontier(), first.store.frontier());
        check(&again.store, &history);
        // Without the files the same checkpoint has less to go by.
        for name in first.disk.list(Path::new("index")).unwrap() {
            first.disk.remove(&Path::new("index").join(name)).unwrap();
        }
    }
}

#[test]
fn an_index_that_rots_while_it_is_in_use_is_repaired_by_the_reader() {
    let history = History::with_entries(13, 500);
    let node = node(&history);
    let folder = Path::new("index");
    for name in node.disk.list(folder).unwrap() {
        let path = folder.join(name);
        let good = node.disk.content(&path).unwrap();
        // In every block: between the header and the directory.
        (400..good.len() as u64 * 8).step_by(97).for_each(|bit| node.disk.flip_bit(&path, bit));
        assert_ne!(node.disk.content(&path).unwrap(), good);
    }
    check(&node.store, &history);
    let again = open(&node.disk, &history.entries, Some(500));
    assert!(again.recovery.loaded > 0, "{:?}", again.recovery);
    check(&again.store, &history);
}

#[test]
fn a_damaged_log_is_an_error_and_not_a_gap() {
    let history = History::with_entries(14, 300);
    let node = node(&history);
    let segment = &node.log.segments()[1];
    let path = format!("log/{:020}.seg", segment.first_index);
    let bits = node.disk.content(Path::new(&path)).unwrap().len() as u64 * 8;
    (bits / 2..bits).step_by(64).for_each(|bit| node.disk.flip_bit(Path::new(&path), bit));
    let again = open(&node.disk, &history.entries, Some(300));
    let (mut from, mut failed) = (0, false);
    while !failed {
        match again.store.read_positions(from, Direction::Forward, 10, 10_000) {
            Ok(slices) => from = slices.last().expect("the damage comes first").positions().end,
            Err(StoreError::Log(_)) => failed = true,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(from < history.known.len() as u64);
}

#[test]
fn names_with_the_same_hash_are_told_apart_when_read() {
    let history = History::with_entries(15, 200);
    let disk = MemoryDisk::new(1);
    let log = log_of(&disk, &history.entries);
    disk.create_dir(Path::new("index")).unwrap();
    let index_options = IndexOptions { log_id: LOG_ID, cache_bytes: 32 * 1024 };
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let index =
        EventIndex::with_hash(shared, Path::new("index"), &index_options, |name| name.len() as u64);
    let (store, _) = Store::over(index, log, &options(100_000), None).unwrap();
    apply(&store, &history, 1);
    check(&store, &history);
}

#[test]
fn an_entry_is_read_by_its_index_and_shared_between_readers() {
    let history = History::with_entries(16, 300);
    let node = node(&history);
    for (entry, what) in (1..).zip(&history.entries) {
        match (what, node.store.read_entry(entry)) {
            (Entry::Accepted(command) | Entry::Refused(command), Ok(read)) => {
                assert_eq!(&read, command);
                let again: Arc<Command> = node.store.read_entry(entry).unwrap();
                assert!(Arc::ptr_eq(&read, &again), "decoded once");
            }
            (Entry::Blank, Err(StoreError::NoCommand { entry: none })) => assert_eq!(none, entry),
            (_, other) => panic!("entry {entry}: {other:?}"),
        }
    }
    assert!(matches!(node.store.read_entry(9_999), Err(StoreError::NoCommand { .. })));
}

#[test]
fn sealing_is_called_for_when_a_segment_is_applied() {
    let history = History::with_entries(17, 3_000);
    let disk = MemoryDisk::new(1);
    log_of(&disk, &history.entries);
    let node = open(&disk, &history.entries, None);
    let mut due = 0;
    for (entry, what) in (1..).zip(&history.entries) {
        let Entry::Accepted(command) = what else { continue };
        if node.store.applied(entry, command) == Sealing::Due {
            due += 1;
            assert!(node.store.seal_applied().unwrap() > 0);
            assert_eq!(node.store.seal_applied().unwrap(), 0, "nothing is left to seal");
        }
    }
    assert!(due > 0);
}

#[test]
#[ignore = "measures; run it alone and in release"]
#[expect(clippy::disallowed_methods, reason = "it measures wall time")]
fn cost_of_indexing_an_event() {
    use anabranch_core::command::PlacedGroup;
    use anabranch_core::event::{Event, Request};
    use anabranch_core::group::GroupHeader;
    use anabranch_core::{Chain, Context, Group, Stamp};

    let disk = MemoryDisk::new(1);
    disk.create_dir(Path::new("index")).unwrap();
    let options = IndexOptions { log_id: LOG_ID, cache_bytes: 16 << 20 };
    let index = EventIndex::new(Arc::new(disk.clone()), Path::new("index"), &options);
    let (mut prev, mut next) = (Chain::START, 0u64);
    let mut revisions = vec![0u64; 1_000_000];
    let (mut feeding, mut sealing) = (0, 0);
    for segment in 0..10u64 {
        let mut commands = Vec::new();
        for entry in segment * 2_000 + 1..=(segment + 1) * 2_000 {
            let mut given = Vec::new();
            let event = |nth: u64| {
                let stream = (nth * 7_919 + nth / 13) % 1_000_000;
                given.push(revisions[stream as usize]);
                revisions[stream as usize] += 1;
                let (stream, kind) = (format!("cart-{stream}"), "Added".into());
                let payload = vec![b'x'; 200].into();
                Event { stream, id: None, kind, metadata: Default::default(), payload }
            };
            let events = (next..next + 100).map(event).collect();
            let header = GroupHeader {
                origin: origin("eu"),
                first: Seq(next + 1),
                events: 100,
                stamp: Stamp(entry << 22),
                context: Context::new(),
                prev,
            };
            let group = Group::build(header, &[Request { producer: None, events }]);
            prev = group.chain();
            let placed = PlacedGroup { group, revisions: given };
            commands.push((entry, Command::Local { position: next, placed }));
            next += 100;
        }
        let start = std::time::Instant::now();
        commands.iter().for_each(|(entry, command)| index.applied(*entry, command));
        feeding += start.elapsed().as_nanos();
        let start = std::time::Instant::now();
        assert!(index.seal(segment * 2_000 + 1, (segment + 1) * 2_000 + 1).unwrap());
        sealing += start.elapsed().as_nanos();
    }
    let files = disk.list(Path::new("index")).unwrap();
    let bytes =
        files.iter().map(|name| disk.content(&Path::new("index").join(name)).unwrap().len());
    let (bytes, events) = (bytes.sum::<usize>() as u64, u128::from(next));
    println!(
        "{events} events: feeding {} ns, sealing {} ns, {} bytes an event in {} files",
        feeding / events,
        sealing / events,
        bytes / next,
        files.len()
    );
}
