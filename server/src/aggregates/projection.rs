//! The aggregates of one definition: what is merged, and how far it has come; beside it, if the
//! definition has ordered fields, what is settled of these.

use std::sync::Arc;

use anabranch_core::aggregate::{Definition, Input, State};
use anabranch_core::codec::{DecodeError, Put, Reader};
use anabranch_core::{Context, ShardId};
use anabranch_log::derived::states::{StateError, States};
use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Map, Value as Json};

use super::cache::Cache;
use super::settled::Settled;

/// What came of the events of a category.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Events looked at.
    pub events: u64,
    /// Of these, left out because they are bad.
    pub bad: u64,
    /// The last one that was left out, and why.
    pub last_bad: String,
}

impl Tally {
    pub(super) fn count(&mut self, input: &Input<'_>, bad: Option<impl std::fmt::Display>) {
        self.events += 1;
        if let Some(bad) = bad {
            self.bad += 1;
            self.last_bad = format!("{} of {}: {bad}", input.dot, input.stream);
        }
    }
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_varint(self.events);
        out.put_varint(self.bad);
        out.put_slice_with_len(self.last_bad.as_bytes());
    }
    pub(super) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let (events, bad) = (reader.varint("events")?, reader.varint("bad events")?);
        let last_bad = reader.text("last bad event")?.to_string();
        Ok(Self { events, bad, last_bad })
    }
}

/// A state as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The stream.
    pub stream: String,
    /// Version of the definition.
    pub version: u32,
    /// Events of the stream that are in it, bad ones included.
    pub events: u64,
    /// Events that were left out of the merged fields.
    pub bad: u64,
    /// Its fields.
    pub value: Map<String, Json>,
    /// What went into its ordered fields, if it has any.
    pub ordered: Option<ShownOrdered>,
}

/// What went into ordered fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShownOrdered {
    /// Events of the stream that are settled.
    pub settled_events: u64,
    /// Of these, left out because they are bad.
    pub settled_bad: u64,
    /// Events of the stream in the tentative fold: the settled ones, and those after them.
    pub tentative_events: u64,
    /// Of these, left out because they are bad.
    pub tentative_bad: u64,
}

/// The aggregates of one definition, in one shard.
pub(super) struct Projection {
    definition: Arc<Definition>,
    folding: Mutex<Folding>,
    settled: Option<Settled>,
}

struct Folding {
    /// Nobody goes on with it: what it kept is removed, or another one's.
    given_up: bool,
    /// Every event before this regional position is in.
    next: u64,
    tally: Tally,
    cache: Cache<State>,
}

/// What is settled of ordered fields is kept under this, within what is kept of the definition. The
/// cache uses smaller ones.
const SETTLED: u8 = 2;

impl Projection {
    /// Goes on where it was written last, or at the beginning.
    pub(super) fn open(
        shard: ShardId,
        definition: Arc<Definition>,
        states: Arc<dyn States>,
    ) -> Result<Self, StateError> {
        // The definition's own bytes: whoever changes them starts anew.
        let hash = blake3::hash(definition.to_json().to_string().as_bytes());
        let mut prefix = b"aggregates".to_vec();
        prefix.put_u16(shard.0);
        prefix.put(&hash.as_bytes()[..16]);
        let mut settled_prefix = prefix.clone();
        settled_prefix.put_byte(SETTLED);
        let (cache, kept) = Cache::open(prefix, Arc::clone(&definition), Arc::clone(&states))?;
        let (next, tally) = match kept.map(progress) {
            None => Default::default(),
            Some(Ok(progress)) => progress,
            Some(Err(error)) => {
                let category = &definition.category;
                tracing::warn!(category, %error, "the progress of aggregates cannot be read; they are rebuilt from the log");
                cache.remove_kept()?;
                Default::default()
            }
        };
        let settled = match definition.has_ordered() {
            true => Some(Settled::open(settled_prefix, Arc::clone(&definition), states)?),
            false => None,
        };
        let folding = Mutex::new(Folding { given_up: false, next, tally, cache });
        Ok(Self { definition, folding, settled })
    }

    pub(super) fn definition(&self) -> &Arc<Definition> {
        &self.definition
    }
    /// What is settled of its ordered fields, if it has any.
    pub(super) fn settled(&self) -> Option<&Settled> {
        self.settled.as_ref()
    }
    /// Every event of the log before this regional position is in.
    pub(super) fn next(&self) -> u64 {
        self.folding.lock().next
    }
    pub(super) fn tally(&self) -> Tally {
        self.folding.lock().tally.clone()
    }
    /// Everything before `next` was looked at.
    pub(super) fn passed(&self, next: u64) {
        let mut folding = self.folding.lock();
        folding.next = folding.next.max(next);
    }

    /// Lets readers have nothing of it from now on.
    pub(super) fn give_up(&self) {
        let mut folding = self.folding.lock();
        (folding.given_up, folding.next, folding.tally) = (true, 0, Tally::default());
        folding.cache.clear();
        self.settled.iter().for_each(Settled::give_up);
    }

    /// Removes all of it: another definition has taken its place.
    pub(super) fn forget(&self) -> Result<(), StateError> {
        self.give_up();
        // What is settled lies within it.
        self.folding.lock().cache.remove_kept()
    }

    /// Takes the event at `position` in, unless it is in already. It is number `revision` of its stream.
    pub(super) fn take(
        &self,
        position: u64,
        revision: u64,
        input: &Input<'_>,
        stable: &Context,
    ) -> Result<(), StateError> {
        let mut folding = self.folding.lock();
        if position < folding.next {
            return Ok(());
        }
        let Folding { cache, tally, .. } = &mut *folding;
        let (stream, event_bytes) = (input.stream, input.payload.len());
        let applied = cache.change(stream, event_bytes, |state, definition, origins| {
            // Another number is of another time than the progress: the disk has lost or brought back
            // something.
            let in_step = state.events() == revision;
            in_step.then(|| state.apply(definition, input, stable, origins).err())
        })?;
        let bad = applied.ok_or_else(|| cache.damaged(stream))?;
        tally.count(input, bad);
        folding.next = position + 1;
        if folding.cache.is_full() {
            folding.write(stable)?;
        }
        Ok(())
    }

    /// Writes what has changed, and how far it is. `stable` is of the log's own order.
    pub(super) fn flush(&self, stable: &Context) -> Result<(), StateError> {
        self.folding.lock().write(stable)?;
        self.settled.iter().try_for_each(Settled::flush)
    }

    /// The merged fields of a stream; of one without events, too. Nothing once it is given up.
    pub(super) fn show(&self, stream: &str) -> Result<Option<Shown>, StateError> {
        let mut folding = self.folding.lock();
        if folding.given_up {
            return Ok(None);
        }
        let shown = match folding.cache.get(stream)? {
            Some(state) => self.shown(stream, state),
            None => self.shown(stream, &State::new(&self.definition)),
        };
        folding.cache.make_room();
        Ok(Some(shown))
    }

    pub(super) fn shown(&self, stream: &str, state: &State) -> Shown {
        Shown {
            stream: stream.to_owned(),
            version: self.definition.version,
            events: state.events(),
            bad: state.bad(),
            value: state.value(&self.definition),
            ordered: None,
        }
    }

    /// Bytes that are equal wherever the same events of the stream are held.
    #[cfg(test)]
    pub(super) fn canonical(&self, stream: &str) -> Vec<u8> {
        let mut folding = self.folding.lock();
        let state = folding.cache.get(stream).unwrap();
        state.map(|state| state.canonical(&self.definition)).unwrap_or_default()
    }

    /// The merged fields of up to `limit` aggregates, by the names of their streams, after `after`.
    /// Nothing once it is given up.
    pub(super) fn page(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Option<Vec<Shown>>, StateError> {
        let mut folding = self.folding.lock();
        if folding.given_up {
            return Ok(None);
        }
        let mut page = Vec::with_capacity(limit);
        folding.cache.page(after, limit, |stream, state| page.push(self.shown(stream, state)))?;
        Ok(Some(page))
    }
}

impl Folding {
    fn write(&mut self, stable: &Context) -> Result<(), StateError> {
        let mut bytes = Vec::new();
        bytes.put_varint(self.next);
        self.tally.encode(&mut bytes);
        self.cache.write(stable, bytes.into())
    }
}

fn progress(bytes: Bytes) -> Result<(u64, Tally), DecodeError> {
    let mut reader = Reader::new(bytes);
    let next = reader.varint("progress")?;
    let tally = Tally::decode(&mut reader)?;
    reader.finish("progress")?;
    Ok((next, tally))
}
