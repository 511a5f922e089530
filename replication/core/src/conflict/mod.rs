//! Conflicts: events of one stream of which neither had seen the other.
//!
//! Two events of a stream are *concurrent* if neither is in what the other's region held when it was
//! made. Every order that puts causes first (a region's own, and the global one) meets such a pair in
//! some order; whoever walks it finds the pair at the second of the two, because that one's context
//! does not hold the first. So each pair is found exactly once, and every region that holds the same
//! events finds the same pairs; in the global order at the same places, too.
//!
//! The events of a group share one context, so those of one stream are concurrent with the same
//! others: what is found is one [`Conflict`] a group and stream, not one a pair. And of every other
//! origin, what is concurrent with it is a [`Run`]: a piece of that origin's events of the stream
//! without a hole, since contexts only grow along an origin.
//!
//! [`Recent`] finds, [`Policy`] decides. Which events have lost is a function of the *set* of events,
//! never of the order in which they arrived.

mod policy;
mod recent;
mod resolution;
mod run;
#[cfg(test)]
mod tests;

use std::fmt;

pub use policy::{BadDeclaration, Declaration, Policy, REGIONS_MAX, Standing};
pub use recent::Recent;
pub use resolution::{BadResolution, RESOLVED, Resolution, Resolved, first_of};
pub use run::Run;

use crate::codec::{DecodeError, Put, Reader, Text};
use crate::id::Dot;

/// Events of a stream, all of one group, and what they are concurrent with among the events that came
/// before them in the order that was walked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The stream.
    pub stream: Text,
    /// The events that came second.
    pub events: Run,
    /// Those that came first: at most one run an origin, by origin; at least one.
    pub against: Vec<Run>,
}

/// Name of a conflict: the same in every region whose order meets these events second, and so in the
/// global order the same in all.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConflictId(pub [u8; 16]);

impl ConflictId {
    fn of(dot: &Dot) -> Self {
        let mut bytes = b"anabranch conflict of event ".to_vec();
        dot.origin.encode(&mut bytes);
        bytes.put_u64(dot.seq.0);
        let hash = blake3::hash(&bytes);
        Self(hash.as_bytes()[..16].try_into().expect("a hash has 32 bytes"))
    }
}

impl fmt::Display for ConflictId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}
impl fmt::Debug for ConflictId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Conflict {
    /// Its name: made of the dot of the first of its events. An event belongs to one stream, so no
    /// other conflict has it.
    pub fn id(&self) -> ConflictId {
        ConflictId::of(&self.events.oldest())
    }
    /// Number of concurrent pairs in it. Summed up over a set of events, it is the same in every order.
    pub fn pairs(&self) -> u64 {
        let against = self.against.iter().fold(0_u64, |sum, run| sum.saturating_add(run.events));
        against.saturating_mul(self.events.events)
    }
    /// Appends stream, events, and what they are against.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_slice_with_len(self.stream.as_bytes());
        self.events.encode(out);
        out.put_varint(self.against.len() as u64);
        self.against.iter().for_each(|run| run.encode(out));
    }
    /// Reads what [`encode`](Self::encode) wrote.
    pub fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let stream = reader.text("stream of a conflict")?;
        let events = Run::decode(reader)?;
        let count = reader.count("runs of a conflict", Run::ENCODED_MIN)?;
        let against = (0..count).map(|_| Run::decode(reader)).collect::<Result<_, _>>()?;
        Ok(Self { stream, events, against })
    }
}
