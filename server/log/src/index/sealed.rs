//! The index of one sealed segment: an immutable file of which little is in memory.

use std::ops::Range;
use std::sync::Arc;

use anabranch_core::codec::{DecodeError, Reader};
use anabranch_core::planted::{self, Bug};
use anabranch_core::{Origin, Seq, Stamp};
use bytes::Bytes;

use super::IndexError;
use super::block::{BlockAt, FileTag};
use super::directory::{Directory, HEADER_BYTES, Header};
use super::filter;
use super::place::{Direction, EntryPlace, GroupPlace, StreamPlace, StreamSeek};
use super::rows::groups_from;
use super::tables::{GroupBlock, StreamRow, read_entries, read_groups, read_streams};
use crate::cache::ClockCache;
use crate::disk::DiskFile;

/// Blocks of index files, by segment, write of its file, and offset.
pub(crate) type BlockCache = ClockCache<(u64, u64, u32), Bytes>;

/// Where the bytes of an index are.
pub(crate) enum Source {
    /// In a file.
    File(Arc<dyn DiskFile>),
    /// In memory, because the disk had no room for the file.
    Memory(Bytes),
}

/// The index of a sealed segment.
pub(crate) struct SealedPart {
    source: Source,
    tag: FileTag,
    /// Tells rewrites of one segment's file apart in the cache.
    write: u64,
    pub(crate) end_entry: u64,
    pub(crate) directory: Directory,
    blocks: Arc<BlockCache>,
}

impl Source {
    fn read(&self, range: Range<u64>) -> std::io::Result<Bytes> {
        match self {
            Self::File(file) => {
                let mut bytes = vec![0; (range.end - range.start) as usize];
                file.read_exact_at(range.start, &mut bytes)?;
                Ok(bytes.into())
            }
            Self::Memory(bytes) if range.end <= bytes.len() as u64 => {
                Ok(bytes.slice(range.start as usize..range.end as usize))
            }
            Self::Memory(_) => Err(std::io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn len(&self) -> std::io::Result<u64> {
        match self {
            Self::File(file) => file.len(),
            Self::Memory(bytes) => Ok(bytes.len() as u64),
        }
    }
}

impl SealedPart {
    /// Opens an index; reads its header and directory.
    ///
    /// # Errors
    /// [`IndexError::Damaged`] if these are not what was written for this segment.
    pub(crate) fn open(
        source: Source,
        tag: FileTag,
        write: u64,
        blocks: Arc<BlockCache>,
    ) -> Result<Self, IndexError> {
        let segment = tag.first_entry;
        let damaged = |what| IndexError::Damaged { segment, what };
        let io = |error| unreadable(segment, "header or directory", error);
        let len = source.len().map_err(io)?;
        let header_end = HEADER_BYTES as u64;
        if len < header_end {
            return Err(damaged("header"));
        }
        let header = Header::decode(source.read(0..header_end).map_err(io)?, tag);
        let header = header.ok_or(damaged("header"))?;
        if header.directory.range().end != len {
            return Err(damaged("length"));
        }
        let bytes = source.read(header.directory.range()).map_err(io)?;
        if tag.check(header.directory.range().start, &bytes) != header.directory_check {
            return Err(damaged("directory"));
        }
        let directory = Directory::decode(bytes).map_err(|_| damaged("directory"))?;
        Ok(Self { source, tag, write, end_entry: header.end_entry, directory, blocks })
    }

    pub(crate) fn first_entry(&self) -> u64 {
        self.tag.first_entry
    }

    /// Positions of the events in the segment.
    pub(crate) fn positions(&self) -> Range<u64> {
        self.directory.start.next_position..self.directory.end.next_position
    }

    /// The entries with events, from the one that holds `from`; at most `limit`.
    pub(crate) fn entries(
        &self,
        from: u64,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<EntryPlace>, IndexError> {
        let blocks = &self.directory.entries;
        let mut found = Vec::new();
        let holder = blocks.partition_point(|block| block.position <= from);
        match direction {
            Direction::Forward => {
                for nth in holder.saturating_sub(1)..blocks.len() {
                    let rows = self.entry_rows(nth)?;
                    let start = rows.partition_point(|row| row.end_position() <= from);
                    found.extend(rows[start..].iter().take(limit - found.len()));
                    if found.len() == limit {
                        break;
                    }
                }
            }
            Direction::Backward => {
                for nth in (0..holder).rev() {
                    let rows = self.entry_rows(nth)?;
                    let end = rows.partition_point(|row| row.position <= from);
                    found.extend(rows[..end].iter().rev().take(limit - found.len()));
                    if found.len() == limit {
                        break;
                    }
                }
            }
        }
        Ok(found)
    }

    /// First position of the first entry with a stamp at or after `time`, if there is one.
    pub(crate) fn position_at(&self, time: Stamp) -> Result<Option<u64>, IndexError> {
        let blocks = &self.directory.entries;
        let nth = blocks.partition_point(|block| block.time_max < time);
        if nth == blocks.len() {
            return Ok(None);
        }
        let rows = self.entry_rows(nth)?;
        Ok(rows.iter().find(|row| row.time >= time).map(|row| row.position))
    }

    /// Places of a stream hash in the direction asked for; at most `limit`.
    pub(crate) fn stream(
        &self,
        seek: &StreamSeek,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<StreamPlace>, IndexError> {
        if self.directory.streams.is_empty() || !self.may_contain(seek.hash)? {
            return Ok(Vec::new());
        }
        let rows = match direction {
            Direction::Forward => self.stream_forward(seek, limit)?,
            Direction::Backward => self.stream_backward(seek, limit)?,
        };
        self.with_entries(&rows)
    }

    fn stream_forward(
        &self,
        seek: &StreamSeek,
        limit: usize,
    ) -> Result<Vec<StreamRow>, IndexError> {
        let (revision, position) = seek.bound(&self.positions()).unwrap_or((seek.revision, 0));
        let exclusive = seek.bound(&self.positions()).is_some();
        let least = StreamRow { hash: seek.hash, revision, position };
        let blocks = &self.directory.streams;
        let holder = blocks.partition_point(|block| block.first <= least).saturating_sub(1);
        let mut found = Vec::new();
        for (nth, block) in blocks.iter().enumerate().skip(holder) {
            if block.first.hash > seek.hash || found.len() >= limit {
                break;
            }
            let rows = self.stream_rows(nth, seek.hash)?;
            let start = rows.partition_point(|row| *row < least || exclusive && *row == least);
            found.extend_from_slice(&rows[start..]);
        }
        found.truncate(limit);
        Ok(found)
    }

    fn stream_backward(
        &self,
        seek: &StreamSeek,
        limit: usize,
    ) -> Result<Vec<StreamRow>, IndexError> {
        let bound = seek.bound(&self.positions());
        let (revision, position) = bound.unwrap_or((seek.revision, u64::MAX));
        // Nothing lies at position `u64::MAX`, so the end is open in both cases.
        let end = StreamRow { hash: seek.hash, revision, position };
        let blocks = &self.directory.streams;
        let mut found = Vec::new();
        for nth in (0..blocks.partition_point(|block| block.first < end)).rev() {
            let rows = self.stream_rows(nth, seek.hash)?;
            let count = rows.partition_point(|row| *row < end);
            found.extend(rows[..count].iter().rev());
            if blocks[nth].first.hash < seek.hash || found.len() >= limit {
                break;
            }
        }
        found.truncate(limit);
        Ok(found)
    }

    /// Looks up the entries of rows. Positions of one stream rise or fall, so neighbours mostly share
    /// a block.
    fn with_entries(&self, rows: &[StreamRow]) -> Result<Vec<StreamPlace>, IndexError> {
        let mut block = (usize::MAX, Vec::new());
        rows.iter()
            .map(|row| {
                let entries = &self.directory.entries;
                let nth = entries.partition_point(|block| block.position <= row.position) - 1;
                if block.0 != nth {
                    block = (nth, self.entry_rows(nth)?);
                }
                let after = block.1.partition_point(|entry| entry.position <= row.position);
                let entry = block.1[after - 1].entry;
                Ok(StreamPlace { revision: row.revision, position: row.position, entry })
            })
            .collect()
    }

    /// Groups of `origin` from the one that contains `from`; at most `limit`.
    pub(crate) fn groups(
        &self,
        origin: &Origin,
        from: Seq,
        limit: usize,
    ) -> Result<Vec<GroupPlace>, IndexError> {
        let groups = &self.directory.groups;
        let Ok(nth) = groups.binary_search_by(|(held, _)| held.cmp(origin)) else {
            return Ok(Vec::new());
        };
        let blocks = &groups[nth].1;
        let holder = blocks.partition_point(|block| block.first <= from).saturating_sub(1);
        let mut found = Vec::new();
        for block in &blocks[holder..] {
            if found.len() >= limit {
                break;
            }
            found.extend(groups_from(&self.group_rows(block)?, from, limit - found.len()));
        }
        Ok(found)
    }

    /// Whether the segment may hold what the key of a filter stands for.
    pub(crate) fn may_contain(&self, key: u64) -> Result<bool, IndexError> {
        if planted::is(Bug::FilterDenies) && key.is_multiple_of(4) {
            return Ok(false);
        }
        let pages = &self.directory.filter;
        let Some(at) = pages.get(filter::page_of(key, pages.len())) else { return Ok(true) };
        Ok(filter::may_contain(&self.block(*at, "filter")?, key))
    }

    fn entry_rows(&self, nth: usize) -> Result<Vec<EntryPlace>, IndexError> {
        let block = &self.directory.entries[nth];
        self.table(block.at, "entries", |reader| read_entries(block, reader))
    }

    fn stream_rows(&self, nth: usize, hash: u64) -> Result<Vec<StreamRow>, IndexError> {
        let base = self.directory.start.next_position;
        self.table(self.directory.streams[nth].at, "streams", |reader| {
            let mut rows = Vec::new();
            read_streams(hash, base, reader, &mut rows)?;
            Ok(rows)
        })
    }

    fn group_rows(&self, block: &GroupBlock) -> Result<Vec<GroupPlace>, IndexError> {
        self.table(block.at, "groups", |reader| read_groups(block, reader))
    }

    fn table<T>(
        &self,
        at: BlockAt,
        what: &'static str,
        read: impl FnOnce(&mut Reader) -> Result<T, DecodeError>,
    ) -> Result<T, IndexError> {
        let mut reader = Reader::new(self.block(at, what)?);
        read(&mut reader).map_err(|_| IndexError::Damaged { segment: self.first_entry(), what })
    }

    fn block(&self, at: BlockAt, what: &'static str) -> Result<Bytes, IndexError> {
        let segment = self.first_entry();
        let key = (segment, self.write, at.offset);
        if let Some(block) = self.blocks.find(&key) {
            return Ok(block);
        }
        let read = self.source.read(at.range());
        let bytes = read.map_err(|error| unreadable(segment, what, error))?;
        let damaged = IndexError::Damaged { segment, what };
        let block = self.tag.open_block(at, bytes).ok_or(damaged)?;
        self.blocks.keep(key, block.clone(), at.len as usize + 64);
        Ok(block)
    }
}

/// A file that cannot be read is made again like one that is damaged: it is derived.
fn unreadable(segment: u64, what: &'static str, error: std::io::Error) -> IndexError {
    tracing::warn!(segment, what, %error, "index file cannot be read");
    IndexError::Damaged { segment, what }
}
