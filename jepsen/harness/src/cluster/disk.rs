//! Small disks that can be filled: file systems in memory, mounted for the run.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};

/// What is written to a full disk at once.
static PIECE: [u8; 1 << 20] = [0; 1 << 20];
/// Memory is given out in pages of so many bytes.
const PAGE: usize = 4_096;
/// Room on every disk besides what a run writes: the log's reserve, segments that are begun.
const MIB_BASE: u64 = 128;
/// What a busy node writes a second, twice over.
const KIB_A_SECOND: u64 = 2_048;

/// A disk of a few hundred MiB, unmounted when it is dropped.
#[derive(Debug)]
pub(super) struct SmallDisk {
    folder: PathBuf,
}

/// How large disks are for a run of this length, in MiB: nothing but a fault may fill them.
pub fn mib_for(lasts: Duration) -> u64 {
    MIB_BASE + lasts.as_secs() * KIB_A_SECOND / 1_024
}

/// Whether disks of so many MiB in all, full to the brim, leave enough memory.
///
/// # Errors
/// If they do not; it says how much there is.
pub(super) fn check_memory(mib: u64) -> anyhow::Result<()> {
    let text = std::fs::read_to_string("/proc/meminfo").context("ask how much memory there is")?;
    let available = available_mib(&text).context("/proc/meminfo does not say what is available")?;
    ensure!(
        mib <= available / 4 * 3,
        "disks of {mib} MiB in all, in memory, of which {available} MiB are available"
    );
    Ok(())
}

fn available_mib(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? / 1_024)
}

impl SmallDisk {
    /// Mounts a disk at `folder`, which is made.
    ///
    /// # Errors
    /// If that is not allowed, as it is not to ordinary users.
    pub(super) fn mount(folder: &Path, mib: u64) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder).context("make a folder for a disk")?;
        mount(folder, &format!("size={mib}m"))?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// Where it is mounted.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }
    /// The folder for a node's data: not the whole disk, on which there is also the ballast.
    pub(super) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Takes all the space that there is, but for `left` bytes, in whole pages. May be called again to
    /// take what has become free.
    ///
    /// # Errors
    /// If the ballast cannot be written for another reason than that the disk is full.
    pub(super) fn fill(&self, left: u64) -> io::Result<()> {
        let mut file = OpenOptions::new().create(true).append(true).open(self.ballast())?;
        for piece in [&PIECE[..], &PIECE[..PAGE]] {
            write_until_full(&mut file, piece)?;
        }
        // Whoever writes at the same time may have had the page that this needs.
        let end = file.metadata()?.len().saturating_sub(left);
        file.set_len(end / PAGE as u64 * PAGE as u64)
    }

    /// Gives the space back.
    ///
    /// # Errors
    /// If the ballast cannot be removed.
    pub(super) fn empty(&self) -> io::Result<()> {
        match std::fs::remove_file(self.ballast()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn ballast(&self) -> PathBuf {
        self.folder.join("ballast")
    }
}

fn mount(folder: &Path, options: &str) -> anyhow::Result<()> {
    let mut command = Command::new("mount");
    command.args(["-t", "tmpfs", "-o", options, "anabranch-harness"]).arg(folder);
    let output = command.output().context("run mount")?;
    // It says itself who it is.
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}", said.trim());
    Ok(())
}

fn write_until_full(file: &mut File, piece: &[u8]) -> io::Result<()> {
    loop {
        match file.write(piece) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::StorageFull => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process that was just killed may still hold on to it.
        let done = Command::new("umount").arg("-l").arg(&self.folder).status();
        if !done.as_ref().is_ok_and(std::process::ExitStatus::success) {
            eprintln!("cannot unmount {}: {done:?}; please do", self.folder.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_filled_to_the_page_and_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let disk = match SmallDisk::mount(&folder.path().join("disk"), 4) {
            Ok(disk) => disk,
            Err(error) => return eprintln!("not tested: {error:#}"),
        };
        std::fs::create_dir(disk.data()).unwrap();
        let reserve = disk.data().join("reserve");
        std::fs::write(&reserve, PIECE).unwrap();
        disk.fill(3 * PAGE as u64).unwrap();
        let write = |bytes: usize| std::fs::write(disk.data().join("file"), &PIECE[..bytes]);
        write(3 * PAGE).unwrap();
        assert_eq!(write(4 * PAGE).unwrap_err().kind(), io::ErrorKind::StorageFull);
        std::fs::remove_file(&reserve).unwrap();
        write(4 * PAGE).unwrap();
        disk.fill(0).unwrap();
        assert_eq!(write(5 * PAGE).unwrap_err().kind(), io::ErrorKind::StorageFull);
        disk.empty().unwrap();
        disk.empty().unwrap();
        write(PIECE.len()).unwrap();
        drop(disk);
        assert!(!folder.path().join("disk/data").exists(), "it is unmounted");
    }

    #[test]
    fn what_is_available_of_the_memory_is_told() {
        let text = "MemTotal:       24681912 kB\nMemAvailable:   23068672 kB\nSwapFree: 0 kB\n";
        assert_eq!(available_mib(text), Some(22_528));
        assert_eq!(available_mib("MemTotal: 1 kB"), None);
    }

    #[test]
    fn a_disk_that_cannot_be_mounted_is_an_error_that_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let error = mount(folder.path(), "size=large").unwrap_err();
        assert!(format!("{error:#}").starts_with("mount: "), "{error:#}");
    }
}
