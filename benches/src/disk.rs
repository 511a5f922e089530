//! What a folder takes of the disk.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::Context as _;

/// `stat` counts blocks of so many bytes, whatever those of the file system are.
const BLOCK: u64 = 512;

/// Bytes that the files and folders below `folder` have been given by the file system, as `du` counts:
/// whole blocks, none for holes, and those that are set aside as well.
///
/// # Errors
/// The disk's. What is removed meanwhile takes nothing.
pub fn allocated(folder: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let entry = entry?;
        bytes += match entry.metadata() {
            Ok(is) if is.is_dir() => is.blocks() * BLOCK + allocated(&entry.path())?,
            Ok(is) => is.blocks() * BLOCK,
            Err(error) if error.kind() == ErrorKind::NotFound => 0,
            Err(error) => return Err(error.into()),
        };
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_take_nothing_and_folders_are_gone_through() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let inner = folder.path().join("inner");
        std::fs::create_dir(&inner)?;
        let before = allocated(folder.path())?;
        std::fs::File::create(inner.join("hole"))?.set_len(1 << 30)?;
        let file = std::fs::File::create(inner.join("full"))?;
        std::io::Write::write_all(&mut &file, &vec![7; 1 << 20])?;
        file.sync_all()?;
        let bytes = allocated(folder.path())?;
        assert!((1 << 20..2 << 20).contains(&bytes), "{bytes}");
        let grown = bytes - before;
        assert!((1 << 20..2 << 20).contains(&grown), "{grown}");
        Ok(())
    }
}
