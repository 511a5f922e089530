//! The best of what was offered: largest, smallest, last written. Can be cleared.

use std::cmp::Ordering;

use super::tag::{Loader, Place, Tag, Writer, is_stable};
use super::value::Value;
use crate::codec::{DecodeError, Put};
use crate::context::Context;
use crate::stamp::Stamp;

/// What makes an offer better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Better {
    Larger,
    Smaller,
    /// By (stamp, origin, seq): the global order.
    Later,
}

impl Better {
    fn compare(self, a: &Offer, b: &Offer) -> Ordering {
        let written = || (a.stamp, &a.tag).cmp(&(b.stamp, &b.tag));
        match self {
            Self::Larger => a.value.cmp(&b.value).then_with(written),
            Self::Smaller => b.value.cmp(&a.value).then_with(written),
            Self::Later => written(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Offer {
    stamp: Stamp,
    tag: Tag,
    value: Value,
}

/// Offers that may still come to be the best: a better one may be cleared by a region that has not
/// seen the lesser one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Best {
    /// The best first.
    offers: Vec<Offer>,
    look_at: usize,
}

const OFFERS_MIN: usize = 16;

impl Best {
    pub(super) fn offer(
        &mut self,
        better: Better,
        value: Value,
        place: &Place<'_>,
        stable: &Context,
    ) {
        let offer = Offer { stamp: place.stamp, tag: place.tag.clone(), value };
        // Whoever clears the new one has seen what the new one's region held.
        let at = self.offers.partition_point(|old| better.compare(old, &offer).is_gt());
        let lesser = self.offers.split_off(at);
        self.offers.push(offer);
        self.offers.extend(lesser.into_iter().filter(|old| !place.held(&old.tag)));
        if self.offers.len() >= self.look_at.max(OFFERS_MIN) {
            self.settle(stable);
            self.look_at = 2 * self.offers.len();
        }
    }

    pub(super) fn clear(&mut self, place: &Place<'_>) {
        self.offers.retain(|old| !place.held(&old.tag));
    }

    /// Forgets what can no longer be the best: whoever clears from now on has seen all that is stable.
    pub(super) fn settle(&mut self, stable: &Context) {
        let mut has_best = false;
        self.offers.retain(|offer| {
            !is_stable(&offer.tag, stable) || !std::mem::replace(&mut has_best, true)
        });
    }

    pub(super) fn value(&self) -> Option<&Value> {
        self.offers.first().map(|offer| &offer.value)
    }
    /// What [`settle`](Self::settle) looks through.
    pub(super) fn records(&self) -> usize {
        self.offers.len()
    }
    pub(super) fn is_blank(&self) -> bool {
        self.offers.is_empty()
    }
    pub(super) fn memory(&self) -> usize {
        self.offers.iter().map(|offer| size_of::<Offer>() + offer.value.bytes()).sum()
    }

    pub(super) fn encode(&self, out: &mut Writer) {
        out.bytes.put_varint(self.offers.len() as u64);
        for offer in &self.offers {
            out.bytes.put_u64(offer.stamp.0);
            out.tag(&offer.tag);
            offer.value.encode(&mut out.bytes);
        }
    }
    pub(super) fn decode(better: Better, from: &mut Loader) -> Result<Self, DecodeError> {
        let count = from.reader.count("offers", 12)?;
        let mut offers = (0..count)
            .map(|_| {
                let stamp = Stamp(from.reader.u64("stamp of an offer")?);
                let tag = from.tag()?;
                Ok(Offer { stamp, tag, value: Value::decode(&mut from.reader)? })
            })
            .collect::<Result<Vec<Offer>, DecodeError>>()?;
        offers.sort_by(|a, b| better.compare(b, a));
        Ok(Self { offers, look_at: 2 * count })
    }
}
