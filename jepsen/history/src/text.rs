//! How the plain types of the store are written in a saved history: as short texts, the same always.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

use anabranch_client::{
    Context, Dot, EventId, Expect, Order, Origin, ProducerId, ProducerTag, Stamp,
};
use anabranch_core::{Incarnation, RegionName, Seq, ShardId};
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serializer};

use crate::content::Mark;

/// A value with a text that tells all of it.
pub trait Text: Sized {
    /// The text.
    fn text(&self) -> String;
    /// The value behind a text; none if it is not one.
    fn parse(text: &str) -> Option<Self>;
}

impl Text for Origin {
    fn text(&self) -> String {
        format!("{}/{}/{}", self.region, self.incarnation, self.shard)
    }
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let region = RegionName::new(parts.next()?).ok()?;
        let incarnation = Incarnation(u128::from_str_radix(parts.next()?, 16).ok()?);
        let shard = ShardId(parts.next()?.parse().ok()?);
        parts.next().is_none().then_some(Self { region, incarnation, shard })
    }
}
impl Text for Dot {
    fn text(&self) -> String {
        format!("{}:{}", self.origin.text(), self.seq)
    }
    fn parse(text: &str) -> Option<Self> {
        let (origin, seq) = text.rsplit_once(':')?;
        Some(Self { origin: Origin::parse(origin)?, seq: Seq(seq.parse().ok()?) })
    }
}
impl Text for Context {
    fn text(&self) -> String {
        let dots = self.iter().map(|(origin, seq)| Dot { origin: origin.clone(), seq }.text());
        dots.collect::<Vec<_>>().join(" ")
    }
    fn parse(text: &str) -> Option<Self> {
        let dots = text.split_whitespace().map(Dot::parse);
        dots.map(|dot| dot.map(|dot| (dot.origin, dot.seq))).collect()
    }
}
impl Text for EventId {
    fn text(&self) -> String {
        format!("{:032x}", u128::from_be_bytes(self.0))
    }
    fn parse(text: &str) -> Option<Self> {
        Some(Self(u128::from_str_radix(text, 16).ok()?.to_be_bytes()))
    }
}
impl Text for Stamp {
    fn text(&self) -> String {
        self.0.to_string()
    }
    fn parse(text: &str) -> Option<Self> {
        text.parse().ok().map(Self)
    }
}
impl Text for ProducerTag {
    fn text(&self) -> String {
        format!("{:032x}.{}.{}", u128::from_be_bytes(self.id.0), self.epoch, self.sequence)
    }
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let id = ProducerId(u128::from_str_radix(parts.next()?, 16).ok()?.to_be_bytes());
        let (epoch, sequence) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        parts.next().is_none().then_some(Self { id, epoch, sequence })
    }
}
impl Text for Mark {
    fn text(&self) -> String {
        self.to_string()
    }
    fn parse(text: &str) -> Option<Self> {
        Mark::parse(text)
    }
}
impl Text for Expect {
    fn text(&self) -> String {
        match self {
            Self::Any => "any".into(),
            Self::NoStream => "no-stream".into(),
            Self::Exists => "exists".into(),
            Self::Revision(revision) => revision.to_string(),
        }
    }
    fn parse(text: &str) -> Option<Self> {
        match text {
            "any" => Some(Self::Any),
            "no-stream" => Some(Self::NoStream),
            "exists" => Some(Self::Exists),
            revision => revision.parse().ok().map(Self::Revision),
        }
    }
}
impl Text for Order {
    fn text(&self) -> String {
        match self {
            Self::Regional => "regional".into(),
            Self::Global => "global".into(),
        }
    }
    fn parse(text: &str) -> Option<Self> {
        match text {
            "regional" => Some(Self::Regional),
            "global" => Some(Self::Global),
            _ => None,
        }
    }
}
impl Text for Bytes {
    fn text(&self) -> String {
        self.iter().map(|byte| format!("{byte:02x}")).collect()
    }
    fn parse(text: &str) -> Option<Self> {
        let byte = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
        let bytes: Option<Vec<u8>> = (0..text.len()).step_by(2).map(byte).collect();
        bytes.map(Self::from)
    }
}
/// In nanoseconds; `never` is the end of time.
impl Text for Duration {
    fn text(&self) -> String {
        if *self == Self::MAX { "never".into() } else { self.as_nanos().to_string() }
    }
    fn parse(text: &str) -> Option<Self> {
        if text == "never" {
            return Some(Self::MAX);
        }
        let nanos: u128 = text.parse().ok()?;
        let (whole, part) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
        Some(Self::new(whole.try_into().ok()?, part as u32))
    }
}

fn parse<T: Text, E: serde::de::Error>(text: impl AsRef<str> + Display) -> Result<T, E> {
    let odd = || E::custom(format!("{text:.80} is no {}", std::any::type_name::<T>()));
    T::parse(text.as_ref()).ok_or_else(odd)
}

/// Writes a value as its text.
pub fn serialize<T: Text, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&value.text())
}
/// Reads a value from its text.
pub fn deserialize<'de, T: Text, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    parse(String::deserialize(from)?)
}

/// A value that may be absent.
pub mod option {
    use super::{Deserialize, Deserializer, Serializer, Text, parse};

    /// Writes the text, or null.
    pub fn serialize<T: Text, S: Serializer>(value: &Option<T>, to: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => to.serialize_some(&value.text()),
            None => to.serialize_none(),
        }
    }
    /// Reads a text, or null.
    pub fn deserialize<'de, T: Text, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
        Option::<String>::deserialize(from)?.map(parse).transpose()
    }
}

/// Several values.
pub mod list {
    use super::{Deserialize, Deserializer, Serializer, Text, parse};

    /// Writes the texts, in order.
    pub fn serialize<T: Text, S: Serializer>(values: &[T], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(values.iter().map(Text::text))
    }
    /// Reads texts, in order.
    pub fn deserialize<'de, T: Text, D: Deserializer<'de>>(from: D) -> Result<Vec<T>, D::Error> {
        Vec::<String>::deserialize(from)?.into_iter().map(parse).collect()
    }
}

/// Chain hashes by origin.
pub mod chains {
    use super::{BTreeMap, Bytes, Deserialize, Deserializer, Origin, Serializer, Text, parse};

    type Chains = BTreeMap<Origin, (u64, Bytes)>;

    /// Writes (origin, seq, hash), sorted by origin.
    pub fn serialize<S: Serializer>(chains: &Chains, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(
            chains.iter().map(|(origin, (seq, chain))| (origin.text(), *seq, chain.text())),
        )
    }
    /// Reads what was written.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Chains, D::Error> {
        let chains = Vec::<(String, u64, String)>::deserialize(from)?;
        let chain = |(origin, seq, chain)| Ok((parse(origin)?, (seq, parse(chain)?)));
        chains.into_iter().map(chain).collect()
    }
}

/// Durations by name, some of them absent.
pub mod durations {
    use super::{BTreeMap, Deserialize, Deserializer, Duration, Serializer, Text, parse};

    type Durations = BTreeMap<String, Option<Duration>>;

    /// Writes a map.
    pub fn serialize<S: Serializer>(values: &Durations, to: S) -> Result<S::Ok, S::Error> {
        let text = |value: &Option<Duration>| value.as_ref().map(Text::text);
        to.collect_map(values.iter().map(|(name, value)| (name, text(value))))
    }
    /// Reads what was written.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Durations, D::Error> {
        let values = BTreeMap::<String, Option<String>>::deserialize(from)?;
        let value = |(name, value): (String, Option<String>)| {
            Ok((name, value.map(parse::<Duration, D::Error>).transpose()?))
        };
        values.into_iter().map(value).collect()
    }
}

/// Deliveries: a position and an identity each.
pub mod deliveries {
    use super::{Deserialize, Deserializer, Dot, Serializer, Text, parse};

    /// Writes (position, dot), in order.
    pub fn serialize<S: Serializer>(given: &[(u64, Dot)], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(given.iter().map(|(place, dot)| (place, dot.text())))
    }
    /// Reads what was written.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<(u64, Dot)>, D::Error> {
        let given = Vec::<(u64, String)>::deserialize(from)?;
        given.into_iter().map(|(place, dot)| Ok((place, parse(dot)?))).collect()
    }
}
