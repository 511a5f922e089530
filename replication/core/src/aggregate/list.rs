//! Lists: elements between which there is always room for another.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crdts::Identifier;
use num_rational::BigRational;
use num_traits::Signed;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::memory;
use super::tag::{Loader, Mark, Place, Tag, Writer, is_stable, put_canonical_all};
use super::value::Value;
use crate::codec::{DecodeError, Put};
use crate::context::Context;
use crate::stamp::Stamp;

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

/// What an id takes beside what its text says.
const ID_BYTES: usize = 128;

/// Values in an order that every region agrees on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct List {
    elements: BTreeMap<ElementId, Element>,
    /// Insertions that are gone and remembered.
    gone: usize,
    /// Look for what can be forgotten when there are this many.
    look_at: usize,
}

/// What was inserted at one place, under one mark. A region that holds an insertion, and takes one of
/// the same identity, has forgotten it: that is another one, after it. The last one is shown, unless
/// it is gone; whoever deletes one deletes those before it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Element {
    insertions: Vec<Insertion>,
    id_bytes: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Insertion {
    /// The events that carry it; several if a request reached several regions.
    tags: Vec<Tag>,
    /// Of the event whose value counts: the first in global order.
    first: (Stamp, Tag),
    value: Value,
    /// Deleted. A retry in another region may still come in.
    gone: bool,
}

impl Element {
    fn shown(&self) -> Option<&Insertion> {
        self.insertions.last().filter(|last| !last.gone)
    }
    /// Deletes what was held; says how much of it was not gone before.
    fn delete(&mut self, place: &Place<'_>) -> usize {
        let held = |one: &&mut Insertion| !one.gone && one.tags.iter().any(|tag| place.held(tag));
        self.insertions.iter_mut().filter(held).map(|one| one.gone = true).count()
    }
    /// Forgets what is of no use once every region holds it: all but the last one, and that if it is
    /// gone.
    fn settle(&mut self, stable: &Context) {
        let is_stable = |one: &Insertion| one.tags.iter().any(|tag| is_stable(tag, stable));
        let stable = self.insertions.iter().take_while(|one| is_stable(one)).count();
        let kept = usize::from(stable == self.insertions.len() && self.shown().is_some());
        self.insertions.drain(..stable - kept);
    }
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
        let element = self.elements.entry(id).or_insert_with_key(|id| Element {
            insertions: Vec::with_capacity(1),
            id_bytes: id.to_string().len(),
        });
        let (tag, first) = (place.tag.clone(), (place.stamp, place.tag.clone()));
        let unheard = |one: &&mut Insertion| !one.tags.iter().any(|tag| place.held(tag));
        match element.insertions.iter_mut().find(unheard) {
            Some(same) => {
                same.tags.push(tag);
                if first < same.first {
                    (same.first, same.value) = (first, value);
                }
            }
            None => {
                element.insertions.push(Insertion { tags: vec![tag], first, value, gone: false });
            }
        }
    }

    pub(super) fn delete(&mut self, id: &ElementId, place: &Place<'_>, stable: &Context) {
        if let Some(element) = self.elements.get_mut(id) {
            self.gone += element.delete(place);
            if self.gone >= self.look_at.max(GONE_MIN).max(self.elements.len() / 2) {
                self.settle(stable);
                self.look_at = 2 * self.gone;
            }
        }
    }

    pub(super) fn clear(&mut self, place: &Place<'_>) {
        let deleted = self.elements.values_mut().map(|element| element.delete(place));
        self.gone += deleted.sum::<usize>();
    }

    pub(super) fn settle(&mut self, stable: &Context) {
        self.gone = 0;
        self.elements.retain(|_, element| {
            element.settle(stable);
            self.gone += element.insertions.iter().filter(|one| one.gone).count();
            !element.insertions.is_empty()
        });
    }

    pub(super) fn elements(&self) -> impl DoubleEndedIterator<Item = (&ElementId, &Value)> {
        self.elements.iter().filter_map(|(id, element)| Some((id, &element.shown()?.value)))
    }
    /// Whether it is as if it had never been.
    pub(super) fn is_blank(&self) -> bool {
        self.elements.is_empty()
    }
    /// What [`settle`](Self::settle) looks through.
    pub(super) fn records(&self) -> usize {
        self.elements.len()
    }
    pub(super) fn memory(&self) -> usize {
        let insertion =
            |one: &Insertion| size_of::<Insertion>() + memory::tags(&one.tags) + one.value.bytes();
        let element = |element: &Element| {
            ID_BYTES + element.id_bytes + element.insertions.iter().map(insertion).sum::<usize>()
        };
        let elements = self.elements.values().map(element);
        memory::tree::<ElementId, Element>(self.elements.len()) + elements.sum::<usize>()
    }

    pub(super) fn canonical(&self, out: &mut Vec<u8>) {
        let shown = || self.elements.iter().filter_map(|(id, e)| Some((id, e.shown()?)));
        out.put_varint(shown().count() as u64);
        for (id, insertion) in shown() {
            out.put_slice_with_len(id.to_string().as_bytes());
            insertion.value.encode(out);
            put_canonical_all(&insertion.tags, out);
        }
    }
    pub(super) fn encode(&self, out: &mut Writer) {
        out.bytes.put_varint(self.elements.len() as u64);
        for (id, element) in &self.elements {
            out.bytes.put_slice_with_len(id.to_string().as_bytes());
            out.bytes.put_varint(element.insertions.len() as u64);
            for insertion in &element.insertions {
                out.tags(&insertion.tags);
                out.bytes.put_u64(insertion.first.0.0);
                out.tag(&insertion.first.1);
                insertion.value.encode(&mut out.bytes);
                out.bytes.put_byte(insertion.gone.into());
            }
        }
    }
    pub(super) fn decode(from: &mut Loader) -> Result<Self, DecodeError> {
        let mut list = Self::default();
        for _ in 0..from.reader.count("elements", 3)? {
            let text = from.reader.text("element id")?;
            let id = ElementId::of_text(&text).ok_or(DecodeError::Text { what: "element id" })?;
            let mut element = Element { insertions: Vec::new(), id_bytes: text.len() };
            for _ in 0..from.reader.count("insertions", 14)? {
                let tags = from.tags()?;
                let first = (Stamp(from.reader.u64("stamp of an insertion")?), from.tag()?);
                let value = Value::decode(&mut from.reader)?;
                let gone = from.reader.byte("gone")? != 0;
                list.gone += usize::from(gone);
                element.insertions.push(Insertion { tags, first, value, gone });
            }
            list.elements.insert(id, element);
        }
        list.look_at = 2 * list.gone;
        Ok(list)
    }
}
