//! Blocks: the checked pieces of an index file, each read on its own.

use std::ops::Range;

use anabranch_core::codec::{DecodeError, Put, Reader};
use bytes::Bytes;

/// Bytes after which a block is closed.
pub(crate) const BLOCK_BYTES: usize = 4096;
const CHECK_BYTES: usize = 4;

/// Where a block lies in its file, its check included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct BlockAt {
    pub(crate) offset: u32,
    pub(crate) len: u32,
}

impl BlockAt {
    pub(crate) fn encode(self, out: &mut Vec<u8>) {
        out.put_u32(self.offset);
        out.put_u32(self.len);
    }

    pub(crate) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self { offset: reader.u32("block offset")?, len: reader.u32("block length")? })
    }

    pub(crate) fn range(self) -> Range<u64> {
        u64::from(self.offset)..u64::from(self.offset) + u64::from(self.len)
    }
}

/// Which file a block belongs to: goes into every check, so that a block from elsewhere is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileTag {
    /// Id of the log.
    pub(crate) log_id: [u8; 16],
    /// First entry of the segment.
    pub(crate) first_entry: u64,
}

impl FileTag {
    /// Check of bytes at a place of the file.
    pub(crate) fn check(&self, offset: u64, bytes: &[u8]) -> u32 {
        let check = crc32c::crc32c(&self.log_id);
        let check = crc32c::crc32c_append(check, &self.first_entry.to_le_bytes());
        let check = crc32c::crc32c_append(check, &offset.to_le_bytes());
        crc32c::crc32c_append(check, bytes)
    }

    /// Appends `content` and its check to the file's bytes.
    ///
    /// # Panics
    /// If the file grows past 4 GiB: a segment is far smaller.
    pub(crate) fn seal_block(&self, file: &mut Vec<u8>, content: &[u8]) -> BlockAt {
        let offset = u32::try_from(file.len()).expect("an index file is below 4 GiB");
        file.put(content);
        file.put_u32(self.check(u64::from(offset), content));
        BlockAt { offset, len: (content.len() + CHECK_BYTES) as u32 }
    }

    /// The content of a block read from the file; nothing if its check fails.
    pub(crate) fn open_block(&self, at: BlockAt, mut bytes: Bytes) -> Option<Bytes> {
        let content_len = bytes.len().checked_sub(CHECK_BYTES)?;
        let check = bytes.split_off(content_len);
        let expected = self.check(u64::from(at.offset), &bytes).to_le_bytes();
        (check[..] == expected).then_some(bytes)
    }
}

/// Maps differences of either sign to small unsigned numbers.
pub(crate) fn zigzag(from: u64, to: u64) -> u64 {
    let difference = to.wrapping_sub(from) as i64;
    ((difference << 1) ^ (difference >> 63)) as u64
}

/// Undoes [`zigzag`].
pub(crate) fn unzigzag(from: u64, coded: u64) -> u64 {
    let difference = ((coded >> 1) as i64) ^ -((coded & 1) as i64);
    from.wrapping_add(difference as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_of_any_sign_and_size_come_back() {
        for (from, to) in [(0, 0), (5, 3), (3, 5), (u64::MAX, 0), (0, u64::MAX), (1 << 63, 1)] {
            assert_eq!(unzigzag(from, zigzag(from, to)), to, "{from} to {to}");
        }
        assert_eq!(zigzag(7, 6), 1);
    }

    #[test]
    fn a_block_is_refused_in_the_wrong_place_and_with_any_bit_flipped() {
        let tag = FileTag { log_id: [7; 16], first_entry: 9 };
        let mut file = vec![0; 100];
        let at = tag.seal_block(&mut file, b"content");
        let bytes = Bytes::copy_from_slice(&file[100..]);
        assert_eq!(tag.open_block(at, bytes.clone()), Some(Bytes::from_static(b"content")));
        let elsewhere = BlockAt { offset: 200, ..at };
        assert_eq!(tag.open_block(elsewhere, bytes.clone()), None);
        let other = FileTag { first_entry: 10, ..tag };
        assert_eq!(other.open_block(at, bytes.clone()), None);
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(tag.open_block(at, bad.into()), None, "bit {bit}");
        }
    }
}
