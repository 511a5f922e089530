//! What is kept of conflicts, and under which keys.

use std::sync::Arc;

use anabranch_core::codec::{DecodeError, Put, Reader};
use anabranch_core::conflict::{Conflict, Resolved};
use anabranch_core::{Context, Cursor, ReadOrder, ShardId, Stamp};
use anabranch_log::derived::states::{StateError, States};
use bytes::Bytes;

const PROGRESS: u8 = 0;
/// By position.
const ROW: u8 = 1;
/// By stream and position.
const OF_STREAM: u8 = 2;
/// Resolutions, by stream, stamp and position.
const RESOLVED: u8 = 3;
/// What may still be concurrent with something, of streams for which memory has no room.
const RECENT: u8 = 4;

/// A conflict, and where it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    /// Of its first event, in the order that was walked.
    pub(super) position: u64,
    /// Everything before the group of its events.
    pub(super) before: Context,
    /// Nothing of the stream before this position is in a conflict with anything after this one.
    pub(super) oldest: u64,
    pub(super) conflict: Conflict,
}

impl Row {
    /// After it, and before the next.
    pub(super) fn cursor(&self, order: ReadOrder) -> Cursor {
        let mut context = self.before.clone();
        context.advance(&self.conflict.events.origin, self.conflict.events.first);
        Cursor { order, context }
    }
    pub(super) fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(256);
        out.put_varint(self.position);
        self.before.encode(&mut out);
        out.put_varint(self.oldest);
        self.conflict.encode(&mut out);
        out.into()
    }
    fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let position = reader.varint("position of a conflict")?;
        let before = Context::decode(&mut reader)?;
        let oldest = reader.varint("oldest of a conflict")?;
        let conflict = Conflict::decode(&mut reader)?;
        reader.finish("conflict")?;
        Ok(Self { position, before, oldest, conflict })
    }
}

/// The keys of one order of one shard.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: Vec<u8>,
}

impl Keys {
    pub(super) fn new(shard: ShardId, order: ReadOrder) -> Self {
        let mut prefix = b"conflicts".to_vec();
        prefix.put_u16(shard.0);
        prefix.put_byte(match order {
            ReadOrder::Regional => b'r',
            ReadOrder::Global => b'g',
        });
        Self { prefix }
    }
    /// What all of them begin with.
    pub(super) fn all(&self) -> &[u8] {
        &self.prefix
    }
    fn kind(&self, kind: u8) -> Vec<u8> {
        let mut key = self.prefix.clone();
        key.put_byte(kind);
        key
    }
    fn stream(&self, kind: u8, stream: &str) -> Vec<u8> {
        let mut key = self.kind(kind);
        // With its length, so that no stream's keys begin with another one's.
        key.extend((stream.len() as u16).to_be_bytes());
        key.put(stream.as_bytes());
        key
    }
    pub(super) fn progress(&self) -> Vec<u8> {
        self.kind(PROGRESS)
    }
    pub(super) fn row(&self, position: u64) -> Vec<u8> {
        at(self.kind(ROW), position)
    }
    pub(super) fn of_stream(&self, stream: &str, position: u64) -> Vec<u8> {
        at(self.stream(OF_STREAM, stream), position)
    }
    pub(super) fn resolved(&self, stream: &str, stamp: Stamp, position: u64) -> Vec<u8> {
        at(at(self.stream(RESOLVED, stream), stamp.0), position)
    }
    pub(super) fn recents(&self) -> Vec<u8> {
        self.kind(RECENT)
    }
    pub(super) fn recent(&self, stream: &str) -> Vec<u8> {
        self.stream(RECENT, stream)
    }
}

/// Big-endian, so that keys sort as numbers do.
fn at(mut key: Vec<u8>, number: u64) -> Vec<u8> {
    key.extend(number.to_be_bytes());
    key
}

/// Up to `limit` rows that are on disk, from `position` on: of a stream, or all.
pub(super) fn read(
    states: &dyn States,
    keys: &Keys,
    stream: Option<&str>,
    position: u64,
    limit: usize,
) -> Result<Vec<Arc<Row>>, StateError> {
    let prefix = match stream {
        None => keys.kind(ROW),
        Some(stream) => keys.stream(OF_STREAM, stream),
    };
    let after = position.checked_sub(1).map(|before| at(prefix.clone(), before));
    let found = states.scan(&prefix, after.as_deref(), limit)?;
    let rows = found.into_iter().map(|(key, bytes)| match Row::decode(bytes) {
        Ok(row) => Ok(Arc::new(row)),
        Err(_) => Err(StateError::Damaged { key }),
    });
    rows.collect()
}

/// Comes before the keys of resolutions that are stamped `from` or later.
pub(super) fn before_resolved(keys: &Keys, stream: &str, from: Stamp) -> Option<Vec<u8>> {
    let before = from.0.checked_sub(1)?;
    Some(keys.resolved(stream, Stamp(before), u64::MAX))
}

/// A resolution, and its key.
pub(super) type Keyed = (Vec<u8>, Arc<Resolved>);

/// The resolutions of a stream that are on disk, after a key; up to `limit`, by stamp.
pub(super) fn read_resolved(
    states: &dyn States,
    keys: &Keys,
    stream: &str,
    after: Option<&[u8]>,
    limit: usize,
) -> Result<Vec<Keyed>, StateError> {
    let prefix = keys.stream(RESOLVED, stream);
    let found = states.scan(&prefix, after, limit)?;
    let resolved = found.into_iter().map(|(key, bytes)| {
        let mut reader = Reader::new(bytes);
        let resolved = Resolved::decode(&mut reader);
        let whole = resolved.and_then(|resolved| reader.finish("resolution").map(|()| resolved));
        match whole {
            Ok(resolved) => Ok((key, Arc::new(resolved))),
            Err(_) => Err(StateError::Damaged { key }),
        }
    });
    resolved.collect()
}
