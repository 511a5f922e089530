//! Between the wire and core: the same things in generated types and in core's own.
//!
//! Towards the wire every conversion is total ([`From`]). From the wire it checks what the generated
//! types cannot say (16-byte ids, region names, fields that must be there) and names the field that
//! is wrong. Limits on sizes are the server's business, not checked here.

use anabranch_core::event::ProducerTag;
use anabranch_core::{
    Context, Dot, Event, EventId, EventView, Incarnation, Origin, ProducerId, ReadOrder,
    RegionName, Request, Seq, ShardId, Stamp,
};
use bytes::Bytes;

use crate::v1;
pub use anabranch_core::sequencer::{Expectation, Expected};

mod outcome;
mod refusal;
mod transport;

pub use outcome::LEADER;
pub use refusal::{REFUSAL_TYPE_URL, invalid, invalid_as, refusal_of, refused};
pub use transport::{cause, never_sent, sources};

/// A message that does not say what its type promises.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct ConvertError {
    /// The field, as the `.proto` file names it.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// It must be there.
    #[error("is missing")]
    Missing,
    /// It has the wrong number of bytes.
    #[error("has {actual} bytes instead of {expected}")]
    Length {
        /// Bytes it must have.
        expected: usize,
        /// Bytes it has.
        actual: usize,
    },
    /// It is not a region name.
    #[error(transparent)]
    Region(#[from] anabranch_core::id::InvalidRegionName),
    /// The number is out of its range.
    #[error("is {actual}, allowed are {min} to {max}")]
    Range {
        /// Least value allowed.
        min: u64,
        /// Largest value allowed.
        max: u64,
        /// The value found.
        actual: u64,
    },
    /// The enum has no such value in this release.
    #[error("has the unknown value {value}")]
    UnknownValue {
        /// The number found.
        value: i32,
    },
}

impl Problem {
    /// Says which field it is about.
    pub fn of(self, field: &'static str) -> ConvertError {
        ConvertError { field, problem: self }
    }
}

/// The value of a message field that must be there.
///
/// # Errors
/// [`Problem::Missing`], naming `field`.
pub fn required<T>(field: &'static str, value: Option<T>) -> Result<T, ConvertError> {
    value.ok_or_else(|| Problem::Missing.of(field))
}

fn array16(field: &'static str, bytes: &[u8]) -> Result<[u8; 16], ConvertError> {
    bytes.try_into().map_err(|_| Problem::Length { expected: 16, actual: bytes.len() }.of(field))
}

/// An incarnation as wire bytes: 16, big-endian, so that their hex is how it prints.
pub fn incarnation_bytes(incarnation: Incarnation) -> Bytes {
    Bytes::copy_from_slice(&incarnation.0.to_be_bytes())
}

/// Reads an incarnation from its wire bytes.
///
/// # Errors
/// [`Problem::Length`] unless there are 16.
pub fn incarnation(field: &'static str, bytes: &[u8]) -> Result<Incarnation, ConvertError> {
    Ok(Incarnation(u128::from_be_bytes(array16(field, bytes)?)))
}

impl From<&Origin> for v1::Origin {
    fn from(origin: &Origin) -> Self {
        Self {
            region: origin.region.as_str().to_owned(),
            incarnation: incarnation_bytes(origin.incarnation),
            shard: origin.shard.0.into(),
        }
    }
}

impl TryFrom<v1::Origin> for Origin {
    type Error = ConvertError;

    fn try_from(wire: v1::Origin) -> Result<Self, ConvertError> {
        Ok(Self {
            region: RegionName::new(&wire.region)
                .map_err(|error| Problem::Region(error).of("origin.region"))?,
            incarnation: incarnation("origin.incarnation", &wire.incarnation)?,
            shard: shard("origin.shard", wire.shard)?,
        })
    }
}

/// Reads a shard number.
///
/// # Errors
/// [`Problem::Range`] if it is larger than any shard's.
pub fn shard(field: &'static str, wire: u32) -> Result<ShardId, ConvertError> {
    let range = || Problem::Range { min: 0, max: u16::MAX.into(), actual: wire.into() }.of(field);
    u16::try_from(wire).map(ShardId).map_err(|_| range())
}

impl From<&Dot> for v1::Dot {
    fn from(dot: &Dot) -> Self {
        Self { origin: Some((&dot.origin).into()), seq: dot.seq.0 }
    }
}

impl TryFrom<v1::Dot> for Dot {
    type Error = ConvertError;

    fn try_from(wire: v1::Dot) -> Result<Self, ConvertError> {
        if wire.seq == 0 {
            return Err(Problem::Range { min: 1, max: u64::MAX, actual: 0 }.of("dot.seq"));
        }
        let origin = required("dot.origin", wire.origin)?.try_into()?;
        Ok(Self { origin, seq: Seq(wire.seq) })
    }
}

impl From<&Context> for v1::Context {
    fn from(context: &Context) -> Self {
        let dot =
            |(origin, seq): (&Origin, Seq)| v1::Dot { origin: Some(origin.into()), seq: seq.0 };
        Self { dots: context.iter().map(dot).collect() }
    }
}

impl TryFrom<v1::Context> for Context {
    type Error = ConvertError;

    /// An origin named with number 0 is the same as one not named.
    fn try_from(wire: v1::Context) -> Result<Self, ConvertError> {
        let entry = |dot: v1::Dot| {
            let origin = required("context.dots.origin", dot.origin)?.try_into()?;
            Ok((origin, Seq(dot.seq)))
        };
        wire.dots.into_iter().map(entry).collect()
    }
}

/// The bytes of an event id that is there, or none.
pub fn event_id_bytes(id: Option<EventId>) -> Bytes {
    id.map_or_else(Bytes::new, |id| Bytes::copy_from_slice(&id.0))
}

/// Reads an event id; no bytes are no id.
///
/// # Errors
/// [`Problem::Length`] if there are neither 0 nor 16.
pub fn event_id(field: &'static str, bytes: &[u8]) -> Result<Option<EventId>, ConvertError> {
    if bytes.is_empty() { Ok(None) } else { Ok(Some(EventId(array16(field, bytes)?))) }
}

impl From<ProducerTag> for v1::Producer {
    fn from(tag: ProducerTag) -> Self {
        let id = Bytes::copy_from_slice(&tag.id.0);
        Self { id, epoch: tag.epoch, sequence: tag.sequence }
    }
}

impl TryFrom<v1::Producer> for ProducerTag {
    type Error = ConvertError;

    fn try_from(wire: v1::Producer) -> Result<Self, ConvertError> {
        if wire.sequence == 0 {
            return Err(Problem::Range { min: 1, max: u64::MAX, actual: 0 }.of("producer.sequence"));
        }
        let id = ProducerId(array16("producer.id", &wire.id)?);
        Ok(Self { id, epoch: wire.epoch, sequence: wire.sequence })
    }
}

impl From<Event> for v1::NewEvent {
    fn from(event: Event) -> Self {
        Self {
            stream: event.stream,
            id: event_id_bytes(event.id),
            r#type: event.kind,
            metadata: event.metadata,
            payload: event.payload,
        }
    }
}

impl TryFrom<v1::NewEvent> for Event {
    type Error = ConvertError;

    fn try_from(wire: v1::NewEvent) -> Result<Self, ConvertError> {
        Ok(Self {
            id: event_id("events.id", &wire.id)?,
            stream: wire.stream,
            kind: wire.r#type,
            metadata: wire.metadata,
            payload: wire.payload,
        })
    }
}

/// What an append asks core to write: its events and its producer, without copying payloads.
///
/// # Errors
/// [`ConvertError`] naming the first field that is wrong; an append without events is one.
pub fn request(
    events: Vec<v1::NewEvent>,
    producer: Option<v1::Producer>,
) -> Result<Request, ConvertError> {
    if events.is_empty() {
        return Err(Problem::Missing.of("events"));
    }
    Ok(Request {
        producer: producer.map(ProducerTag::try_from).transpose()?,
        events: events.into_iter().map(Event::try_from).collect::<Result<_, _>>()?,
    })
}

impl From<Expectation> for v1::Expectation {
    fn from(expectation: Expectation) -> Self {
        use v1::expectation as wire;
        let expected = match expectation.expected {
            Expected::Any => wire::Expected::Any(wire::Any {}),
            Expected::NoStream => wire::Expected::NoStream(wire::NoStream {}),
            Expected::Exists => wire::Expected::Exists(wire::Exists {}),
            Expected::Revision(revision) => wire::Expected::Revision(revision),
        };
        Self { stream: expectation.stream, expected: Some(expected) }
    }
}

impl TryFrom<v1::Expectation> for Expectation {
    type Error = ConvertError;

    /// An expectation that expects nothing is refused: it is more likely a value this release does
    /// not know than a wish to check nothing.
    fn try_from(wire: v1::Expectation) -> Result<Self, ConvertError> {
        use v1::expectation::Expected as Wire;
        let expected = match required("expectations.expected", wire.expected)? {
            Wire::Any(_) => Expected::Any,
            Wire::NoStream(_) => Expected::NoStream,
            Wire::Exists(_) => Expected::Exists,
            Wire::Revision(revision) => Expected::Revision(revision),
        };
        Ok(Self { stream: wire.stream, expected })
    }
}

impl From<ReadOrder> for v1::Order {
    fn from(order: ReadOrder) -> Self {
        match order {
            ReadOrder::Regional => Self::Regional,
            ReadOrder::Global => Self::Global,
        }
    }
}

/// Reads an order; unspecified is regional.
///
/// # Errors
/// [`Problem::UnknownValue`].
pub fn read_order(field: &'static str, wire: i32) -> Result<ReadOrder, ConvertError> {
    match v1::Order::try_from(wire) {
        Ok(v1::Order::Unspecified | v1::Order::Regional) => Ok(ReadOrder::Regional),
        Ok(v1::Order::Global) => Ok(ReadOrder::Global),
        Err(_) => Err(Problem::UnknownValue { value: wire }.of(field)),
    }
}

/// Where an event was read, in the order it was read in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Its regional position.
    Regional(u64),
    /// Its global position.
    Global(u64),
}

/// The wire form of an event as it lies in a group of `origin` stamped `stamp`.
///
/// `revision` is its place in its stream in this region's order. The payload's bytes are shared, not
/// copied. An event without an id of its own gets the one derived from its dot.
pub fn recorded_event(
    origin: &Origin,
    stamp: Stamp,
    view: &EventView,
    revision: u64,
    place: Place,
) -> v1::RecordedEvent {
    let dot = Dot { origin: origin.clone(), seq: view.seq };
    let id = view.id.unwrap_or_else(|| EventId::of_dot(&dot));
    let metadata =
        view.metadata().iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    let (position, global_position) = match place {
        Place::Regional(position) => (position, None),
        Place::Global(position) => (0, Some(position)),
    };
    v1::RecordedEvent {
        dot: Some((&dot).into()),
        id: event_id_bytes(Some(id)),
        stream: view.stream.to_string(),
        r#type: view.kind.to_string(),
        metadata,
        payload: view.payload.clone(),
        stamp: stamp.0,
        unix_ms: stamp.unix_ms(),
        revision,
        position,
        global_position,
        concurrency: None,
    }
}

#[cfg(test)]
mod tests;
