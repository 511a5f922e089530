//! Counters that can be cleared.

use std::collections::BTreeMap;

use super::memory;
use super::tag::{Loader, Mark, Place, Tag, Writer, is_stable};
use crate::codec::{DecodeError, Put};
use crate::context::Context;
use crate::stamp::Stamp;

/// Parts are looked through for stable ones whenever there are twice as many as were left, and
/// not before there are this many.
const PARTS_MIN: usize = 32;

/// A sum of increments. An increment is a part of its own until every region holds it: a region that
/// does not hold it may still clear the counter without it, or take the same request in again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Counter {
    /// Sum of the increments that every region holds. Whoever clears from now on has seen them all.
    settled: i128,
    /// A region that holds a request, and takes one of the same identity, has forgotten it: that one
    /// counts, too. So parts have a number beside their mark: how many others came before.
    parts: BTreeMap<(Mark, u32), Part>,
    /// Look for stable parts when there are this many.
    look_at: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    /// The events that carry it; several if a request reached several regions.
    tags: Vec<Tag>,
    /// Of the event whose amount counts: the first in global order.
    first: (Stamp, Tag),
    amount: i64,
    cleared: bool,
}

impl Part {
    fn counted(&self) -> i128 {
        if self.cleared { 0 } else { i128::from(self.amount) }
    }
}

impl Counter {
    pub(super) fn add(&mut self, amount: i64, place: &Place<'_>, stable: &Context) {
        let (tag, first) = (place.tag.clone(), (place.stamp, place.tag.clone()));
        let mut number = 0;
        let mut same = self.parts.range_mut((place.mark, 0)..=(place.mark, u32::MAX));
        let part = same.find(|((_, of), part)| {
            number = of.saturating_add(1);
            !part.tags.iter().any(|tag| place.held(tag))
        });
        match part {
            Some((_, part)) => {
                part.tags.push(tag);
                if first < part.first {
                    (part.first, part.amount) = (first, amount);
                }
            }
            None => {
                let part = Part { tags: vec![tag], first, amount, cleared: false };
                self.parts.insert((place.mark, number), part);
            }
        }
        if self.parts.len() >= self.look_at.max(PARTS_MIN) {
            self.settle(stable);
            self.look_at = 2 * self.parts.len();
        }
    }

    /// Takes back what the clearing region held.
    pub(super) fn clear(&mut self, place: &Place<'_>) {
        self.settled = 0;
        for part in self.parts.values_mut() {
            part.cleared |= part.tags.iter().any(|tag| place.held(tag));
        }
    }

    /// Forgets the parts of what every region holds.
    pub(super) fn settle(&mut self, stable: &Context) {
        let settled = &mut self.settled;
        self.parts.retain(|_, part| {
            let is_stable = part.tags.iter().any(|tag| is_stable(tag, stable));
            if is_stable {
                *settled = settled.wrapping_add(part.counted());
            }
            !is_stable
        });
    }

    pub(super) fn total(&self) -> i128 {
        // Sums that fit, unless they were damaged on the disk.
        self.parts.values().fold(self.settled, |sum, part| sum.wrapping_add(part.counted()))
    }
    /// Whether it is as if it had never been.
    pub(super) fn is_blank(&self) -> bool {
        self.settled == 0 && self.parts.is_empty()
    }
    /// What [`settle`](Self::settle) looks through.
    pub(super) fn records(&self) -> usize {
        self.parts.len()
    }
    pub(super) fn memory(&self) -> usize {
        let tags = self.parts.values().map(|part| memory::tags(&part.tags));
        memory::tree::<(Mark, u32), Part>(self.parts.len()) + tags.sum::<usize>()
    }

    pub(super) fn encode(&self, out: &mut Writer) {
        out.bytes.put_u128(self.settled as u128);
        out.bytes.put_varint(self.parts.len() as u64);
        for ((mark, number), part) in &self.parts {
            out.mark(*mark);
            out.bytes.put_varint((*number).into());
            out.tags(&part.tags);
            out.bytes.put_u64(part.first.0.0);
            out.tag(&part.first.1);
            out.bytes.put_u64(part.amount as u64);
            out.bytes.put_byte(part.cleared.into());
        }
    }
    pub(super) fn decode(from: &mut Loader) -> Result<Self, DecodeError> {
        let settled = from.reader.u128("settled sum")? as i128;
        let count = from.reader.count("parts of a counter", 33)?;
        let mut parts = BTreeMap::new();
        for _ in 0..count {
            let (key, tags) = ((from.mark()?, from.nth()?), from.tags()?);
            let first = (Stamp(from.reader.u64("stamp of a part")?), from.tag()?);
            let amount = from.reader.u64("amount")? as i64;
            let cleared = from.reader.byte("cleared")? != 0;
            parts.insert(key, Part { tags, first, amount, cleared });
        }
        Ok(Self { settled, parts, look_at: 2 * count })
    }
}
