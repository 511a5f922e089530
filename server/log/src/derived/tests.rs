use std::path::Path;

use bytes::Bytes;

use super::conformance::check;
use super::*;

fn put(store: &dyn Checkpoints, at: u64, bytes: usize) {
    let part = Bytes::from(vec![at as u8; bytes]);
    store.put("region", at, &[part]).unwrap();
}

fn latest(store: &dyn Checkpoints) -> Option<u64> {
    store.latest("region").map(|held| held.at)
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
fn memory_keeps_the_contract() {
    check(&MemoryCheckpoints::new());
}

#[test]
fn sled_keeps_the_contract_and_what_was_put_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoints");
    let (store, opened) = SledCheckpoints::open(&path).unwrap();
    assert_eq!(opened, Opened::Whole);
    check(&store);
    put(&store, 5, 600_000);
    put(&store, 6, 10);
    drop(store);
    let (store, opened) = SledCheckpoints::open(&path).unwrap();
    assert_eq!(opened, Opened::Whole);
    assert_eq!(latest(&store), Some(6));
    put(&store, 7, 10);
    assert_eq!(latest(&store), Some(7), "generations go on after a restart");
}

#[test]
fn a_damaged_checkpoint_is_passed_over_for_the_one_before() {
    let store = MemoryCheckpoints::new();
    for bit in [0, 31, 40, 95, 100, 1000] {
        put(&store, 1, 300_000);
        put(&store, 2, 300_000);
        assert_eq!(latest(&store), Some(2));
        assert!(store.flip_bit("region", bit));
        assert_eq!(latest(&store), Some(1), "bit {bit} flipped in the newest");
        store.forget("region").unwrap();
        assert_eq!(latest(&store), None);
    }
}

#[test]
fn only_the_last_two_generations_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (sled, _) = SledCheckpoints::open(&folder.path().join("checkpoints")).unwrap();
    let memory = MemoryCheckpoints::new();
    for at in 1..6 {
        put(&sled, at, 300_000);
        put(&memory, at, 300_000);
    }
    // Two generations of a head and two chunks.
    assert_eq!((sled.pairs(), memory.pairs()), (6, 6));
}

#[test]
fn a_damaged_folder_is_moved_aside_and_an_empty_one_takes_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoints");
    for nth in 1..3 {
        let (store, _) = SledCheckpoints::open(&path).unwrap();
        put(&store, 5, 600_000);
        drop(store);
        scribble(&path);
        let (store, opened) = SledCheckpoints::open(&path).unwrap();
        let aside = folder.path().join(format!("checkpoints.damaged-{nth}"));
        match opened {
            Opened::MovedAside { to, .. } => assert_eq!(to, aside),
            Opened::Whole => panic!("a scribbled folder opened as whole"),
        }
        assert!(aside.join("db").exists(), "the damaged files are still there to look at");
        assert_eq!(latest(&store), None);
        put(&store, 6, 10);
        assert_eq!(latest(&store), Some(6));
    }
}

#[test]
fn a_folder_that_is_still_being_closed_is_waited_for_and_not_taken_for_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoints");
    let (store, _) = SledCheckpoints::open(&path).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || (1..20).for_each(|at| put(&store, at, 10)));
        let (store, opened) = SledCheckpoints::open(&path).unwrap();
        assert_eq!(opened, Opened::Whole);
        assert_eq!(latest(&store), Some(19));
    });
}

/// What is large goes into a file of its own, for which there is no room here.
#[test]
fn after_a_write_that_found_no_room_nothing_waits_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = SledCheckpoints::open(&folder.path().join("checkpoints")).unwrap();
    std::fs::remove_dir_all(folder.path().join("checkpoints/blobs")).unwrap();
    let failed = store.put("region", 5, &[Bytes::from(vec![5; 600_000])]).unwrap_err();
    assert!(matches!(failed, CheckpointError::Failed { at: 5, .. }), "{failed}");
    let refused = store.put("region", 6, &[]).unwrap_err();
    assert!(matches!(refused, CheckpointError::OutOfUse), "{refused}");
    drop(store);
}

#[test]
fn a_panic_inside_takes_the_store_out_of_use_and_harms_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = SledCheckpoints::open(&folder.path().join("checkpoints")).unwrap();
    put(&store, 5, 10);
    store.panic_inside();
    assert_eq!(latest(&store), None);
    let refused = store.put("region", 6, &[]).unwrap_err();
    assert!(matches!(refused, CheckpointError::OutOfUse), "{refused}");
}
