//! What was done before: the memory that makes retries harmless.
//!
//! A producer's requests are remembered by sequence in a sliding window, so retries may come out of
//! order and refused sequences leave no gap. Event ids are remembered for the last events that had
//! one. Everything is bounded and forgotten in log order, so every node forgets the same things.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use crate::event::{ContentHash, EventId, ProducerTag};
use crate::id::{Origin, ProducerId, Seq};
use crate::planted::{self, Bug};
use crate::stamp::Stamp;

/// Requests remembered per producer.
pub const WINDOW: usize = 1024;
/// Requests remembered over all producers.
pub const RECEIPTS: usize = 500_000;
/// Producers remembered; the one that was idle longest goes first.
pub const PRODUCERS: usize = 100_000;
/// Events with a client's id that are remembered.
pub const EVENT_IDS: usize = 100_000;

/// What an append came to. A retry gets the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Region that the request was first appended in.
    pub origin: Origin,
    /// Seq of the first event; the others follow densely.
    pub first: Seq,
    /// Number of events.
    pub events: u32,
    /// What was asked for.
    pub content: ContentHash,
    /// Regional position of the first event, in this region.
    pub position: u64,
    /// Stamp of the group.
    pub stamp: Stamp,
    /// Last revision of each stream, in the order in which the request first names them.
    pub last_revisions: Box<[u64]>,
}

/// How a request is recognised.
#[derive(Debug, Clone, Copy)]
pub struct RequestKey<'a> {
    /// By its producer's sequence.
    pub producer: Option<ProducerTag>,
    /// By its events' ids: those that the client gave.
    pub ids: &'a [EventId],
    /// What it asks for.
    pub content: ContentHash,
}

/// What is known of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    /// It was not appended.
    New,
    /// It was appended; this is the first result.
    Done(Arc<Receipt>),
    /// A higher epoch of the producer was seen.
    Fenced {
        /// The highest epoch.
        epoch: u32,
    },
    /// The sequence lies before the window that is remembered.
    Forgotten {
        /// First sequence that is remembered for certain.
        oldest: u64,
    },
    /// The id belongs to an event of another request.
    IdReused {
        /// The id.
        id: EventId,
    },
    /// The producer appended something else under the sequence.
    SequenceReused {
        /// The sequence.
        sequence: u64,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Producer {
    pub(super) epoch: u32,
    /// Sequences at or below this are forgotten.
    pub(super) floor: u64,
    pub(super) last_position: u64,
    pub(super) window: BTreeMap<u64, Arc<Receipt>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Producers {
    pub(super) by_id: BTreeMap<ProducerId, Producer>,
    /// Producers by the position of their last request, for forgetting the idlest.
    idle: BTreeMap<u64, ProducerId>,
    /// Remembered requests, oldest first. May name some that their window has forgotten already.
    pub(super) order: VecDeque<ProducerTag>,
    by_event: HashMap<EventId, Arc<Receipt>>,
    pub(super) event_order: VecDeque<EventId>,
    pub(super) duplicates: u64,
}

impl Producers {
    pub(super) fn duplicates(&self) -> u64 {
        self.duplicates
    }

    pub(super) fn known(&self, key: &RequestKey<'_>) -> Known {
        if let Some(tag) = key.producer {
            match self.known_by_sequence(tag, key.content) {
                Known::New => {}
                known => return known,
            }
        }
        self.known_by_ids(key)
    }

    fn known_by_sequence(&self, tag: ProducerTag, content: ContentHash) -> Known {
        let Some(producer) = self.by_id.get(&tag.id) else { return Known::New };
        if tag.epoch < producer.epoch && !planted::is(Bug::EpochNotFenced) {
            return Known::Fenced { epoch: producer.epoch };
        }
        if tag.epoch > producer.epoch {
            return Known::New;
        }
        match producer.window.get(&tag.sequence) {
            Some(receipt) if receipt.content != content => {
                Known::SequenceReused { sequence: tag.sequence }
            }
            Some(receipt) => Known::Done(Arc::clone(receipt)),
            None if tag.sequence <= producer.floor => {
                Known::Forgotten { oldest: producer.floor + 1 }
            }
            None => Known::New,
        }
    }

    fn known_by_ids(&self, key: &RequestKey<'_>) -> Known {
        let Some(receipt) = key.ids.iter().find_map(|id| self.by_event.get(id)) else {
            return Known::New;
        };
        let same = |id: &&EventId| self.by_event.get(*id).is_some_and(|other| other == receipt);
        let reused = key.ids.iter().find(|id| !same(id));
        match reused {
            None if key.content == receipt.content => Known::Done(Arc::clone(receipt)),
            None => Known::IdReused { id: key.ids[0] },
            Some(_) => {
                let id = key.ids.iter().find(|id| self.by_event.contains_key(id));
                Known::IdReused { id: *id.expect("one was found above") }
            }
        }
    }

    pub(super) fn record(
        &mut self,
        tag: Option<ProducerTag>,
        ids: impl Iterator<Item = EventId>,
        receipt: Receipt,
    ) {
        let receipt = Arc::new(receipt);
        if let Some(tag) = tag {
            self.record_sequence(tag, &receipt);
        }
        for id in ids {
            self.record_id(id, &receipt);
        }
    }

    pub(super) fn record_id(&mut self, id: EventId, receipt: &Arc<Receipt>) {
        // The first stays the first, in whichever region the second arrived.
        if self.by_event.contains_key(&id) {
            return;
        }
        self.by_event.insert(id, Arc::clone(receipt));
        self.event_order.push_back(id);
        if self.event_order.len() > EVENT_IDS {
            let oldest = self.event_order.pop_front().expect("it holds more than none");
            self.by_event.remove(&oldest);
        }
    }

    pub(super) fn record_sequence(&mut self, tag: ProducerTag, receipt: &Arc<Receipt>) {
        let position = receipt.position;
        let fresh = || Producer {
            epoch: tag.epoch,
            floor: 0,
            last_position: position,
            window: BTreeMap::new(),
        };
        let producer = self.by_id.entry(tag.id).or_insert_with(fresh);
        if tag.epoch < producer.epoch {
            // A zombie's request that another region took before it heard of the new epoch.
            return;
        }
        self.idle.remove(&producer.last_position);
        if tag.epoch > producer.epoch {
            *producer = fresh();
        }
        producer.last_position = position;
        self.idle.insert(position, tag.id);
        match producer.window.get(&tag.sequence) {
            Some(first) => {
                self.duplicates += 1;
                // The lower (stamp, origin) is the event, whichever arrived first.
                if (receipt.stamp, &receipt.origin) < (first.stamp, &first.origin) {
                    producer.window.insert(tag.sequence, Arc::clone(receipt));
                }
            }
            None => {
                producer.window.insert(tag.sequence, Arc::clone(receipt));
                self.order.push_back(tag);
            }
        }
        if producer.window.len() > WINDOW {
            let (oldest, _) = producer.window.pop_first().expect("it holds more than none");
            producer.floor = producer.floor.max(oldest);
        }
        self.forget_oldest();
    }

    fn forget_oldest(&mut self) {
        if self.order.len() > RECEIPTS {
            let tag = self.order.pop_front().expect("it holds more than none");
            if let Some(producer) = self.by_id.get_mut(&tag.id).filter(|p| p.epoch == tag.epoch)
                && producer.window.remove(&tag.sequence).is_some()
            {
                producer.floor = producer.floor.max(tag.sequence);
            }
        }
        if self.by_id.len() > PRODUCERS {
            let (_, idlest) = self.idle.pop_first().expect("every producer has a last request");
            self.by_id.remove(&idlest);
        }
    }

    pub(super) fn receipt_of_id(&self, id: &EventId) -> Option<&Arc<Receipt>> {
        self.by_event.get(id)
    }

    pub(super) fn restore(&mut self, id: ProducerId, producer: Producer) {
        self.idle.insert(producer.last_position, id);
        self.by_id.insert(id, producer);
    }
}
