//! Runs: pieces of one origin's events of a stream.

use crate::codec::{DecodeError, Put, Reader};
use crate::id::{Dot, Origin, Seq};
use crate::stamp::Stamp;

/// Of one stream, all events of `origin` from `first` to `last`, both included. Events of other streams
/// may have numbers between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Whose events.
    pub origin: Origin,
    /// Number of the first.
    pub first: Seq,
    /// Number of the last.
    pub last: Seq,
    /// How many of them are of the stream; at least 1.
    pub events: u64,
    /// Stamp of the first.
    pub first_stamp: Stamp,
    /// Stamp of the last. Stamps rise along an origin, so none is later.
    pub last_stamp: Stamp,
}

impl Run {
    /// Least number of bytes an encoded run takes.
    pub const ENCODED_MIN: usize = Origin::ENCODED_MIN + 3 + 16;

    /// One event.
    pub fn of(dot: &Dot, stamp: Stamp) -> Self {
        Self {
            origin: dot.origin.clone(),
            first: dot.seq,
            last: dot.seq,
            events: 1,
            first_stamp: stamp,
            last_stamp: stamp,
        }
    }
    /// Dot of the first event.
    pub fn oldest(&self) -> Dot {
        Dot { origin: self.origin.clone(), seq: self.first }
    }
    /// Dot of the last event.
    pub fn newest(&self) -> Dot {
        Dot { origin: self.origin.clone(), seq: self.last }
    }
    /// Whether an event of the stream is in it.
    pub fn holds(&self, origin: &Origin, seq: Seq) -> bool {
        *origin == self.origin && (self.first..=self.last).contains(&seq)
    }
    /// Takes in the run of the same origin that follows it in the stream.
    ///
    /// # Panics
    /// If it is another origin's, or does not come later: what it holds would be counted twice.
    pub fn extend(&mut self, next: &Run) {
        assert_eq!(self.origin, next.origin, "a run is of one origin");
        assert!(self.last < next.first, "{} follows {}", next.first, self.last);
        self.last = next.last;
        self.events = self.events.saturating_add(next.events);
        self.last_stamp = next.last_stamp;
    }
    /// Appends origin, numbers, count and stamps.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.origin.encode(out);
        out.put_varint(self.first.0);
        out.put_varint(self.last.0);
        out.put_varint(self.events);
        out.put_u64(self.first_stamp.0);
        out.put_u64(self.last_stamp.0);
    }
    /// Reads what [`encode`](Self::encode) wrote.
    pub fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            origin: Origin::decode(reader)?,
            first: Seq(reader.varint("first seq of a run")?),
            last: Seq(reader.varint("last seq of a run")?),
            events: reader.varint("events of a run")?,
            first_stamp: Stamp(reader.u64("first stamp of a run")?),
            last_stamp: Stamp(reader.u64("last stamp of a run")?),
        })
    }
}
