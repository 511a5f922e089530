//! States of many streams: in memory while they are used, the rest on disk, with what says how far the
//! fold has come.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use anabranch_core::Context;
use anabranch_core::aggregate::{Definition, Origins, State};
use anabranch_core::codec::{DecodeError, Put, Reader};
use anabranch_log::derived::states::{STATE_BYTES_MAX, StateError, States};
use bytes::Bytes;

/// Changed states that are written at once, at most: one batch, so that states and progress fit.
const DIRTY_MAX: usize = 4096;
/// Bytes of memory for the states of one definition.
const CACHE_BYTES: usize = 64 * 1024 * 1024;
/// Bytes of the largest state that is kept on disk.
const KEPT_BYTES_MAX: usize = if cfg!(test) { 64 * 1024 } else { STATE_BYTES_MAX };
/// What a state takes in the cache beside itself and its name.
const CACHED_BYTES: usize = 128;

/// Progress is under this, states under the next. After it comes the stream's name.
const PROGRESS: u8 = 0;
const STATE: u8 = 1;

/// What is folded from a stream.
pub(super) trait Foldable: Sized {
    /// Of a stream without events.
    fn blank(definition: &Definition) -> Self;
    /// Bytes of memory, about.
    fn memory(&self) -> usize;
    /// Forgets what nothing that is still to come can ask for.
    fn settle(&mut self, definition: &Definition, stable: &Context);
    /// Writes what is kept of it.
    fn encode(&self, out: &mut Vec<u8>);
    /// Reads what was kept.
    fn decode(
        definition: &Definition,
        reader: Reader,
        origins: &mut Origins,
    ) -> Result<Self, DecodeError>;
}

impl Foldable for State {
    fn blank(definition: &Definition) -> Self {
        Self::new(definition)
    }
    fn memory(&self) -> usize {
        self.memory()
    }
    fn settle(&mut self, definition: &Definition, stable: &Context) {
        self.settle(definition, stable);
    }
    fn encode(&self, out: &mut Vec<u8>) {
        self.encode(out);
    }
    fn decode(
        definition: &Definition,
        reader: Reader,
        origins: &mut Origins,
    ) -> Result<Self, DecodeError> {
        Self::decode(definition, reader, origins)
    }
}

/// The states of one definition, by stream.
pub(super) struct Cache<S> {
    definition: Arc<Definition>,
    prefix: Vec<u8>,
    states: Arc<dyn States>,
    origins: Origins,
    entries: BTreeMap<String, Cached<S>>,
    bytes: usize,
    /// Of these, those of states that are too large to be kept on disk.
    pinned: usize,
    dirty: usize,
    uses: u64,
}

struct Cached<S> {
    state: S,
    bytes: usize,
    /// Bytes of events since its own were counted: to count them takes a look at all of it.
    uncounted: usize,
    dirty: bool,
    /// It is too large to be kept on disk, unless it takes fewer bytes of memory than this.
    too_large_at: Option<usize>,
    used: u64,
}

impl<S: Foldable> Cached<S> {
    fn new(stream: &str, state: S, used: u64) -> Self {
        let bytes = CACHED_BYTES + stream.len() + state.memory();
        Self { state, bytes, uncounted: 0, dirty: false, too_large_at: None, used }
    }
}

impl<S: Foldable> Cache<S> {
    /// Over what is kept under `prefix`, with the progress that was written with it.
    pub(super) fn open(
        prefix: Vec<u8>,
        definition: Arc<Definition>,
        states: Arc<dyn States>,
    ) -> Result<(Self, Option<Bytes>), StateError> {
        let (origins, entries) = (Origins::default(), BTreeMap::new());
        let (bytes, pinned, dirty, uses) = (0, 0, 0, 0);
        let cache =
            Self { definition, prefix, states, origins, entries, bytes, pinned, dirty, uses };
        let kept = cache.states.get(&cache.key(PROGRESS, ""))?;
        // What is there without progress was not kept whole, or not removed whole.
        if kept.is_none() && !cache.states.scan(&cache.prefix, None, 1)?.is_empty() {
            cache.remove_kept()?;
        }
        Ok((cache, kept))
    }

    pub(super) fn definition(&self) -> &Arc<Definition> {
        &self.definition
    }
    /// Removes all that is on disk.
    pub(super) fn remove_kept(&self) -> Result<(), StateError> {
        self.states.remove_all(&self.prefix)
    }
    /// Forgets all that is in memory.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
        (self.bytes, self.pinned, self.dirty) = (0, 0, 0);
    }

    fn key(&self, what: u8, stream: &str) -> Vec<u8> {
        let mut key = Vec::with_capacity(self.prefix.len() + 1 + stream.len());
        key.put(&self.prefix);
        key.put_byte(what);
        key.put(stream.as_bytes());
        key
    }
    /// What is kept of the stream is not what it should be.
    pub(super) fn damaged(&self, stream: &str) -> StateError {
        StateError::Damaged { key: self.key(STATE, stream) }
    }

    /// The state of a stream, if there is one.
    pub(super) fn get(&mut self, stream: &str) -> Result<Option<&S>, StateError> {
        self.load(stream)?;
        Ok(self.entries.get(stream).map(|cached| &cached.state))
    }

    /// Makes sure that the state is in memory, if there is one.
    fn load(&mut self, stream: &str) -> Result<(), StateError> {
        if self.entries.contains_key(stream) {
            return Ok(());
        }
        let key = self.key(STATE, stream);
        let Some(bytes) = self.states.get(&key)? else { return Ok(()) };
        let state = S::decode(&self.definition, Reader::new(bytes), &mut self.origins);
        let state = state.map_err(|error| {
            tracing::warn!(stream, %error, "an aggregate that was kept cannot be read");
            StateError::Damaged { key }
        })?;
        self.uses += 1;
        let cached = Cached::new(stream, state, self.uses);
        self.bytes += cached.bytes;
        self.entries.insert(stream.to_owned(), cached);
        Ok(())
    }

    /// Changes the state of a stream by an event of so many bytes.
    pub(super) fn change<T>(
        &mut self,
        stream: &str,
        event_bytes: usize,
        change: impl FnOnce(&mut S, &Definition, &mut Origins) -> T,
    ) -> Result<T, StateError> {
        self.load(stream)?;
        let Self { definition, origins, entries, bytes, pinned, dirty, uses, .. } = self;
        let cached = entries.entry(stream.to_owned()).or_insert_with(|| {
            let new = Cached::new(stream, S::blank(definition), 0);
            *bytes += new.bytes;
            new
        });
        let done = change(&mut cached.state, definition, origins);
        *uses += 1;
        *dirty += usize::from(!cached.dirty);
        cached.uncounted += event_bytes + CACHED_BYTES;
        if cached.uncounted > cached.bytes / 16 {
            recount(stream, cached, bytes, pinned);
        }
        (cached.dirty, cached.used) = (true, *uses);
        Ok(done)
    }

    /// Changes of a state what is not kept on disk.
    pub(super) fn note(
        &mut self,
        stream: &str,
        note: impl FnOnce(&mut S),
    ) -> Result<(), StateError> {
        self.load(stream)?;
        let Self { definition, entries, bytes, pinned, uses, .. } = self;
        let cached = entries.entry(stream.to_owned()).or_insert_with(|| {
            let new = Cached::new(stream, S::blank(definition), *uses);
            *bytes += new.bytes;
            new
        });
        note(&mut cached.state);
        recount(stream, cached, bytes, pinned);
        self.make_room();
        Ok(())
    }

    /// Whether it is time to write.
    pub(super) fn is_full(&self) -> bool {
        self.dirty >= DIRTY_MAX || self.in_cache() > CACHE_BYTES
    }

    /// Writes what has changed, and `progress`, which says that all before it is on disk.
    pub(super) fn write(&mut self, stable: &Context, progress: Bytes) -> Result<(), StateError> {
        let mut changes = Vec::with_capacity(self.dirty + 1);
        let mut written = Vec::with_capacity(self.dirty);
        let mut whole = true;
        let state_key = self.key(STATE, "");
        let Self { definition, entries, bytes, pinned, .. } = self;
        for (stream, cached) in entries.iter_mut().filter(|(_, cached)| cached.dirty) {
            cached.state.settle(definition, stable);
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
            let mut key = state_key.clone();
            key.put(stream.as_bytes());
            changes.push((key, Some(Bytes::from(encoded))));
        }
        changes.push((self.key(PROGRESS, ""), whole.then_some(progress)));
        self.states.write(&changes)?;
        for stream in written {
            let Some(cached) = self.entries.get_mut(&stream) else { continue };
            cached.dirty = false;
            self.dirty -= 1;
        }
        self.make_room();
        Ok(())
    }

    /// Shows up to `limit` states, by the names of their streams, after `after`.
    pub(super) fn page(
        &mut self,
        after: Option<&str>,
        limit: usize,
        mut show: impl FnMut(&str, &S),
    ) -> Result<(), StateError> {
        let after_key = after.map(|stream| self.key(STATE, stream));
        let kept = self.states.scan(&self.key(STATE, ""), after_key.as_deref(), limit)?;
        let mut page: BTreeMap<String, Option<Bytes>> = BTreeMap::new();
        for (key, bytes) in kept {
            let name = String::from_utf8_lossy(&key[self.prefix.len() + 1..]).into_owned();
            page.insert(name, Some(bytes));
        }
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        for (stream, _) in self.entries.range::<str, _>((from, Bound::Unbounded)).take(limit) {
            page.insert(stream.clone(), None);
        }
        for (stream, bytes) in page.into_iter().take(limit) {
            if let Some(cached) = self.entries.get(&stream) {
                show(&stream, &cached.state);
            } else if let Some(bytes) = bytes {
                let state = S::decode(&self.definition, Reader::new(bytes), &mut self.origins);
                show(&stream, &state.map_err(|_| self.damaged(&stream))?);
            }
        }
        Ok(())
    }

    /// Bytes that can be freed.
    fn in_cache(&self) -> usize {
        self.bytes.saturating_sub(self.pinned)
    }

    /// Lets the states go that were not used for the longest time, until a quarter is free. What is not
    /// written yet stays.
    pub(super) fn make_room(&mut self) {
        if self.in_cache() <= CACHE_BYTES {
            return;
        }
        let clean = self.entries.iter().filter(|(_, cached)| !cached.dirty);
        let mut by_use: Vec<(u64, String)> =
            clean.map(|(stream, cached)| (cached.used, stream.clone())).collect();
        by_use.sort_unstable();
        for (_, stream) in by_use {
            if self.in_cache() <= CACHE_BYTES / 4 * 3 {
                break;
            }
            if let Some(cached) = self.entries.remove(&stream) {
                self.bytes -= cached.bytes;
            }
        }
    }
}

/// Counts the bytes of a state that has changed.
fn recount<S: Foldable>(
    stream: &str,
    cached: &mut Cached<S>,
    bytes: &mut usize,
    pinned: &mut usize,
) {
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
