//! The aggregates of one definition: states in memory, the rest and the progress on disk.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use anabranch_core::aggregate::{Definition, Input, Origins, State};
use anabranch_core::codec::{DecodeError, Put, Reader};
use anabranch_core::{Context, ShardId};
use anabranch_log::derived::states::{STATE_BYTES_MAX, StateError, States};
use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Map, Value as Json};

/// Changed states that are written at once, at most: one batch, so that states and progress fit.
const DIRTY_MAX: usize = 4096;
/// Bytes of memory for the states of one definition.
const CACHE_BYTES: usize = 64 * 1024 * 1024;
/// Bytes of the largest state that is kept on disk.
const KEPT_BYTES_MAX: usize = if cfg!(test) { 64 * 1024 } else { STATE_BYTES_MAX };
/// What a state takes in the cache beside itself and its name.
const CACHED_BYTES: usize = 128;

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

/// A state as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The stream.
    pub stream: String,
    /// Version of the definition.
    pub version: u32,
    /// Events of the stream that are in it, bad ones included.
    pub events: u64,
    /// Events that were left out.
    pub bad: u64,
    /// Its fields.
    pub value: Map<String, Json>,
}

/// The aggregates of one definition, in one shard.
pub(super) struct Projection {
    definition: Arc<Definition>,
    prefix: Vec<u8>,
    states: Arc<dyn States>,
    folding: Mutex<Folding>,
}

#[derive(Default)]
struct Folding {
    /// Nobody goes on with it: what it kept is removed, or another one's.
    given_up: bool,
    /// Every event before this regional position is in.
    next: u64,
    tally: Tally,
    origins: Origins,
    cache: BTreeMap<String, Cached>,
    bytes: usize,
    /// Of these, those of states that are too large to be kept on disk.
    pinned: usize,
    dirty: usize,
    uses: u64,
}

struct Cached {
    state: State,
    bytes: usize,
    /// Bytes of events since its own were counted: to count them takes a look at all of it.
    uncounted: usize,
    dirty: bool,
    /// It is too large to be kept on disk, unless it takes fewer bytes of memory than this.
    too_large_at: Option<usize>,
    used: u64,
}

impl Cached {
    fn new(stream: &str, state: State, used: u64) -> Self {
        let bytes = CACHED_BYTES + stream.len() + state.memory();
        Self { state, bytes, uncounted: 0, dirty: false, too_large_at: None, used }
    }
}

impl Folding {
    /// Bytes that can be freed.
    fn in_cache(&self) -> usize {
        self.bytes.saturating_sub(self.pinned)
    }
}

/// Progress is under this, states under the next. After it comes the stream's name.
const PROGRESS: u8 = 0;
const STATE: u8 = 1;

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
        let mut projection = Self { definition, prefix, states, folding: Mutex::default() };
        let kept = projection.states.get(&projection.key(PROGRESS, ""))?;
        match kept {
            // What is there without progress was not kept whole, or not removed whole.
            None => {
                if !projection.states.scan(&projection.prefix, None, 1)?.is_empty() {
                    projection.states.remove_all(&projection.prefix)?;
                }
            }
            Some(kept) => match progress(kept) {
                Ok((next, tally)) => {
                    *projection.folding.get_mut() = Folding { next, tally, ..Folding::default() };
                }
                Err(error) => {
                    let category = &projection.definition.category;
                    tracing::warn!(category, %error, "the progress of aggregates cannot be read; they are rebuilt from the log");
                    projection.states.remove_all(&projection.prefix)?;
                }
            },
        }
        Ok(projection)
    }

    pub(super) fn definition(&self) -> &Arc<Definition> {
        &self.definition
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
        *self.folding.lock() = Folding { given_up: true, ..Folding::default() };
    }

    /// Removes all of it: another definition has taken its place.
    pub(super) fn forget(&self) -> Result<(), StateError> {
        self.give_up();
        self.states.remove_all(&self.prefix)
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
        self.load(&mut folding, input.stream)?;
        let Folding { cache, origins, tally, bytes, pinned, dirty, uses, .. } = &mut *folding;
        let cached = cache.entry(input.stream.to_owned()).or_insert_with(|| {
            let new = Cached::new(input.stream, State::new(&self.definition), 0);
            *bytes += new.bytes;
            new
        });
        if cached.state.events() != revision {
            // It is of another time than the progress: the disk has lost or brought back something.
            return Err(StateError::Damaged { key: self.key(STATE, input.stream) });
        }
        tally.events += 1;
        if let Err(bad) = cached.state.apply(&self.definition, input, stable, origins) {
            tally.bad += 1;
            tally.last_bad = format!("{} of {}: {bad}", input.dot, input.stream);
        }
        *uses += 1;
        *dirty += usize::from(!cached.dirty);
        cached.uncounted += input.payload.len() + CACHED_BYTES;
        if cached.uncounted > cached.bytes / 16 {
            recount(input.stream, cached, bytes, pinned);
        }
        (cached.dirty, cached.used) = (true, *uses);
        folding.next = position + 1;
        if folding.dirty >= DIRTY_MAX || folding.in_cache() > CACHE_BYTES {
            self.write(&mut folding, stable)?;
        }
        Ok(())
    }

    /// Writes what has changed, and how far it is.
    pub(super) fn flush(&self, stable: &Context) -> Result<(), StateError> {
        let mut folding = self.folding.lock();
        self.write(&mut folding, stable)
    }

    fn write(&self, folding: &mut Folding, stable: &Context) -> Result<(), StateError> {
        let mut changes = Vec::with_capacity(folding.dirty + 1);
        let mut written = Vec::with_capacity(folding.dirty);
        let Folding { cache, bytes, pinned, .. } = &mut *folding;
        let mut whole = true;
        for (stream, cached) in cache.iter_mut().filter(|(_, cached)| cached.dirty) {
            cached.state.settle(&self.definition, stable);
            recount(stream, cached, bytes, pinned);
            if cached.too_large_at.is_some() {
                whole = false;
                continue;
            }
            let mut encoded = Vec::with_capacity(64);
            cached.state.encode(&mut encoded);
            if encoded.len() > KEPT_BYTES_MAX {
                let bytes = encoded.len();
                tracing::warn!(
                    stream,
                    bytes,
                    "an aggregate is too large to be kept; it stays in memory, and all of its category are folded again after a start"
                );
                cached.too_large_at = Some(cached.bytes);
                *pinned += cached.bytes;
                whole = false;
                continue;
            }
            written.push(stream.clone());
            changes.push((self.key(STATE, stream), Some(Bytes::from(encoded))));
        }
        // Progress says that all before it is on disk.
        let progress = whole.then(|| {
            let mut bytes = Vec::new();
            bytes.put_varint(folding.next);
            bytes.put_varint(folding.tally.events);
            bytes.put_varint(folding.tally.bad);
            bytes.put_slice_with_len(folding.tally.last_bad.as_bytes());
            bytes.into()
        });
        changes.push((self.key(PROGRESS, ""), progress));
        self.states.write(&changes)?;
        for stream in written {
            let Some(cached) = folding.cache.get_mut(&stream) else { continue };
            cached.dirty = false;
            folding.dirty -= 1;
        }
        make_room(folding);
        Ok(())
    }

    /// Makes sure that the state is in memory, if there is one.
    fn load(&self, folding: &mut Folding, stream: &str) -> Result<(), StateError> {
        if folding.cache.contains_key(stream) {
            return Ok(());
        }
        let key = self.key(STATE, stream);
        let Some(bytes) = self.states.get(&key)? else { return Ok(()) };
        let state = State::decode(&self.definition, Reader::new(bytes), &mut folding.origins);
        let state = state.map_err(|error| {
            tracing::warn!(stream, %error, "an aggregate that was kept cannot be read");
            StateError::Damaged { key }
        })?;
        folding.uses += 1;
        let cached = Cached::new(stream, state, folding.uses);
        folding.bytes += cached.bytes;
        folding.cache.insert(stream.to_owned(), cached);
        Ok(())
    }

    fn key(&self, what: u8, stream: &str) -> Vec<u8> {
        let mut key = Vec::with_capacity(self.prefix.len() + 1 + stream.len());
        key.put(&self.prefix);
        key.put_byte(what);
        key.put(stream.as_bytes());
        key
    }

    /// The aggregate of a stream; of one without events, too. Nothing once it is given up.
    pub(super) fn show(&self, stream: &str) -> Result<Option<Shown>, StateError> {
        let mut folding = self.folding.lock();
        if folding.given_up {
            return Ok(None);
        }
        self.load(&mut folding, stream)?;
        let state = folding.cache.get(stream).map(|cached| &cached.state);
        let blank;
        let state = match state {
            Some(state) => state,
            None => {
                blank = State::new(&self.definition);
                &blank
            }
        };
        let shown = self.shown(stream, state);
        if folding.in_cache() > CACHE_BYTES {
            make_room(&mut folding);
        }
        Ok(Some(shown))
    }

    pub(super) fn shown(&self, stream: &str, state: &State) -> Shown {
        Shown {
            stream: stream.to_owned(),
            version: self.definition.version,
            events: state.events(),
            bad: state.bad(),
            value: state.value(&self.definition),
        }
    }

    /// Bytes that are equal wherever the same events of the stream are held.
    #[cfg(test)]
    pub(super) fn canonical(&self, stream: &str) -> Vec<u8> {
        let mut folding = self.folding.lock();
        self.load(&mut folding, stream).unwrap();
        let cached = folding.cache.get(stream);
        cached.map(|cached| cached.state.canonical(&self.definition)).unwrap_or_default()
    }

    /// Up to `limit` aggregates, by the names of their streams, after `after`. Nothing once it is
    /// given up.
    pub(super) fn page(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Option<Vec<Shown>>, StateError> {
        let mut folding = self.folding.lock();
        if folding.given_up {
            return Ok(None);
        }
        let after_key = after.map(|stream| self.key(STATE, stream));
        let kept = self.states.scan(&self.key(STATE, ""), after_key.as_deref(), limit)?;
        let mut page: BTreeMap<String, Option<Bytes>> = BTreeMap::new();
        for (key, bytes) in kept {
            let name = String::from_utf8_lossy(&key[self.prefix.len() + 1..]).into_owned();
            page.insert(name, Some(bytes));
        }
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        for (stream, _) in folding.cache.range::<str, _>((from, Bound::Unbounded)).take(limit) {
            page.insert(stream.clone(), None);
        }
        let mut shown = Vec::with_capacity(limit);
        for (stream, bytes) in page.into_iter().take(limit) {
            if let Some(cached) = folding.cache.get(&stream) {
                shown.push(self.shown(&stream, &cached.state));
            } else if let Some(bytes) = bytes {
                let origins = &mut folding.origins;
                let state = State::decode(&self.definition, Reader::new(bytes), origins);
                let damaged = |_| StateError::Damaged { key: self.key(STATE, &stream) };
                shown.push(self.shown(&stream, &state.map_err(damaged)?));
            }
        }
        Ok(Some(shown))
    }
}

/// Counts the bytes of a state that has changed.
fn recount(stream: &str, cached: &mut Cached, bytes: &mut usize, pinned: &mut usize) {
    let before = cached.bytes;
    cached.bytes = CACHED_BYTES + stream.len() + cached.state.memory();
    cached.uncounted = 0;
    *bytes = *bytes - before + cached.bytes;
    if let Some(at) = cached.too_large_at {
        *pinned -= before;
        match cached.bytes < at {
            true => cached.too_large_at = None,
            false => *pinned += cached.bytes,
        }
    }
}

/// Lets the states go that were not used for the longest time, until a quarter is free. What is not
/// written yet stays.
fn make_room(folding: &mut Folding) {
    if folding.in_cache() <= CACHE_BYTES {
        return;
    }
    let clean = folding.cache.iter().filter(|(_, cached)| !cached.dirty);
    let mut by_use: Vec<(u64, String)> =
        clean.map(|(stream, cached)| (cached.used, stream.clone())).collect();
    by_use.sort_unstable();
    for (_, stream) in by_use {
        if folding.in_cache() <= CACHE_BYTES / 4 * 3 {
            break;
        }
        if let Some(cached) = folding.cache.remove(&stream) {
            folding.bytes -= cached.bytes;
        }
    }
}

fn progress(bytes: Bytes) -> Result<(u64, Tally), DecodeError> {
    let mut reader = Reader::new(bytes);
    let next = reader.varint("progress")?;
    let (events, bad) = (reader.varint("events")?, reader.varint("bad events")?);
    let last_bad = reader.text("last bad event")?.to_string();
    reader.finish("progress")?;
    Ok((next, Tally { events, bad, last_bad }))
}
