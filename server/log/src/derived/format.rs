//! A checkpoint in a file: a header, and the state in chunks, each with a check of its own.
//!
//! ```text
//! header   magic (8), log index (8), bytes of the state (8), check (4)
//! chunk    256 KiB of the state, the last one fewer, and its check (4); as many as there are
//! ```
//!
//! Integers are little-endian. A check is a CRC-32C over the checkpoint's name and generation, its log
//! index, the number of the piece, and what is in it. So nothing that stands in another's place, be it
//! a chunk or a file, is taken for what belongs there.

use std::io;

use anabranch_core::codec::Put;
use bytes::{Buf, Bytes};

use super::Checkpoint;
use crate::disk::DiskFile;

const MAGIC: &[u8; 8] = b"ANABCKP\x01";
const CHECK_BYTES: usize = 4;
const HEADER_BYTES: usize = MAGIC.len() + 8 + 8 + CHECK_BYTES;
/// The header is piece 0, chunks count from 1.
const HEADER: u64 = 0;
/// Bytes of state in one chunk.
const CHUNK_BYTES: usize = 256 * 1024;
/// Chunks that are written between two syncs: 8 MiB. A file system writes what waits for it in the
/// order in which it came, so behind 60 MB not yet written the log's sync of a few bytes would wait
/// for all of them.
const CHUNKS_A_SYNC: u64 = 32;

/// Which checkpoint a file is to hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tag<'a> {
    pub(super) name: &'a str,
    pub(super) generation: u64,
}

impl Tag<'_> {
    /// What the checks of a checkpoint that stands for entry `at` start from.
    fn seed(self, at: u64) -> u32 {
        // No name holds a zero byte, so none is another's beginning.
        let seed = crc32c::crc32c_append(crc32c::crc32c(self.name.as_bytes()), &[0]);
        let seed = crc32c::crc32c_append(seed, &self.generation.to_le_bytes());
        crc32c::crc32c_append(seed, &at.to_le_bytes())
    }
}

/// Why a file is not the checkpoint that it is to hold.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    #[error("read it: {0}")]
    Io(#[from] io::Error),
    #[error("its header fails its check")]
    Header,
    #[error("its header says that the state has {state} bytes, the file has {file}")]
    Length { state: u64, file: u64 },
    #[error("chunk {number} fails its check")]
    Chunk { number: u64 },
}

/// Writes the state made of `parts` to an empty file. When this returns the content is durable.
pub(super) fn write(file: &dyn DiskFile, tag: Tag, at: u64, parts: &[Bytes]) -> io::Result<()> {
    let total = parts.iter().map(|part| part.len() as u64).sum();
    file.write_all_at(0, &[&header(tag, at, total)])?;
    let seed = tag.seed(at);
    for (number, mut pieces) in (1..).zip(chunks(parts)) {
        let check = check(seed, number, &pieces).to_le_bytes();
        pieces.push(&check);
        file.write_all_at(start(number), &pieces)?;
        if number % CHUNKS_A_SYNC == 0 {
            file.sync()?;
        }
    }
    file.sync()
}

/// Reads a state, and checks every byte of the file.
pub(super) fn read(file: &dyn DiskFile, tag: Tag) -> Result<Checkpoint, Unreadable> {
    let len = file.len()?;
    let mut header = [0; HEADER_BYTES];
    file.read_exact_at(0, &mut header)?;
    let (at, total) = parse(tag, &header).ok_or(Unreadable::Header)?;
    // No more is allocated than the file has.
    if file_bytes(total) != Some(len) {
        return Err(Unreadable::Length { state: total, file: len });
    }
    let seed = tag.seed(at);
    let mut state = vec![0; total as usize];
    for (number, chunk) in (1..).zip(state.chunks_mut(CHUNK_BYTES)) {
        let mut expected = [0; CHECK_BYTES];
        file.read_exact_at(start(number), chunk)?;
        file.read_exact_at(start(number) + chunk.len() as u64, &mut expected)?;
        if u32::from_le_bytes(expected) != check(seed, number, &[chunk]) {
            return Err(Unreadable::Chunk { number });
        }
    }
    Ok(Checkpoint { at, bytes: state.into() })
}

fn header(tag: Tag, at: u64, total: u64) -> Vec<u8> {
    let mut header = Vec::with_capacity(HEADER_BYTES);
    header.put(MAGIC);
    header.put_u64(at);
    header.put_u64(total);
    header.put_u32(check(tag.seed(at), HEADER, &[&header]));
    header
}

/// Log index and bytes of the state, if it is a whole header.
fn parse(tag: Tag, header: &[u8; HEADER_BYTES]) -> Option<(u64, u64)> {
    let (head, mut expected) = header.split_at(HEADER_BYTES - CHECK_BYTES);
    let mut rest = head.strip_prefix(MAGIC)?;
    let (at, total) = (rest.get_u64_le(), rest.get_u64_le());
    (expected.get_u32_le() == check(tag.seed(at), HEADER, &[head])).then_some((at, total))
}

fn check(seed: u32, number: u64, pieces: &[&[u8]]) -> u32 {
    let check = crc32c::crc32c_append(seed, &number.to_le_bytes());
    pieces.iter().fold(check, |check, piece| crc32c::crc32c_append(check, piece))
}

/// Where a chunk begins in the file.
fn start(number: u64) -> u64 {
    HEADER_BYTES as u64 + (number - 1) * (CHUNK_BYTES + CHECK_BYTES) as u64
}

/// Bytes of a file with a state of `total` bytes, if there can be one.
fn file_bytes(total: u64) -> Option<u64> {
    let checks = total.div_ceil(CHUNK_BYTES as u64) * CHECK_BYTES as u64;
    total.checked_add(checks)?.checked_add(HEADER_BYTES as u64)
}

/// The chunks of a state, each as the pieces of `parts` that it is made of: nothing is copied together.
fn chunks(parts: &[Bytes]) -> impl Iterator<Item = Vec<&[u8]>> {
    let mut left = parts.iter().map(|part| &part[..]);
    let mut part: &[u8] = &[];
    std::iter::from_fn(move || {
        let (mut pieces, mut room) = (Vec::new(), CHUNK_BYTES);
        while room > 0 {
            if part.is_empty() {
                match left.next() {
                    Some(next) => part = next,
                    None => break,
                }
            } else {
                let (piece, rest) = part.split_at(part.len().min(room));
                pieces.push(piece);
                (part, room) = (rest, room - piece.len());
            }
        }
        (!pieces.is_empty()).then_some(pieces)
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::disk::{Disk, MemoryDisk, OpenMode};

    const TAG: Tag = Tag { name: "region-0", generation: 7 };

    #[test]
    fn a_header_that_claims_more_than_the_file_has_allocates_nothing() {
        // Of the third, state and checks together would have 2^64 bytes.
        for total in [1, 1 << 40, 18_446_462_603_027_742_720, u64::MAX - 32, u64::MAX] {
            let file = MemoryDisk::new(1).open(Path::new("a"), OpenMode::CreateNew).unwrap();
            file.write_all_at(0, &[&header(TAG, 5, total)]).unwrap();
            let refused = read(&*file, TAG).unwrap_err();
            let claims =
                matches!(refused, Unreadable::Length { state, file: 28 } if state == total);
            assert!(claims, "{refused}");
        }
    }

    #[test]
    fn chunks_are_full_but_the_last_wherever_parts_end() {
        let whole: Bytes = (0..600_000_u32).map(|nth| (nth % 251) as u8).collect();
        for cut in [0, 1, 262_143, 262_144, 262_145, 599_999, 600_000] {
            let parts = [whole.slice(..cut), Bytes::new(), whole.slice(cut..)];
            let chunks: Vec<Vec<u8>> = chunks(&parts).map(|pieces| pieces.concat()).collect();
            let sizes: Vec<usize> = chunks.iter().map(Vec::len).collect();
            assert_eq!(sizes, [CHUNK_BYTES, CHUNK_BYTES, 75_712], "cut at {cut}");
            assert!(chunks.concat() == whole, "cut at {cut}");
        }
        assert_eq!(chunks(&[]).count(), 0);
        assert_eq!(chunks(&[Bytes::new()]).count(), 0);
    }
}
