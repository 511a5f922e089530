use std::path::Path;

use bytes::Bytes;

use super::super::conformance::check;
use super::*;

fn put(key: &[u8], state: &[u8]) -> Change {
    (key.to_vec(), Some(Bytes::copy_from_slice(state)))
}

fn state(text: &'static str) -> Option<Bytes> {
    Some(Bytes::from_static(text.as_bytes()))
}

const DATABASE: &str = "states";

fn open(folder: &Path) -> SledStates {
    let (states, opened) = SledStates::open(&folder.join(DATABASE)).unwrap();
    assert_eq!(opened, Opened::Whole, "it opens as it was left");
    states
}

#[test]
fn sled_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    check(&open(folder.path()));
}

#[test]
fn sled_believes_no_value_that_was_changed_cut_or_misplaced() {
    let folder = tempfile::tempdir().unwrap();
    let states = open(folder.path());
    states.write(&[put(b"a", b"hello"), put(b"ah", b"ello"), put(b"b", b"hello")]).unwrap();
    let tree = states.tree();
    let whole = tree.get(b"a").unwrap().unwrap().to_vec();
    let damaged = Err(StateError::Damaged { key: b"a".to_vec() });
    let check = |value: Vec<u8>, what: &str| {
        tree.insert(b"a", value).unwrap();
        assert_eq!(states.get(b"a"), damaged, "{what}");
        assert_eq!(states.scan(b"a", None, 1).map(|_| None), damaged, "{what}");
    };
    for byte in 0..whole.len() {
        let mut changed = whole.clone();
        changed[byte] ^= 0x10;
        check(changed, "a byte is another");
        check(whole[..byte].to_vec(), "the end is missing");
    }
    check(tree.get(b"b").unwrap().unwrap().to_vec(), "the same state of another key");
    let other = tree.get(b"ah").unwrap().unwrap();
    check([&other[..4], b"hello"].concat(), "key and state together have the same bytes");
    tree.insert(b"a", whole).unwrap();
    assert_eq!(states.get(b"a"), Ok(state("hello")), "as it was");

    tree.insert(b"a", b"").unwrap();
    states.remove_all(b"a").unwrap();
    assert_eq!(states.get(b"a"), Ok(None), "a damaged one can be removed");
}

#[test]
fn sled_keeps_states_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let large = Bytes::from(vec![5; 1_000_000]);
    for round in 0..3u8 {
        let states = open(folder.path());
        if round > 0 {
            let held = states.get(b"round").unwrap();
            assert_eq!(held.as_deref(), Some(&[round - 1][..]));
            assert!(states.get(b"large") == Ok(Some(large.clone())));
            assert_eq!(states.get(b"gone"), Ok(None));
            assert_eq!(states.scan(b"many", None, 5_000).unwrap().len(), 2_000);
        }
        let mut changes = vec![
            put(b"round", &[round]),
            put(b"large", &large),
            put(b"gone", b""),
            (b"gone".to_vec(), None),
        ];
        let key = |nth: u32| [&b"many"[..], &nth.to_be_bytes()].concat();
        changes.extend((0..2_000).map(|nth| put(&key(nth), &[round; 100])));
        states.write(&changes).unwrap();
        let clone = states.clone();
        drop(states);
        assert_eq!(clone.get(b"gone"), Ok(None), "the folder is in use as long as a clone lives");
    }
}

/// Overwrites part of every file that sled keeps its data in.
#[expect(clippy::disallowed_methods, reason = "sled's folder is outside the disk seam")]
fn scribble(folder: &Path) {
    for name in ["conf", "db"] {
        let path = folder.join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        let len = bytes.len();
        bytes[..len.min(4096)].fill(0x5a);
        std::fs::write(&path, bytes).unwrap();
    }
}

#[test]
fn a_damaged_folder_is_moved_aside_and_an_empty_one_takes_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(DATABASE);
    for nth in 1..3 {
        let states = open(folder.path());
        states.write(&[put(b"a", &[5; 600_000])]).unwrap();
        drop(states);
        scribble(&path);
        let (states, opened) = SledStates::open(&path).unwrap();
        let aside = folder.path().join(format!("states.damaged-{nth}"));
        match opened {
            Opened::MovedAside { to, .. } => assert_eq!(to, aside),
            Opened::Whole => panic!("a scribbled folder opened as whole"),
        }
        assert!(aside.join("db").exists(), "the damaged files are still there to look at");
        assert_eq!(states.get(b"a"), Ok(None));
        states.write(&[put(b"a", b"again")]).unwrap();
        assert_eq!(states.get(b"a"), Ok(state("again")));
    }
}

#[test]
fn a_folder_that_is_still_being_closed_is_waited_for_and_not_taken_for_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let states = open(folder.path());
    std::thread::scope(|scope| {
        scope.spawn(move || {
            (1..20).for_each(|at| states.write(&[put(b"at", &[at])]).unwrap());
        });
        assert_eq!(open(folder.path()).get(b"at"), Ok(Some(Bytes::from_static(&[19]))));
    });
}

/// As a release left them that kept checkpoints in sled, too.
#[test]
fn checkpoints_of_earlier_releases_are_removed_and_states_stay() {
    let folder = tempfile::tempdir().unwrap();
    let states = open(folder.path());
    states.write(&[put(b"a", b"kept")]).unwrap();
    drop(states);
    let reopen = || database::open_unlocked(&folder.path().join(DATABASE)).unwrap();
    let database = reopen();
    for nth in 0..20_u8 {
        database.insert([nth], vec![nth; 256 * 1024]).unwrap();
    }
    database.flush().unwrap();
    drop(database);
    assert_eq!(open(folder.path()).get(b"a"), Ok(state("kept")));
    assert!(reopen().is_empty());
    assert_eq!(open(folder.path()).get(b"a"), Ok(state("kept")));
}

/// What is large goes into a file of its own, for which there is no room here.
#[test]
fn after_a_write_that_found_no_room_nothing_waits_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let states = open(folder.path());
    std::fs::remove_dir_all(folder.path().join(DATABASE).join("blobs")).unwrap();
    let failed = states.write(&[put(b"a", &[5; 600_000])]).unwrap_err();
    assert!(matches!(failed, StateError::Write { changes: 1, .. }), "{failed}");
    assert_eq!(states.write(&[put(b"b", b"")]), Err(StateError::OutOfUse));
    drop(states);
}

/// Lets sled fail in the middle of a batch as a full disk does. Each of these states fits beside the
/// others in sled's log; a few together, in one node, go into a file, whose folder is gone.
fn fail_half_way(folder: &Path, states: &SledStates) {
    std::fs::remove_dir_all(folder.join(DATABASE).join("blobs")).unwrap();
    let changes: Vec<Change> = (0..40).map(|nth: u8| put(&[b'n', nth], &[nth; 100_000])).collect();
    let failed = states.write(&changes).unwrap_err();
    assert!(matches!(failed, StateError::Write { changes: 40, .. }), "{failed}");
}

/// What a process that is killed now leaves behind.
fn left_behind(folder: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    let to = copy.path().join(DATABASE);
    std::fs::create_dir(&to).unwrap();
    for file in std::fs::read_dir(folder.join(DATABASE)).unwrap() {
        let file = file.unwrap();
        if file.file_type().unwrap().is_file() {
            std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    }
    copy
}

#[test]
fn after_half_a_write_no_state_is_believed_until_all_are_removed() {
    let folder = tempfile::tempdir().unwrap();
    let states = open(folder.path());
    let old = [put(b"a", b"old")];
    states.write(&old).unwrap();
    fail_half_way(folder.path(), &states);
    let half = states.tree().scan_prefix(b"n").count();
    assert!((1..40).contains(&half), "sled did {half} of 40, which is what this is about");
    assert_eq!(states.get(b"a"), Err(StateError::OutOfUse));
    assert_eq!(states.write(&old), Err(StateError::OutOfUse));
    // It does not wait for what sled never writes.
    drop(states);

    let folder = left_behind(folder.path());
    let states = open(folder.path());
    assert_eq!(states.get(b"a"), Err(StateError::InDoubt));
    assert_eq!(states.scan(&[], None, 1), Err(StateError::InDoubt));
    assert_eq!(states.write(&old), Err(StateError::InDoubt));
    assert_eq!(states.remove_all(b"a"), Err(StateError::InDoubt));
    states.remove_all(&[]).unwrap();
    assert_eq!(states.scan(&[], None, 1), Ok(Vec::new()));
    states.write(&old).unwrap();
    drop(states);

    let states = open(folder.path());
    assert_eq!(states.get(b"a"), Ok(state("old")), "folded again, they are believed again");
}

/// A write that was cut off, rather than failed, is not there, and nothing is in doubt.
#[test]
#[expect(clippy::disallowed_methods, reason = "sled's folder is outside the disk seam")]
fn a_write_is_there_whole_or_not_at_all_wherever_it_was_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let states = open(folder.path());
    let write = |round: u8| {
        let put = |nth: u16| put(&nth.to_be_bytes(), &[round; 300]);
        states.write(&(0..2_000).map(put).collect::<Vec<_>>()).unwrap();
        left_behind(folder.path())
    };
    let (before, after) = (write(1), write(2));
    let log_of = |image: &tempfile::TempDir| image.path().join(DATABASE).join("db");
    let log = |image| std::fs::read(log_of(image)).unwrap();
    let (before_log, after_log) = (log(&before), log(&after));
    let mut rounds = Vec::new();
    for cut in (0..40).map(|nth| after_log.len() * nth / 39) {
        let image = left_behind(before.path());
        let rest = before_log.get(cut..).unwrap_or_default();
        std::fs::write(log_of(&image), [&after_log[..cut], rest].concat()).unwrap();
        let states = open(image.path());
        let found = states.scan(&[], None, usize::MAX).unwrap();
        let round = found[0].1[0];
        assert_eq!(found.len(), 2_000);
        assert!(found.iter().all(|(_, state)| state[0] == round), "half a write, cut at {cut}");
        rounds.push(round);
    }
    assert!(rounds.is_sorted() && rounds[0] == 1 && rounds[39] == 2, "{rounds:?}");
}

#[test]
fn a_panic_inside_takes_states_out_of_use_and_harms_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let states = open(folder.path());
    states.write(&[put(b"a", b"")]).unwrap();
    states.shared.database.panic_inside();
    assert_eq!(states.get(b"a"), Err(StateError::OutOfUse));
    assert_eq!(states.scan(&[], None, 1), Err(StateError::OutOfUse));
    assert_eq!(states.write(&[put(b"a", b"")]), Err(StateError::OutOfUse));
    assert_eq!(states.remove_all(&[]), Err(StateError::OutOfUse));
    let said = StateError::OutOfUse.to_string();
    assert_eq!(said, "the store of states is out of use until it is opened again");
}
