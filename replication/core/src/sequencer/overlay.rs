//! What the commands on their way change: the difference between the applied state and the prediction.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::Arc;

use super::{Ticket, Verdict};
use crate::class::{Declared, Home};
use crate::event::{ContentHash, EventId, ProducerTag, RequestRef};
use crate::id::ProducerId;
use crate::region::{Known, Receipt, Region, RequestKey};
use crate::rights::Counter;

/// What the commands on their way change; absolute numbers, so it does not matter whether the
/// region has applied some of them already.
#[derive(Default)]
pub(super) struct Overlay {
    pub(super) revisions: HashMap<Arc<str>, (u64, Ticket)>,
    pub(super) sequences: HashMap<ProducerTag, (Ticket, Arc<Receipt>)>,
    pub(super) epochs: HashMap<ProducerId, (u32, Ticket)>,
    pub(super) ids: HashMap<EventId, (Ticket, Arc<Receipt>)>,
    pub(super) declared: HashMap<Box<str>, (Declared, Ticket)>,
    pub(super) moved: HashMap<Box<str>, (Home, Ticket)>,
    pub(super) rights: HashMap<Counter, (u128, Ticket)>,
    pub(super) on_their_way: VecDeque<OnItsWay>,
}

/// What one command changes.
pub(super) struct OnItsWay {
    pub(super) ticket: Ticket,
    pub(super) streams: Vec<Arc<str>>,
    pub(super) tags: Vec<ProducerTag>,
    pub(super) ids: Vec<EventId>,
    /// Categories whose home it changes, streams that it hands over, counters whose rights it changes.
    pub(super) categories: Vec<Box<str>>,
    pub(super) moved: Vec<Box<str>>,
    pub(super) counters: Vec<Counter>,
}

impl OnItsWay {
    pub(super) fn new(ticket: Ticket) -> Self {
        Self {
            ticket,
            streams: Vec::new(),
            tags: Vec::new(),
            ids: Vec::new(),
            categories: Vec::new(),
            moved: Vec::new(),
            counters: Vec::new(),
        }
    }
}

impl Overlay {
    /// Notes what the next revision of a stream is after a command; returns the stream if this command had
    /// not changed it before.
    pub(super) fn foresee(&mut self, stream: &str, next: u64, ticket: Ticket) -> Option<Arc<str>> {
        let changed = match self.revisions.get_mut(stream) {
            Some(known) => std::mem::replace(known, (next, ticket)).1 != ticket,
            None => {
                let stream: Arc<str> = stream.into();
                self.revisions.insert(Arc::clone(&stream), (next, ticket));
                return Some(stream);
            }
        };
        changed.then(|| stream.into())
    }

    /// A retry by ids of a request that is on its way.
    pub(super) fn known_by_ids(&self, ids: &[EventId], content: ContentHash) -> Option<Verdict> {
        let (first, found) = ids.iter().find_map(|id| Some((*id, self.ids.get(id)?)))?;
        let (ticket, receipt) = found;
        let same =
            |id: &EventId| self.ids.get(id).is_some_and(|(_, other)| Arc::ptr_eq(other, receipt));
        if ids.iter().all(same) && content == receipt.content {
            Some(Verdict::Joined { ticket: *ticket, receipt: Arc::clone(receipt) })
        } else {
            Some(Verdict::IdReused { id: first })
        }
    }

    /// Notes an imported request on its way, so that its retry here is recognised before the import
    /// is applied. What is known of it from before stays the first result.
    pub(super) fn remember(
        &mut self,
        region: &Region,
        request: &RequestRef<'_>,
        receipt: Arc<Receipt>,
        way: &mut OnItsWay,
    ) {
        let is_new = |producer, ids: &[EventId]| {
            let content = receipt.content;
            region.known(&RequestKey { producer, ids, content }) == Known::New
        };
        if let Some(tag) = request.producer
            && is_new(Some(tag), &[])
            && self.epochs.get(&tag.id).is_none_or(|(epoch, _)| *epoch <= tag.epoch)
            && !self.sequences.contains_key(&tag)
        {
            self.sequences.insert(tag, (way.ticket, Arc::clone(&receipt)));
            self.epochs.insert(tag.id, (tag.epoch, way.ticket));
            way.tags.push(tag);
        }
        for id in request.events.iter().filter_map(|event| event.id) {
            if is_new(None, &[id]) && !self.ids.contains_key(&id) {
                self.ids.insert(id, (way.ticket, Arc::clone(&receipt)));
                way.ids.push(id);
            }
        }
    }

    /// Forgets what a command changed, unless a later one on its way changed it again.
    pub(super) fn land(&mut self, way: &OnItsWay) {
        land(&mut self.revisions, &way.streams, way.ticket);
        for tag in &way.tags {
            self.sequences.remove(tag);
            if self.epochs.get(&tag.id).is_some_and(|(_, ticket)| *ticket == way.ticket) {
                self.epochs.remove(&tag.id);
            }
        }
        for id in &way.ids {
            self.ids.remove(id);
        }
        land(&mut self.declared, &way.categories, way.ticket);
        land(&mut self.moved, &way.moved, way.ticket);
        land(&mut self.rights, &way.counters, way.ticket);
    }
}

fn land<K: Eq + Hash, V>(changed: &mut HashMap<K, (V, Ticket)>, keys: &[K], landed: Ticket) {
    for key in keys {
        if changed.get(key).is_some_and(|(_, ticket)| *ticket == landed) {
            changed.remove(key);
        }
    }
}
