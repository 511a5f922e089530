//! Sets in which adding wins over removing; registers and flags are such sets, too.

use std::collections::BTreeMap;

use super::memory;
use super::tag::{Loader, Place, Tag, Writer, put_canonical_all};
use super::value::Value;
use crate::codec::{DecodeError, Put};

/// Members with the additions that nobody has seen and taken back. No tombstones: an addition that
/// comes in after it was seen elsewhere does not exist, because logs are causal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Set {
    members: BTreeMap<Value, Vec<Tag>>,
}

impl Set {
    pub(super) fn add(&mut self, value: Value, place: &Place<'_>) {
        let tags = self.members.entry(value).or_default();
        // Whoever takes the new one back later has seen it, so everything its region held. What the
        // client had seen would leave additions behind that nothing ever takes away.
        tags.retain(|old| match place.undone {
            true => !place.observed(old),
            false => !place.held(old),
        });
        tags.push(place.tag.clone());
        tags.shrink_to_fit();
    }

    pub(super) fn remove(&mut self, value: &Value, place: &Place<'_>) {
        if let Some(tags) = self.members.get_mut(value) {
            tags.retain(|old| !place.observed(old));
            if tags.is_empty() {
                self.members.remove(value);
            }
        }
    }

    /// Removes every member, as far as it was seen.
    pub(super) fn clear(&mut self, place: &Place<'_>) {
        self.members.retain(|_, tags| {
            tags.retain(|old| !place.observed(old));
            !tags.is_empty()
        });
    }

    /// Puts one value in the place of those that were seen.
    pub(super) fn replace(&mut self, value: Value, place: &Place<'_>) {
        self.clear(place);
        self.add(value, place);
    }

    pub(super) fn members(&self) -> impl Iterator<Item = &Value> {
        self.members.keys()
    }
    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }
    pub(super) fn memory(&self) -> usize {
        let member = |(value, tags): (&Value, &Vec<Tag>)| value.bytes() + memory::tags(tags);
        let members = self.members.iter().map(member);
        memory::tree::<Value, Vec<Tag>>(self.members.len()) + members.sum::<usize>()
    }

    pub(super) fn canonical(&self, out: &mut Vec<u8>) {
        out.put_varint(self.members.len() as u64);
        for (value, tags) in &self.members {
            value.encode(out);
            put_canonical_all(tags, out);
        }
    }
    pub(super) fn encode(&self, out: &mut Writer) {
        out.bytes.put_varint(self.members.len() as u64);
        for (value, tags) in &self.members {
            value.encode(&mut out.bytes);
            out.tags(tags);
        }
    }
    pub(super) fn decode(from: &mut Loader) -> Result<Self, DecodeError> {
        let count = from.reader.count("members", 2)?;
        let mut members = BTreeMap::new();
        for _ in 0..count {
            let value = Value::decode(&mut from.reader)?;
            members.insert(value, from.tags()?);
        }
        Ok(Self { members })
    }
}
