//! Lists: elements between which there is always room for another.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crdts::Identifier;
use num_rational::BigRational;
use num_traits::Signed;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::tag::{Loader, Mark, Place, Tag, Writer, is_stable, put_canonical_all};
use super::value::Value;
use crate::codec::{DecodeError, Put};
use crate::context::Context;

/// Bytes of the text of the longest [`ElementId`].
pub const ELEMENT_ID_BYTES: usize = 16 * 1024;

/// Where an element is in its list: names it, and sorts like it. The same in every region.
///
/// A dense identifier of the `crdts` crate. Its text is opaque to clients.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ElementId(Identifier<Mark>);

/// Text that is no [`ElementId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not the id of an element of a list, as a read of it gives them")]
pub struct NoElementId;

impl Serialize for Mark {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{:x}.{}", self.identity, self.nth))
    }
}
impl<'de> Deserialize<'de> for Mark {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        mark_of(&text).ok_or_else(|| serde::de::Error::custom("no mark"))
    }
}

fn mark_of(text: &str) -> Option<Mark> {
    let (identity, nth) = text.split_once('.')?;
    let identity = u128::from_str_radix(identity, 16).ok()?;
    Some(Mark { identity, nth: nth.parse().ok()? })
}

type Path = Vec<(BigRational, Mark)>;

impl ElementId {
    /// The crate keeps the path to itself, but lets it be serialized.
    fn path(&self) -> Path {
        let json = serde_json::to_value(&self.0).expect("fractions and texts are JSON");
        serde_json::from_value(json).expect("an identifier is its path")
    }
    fn of_path(path: &Path) -> Option<Self> {
        serde_json::from_value(serde_json::to_value(path).ok()?).ok().map(Self)
    }

    /// A place between two elements that are in this order.
    fn between(after: Option<&Self>, before: Option<&Self>, mark: Mark) -> Self {
        let (after, before) = (after.map(|id| &id.0), before.map(|id| &id.0));
        Self(Identifier::between(after, before, mark))
    }
    fn mark(&self) -> Mark {
        *self.0.value()
    }
}

impl fmt::Display for ElementId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (fraction, mark)) in self.path().iter().enumerate() {
            let between = if at == 0 { "" } else { ";" };
            write!(f, "{between}{fraction}@{:x}.{}", mark.identity, mark.nth)?;
        }
        Ok(())
    }
}

impl FromStr for ElementId {
    type Err = NoElementId;
    fn from_str(text: &str) -> Result<Self, NoElementId> {
        match text.len() <= ELEMENT_ID_BYTES {
            true => Self::of_text(text).ok_or(NoElementId),
            false => Err(NoElementId),
        }
    }
}

impl ElementId {
    /// Also of an id that was made between two of the longest.
    fn of_text(text: &str) -> Option<Self> {
        let step = |step: &str| {
            let (fraction, mark) = step.split_once('@')?;
            let fraction: BigRational = fraction.parse().ok()?;
            (fraction.denom().is_positive()).then_some((fraction, mark_of(mark)?))
        };
        let path: Path = text.split(';').map(step).collect::<Option<_>>()?;
        Self::of_path(&path)
    }
}

/// Values in an order that every region agrees on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct List {
    elements: BTreeMap<ElementId, Element>,
    /// Of elements that are gone: a retry of their insertion in another region may still come in.
    gone: BTreeMap<Mark, Vec<Tag>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Element {
    value: Value,
    tags: Vec<Tag>,
}

const GONE_MIN: usize = 32;

impl List {
    /// Puts an element between two others that are in this order.
    pub(super) fn insert(
        &mut self,
        after: Option<&ElementId>,
        before: Option<&ElementId>,
        value: Value,
        place: &Place<'_>,
    ) {
        let id = ElementId::between(after, before, place.mark);
        if let Some(tags) = self.gone.get_mut(&place.mark) {
            return tags.push(place.tag.clone());
        }
        let new = || Element { value, tags: Vec::with_capacity(1) };
        self.elements.entry(id).or_insert_with(new).tags.push(place.tag.clone());
    }

    pub(super) fn delete(&mut self, id: &ElementId, place: &Place<'_>, stable: &Context) {
        let seen = |element: &Element| element.tags.iter().any(|tag| place.held(tag));
        if self.elements.get(id).is_some_and(seen) {
            let element = self.elements.remove(id).expect("it is there");
            self.gone.insert(id.mark(), element.tags);
            if self.gone.len() > GONE_MIN {
                self.settle(stable);
            }
        }
    }

    pub(super) fn clear(&mut self, place: &Place<'_>) {
        let gone = &mut self.gone;
        self.elements.retain(|id, element| {
            let seen = element.tags.iter().any(|tag| place.held(tag));
            if seen {
                gone.insert(id.mark(), std::mem::take(&mut element.tags));
            }
            !seen
        });
    }

    pub(super) fn settle(&mut self, stable: &Context) {
        self.gone.retain(|_, tags| !tags.iter().any(|tag| is_stable(tag, stable)));
    }

    pub(super) fn elements(&self) -> impl DoubleEndedIterator<Item = (&ElementId, &Value)> {
        self.elements.iter().map(|(id, element)| (id, &element.value))
    }
    /// Whether it is as if it had never been.
    pub(super) fn is_blank(&self) -> bool {
        self.elements.is_empty() && self.gone.is_empty()
    }
    pub(super) fn memory(&self) -> usize {
        let element = |element: &Element| 400 + element.value.bytes();
        self.elements.values().map(element).sum::<usize>() + 120 * self.gone.len()
    }

    pub(super) fn canonical(&self, out: &mut Vec<u8>) {
        out.put_varint(self.elements.len() as u64);
        for (id, element) in &self.elements {
            out.put_slice_with_len(id.to_string().as_bytes());
            element.value.encode(out);
            put_canonical_all(&element.tags, out);
        }
    }
    pub(super) fn encode(&self, out: &mut Writer) {
        out.bytes.put_varint(self.elements.len() as u64);
        for (id, element) in &self.elements {
            out.bytes.put_slice_with_len(id.to_string().as_bytes());
            element.value.encode(&mut out.bytes);
            out.tags(&element.tags);
        }
        out.bytes.put_varint(self.gone.len() as u64);
        for (mark, tags) in &self.gone {
            out.mark(*mark);
            out.tags(tags);
        }
    }
    pub(super) fn decode(from: &mut Loader) -> Result<Self, DecodeError> {
        let mut list = Self::default();
        for _ in 0..from.reader.count("elements", 3)? {
            let id = from.reader.text("element id")?;
            let id = ElementId::of_text(&id).ok_or(DecodeError::Text { what: "element id" })?;
            let value = Value::decode(&mut from.reader)?;
            list.elements.insert(id, Element { value, tags: from.tags()? });
        }
        for _ in 0..from.reader.count("deleted elements", 17)? {
            let mark = from.mark()?;
            list.gone.insert(mark, from.tags()?);
        }
        Ok(list)
    }
}
