//! What every [`Disk`] must do, checked against any of them.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use super::{Disk, OpenMode};

/// Runs the whole suite, each part on a fresh empty disk from `make_disk`.
///
/// # Panics
/// At the first thing the disk does wrong, naming it.
pub fn check(mut make_disk: impl FnMut() -> Arc<dyn Disk>) {
    open_modes(&*make_disk());
    reads_and_writes(&*make_disk());
    lengths(&*make_disk());
    names(&*make_disk());
    renames(&*make_disk());
    syncs(&*make_disk());
    locks(&*make_disk());
}

fn open_modes(disk: &dyn Disk) {
    let path = Path::new("a");
    let missing = disk.open(path, OpenMode::Read).err().map(|e| e.kind());
    assert_eq!(missing, Some(ErrorKind::NotFound), "reading a missing file");
    let file = disk.open(path, OpenMode::CreateNew).expect("create");
    file.write_all_at(0, &[b"kept"]).expect("write");
    let again = disk.open(path, OpenMode::CreateNew).err().map(|e| e.kind());
    assert_eq!(again, Some(ErrorKind::AlreadyExists), "creating a file twice");
    let file = disk.open(path, OpenMode::ReadWrite).expect("open again");
    assert_eq!(file.len().expect("len"), 4, "opening for writing keeps the content");
    let file = disk.open(path, OpenMode::Read).expect("open to read");
    assert!(file.write_all_at(0, &[b"x"]).is_err(), "writing to a file opened for reading");
    let inside_nothing = disk.open(Path::new("no/b"), OpenMode::ReadWrite);
    assert_eq!(inside_nothing.err().map(|e| e.kind()), Some(ErrorKind::NotFound), "no folder");
}

fn reads_and_writes(disk: &dyn Disk) {
    let file = disk.open(Path::new("a"), OpenMode::ReadWrite).expect("create");
    let other = disk.open(Path::new("a"), OpenMode::Read).expect("second handle");
    file.write_all_at(2, &[b"cd", b"", b"efg"]).expect("gathered write");
    let mut all = [9; 7];
    other.read_exact_at(0, &mut all).expect("a second handle sees the write");
    assert_eq!(&all, b"\0\0cdefg", "a gap reads as zeroes");
    file.write_all_at(3, &[b"D"]).expect("overwrite");
    other.read_exact_at(2, &mut all[..3]).expect("read in the middle");
    assert_eq!(&all[..3], b"cDe");
    for (offset, len) in [(5, 3), (7, 1), (100, 1)] {
        let beyond = other.read_exact_at(offset, &mut all[..len]).map_err(|e| e.kind());
        assert_eq!(beyond, Err(ErrorKind::UnexpectedEof), "{len} bytes at {offset} of 7");
    }
    other.read_exact_at(7, &mut []).expect("nothing can be read anywhere");
    file.write_all_at(0, &[]).expect("nothing can be written");
    assert_eq!(file.len().expect("len"), 7);
}

fn lengths(disk: &dyn Disk) {
    let file = disk.open(Path::new("a"), OpenMode::ReadWrite).expect("create");
    file.write_all_at(0, &[b"abcdef"]).expect("write");
    file.set_len(3).expect("cut");
    file.set_len(5).expect("extend");
    let mut all = [9; 5];
    file.read_exact_at(0, &mut all).expect("read");
    assert_eq!(&all, b"abc\0\0", "what was cut does not come back");
}

fn names(disk: &dyn Disk) {
    let missing = disk.list(Path::new("x")).map_err(|e| e.kind());
    assert_eq!(missing, Err(ErrorKind::NotFound), "listing a missing folder");
    disk.create_dir(Path::new("x/y")).expect("create nested folders");
    disk.create_dir(Path::new("x/y")).expect("create them again");
    for name in ["x/b", "x/a", "x/y/c"] {
        disk.open(Path::new(name), OpenMode::CreateNew).expect("create");
    }
    assert_eq!(disk.list(Path::new("x")).expect("list"), ["a", "b", "y"], "sorted, one level");
    assert_eq!(disk.list(Path::new("")).expect("list"), ["x"], "the root");
    disk.remove(Path::new("x/a")).expect("remove");
    let again = disk.remove(Path::new("x/a")).map_err(|e| e.kind());
    assert_eq!(again, Err(ErrorKind::NotFound), "removing twice");
    assert_eq!(disk.list(Path::new("x")).expect("list"), ["b", "y"]);
}

fn renames(disk: &dyn Disk) {
    disk.create_dir(Path::new("d")).expect("folder");
    for (name, content) in [("a", b"A"), ("d/b", b"B")] {
        let file = disk.open(Path::new(name), OpenMode::CreateNew).expect("create");
        file.write_all_at(0, &[content]).expect("write");
    }
    let open = disk.open(Path::new("a"), OpenMode::ReadWrite).expect("open");
    disk.rename(Path::new("a"), Path::new("d/b")).expect("rename over another file");
    open.write_all_at(1, &[b"+"]).expect("an open handle follows the file");
    let mut content = [0; 2];
    let file = disk.open(Path::new("d/b"), OpenMode::Read).expect("open by its new name");
    file.read_exact_at(0, &mut content).expect("read");
    assert_eq!(&content, b"A+");
    assert_eq!(disk.list(Path::new("")).expect("list"), ["d"]);
    let gone = disk.rename(Path::new("a"), Path::new("c")).map_err(|e| e.kind());
    assert_eq!(gone, Err(ErrorKind::NotFound), "renaming a missing file");
}

fn locks(disk: &dyn Disk) {
    let path = Path::new("lock");
    let held = disk.lock(path).expect("lock");
    let again = disk.lock(path).err().map(|e| e.kind());
    assert_eq!(again, Some(ErrorKind::WouldBlock), "locking what is held");
    disk.lock(Path::new("other")).expect("another lock is free");
    drop(held);
    disk.lock(path).expect("a lock that was let go is free");
}

fn syncs(disk: &dyn Disk) {
    disk.create_dir(Path::new("d")).expect("folder");
    let file = disk.open(Path::new("d/a"), OpenMode::CreateNew).expect("create");
    file.write_all_at(0, &[b"a"]).expect("write");
    file.sync().expect("sync");
    disk.sync_dir(Path::new("d")).expect("sync the folder");
    disk.sync_dir(Path::new("")).expect("sync the root");
    assert!(disk.sync_dir(Path::new("no")).is_err(), "syncing a missing folder");
    let mut content = [0; 1];
    file.read_exact_at(0, &mut content).expect("read");
    assert_eq!(&content, b"a");
}
