//! The tables of an index file: how rows become blocks and come back.
//!
//! Each table is a run of blocks with its first keys in the directory. Rows are coded as differences
//! from the row before; the first row of a block starts from what the directory says, or from zero.

use anabranch_core::codec::{DecodeError, Put, Reader};
use anabranch_core::{Chain, Seq, Stamp};

use super::block::{BLOCK_BYTES, BlockAt, FileTag, unzigzag, zigzag};
use super::place::{EntryPlace, GroupPlace};

/// Rows of entries in a block, and of groups.
const ENTRY_ROWS: usize = 128;
const GROUP_ROWS: usize = 64;
/// Events in one run of a stream; bounds the size of a block.
const RUN_EVENTS: usize = 512;

/// A block of the table of entries.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EntryBlock {
    pub(crate) entry: u64,
    pub(crate) position: u64,
    /// Greatest stamp of the segment up to the end of this block.
    pub(crate) time_max: Stamp,
    pub(crate) at: BlockAt,
}

/// An event in the table of streams, which is sorted like this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct StreamRow {
    pub(crate) hash: u64,
    pub(crate) revision: u64,
    pub(crate) position: u64,
}

/// A block of the table of streams.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StreamBlock {
    pub(crate) first: StreamRow,
    pub(crate) at: BlockAt,
}

/// A block of the table of an origin's groups.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GroupBlock {
    pub(crate) first: Seq,
    pub(crate) at: BlockAt,
}

pub(crate) fn write_entries(
    tag: &FileTag,
    rows: &[EntryPlace],
    file: &mut Vec<u8>,
) -> Vec<EntryBlock> {
    let mut time_max = Stamp::ZERO;
    let mut blocks = Vec::new();
    for rows in rows.chunks(ENTRY_ROWS) {
        let mut content = Vec::with_capacity(ENTRY_ROWS * 8);
        content.put_varint(rows.len() as u64);
        let (mut entry, mut time) = (rows[0].entry, 0);
        for row in rows {
            content.put_varint(row.entry - entry);
            content.put_varint(u64::from(row.events));
            content.put_varint(zigzag(time, row.time.0));
            (entry, time) = (row.entry, row.time.0);
            time_max = time_max.max(row.time);
        }
        let at = tag.seal_block(file, &content);
        blocks.push(EntryBlock { entry: rows[0].entry, position: rows[0].position, time_max, at });
    }
    blocks
}

pub(crate) fn read_entries(
    block: &EntryBlock,
    reader: &mut Reader,
) -> Result<Vec<EntryPlace>, DecodeError> {
    let count = reader.count("entries", 3)?;
    let (mut entry, mut position, mut time) = (block.entry, block.position, 0);
    let mut rows = Vec::with_capacity(count);
    for _ in 0..count {
        entry += reader.varint("entry")?;
        let events = reader.varint("events")? as u32;
        time = unzigzag(time, reader.varint("time")?);
        rows.push(EntryPlace { entry, position, events, time: Stamp(time) });
        position += u64::from(events);
    }
    Ok(rows)
}

/// `rows` are sorted; `base` is at or before the least position in them.
pub(crate) fn write_streams(
    tag: &FileTag,
    base: u64,
    rows: &[StreamRow],
    file: &mut Vec<u8>,
) -> Vec<StreamBlock> {
    let mut blocks = Vec::new();
    let mut content = Vec::with_capacity(BLOCK_BYTES * 2);
    let (mut first, mut hash, mut rest) = (None, 0, rows);
    while let Some(row) = rest.first() {
        let (run, later) = rest.split_at(run_len(rest));
        rest = later;
        first.get_or_insert(*row);
        content.put_varint(row.hash - hash);
        hash = row.hash;
        write_run(base, run, &mut content);
        if content.len() >= BLOCK_BYTES || rest.is_empty() {
            let first = first.take().expect("set with the block's first run");
            blocks.push(StreamBlock { first, at: tag.seal_block(file, &content) });
            content.clear();
            hash = 0;
        }
    }
    blocks
}

/// Rows of one stream follow each other with dense revisions at rising positions. Streams whose
/// hashes collide interleave, and then make a run of every stretch where that still holds.
fn run_len(rows: &[StreamRow]) -> usize {
    let dense = |pair: &&[StreamRow]| {
        pair[0].hash == pair[1].hash
            && pair[0].revision + 1 == pair[1].revision
            && pair[0].position < pair[1].position
    };
    1 + rows.windows(2).take(RUN_EVENTS - 1).take_while(dense).count()
}

fn write_run(base: u64, run: &[StreamRow], content: &mut Vec<u8>) {
    content.put_varint(run[0].revision);
    content.put_varint(run.len() as u64);
    content.put_varint(run[0].position - base);
    for pair in run.windows(2) {
        content.put_varint(pair[1].position - pair[0].position);
    }
}

/// Appends the rows of `hash` in a block to `out`, in order.
pub(crate) fn read_streams(
    hash: u64,
    base: u64,
    reader: &mut Reader,
    out: &mut Vec<StreamRow>,
) -> Result<(), DecodeError> {
    let mut run_hash = 0u64;
    while !reader.is_empty() {
        run_hash = run_hash.wrapping_add(reader.varint("stream hash")?);
        let first = reader.varint("revision")?;
        let count = reader.varint("run length")?;
        let mut position = base;
        for revision in first..first.saturating_add(count) {
            position += reader.varint("position")?;
            if run_hash == hash {
                out.push(StreamRow { hash, revision, position });
            }
        }
        if run_hash > hash {
            return Ok(());
        }
    }
    Ok(())
}

pub(crate) fn write_groups(
    tag: &FileTag,
    rows: &[GroupPlace],
    file: &mut Vec<u8>,
) -> Vec<GroupBlock> {
    let mut blocks = Vec::new();
    for rows in rows.chunks(GROUP_ROWS) {
        let mut content = Vec::with_capacity(GROUP_ROWS * 32);
        content.put_varint(rows.len() as u64);
        let (mut entry, mut stamp) = (0, 0);
        for row in rows {
            content.put_varint(row.entry - entry);
            content.put_varint(u64::from(row.ordinal));
            content.put_varint(row.last.0 - row.first.0);
            content.put_varint(zigzag(stamp, row.stamp.0));
            content.put_varint(u64::from(row.bytes));
            content.put(&row.chain.0);
            (entry, stamp) = (row.entry, row.stamp.0);
        }
        blocks.push(GroupBlock { first: rows[0].first, at: tag.seal_block(file, &content) });
    }
    blocks
}

pub(crate) fn read_groups(
    block: &GroupBlock,
    reader: &mut Reader,
) -> Result<Vec<GroupPlace>, DecodeError> {
    let count = reader.count("groups", 21)?;
    let (mut entry, mut stamp, mut first) = (0, 0, block.first);
    let mut rows = Vec::with_capacity(count);
    for _ in 0..count {
        entry += reader.varint("entry")?;
        let ordinal = reader.varint("ordinal")? as u32;
        let last = first.plus(reader.varint("events")?);
        stamp = unzigzag(stamp, reader.varint("stamp")?);
        let bytes = reader.varint("bytes")? as u32;
        let chain = Chain(reader.array("chain")?);
        rows.push(GroupPlace { entry, ordinal, first, last, stamp: Stamp(stamp), chain, bytes });
        first = last.next();
    }
    Ok(rows)
}
