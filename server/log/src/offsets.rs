//! The table beside a sealed segment: where each of its records lies.
//!
//! Derived: a missing or damaged table is made again from the segment, which is scanned for it. A
//! table that points to a wrong place cannot mislead, because the record there says its own index.

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Buf;

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::segment::{self, SegmentId};

const MAGIC: &[u8; 8] = b"ANABOFF\x01";
const HEADER_BYTES: usize = 8 + 16 + 8 + 8 + 8 + 8 + 4;

/// What the table says of its segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sealed {
    pub id: SegmentId,
    /// One after its last record.
    pub end: u64,
    /// Bytes of its file.
    pub bytes: u64,
}

fn header(sealed: &Sealed) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_BYTES);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&sealed.id.log);
    for number in [sealed.id.first, sealed.id.first_term, sealed.end, sealed.bytes] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    let crc = crc32c::crc32c(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

fn parse(bytes: &[u8; HEADER_BYTES]) -> Option<Sealed> {
    let (head, mut crc) = bytes.split_at(HEADER_BYTES - 4);
    let mut rest = head.strip_prefix(MAGIC)?;
    if crc.get_u32_le() != crc32c::crc32c(head) {
        return None;
    }
    let mut log = [0; 16];
    rest.copy_to_slice(&mut log);
    let id = SegmentId { log, first: rest.get_u64_le(), first_term: rest.get_u64_le() };
    Some(Sealed { id, end: rest.get_u64_le(), bytes: rest.get_u64_le() })
}

/// Writes the table; it is whole or absent after a crash once the folder is synced.
pub(crate) fn write(
    disk: &dyn Disk,
    dir: &Path,
    sealed: &Sealed,
    offsets: &[u32],
) -> io::Result<()> {
    let path = segment::offsets_path(dir, sealed.id.first);
    let new = path.with_extension("off.new");
    let written = write_new(disk, &new, sealed, offsets);
    let renamed = written.and_then(|()| disk.rename(&new, &path));
    renamed.inspect_err(|_| {
        // A full disk needs the bytes more than anybody needs half a table.
        let _ = disk.remove(&new);
    })
}

fn write_new(disk: &dyn Disk, new: &Path, sealed: &Sealed, offsets: &[u32]) -> io::Result<()> {
    let file = disk.open(new, OpenMode::ReadWrite)?;
    file.set_len(0)?;
    let table: Vec<u8> = offsets.iter().flat_map(|offset| offset.to_le_bytes()).collect();
    file.write_all_at(0, &[&header(sealed), &table])?;
    file.sync()
}

/// Reads only what the table says of its segment; `None` if there is no whole table.
pub(crate) fn read_header(disk: &dyn Disk, dir: &Path, first: u64) -> Option<Sealed> {
    let file = disk.open(&segment::offsets_path(dir, first), OpenMode::Read).ok()?;
    let mut bytes = [0; HEADER_BYTES];
    file.read_exact_at(0, &mut bytes).ok()?;
    let sealed = parse(&bytes)?;
    let whole = HEADER_BYTES as u64 + 4 * sealed.end.checked_sub(sealed.id.first)?;
    (file.len().ok()? == whole && sealed.id.first == first).then_some(sealed)
}

/// An open table.
pub(crate) struct Table {
    file: Arc<dyn DiskFile>,
}

impl Table {
    pub(crate) fn open(disk: &dyn Disk, dir: &Path, first: u64) -> io::Result<Self> {
        Ok(Self { file: disk.open(&segment::offsets_path(dir, first), OpenMode::Read)? })
    }

    /// Where the segment's `nth` record lies, from 0.
    pub(crate) fn offset(&self, nth: u64) -> io::Result<u64> {
        let mut bytes = [0; 4];
        self.file.read_exact_at(HEADER_BYTES as u64 + 4 * nth, &mut bytes)?;
        Ok(u64::from(u32::from_le_bytes(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::MemoryDisk;

    #[test]
    fn a_table_comes_back_and_damage_to_its_header_is_found() {
        let (disk, dir) = (MemoryDisk::new(1), Path::new(""));
        let id = SegmentId { log: [1; 16], first: 10, first_term: 2 };
        let sealed = Sealed { id, end: 13, bytes: 400 };
        write(&disk, dir, &sealed, &[44, 100, 222]).unwrap();
        assert_eq!(read_header(&disk, dir, 10), Some(sealed));
        assert_eq!(Table::open(&disk, dir, 10).unwrap().offset(2).unwrap(), 222);
        let path = segment::offsets_path(dir, 10);
        for bit in 0..HEADER_BYTES as u64 * 8 {
            let other = disk.fork(1);
            other.flip_bit(&path, bit);
            assert_eq!(read_header(&other, dir, 10), None, "bit {bit}");
        }
        let mut cut = disk.content(&path).unwrap();
        cut.pop();
        disk.set_content(&path, &cut);
        assert_eq!(read_header(&disk, dir, 10), None, "a cut table");
    }
}
