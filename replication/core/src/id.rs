//! The names of things: regions, nodes, incarnations, shards, origins, dots.

use std::fmt;
use std::sync::Arc;

use crate::codec::{DecodeError, Put, Reader};

/// Name of a region: `us-east`. Also a DNS label, because certificates carry it.
///
/// Shape: 1 to 63 of `a-z`, `0-9` and `-`, not starting or ending with `-`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RegionName(Arc<str>);

/// A region name that breaks the rules.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("region name {name:?} must be 1 to 63 of a-z, 0-9 and -, not starting or ending with -")]
pub struct InvalidRegionName {
    /// What was given.
    pub name: String,
}

impl RegionName {
    /// Checks and wraps a name.
    ///
    /// # Errors
    /// [`InvalidRegionName`] unless it is a DNS label.
    pub fn new(name: &str) -> Result<Self, InvalidRegionName> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let edges = !name.starts_with('-') && !name.ends_with('-');
        if (1..=63).contains(&name.len()) && edges && name.bytes().all(allowed) {
            Ok(Self(name.into()))
        } else {
            Err(InvalidRegionName { name: name.to_owned() })
        }
    }
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// Appends the name: one length byte, then the text.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_slice_with_len(self.0.as_bytes());
    }
    /// Reads what [`encode`](Self::encode) wrote.
    pub fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let text = reader.text("region name")?;
        Self::new(&text).map_err(|_| DecodeError::Text { what: "region name" })
    }
}

impl fmt::Debug for RegionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Display for RegionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl std::str::FromStr for RegionName {
    type Err = InvalidRegionName;
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::new(name)
    }
}

/// Random id that a region's log is born with. A rebuilt or restored region gets a new one, always.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Incarnation(pub u128);

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}
impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// One Raft group of a region. Streams are hashed to shards.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId(pub u16);

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// One server process of a region. Never reused, also not after its disk was lost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// One append-only sequence of events that only its shard's leader extends.
///
/// Ordered by region name, then incarnation, then shard: the tie-break of the global order.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    /// Region that writes it.
    pub region: RegionName,
    /// Which life of that region.
    pub incarnation: Incarnation,
    /// Which shard of the region.
    pub shard: ShardId,
}

impl Origin {
    /// Least number of bytes an encoded origin takes.
    pub const ENCODED_MIN: usize = 2 + 16 + 2;

    /// Appends name, incarnation and shard.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.region.encode(out);
        out.put_u128(self.incarnation.0);
        out.put_u16(self.shard.0);
    }
    /// Reads what [`encode`](Self::encode) wrote.
    pub fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let region = RegionName::decode(reader)?;
        let incarnation = Incarnation(reader.u128("incarnation")?);
        let shard = ShardId(reader.u16("shard")?);
        Ok(Self { region, incarnation, shard })
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:08x}/{}", self.region, self.incarnation.0 >> 96, self.shard)
    }
}

/// Number of an event within its origin: dense from 1. 0 stands for "before the first".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Seq(pub u64);

impl Seq {
    /// The number after this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
    /// The number `count` further on.
    pub fn plus(self, count: u64) -> Self {
        Self(self.0 + count)
    }
}
impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The identity of an event.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Dot {
    /// Whose event.
    pub origin: Origin,
    /// Which of them.
    pub seq: Seq,
}

impl fmt::Debug for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl fmt::Display for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.origin, self.seq)
    }
}

/// Who retries: a random id that one producer keeps for its life.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProducerId(pub [u8; 16]);

impl fmt::Debug for ProducerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn region_names_are_dns_labels() {
        for good in ["a", "us-east", "eu2", &"x".repeat(63)] {
            assert!(RegionName::new(good).is_ok(), "{good} is a label");
        }
        for bad in ["", "-a", "a-", "US", "a.b", "ü", &"x".repeat(64)] {
            assert!(RegionName::new(bad).is_err(), "{bad} is no label");
        }
    }

    #[test]
    fn origins_come_back_and_sort_by_region_first() {
        let origin = |name, life| Origin {
            region: RegionName::new(name).unwrap(),
            incarnation: Incarnation(life),
            shard: ShardId(3),
        };
        let mut bytes = Vec::new();
        origin("eu", 7).encode(&mut bytes);
        let back = Origin::decode(&mut Reader::new(bytes.into()));
        assert_eq!(back, Ok(origin("eu", 7)));
        assert!(origin("asia", 9) < origin("eu", 1));
    }
}
