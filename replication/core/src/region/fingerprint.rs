//! Fingerprints: hashes of *sets* of events, comparable between regions whatever the order.
//!
//! An event's fingerprint is a hash over its dot and bytes; a set's is the wrapping sum. They find
//! faults, they do not resist an adversary: that is what the chain hashes are for.

use xxhash_rust::xxh3::{xxh3_64, xxh3_128_with_seed};

use crate::id::{Origin, Seq};

/// Number of buckets that streams are hashed to.
pub const BUCKETS: usize = 256;

/// Hash of a set of events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub u128);

impl Fingerprint {
    /// The fingerprint of both sets together.
    pub fn plus(self, other: Self) -> Self {
        Self(self.0.wrapping_add(other.0))
    }
}

/// The bucket of a stream: the same in every region.
pub fn bucket_of(stream: &str) -> usize {
    (xxh3_64(stream.as_bytes()) >> 32) as usize % BUCKETS
}

pub(super) fn origin_seed(origin: &Origin) -> u64 {
    let mut bytes = Vec::with_capacity(64);
    origin.encode(&mut bytes);
    xxh3_64(&bytes)
}

pub(super) fn of_event(origin_seed: u64, seq: Seq, encoded: &[u8]) -> Fingerprint {
    // An odd multiplier makes seeds of neighbouring seqs differ in many bits.
    let seed = origin_seed ^ seq.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Fingerprint(xxh3_128_with_seed(encoded, seed))
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Buckets(Box<[Fingerprint; BUCKETS]>);

impl Default for Buckets {
    fn default() -> Self {
        Self(Box::new([Fingerprint::default(); BUCKETS]))
    }
}

impl Buckets {
    pub(super) fn add(&mut self, stream: &str, print: Fingerprint) {
        let sum = &mut self.0[bucket_of(stream)];
        *sum = sum.plus(print);
    }
    pub(super) fn sums(&self) -> &[Fingerprint; BUCKETS] {
        &self.0
    }
}
