//! Contexts: cuts of history.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

use crate::codec::{DecodeError, Put, Reader};
use crate::id::{Dot, Origin, Seq};

/// A version vector: of each origin, events 1 to its number are in the cut.
///
/// Origins with nothing in the cut are absent, so equal cuts are equal values and equal bytes.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Context {
    seqs: BTreeMap<Origin, Seq>,
}

impl Context {
    /// The empty cut.
    pub fn new() -> Self {
        Self::default()
    }
    /// Number of the last event of `origin` in the cut; 0 if none is.
    pub fn seq(&self, origin: &Origin) -> Seq {
        self.seqs.get(origin).copied().unwrap_or_default()
    }
    /// Whether the event is in the cut.
    pub fn covers_dot(&self, dot: &Dot) -> bool {
        dot.seq <= self.seq(&dot.origin)
    }
    /// Whether every event of `other` is in this cut.
    pub fn covers(&self, other: &Context) -> bool {
        other.seqs.iter().all(|(origin, seq)| *seq <= self.seq(origin))
    }
    /// Grows the cut to hold `origin`'s events up to `seq`. Never shrinks it.
    pub fn advance(&mut self, origin: &Origin, seq: Seq) {
        if seq == Seq(0) {
            return;
        }
        match self.seqs.get_mut(origin) {
            Some(held) => *held = (*held).max(seq),
            None => {
                self.seqs.insert(origin.clone(), seq);
            }
        }
    }
    /// Grows the cut to hold everything in `other`.
    pub fn merge(&mut self, other: &Context) {
        for (origin, seq) in &other.seqs {
            self.advance(origin, *seq);
        }
    }
    /// The cut that holds what both hold.
    pub fn meet(&self, other: &Context) -> Context {
        let mut both = Context::new();
        for (origin, seq) in &self.seqs {
            both.advance(origin, (*seq).min(other.seq(origin)));
        }
        both
    }
    /// What of this cut another one does not hold: its origins that go further here, with their numbers.
    pub fn beyond(&self, held: &Context) -> Context {
        self.iter()
            .filter(|(origin, seq)| held.seq(origin) < *seq)
            .map(|(origin, seq)| (origin.clone(), seq))
            .collect()
    }
    /// The same cut without one origin.
    pub fn without(&self, origin: &Origin) -> Context {
        let mut rest = self.clone();
        if let Entry::Occupied(entry) = rest.seqs.entry(origin.clone()) {
            entry.remove();
        }
        rest
    }
    /// Number of events in the cut. For a cut of the global order this is its global position.
    pub fn events(&self) -> u64 {
        self.seqs.values().fold(0, |sum, seq| sum.saturating_add(seq.0))
    }
    /// Origins with at least one event in the cut, in order, with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (&Origin, Seq)> {
        self.seqs.iter().map(|(origin, seq)| (origin, *seq))
    }
    /// True if the cut holds nothing.
    pub fn is_empty(&self) -> bool {
        self.seqs.is_empty()
    }
    /// Appends the number of origins, then each origin and its number.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_varint(self.seqs.len() as u64);
        for (origin, seq) in &self.seqs {
            origin.encode(out);
            out.put_varint(seq.0);
        }
    }
    /// Reads what [`encode`](Self::encode) wrote.
    pub fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let count = reader.count("context", Origin::ENCODED_MIN + 1)?;
        let mut context = Self::new();
        for _ in 0..count {
            let origin = Origin::decode(reader)?;
            let seq = Seq(reader.varint("context seq")?);
            // As for groups: half the range stays unused, so that the next number always exists.
            if seq.0 > u64::MAX / 2 {
                return Err(DecodeError::Invalid { what: "context seq", value: seq.0 });
            }
            context.advance(&origin, seq);
        }
        Ok(context)
    }
}

impl FromIterator<(Origin, Seq)> for Context {
    fn from_iter<I: IntoIterator<Item = (Origin, Seq)>>(seqs: I) -> Self {
        let mut context = Self::new();
        for (origin, seq) in seqs {
            context.advance(&origin, seq);
        }
        context
    }
}
impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.seqs.iter().map(|(o, s)| (o, s.0))).finish()
    }
}
impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (origin, seq)) in self.seqs.iter().enumerate() {
            let space = if at == 0 { "" } else { " " };
            write!(f, "{space}{}:{seq}", origin.region)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Incarnation, RegionName, ShardId};

    fn origin(region: &str) -> Origin {
        let region = RegionName::new(region).unwrap();
        Origin { region, incarnation: Incarnation(1), shard: ShardId(0) }
    }
    fn cut(seqs: &[(&str, u64)]) -> Context {
        seqs.iter().map(|(region, seq)| (origin(region), Seq(*seq))).collect()
    }

    #[test]
    fn cuts_form_a_lattice() {
        let (a, b) = (cut(&[("eu", 3), ("us", 1)]), cut(&[("eu", 2), ("asia", 5)]));
        let mut join = a.clone();
        join.merge(&b);
        assert_eq!(join, cut(&[("eu", 3), ("us", 1), ("asia", 5)]));
        assert_eq!(a.meet(&b), cut(&[("eu", 2)]));
        assert!(join.covers(&a) && join.covers(&b) && !a.covers(&b) && !b.covers(&a));
        assert_eq!(join.events(), 9);
        assert_eq!(a.beyond(&b), cut(&[("eu", 3), ("us", 1)]));
        assert_eq!(a.beyond(&join), Context::new());
    }

    #[test]
    fn nothing_held_is_the_same_as_not_named() {
        let mut named = cut(&[("eu", 0)]);
        assert_eq!(named, Context::new());
        named.advance(&origin("eu"), Seq(4));
        named.advance(&origin("eu"), Seq(2));
        assert_eq!(named.seq(&origin("eu")), Seq(4), "a cut never shrinks");
        assert_eq!(named.without(&origin("eu")), Context::new());
    }

    #[test]
    fn cuts_come_back() {
        let context = cut(&[("eu", 300), ("us", 1)]);
        let mut bytes = Vec::new();
        context.encode(&mut bytes);
        assert_eq!(Context::decode(&mut Reader::new(bytes.into())), Ok(context));
    }

    #[test]
    fn numbers_without_a_next_are_refused() {
        let mut bytes = Vec::new();
        cut(&[("eu", u64::MAX)]).encode(&mut bytes);
        let refused = Context::decode(&mut Reader::new(bytes.into()));
        let value = u64::MAX;
        assert_eq!(refused, Err(DecodeError::Invalid { what: "context seq", value }));
    }
}
