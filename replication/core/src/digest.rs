//! Digests: what a region says about itself, in one breath.

use crate::codec::{DecodeError, Put, Reader};
use crate::context::Context;
use crate::id::{Origin, Seq};
use crate::stamp::Stamp;

/// A region's word about its log, at one point of it: a *statement* and a *receipt*.
///
/// The statement: all events of `origin` stamped at or below `stamp` have numbers at or below
/// [`seq`](Self::seq). The receipt: the region durably holds `frontier`. Both are promises that lie
/// in the region's own log, so a new leader cannot break them; both stay true for ever, so digests
/// may be relayed, repeated and reordered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    /// Who speaks.
    pub origin: Origin,
    /// T of the statement: the last stamp of the region's log.
    pub stamp: Stamp,
    /// Everything the region held then, its own events included.
    pub frontier: Context,
}

impl Digest {
    /// The seq of the statement. A `stamp` without it is worthless.
    pub fn seq(&self) -> Seq {
        self.frontier.seq(&self.origin)
    }
    /// Whether another word of the same origin shows this one to be a lie: it tells of more events up to
    /// a time at which this one tells of fewer. One log never says both; one that was set back does.
    pub fn is_disproved_by(&self, other: &Self) -> bool {
        self.seq() < other.seq() && self.stamp >= other.stamp
    }
    /// Appends origin, stamp and frontier.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.origin.encode(out);
        out.put_u64(self.stamp.0);
        self.frontier.encode(out);
    }
    /// Reads what [`encode`](Self::encode) wrote.
    pub fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let origin = Origin::decode(reader)?;
        let stamp = Stamp(reader.u64("digest stamp")?);
        let frontier = Context::decode(reader)?;
        Ok(Self { origin, stamp, frontier })
    }
}
