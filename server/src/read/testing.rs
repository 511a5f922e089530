//! Regions in memory for tests: real logs, stores and applied states, without Raft and network.
//!
//! What each region was given is also written down as a plain list, which is what reads are compared
//! with.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anabranch_core::event::Event;
use anabranch_core::order::{Finality, Mark};
use anabranch_core::region::Region;
use anabranch_core::sequencer::{Sequencer, Submission, Ticketed};
use anabranch_core::stamp::EPOCH_UNIX_MS;
use anabranch_core::{
    Command, Context, Dot, Group, Incarnation, Origin, RegionName, Request, ShardId, Stamp,
};
use anabranch_log::disk::{Disk, MemoryDisk};
use anabranch_log::store::{Store, StoreOptions};
use anabranch_log::{Log, LogOptions, Record, RecordKind, Writer};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::global::Order;
use super::view::View;
use crate::shard::{Applied, ShardState};

/// SplitMix64: small, seeded, the same everywhere.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
    pub(crate) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }
}

/// What is known of an event without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) dot: Dot,
    pub(crate) stream: String,
    pub(crate) kind: String,
    pub(crate) stamp: Stamp,
    pub(crate) position: u64,
    pub(crate) revision: u64,
}

/// One region on one node.
pub(crate) struct Site {
    pub(crate) state: ShardState,
    disk: MemoryDisk,
    inner: Mutex<Inner>,
    marks: Mutex<Vec<Mark>>,
    final_position: AtomicU64,
    mark_every: u64,
}

struct Inner {
    log: Log,
    writer: Writer,
    sequencer: Option<Sequencer>,
    order: Order,
    index: u64,
    known: Vec<Known>,
}

const LOG_ID: [u8; 16] = [5; 16];

pub(crate) fn origin(region: &str) -> Origin {
    let region = RegionName::new(region).unwrap();
    Origin { region, incarnation: Incarnation(7), shard: ShardId(0) }
}

pub(crate) fn event(stream: &str, kind: &str, bytes: usize) -> Event {
    let payload = Bytes::from(vec![b'x'; bytes]);
    let (stream, kind) = (stream.to_owned(), kind.to_owned());
    Event { stream, id: None, kind, metadata: Default::default(), payload }
}

impl Site {
    /// A region among `members` whose log has its genesis. Segments, caches and marks are small.
    pub(crate) fn new(region: &str, members: &[&str], mark_every: u64) -> Arc<Self> {
        let memory = MemoryDisk::new(1);
        let disk: Arc<dyn Disk> = Arc::new(memory.clone());
        let options =
            LogOptions { segment_bytes: 4096, cache_bytes: 1024, ..LogOptions::new(LOG_ID) };
        let (log, writer, _) = Log::open(Arc::clone(&disk), Path::new("log"), options).unwrap();
        let options = StoreOptions { command_cache_bytes: 4096, ..StoreOptions::new(LOG_ID) };
        let (store, _) =
            Store::open(disk, Path::new("index"), log.clone(), &options, None).unwrap();
        let state = ShardState::new(Region::new(), 0, store, Vec::new());
        let order = Order::after(Context::new());
        let inner = Inner { log, writer, sequencer: None, order, index: 0, known: Vec::new() };
        let site = Self {
            state,
            disk: memory,
            inner: Mutex::new(inner),
            marks: Mutex::default(),
            final_position: AtomicU64::new(0),
            mark_every,
        };
        let mut members: Vec<_> = members.iter().map(|m| RegionName::new(m).unwrap()).collect();
        members.sort();
        site.commit(Command::Genesis { origin: origin(region), members });
        let sequencer = site.state.region(|r| Sequencer::new(r, Duration::from_secs(3600)));
        site.inner.lock().sequencer = sequencer;
        Arc::new(site)
    }

    fn commit(&self, command: Command) {
        let mut inner = self.inner.lock();
        inner.index += 1;
        let index = inner.index;
        let (kind, payload) = (RecordKind::Command, command.encode());
        let record = Record { index, term: 1, leader: 1, kind, payload };
        inner.log.append(vec![record], Box::new(|done| done.unwrap()));
        while inner.writer.step() {}
        let mut position = command.position().unwrap_or_default();
        for placed in command.groups() {
            for (event, revision) in placed.group.events().iter().zip(&placed.revisions) {
                inner.known.push(Known {
                    dot: Dot { origin: placed.group.origin().clone(), seq: event.seq },
                    stream: event.stream.to_string(),
                    kind: event.kind.to_string(),
                    stamp: placed.group.stamp(),
                    position,
                    revision: *revision,
                });
                position += 1;
            }
        }
        let (outcomes, _) = self.state.apply(&[(index, Arc::new(command))], index);
        assert_eq!(outcomes, [anabranch_core::region::Outcome::Accepted]);
        self.state.store().seal_applied().unwrap();
        self.follow(&mut inner.order);
    }

    /// Follows the global order, as a node does in the background, with marks at will.
    fn follow(&self, order: &mut Order) {
        let finality = self.state.finality();
        let mut marks = self.marks.lock();
        while let Some(next) = order.next(self.state.store(), &finality).unwrap() {
            let (before, position) = (next.position, order.position());
            if before / self.mark_every < position / self.mark_every {
                let (cut, stamp) = (order.cut().clone(), next.group.stamp);
                marks.push(Mark { position, cut, stamp, chain: next.group.chain });
            }
        }
        self.final_position.store(order.position(), Ordering::Relaxed);
    }

    fn ticketed(&self, make: impl FnOnce(&mut Sequencer, &Region) -> Option<Ticketed>) {
        let made = {
            let mut inner = self.inner.lock();
            let sequencer = inner.sequencer.as_mut().unwrap();
            self.state.region(|region| make(sequencer, region))
        };
        if let Some(Ticketed { ticket, command, .. }) = made {
            self.commit(command);
            self.inner.lock().sequencer.as_mut().unwrap().applied(ticket);
        }
    }

    pub(crate) fn append(&self, ms: u64, requests: Vec<Vec<Event>>) {
        let submission = |events| Submission {
            request: Request { producer: None, events },
            expectations: Vec::new(),
        };
        let submissions = requests.into_iter().map(submission).collect();
        self.ticketed(|sequencer, region| {
            sequencer.sequence(EPOCH_UNIX_MS + ms, region, submissions).unwrap().0
        });
    }
    pub(crate) fn close(&self, ms: u64) {
        self.ticketed(|sequencer, _| Some(sequencer.close(EPOCH_UNIX_MS + ms).unwrap()));
    }

    /// Imports up to `groups` that `from` holds and this region does not, and what `from` says.
    pub(crate) fn import(&self, from: &Site, groups: usize) {
        let own = self.state.region(|region| region.origin().cloned().unwrap());
        let mut frontier = self.frontier();
        let mut taken: Vec<Group> = Vec::new();
        let theirs = from.frontier();
        loop {
            let before = taken.len();
            for (origin, held) in theirs.iter().filter(|(origin, _)| **origin != own) {
                let next = frontier.seq(origin).next();
                if next > held || taken.len() >= groups {
                    continue;
                }
                let slices = from.state.store().read_origin(origin, next, 1).unwrap();
                let group = slices[0].group().clone();
                if frontier.covers(&group.header().context) {
                    frontier.advance(origin, group.last());
                    taken.push(group);
                }
            }
            if taken.len() == before {
                break;
            }
        }
        let digest = from.state.region(|region| region.digest().unwrap());
        let covered = digest.seq() <= frontier.seq(&digest.origin);
        let digests = covered.then_some(digest).into_iter().collect();
        self.ticketed(|sequencer, region| Some(sequencer.import(region, taken, digests)));
    }

    /// Damages every segment of the log, or, the second time, makes them whole.
    pub(crate) fn flip_log(&self) {
        let folder = Path::new("log");
        for path in self.disk.list(folder).unwrap().iter().map(|name| folder.join(name)) {
            let bytes = self.disk.content(&path).map_or(0, |content| content.len() as u64);
            (0..bytes / 100).for_each(|nth| self.disk.flip_bit(&path, nth * 800));
        }
    }
    pub(crate) fn frontier(&self) -> Context {
        self.state.region(|region| region.frontier().clone())
    }
    pub(crate) fn known(&self) -> Vec<Known> {
        self.inner.lock().known.clone()
    }
}

impl View for Site {
    type Applied = Applied;

    fn region<T>(&self, look: impl FnOnce(&Region) -> T) -> T {
        self.state.region(look)
    }
    fn store(&self) -> &Store {
        self.state.store()
    }
    fn applied(&self) -> watch::Receiver<Applied> {
        self.state.applied()
    }
    fn finality(&self) -> Arc<Finality> {
        self.state.finality()
    }
    fn final_position(&self) -> u64 {
        self.final_position.load(Ordering::Relaxed)
    }
    fn seek_global(&self, position: u64) -> Option<Mark> {
        self.marks.lock().iter().rev().find(|mark| mark.position <= position).cloned()
    }
    fn mark_before(&self, stamp: Stamp) -> Option<Mark> {
        self.marks.lock().iter().rev().find(|mark| mark.stamp < stamp).cloned()
    }
}

pub(crate) const REGIONS: [&str; 3] = ["asia", "eu", "us"];
pub(crate) const STREAMS: [&str; 5] = ["cart-1", "cart-2", "order-1", "order-2", "plain"];
pub(crate) const KINDS: [&str; 2] = ["Added", "Removed"];

/// Three regions after a random history. Each holds everything; the order is final up to the end.
pub(crate) fn world(seed: u64, steps: u64) -> Vec<Arc<Site>> {
    let mut rng = Rng(seed);
    let sites: Vec<_> =
        REGIONS.iter().map(|region| Site::new(region, &REGIONS, 1 + rng.below(20))).collect();
    let mut ms = 1_000;
    for _ in 0..steps {
        ms += rng.below(3);
        let at = rng.below(3) as usize;
        match rng.below(10) {
            0 => sites[at].close(ms),
            1..5 => {
                let from = (at + 1 + rng.below(2) as usize) % 3;
                sites[at].import(&sites[from], 1 + rng.below(6) as usize);
            }
            _ => {
                let requests = 1 + rng.below(3);
                let requests = (0..requests).map(|_| events(&mut rng)).collect();
                sites[at].append(ms, requests);
            }
        }
    }
    settle(&sites, ms + 10);
    sites
}

fn events(rng: &mut Rng) -> Vec<Event> {
    let count = 1 + rng.below(4);
    (0..count)
        .map(|_| {
            event(rng.pick::<&str>(&STREAMS), rng.pick::<&str>(&KINDS), rng.below(40) as usize)
        })
        .collect()
}

/// Lets all regions hear everything of all others, promises included.
pub(crate) fn settle(sites: &[Arc<Site>], ms: u64) {
    for round in 0..3 {
        sites.iter().for_each(|site| site.close(ms + round));
        for to in sites {
            for from in sites.iter().filter(|from| !Arc::ptr_eq(from, to)) {
                to.import(from, usize::MAX);
            }
        }
    }
}

/// The global order as its definition has it.
pub(crate) fn global(site: &Site) -> Vec<Known> {
    let mut known = site.known();
    known.sort_by_key(|known| (known.stamp, known.dot.clone()));
    known
}
