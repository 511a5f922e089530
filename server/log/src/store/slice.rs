//! Events as readers get them: views into shared commands.

use std::ops::Range;
use std::sync::Arc;

use anabranch_core::{Command, Context, Dot, EventView, Group, Origin, Seq, Stamp};

use crate::index::Direction;

/// A group of an entry. Cloning shares the command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupRef {
    /// The entry's command.
    pub command: Arc<Command>,
    /// Index of the entry.
    pub entry: u64,
    /// Which of the command's groups, from 0.
    pub ordinal: usize,
    /// Regional position of the group's first event.
    pub position: u64,
}

/// Some neighbouring events of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupSlice {
    /// The group.
    pub source: GroupRef,
    /// Which of its events; half-open, from 0.
    pub range: Range<usize>,
}

/// An event with its place in the region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedEvent {
    /// The group that holds it.
    pub source: GroupRef,
    /// Its regional position.
    pub position: u64,
    /// Its revision in its stream, in this region.
    pub revision: u64,
    /// The event itself.
    pub event: EventView,
}

impl GroupRef {
    /// The group, with its header and bytes.
    pub fn group(&self) -> &Group {
        &self.command.groups()[self.ordinal].group
    }
    /// One past the position of the group's last event.
    pub fn end_position(&self) -> u64 {
        self.position + u64::from(self.group().header().events)
    }

    pub(super) fn place(&self, nth: usize, event: EventView) -> PlacedEvent {
        PlacedEvent {
            source: self.clone(),
            position: self.position + nth as u64,
            revision: self.command.groups()[self.ordinal].revisions[nth],
            event,
        }
    }
}

impl GroupSlice {
    pub(super) fn whole(source: GroupRef) -> Self {
        let range = 0..source.group().header().events as usize;
        Self { source, range }
    }
    /// The group, with its header and bytes.
    pub fn group(&self) -> &Group {
        self.source.group()
    }
    /// Numbers of the events within their origin: the first one and the one after the last.
    pub fn seqs(&self) -> Range<Seq> {
        let at = |nth: usize| self.group().first().plus(nth as u64);
        at(self.range.start)..at(self.range.end)
    }
    /// Revisions of the events in their streams, in this region.
    pub fn revisions(&self) -> &[u64] {
        &self.source.command.groups()[self.source.ordinal].revisions[self.range.clone()]
    }
    /// Regional positions of the events.
    pub fn positions(&self) -> Range<u64> {
        let at = |nth: usize| self.source.position + nth as u64;
        at(self.range.start)..at(self.range.end)
    }
    /// Number of events.
    pub fn len(&self) -> usize {
        self.range.len()
    }
    /// True if there is no event in it; slices that are read never are.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }
    /// The events, oldest first, whichever way the log was read.
    pub fn events(&self) -> impl DoubleEndedIterator<Item = PlacedEvent> + '_ {
        let requests = self.group().look();
        let events = requests.iter().flat_map(|request| &request.events);
        let events = events.skip(self.range.start).take(self.range.len());
        let events: Vec<_> = events.map(|event| self.group().view(event)).collect();
        events.into_iter().zip(self.range.clone()).map(|(event, nth)| self.source.place(nth, event))
    }
}

impl PlacedEvent {
    /// Whose event it is.
    pub fn origin(&self) -> &Origin {
        self.source.group().origin()
    }
    /// Its number within its origin.
    pub fn seq(&self) -> Seq {
        self.event.seq
    }
    /// Its identity.
    pub fn dot(&self) -> Dot {
        Dot { origin: self.origin().clone(), seq: self.event.seq }
    }
    /// Its stamp.
    pub fn stamp(&self) -> Stamp {
        self.source.group().stamp()
    }
    /// What its origin's region held of other origins when it was made.
    pub fn context(&self) -> &Context {
        &self.source.group().header().context
    }
    /// Index of the entry that holds it.
    pub fn entry(&self) -> u64 {
        self.source.entry
    }
}

/// The groups of a command with their positions, in order.
pub(super) fn groups_of(
    command: &Arc<Command>,
    entry: u64,
) -> impl DoubleEndedIterator<Item = GroupRef> {
    let mut position = command.position().unwrap_or_default();
    let groups = command.groups().iter().enumerate().map(move |(ordinal, placed)| {
        let at = position;
        position += placed.revisions.len() as u64;
        (ordinal, at)
    });
    let places: Vec<(usize, u64)> = groups.collect();
    let command = command.clone();
    places.into_iter().map(move |(ordinal, position)| GroupRef {
        command: command.clone(),
        entry,
        ordinal,
        position,
    })
}

/// The part of a group from `from` on in a direction, at most `limit` events; nothing if it is empty.
pub(super) fn cut(
    source: GroupRef,
    from: u64,
    direction: Direction,
    limit: usize,
) -> Option<GroupSlice> {
    let len = source.group().header().events as usize;
    let within = |position: u64| (position.saturating_sub(source.position) as usize).min(len);
    let range = match direction {
        Direction::Forward => {
            let start = within(from);
            start..len.min(start.saturating_add(limit))
        }
        Direction::Backward => {
            let end = within(from.saturating_add(1));
            end.saturating_sub(limit)..end
        }
    };
    (!range.is_empty()).then_some(GroupSlice { source, range })
}
