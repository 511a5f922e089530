//! The directory of an index file: what stays in memory of it.
//!
//! A file is a fixed header, the blocks of the tables, the pages of the filter, and the directory:
//! first key and place of each block, about a hundredth of the file. The header names and checks the
//! directory, each block checks itself.

use std::collections::BTreeSet;

use anabranch_core::codec::{DecodeError, Put, Reader};
use anabranch_core::{Origin, Seq, Stamp};
use bytes::Bytes;

use super::block::{BlockAt, FileTag};
use super::filter;
use super::frontier::Frontier;
use super::place::GroupPlace;
use super::rows::SegmentRows;
use super::tables::{
    EntryBlock, GroupBlock, StreamBlock, StreamRow, write_entries, write_groups, write_streams,
};

const MAGIC: &[u8; 8] = b"ANABRIDX";
/// Version of the format, of [`super::rows::name_hash`] and of [`filter`].
const VERSION: u16 = 1;
/// Bytes of an index file for each event that room is made for at once; files need less.
const BYTES_AN_EVENT: usize = 8;
pub(crate) const HEADER_BYTES: usize = 8 + 2 + 16 + 8 + 8 + 4 + 4 + 4 + 4;

/// The fixed start of an index file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) tag: FileTag,
    /// One past the last entry of the segment.
    pub(crate) end_entry: u64,
    /// Where the directory lies, and its check.
    pub(crate) directory: BlockAt,
    pub(crate) directory_check: u32,
}

impl Header {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.put(MAGIC);
        out.put_u16(VERSION);
        out.put(&self.tag.log_id);
        out.put_u64(self.tag.first_entry);
        out.put_u64(self.end_entry);
        self.directory.encode(&mut out);
        out.put_u32(self.directory_check);
        let check = self.tag.check(0, &out);
        out.put_u32(check);
        out
    }

    /// Reads a header; nothing if it is damaged, of another version or another file.
    pub(crate) fn decode(bytes: Bytes, tag: FileTag) -> Option<Self> {
        let mut reader = Reader::new(bytes.clone());
        let magic: [u8; 8] = reader.array("magic").ok()?;
        let version = reader.u16("version").ok()?;
        let log_id = reader.array("log id").ok()?;
        let first_entry = reader.u64("first entry").ok()?;
        let end_entry = reader.u64("end entry").ok()?;
        let directory = BlockAt::decode(&mut reader).ok()?;
        let directory_check = reader.u32("directory check").ok()?;
        let check = reader.u32("header check").ok()?;
        let whole = check == tag.check(0, &bytes[..HEADER_BYTES - 4]);
        let ours = FileTag { log_id, first_entry } == tag;
        let known = magic == *MAGIC && version == VERSION;
        (whole && ours && known).then_some(Self { tag, end_entry, directory, directory_check })
    }
}

/// What stays in memory of an index file.
#[derive(Debug)]
pub(crate) struct Directory {
    /// The frontier before the segment's first entry, and after its last.
    pub(crate) start: Frontier,
    pub(crate) end: Frontier,
    pub(crate) entries: Vec<EntryBlock>,
    pub(crate) streams: Vec<StreamBlock>,
    /// Sorted by origin.
    pub(crate) groups: Vec<(Origin, Vec<GroupBlock>)>,
    pub(crate) filter: Vec<BlockAt>,
}

/// The bytes of an index file.
pub(crate) fn build_file(log_id: [u8; 16], rows: SegmentRows) -> Vec<u8> {
    let SegmentRows { start, end, entry_range, entries, mut streams, names, groups } = rows;
    let tag = FileTag { log_id, first_entry: entry_range.start };
    streams.sort_unstable();
    let mut file = Vec::with_capacity(HEADER_BYTES + streams.len() * BYTES_AN_EVENT);
    file.resize(HEADER_BYTES, 0);
    let entries = write_entries(&tag, &entries, &mut file);
    let blocks = write_streams(&tag, start.next_position, &streams, &mut file);
    let places = |(origin, places): (Origin, Vec<GroupPlace>)| {
        (origin, write_groups(&tag, &places, &mut file))
    };
    let groups = groups.into_iter().map(places).collect();
    let filter = filter::build(&filter_keys(&streams, names));
    let filter = filter.iter().map(|page| tag.seal_block(&mut file, page)).collect();
    let directory = Directory { start, end, entries, streams: blocks, groups, filter };
    let mut bytes = Vec::new();
    directory.encode(&mut bytes);
    let offset = u32::try_from(file.len()).expect("an index file is below 4 GiB");
    let header = Header {
        tag,
        end_entry: entry_range.end,
        directory: BlockAt { offset, len: bytes.len() as u32 },
        directory_check: tag.check(u64::from(offset), &bytes),
    };
    file.put(&bytes);
    file[..HEADER_BYTES].copy_from_slice(&header.encode());
    file
}

/// Distinct keys of everything that can be looked for with a filter: of `streams`, which are sorted, and
/// of other names.
fn filter_keys(streams: &[StreamRow], names: BTreeSet<u64>) -> Vec<u64> {
    let mut keys = Vec::with_capacity(streams.len() + names.len());
    for row in streams {
        if keys.last() != Some(&row.hash) {
            keys.push(row.hash);
        }
    }
    let new = |name: &u64| streams.binary_search_by_key(name, |row| row.hash).is_err();
    keys.extend(names.into_iter().filter(new));
    keys
}

impl Directory {
    fn encode(&self, out: &mut Vec<u8>) {
        self.start.encode(out);
        self.end.encode(out);
        out.put_varint(self.entries.len() as u64);
        for block in &self.entries {
            out.put_varint(block.entry);
            out.put_varint(block.position);
            out.put_u64(block.time_max.0);
            block.at.encode(out);
        }
        out.put_varint(self.streams.len() as u64);
        for block in &self.streams {
            out.put_u64(block.first.hash);
            out.put_varint(block.first.revision);
            out.put_varint(block.first.position);
            block.at.encode(out);
        }
        out.put_varint(self.groups.len() as u64);
        for (origin, blocks) in &self.groups {
            origin.encode(out);
            out.put_varint(blocks.len() as u64);
            for block in blocks {
                out.put_varint(block.first.0);
                block.at.encode(out);
            }
        }
        out.put_varint(self.filter.len() as u64);
        self.filter.iter().for_each(|at| at.encode(out));
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let r = &mut reader;
        let directory = Self {
            start: Frontier::decode(r)?,
            end: Frontier::decode(r)?,
            entries: list(r, "entry blocks", 18, |r| {
                let (entry, position) = (r.varint("entry")?, r.varint("position")?);
                let time_max = Stamp(r.u64("time")?);
                Ok(EntryBlock { entry, position, time_max, at: BlockAt::decode(r)? })
            })?,
            streams: list(r, "stream blocks", 18, |r| {
                let hash = r.u64("stream hash")?;
                let (revision, position) = (r.varint("revision")?, r.varint("position")?);
                let first = StreamRow { hash, revision, position };
                Ok(StreamBlock { first, at: BlockAt::decode(r)? })
            })?,
            groups: list(r, "origins", Origin::ENCODED_MIN + 1, |r| {
                let origin = Origin::decode(r)?;
                let blocks = list(r, "group blocks", 9, |r| {
                    Ok(GroupBlock { first: Seq(r.varint("seq")?), at: BlockAt::decode(r)? })
                })?;
                Ok((origin, blocks))
            })?,
            filter: list(r, "filter pages", 8, BlockAt::decode)?,
        };
        reader.finish("index directory")?;
        Ok(directory)
    }
}

fn list<T>(
    reader: &mut Reader,
    what: &'static str,
    each: usize,
    mut item: impl FnMut(&mut Reader) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let count = reader.count(what, each)?;
    (0..count).map(|_| item(reader)).collect()
}
