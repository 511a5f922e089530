//! Events and requests: what a client asks to append, and its bytes in a group.
//!
//! An event is encoded once, by the leader that sequences it. The same bytes lie in the log, go to
//! followers and to other regions, and back readers.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::codec::{DecodeError, Put, SliceReader, Text, varint_len};
use crate::id::{Dot, ProducerId, Seq};

/// Id that a client may give an event; the second key of exactly-once, beside the producer's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId(pub [u8; 16]);

/// The version of a UUID, where it stands.
const VERSION_8: u8 = 0x80;

impl EventId {
    /// The id of an event whose client gave none: the same in every region, derived from its dot.
    pub fn of_dot(dot: &Dot) -> Self {
        let mut bytes = Vec::with_capacity(64);
        dot.origin.encode(&mut bytes);
        bytes.put_u64(dot.seq.0);
        let hash = blake3::hash(&bytes);
        let mut id: [u8; 16] = hash.as_bytes()[..16].try_into().expect("a hash has 32 bytes");
        // RFC 9562: version 8 (custom), variant 10.
        id[6] = (id[6] & 0x0f) | VERSION_8;
        id[8] = (id[8] & 0x3f) | 0x80;
        Self(id)
    }

    /// Whether it is the one derived from this dot. Clients' own ids are rarely of version 8, and then it takes
    /// no hash to tell.
    pub fn is_of_dot(&self, dot: &Dot) -> bool {
        self.0[6] & 0xf0 == VERSION_8 && *self == Self::of_dot(dot)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = format!("{:032x}", u128::from_be_bytes(self.0));
        let (a, b, c) = (&hex[..8], &hex[8..12], &hex[12..16]);
        write!(f, "{a}-{b}-{c}-{}-{}", &hex[16..20], &hex[20..])
    }
}
impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An event that a client asks to append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Stream it belongs to.
    pub stream: String,
    /// Id given by the client, if any.
    pub id: Option<EventId>,
    /// What kind of thing happened: `FileChanged`.
    pub kind: String,
    /// Small text pairs beside the payload: trace context, content type.
    pub metadata: BTreeMap<String, String>,
    /// The client's bytes, never looked into.
    pub payload: Bytes,
}

/// Who asks, for exactly-once: the same triple always means the same request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProducerTag {
    /// The producer.
    pub id: ProducerId,
    /// Its life: a higher epoch fences every lower one.
    pub epoch: u32,
    /// Number of the request within the epoch.
    pub sequence: u64,
}

/// Events that one client asked to append together: all of them or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Who asks, if the client wants retries recognised by sequence.
    pub producer: Option<ProducerTag>,
    /// At least one event.
    pub events: Vec<Event>,
}

/// Hash over what a request asks for: streams, kinds, ids and payloads of its events, in their order.
/// Equal for every attempt at it, so a request under a sequence or an id that is known already is a
/// retry only if this is equal, too. Metadata are left out: a trace context differs from attempt to
/// attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ContentHash(pub u64);

impl ContentHash {
    /// The hash of a request without events.
    const START: Self = Self(0);

    fn then(self, stream: &str, kind: &str, id: Option<EventId>, payload: &[u8]) -> Self {
        // Each part is seeded with the hash so far, so it matters where one ends and the next begins.
        let id = id.map_or([0; 16], |id| id.0);
        let parts = [stream.as_bytes(), kind.as_bytes(), &id, payload];
        Self(parts.iter().fold(self.0, |hash, part| xxh3_64_with_seed(part, hash)))
    }
}

impl Request {
    /// Hash over what it asks for.
    pub fn content_hash(&self) -> ContentHash {
        self.events.iter().fold(ContentHash::START, |hash, event| {
            hash.then(&event.stream, &event.kind, event.id, &event.payload)
        })
    }
}

/// Why what is read again cannot fail.
const READ_BEFORE: &str = "read once when the event was decoded";

const HAS_ID: u8 = 1;
const HAS_PRODUCER: u8 = 1;

fn is_of_the_store(stream: &str, kind: &str) -> bool {
    stream.starts_with('$') || kind.starts_with('$')
}

impl Event {
    /// Whether its stream or its type is one of the store's own, which begin with `$`.
    pub fn is_of_the_store(&self) -> bool {
        is_of_the_store(&self.stream, &self.kind)
    }

    /// Bytes before the payload.
    fn head_len(&self) -> usize {
        let text = |text: &str| varint_len(text.len() as u64) + text.len();
        let metadata = self.metadata.iter().map(|(key, value)| text(key) + text(value));
        let id = self.id.map_or(0, |id| id.0.len());
        let names = text(&self.stream) + text(&self.kind);
        1 + id + names + varint_len(self.metadata.len() as u64) + metadata.sum::<usize>()
    }

    fn encoded_len(&self) -> usize {
        let len = self.head_len() + self.payload.len();
        varint_len(len as u64) + len
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.put_varint((self.head_len() + self.payload.len()) as u64);
        out.put_byte(if self.id.is_some() { HAS_ID } else { 0 });
        if let Some(id) = self.id {
            out.put(&id.0);
        }
        out.put_slice_with_len(self.stream.as_bytes());
        out.put_slice_with_len(self.kind.as_bytes());
        out.put_varint(self.metadata.len() as u64);
        for (key, value) in &self.metadata {
            out.put_slice_with_len(key.as_bytes());
            out.put_slice_with_len(value.as_bytes());
        }
        out.put(&self.payload);
    }
}

impl Request {
    /// Bytes that [`encode`](Self::encode) appends.
    pub fn encoded_len(&self) -> usize {
        let producer = self.producer.map_or(0, |tag| tag.id.0.len() + 4 + varint_len(tag.sequence));
        let events = self.events.iter().map(Event::encoded_len);
        1 + producer + varint_len(self.events.len() as u64) + events.sum::<usize>()
    }

    /// Appends the request to the body of a group.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_byte(if self.producer.is_some() { HAS_PRODUCER } else { 0 });
        if let Some(tag) = self.producer {
            out.put(&tag.id.0);
            out.put_u32(tag.epoch);
            out.put_varint(tag.sequence);
        }
        out.put_varint(self.events.len() as u64);
        for event in &self.events {
            event.encode(out);
        }
    }
}

/// An event as it lies in a group, to be looked at where it lies. [`EventView`] is the same to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventRef<'a> {
    /// Its number within its origin.
    pub seq: Seq,
    /// Id given by the client, if any; see [`EventId::of_dot`] for the others.
    pub id: Option<EventId>,
    /// Stream it belongs to.
    pub stream: &'a str,
    /// What kind of thing happened.
    pub kind: &'a str,
    /// Encoded metadata; see [`metadata`](Self::metadata).
    metadata: &'a [u8],
    /// The client's bytes.
    pub payload: &'a [u8],
    /// The whole encoded event, as it is hashed.
    pub encoded: &'a [u8],
}

impl<'a> EventRef<'a> {
    /// Reads the next event of a group's body.
    fn decode(reader: &mut SliceReader<'a>, seq: Seq) -> Result<Self, DecodeError> {
        let encoded = reader.slice("event")?;
        let mut fields = SliceReader::new(encoded);
        let id = match fields.byte("event flags")? {
            0 => None,
            HAS_ID => Some(EventId(fields.array("event id")?)),
            value => return Err(DecodeError::Invalid { what: "event flags", value: value.into() }),
        };
        let stream = fields.text("stream name")?;
        let kind = fields.text("event type")?;
        let before = fields.rest();
        for _ in 0..fields.count("metadata", 2)? {
            fields.text("metadata key")?;
            fields.text("metadata value")?;
        }
        let payload = fields.rest();
        let metadata = &before[..before.len() - payload.len()];
        Ok(Self { seq, id, stream, kind, metadata, payload, encoded })
    }

    /// As [`Event::is_of_the_store`].
    pub fn is_of_the_store(&self) -> bool {
        is_of_the_store(self.stream, self.kind)
    }

    /// The text pairs beside the payload, in the order of their keys.
    pub fn metadata(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        pairs(self.metadata)
    }

    /// The event, sharing the allocation of the bytes it lies in.
    ///
    /// # Panics
    /// If it does not lie in `whole`.
    pub fn view(&self, whole: &Bytes) -> EventView {
        EventView {
            seq: self.seq,
            id: self.id,
            stream: Text::part_of(whole, self.stream),
            kind: Text::part_of(whole, self.kind),
            metadata: whole.slice_ref(self.metadata),
            payload: whole.slice_ref(self.payload),
            encoded: whole.slice_ref(self.encoded),
        }
    }
}

/// A request as it lies in a group, to be looked at where it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestRef<'a> {
    /// Who asked.
    pub producer: Option<ProducerTag>,
    /// What was appended, with dense sequence numbers.
    pub events: Vec<EventRef<'a>>,
}

/// Room for this many events is made at once: what bytes claim of themselves is believed so far.
const EVENTS_AT_ONCE: usize = 1024;

impl<'a> RequestRef<'a> {
    /// Reads the next request of a group's body, whose first event is number `first`.
    pub fn decode(reader: &mut SliceReader<'a>, first: Seq) -> Result<Self, DecodeError> {
        let producer = match reader.byte("request flags")? {
            0 => None,
            HAS_PRODUCER => Some(ProducerTag {
                id: ProducerId(reader.array("producer id")?),
                epoch: reader.u32("producer epoch")?,
                sequence: reader.varint("producer sequence")?,
            }),
            value => {
                return Err(DecodeError::Invalid { what: "request flags", value: value.into() });
            }
        };
        let count = reader.count("events of a request", 5)?;
        if count == 0 {
            return Err(DecodeError::Invalid { what: "events of a request", value: 0 });
        }
        let mut events = Vec::with_capacity(count.min(EVENTS_AT_ONCE));
        for nth in 0..count as u64 {
            events.push(EventRef::decode(reader, first.plus(nth))?);
        }
        Ok(Self { producer, events })
    }

    /// Hash over what was asked for.
    pub fn content_hash(&self) -> ContentHash {
        self.events.iter().fold(ContentHash::START, |hash, event| {
            hash.then(event.stream, event.kind, event.id, event.payload)
        })
    }
}

/// An event as it lies in a group: its fields share the group's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventView {
    /// Its number within its origin.
    pub seq: Seq,
    /// Id given by the client, if any; see [`EventId::of_dot`] for the others.
    pub id: Option<EventId>,
    /// Stream it belongs to.
    pub stream: Text,
    /// What kind of thing happened.
    pub kind: Text,
    /// Encoded metadata; see [`metadata`](Self::metadata).
    metadata: Bytes,
    /// The client's bytes.
    pub payload: Bytes,
    /// The whole encoded event, as it is hashed.
    pub encoded: Bytes,
}

impl EventView {
    /// As [`Event::is_of_the_store`].
    pub fn is_of_the_store(&self) -> bool {
        is_of_the_store(&self.stream, &self.kind)
    }

    /// The text pairs beside the payload, in the order of their keys.
    pub fn metadata(&self) -> Vec<(Text, Text)> {
        let shared = |text| Text::part_of(&self.metadata, text);
        pairs(&self.metadata).map(|(key, value)| (shared(key), shared(value))).collect()
    }
}

/// The text pairs of encoded metadata.
///
/// # Panics
/// If the bytes were not read before: decoding an event goes through them.
fn pairs<'a>(metadata: &'a [u8]) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
    let mut reader = SliceReader::new(metadata);
    let count = reader.count("metadata", 2).expect(READ_BEFORE);
    (0..count).map(move |_| {
        let mut text = |what| reader.text(what).expect(READ_BEFORE);
        (text("metadata key"), text("metadata value"))
    })
}

/// The category of a stream: the part of its name before the first `-`, or all of it.
pub fn category(stream: &str) -> &str {
    stream.split('-').next().unwrap_or(stream)
}

/// The shard that holds `stream`, of `shards` in its region. The same in every region.
///
/// # Panics
/// If `shards` is 0.
pub fn shard_of(stream: &str, shards: u16) -> crate::id::ShardId {
    let hash = xxhash_rust::xxh3::xxh3_64(stream.as_bytes());
    crate::id::ShardId((hash % u64::from(shards)) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn event(stream: &str, payload: &str) -> Event {
        Event {
            stream: stream.into(),
            id: None,
            kind: "Happened".into(),
            metadata: BTreeMap::from([("trace".into(), "t-1".into())]),
            payload: Bytes::copy_from_slice(payload.as_bytes()),
        }
    }

    #[test]
    fn requests_come_back_with_dense_numbers() {
        let tag = ProducerTag { id: ProducerId([7; 16]), epoch: 2, sequence: 300 };
        let mut second = event("cart-2", "");
        second.id = Some(EventId([9; 16]));
        let request = Request { producer: Some(tag), events: vec![event("cart-1", "one"), second] };
        let mut bytes = Vec::new();
        request.encode(&mut bytes);
        let bytes = Bytes::from(bytes);
        let mut reader = SliceReader::new(&bytes);
        let view = RequestRef::decode(&mut reader, Seq(41)).unwrap();
        assert!(reader.rest().is_empty(), "all of it is the request");
        assert_eq!(view.producer, Some(tag));
        assert_eq!((view.events[0].seq, view.events[1].seq), (Seq(41), Seq(42)));
        assert_eq!(view.events[0].payload, b"one");
        assert_eq!(
            view.events[0].view(&bytes).metadata(),
            vec![(Text::from("trace"), Text::from("t-1"))]
        );
        assert_eq!(view.events[1].id, Some(EventId([9; 16])));
        assert_eq!(view.events[1].stream, "cart-2");
    }

    #[test]
    fn every_cut_of_a_request_is_refused_not_misread() {
        let request = Request { producer: None, events: vec![event("a-1", "xyz")] };
        let mut bytes = Vec::new();
        request.encode(&mut bytes);
        for len in 0..bytes.len() {
            let mut reader = SliceReader::new(&bytes[..len]);
            assert!(RequestRef::decode(&mut reader, Seq(1)).is_err(), "cut at {len}");
        }
    }

    #[test]
    fn categories_end_at_the_first_dash() {
        assert_eq!(category("cart-7-b"), "cart");
        assert_eq!(category("plain"), "plain");
    }
}
