//! What is written: events whose whole content follows from their id and their mark.
//!
//! So a reader can tell whether an event is as it was written without knowing who wrote it. Events that
//! the store itself reads are the exception: what they say is in the ledger (`said.rs`).

use std::fmt;

use anabranch_client::{EventId, NewEvent, ProducerId, ProducerTag, event};
use bytes::Bytes;

use crate::defined::Declared;
use crate::op::Asked;
use crate::said::Said;
use crate::shape;

/// Type of the events that the workload writes; see [`shape::kind`] for the few others.
pub const KIND: &str = "Noted";
/// The metadata key of an event's mark.
pub const MARK: &str = "producer";

/// Names an event of the workload: its id, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// Which run.
    pub run: u32,
    /// Which writer.
    pub writer: u32,
    /// Which operation of the writer.
    pub op: u32,
    /// Which event of the operation, from 0.
    pub nth: u32,
}

impl Name {
    /// The event's id.
    pub fn id(self) -> EventId {
        let mut bytes = [0; 16];
        for (at, part) in [self.run, self.writer, self.op, self.nth].into_iter().enumerate() {
            bytes[at * 4..][..4].copy_from_slice(&part.to_be_bytes());
        }
        EventId(bytes)
    }
    /// The name behind an id.
    pub fn of(id: EventId) -> Self {
        let part = |at: usize| {
            let bytes = id.0[at * 4..][..4].try_into().expect("four bytes");
            u32::from_be_bytes(bytes)
        };
        Self { run: part(0), writer: part(1), op: part(2), nth: part(3) }
    }
}

/// What an event carries beside its id: who sent it, and its place in its append.
///
/// An event alone so tells how many others must stand beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The producer triple of the append.
    pub tag: ProducerTag,
    /// Which event of the append, from 0.
    pub nth: u32,
    /// Events of the append.
    pub of: u32,
    /// Money that it brings to its stream.
    pub amount: i64,
    /// Bytes of its payload.
    pub size: u32,
}

impl Mark {
    /// The marks of an append's events, in order.
    pub fn all(tag: ProducerTag, events: &[Asked]) -> impl Iterator<Item = Self> + '_ {
        let of = events.len() as u32;
        (0..).zip(events).map(move |(nth, asked)| {
            let Asked { amount, size, .. } = *asked;
            Self { tag, nth, of, amount, size }
        })
    }
    /// The mark behind a text; none if it is not one.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let id = ProducerId(u128::from_str_radix(parts.next()?, 16).ok()?.to_be_bytes());
        let epoch = parts.next()?.parse().ok()?;
        let sequence = parts.next()?.parse().ok()?;
        let mark = Self {
            tag: ProducerTag { id, epoch, sequence },
            nth: parts.next()?.parse().ok()?,
            of: parts.next()?.parse().ok()?,
            amount: parts.next()?.parse().ok()?,
            size: parts.next()?.parse().ok()?,
        };
        parts.next().is_none().then_some(mark)
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tag, nth, of, amount, size } = self;
        let producer = u128::from_be_bytes(tag.id.0);
        write!(f, "{producer:032x}.{}.{}.{nth}.{of}.{amount}.{size}", tag.epoch, tag.sequence)
    }
}

/// The payload of `size` bytes of the event with this id: its name, then filling that follows from it.
/// Of a definer's event the definition, whatever the size.
pub fn payload(id: EventId, size: u32) -> Bytes {
    let Name { run, writer, op, nth } = Name::of(id);
    if let Some(declared) = Declared::of(writer, op) {
        return declared.definition().to_string().into();
    }
    let size = size as usize;
    let mut text = format!("{run}/{writer}/{op}/{nth};").into_bytes();
    let mut state = op.wrapping_mul(0x9e37_79b9) ^ nth ^ writer.rotate_left(16);
    text.reserve(size.saturating_sub(text.len()));
    while text.len() < size {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        text.push(b'a' + (state >> 24) as u8 % 26);
    }
    text.truncate(size);
    text.into()
}

/// The event that was asked for, with its mark.
pub fn new_event(asked: &Asked, mark: Mark) -> NewEvent {
    let event = match &asked.says {
        Some(Said { kind, payload }) => event(kind).payload(payload.clone()),
        None => event(shape::kind(asked.id)).payload(payload(asked.id, asked.size)),
    };
    let metadata = shape::metadata(asked.id, &mark).into_iter();
    let event = metadata.fold(event, |event, (key, value)| event.metadata(key, value));
    if shape::is_anonymous(asked.id) { event } else { event.id(asked.id) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_survives_the_trip_through_an_id_and_tells_the_payload() {
        let name = Name { run: 7, writer: 1, op: 90_000, nth: 3 };
        assert_eq!(Name::of(name.id()), name);
        let other = Name { nth: 2, ..name };
        assert_ne!(payload(name.id(), 100), payload(other.id(), 100));
        for size in [0, 5, 1_000] {
            assert_eq!(payload(name.id(), size).len(), size as usize);
        }
    }

    #[test]
    fn a_mark_survives_the_trip_through_its_text() {
        let tag = ProducerTag { id: ProducerId([0xab; 16]), epoch: 2, sequence: 900 };
        let mark = Mark { tag, nth: 1, of: 3, amount: -40, size: 70 };
        assert_eq!(Mark::parse(&mark.to_string()), Some(mark));
        for odd in ["", "x.1.1.0.1.0.0", "ab.1.1.0.1.0", "ab.1.1.0.1.0.0.0"] {
            assert_eq!(Mark::parse(odd), None, "{odd}");
        }
    }
}
