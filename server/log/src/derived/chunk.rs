//! A state as key-value pairs: a head and chunks, each checked on its own.

use anabranch_core::codec::{Put, Reader};
use bytes::Bytes;

use super::Checkpoint;

/// Bytes of state in one chunk.
pub(super) const CHUNK_BYTES: usize = 256 * 1024;
/// The head sorts before the chunks, which count from 1.
const HEAD: u32 = 0;

/// Key of one piece: the name, a zero byte, generation and number, both big-endian so that they sort.
pub(super) fn key(name: &str, generation: u64, number: u32) -> Vec<u8> {
    let mut key = prefix(name);
    key.put(&generation.to_be_bytes());
    key.put(&number.to_be_bytes());
    key
}

/// What all keys of a name start with. Names hold no zero byte, so no other name's keys do.
pub(super) fn prefix(name: &str) -> Vec<u8> {
    let mut prefix = name.as_bytes().to_vec();
    prefix.push(0);
    prefix
}

/// The generation in a key of `name`.
pub(super) fn generation_of(name: &str, key: &[u8]) -> Option<u64> {
    let rest = key.strip_prefix(prefix(name).as_slice())?;
    let bytes: [u8; 8] = rest.get(..8)?.try_into().ok()?;
    (rest.len() == 12).then(|| u64::from_be_bytes(bytes))
}

/// The pairs of one generation: chunks first, the head last.
pub(super) fn split(
    name: &str,
    generation: u64,
    at: u64,
    parts: &[Bytes],
) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut pairs = Vec::new();
    let mut chunk = Vec::new();
    let mut total = 0u64;
    let close = |chunk: &mut Vec<u8>, pairs: &mut Vec<_>| {
        let key = key(name, generation, HEAD + 1 + pairs.len() as u32);
        pairs.push((key.clone(), sealed(&key, at, chunk)));
        chunk.clear();
    };
    for part in parts {
        total += part.len() as u64;
        let mut rest = &part[..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(CHUNK_BYTES - chunk.len()));
            chunk.put(now);
            rest = later;
            if chunk.len() == CHUNK_BYTES {
                close(&mut chunk, &mut pairs);
            }
        }
    }
    if !chunk.is_empty() {
        close(&mut chunk, &mut pairs);
    }
    let head_key = key(name, generation, HEAD);
    let mut head = Vec::new();
    head.put_u32(pairs.len() as u32);
    head.put_u64(total);
    let head = sealed(&head_key, at, &head);
    pairs.push((head_key, head));
    pairs
}

/// Puts a generation together again; nothing if any piece is missing or damaged.
pub(super) fn join(
    name: &str,
    generation: u64,
    mut find: impl FnMut(&[u8]) -> Option<Bytes>,
) -> Option<Checkpoint> {
    let head_key = key(name, generation, HEAD);
    let (at, head) = opened(&head_key, find(&head_key)?)?;
    let mut head = Reader::new(head);
    let (chunks, total) = (head.u32("chunks").ok()?, head.u64("bytes").ok()?);
    let mut bytes = Vec::with_capacity(usize::try_from(total).ok()?);
    for number in 1..=chunks {
        let key = key(name, generation, HEAD + number);
        let (chunk_at, chunk) = opened(&key, find(&key)?)?;
        if chunk_at != at {
            return None;
        }
        bytes.put(&chunk);
    }
    (bytes.len() as u64 == total).then(|| Checkpoint { at, bytes: bytes.into() })
}

fn check(key: &[u8], at: u64, content: &[u8]) -> u32 {
    let check = crc32c::crc32c_append(crc32c::crc32c(key), &at.to_le_bytes());
    crc32c::crc32c_append(check, content)
}

fn sealed(key: &[u8], at: u64, content: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(content.len() + 12);
    value.put_u32(check(key, at, content));
    value.put_u64(at);
    value.put(content);
    value
}

fn opened(key: &[u8], value: Bytes) -> Option<(u64, Bytes)> {
    let mut reader = Reader::new(value);
    let expected = reader.u32("check").ok()?;
    let at = reader.u64("log index").ok()?;
    let content = reader.rest();
    (check(key, at, &content) == expected).then_some((at, content))
}
