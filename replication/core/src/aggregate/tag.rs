//! Which operation did it: tags, and what an operation knows of others.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::codec::{DecodeError, Put, Reader};
use crate::context::Context;
use crate::id::{Dot, Origin, Seq};
use crate::stamp::Stamp;

/// Which operation it is: the event that carries it, and its number within the event.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Tag {
    pub(crate) origin: Arc<Origin>,
    pub(crate) seq: Seq,
    pub(crate) nth: u32,
}

/// What a request asks for, whichever region it reached: the same for its retry in another region,
/// which is another event with another dot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Mark {
    pub(crate) identity: u128,
    pub(crate) nth: u32,
}

/// An operation on its way into a field.
#[derive(Debug, Clone)]
pub(crate) struct Place<'a> {
    pub(crate) tag: Tag,
    pub(crate) mark: Mark,
    pub(crate) stamp: Stamp,
    /// Everything that the operation's region held before it.
    pub(crate) held: &'a Context,
    /// What its client had seen, if it said so; never more than `held`.
    pub(crate) observed: Option<&'a Context>,
    /// Whether a later operation of the event takes back what this one adds.
    pub(crate) undone: bool,
}

impl Place<'_> {
    /// Whether the region held the other operation when this one was made.
    pub(crate) fn held(&self, other: &Tag) -> bool {
        self.held.seq(&other.origin) >= other.seq || self.follows_in_event(other)
    }
    /// Whether whoever made the operation had seen the other one.
    pub(crate) fn observed(&self, other: &Tag) -> bool {
        match self.observed {
            Some(seen) => seen.seq(&other.origin) >= other.seq || self.follows_in_event(other),
            None => self.held(other),
        }
    }
    fn follows_in_event(&self, other: &Tag) -> bool {
        other.seq == self.tag.seq && other.nth < self.tag.nth && other.origin == self.tag.origin
    }
}

/// Whether every region holds it.
pub(crate) fn is_stable(tag: &Tag, stable: &Context) -> bool {
    stable.seq(&tag.origin) >= tag.seq
}

/// One allocation an origin, shared by all tags.
#[derive(Debug, Default)]
pub struct Origins {
    known: BTreeSet<Arc<Origin>>,
}

impl Origins {
    /// The shared handle of an origin.
    pub(crate) fn share(&mut self, origin: &Origin) -> Arc<Origin> {
        match self.known.get(origin) {
            Some(known) => Arc::clone(known),
            None => {
                let shared = Arc::new(origin.clone());
                self.known.insert(Arc::clone(&shared));
                shared
            }
        }
    }
    pub(crate) fn tag(&mut self, dot: &Dot, nth: u32) -> Tag {
        Tag { origin: self.share(&dot.origin), seq: dot.seq, nth }
    }
}

/// Writes states: every origin once, in front.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    pub(crate) bytes: Vec<u8>,
    origins: Vec<Arc<Origin>>,
}

impl Writer {
    pub(crate) fn tag(&mut self, tag: &Tag) {
        let known = self.origins.iter().position(|origin| *origin == tag.origin);
        let at = known.unwrap_or_else(|| {
            self.origins.push(Arc::clone(&tag.origin));
            self.origins.len() - 1
        });
        self.bytes.put_varint(at as u64);
        self.bytes.put_varint(tag.seq.0);
        self.bytes.put_varint(tag.nth.into());
    }
    pub(crate) fn tags(&mut self, tags: &[Tag]) {
        self.bytes.put_varint(tags.len() as u64);
        tags.iter().for_each(|tag| self.tag(tag));
    }
    pub(crate) fn mark(&mut self, mark: Mark) {
        self.bytes.put_u128(mark.identity);
        self.bytes.put_varint(mark.nth.into());
    }
    /// A whole state: its version, events and bad events, then all that was written.
    pub(crate) fn finish_state(self, version: u8, counts: [u64; 2], out: &mut Vec<u8>) {
        out.put_byte(version);
        counts.iter().for_each(|count| out.put_varint(*count));
        out.put(&self.finish());
    }
    fn finish(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bytes.len() + 32 * self.origins.len() + 2);
        out.put_varint(self.origins.len() as u64);
        self.origins.iter().for_each(|origin| origin.encode(&mut out));
        out.put(&self.bytes);
        out
    }
}

/// Reads what [`Writer`] wrote.
pub(crate) struct Loader {
    pub(crate) reader: Reader,
    origins: Vec<Arc<Origin>>,
}

impl Loader {
    /// Reads what [`Writer::finish_state`] put in front: events and bad events.
    pub(crate) fn of_state(
        version: u8,
        mut reader: Reader,
        shared: &mut Origins,
    ) -> Result<([u64; 2], Self), DecodeError> {
        let found = reader.byte("version of a state")?;
        if found != version {
            let (what, value) = ("version of a state", found.into());
            return Err(DecodeError::Invalid { what, value });
        }
        let events = reader.varint("events of a state")?;
        let bad = reader.varint("bad events of a state")?;
        Ok(([events, bad], Self::new(reader, shared)?))
    }
    fn new(mut reader: Reader, shared: &mut Origins) -> Result<Self, DecodeError> {
        let count = reader.count("origins of a state", Origin::ENCODED_MIN)?;
        let origins = (0..count)
            .map(|_| Origin::decode(&mut reader).map(|origin| shared.share(&origin)))
            .collect::<Result<_, _>>()?;
        Ok(Self { reader, origins })
    }
    pub(crate) fn nth(&mut self) -> Result<u32, DecodeError> {
        let value = self.reader.varint("number of an operation")?;
        let wrong = DecodeError::Invalid { what: "number of an operation", value };
        u32::try_from(value).map_err(|_| wrong)
    }
    pub(crate) fn tag(&mut self) -> Result<Tag, DecodeError> {
        let at = self.reader.varint("origin of a tag")?;
        let wrong = DecodeError::Invalid { what: "origin of a tag", value: at };
        let origin = usize::try_from(at).ok().and_then(|at| self.origins.get(at)).cloned();
        let seq = Seq(self.reader.varint("seq of a tag")?);
        Ok(Tag { origin: origin.ok_or(wrong)?, seq, nth: self.nth()? })
    }
    pub(crate) fn tags(&mut self) -> Result<Vec<Tag>, DecodeError> {
        let count = self.reader.count("tags", 3)?;
        (0..count).map(|_| self.tag()).collect()
    }
    pub(crate) fn mark(&mut self) -> Result<Mark, DecodeError> {
        let identity = self.reader.u128("identity of an operation")?;
        Ok(Mark { identity, nth: self.nth()? })
    }
}

/// A tag as it goes into a canonical form.
pub(crate) fn put_canonical(tag: &Tag, out: &mut Vec<u8>) {
    tag.origin.encode(out);
    out.put_varint(tag.seq.0);
    out.put_varint(tag.nth.into());
}

pub(crate) fn put_canonical_all(tags: &[Tag], out: &mut Vec<u8>) {
    let mut tags: Vec<_> = tags.iter().collect();
    tags.sort_unstable();
    out.put_varint(tags.len() as u64);
    tags.into_iter().for_each(|tag| put_canonical(tag, out));
}
