//! Bytes kept aside, so that a full disk still has room for what keeps a Raft group alive.

use std::io;
use std::path::Path;

use crate::disk::{Disk, OpenMode};

const NAME: &str = "reserve";
const PIECE_BYTES: usize = 1024 * 1024;

/// Sets `bytes` aside, unless they are already. On a full disk nothing is kept.
pub(crate) fn take(disk: &dyn Disk, dir: &Path, bytes: u64) -> io::Result<()> {
    let path = dir.join(NAME);
    if bytes == 0 {
        return Ok(());
    }
    if disk.open(&path, OpenMode::Read).and_then(|file| file.len()).is_ok_and(|len| len == bytes) {
        return Ok(());
    }
    fill(disk, &path, bytes).inspect_err(|_| {
        // Half a reserve would only keep bytes from those who need them.
        let _ = disk.remove(&path);
    })
}

/// Written, not only extended: a file of holes reserves nothing.
fn fill(disk: &dyn Disk, path: &Path, bytes: u64) -> io::Result<()> {
    let file = disk.open(path, OpenMode::ReadWrite)?;
    file.set_len(0)?;
    let piece = vec![0x5a; PIECE_BYTES.min(bytes as usize)];
    let mut offset = 0;
    while offset < bytes {
        let len = (bytes - offset).min(piece.len() as u64);
        file.write_all_at(offset, &[&piece[..len as usize]])?;
        offset += len;
    }
    file.sync()
}

/// Gives the bytes back.
pub(crate) fn release(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    disk.remove(&dir.join(NAME))
}
