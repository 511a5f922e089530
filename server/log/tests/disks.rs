//! Both disks keep the same contract; the one in memory also keeps its promises about faults.

use std::path::Path;
use std::sync::Arc;

use anabranch_log::disk::{Disk, MemoryDisk, OpenMode, RealDisk, conformance};

#[test]
fn the_disk_in_memory_conforms() {
    conformance::check(|| Arc::new(MemoryDisk::new(1)));
}

#[test]
fn the_real_disk_conforms() {
    let mut folders = Vec::new();
    conformance::check(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let disk = RealDisk::new(folder.path());
        folders.push(folder);
        Arc::new(disk)
    });
}

#[test]
fn the_real_disk_stays_below_its_root() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = RealDisk::new(folder.path());
    assert!(disk.open(Path::new("../x"), OpenMode::ReadWrite).is_err());
    assert!(disk.open(Path::new("/x"), OpenMode::ReadWrite).is_err());
}

fn written(disk: &MemoryDisk, content: &[u8]) -> Arc<dyn anabranch_log::disk::DiskFile> {
    let file = disk.open(Path::new("a"), OpenMode::ReadWrite).unwrap();
    file.write_all_at(0, &[content]).unwrap();
    file
}

#[test]
fn a_crash_keeps_what_was_synced_and_kills_handles() {
    let disk = MemoryDisk::new(1);
    let file = written(&disk, b"synced");
    file.sync().unwrap();
    disk.sync_dir(Path::new("")).unwrap();
    disk.crash();
    assert_eq!(disk.content(Path::new("a")).as_deref(), Some(&b"synced"[..]));
    assert!(file.len().is_err(), "the handle is of another life");
}

#[test]
fn a_crash_tears_unsynced_writes_at_sectors_and_loses_unsynced_names() {
    let mut kept = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let disk = MemoryDisk::new(seed);
        written(&disk, &[7; 1500]);
        disk.crash();
        kept.insert(disk.content(Path::new("a")).map(|content| content.len()));
    }
    let all = [None, Some(0), Some(512), Some(1024), Some(1500)];
    assert_eq!(kept, all.into(), "nothing, or any number of sectors");
}

#[test]
fn what_a_failed_sync_should_have_kept_is_lost_and_later_syncs_fail_too() {
    let disk = MemoryDisk::new(1);
    let file = written(&disk, b"old");
    file.sync().unwrap();
    disk.sync_dir(Path::new("")).unwrap();
    file.write_all_at(0, &[b"new"]).unwrap();
    disk.fail_sync(1);
    assert!(file.sync().is_err());
    assert!(file.sync().is_err());
    disk.crash();
    assert_eq!(disk.content(Path::new("a")).as_deref(), Some(&b"old"[..]));
}

#[test]
fn a_full_disk_takes_a_prefix_and_more_when_there_is_room() {
    let disk = MemoryDisk::new(1);
    disk.set_capacity(Some(4));
    let file = disk.open(Path::new("a"), OpenMode::ReadWrite).unwrap();
    let refused = file.write_all_at(0, &[b"abcdef"]).map_err(|e| e.kind());
    assert_eq!(refused, Err(std::io::ErrorKind::StorageFull));
    assert_eq!(disk.content(Path::new("a")).as_deref(), Some(&b"abcd"[..]));
    assert!(
        disk.open(Path::new("b"), OpenMode::CreateNew).is_err(),
        "nor is there room for a name"
    );
    file.write_all_at(0, &[b"ABCD"]).expect("overwriting needs no room");
    disk.set_capacity(None);
    file.write_all_at(4, &[b"ef"]).unwrap();
    assert_eq!(disk.used(), 6);
}
