//! Segment files: their names, their headers, and what a scan of one finds.

use std::io;
use std::path::{Path, PathBuf};

use bytes::{Buf, Bytes, BytesMut};

use crate::disk::DiskFile;
use crate::record::{self, Frame, MARK_BYTES, NoFrame, Record, RecordId};

const MAGIC: &[u8; 8] = b"ANABSEG\x01";
/// Bytes of the header; the first frame follows.
pub(crate) const HEADER_BYTES: u64 = 8 + 16 + 8 + 8 + 4;
/// How much a scan reads at once.
const CHUNK_BYTES: usize = 1024 * 1024;

/// Which segment this is. Every checksum in its file depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentId {
    pub log: [u8; 16],
    pub first: u64,
    /// Term of its first record. A segment that Raft cut away and the one that took its place begin
    /// at the same index but not in the same term, so old blocks do not pass for new ones.
    pub first_term: u64,
}

impl SegmentId {
    /// What checksums start from.
    pub(crate) fn seed(&self) -> u32 {
        crc32c::crc32c(&self.header()[..HEADER_BYTES as usize - 4])
    }

    /// The file's first bytes.
    pub(crate) fn header(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES as usize);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&self.log);
        out.extend_from_slice(&self.first.to_le_bytes());
        out.extend_from_slice(&self.first_term.to_le_bytes());
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads a header, if it is a whole one.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let (head, mut crc) = bytes.split_at_checked(HEADER_BYTES as usize - 4)?;
        let mut rest = head.strip_prefix(MAGIC)?;
        if crc.len() != 4 || crc.get_u32_le() != crc32c::crc32c(head) {
            return None;
        }
        let mut log = [0; 16];
        rest.copy_to_slice(&mut log);
        Some(Self { log, first: rest.get_u64_le(), first_term: rest.get_u64_le() })
    }
}

/// Path of the segment that begins with record `first`.
pub(crate) fn path(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("{first:020}.seg"))
}

/// Path of the table that says where a sealed segment's records lie.
pub(crate) fn offsets_path(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("{first:020}.off"))
}

/// The first index in a segment's file name; `None` for other files.
pub(crate) fn first_of_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg").filter(|digits| digits.len() == 20)?;
    digits.parse().ok()
}

/// Reads and checks the header; the inner `None` means there is no whole one.
pub(crate) fn read_header(file: &dyn DiskFile) -> io::Result<Option<SegmentId>> {
    if file.len()? < HEADER_BYTES {
        return Ok(None);
    }
    let mut header = [0; HEADER_BYTES as usize];
    file.read_exact_at(0, &mut header)?;
    Ok(SegmentId::parse(&header))
}

/// What a segment file holds.
#[derive(Debug)]
pub(crate) struct Scan {
    /// Where each record lies.
    pub offsets: Vec<u32>,
    /// Identity of the last record.
    pub last: Option<RecordId>,
    /// One after the last whole frame.
    pub end: u64,
    /// Bytes of the file. More than `end`: something there is not whole.
    pub len: u64,
    /// The last whole frame is a mark.
    pub marked: bool,
    /// Where the last mark lies, or the first frame: what is before was synced.
    pub sure: u64,
}

/// Reads frames from the start until the first that is not whole or not the next one.
pub(crate) fn scan(file: &dyn DiskFile, id: SegmentId) -> io::Result<Scan> {
    let len = file.len()?;
    let (end, sure) = (HEADER_BYTES, HEADER_BYTES);
    let mut found = Scan { offsets: Vec::new(), last: None, end, len, marked: false, sure };
    let mut frames = Frames::new(file, id.seed(), HEADER_BYTES..len);
    while let Some((offset, frame)) = frames.next()? {
        match frame {
            Frame::Record(record) => {
                let expected = id.first + found.offsets.len() as u64;
                let last_term = found.last.map_or(id.first_term, |last| last.term);
                if record.index != expected || record.term < last_term {
                    return Ok(found);
                }
                found.last = Some(record.id());
                found.offsets.push(offset as u32);
                found.marked = false;
            }
            Frame::Mark { .. } => (found.marked, found.sure) = (true, offset),
        }
        found.end = frames.offset;
    }
    Ok(found)
}

/// Finds the last mark in `range` of a file, wherever it lies, and what it says the log's end was.
///
/// A mark has one length and one kind, so trying every byte costs little more than reading.
pub(crate) fn last_mark(
    file: &dyn DiskFile,
    seed: u32,
    range: std::ops::Range<u64>,
) -> io::Result<Option<u64>> {
    let mut found = None;
    let mut start = range.start;
    while start + MARK_BYTES as u64 <= range.end {
        let len = (range.end - start).min(CHUNK_BYTES as u64) as usize;
        let chunk = read(file, start, len)?;
        for at in 0..=len - MARK_BYTES {
            if !record::may_be_mark(&chunk[at..]) {
                continue;
            }
            let frame = chunk.slice(at..at + MARK_BYTES);
            if let Ok((Frame::Mark { end }, _)) = record::parse(seed, start + at as u64, &frame) {
                found = Some(end);
            }
        }
        start += (len - MARK_BYTES + 1) as u64;
    }
    Ok(found)
}

/// Where the last byte in `range` of a file ends that is not zero; the range's start if all are.
pub(crate) fn written_end(file: &dyn DiskFile, range: std::ops::Range<u64>) -> io::Result<u64> {
    let (mut start, mut end) = (range.start, range.start);
    while start < range.end {
        let len = (range.end - start).min(CHUNK_BYTES as u64) as usize;
        let chunk = read(file, start, len)?;
        if let Some(last) = chunk.iter().rposition(|byte| *byte != 0) {
            end = start + last as u64 + 1;
        }
        start += len as u64;
    }
    Ok(end)
}

/// Frames one after the other, read in large pieces.
pub(crate) struct Frames<'a> {
    file: &'a dyn DiskFile,
    seed: u32,
    /// Where the next frame starts.
    pub offset: u64,
    end: u64,
    chunk: Bytes,
    chunk_bytes: usize,
}

impl<'a> Frames<'a> {
    /// The frames of `range`, which starts at a frame.
    pub(crate) fn new(file: &'a dyn DiskFile, seed: u32, range: std::ops::Range<u64>) -> Self {
        let (offset, end) = (range.start, range.end);
        Self { file, seed, offset, end, chunk: Bytes::new(), chunk_bytes: CHUNK_BYTES }
    }

    /// Reads at least this much at once.
    pub(crate) fn with_chunk(mut self, bytes: usize) -> Self {
        self.chunk_bytes = bytes;
        self
    }

    /// The next frame and where it starts. `None` at the end of the range, or where no whole frame
    /// is: then `offset` is before the end.
    pub(crate) fn next(&mut self) -> io::Result<Option<(u64, Frame)>> {
        loop {
            match record::parse(self.seed, self.offset, &self.chunk) {
                Ok((frame, len)) => {
                    let start = self.offset;
                    self.chunk.advance(len);
                    self.offset += len as u64;
                    return Ok(Some((start, frame)));
                }
                Err(NoFrame::Bad) => return Ok(None),
                Err(NoFrame::Short { needed }) => {
                    let left = self.end.saturating_sub(self.offset);
                    if left < needed as u64 {
                        return Ok(None);
                    }
                    let len = needed.max(self.chunk_bytes).min(left as usize);
                    self.chunk = read(self.file, self.offset, len)?;
                }
            }
        }
    }

    /// The next record and where it starts, passing over marks.
    pub(crate) fn next_record(&mut self) -> io::Result<Option<(u64, Record)>> {
        loop {
            match self.next()? {
                Some((offset, Frame::Record(record))) => return Ok(Some((offset, record))),
                Some((_, Frame::Mark { .. })) => {}
                None => return Ok(None),
            }
        }
    }
}

/// Writes a range of a file again, as it is.
///
/// After a failed sync the system may take pages for clean that never reached the disk: they can be
/// read, and no later sync writes them, unless they are written anew.
pub(crate) fn rewrite(file: &dyn DiskFile, range: std::ops::Range<u64>) -> io::Result<()> {
    let mut start = range.start;
    while start < range.end {
        let len = (range.end - start).min(CHUNK_BYTES as u64) as usize;
        file.write_all_at(start, &[&read(file, start, len)?])?;
        start += len as u64;
    }
    Ok(())
}

fn read(file: &dyn DiskFile, offset: u64, len: usize) -> io::Result<Bytes> {
    let mut chunk = BytesMut::zeroed(len);
    file.read_exact_at(offset, &mut chunk)?;
    Ok(chunk.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_back_and_every_flipped_bit_is_found() {
        let id = SegmentId { log: [7; 16], first: 9, first_term: 4 };
        let header = id.header();
        assert_eq!(SegmentId::parse(&header), Some(id));
        for bit in 0..header.len() * 8 {
            let mut flipped = header.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentId::parse(&flipped), None, "bit {bit}");
        }
    }

    #[test]
    fn names_sort_as_numbers_do() {
        let dir = Path::new("d");
        assert!(path(dir, 9) < path(dir, 10));
        assert_eq!(first_of_name("00000000000000000010.seg"), Some(10));
        assert_eq!(first_of_name("10.seg"), None);
        assert_eq!(first_of_name("00000000000000000010.off"), None);
    }
}
