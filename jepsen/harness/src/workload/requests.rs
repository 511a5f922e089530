//! What a writer asks for next.

use std::collections::BTreeMap;

use anabranch_client::Expect;
use parking_lot::Mutex;
use rand::Rng;
use rand::rngs::SmallRng;

/// Streams that every region writes to.
const SHARED: u32 = 12;
/// Streams that one region writes to, so that revisions can be foreseen.
const OWN: u32 = 6;

/// The last revisions of a region's own streams, as its writers know them.
#[derive(Debug, Default)]
pub(super) struct Revisions {
    known: Mutex<BTreeMap<String, Option<u64>>>,
}

impl Revisions {
    fn expectation(&self, stream: &str) -> Expect {
        match self.known.lock().get(stream).copied().flatten() {
            Some(revision) => Expect::Revision(revision),
            None => Expect::NoStream,
        }
    }
    /// A stream ends at this revision, or is not there.
    pub(super) fn learn(&self, stream: &str, revision: Option<u64>) {
        if stream.starts_with("own") {
            let mut known = self.known.lock();
            let last = known.entry(stream.to_owned()).or_default();
            *last = (*last).max(revision);
        }
    }
}

/// An append to be made.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Wish {
    /// Streams and how many events of each, in order.
    pub(super) streams: Vec<(String, u32)>,
    /// What is expected of the first stream.
    pub(super) expect: Expect,
    /// Regions that must hold it before it is acknowledged.
    pub(super) regions: u32,
}

pub(super) fn draw(rng: &mut SmallRng, region: &str, revisions: &Revisions) -> Wish {
    let shared = |rng: &mut SmallRng| format!("shared-{}", rng.random_range(0..SHARED));
    let own = |rng: &mut SmallRng| format!("own-{region}-{}", rng.random_range(0..OWN));
    let events = |rng: &mut SmallRng| rng.random_range(1..5);
    let plain = |streams| Wish { streams, expect: Expect::Any, regions: 1 };
    match rng.random_range(0..100) {
        0..40 => plain(vec![(shared(rng), events(rng))]),
        40..65 => {
            let stream = own(rng);
            let expect = revisions.expectation(&stream);
            Wish { streams: vec![(stream, events(rng))], expect, regions: 1 }
        }
        65..73 => {
            let stream = own(rng);
            let expect = wrong(rng, revisions.expectation(&stream));
            Wish { streams: vec![(stream, events(rng))], expect, regions: 1 }
        }
        73..88 => {
            let streams = vec![(shared(rng), events(rng)), (own(rng), events(rng))];
            plain(streams)
        }
        _ => Wish { regions: 2, ..plain(vec![(shared(rng), events(rng))]) },
    }
}

/// An expectation that will hardly hold.
fn wrong(rng: &mut SmallRng, right: Expect) -> Expect {
    match right {
        Expect::Revision(revision) if rng.random_bool(0.5) => Expect::Revision(revision + 1_000),
        Expect::Revision(_) => Expect::NoStream,
        _ => Expect::Revision(7),
    }
}
