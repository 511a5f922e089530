//! Groups: the events of one Raft entry of their origin, byte for byte as stored and shipped.
//!
//! A group says everything about itself: whose it is, which numbers its events have, their stamp,
//! what its region held when it was made (its context), and the hash of the group before it. The
//! bytes are made once, by the origin's leader, and are the same in the origin's log, on the wire and
//! in every other region's log; [`Chain`] proves it.

use std::fmt;

use bytes::Bytes;

use crate::codec::{DecodeError, Put, Reader, SliceReader};
use crate::context::Context;
use crate::event::{EventRef, EventView, Request, RequestRef};
use crate::id::{Dot, Origin, Seq};
use crate::stamp::Stamp;

/// Hash over an origin's history up to the end of a group: blake3, cut to 16 bytes.
///
/// Two regions that hold the same chain at the same number hold the same events before it.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Chain(pub [u8; 16]);

impl Chain {
    /// Before the first group of an origin.
    pub const START: Self = Self([0; 16]);

    fn of(bytes: &[u8]) -> Self {
        let hash = blake3::hash(bytes);
        Self(hash.as_bytes()[..16].try_into().expect("a hash has 32 bytes"))
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

const VERSION: u8 = 1;
const CHAIN_LEN: usize = 16;

/// What a group says about itself before its events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupHeader {
    /// Whose events.
    pub origin: Origin,
    /// Number of the first event.
    pub first: Seq,
    /// Number of events; at least 1.
    pub events: u32,
    /// Stamp of all of them.
    pub stamp: Stamp,
    /// What the region held of *other* origins when the group was made. Of its own: all before.
    pub context: Context,
    /// Chain hash of the group before.
    pub prev: Chain,
}

/// A decoded group; shares the bytes it was decoded from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    header: GroupHeader,
    chain: Chain,
    body: Bytes,
    encoded: Bytes,
}

impl GroupHeader {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        out.put_byte(VERSION);
        self.origin.encode(&mut out);
        out.put_varint(self.first.0);
        out.put_varint(u64::from(self.events));
        out.put_u64(self.stamp.0);
        self.context.encode(&mut out);
        out.put(&self.prev.0);
        out
    }
}

impl Group {
    /// Builds the group that `header` describes from requests.
    ///
    /// # Panics
    /// If the requests do not hold `header.events` events, or the context names the group's origin.
    pub fn build(header: GroupHeader, requests: &[Request]) -> Self {
        Self::build_behind(header, requests, 0, |_, _| {}).0
    }

    /// Like [`build`](Self::build), in one buffer with what `before` puts there first: it is given the
    /// length of the group, and needs `room` bytes. Returns the whole buffer, too.
    pub(crate) fn build_behind(
        header: GroupHeader,
        requests: &[Request],
        room: usize,
        before: impl FnOnce(usize, &mut Vec<u8>),
    ) -> (Self, Bytes) {
        let events: usize = requests.iter().map(|request| request.events.len()).sum();
        assert_eq!(events, header.events as usize, "events of the group at {:?}", header.first);
        assert_eq!(
            header.context.seq(&header.origin),
            Seq(0),
            "a group's context leaves itself out"
        );
        // Exact: a large buffer that grows is copied, and its pages are cleared, several times over.
        let body: usize = requests.iter().map(Request::encoded_len).sum();
        let head = header.encode();
        let len = head.len() + body + CHAIN_LEN;
        let mut out = Vec::with_capacity(room + len);
        before(len, &mut out);
        let start = out.len();
        out.put(&head);
        for request in requests {
            request.encode(&mut out);
        }
        let body_end = out.len();
        debug_assert_eq!(body_end, start + head.len() + body);
        let chain = Chain::of(&out[start..]);
        out.put(&chain.0);
        let whole = Bytes::from(out);
        let body = whole.slice(start + head.len()..body_end);
        (Self { header, chain, body, encoded: whole.slice(start..) }, whole)
    }

    /// Reads a group that came from elsewhere: checks the chain hash and every event.
    ///
    /// # Errors
    /// Any [`DecodeError`]; [`DecodeError::Chain`] if the bytes were altered.
    pub fn decode(encoded: Bytes) -> Result<Self, DecodeError> {
        let group = Self::decode_trusted(encoded)?;
        let hashed = group.encoded.len() - CHAIN_LEN;
        if Chain::of(&group.encoded[..hashed]) != group.chain {
            return Err(DecodeError::Chain { at: group.first_dot().to_string() });
        }
        group.try_look()?;
        Ok(group)
    }

    /// Reads a group from this node's own log, whose records are checksummed: header only.
    ///
    /// # Errors
    /// Any [`DecodeError`] of the header.
    pub fn decode_trusted(encoded: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(encoded.clone());
        match reader.byte("group version")? {
            VERSION => {}
            value => {
                return Err(DecodeError::Invalid { what: "group version", value: value.into() });
            }
        }
        let origin = Origin::decode(&mut reader)?;
        let first = Seq(reader.varint("first seq")?);
        let count = reader.varint("event count")?;
        let bad_count = DecodeError::Invalid { what: "event count", value: count };
        let events = u32::try_from(count).ok().filter(|n| *n > 0).ok_or(bad_count)?;
        // Half the range of numbers stays unused, so that no sum of seqs can wrap.
        if first == Seq(0) || first.0 > u64::MAX / 2 {
            return Err(DecodeError::Invalid { what: "first seq", value: first.0 });
        }
        let stamp = Stamp(reader.u64("stamp")?);
        let context = Context::decode(&mut reader)?;
        let prev = Chain(reader.array("previous chain")?);
        let body_len = reader.remaining().checked_sub(CHAIN_LEN);
        let short =
            DecodeError::Short { what: "chain", needed: CHAIN_LEN, left: reader.remaining() };
        let body = reader.take("body", body_len.ok_or(short)?)?;
        let chain = Chain(reader.array("chain")?);
        let header = GroupHeader { origin, first, events, stamp, context, prev };
        Ok(Self { header, chain, body, encoded })
    }

    /// What the group says about itself.
    pub fn header(&self) -> &GroupHeader {
        &self.header
    }
    /// Whose events.
    pub fn origin(&self) -> &Origin {
        &self.header.origin
    }
    /// Number of the first event.
    pub fn first(&self) -> Seq {
        self.header.first
    }
    /// Number of the last event.
    pub fn last(&self) -> Seq {
        self.header.first.plus(u64::from(self.header.events) - 1)
    }
    /// Dot of the first event.
    pub fn first_dot(&self) -> Dot {
        Dot { origin: self.origin().clone(), seq: self.first() }
    }
    /// Stamp of all its events.
    pub fn stamp(&self) -> Stamp {
        self.header.stamp
    }
    /// Chain hash after this group.
    pub fn chain(&self) -> Chain {
        self.chain
    }
    /// The bytes, as stored and shipped.
    pub fn encoded(&self) -> &Bytes {
        &self.encoded
    }

    /// The requests of the group, oldest first, to be looked at where they lie.
    ///
    /// # Panics
    /// If the body is damaged: a group from elsewhere is checked by [`decode`](Self::decode), one
    /// from the log by the log's checksum, so only our own bug can do that.
    pub fn look(&self) -> Vec<RequestRef<'_>> {
        self.try_look().unwrap_or_else(|e| panic!("group at {}: {e}", self.first_dot()))
    }

    /// The events of the group, oldest first.
    ///
    /// # Panics
    /// As [`look`](Self::look).
    pub fn events(&self) -> Vec<EventView> {
        let requests = self.look();
        requests.iter().flat_map(|request| &request.events).map(|event| self.view(event)).collect()
    }

    /// An event of this group, to be kept.
    ///
    /// # Panics
    /// If it is of another one.
    pub fn view(&self, event: &EventRef<'_>) -> EventView {
        event.view(&self.body)
    }

    /// A part of one of its events, to be kept.
    ///
    /// # Panics
    /// If it is of another one.
    pub fn part(&self, of_event: &[u8]) -> Bytes {
        self.body.slice_ref(of_event)
    }

    /// As [`look`](Self::look), for a group of [`decode_trusted`](Self::decode_trusted) that came from
    /// somebody who is trusted not to have altered it.
    ///
    /// # Errors
    /// Any [`DecodeError`] of an event.
    pub fn try_look(&self) -> Result<Vec<RequestRef<'_>>, DecodeError> {
        let mut reader = SliceReader::new(&self.body);
        let mut requests = Vec::new();
        let mut events = 0u64;
        while !reader.rest().is_empty() {
            let request = RequestRef::decode(&mut reader, self.first().plus(events))?;
            events += request.events.len() as u64;
            requests.push(request);
        }
        match events == u64::from(self.header.events) {
            true => Ok(requests),
            false => Err(DecodeError::Invalid { what: "events in the body", value: events }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;
    use crate::id::{Incarnation, RegionName, ShardId};

    fn sample() -> Group {
        let origin = |region| Origin {
            region: RegionName::new(region).unwrap(),
            incarnation: Incarnation(5),
            shard: ShardId(0),
        };
        let event = |payload: &'static str| Event {
            stream: "cart-1".into(),
            id: None,
            kind: "Added".into(),
            metadata: Default::default(),
            payload: Bytes::from_static(payload.as_bytes()),
        };
        let header = GroupHeader {
            origin: origin("eu"),
            first: Seq(10),
            events: 3,
            stamp: Stamp(77),
            context: [(origin("us"), Seq(4))].into_iter().collect(),
            prev: Chain([3; 16]),
        };
        let requests = [
            Request { producer: None, events: vec![event("a"), event("b")] },
            Request { producer: None, events: vec![event("c")] },
        ];
        Group::build(header, &requests)
    }

    #[test]
    fn groups_come_back_whole() {
        let group = sample();
        let back = Group::decode(group.encoded().clone()).unwrap();
        assert_eq!(back, group);
        assert_eq!(back.last(), Seq(12));
        let payloads: Vec<_> = back.events().iter().map(|e| (e.seq, e.payload.clone())).collect();
        let expected = [(10, "a"), (11, "b"), (12, "c")];
        assert_eq!(payloads, expected.map(|(s, p)| (Seq(s), Bytes::from(p))));
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let good = sample().encoded().to_vec();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Group::decode(bad.into()).is_err(), "bit {bit} flipped");
        }
    }

    #[test]
    fn any_cut_is_noticed() {
        let good = sample().encoded().clone();
        for len in 0..good.len() {
            assert!(Group::decode(good.slice(..len)).is_err(), "cut at {len}");
        }
    }
}
