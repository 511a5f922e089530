//! What is known of a run of entries, in the order of the log: the input of an index file.

use std::collections::BTreeMap;

use anabranch_core::{Command, Origin, Seq, Stamp, event};

use super::frontier::{Frontier, Head, raised_to};
use super::place::{EntryPlace, GroupPlace, Wanted};

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

    /// The rows of entries before `end`.
    pub(crate) fn before(&self, end: u64) -> Self {
        let entries = self.entries[..self.entries_before(end)].to_vec();
        let events = entries.last().map_or(self.start.next_position, EntryPlace::end_position)
            - self.start.next_position;
        let groups = self.groups.iter().map(|(origin, places)| {
            let count = places.partition_point(|place| place.entry < end);
            (origin.clone(), places[..count].to_vec())
        });
        Self {
            start: self.start.clone(),
            first_entry: self.first_entry,
            entries,
            events: self.events[..events as usize].to_vec(),
            groups: groups.filter(|(_, places)| !places.is_empty()).collect(),
            promises: self.promises[..self.promises_before(end)].to_vec(),
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
        let mut end = self.start.clone();
        end.next_position = self.end_position();
        for (origin, places) in &self.groups {
            if let Some(last) = places.last() {
                let next = last.last.next();
                end.place_head(origin, Head { next, chain: last.chain });
            }
        }
        let events = self.entries.iter().map(|entry| entry.time);
        let promises = self.promises.iter().map(|(_, stamp)| *stamp);
        end.stamp = events.chain(promises).fold(end.stamp, Stamp::max);
        end
    }

    /// Distinct keys of everything that can be looked for with a filter.
    pub(crate) fn filter_keys(&self) -> Vec<u64> {
        let keys = self.events.iter().flat_map(|row| [row.stream, row.category, row.kind]);
        let mut keys: Vec<u64> = keys.collect();
        keys.sort_unstable();
        keys.dedup();
        keys
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
