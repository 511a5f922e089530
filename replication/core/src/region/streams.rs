//! Stream heads: of every stream its next revision, last position and fingerprint.

use std::collections::HashMap;

use super::Refused;
use super::fingerprint::{Fingerprint, bucket_of};

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

/// Looked up by name only; wherever the order could be seen, names are sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Streams {
    heads: HashMap<Box<str>, Head>,
}

impl Streams {
    pub(super) fn len(&self) -> usize {
        self.heads.len()
    }

    pub(super) fn head(&self, stream: &str) -> Option<Head> {
        self.heads.get(stream).copied()
    }

    /// Takes the named revisions if each is the next of its stream; else takes none.
    pub(super) fn claim<'a>(
        &mut self,
        events: impl Iterator<Item = (&'a str, u64)> + Clone,
    ) -> Result<(), Refused> {
        for (taken, (stream, found)) in events.clone().enumerate() {
            let head = self.heads.get_mut(stream);
            let expected = head.as_ref().map_or(0, |head| head.next_revision);
            if found != expected {
                events.take(taken).for_each(|(stream, _)| self.give_back(stream));
                return Err(Refused::Numbers { what: "revision", found, expected });
            }
            match head {
                Some(head) => head.next_revision += 1,
                None => {
                    self.heads.insert(stream.into(), Head { next_revision: 1, ..Head::default() });
                }
            }
        }
        Ok(())
    }

    fn give_back(&mut self, stream: &str) {
        let head = self.heads.get_mut(stream).expect("claimed just now");
        head.next_revision -= 1;
        if head.next_revision == 0 {
            self.heads.remove(stream);
        }
    }

    /// Notes one event whose revision was claimed.
    pub(super) fn record(&mut self, stream: &str, position: u64, print: Fingerprint) {
        let head = self.heads.get_mut(stream).expect("its revision was claimed");
        head.last_position = position;
        head.fingerprint = head.fingerprint.plus(print);
    }

    pub(super) fn of_bucket(&self, bucket: usize) -> Vec<(&str, Head)> {
        let mut streams: Vec<_> = self
            .heads
            .iter()
            .filter(|(stream, _)| bucket_of(stream) == bucket)
            .map(|(stream, head)| (&**stream, *head))
            .collect();
        streams.sort_unstable_by_key(|(stream, _)| *stream);
        streams
    }

    pub(super) fn sorted(&self) -> Vec<(&str, Head)> {
        let mut streams: Vec<_> = self.heads.iter().map(|(s, head)| (&**s, *head)).collect();
        streams.sort_unstable_by_key(|(stream, _)| *stream);
        streams
    }

    pub(super) fn restore(&mut self, stream: &str, head: Head) {
        self.heads.insert(stream.into(), head);
    }
}

/// Last revision of each stream of a request, in the order in which the request first names them.
#[derive(Default)]
pub(super) struct LastRevisions<'a> {
    streams: Vec<(&'a str, u64)>,
    places: HashMap<&'a str, usize>,
}

impl<'a> LastRevisions<'a> {
    pub(super) fn note(&mut self, stream: &'a str, revision: u64) {
        if let Some(last) = self.streams.last_mut().filter(|(name, _)| *name == stream) {
            last.1 = revision;
            return;
        }
        let next = self.streams.len();
        let place = *self.places.entry(stream).or_insert(next);
        if place == next {
            self.streams.push((stream, revision));
        } else {
            self.streams[place].1 = revision;
        }
    }

    pub(super) fn into_boxed(self) -> Box<[u64]> {
        self.streams.into_iter().map(|(_, revision)| revision).collect()
    }
}
