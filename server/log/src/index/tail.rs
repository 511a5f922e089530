//! The part of the index that is not in a file yet.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use anabranch_core::{Command, Origin, Seq};

use super::frontier::Frontier;
use super::place::{Direction, EntryPlace, GroupPlace, StreamPlace, StreamSeek};
use super::rows::{NameHash, Rows, groups_from};

/// Rows of the newest entries, with the events of each stream found by its hash.
pub(crate) struct Tail {
    pub(crate) rows: Rows,
    /// The log's frontier after the last row.
    pub(crate) frontier: Frontier,
    /// One past the last entry that was looked at, accepted or not.
    pub(crate) end_entry: u64,
    /// Of each stream hash: which of `rows.events`, ordered by revision, then position.
    streams: HashMap<u64, Events>,
    hash: NameHash,
}

/// Events of one stream. Most streams have one event among so few, which then needs no list.
enum Events {
    One(u32),
    Many(Vec<u32>),
}

impl Events {
    fn as_slice(&self) -> &[u32] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(events) => events,
        }
    }

    fn insert(&mut self, place: usize, nth: u32) {
        if let Self::One(one) = *self {
            *self = Self::Many(vec![one]);
        }
        if let Self::Many(events) = self {
            events.insert(place, nth);
        }
    }
}

impl Tail {
    pub(crate) fn new(rows: Rows, end_entry: u64, hash: NameHash) -> Self {
        let frontier = rows.end();
        let mut tail = Self { rows, frontier, end_entry, streams: HashMap::new(), hash };
        tail.index_events(0);
        tail
    }

    /// Adds an accepted command.
    ///
    /// # Panics
    /// If it does not continue the log's numbers.
    pub(crate) fn push(&mut self, entry: u64, command: &Command) {
        assert!(entry >= self.end_entry, "entry {entry} comes before {}", self.end_entry);
        self.frontier.advance(command);
        let indexed = self.rows.events.len();
        self.rows.push(entry, command, self.hash);
        self.index_events(indexed);
        self.end_entry = entry + 1;
    }

    /// Drops the rows of entries before `end`, where the log was at `start`.
    pub(crate) fn drop_before(&mut self, end: u64, start: Frontier) {
        self.rows.drop_before(end, start);
        self.streams = HashMap::new();
        self.index_events(0);
    }

    fn index_events(&mut self, from: usize) {
        let rows = &self.rows.events;
        for (nth, row) in rows.iter().enumerate().skip(from) {
            let nth = nth as u32;
            let after = |other: &u32| rows[*other as usize].revision <= row.revision;
            match self.streams.entry(row.stream) {
                Entry::Vacant(first) => drop(first.insert(Events::One(nth))),
                Entry::Occupied(mut events) => {
                    // Nearly always the end: only names with colliding hashes come out of order.
                    let known = events.get().as_slice();
                    let is_last = known.last().is_none_or(after);
                    let place = if is_last { known.len() } else { known.partition_point(after) };
                    events.get_mut().insert(place, nth);
                }
            }
        }
    }

    /// The entries with events, from the one that holds `from`.
    pub(crate) fn entries(&self, from: u64, direction: Direction, limit: usize) -> Vec<EntryPlace> {
        let entries = &self.rows.entries;
        match direction {
            Direction::Forward => {
                let start = entries.partition_point(|place| place.end_position() <= from);
                entries[start..].iter().take(limit).copied().collect()
            }
            Direction::Backward => {
                let end = entries.partition_point(|place| place.position <= from);
                entries[..end].iter().rev().take(limit).copied().collect()
            }
        }
    }

    /// Places of a stream hash in the direction asked for; at most `limit`.
    pub(crate) fn stream(
        &self,
        seek: &StreamSeek,
        direction: Direction,
        limit: usize,
    ) -> Vec<StreamPlace> {
        let Some(events) = self.streams.get(&seek.hash).map(Events::as_slice) else {
            return Vec::new();
        };
        let start = self.rows.start.next_position;
        let place = |nth: &u32| {
            let position = start + u64::from(*nth);
            let entry = self.rows.entry_at(position).entry;
            StreamPlace { revision: self.rows.events[*nth as usize].revision, position, entry }
        };
        let key = |nth: &u32| (self.rows.events[*nth as usize].revision, start + u64::from(*nth));
        let bound = seek.bound(&(start..self.rows.end_position()));
        match direction {
            Direction::Forward => {
                let first = events.partition_point(|nth| match bound {
                    Some(bound) => key(nth) <= bound,
                    None => key(nth).0 < seek.revision,
                });
                events[first..].iter().take(limit).map(place).collect()
            }
            Direction::Backward => {
                let end = events.partition_point(|nth| match bound {
                    Some(bound) => key(nth) < bound,
                    None => key(nth).0 <= seek.revision,
                });
                events[..end].iter().rev().take(limit).map(place).collect()
            }
        }
    }

    /// Groups of `origin` from the one that contains `from`; at most `limit`.
    pub(crate) fn groups(&self, origin: &Origin, from: Seq, limit: usize) -> Vec<GroupPlace> {
        self.rows.groups.get(origin).map_or(Vec::new(), |places| groups_from(places, from, limit))
    }
}
