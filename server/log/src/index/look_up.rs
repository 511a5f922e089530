//! Look-ups: each walks from part to part of the log until it has what was asked for.

use std::sync::Arc;

use anabranch_core::{Origin, Seq, Stamp};

use super::place::{Direction, EntryPlace, GroupPlace, StreamPlace, StreamSeek, Wanted};
use super::rows::filter_key;
use super::sealed::SealedPart;
use super::tail::Tail;
use super::{EventIndex, IndexError};

/// One step of a look-up: the part of the log that holds the wanted place.
enum Step<T> {
    Sealed(Arc<SealedPart>),
    Done(T),
}

impl EventIndex {
    /// Entries with events, from the one that holds the event at `from`: to newer ones, or to older.
    ///
    /// Shape: at most `limit`, at least one if there is any. Forward from beyond the end is empty;
    /// backward from there starts at the newest.
    pub fn entries(
        &self,
        from: u64,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<EntryPlace>, IndexError> {
        let mut found: Vec<EntryPlace> = Vec::new();
        let mut from = from;
        while found.len() < limit {
            let left = limit - found.len();
            let step = self.at(from, direction, |tail| tail.entries(from, direction, left));
            let part = match step {
                Step::Sealed(part) => part,
                Step::Done(rows) => {
                    found.extend(rows);
                    if direction == Direction::Forward {
                        break;
                    }
                    match found.last().and_then(|place| place.position.checked_sub(1)) {
                        Some(before) => from = before,
                        None => break,
                    }
                    continue;
                }
            };
            found.extend(part.entries(from, direction, left)?);
            match (direction, part.positions().start.checked_sub(1)) {
                (Direction::Forward, _) => from = part.positions().end,
                (Direction::Backward, Some(before)) => from = before,
                (Direction::Backward, None) => break,
            }
        }
        Ok(found)
    }

    /// The entry that holds the event at `position`, if there is one.
    pub fn entry_of(&self, position: u64) -> Result<Option<EntryPlace>, IndexError> {
        Ok(self.entries(position, Direction::Forward, 1)?.into_iter().next())
    }

    /// Places of the events of `stream`, **and of any stream whose name has the same hash**: compare
    /// names when reading. Those of one stream are in the order asked for.
    ///
    /// Shape: revisions from `from_revision` on, upwards or downwards, at most `limit`. If some turn
    /// out to be another stream's, go on with [`stream_places_after`](Self::stream_places_after).
    pub fn stream_places(
        &self,
        stream: &str,
        from_revision: u64,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<StreamPlace>, IndexError> {
        self.stream_places_after(stream, from_revision, None, direction, limit)
    }

    /// Goes on after the last place of an earlier answer. `from_revision` may have moved on with the
    /// stream's own events, and must have if the same event is not to come twice.
    pub fn stream_places_after(
        &self,
        stream: &str,
        from_revision: u64,
        after: Option<StreamPlace>,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<StreamPlace>, IndexError> {
        let hash = filter_key(Wanted::Stream(stream), self.shared.hash);
        let seek = StreamSeek { hash, revision: from_revision, after };
        let mut at = match (after, direction) {
            (Some(place), _) => place.position,
            (None, Direction::Forward) => 0,
            (None, Direction::Backward) => u64::MAX,
        };
        let mut found = Vec::new();
        while found.len() < limit {
            let left = limit - found.len();
            let step = self.at(at, direction, |tail| {
                (tail.stream(&seek, direction, left), tail.rows.start.next_position)
            });
            let (places, start, end) = match step {
                Step::Done((places, start)) => (places, start, None),
                Step::Sealed(part) => {
                    let range = part.positions();
                    (part.stream(&seek, direction, left)?, range.start, Some(range.end))
                }
            };
            found.extend(places);
            let next = match direction {
                Direction::Forward => end,
                Direction::Backward => start.checked_sub(1),
            };
            match next {
                Some(next) => at = next,
                None => break,
            }
        }
        Ok(found)
    }

    /// Groups of `origin`, dense, the first of which contains `from`; at most `limit`.
    pub fn groups_of(
        &self,
        origin: &Origin,
        from: Seq,
        limit: usize,
    ) -> Result<Vec<GroupPlace>, IndexError> {
        let mut found: Vec<GroupPlace> = Vec::new();
        while found.len() < limit {
            let from = found.last().map_or(from, |place| place.last.next());
            let left = limit - found.len();
            match self.holding(origin, from, |tail| tail.groups(origin, from, left)) {
                Step::Sealed(part) => found.extend(part.groups(origin, from, left)?),
                Step::Done(groups) => {
                    found.extend(groups);
                    break;
                }
            }
        }
        Ok(found)
    }

    /// A position before which no event has a wall time at or after `unix_ms`: start there and pass
    /// over what is older, since stamps of different origins are not sorted in regional order.
    ///
    /// Shape: the greatest such position at the start of an entry; the end of the log if every event is
    /// older.
    pub fn position_at_time(&self, unix_ms: u64) -> Result<u64, IndexError> {
        let time = Stamp::from_unix_ms(unix_ms);
        let mut at = 0;
        loop {
            let step = self.at(at, Direction::Forward, |tail| {
                let found = tail.rows.entries.iter().find(|place| place.time >= time);
                found.map_or(tail.rows.end_position(), |place| place.position)
            });
            match step {
                Step::Done(position) => return Ok(position),
                Step::Sealed(part) => match part.position_at(time)? {
                    Some(position) => return Ok(position),
                    None => at = part.positions().end,
                },
            }
        }
    }

    /// The first position from `from` on that may hold one of `wanted`: passes over segments that
    /// certainly hold none.
    ///
    /// Shape: `from` itself if its segment may; at most the start of what is not sealed yet, or `from`.
    pub fn next_candidate(&self, from: u64, wanted: &[Wanted<'_>]) -> Result<u64, IndexError> {
        let mut at = from;
        while let Step::Sealed(part) = self.at(at, Direction::Forward, |_| ()) {
            for name in wanted {
                if part.may_contain(filter_key(*name, self.shared.hash))? {
                    return Ok(at);
                }
            }
            at = part.positions().end;
        }
        Ok(at)
    }

    /// The first position from `from` on that may hold one of `wanted`, also among what is not sealed
    /// yet, where it is known of every event. Names with colliding hashes are taken for each other.
    ///
    /// Shape: as [`next_candidate`](Self::next_candidate); of what is not sealed, at most `limit` events are
    /// passed over at once, and never more than there are.
    pub fn next_wanted(
        &self,
        from: u64,
        wanted: &[Wanted<'_>],
        limit: usize,
    ) -> Result<u64, IndexError> {
        let keys: Vec<u64> =
            wanted.iter().map(|name| filter_key(*name, self.shared.hash)).collect();
        let at = self.next_candidate(from, wanted)?;
        let passed = self.at(at, Direction::Forward, |tail| tail.rows.without(at, &keys, limit));
        Ok(match passed {
            Step::Sealed(_) => at,
            Step::Done(passed) => at + passed,
        })
    }

    /// Finds the part that holds `position`. The tail is looked at under the lock; sealed parts are
    /// returned and read without it. Whatever is sealed in between moves to where the next step looks.
    fn at<T>(&self, position: u64, direction: Direction, tail: impl FnOnce(&Tail) -> T) -> Step<T> {
        let state = self.shared.state.read();
        let start = state.tail.rows.start.next_position;
        // Going back into an empty tail there is nothing to step from.
        let tail_is_empty = state.tail.rows.events.is_empty();
        let skip_tail = direction == Direction::Backward && tail_is_empty && start > 0;
        if position >= start && !skip_tail {
            return Step::Done(tail(&state.tail));
        }
        let position = position.min(start - 1);
        let nth = state.sealed.partition_point(|part| part.positions().end <= position);
        Step::Sealed(state.sealed[nth].clone())
    }

    fn holding<T>(&self, origin: &Origin, from: Seq, tail: impl FnOnce(&Tail) -> T) -> Step<T> {
        let state = self.shared.state.read();
        let held = |part: &Arc<SealedPart>| part.directory.end.head(origin).next <= from;
        let nth = state.sealed.partition_point(held);
        match state.sealed.get(nth) {
            Some(part) => Step::Sealed(part.clone()),
            None => Step::Done(tail(&state.tail)),
        }
    }
}
