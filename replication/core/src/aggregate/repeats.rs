//! Requests that reached several regions: of those events, the first in order counts.

use std::collections::BTreeMap;

use super::memory;
use super::tag::{Loader, Place, Tag, Writer, is_stable};
use crate::codec::{DecodeError, Put};
use crate::context::Context;

/// Requests are looked through for what can be forgotten whenever there are twice as many as were
/// left, and not before there are this many.
const REQUESTS_MIN: usize = 32;

/// What was asked for already, by identity. Events come in the global order.
///
/// A region that holds a request, and takes one of the same identity, has forgotten it: that one
/// counts, too. So an identity may stand for several requests, each with the events that carried it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Repeats {
    requests: BTreeMap<u128, Vec<Vec<Tag>>>,
    /// Look for what can be forgotten when there are this many.
    look_at: usize,
}

impl Repeats {
    /// Whether the event asks for what one before it asked for, without its region having known.
    pub(super) fn take(&mut self, place: &Place<'_>, stable: &Context) -> bool {
        let requests = self.requests.entry(place.mark.identity).or_default();
        let unknown = |events: &&mut Vec<Tag>| !events.iter().any(|event| place.held(event));
        let repeated = match requests.iter_mut().find(unknown) {
            Some(events) => {
                events.push(place.tag.clone());
                true
            }
            None => {
                requests.push(vec![place.tag.clone()]);
                false
            }
        };
        if self.requests.len() >= self.look_at.max(REQUESTS_MIN) {
            self.settle(stable);
            self.look_at = 2 * self.requests.len();
        }
        repeated
    }

    /// Forgets what every region holds: whatever is still to come was made by somebody who knew.
    pub(super) fn settle(&mut self, stable: &Context) {
        self.requests.retain(|_, requests| {
            requests.retain(|events| !events.iter().any(|event| is_stable(event, stable)));
            !requests.is_empty()
        });
    }

    pub(super) fn memory(&self) -> usize {
        let requests = self.requests.values().flatten().map(memory::tags);
        memory::tree::<u128, Vec<Vec<Tag>>>(self.requests.len()) + requests.sum::<usize>()
    }

    pub(super) fn encode(&self, out: &mut Writer) {
        out.bytes.put_varint(self.requests.len() as u64);
        for (identity, requests) in &self.requests {
            out.bytes.put_u128(*identity);
            out.bytes.put_varint(requests.len() as u64);
            requests.iter().for_each(|events| out.tags(events));
        }
    }
    pub(super) fn decode(from: &mut Loader) -> Result<Self, DecodeError> {
        let count = from.reader.count("requests", 18)?;
        let mut requests = BTreeMap::new();
        for _ in 0..count {
            let identity = from.reader.u128("identity of a request")?;
            let same = from.reader.count("requests of an identity", 1)?;
            let same = (0..same).map(|_| from.tags()).collect::<Result<_, _>>()?;
            requests.insert(identity, same);
        }
        Ok(Self { requests, look_at: 2 * count })
    }
}
