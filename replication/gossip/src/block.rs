//! Blocks: long histories, compressed, several QUIC streams wide.
//!
//! A block is one uni-directional stream: a header, then groups as stored, each behind its length,
//! compressed together. Blocks of an origin arrive in any order; the puller puts them in order.

use anabranch_core::codec::{Put, Reader};
use anabranch_core::{DecodeError, Group, Origin, Seq};
use bytes::Bytes;

use crate::frame::{FRAME_BYTES_MAX, WantId, seq};

/// Longest block body before compression: a block's groups, the last of them as large as can be.
pub const BLOCK_RAW_BYTES_MAX: usize = 2 * FRAME_BYTES_MAX;

/// Longest block on the wire: what zstd makes at most of incompressible bytes, and the header.
pub const BLOCK_WIRE_BYTES_MAX: usize = BLOCK_RAW_BYTES_MAX + BLOCK_RAW_BYTES_MAX / 128 + 1024;

const ZSTD_LEVEL: i32 = 1;
const BLOCK_VERSION: u8 = 1;

/// A run of groups of one origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The want it answers.
    pub id: WantId,
    /// The groups: at least one, dense, oldest first, chain hashes checked.
    pub groups: Vec<Group>,
}

/// Why a block could not be read.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    /// Header or groups are malformed, or a chain hash does not match.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The body does not decompress to the length that the header says.
    #[error("decompress the block of {origin} at {first}: {problem}")]
    Decompress {
        /// Whose events.
        origin: Origin,
        /// First number it should hold.
        first: Seq,
        /// What went wrong.
        problem: String,
    },
    /// The groups are not what the header says.
    #[error(
        "block said to hold {origin} from {first} to before {end} holds {found_first} to before {found_end}"
    )]
    Mislabelled {
        /// Whose events.
        origin: Origin,
        /// First number it should hold.
        first: Seq,
        /// Number after the last one it should hold.
        end: Seq,
        /// First number it holds.
        found_first: Seq,
        /// Number after the last one before the run breaks.
        found_end: Seq,
    },
}

impl Block {
    /// The block's bytes on the wire.
    ///
    /// # Panics
    /// If there is no group.
    pub fn encode(&self) -> Vec<u8> {
        let (head, last) = (self.groups.first(), self.groups.last());
        let head = head.expect("a block holds at least one group");
        let end = last.expect("a block holds at least one group").last().next();
        let mut raw = Vec::with_capacity(self.groups.iter().map(|g| g.encoded().len() + 4).sum());
        for group in &self.groups {
            raw.put_slice_with_len(group.encoded());
        }
        let body = zstd::bulk::compress(&raw, ZSTD_LEVEL).expect("compressing into memory");
        let mut out = Vec::with_capacity(body.len() + 128);
        out.put_byte(BLOCK_VERSION);
        out.put_u32(self.id.0);
        head.origin().encode(&mut out);
        out.put_varint(head.first().0);
        out.put_varint(end.0);
        out.put_u32(raw.len() as u32);
        out.put(&body);
        out
    }

    /// Reads a block and checks every group in it.
    ///
    /// # Errors
    /// [`BlockError`]; the session that brought it must not be trusted.
    pub fn decode(bytes: Bytes) -> Result<Self, BlockError> {
        let mut reader = Reader::new(bytes);
        match reader.byte("block version")? {
            BLOCK_VERSION => {}
            value => return Err(invalid("block version", value.into())),
        }
        let id = WantId(reader.u32("want id")?);
        let origin = Origin::decode(&mut reader)?;
        let first = seq(&mut reader, "first seq of the block")?;
        let end = seq(&mut reader, "end seq of the block")?;
        let raw_bytes = reader.u32("raw length of the block")? as usize;
        if raw_bytes > BLOCK_RAW_BYTES_MAX {
            return Err(invalid("raw length of the block", raw_bytes as u64));
        }
        let raw = decompress(&reader.rest(), raw_bytes)
            .map_err(|problem| BlockError::Decompress { origin: origin.clone(), first, problem })?;
        let groups = decode_groups(raw)?;
        check_label(&origin, first, end, &groups)?;
        Ok(Self { id, groups })
    }
}

fn invalid(what: &'static str, value: u64) -> BlockError {
    DecodeError::Invalid { what, value }.into()
}

fn decompress(body: &[u8], raw_bytes: usize) -> Result<Bytes, String> {
    let raw = zstd::bulk::decompress(body, raw_bytes).map_err(|e| e.to_string())?;
    match raw.len() == raw_bytes {
        true => Ok(raw.into()),
        false => Err(format!("{} bytes, the header says {raw_bytes}", raw.len())),
    }
}

fn decode_groups(raw: Bytes) -> Result<Vec<Group>, DecodeError> {
    let mut reader = Reader::new(raw);
    let mut groups = Vec::new();
    while !reader.is_empty() {
        groups.push(Group::decode(reader.slice("group of a block")?)?);
    }
    Ok(groups)
}

fn check_label(origin: &Origin, first: Seq, end: Seq, groups: &[Group]) -> Result<(), BlockError> {
    let found_first = groups.first().map_or(Seq(0), Group::first);
    let mut found_end = found_first;
    for group in groups {
        if group.origin() != origin || group.first() != found_end {
            break;
        }
        found_end = group.last().next();
    }
    let whole = groups.last().is_some_and(|last| last.last().next() == found_end);
    if whole && found_first == first && found_end == end {
        return Ok(());
    }
    let origin = origin.clone();
    Err(BlockError::Mislabelled { origin, first, end, found_first, found_end })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::testing::history;
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    fn block() -> Block {
        Block { id: WantId(4), groups: history("eu", 50, 3) }
    }

    #[test]
    fn blocks_come_back_smaller_than_they_were() {
        let raw: usize = block().groups.iter().map(|group| group.encoded().len()).sum();
        let encoded = block().encode();
        assert!(encoded.len() < raw, "{} of {raw} bytes", encoded.len());
        assert_eq!(Block::decode(encoded.into()).unwrap(), block());
    }

    #[test]
    fn a_block_with_a_hole_or_a_foreign_group_is_refused() {
        let mut hole = block();
        hole.groups.remove(7);
        let mut foreign = block();
        foreign.groups[9] = history("us", 50, 3)[9].clone();
        for bad in [hole, foreign] {
            let refused = Block::decode(bad.encode().into());
            assert!(matches!(refused, Err(BlockError::Mislabelled { .. })), "{refused:?}");
        }
    }

    #[test]
    fn a_block_with_an_altered_group_is_refused() {
        let mut altered = block();
        let mut bytes = altered.groups[9].encoded().to_vec();
        let at = bytes.len() - 20;
        bytes[at] ^= 1;
        altered.groups[9] = Group::decode_trusted(bytes.into()).unwrap();
        let refused = Block::decode(altered.encode().into());
        let chain = DecodeError::Chain { at: altered.groups[9].first_dot().to_string() };
        assert!(matches!(&refused, Err(BlockError::Decode(e)) if *e == chain), "{refused:?}");
    }

    #[test]
    fn a_body_that_decompresses_to_more_than_it_says_is_refused_without_growing() {
        let bomb = zstd::bulk::compress(&vec![0; 8 * BLOCK_RAW_BYTES_MAX], ZSTD_LEVEL).unwrap();
        assert!(decompress(&bomb, 1_000).is_err());
    }

    #[test]
    fn garbage_is_refused_and_never_panics() {
        let mut rng = SmallRng::seed_from_u64(5);
        let good = block().encode();
        for _ in 0..3_000 {
            let mut bad = good.clone();
            let at = rng.random_range(0..bad.len());
            bad[at] ^= 1 << rng.random_range(0..8);
            bad.truncate(rng.random_range(at..=bad.len()));
            // The want id is the puller's own name for it, so a change there is not damage.
            if let Ok(read) = Block::decode(bad.into()) {
                assert_eq!(read.groups, block().groups);
            }
        }
    }
}
