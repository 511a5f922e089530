//! Stream heads: of every stream its next revision, last position and fingerprint.

mod rows;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};

use hashbrown::HashTable;

use super::Refused;
use super::fingerprint::{Fingerprint, bucket_of};
pub(super) use rows::Rows;

/// Where a stream stands in this region's order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Head {
    /// Revision that its next event gets; the number of its events.
    pub next_revision: u64,
    /// Position of its last event.
    pub last_position: u64,
    /// Sum of its events' fingerprints: equal sets of events, equal sums.
    pub fingerprint: Fingerprint,
}

/// Where a stream is in the table. Holds until the stream is given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Place(u32);

/// Looked up by name. Gone through in the order in which streams began: the same on every node.
#[derive(Debug, Clone, Default)]
pub(super) struct Streams {
    rows: Rows,
    /// Numbers of rows, by the hash of the name.
    numbers: HashTable<u32>,
    /// Names are chosen by clients, so nobody may know which of them have equal hashes.
    hasher: RandomState,
}

impl Streams {
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn head(&self, stream: &str) -> Option<Head> {
        self.find(stream, self.hash(stream)).map(|nth| *self.rows.head(nth))
    }

    /// Takes the named revisions if each is the next of its stream, and says where the streams are; else
    /// takes none.
    pub(super) fn claim<'a>(
        &mut self,
        events: impl Iterator<Item = (&'a str, u64)>,
    ) -> Result<Vec<Place>, Refused> {
        let mut claimed: Vec<Place> = Vec::with_capacity(events.size_hint().0);
        let mut before = None;
        for (stream, found) in events {
            let place = match before {
                Some((name, place)) if name == stream => place,
                _ => self.find_or_begin(stream),
            };
            before = Some((stream, place));
            let expected = self.rows.head(place.0).next_revision;
            if found != expected {
                self.end_if_empty(place);
                claimed.into_iter().rev().for_each(|place| self.give_back(place));
                return Err(Refused::Numbers { what: "revision", found, expected });
            }
            self.rows.head_mut(place.0).next_revision += 1;
            claimed.push(place);
        }
        Ok(claimed)
    }

    /// Undoes a claim. Claims are undone last first.
    fn give_back(&mut self, place: Place) {
        self.rows.head_mut(place.0).next_revision -= 1;
        self.end_if_empty(place);
    }

    /// A stream without events is none. Only the last one to begin can be without.
    fn end_if_empty(&mut self, Place(nth): Place) {
        if self.rows.head(nth).next_revision > 0 {
            return;
        }
        assert_eq!(nth as usize + 1, self.rows.len(), "streams end in turn");
        let hash = spread(self.rows.hash(nth));
        let entry = self.numbers.find_entry(hash, |other| *other == nth);
        entry.expect("a row has its entry").remove();
        self.rows.pop();
    }

    /// Notes one event whose revision was claimed.
    pub(super) fn record(&mut self, place: Place, position: u64, print: Fingerprint) {
        let head = self.rows.head_mut(place.0);
        head.last_position = position;
        head.fingerprint = head.fingerprint.plus(print);
    }

    pub(super) fn of_bucket(&self, bucket: usize) -> Vec<(&str, Head)> {
        let of_bucket = self.rows.iter().filter(|(stream, _)| bucket_of(stream) == bucket);
        let mut streams: Vec<_> = of_bucket.map(|(stream, head)| (stream, *head)).collect();
        streams.sort_unstable_by_key(|(stream, _)| *stream);
        streams
    }

    /// All streams, in the order in which they began; to be kept while this changes.
    pub(super) fn rows(&self) -> Rows {
        self.rows.clone()
    }

    pub(super) fn restore(&mut self, stream: &str, head: Head) {
        let place = self.find_or_begin(stream);
        *self.rows.head_mut(place.0) = head;
    }

    fn find_or_begin(&mut self, stream: &str) -> Place {
        let hash = self.hash(stream);
        if let Some(nth) = self.find(stream, hash) {
            return Place(nth);
        }
        let nth = self.rows.push(stream, hash, Head::default());
        let rows = &self.rows;
        self.numbers.insert_unique(spread(hash), nth, |nth| spread(rows.hash(*nth)));
        Place(nth)
    }

    fn find(&self, stream: &str, hash: u32) -> Option<u32> {
        self.numbers.find(spread(hash), |nth| self.rows.is_of(*nth, stream, hash)).copied()
    }

    fn hash(&self, stream: &str) -> u32 {
        (self.hasher.hash_one(stream) >> 32) as u32
    }
}

/// Over all 64 bits: the table takes some from either end.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl PartialEq for Streams {
    fn eq(&self, other: &Self) -> bool {
        let has = |(stream, head): (&str, &Head)| other.head(stream) == Some(*head);
        self.len() == other.len() && self.rows.iter().all(has)
    }
}

impl Eq for Streams {}

/// Last revision of each stream of a request, in the order in which the request first names them. `S` says
/// which stream.
pub(crate) struct LastRevisions<S> {
    streams: Vec<(S, u64)>,
    nth: HashMap<S, usize>,
}

impl<S: Copy + Eq + Hash> LastRevisions<S> {
    pub(crate) fn new() -> Self {
        Self { streams: Vec::new(), nth: HashMap::new() }
    }

    pub(crate) fn note(&mut self, stream: S, revision: u64) {
        if let Some(last) = self.streams.last_mut().filter(|(last, _)| *last == stream) {
            last.1 = revision;
            return;
        }
        let next = self.streams.len();
        let nth = *self.nth.entry(stream).or_insert(next);
        if nth == next {
            self.streams.push((stream, revision));
        } else {
            self.streams[nth].1 = revision;
        }
    }

    pub(crate) fn into_boxed(self) -> Box<[u64]> {
        self.streams.into_iter().map(|(_, revision)| revision).collect()
    }
}
