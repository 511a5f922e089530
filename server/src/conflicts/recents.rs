//! What may still be concurrent with something, of every stream: in memory, and on disk if there is no
//! room.

use std::collections::BTreeMap;

use anabranch_core::Context;
use anabranch_core::codec::Reader;
use anabranch_core::conflict::Recent;
use anabranch_log::derived::states::{Change, StateError, States};
use bytes::Bytes;

use super::rows::Keys;

/// Bytes of memory for all streams.
const MEMORY_MAX: usize = if cfg!(test) { 1024 } else { 32 * 1024 * 1024 };
/// Groups of one stream that are kept; the oldest are forgotten.
const PARTS_MAX: usize = if cfg!(test) { 1000 } else { 500_000 };
/// Streams and bytes that go to disk in one write.
const WRITE_STREAMS: usize = 1000;
const WRITE_BYTES: usize = 16 * 1024 * 1024;
/// What a stream takes beside its name and events.
const HELD_BYTES: usize = 128;

struct Held {
    recent: Recent,
    bytes: usize,
    used: u64,
}

/// The streams of one order.
#[derive(Default)]
pub(super) struct Recents {
    streams: BTreeMap<String, Held>,
    bytes: usize,
    uses: u64,
    /// What was put on disk is of events before this position; none is there if it is 0.
    on_disk_before: u64,
}

impl Recents {
    /// Has `feed` look at what is kept of a stream, after what is `stable` was forgotten.
    pub(super) fn with<T>(
        &mut self,
        states: &dyn States,
        keys: &Keys,
        stream: &str,
        stable: &Context,
        feed: impl FnOnce(&mut Recent) -> T,
    ) -> Result<T, StateError> {
        if !self.streams.contains_key(stream) {
            let recent = self.load(states, keys, stream)?;
            let held = Held { recent, bytes: 0, used: 0 };
            self.streams.insert(stream.to_owned(), held);
        }
        self.uses += 1;
        let held = self.streams.get_mut(stream).expect("it was put in");
        held.used = self.uses;
        held.recent.prune(stable);
        let fed = feed(&mut held.recent);
        if held.recent.parts() > PARTS_MAX {
            // Many at once: each time all of them are counted.
            let forgotten = held.recent.shorten(PARTS_MAX - PARTS_MAX / 16);
            tracing::error!(
                stream,
                forgotten,
                "a stream has so many events that some region has not seen that conflicts with the oldest are not looked for any more"
            );
        }
        let bytes = HELD_BYTES + stream.len() + held.recent.memory();
        self.bytes = self.bytes + bytes - held.bytes;
        held.bytes = bytes;
        Ok(fed)
    }

    fn load(&self, states: &dyn States, keys: &Keys, stream: &str) -> Result<Recent, StateError> {
        if self.on_disk_before == 0 {
            return Ok(Recent::default());
        }
        let key = keys.recent(stream);
        let Some(bytes) = states.get(&key)? else { return Ok(Recent::default()) };
        let mut reader = Reader::new(bytes);
        let recent = Recent::decode(&mut reader);
        let whole = recent.and_then(|recent| reader.finish("stream").map(|()| recent));
        whole.map_err(|_| StateError::Damaged { key })
    }

    /// Forgets what is stable everywhere, and puts on disk what has no room. All fed so far is of events
    /// before `position`; none before `oldest` is needed any more.
    pub(super) fn tidy(
        &mut self,
        states: &dyn States,
        keys: &Keys,
        stable: &Context,
        position: u64,
        oldest: u64,
    ) -> Result<(), StateError> {
        let bytes = &mut self.bytes;
        self.streams.retain(|stream, held| {
            held.recent.prune(stable);
            *bytes -= held.bytes;
            held.bytes = HELD_BYTES + stream.len() + held.recent.memory();
            let keep = !held.recent.is_empty();
            *bytes += if keep { held.bytes } else { 0 };
            keep
        });
        if self.on_disk_before > 0 && self.on_disk_before <= oldest {
            states.remove_all(&keys.recents())?;
            self.on_disk_before = 0;
        }
        match self.is_full() {
            true => self.put_on_disk(states, keys, position),
            false => Ok(()),
        }
    }

    /// Whether memory should be made free.
    pub(super) fn is_full(&self) -> bool {
        self.bytes > MEMORY_MAX
    }

    /// Puts those that were used longest ago on disk, until half of the room is free.
    fn put_on_disk(
        &mut self,
        states: &dyn States,
        keys: &Keys,
        position: u64,
    ) -> Result<(), StateError> {
        let mut by_use: Vec<(u64, String)> =
            self.streams.iter().map(|(stream, held)| (held.used, stream.clone())).collect();
        by_use.sort_unstable();
        self.on_disk_before = position;
        let (mut changes, mut bytes): (Vec<Change>, usize) = (Vec::new(), 0);
        for (_, stream) in by_use {
            if self.bytes <= MEMORY_MAX / 2 {
                break;
            }
            let Some(held) = self.streams.remove(&stream) else { continue };
            self.bytes -= held.bytes;
            let mut encoded = Vec::new();
            held.recent.encode(&mut encoded);
            bytes += encoded.len();
            changes.push((keys.recent(&stream), Some(Bytes::from(encoded))));
            if changes.len() >= WRITE_STREAMS || bytes >= WRITE_BYTES {
                states.write(&std::mem::take(&mut changes))?;
                bytes = 0;
            }
        }
        states.write(&changes)
    }
}
