//! What is known of a run of entries, in the order of the log: the input of an index file.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use anabranch_core::{Command, Origin, Seq, Stamp, event};

use super::frontier::{Frontier, Head, raised_to};
use super::place::{EntryPlace, GroupPlace, Wanted};
use super::tables::StreamRow;

/// Hash of a name. A parameter, so that tests can make names collide.
pub(crate) type NameHash = fn(&str) -> u64;

/// The hash used outside tests. Index files depend on it: a change needs a new file version.
pub(crate) fn name_hash(name: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(name.as_bytes())
}

/// Key of a wanted name in filters. Streams, categories and types do not share keys.
pub(crate) fn filter_key(wanted: Wanted<'_>, hash: NameHash) -> u64 {
    match wanted {
        Wanted::Stream(name) => hash(name),
        Wanted::Category(name) => hash(name) ^ 0x9e37_79b9_7f4a_7c15,
        Wanted::Kind(name) => hash(name) ^ 0xc2b2_ae3d_27d4_eb4f,
    }
}

/// What an index file is made of: rows up to the end of a segment, apart from those that come after.
pub(crate) struct SegmentRows {
    /// The frontier before the first row, and after the last.
    pub(crate) start: Frontier,
    pub(crate) end: Frontier,
    /// The first entry the rows speak of, and one past the last.
    pub(crate) entry_range: Range<u64>,
    pub(crate) entries: Vec<EntryPlace>,
    /// Not sorted yet.
    pub(crate) streams: Vec<StreamRow>,
    /// Distinct keys in filters of categories and types.
    pub(crate) names: BTreeSet<u64>,
    pub(crate) groups: Vec<(Origin, Vec<GroupPlace>)>,
}

/// An event; its position is the start of its rows plus its place in them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EventRow {
    pub(crate) stream: u64,
    pub(crate) revision: u64,
    category: u64,
    kind: u64,
}

/// Rows of the accepted commands of the entries from `first_entry`.
#[derive(Debug, Clone)]
pub(crate) struct Rows {
    /// The frontier before the first row.
    pub(crate) start: Frontier,
    /// The first entry the rows speak of.
    pub(crate) first_entry: u64,
    pub(crate) entries: Vec<EntryPlace>,
    pub(crate) events: Vec<EventRow>,
    pub(crate) groups: BTreeMap<Origin, Vec<GroupPlace>>,
    /// Stamps that commands without events raised the log's last stamp to.
    promises: Vec<(u64, Stamp)>,
}

impl Rows {
    pub(crate) fn new(start: Frontier, first_entry: u64) -> Self {
        Self {
            start,
            first_entry,
            entries: Vec::new(),
            events: Vec::new(),
            groups: BTreeMap::new(),
            promises: Vec::new(),
        }
    }

    /// Adds an accepted command.
    pub(crate) fn push(&mut self, entry: u64, command: &Command, hash: NameHash) {
        let time = raised_to(command);
        let Some(position) = command.position() else {
            if time > Stamp::ZERO {
                self.promises.push((entry, time));
            }
            return;
        };
        let events = command.events() as u32;
        self.entries.push(EntryPlace { entry, position, events, time });
        for (ordinal, placed) in command.groups().iter().enumerate() {
            let group = &placed.group;
            let place = GroupPlace {
                entry,
                ordinal: ordinal as u32,
                first: group.first(),
                last: group.last(),
                stamp: group.stamp(),
                chain: group.chain(),
                bytes: group.encoded().len() as u32,
            };
            match self.groups.get_mut(group.origin()) {
                Some(places) => places.push(place),
                None => {
                    self.groups.insert(group.origin().clone(), vec![place]);
                }
            }
            let requests = group.look();
            let events = requests.iter().flat_map(|request| &request.events);
            for (event, revision) in events.zip(&placed.revisions) {
                self.events.push(EventRow {
                    stream: filter_key(Wanted::Stream(event.stream), hash),
                    revision: *revision,
                    category: filter_key(Wanted::Category(event::category(event.stream)), hash),
                    kind: filter_key(Wanted::Kind(event.kind), hash),
                });
            }
        }
    }

    /// One past the last position.
    pub(crate) fn end_position(&self) -> u64 {
        self.start.next_position + self.events.len() as u64
    }

    /// What the index file of the entries before `end` is made of.
    pub(crate) fn of_segment(&self, end: u64) -> SegmentRows {
        let entries = self.entries[..self.entries_before(end)].to_vec();
        let start = self.start.next_position;
        let next_position = entries.last().map_or(start, EntryPlace::end_position);
        let events = &self.events[..(next_position - start) as usize];
        let row = |(position, row): (u64, &EventRow)| StreamRow {
            hash: row.stream,
            revision: row.revision,
            position,
        };
        let streams = (start..).zip(events).map(row).collect();
        let (mut names, mut last) = (BTreeSet::new(), None);
        for row in events {
            // Nearly all are like the one before.
            if last != Some((row.category, row.kind)) {
                last = Some((row.category, row.kind));
                names.extend([row.category, row.kind]);
            }
        }
        let groups = self.groups.iter().map(|(origin, places)| {
            let count = places.partition_point(|place| place.entry < end);
            (origin.clone(), places[..count].to_vec())
        });
        let groups: Vec<_> = groups.filter(|(_, places)| !places.is_empty()).collect();
        let heads = groups.iter().filter_map(|(origin, places)| Some((origin, places.last()?)));
        let promises = &self.promises[..self.promises_before(end)];
        SegmentRows {
            start: self.start.clone(),
            end: self.frontier(next_position, heads, &entries, promises),
            entry_range: self.first_entry..end,
            entries,
            streams,
            names,
            groups,
        }
    }

    /// Drops the rows of entries before `end`, where the log was at `start`.
    pub(crate) fn drop_before(&mut self, end: u64, start: Frontier) {
        let events = start.next_position - self.start.next_position;
        self.entries.drain(..self.entries_before(end));
        self.events.drain(..events as usize);
        self.promises.drain(..self.promises_before(end));
        for places in self.groups.values_mut() {
            let count = places.partition_point(|place| place.entry < end);
            places.drain(..count);
        }
        self.groups.retain(|_, places| !places.is_empty());
        self.first_entry = end;
        self.start = start;
    }

    /// The frontier after the last row.
    pub(crate) fn end(&self) -> Frontier {
        let heads =
            self.groups.iter().filter_map(|(origin, places)| Some((origin, places.last()?)));
        self.frontier(self.end_position(), heads, &self.entries, &self.promises)
    }

    /// The frontier after some of the rows, of which these are the last groups.
    fn frontier<'a>(
        &self,
        next_position: u64,
        heads: impl Iterator<Item = (&'a Origin, &'a GroupPlace)>,
        entries: &[EntryPlace],
        promises: &[(u64, Stamp)],
    ) -> Frontier {
        let mut end = self.start.clone();
        end.next_position = next_position;
        for (origin, last) in heads {
            let next = last.last.next();
            end.place_head(origin, Head { next, chain: last.chain });
        }
        let events = entries.iter().map(|entry| entry.time);
        let promises = promises.iter().map(|(_, stamp)| *stamp);
        end.stamp = events.chain(promises).fold(end.stamp, Stamp::max);
        end
    }

    /// How many events from `from` on have none of `keys`; at most `limit`.
    pub(crate) fn without(&self, from: u64, keys: &[u64], limit: usize) -> u64 {
        let Some(first) = from.checked_sub(self.start.next_position) else { return 0 };
        let rows = self.events.get(first as usize..).unwrap_or_default();
        let has = |row: &EventRow| {
            keys.iter().any(|key| [row.stream, row.category, row.kind].contains(key))
        };
        rows.iter().take(limit).take_while(|row| !has(row)).count() as u64
    }

    /// The entry that holds `position`, which must be among the rows.
    pub(crate) fn entry_at(&self, position: u64) -> EntryPlace {
        let after = self.entries.partition_point(|place| place.position <= position);
        self.entries[after - 1]
    }

    fn entries_before(&self, end: u64) -> usize {
        self.entries.partition_point(|place| place.entry < end)
    }

    fn promises_before(&self, end: u64) -> usize {
        self.promises.partition_point(|(entry, _)| *entry < end)
    }
}

/// Groups of `places`, dense, from the one that contains `from`; at most `limit`.
pub(crate) fn groups_from(places: &[GroupPlace], from: Seq, limit: usize) -> Vec<GroupPlace> {
    let start = places.partition_point(|place| place.last < from);
    places[start..].iter().take(limit).copied().collect()
}
