//! Checkpoints in files: what is put comes back as it was, or not at all.

mod support;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anabranch_log::derived::conformance::check;
use anabranch_log::derived::states::MemoryStates;
use anabranch_log::derived::{CheckpointError, Checkpoints, FileCheckpoints};
use anabranch_log::disk::{Disk, MemoryDisk, OpenMode, RealDisk};
use bytes::Bytes;
use parking_lot::Mutex;
use support::refusing::{RefusingDisk, Step};

const NAME: &str = "region-0";
const FOLDER: &str = "checkpoints";
/// A state of two chunks.
const BYTES: usize = 300_000;
const HEADER_BYTES: usize = 28;
/// Of a full chunk and its check.
const CHUNK_BYTES: usize = 256 * 1024 + 4;

fn over(disk: impl Disk) -> FileCheckpoints {
    FileCheckpoints::new(Arc::new(disk), FOLDER, Arc::new(MemoryStates::new()))
}

fn store(disk: &MemoryDisk) -> FileCheckpoints {
    over(disk.clone())
}

/// The state at an entry: the next byte is always another, and chunks differ.
fn state(at: u64, bytes: usize) -> Bytes {
    let cycle: Vec<u8> = (0..251).map(|nth| ((nth * 31 + at) % 251) as u8).collect();
    let mut state = cycle.repeat(bytes.div_ceil(251));
    state.truncate(bytes);
    state.into()
}

fn put(store: &FileCheckpoints, at: u64, bytes: usize) -> Result<(), CheckpointError> {
    store.put(NAME, at, &[state(at, bytes)])
}

/// A disk on which checkpoints at entries 1 and 2 are.
fn with_two(seed: u64, bytes: usize) -> MemoryDisk {
    let disk = MemoryDisk::new(seed);
    (1..=2).for_each(|at| put(&store(&disk), at, bytes).unwrap());
    disk
}

/// The entry that the newest checkpoint stands for. It is as it was put.
fn latest(disk: &MemoryDisk) -> Option<u64> {
    let held = store(disk).latest(NAME)?;
    assert!(held.bytes == state(held.at, held.bytes.len()), "another state at {}", held.at);
    Some(held.at)
}

fn files(disk: &MemoryDisk) -> Vec<String> {
    disk.list(Path::new(FOLDER)).unwrap_or_default()
}

fn path(name: &str, generation: u64) -> PathBuf {
    Path::new(FOLDER).join(format!("{name}-{generation:020}.checkpoint"))
}

/// The disk before each step of a put, and which step it was.
fn before_each_step(disk: &MemoryDisk, at: u64) -> Vec<(Step, MemoryDisk)> {
    let images = Arc::new(Mutex::new(Vec::new()));
    let (taken, from) = (Arc::clone(&images), disk.clone());
    let watched = RefusingDisk::new(disk, move |step| {
        let mut images = taken.lock();
        let seed = at * 1000 + images.len() as u64;
        images.push((step, from.fork(seed)));
        Ok(())
    });
    put(&over(watched), at, BYTES).unwrap();
    std::mem::take(&mut images.lock())
}

/// Refuses the steps of `refused`, counted from 0.
fn refusing(disk: &MemoryDisk, refused: std::ops::Range<u64>) -> (RefusingDisk, Arc<Mutex<u64>>) {
    let steps = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&steps);
    let refusing = RefusingDisk::new(disk, move |_| {
        let mut steps = counted.lock();
        *steps += 1;
        match refused.contains(&(*steps - 1)) {
            true => Err(io::Error::other("refused")),
            false => Ok(()),
        }
    });
    (refusing, steps)
}

#[test]
fn files_keep_the_contract() {
    check(&store(&MemoryDisk::new(1)));
    let folder = tempfile::tempdir().unwrap();
    check(&over(RealDisk::new(folder.path())));
}

#[test]
fn what_was_put_is_there_when_opened_again_and_generations_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let open = || over(RealDisk::new(folder.path().join("data")));
    for at in 1..=5 {
        let store = open();
        put(&store, at, BYTES).unwrap();
        drop(store);
        let held = open().latest(NAME).unwrap();
        assert!((held.at, held.bytes) == (at, state(at, BYTES)));
    }
    let names = RealDisk::new(folder.path()).list(Path::new("data/checkpoints")).unwrap();
    let kept = [4, 5].map(|generation| path(NAME, generation));
    assert_eq!(names, kept.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()));
}

#[test]
fn nothing_is_touched_before_something_is_put() {
    let (disk, _) = refusing(&MemoryDisk::new(1), 0..u64::MAX);
    let store = over(disk);
    assert_eq!(store.latest(NAME), None);
    let disk = MemoryDisk::new(1);
    over(disk.clone()).forget(NAME).unwrap();
    assert_eq!(disk.list(Path::new("")).unwrap(), [""; 0]);
}

#[test]
fn files_of_others_are_left_alone() {
    let disk = with_two(1, BYTES);
    let others = ["db", "region-0-7.checkpoint", "region-0-99999999999999999999.checkpoint"];
    for other in others {
        disk.open(&Path::new(FOLDER).join(other), OpenMode::CreateNew).unwrap();
    }
    (3..6).for_each(|at| put(&store(&disk), at, BYTES).unwrap());
    assert_eq!((latest(&disk), files(&disk).len()), (Some(5), 2 + others.len()));
    store(&disk).forget(NAME).unwrap();
    assert_eq!((latest(&disk), files(&disk).len()), (None, others.len()));
}

#[test]
fn a_flipped_bit_anywhere_passes_over_to_the_one_before() {
    let ends = |nth| HEADER_BYTES + nth * CHUNK_BYTES;
    let near = |byte: usize| byte - 6..byte + 6;
    let cases: [(usize, Vec<usize>); 2] = [
        (10, (0..HEADER_BYTES + 14).collect()),
        (600_000, near(ends(0)).chain(near(ends(1))).chain(600_034..600_040).collect()),
    ];
    for (bytes, places) in cases {
        let (disk, newest) = (with_two(1, bytes), path(NAME, 2));
        assert_eq!(latest(&disk), Some(2));
        let len = disk.content(&newest).unwrap().len();
        assert_eq!(places.last(), Some(&(len - 1)), "up to the last byte");
        let bits = places.iter().flat_map(|byte| (0..8).map(move |bit| *byte as u64 * 8 + bit));
        for bit in bits.chain((0..len as u64 * 8).step_by(len / 2)) {
            disk.flip_bit(&newest, bit);
            assert_eq!(latest(&disk), Some(1), "bit {bit} of {len} bytes");
            disk.flip_bit(&newest, bit);
        }
        assert_eq!(latest(&disk), Some(2), "as it was");
    }
}

#[test]
fn a_file_that_was_cut_or_made_longer_is_passed_over() {
    let (disk, newest) = (with_two(1, 10), path(NAME, 2));
    let whole = disk.content(&newest).unwrap();
    for bytes in 0..whole.len() {
        disk.set_content(&newest, &whole[..bytes]);
        assert_eq!(latest(&disk), Some(1), "{bytes} bytes are left");
    }
    disk.set_content(&newest, &[&whole[..], &[0]].concat());
    assert_eq!(latest(&disk), Some(1), "a byte too many");
    disk.set_content(&newest, &whole);
    assert_eq!(latest(&disk), Some(2), "as it was");
}

#[test]
fn a_file_that_cannot_be_read_is_passed_over() {
    let disk = with_two(1, 10);
    let (unreadable, _) = refusing(&disk, 0..1);
    assert_eq!(over(unreadable).latest(NAME).unwrap().at, 1);
}

/// The same state at the same entry, so that nothing but its place tells one from another.
#[test]
fn what_stands_in_another_place_is_not_believed() {
    let (ours, bytes) = (path(NAME, 2), 600_000);
    let disk = MemoryDisk::new(1);
    for name in [NAME, "region-1"] {
        for _ in 1..=2 {
            store(&disk).put(name, 5, &[state(5, bytes)]).unwrap();
        }
    }
    let elsewhere = with_two(1, bytes);
    elsewhere.remove(&ours).unwrap();
    store(&elsewhere).put(NAME, 6, &[state(5, bytes)]).unwrap();
    let content = |path: PathBuf| disk.content(&path).unwrap();
    let (whole, former) = (content(ours.clone()), content(path(NAME, 1)));
    let later = elsewhere.content(&ours).unwrap();
    let chunk =
        |nth: usize| HEADER_BYTES + nth * CHUNK_BYTES..HEADER_BYTES + (nth + 1) * CHUNK_BYTES;
    let with = |nth: usize, other: &[u8]| {
        let mut changed = whole.clone();
        changed[chunk(nth)].copy_from_slice(other);
        changed
    };
    disk.remove(&path(NAME, 1)).unwrap();
    let cases = [
        ("of another name", content(path("region-1", 2))),
        ("of another generation", former.clone()),
        ("with a chunk of another generation", with(1, &former[chunk(1)])),
        ("with a chunk of another entry", with(1, &later[chunk(1)])),
        ("with a chunk twice", with(1, &whole[chunk(0)])),
    ];
    for (what, misplaced) in cases {
        disk.set_content(&ours, &misplaced);
        assert_eq!(latest(&disk), None, "a file {what}");
    }
    disk.set_content(&ours, &whole);
    assert_eq!(latest(&disk), Some(5), "as it was");
}

#[test]
fn power_loss_at_any_step_of_a_put_leaves_the_last_one_or_the_new_one() {
    let mut found_old_and_new = [0; 2];
    for (seed, before) in (0..8).flat_map(|seed| (0..4).map(move |before| (seed, before))) {
        let disk = MemoryDisk::new(seed);
        (1..=before).for_each(|at| put(&store(&disk), at, BYTES).unwrap());
        let new = 1000 * seed + 10;
        for (step, image) in before_each_step(&disk, new) {
            image.crash();
            let found = latest(&image);
            assert!(
                [(before > 0).then_some(before), Some(new)].contains(&found),
                "{found:?} of {before} before {step:?}"
            );
            found_old_and_new[usize::from(found == Some(new))] += 1;
            put(&store(&image), 9, BYTES).unwrap();
            image.crash();
            assert_eq!(latest(&image), Some(9), "the next one, after a loss before {step:?}");
            assert!(files(&image).len() <= 2, "{:?}", files(&image));
        }
        disk.crash();
        assert_eq!(latest(&disk), Some(new), "what was put is durable");
    }
    assert!(found_old_and_new.iter().all(|found| *found > 50), "{found_old_and_new:?}");
}

#[test]
fn crash_after_crash_pushes_no_whole_one_out() {
    for seed in 0..20 {
        let mut disk = with_two(seed, BYTES);
        for round in 0..6 {
            let mut images = before_each_step(&disk, 10 * seed + round);
            let begun = images.iter().position(|(step, _)| *step == Step::Create).unwrap() + 1;
            let done = images.iter().position(|(step, _)| *step == Step::Rename).unwrap() + 1;
            disk = images.swap_remove(begun + (seed + 3 * round) as usize % (done - begun)).1;
            if (seed + round) % 3 == 0 {
                disk.kill()
            } else {
                disk.crash()
            }
            assert_eq!(latest(&disk), Some(2));
            assert!(files(&disk).len() <= 3, "they do not fill the disk: {:?}", files(&disk));
        }
        put(&store(&disk), 9, BYTES).unwrap();
        assert_eq!((latest(&disk), files(&disk).len()), (Some(9), 2));
        let newest = Path::new(FOLDER).join(files(&disk).pop().unwrap());
        disk.flip_bit(&newest, 1000);
        assert_eq!(latest(&disk), Some(2), "two whole ones are kept");
    }
}

#[test]
fn a_put_that_is_refused_at_any_step_leaves_everything_as_it_was() {
    let mut refusals = 0;
    for nth in 0.. {
        let disk = with_two(nth, BYTES);
        let before = files(&disk);
        let (refusing, steps) = refusing(&disk, nth..nth + 1);
        let store = over(refusing);
        match put(&store, 3, BYTES) {
            Ok(()) => assert_eq!(latest(&disk), Some(3), "only an old one could not be removed"),
            Err(error) => {
                assert_eq!(error.to_string(), "put checkpoint region-0 at entry 3: refused");
                assert_eq!((latest(&disk), files(&disk)), (Some(2), before), "step {nth}");
                refusals += 1;
            }
        }
        if *steps.lock() <= nth {
            break;
        }
        put(&store, 4, BYTES).unwrap();
        assert_eq!((latest(&disk), files(&disk).len()), (Some(4), 2), "step {nth}");
        disk.crash();
        assert_eq!(latest(&disk), Some(4), "step {nth}");
    }
    assert!(refusals >= 8, "{refusals}");
}

#[test]
fn a_disk_that_takes_nothing_any_more_at_any_step_has_the_last_one_or_the_new_one() {
    for nth in 0..14 {
        let disk = with_two(nth, BYTES);
        let (refusing, _) = refusing(&disk, nth..nth + 100);
        let _ = put(&over(refusing), 3, BYTES);
        let found = latest(&disk);
        assert!([Some(2), Some(3)].contains(&found), "{found:?} at step {nth}");
        put(&store(&disk), 4, BYTES).unwrap();
        assert_eq!((latest(&disk), files(&disk).len()), (Some(4), 2), "step {nth}");
        disk.crash();
        assert_eq!(latest(&disk), Some(4), "step {nth}");
    }
}

#[test]
fn a_full_disk_takes_no_room_away_and_takes_the_next_one_when_it_has_room() {
    let rooms = (0..BYTES as u64).step_by(30_011).chain([1, 27, 28, 29, 262_172, 262_176, 300_035]);
    for room in rooms {
        let disk = with_two(1, BYTES);
        let (used, before, store) = (disk.used(), files(&disk), store(&disk));
        disk.set_capacity(Some(used + room));
        let failed = put(&store, 3, BYTES).unwrap_err();
        assert!(matches!(failed, CheckpointError::Failed { at: 3, .. }), "{failed}");
        assert_eq!((latest(&disk), disk.used(), files(&disk)), (Some(2), used, before), "{room}");
        disk.set_capacity(Some(used + 300_036));
        put(&store, 4, BYTES).unwrap();
        assert_eq!((latest(&disk), files(&disk).len()), (Some(4), 2), "{room}");
    }
}

#[test]
fn every_eight_mebibytes_are_synced_and_what_fails_to_be_is_not_kept() {
    const MEBIBYTE: usize = 1024 * 1024;
    let bytes = 19 * MEBIBYTE;
    for nth in 1..=4 {
        let disk = with_two(nth, BYTES);
        let (before, syncs) = (files(&disk), disk.sync_count());
        disk.fail_sync(nth);
        let kept = put(&store(&disk), 3, bytes);
        assert_eq!(disk.sync_count() - syncs, nth.min(3));
        if nth > 3 {
            kept.unwrap();
            continue;
        }
        kept.unwrap_err();
        assert_eq!((latest(&disk), files(&disk)), (Some(2), before), "sync {nth}");
        put(&store(&disk), 4, BYTES).expect_err("no sync is believed in this life");
        disk.crash();
        assert_eq!(latest(&disk), Some(2), "sync {nth}");
        put(&store(&disk), 5, BYTES).unwrap();
        assert_eq!((latest(&disk), files(&disk).len()), (Some(5), 2), "sync {nth}");
    }
}
