//! Events to append, and events as read.

use std::collections::BTreeMap;

use anabranch_core::{Dot, EventId, Group, ReadOrder, Stamp};
use anabranch_proto::convert::{self, ConvertError, Problem, required};
use anabranch_proto::v1;
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::conflicts::Concurrency;
use crate::error::ReadError;

/// An event to append; begin with [`event`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    kind: String,
    id: Option<EventId>,
    metadata: BTreeMap<String, String>,
    payload: Bytes,
}

/// An event of type `kind`, with an empty payload.
pub fn event(kind: impl Into<String>) -> NewEvent {
    NewEvent { kind: kind.into(), id: None, metadata: BTreeMap::new(), payload: Bytes::new() }
}

impl NewEvent {
    /// The event's content, as bytes that the store never looks into.
    pub fn payload(mut self, payload: impl Into<Bytes>) -> Self {
        self.payload = payload.into();
        self
    }
    /// The event's content, as JSON; also sets the metadata `content-type`.
    ///
    /// # Errors
    /// If the value has no JSON form.
    pub fn json(self, value: &impl Serialize) -> Result<Self, serde_json::Error> {
        let payload = serde_json::to_vec(value)?;
        Ok(self.payload(payload).metadata("content-type", "application/json"))
    }
    /// A text pair beside the payload. The last value given for a key counts.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }
    /// An id of your own: appending an event with the same id again yields the first result.
    pub fn id(mut self, id: EventId) -> Self {
        self.id = Some(id);
        self
    }

    /// An event that a server made.
    pub(crate) fn from_wire(wire: v1::NewEvent) -> Result<Self, ConvertError> {
        let id = convert::event_id("event.id", &wire.id)?;
        Ok(Self { kind: wire.r#type, id, metadata: wire.metadata, payload: wire.payload })
    }
    pub(crate) fn into_wire(self, stream: String) -> v1::NewEvent {
        v1::NewEvent {
            stream,
            id: convert::event_id_bytes(self.id),
            r#type: self.kind,
            metadata: self.metadata,
            payload: self.payload,
        }
    }
}

/// One event or several, to append.
pub trait IntoEvents {
    /// The events, in order.
    fn into_events(self) -> Vec<NewEvent>;
}
impl IntoEvents for NewEvent {
    fn into_events(self) -> Vec<NewEvent> {
        vec![self]
    }
}
impl IntoEvents for Vec<NewEvent> {
    fn into_events(self) -> Vec<NewEvent> {
        self
    }
}
impl<const N: usize> IntoEvents for [NewEvent; N] {
    fn into_events(self) -> Vec<NewEvent> {
        self.into()
    }
}

/// An event as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its identity, the same in every region.
    pub dot: Dot,
    /// The id its client gave it, if any; see [`id`](Self::id).
    pub own_id: Option<EventId>,
    /// The stream it belongs to.
    pub stream: String,
    /// What kind of thing happened.
    pub kind: String,
    /// Text pairs beside the payload.
    pub metadata: BTreeMap<String, String>,
    /// The content.
    pub payload: Bytes,
    /// When it happened, as an order: ties between origins are broken by the origin.
    pub stamp: Stamp,
    /// Its place in its stream, from 0, in the order of the region it was read in.
    pub revision: u64,
    /// Where it was read.
    pub place: Place,
    /// What it is concurrent with; only if that was asked for.
    pub concurrency: Option<Box<Concurrency>>,
}

/// Where an event was read, in the order it was read in.
pub use anabranch_proto::convert::Place;

impl Event {
    /// The content, read as JSON.
    ///
    /// # Errors
    /// If the payload is not JSON, or not of this form.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.payload)
    }
    /// The id its client gave it, or one derived from the dot: the same in every region.
    pub fn id(&self) -> EventId {
        self.own_id.unwrap_or_else(|| EventId::of_dot(&self.dot))
    }
    /// The wall time of its stamp, in milliseconds since the Unix epoch.
    pub fn unix_ms(&self) -> u64 {
        self.stamp.unix_ms()
    }
    /// The regional position, if it was read in regional order.
    pub fn position(&self) -> Option<u64> {
        match self.place {
            Place::Regional(position) => Some(position),
            Place::Global(_) => None,
        }
    }
    /// The global position, if it was read in global order.
    pub fn global_position(&self) -> Option<u64> {
        match self.place {
            Place::Regional(_) => None,
            Place::Global(position) => Some(position),
        }
    }
}

/// The events of a run, which was read in `order`.
pub(crate) fn of_run(
    run: v1::read_response::Run,
    order: ReadOrder,
    into: &mut impl Extend<Event>,
) -> Result<(), ReadError> {
    let group = Group::decode_trusted(run.group)?;
    let events = group.header().events as usize;
    let (skipped, actual) = (run.skipped as usize, run.revisions.len());
    let max = events.saturating_sub(skipped);
    if skipped > events || actual > max {
        let problem = Problem::Range { min: 0, max: max as u64, actual: actual as u64 };
        return Err(problem.of("runs.revisions").into());
    }
    let requests = group.try_look()?;
    let events = requests.iter().flat_map(|request| &request.events).skip(skipped);
    into.extend(events.zip(run.revisions).zip(run.position..).map(|((event, revision), at)| {
        Event {
            dot: Dot { origin: group.origin().clone(), seq: event.seq },
            own_id: event.id,
            stream: event.stream.to_owned(),
            kind: event.kind.to_owned(),
            metadata: event.metadata().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
            payload: group.part(event.payload),
            stamp: group.stamp(),
            revision,
            place: match order {
                ReadOrder::Regional => Place::Regional(at),
                ReadOrder::Global => Place::Global(at),
            },
            concurrency: None,
        }
    }));
    Ok(())
}

impl TryFrom<v1::RecordedEvent> for Event {
    type Error = ConvertError;

    fn try_from(wire: v1::RecordedEvent) -> Result<Self, ConvertError> {
        let missing = || Problem::Missing.of("events.id");
        let dot = required("events.dot", wire.dot)?.try_into()?;
        let id = convert::event_id("events.id", &wire.id)?.ok_or_else(missing)?;
        Ok(Self {
            own_id: (!id.is_of_dot(&dot)).then_some(id),
            dot,
            stream: wire.stream,
            kind: wire.r#type,
            metadata: wire.metadata,
            payload: wire.payload,
            stamp: Stamp(wire.stamp),
            revision: wire.revision,
            concurrency: wire.concurrency.map(Concurrency::try_from).transpose()?.map(Box::new),
            place: wire.global_position.map_or(Place::Regional(wire.position), Place::Global),
        })
    }
}

#[cfg(test)]
mod tests {
    use anabranch_core::event::Event as Asked;
    use anabranch_core::group::GroupHeader;
    use anabranch_core::{Context, Incarnation, Origin, RegionName, Request, Seq, ShardId};
    use anabranch_proto::v1::read_response::Run;

    use super::*;

    fn group() -> Group {
        let region = RegionName::new("eu").unwrap();
        let origin = Origin { region, incarnation: Incarnation(1), shard: ShardId(0) };
        let event = |kind: &str| Asked {
            stream: "cart-1".into(),
            id: None,
            kind: kind.into(),
            metadata: BTreeMap::from([("trace".into(), "t-1".into())]),
            payload: Bytes::from_static(b"{}"),
        };
        let events = vec![event("A"), event("B"), event("C")];
        let (first, stamp) = (Seq(10), Stamp(7));
        let (context, prev) = (Context::new(), Default::default());
        let header = GroupHeader { origin, first, events: 3, stamp, context, prev };
        Group::build(header, &[Request { producer: None, events }])
    }

    fn read(group: Bytes, skipped: u32, revisions: Vec<u64>) -> Result<Vec<Event>, ReadError> {
        let mut events = Vec::new();
        let run = Run { group, skipped, position: 40, revisions };
        of_run(run, ReadOrder::Global, &mut events)?;
        Ok(events)
    }

    #[test]
    fn a_run_is_read_as_its_events() {
        let events = read(group().encoded().clone(), 1, vec![5, 6]).unwrap();
        let told = |event: &Event| {
            (event.kind.clone(), event.dot.seq.0, event.revision, event.global_position())
        };
        let told: Vec<_> = events.iter().map(told).collect();
        let wanted = [("B".into(), 11, 5, Some(40)), ("C".into(), 12, 6, Some(41))];
        assert_eq!(told, wanted);
        assert_eq!(events[0].metadata["trace"], "t-1");
        assert_eq!(events[0].id(), EventId::of_dot(&events[0].dot));
    }

    #[test]
    fn a_run_that_is_damaged_is_refused() {
        let whole = group().encoded().clone();
        let error = anyhow::Error::from(read(whole.clone(), 2, vec![5, 6]).unwrap_err());
        let error = format!("{error:#}");
        assert!(error.contains("runs.revisions: is 2, allowed are 0 to 1"), "{error}");
        assert!(read(whole.clone(), u32::MAX, vec![5]).is_err());
        for len in 0..whole.len() {
            assert!(read(whole.slice(..len), 0, vec![1, 2, 3]).is_err(), "cut at {len}");
        }
    }
}
