//! What is written: events whose whole content follows from their id.
//!
//! So a reader can tell whether an event is as it was written without knowing who wrote it.

use anabranch_client::{EventId, NewEvent, ProducerTag, event};
use bytes::Bytes;

/// Type of every event that the workload writes.
pub const KIND: &str = "Noted";

/// Names an event of the workload: its id, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// Which run of the harness.
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

/// The payload of the event with this id.
pub fn payload(id: EventId) -> Bytes {
    let Name { run, writer, op, nth } = Name::of(id);
    let pad = (op.wrapping_mul(31).wrapping_add(nth * 17) % 400) as usize;
    let text =
        format!(r#"{{"run":{run},"writer":{writer},"op":{op},"nth":{nth},"pad":"{:.<pad$}"}}"#, "");
    text.into()
}

/// The event with this id, marked with its place among what the producer sends.
pub fn new_event(id: EventId, tag: ProducerTag) -> NewEvent {
    event(KIND).id(id).payload(payload(id)).metadata("producer", mark(tag, id))
}

/// What names an event besides its id: producer, epoch, sequence, and which event of the append.
pub fn mark(tag: ProducerTag, id: EventId) -> String {
    let producer = u128::from_be_bytes(tag.id.0);
    format!("{producer:032x}.{}.{}.{}", tag.epoch, tag.sequence, Name::of(id).nth)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_survives_the_trip_through_an_id_and_tells_the_payload() {
        let name = Name { run: 7, writer: 1, op: 90_000, nth: 3 };
        assert_eq!(Name::of(name.id()), name);
        let other = Name { nth: 2, ..name };
        assert_ne!(payload(name.id()), payload(other.id()));
    }
}
