//! What the index answers: places of things in the log.

use anabranch_core::{Chain, Seq, Stamp};

/// Which way to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From older to newer.
    Forward,
    /// From newer to older.
    Backward,
}

/// An entry of the log that holds events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryPlace {
    /// Index of the entry.
    pub entry: u64,
    /// Regional position of its first event.
    pub position: u64,
    /// Number of events in it.
    pub events: u32,
    /// Greatest stamp of its groups.
    pub time: Stamp,
}

impl EntryPlace {
    /// One past the position of its last event.
    pub fn end_position(&self) -> u64 {
        self.position + u64::from(self.events)
    }
}

/// An event of some stream whose name has the hash that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamPlace {
    /// Its revision in its stream.
    pub revision: u64,
    /// Its regional position.
    pub position: u64,
    /// Index of the entry that holds it.
    pub entry: u64,
}

/// A group of some origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupPlace {
    /// Index of the entry that holds it.
    pub entry: u64,
    /// Which of the entry's groups it is, from 0.
    pub ordinal: u32,
    /// Number of its first event.
    pub first: Seq,
    /// Number of its last event.
    pub last: Seq,
    /// Its stamp.
    pub stamp: Stamp,
    /// Chain hash after it.
    pub chain: Chain,
    /// Length of its encoding.
    pub bytes: u32,
}

/// A name to look for in a scan that skips what cannot hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// Events of this stream.
    Stream(&'a str),
    /// Events of the streams of this category.
    Category(&'a str),
    /// Events of this type.
    Kind(&'a str),
}

/// Where to go on with the places of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamSeek {
    /// Hash of the stream's name.
    pub(crate) hash: u64,
    /// Least revision (forward) or greatest revision (backward) of interest.
    pub(crate) revision: u64,
    /// The place delivered last, if any. Places are ordered by part of the log, then by revision,
    /// then by position: the order of the events for any one stream, whatever else shares its hash.
    pub(crate) after: Option<StreamPlace>,
}

impl StreamSeek {
    /// Key (revision, position) beyond which the places of one part are wanted: not included.
    /// `part` are the positions the part holds.
    pub(crate) fn bound(&self, part: &std::ops::Range<u64>) -> Option<(u64, u64)> {
        let after = self.after.filter(|place| part.contains(&place.position))?;
        Some((after.revision, after.position))
    }
}
