//! What clients of different kinds write: who they are, and the sizes that try every limit.
//!
//! Kind and metadata of an event follow from its name and mark, so that a reader knows what they must
//! be.

use std::collections::BTreeMap;

use anabranch_client::EventId;
use anabranch_core::Limits;

use crate::content::{KIND, MARK, Mark, Name};
use crate::defined::{self, Declared};

/// The metadata key of an event's name, where the client gave it no id.
pub const NAME: &str = "name";
/// The metadata key of what fills metadata up to a limit.
const FILL: &str = "fill";
/// What names at their limit are made of: two bytes, three, four, and one.
const LETTERS: [&str; 4] = ["ü", "語", "🌿", "x"];

/// Kinds of clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Conditional appends to hot streams.
    Register = 1,
    /// Appends to several streams at once.
    Transactor = 2,
    /// Elements of sets.
    Collector = 3,
    /// Clients that hop between regions.
    Hopper = 4,
    /// Producers whose events carry ids.
    Producer = 5,
    /// Producers whose events carry none: only their sequences tell a retry.
    Anonymous = 6,
    /// Tellers of a bank.
    Teller = 7,
    /// Clients that try limits.
    Prober = 8,
    /// Clients that come by surprise and in numbers.
    Surge = 9,
    /// Clients that define aggregates.
    Definer = 10,
    /// Clients that append to streams with a home.
    Resident = 11,
    /// Clients that earn, spend and pass rights to bounded counters.
    Spender = 12,
    /// Clients that change aggregates by operations.
    Changer = 13,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Register,
        Self::Transactor,
        Self::Collector,
        Self::Hopper,
        Self::Producer,
        Self::Anonymous,
        Self::Teller,
        Self::Prober,
        Self::Surge,
        Self::Definer,
        Self::Resident,
        Self::Spender,
        Self::Changer,
    ];

    /// Number of a client of this kind: the `nth` of its region.
    pub fn writer(self, home: usize, nth: u32) -> u32 {
        ((self as u32) << 24) | ((home as u32) << 16) | nth
    }
    /// The kind behind a client's number.
    pub fn of(writer: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|class| *class as u32 == writer >> 24)
    }
}

/// An append at a limit, or just over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Probe {
    /// No payload at all.
    EmptyPayload,
    /// A stream whose name has all the bytes it may have, few of them ASCII.
    LongestStream,
    /// One byte more.
    StreamTooLong,
    /// A type whose name has all the bytes it may have.
    LongestKind,
    /// One byte more.
    KindTooLong,
    /// All the metadata that there may be.
    FullMetadata,
    /// One byte more.
    TooMuchMetadata,
    /// A stream without a name.
    NoStreamName,
    /// A control character in a stream's name.
    ControlCharacter,
    /// The largest payload.
    LargestPayload,
    /// One byte more.
    PayloadTooLarge,
    /// An append of all the bytes that it may have.
    LargestAppend,
    /// One byte more.
    AppendTooLarge,
    /// As many streams as one append may name.
    MostStreams,
    /// One more.
    TooManyStreams,
    /// As many expectations as there may be, on streams that are only checked.
    MostExpectations,
    /// As many events as one append may hold.
    MostEvents,
    /// One more.
    TooManyEvents,
}

impl Probe {
    /// All of them, the small ones first.
    pub const ALL: [Self; 18] = [
        Self::EmptyPayload,
        Self::LongestStream,
        Self::StreamTooLong,
        Self::LongestKind,
        Self::KindTooLong,
        Self::FullMetadata,
        Self::TooMuchMetadata,
        Self::NoStreamName,
        Self::ControlCharacter,
        Self::LargestPayload,
        Self::PayloadTooLarge,
        Self::LargestAppend,
        Self::AppendTooLarge,
        Self::MostStreams,
        Self::TooManyStreams,
        Self::MostExpectations,
        Self::MostEvents,
        Self::TooManyEvents,
    ];

    /// The case that an operation of a prober tries; none if it is another client's.
    pub fn of(writer: u32, op: u32) -> Option<Self> {
        let prober = Class::of(writer) == Some(Class::Prober);
        prober.then(|| Self::ALL[op as usize % Self::ALL.len()])
    }
    /// The field that breaks a limit and the limit, none if no number is involved; none if it is to
    /// be accepted.
    pub fn breaks(self) -> Option<(&'static str, Option<u64>)> {
        let limits = Limits::DEFAULT;
        let (field, limit) = match self {
            Self::StreamTooLong => ("stream", limits.name_bytes),
            Self::KindTooLong => ("type", limits.name_bytes),
            Self::TooMuchMetadata => ("metadata", limits.metadata_bytes),
            Self::NoStreamName | Self::ControlCharacter => return Some(("stream", None)),
            Self::PayloadTooLarge => ("payload", limits.payload_bytes),
            Self::AppendTooLarge => ("events", limits.append_bytes),
            Self::TooManyStreams => ("events", limits.append_streams),
            Self::TooManyEvents => ("events", limits.append_events),
            _ => return None,
        };
        Some((field, Some(limit as u64)))
    }
}

/// A name of exactly so many bytes that begins with `start`.
pub fn long_name(start: &str, bytes: usize) -> String {
    let mut name = start.to_owned();
    for letter in LETTERS.into_iter().cycle() {
        match bytes - name.len() {
            0 => break,
            left if letter.len() <= left => name.push_str(letter),
            _ => name.push('x'),
        }
    }
    name
}

/// The type of the event with this id.
pub fn kind(id: EventId) -> String {
    let Name { writer, op, .. } = Name::of(id);
    let limit = Limits::DEFAULT.name_bytes;
    if Declared::of(writer, op).is_some() {
        return defined::KIND.to_owned();
    }
    match Probe::of(writer, op) {
        Some(Probe::LongestKind) => long_name(KIND, limit),
        Some(Probe::KindTooLong) => long_name(KIND, limit + 1),
        _ => KIND.to_owned(),
    }
}

/// Whether the event with this id is sent without it.
pub fn is_anonymous(id: EventId) -> bool {
    Class::of(Name::of(id).writer) == Some(Class::Anonymous)
}

/// The metadata of the event with this id and mark.
pub fn metadata(id: EventId, mark: &Mark) -> BTreeMap<String, String> {
    let mut metadata = BTreeMap::from([(MARK.to_owned(), mark.to_string())]);
    if is_anonymous(id) {
        metadata.insert(NAME.to_owned(), format!("{:032x}", u128::from_be_bytes(id.0)));
    }
    let Name { writer, op, .. } = Name::of(id);
    let limit = Limits::DEFAULT.metadata_bytes;
    let full = match Probe::of(writer, op) {
        Some(Probe::FullMetadata) => limit,
        Some(Probe::TooMuchMetadata) => limit + 1,
        _ => return metadata,
    };
    let fill = full - metadata_bytes(&metadata) - FILL.len();
    metadata.insert(FILL.to_owned(), "m".repeat(fill));
    metadata
}

/// Bytes that count against the limit of an event's metadata.
pub fn metadata_bytes(metadata: &BTreeMap<String, String>) -> usize {
    metadata.iter().map(|(key, value)| key.len() + value.len()).sum()
}

/// The name of an event as it is read: its id, or what its metadata say if it was sent without one.
pub fn name(id: EventId, metadata: &BTreeMap<String, String>) -> EventId {
    let named = metadata.get(NAME).and_then(|text| u128::from_str_radix(text, 16).ok());
    named.map_or(id, |name| EventId(name.to_be_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use anabranch_client::{ProducerId, ProducerTag};

    fn mark() -> Mark {
        let tag = ProducerTag { id: ProducerId([7; 16]), epoch: 1, sequence: 12 };
        Mark { tag, nth: 0, of: 1, amount: 0, size: 10 }
    }

    fn id(class: Class, op: usize) -> EventId {
        Name { run: 1, writer: class.writer(2, 3), op: op as u32, nth: 0 }.id()
    }

    #[test]
    fn a_client_is_known_by_its_number() {
        for class in Class::ALL {
            assert_eq!(Class::of(class.writer(4, 200)), Some(class));
        }
        assert_eq!(Class::of(5), None);
        assert_ne!(Class::Register.writer(1, 0), Class::Register.writer(0, 1));
    }

    #[test]
    fn names_and_metadata_at_a_limit_have_exactly_its_bytes() {
        for bytes in 500..520 {
            assert_eq!(long_name("probe-", bytes).len(), bytes);
        }
        for (at, case) in Probe::ALL.into_iter().enumerate() {
            let id = id(Class::Prober, at);
            let Name { writer, op, .. } = Name::of(id);
            assert_eq!(Probe::of(writer, op), Some(case));
            let bytes = metadata_bytes(&metadata(id, &mark()));
            match case {
                Probe::FullMetadata => assert_eq!(bytes, 16 * 1024),
                Probe::TooMuchMetadata => assert_eq!(bytes, 16 * 1024 + 1),
                _ => assert!(bytes < 200),
            }
            let expected = match case {
                Probe::LongestKind => 512,
                Probe::KindTooLong => 513,
                _ => KIND.len(),
            };
            assert_eq!(kind(id).len(), expected);
        }
    }

    #[test]
    fn an_event_without_an_id_is_known_by_its_metadata() {
        let named = id(Class::Anonymous, 3);
        assert!(is_anonymous(named) && !is_anonymous(id(Class::Producer, 3)));
        assert_eq!(name(EventId([1; 16]), &metadata(named, &mark())), named);
        let other = id(Class::Producer, 3);
        assert_eq!(name(other, &metadata(other, &mark())), other);
    }
}
