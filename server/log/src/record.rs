//! Records, and the frames they are stored in.
//!
//! A frame is `len u32 | crc32c u32 | content`, all numbers little-endian. The checksum covers, beside
//! the content, the identity of the segment and the frame's offset in it, so a block that a disk put
//! in the wrong place, or did not overwrite, is found.
//!
//! Between records stand *marks*. A mark at offset `o` says: everything before `o` was synced when
//! this mark was written. They tell a torn tail from damage: what was being written when the power
//! failed has no mark after it; what was acknowledged has.

use bytes::{Buf, Bytes};

/// What a Raft entry is to the log's readers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RecordKind {
    /// Nothing; a new leader's first entry.
    Blank,
    /// An encoded [`Command`](anabranch_core::Command).
    Command,
    /// A change of the Raft group's members; the log does not look into it.
    Membership,
}

/// One Raft entry. Cloning shares the payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Place in the log; dense.
    pub index: u64,
    /// Term of the leader that made it; never falls from record to record.
    pub term: u64,
    /// Id of that leader's node.
    pub leader: u64,
    /// What the payload is.
    pub kind: RecordKind,
    /// The content, opaque to the log.
    pub payload: Bytes,
}

/// Identity of a record: what Raft calls a log id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordId {
    /// Place in the log.
    pub index: u64,
    /// Term of the leader that made it.
    pub term: u64,
    /// Id of that leader's node.
    pub leader: u64,
}

/// Bytes of a frame before its content.
const FRAME_HEAD: usize = 8;
const RECORD_HEAD: usize = 1 + 8 + 8 + 8;
const MARK_CONTENT: usize = 1 + 8;
/// Bytes a mark takes in a file.
pub(crate) const MARK_BYTES: usize = FRAME_HEAD + MARK_CONTENT;
/// Bytes a record takes in a file beside its payload.
pub(crate) const RECORD_OVERHEAD: usize = FRAME_HEAD + RECORD_HEAD;
/// The largest payload any log takes; a longer length in a file is damage.
pub(crate) const PAYLOAD_MAX: usize = 64 * 1024 * 1024;

const BLANK: u8 = 1;
const COMMAND: u8 = 2;
const MEMBERSHIP: u8 = 3;
const MARK: u8 = 0xa5;

impl RecordKind {
    fn code(self) -> u8 {
        match self {
            Self::Blank => BLANK,
            Self::Command => COMMAND,
            Self::Membership => MEMBERSHIP,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        match code {
            BLANK => Some(Self::Blank),
            COMMAND => Some(Self::Command),
            MEMBERSHIP => Some(Self::Membership),
            _ => None,
        }
    }
}

impl Record {
    /// Index, term and leader.
    pub fn id(&self) -> RecordId {
        RecordId { index: self.index, term: self.term, leader: self.leader }
    }

    /// Bytes it takes in a file.
    pub fn stored_bytes(&self) -> usize {
        RECORD_OVERHEAD + self.payload.len()
    }
}

/// What a frame holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    Record(Record),
    /// Everything before this frame was durable; the log then ended before `end`.
    Mark {
        end: u64,
    },
}

/// Why there is no frame at a place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoFrame {
    /// It might be one if this many bytes were at hand.
    Short { needed: usize },
    /// It is none.
    Bad,
}

/// Appends a record's frame to `out`; it will lie at `offset` of a segment with this `seed`.
pub(crate) fn put_record(out: &mut Vec<u8>, seed: u32, offset: u64, record: &Record) {
    put_frame(out, seed, offset, |out| {
        out.push(record.kind.code());
        for number in [record.index, record.term, record.leader] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&record.payload);
    });
}

/// Appends a mark's frame.
pub(crate) fn put_mark(out: &mut Vec<u8>, seed: u32, offset: u64, end: u64) {
    put_frame(out, seed, offset, |out| {
        out.push(MARK);
        out.extend_from_slice(&end.to_le_bytes());
    });
}

fn put_frame(out: &mut Vec<u8>, seed: u32, offset: u64, content: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; FRAME_HEAD]);
    content(out);
    let content = start + FRAME_HEAD;
    let len = u32::try_from(out.len() - content).expect("records are checked when they are queued");
    let crc = checksum(seed, offset, &out[content..]);
    out[start..start + 4].copy_from_slice(&len.to_le_bytes());
    out[start + 4..content].copy_from_slice(&crc.to_le_bytes());
}

/// The length needs no place of its own here: it is the content's.
fn checksum(seed: u32, offset: u64, content: &[u8]) -> u32 {
    let placed = crc32c::crc32c_append(seed, &offset.to_le_bytes());
    let placed = crc32c::crc32c_append(placed, &(content.len() as u64).to_le_bytes());
    crc32c::crc32c_append(placed, content)
}

/// Whether `bytes` begin with the length of a mark; cheap, to pass over what is surely none.
pub(crate) fn may_be_mark(bytes: &[u8]) -> bool {
    bytes.starts_with(&(MARK_CONTENT as u32).to_le_bytes())
}

/// Reads the frame at the start of `bytes`, which lie at `offset`. Also returns its length. A
/// record's payload shares `bytes`.
pub(crate) fn parse(seed: u32, offset: u64, bytes: &Bytes) -> Result<(Frame, usize), NoFrame> {
    if bytes.len() < FRAME_HEAD {
        return Err(NoFrame::Short { needed: FRAME_HEAD });
    }
    let mut head = &bytes[..FRAME_HEAD];
    let (len, crc) = (head.get_u32_le() as usize, head.get_u32_le());
    if !(MARK_CONTENT..=RECORD_HEAD + PAYLOAD_MAX).contains(&len) {
        return Err(NoFrame::Bad);
    }
    let end = FRAME_HEAD + len;
    if bytes.len() < end {
        return Err(NoFrame::Short { needed: end });
    }
    let content = bytes.slice(FRAME_HEAD..end);
    if checksum(seed, offset, &content) != crc {
        return Err(NoFrame::Bad);
    }
    Ok((frame(content).ok_or(NoFrame::Bad)?, end))
}

fn frame(mut content: Bytes) -> Option<Frame> {
    let code = content.get_u8();
    if code == MARK && content.len() == 8 {
        return Some(Frame::Mark { end: content.get_u64_le() });
    }
    let kind = RecordKind::from_code(code).filter(|_| RECORD_HEAD <= 1 + content.len())?;
    let [index, term, leader] = std::array::from_fn(|_| content.get_u64_le());
    Some(Frame::Record(Record { index, term, leader, kind, payload: content }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let payload = Bytes::from_static(b"payload");
        Record { index: 7, term: 3, leader: 2, kind: RecordKind::Command, payload }
    }

    #[test]
    fn a_record_comes_back_only_at_its_place() {
        let mut out = Vec::new();
        put_record(&mut out, 11, 64, &record());
        assert_eq!(out.len(), record().stored_bytes());
        let bytes = Bytes::from(out);
        assert_eq!(parse(11, 64, &bytes), Ok((Frame::Record(record()), bytes.len())));
        assert_eq!(parse(11, 65, &bytes), Err(NoFrame::Bad), "another offset");
        assert_eq!(parse(12, 64, &bytes), Err(NoFrame::Bad), "another segment");
        let short = bytes.slice(..bytes.len() - 1);
        assert_eq!(parse(11, 64, &short), Err(NoFrame::Short { needed: bytes.len() }));
    }

    #[test]
    fn every_flipped_bit_of_a_frame_is_found() {
        let mut out = Vec::new();
        put_mark(&mut out, 1, 2, 3);
        put_record(&mut out, 1, 2 + MARK_BYTES as u64, &record());
        for bit in 0..out.len() * 8 {
            let mut flipped = out.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let flipped = Bytes::from(flipped);
            let both = parse(1, 2, &flipped)
                .and_then(|(_, len)| parse(1, 2 + len as u64, &flipped.slice(len..)));
            assert!(both.is_err(), "bit {bit}");
        }
    }

    #[test]
    fn zeroes_are_no_frame() {
        assert_eq!(parse(0, 0, &Bytes::from(vec![0; 64])), Err(NoFrame::Bad));
    }
}
