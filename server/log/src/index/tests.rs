use std::collections::BTreeMap;

use super::*;
use crate::disk::MemoryDisk;
use crate::testing::{Entry, History, Known, REGIONS, Rng, origin};
use anabranch_core::{Origin, Seq, Stamp};

const OPTIONS: IndexOptions = IndexOptions { log_id: [7; 16], cache_bytes: 64 * 1024 };

fn index_on(disk: &MemoryDisk, hash: NameHash) -> EventIndex {
    EventIndex::with_hash(Arc::new(disk.clone()), Path::new("index"), &OPTIONS, hash)
}

fn new_disk() -> MemoryDisk {
    let disk = MemoryDisk::new(1);
    disk.create_dir(Path::new("index")).unwrap();
    disk
}

/// Feeds the history, sealing a random number of entries every now and then. Returns the segments.
fn feed(index: &EventIndex, history: &History, seed: u64) -> Vec<(u64, u64)> {
    let mut rng = Rng(seed);
    let mut segments = Vec::new();
    for (entry, what) in (1..).zip(&history.entries) {
        match what {
            Entry::Accepted(command) => index.applied(entry, command),
            Entry::Blank | Entry::Refused(_) => index.passed(entry + 1),
        }
        if rng.below(25) == 0 {
            let first = index.sealed_end().max(1);
            let end = first + 1 + rng.below(entry + 1 - first);
            assert!(index.seal(first, end).unwrap(), "entries {first} to {end} of {entry}");
            segments.push((first, end));
        }
    }
    segments
}

fn check_positions(index: &EventIndex, history: &History) {
    let mut expected: Vec<EntryPlace> = Vec::new();
    for known in &history.known {
        match expected.last_mut() {
            Some(place) if place.entry == known.entry => {
                place.events += 1;
                place.time = place.time.max(known.stamp);
            }
            _ => expected.push(EntryPlace {
                entry: known.entry,
                position: known.position,
                events: 1,
                time: known.stamp,
            }),
        }
    }
    let step = (history.known.len() / 300).max(3);
    for from in (0..history.known.len() as u64 + 2).step_by(step).chain([u64::MAX]) {
        for limit in [1, 7, usize::MAX] {
            let forward = expected.iter().filter(|place| place.end_position() > from);
            let forward: Vec<_> = forward.take(limit).copied().collect();
            let limit = limit.min(1 << 30);
            assert_eq!(index.entries(from, Direction::Forward, limit).unwrap(), forward);
            let backward = expected.iter().rev().filter(|place| place.position <= from);
            let backward: Vec<_> = backward.take(limit).copied().collect();
            assert_eq!(index.entries(from, Direction::Backward, limit).unwrap(), backward);
        }
    }
}

fn place(known: &Known) -> StreamPlace {
    StreamPlace { revision: known.revision, position: known.position, entry: known.entry }
}

/// Reads a stream as the store does: in pages, dropping what another stream's name brings in.
fn stream_in_pages(
    index: &EventIndex,
    history: &History,
    stream: &str,
    from: u64,
    direction: Direction,
    page: usize,
) -> Vec<StreamPlace> {
    let (mut found, mut from, mut after) = (Vec::new(), from, None);
    loop {
        let places = index.stream_places_after(stream, from, after, direction, page).unwrap();
        if places.is_empty() {
            return found;
        }
        assert!(places.len() <= page);
        after = places.last().copied();
        for place in places {
            let known = &history.known[place.position as usize];
            assert_eq!((known.revision, known.entry), (place.revision, place.entry));
            if known.stream != stream {
                continue;
            }
            found.push(place);
            match direction {
                Direction::Forward => from = place.revision + 1,
                Direction::Backward if place.revision == 0 => return found,
                Direction::Backward => from = place.revision - 1,
            }
        }
    }
}

fn check_streams(index: &EventIndex, history: &History) {
    for stream in History::streams().iter().chain([&"absent-1".to_owned()]) {
        let all: Vec<_> = history.known.iter().filter(|k| k.stream == *stream).map(place).collect();
        for from in [0, 1, 7, all.len() as u64 / 2, all.len() as u64, u64::MAX] {
            let at = (from as usize).min(all.len());
            let pages: &[usize] = if all.len() < 200 { &[1, 3, 1000] } else { &[17, 1000] };
            for page in pages {
                let page = *page;
                let read =
                    |direction| stream_in_pages(index, history, stream, from, direction, page);
                assert_eq!(read(Direction::Forward), all[at..], "{stream} from {from}");
                let older: Vec<_> =
                    all.iter().rev().filter(|place| place.revision <= from).copied().collect();
                assert_eq!(read(Direction::Backward), older, "{stream} back from {from}");
            }
        }
    }
}

fn check_origins(index: &EventIndex, history: &History) {
    let mut ordinals: BTreeMap<u64, u32> = BTreeMap::new();
    let mut expected: BTreeMap<Origin, Vec<GroupPlace>> = BTreeMap::new();
    for (entry, group) in &history.groups {
        let ordinal = ordinals.entry(*entry).or_default();
        expected.entry(group.origin().clone()).or_default().push(GroupPlace {
            entry: *entry,
            ordinal: *ordinal,
            first: group.first(),
            last: group.last(),
            stamp: group.stamp(),
            chain: group.chain(),
            bytes: group.encoded().len() as u32,
        });
        *ordinal += 1;
    }
    for region in REGIONS.iter().chain(&["nowhere"]) {
        let origin = origin(region);
        let places = expected.get(&origin).cloned().unwrap_or_default();
        let end = places.last().map_or(1, |place| place.last.0 + 1);
        assert_eq!(index.frontier().head(&origin).next, Seq(end));
        for from in (1..end + 2).step_by((end / 300).max(2) as usize) {
            let later: Vec<_> =
                places.iter().filter(|place| place.last >= Seq(from)).copied().collect();
            let all = index.groups_of(&origin, Seq(from), 1 << 30).unwrap();
            assert_eq!(all, later, "groups of {origin} from {from}");
            let some = index.groups_of(&origin, Seq(from), 5).unwrap();
            assert_eq!(some, later[..later.len().min(5)]);
        }
    }
}

fn check_times(index: &EventIndex, history: &History) {
    let times = history.known.iter().map(|known| known.stamp.unix_ms());
    let (least, greatest) = (times.clone().min().unwrap(), times.max().unwrap());
    for unix_ms in (least - 1..greatest + 3).step_by(((greatest - least) / 97 + 1) as usize) {
        let found = index.position_at_time(unix_ms).unwrap();
        let wanted = |known: &&Known| known.stamp >= Stamp::from_unix_ms(unix_ms);
        let first = history.known.iter().find(wanted);
        // The start of the entry that holds the first such event.
        let entry = first.map(|known| known.entry);
        let start = history.known.iter().find(|known| Some(known.entry) == entry);
        let expected = start.map_or(history.known.len() as u64, |known| known.position);
        assert_eq!(found, expected, "first position at {unix_ms}");
    }
}

fn check_candidates(index: &EventIndex, history: &History) {
    let event_of = |category: &str, from: u64| {
        let of = |known: &&Known| anabranch_core::event::category(&known.stream) == category;
        let found = history.known[from as usize..].iter().find(of);
        found.map_or(history.known.len() as u64, |known| known.position)
    };
    for from in (0..history.known.len() as u64).step_by(history.known.len() / 60) {
        for category in ["cart", "order", "plain", "absent"] {
            let next = index.next_candidate(from, &[Wanted::Category(category)]).unwrap();
            let first = event_of(category, from);
            assert!((from..=first).contains(&next), "{category}: {next} is in {from}..={first}");
            for limit in [0, 3, usize::MAX] {
                let wanted = index.next_wanted(from, &[Wanted::Category(category)], limit).unwrap();
                let most = first.min(next.saturating_add(limit as u64));
                assert!(
                    (next..=most).contains(&wanted),
                    "{category}: {wanted} is in {next}..={most}"
                );
            }
        }
    }
}

fn check(index: &EventIndex, history: &History) {
    check_positions(index, history);
    check_streams(index, history);
    check_origins(index, history);
    check_times(index, history);
    check_candidates(index, history);
}

/// Loads what files there are and scans the rest, as the store does.
fn reopen(
    disk: &MemoryDisk,
    history: &History,
    segments: &[(u64, u64)],
    hash: NameHash,
) -> (EventIndex, usize) {
    let index = index_on(disk, hash);
    let mut loaded = 0;
    let scan_into = |scan: &mut Scan, first: u64, end: u64| {
        for entry in first..end {
            match &history.entries[entry as usize - 1] {
                Entry::Blank => {}
                Entry::Accepted(command) => assert!(scan.offer(entry, command), "entry {entry}"),
                Entry::Refused(command) => assert!(!scan.offer(entry, command), "entry {entry}"),
            }
        }
    };
    for (first, end) in segments {
        if index.load(*first, *end) {
            loaded += 1;
            continue;
        }
        let mut scan = index.scan(*first).unwrap();
        scan_into(&mut scan, *first, *end);
        index.install(scan, *end);
    }
    let (first, end) = (index.sealed_end().max(1), history.entries.len() as u64 + 1);
    let mut scan = index.scan(first).unwrap();
    scan_into(&mut scan, first, end);
    index.install_tail(scan, end);
    (index, loaded)
}

#[test]
fn every_look_up_agrees_with_a_list_of_all_events() {
    for seed in 0..12 {
        let history = History::with_entries(seed, 400);
        let disk = new_disk();
        let index = index_on(&disk, name_hash);
        let segments = feed(&index, &history, seed);
        assert!(segments.len() > 2, "seed {seed} seals {} segments", segments.len());
        check(&index, &history);
        let (index, loaded) = reopen(&disk, &history, &segments, name_hash);
        assert_eq!(loaded, segments.len());
        check(&index, &history);
    }
}

#[test]
fn what_is_not_sealed_is_passed_over_up_to_what_is_wanted() {
    let history = History::with_entries(11, 300);
    let index = index_on(&new_disk(), name_hash);
    for (entry, what) in (1..).zip(&history.entries) {
        match what {
            Entry::Accepted(command) => index.applied(entry, command),
            Entry::Blank | Entry::Refused(_) => index.passed(entry + 1),
        }
    }
    let mut passed = 0;
    for known in &history.known {
        let next = index.next_wanted(passed, &[Wanted::Stream(&known.stream)], usize::MAX).unwrap();
        let first = history.known[passed as usize..].iter().find(|of| of.stream == known.stream);
        assert_eq!(Some(next), first.map(|first| first.position), "{} from {passed}", known.stream);
        passed = known.position;
    }
    let none = index.next_wanted(0, &[Wanted::Category("absent")], usize::MAX).unwrap();
    assert_eq!(none, history.known.len() as u64);
}

#[test]
fn segments_of_many_blocks_are_searched_like_small_ones() {
    let history = History::with_entries(30, 4_000);
    let disk = new_disk();
    let index = index_on(&disk, name_hash);
    for (entry, what) in (1..).zip(&history.entries) {
        match what {
            Entry::Accepted(command) => index.applied(entry, command),
            _ => index.passed(entry + 1),
        }
    }
    assert!(index.seal(1, 3_000).unwrap() && index.seal(3_000, 3_900).unwrap());
    check(&index, &history);
    let file = disk.content(Path::new("index/00000000000000000001.idx")).unwrap();
    let events = history.known.iter().filter(|known| known.entry < 3_000).count();
    assert!(file.len() < events * 17, "{} bytes for {events} events", file.len());
}

#[test]
fn names_with_the_same_hash_do_not_mix() {
    let hashes: [NameHash; 2] = [|_| 5, |name| name.len() as u64];
    for (seed, hash) in (20..24).zip(hashes.into_iter().cycle()) {
        let history = History::with_entries(seed, 120);
        let disk = new_disk();
        let index = index_on(&disk, hash);
        let segments = feed(&index, &history, seed);
        check_streams(&index, &history);
        let (index, _) = reopen(&disk, &history, &segments, hash);
        check_streams(&index, &history);
    }
}

#[test]
fn deleted_files_are_made_again_and_give_the_same_answers() {
    let history = History::with_entries(40, 500);
    let disk = new_disk();
    let segments = feed(&index_on(&disk, name_hash), &history, 40);
    let files = disk.list(Path::new("index")).unwrap();
    assert_eq!(files.len(), segments.len());
    let bytes = |name: &String| disk.content(&Path::new("index").join(name)).unwrap();
    let before: Vec<_> = files.iter().map(bytes).collect();
    for name in files.iter().skip(1).step_by(2) {
        disk.remove(&Path::new("index").join(name)).unwrap();
    }
    let (index, loaded) = reopen(&disk, &history, &segments, name_hash);
    assert_eq!(loaded, segments.len() - segments.len() / 2);
    check(&index, &history);
    let after: Vec<_> = files.iter().map(bytes).collect();
    assert!(before == after, "the files are the same byte for byte");
}

#[test]
fn a_flipped_bit_is_noticed_wherever_it_is() {
    let history = History::with_entries(50, 60);
    let disk = new_disk();
    let index = index_on(&disk, name_hash);
    for (entry, what) in (1..).zip(&history.entries) {
        match what {
            Entry::Accepted(command) => index.applied(entry, command),
            _ => index.passed(entry + 1),
        }
    }
    let end = history.entries.len() as u64 + 1;
    assert!(index.seal(1, end).unwrap());
    let path = Path::new("index/00000000000000000001.idx");
    let good = disk.content(path).unwrap();
    for bit in (0..good.len() as u64 * 8).step_by(3) {
        disk.set_content(path, &good);
        disk.flip_bit(path, bit);
        let index = index_on(&disk, name_hash);
        if !index.load(1, end) {
            continue;
        }
        let names = History::streams();
        let streams = names
            .iter()
            .map(|name| index.stream_places(name, 0, Direction::Forward, 1000).map(|_| ()));
        let groups =
            REGIONS.iter().map(|region| index.groups_of(&origin(region), Seq(1), 1000).map(|_| ()));
        let entries = index.entries(0, Direction::Forward, 1000).map(|_| ());
        let failed = streams
            .chain(groups)
            .chain([entries])
            .any(|result| matches!(result, Err(IndexError::Damaged { segment: 1, .. })));
        assert!(failed, "bit {bit} of {} passed unnoticed", good.len() * 8);
    }
}

#[test]
fn files_of_another_log_range_or_history_are_not_believed() {
    let history = History::with_entries(60, 100);
    let disk = new_disk();
    let index = index_on(&disk, name_hash);
    let segments = feed(&index, &history, 3);
    let (first, end) = segments[0];
    assert!(index_on(&disk, name_hash).load(first, end));
    assert!(!index_on(&disk, name_hash).load(first, end + 1), "another range");
    let (second, second_end) = segments[1];
    assert!(!index_on(&disk, name_hash).load(second, second_end), "of another history");
    let other = IndexOptions { log_id: [8; 16], ..OPTIONS };
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    assert!(!EventIndex::new(shared, Path::new("index"), &other).load(first, end));
}

#[test]
fn a_full_disk_keeps_the_index_in_memory_and_the_answers_right() {
    let history = History::with_entries(70, 300);
    let disk = new_disk();
    let segments = feed(&index_on(&disk, name_hash), &history, 70);
    for name in disk.list(Path::new("index")).unwrap() {
        disk.remove(&Path::new("index").join(name)).unwrap();
    }
    disk.set_capacity(Some(disk.used() + 100));
    let (index, loaded) = reopen(&disk, &history, &segments, name_hash);
    assert_eq!(loaded, 0);
    check(&index, &history);
}

#[test]
fn a_failed_write_leaves_the_index_as_it_was() {
    let history = History::with_entries(80, 200);
    let disk = new_disk();
    let index = index_on(&disk, name_hash);
    for (entry, what) in (1..).zip(&history.entries) {
        if let Entry::Accepted(command) = what {
            index.applied(entry, command);
        }
    }
    disk.set_capacity(Some(disk.used() + 100));
    assert!(matches!(index.seal(1, 100), Err(IndexError::Io { segment: 1, .. })));
    check(&index, &history);
    disk.set_capacity(None);
    assert!(index.seal(1, 100).unwrap());
    check(&index, &history);
    assert!(!index.seal(1, 100).unwrap(), "sealed already");
    assert!(!index.seal(100, 10_000).unwrap(), "not applied so far");
}

#[test]
fn replaying_what_is_known_changes_nothing() {
    let history = History::with_entries(90, 200);
    let disk = new_disk();
    let segments = feed(&index_on(&disk, name_hash), &history, 90);
    let (index, _) = reopen(&disk, &history, &segments, name_hash);
    for (entry, what) in (1..).zip(&history.entries) {
        if let Entry::Accepted(command) = what {
            index.applied(entry, command);
        }
    }
    check(&index, &history);
}
