//! Following the log: every event goes to the aggregate of its stream.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anabranch_core::aggregate::{Definition, Input, identity};
use anabranch_core::codec::{DecodeError, Put, Reader};
use anabranch_core::declared::{self, Declarations, Declare};
use anabranch_core::event::category;
use anabranch_core::{Chain, Context, Dot, EventView, Seq, ShardId, Stamp};
use anabranch_log::derived::states::{StateError, States};
use anabranch_log::index::{Direction, Wanted};
use anabranch_log::store::{GroupSlice, PlacedEvent, StoreError};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::board::{Board, Category};
use super::projection::Projection;
use super::walk::{Walk, Walked, earliest};
use crate::env::blocking;
use crate::pace::Pace;
use crate::read::View;
use crate::stability::Stability;

/// Events looked at before what is known is published, and others have their turn.
pub(super) const PASS_EVENTS: u64 = 8192;
/// Events and bytes read at once.
const READ_EVENTS: usize = 512;
const READ_BYTES: usize = 1024 * 1024;
/// What changed is written this often, and at the end.
const FLUSH_EVERY: Duration = Duration::from_secs(2);
/// A pass begins no sooner than this after the one before it.
const GAP: Duration = Duration::from_millis(5);
/// Pause after the log, or what is kept, could not be read or written.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// What is given up again so soon is not folded again at once: it may go on like that.
const RECOVERED_LATELY: Duration = Duration::from_secs(10);

/// Why a pass ended early.
#[derive(Debug, thiserror::Error)]
pub(super) enum PassError {
    #[error("read the log")]
    Store(#[from] StoreError),
    #[error("what is kept of the aggregates")]
    States(#[from] StateError),
}

/// Whether a pass went all the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    Done,
    More,
}

/// Goes through the log of one shard.
pub(super) struct Follower<V> {
    view: Arc<V>,
    shard: ShardId,
    states: Arc<dyn States>,
    board: Arc<Board>,
    catalog: Declarations<Definition>,
    /// Every event before this position was looked at.
    next: u64,
    /// The group of the event before it when it was written last; of one that was followed so far, compared
    /// with the log before anything is.
    last: Option<Chain>,
    /// Whether the log is known to be the one that was followed so far.
    verified: bool,
    stability: Stability,
    /// The way through the global order of those that are served and have ordered fields.
    walk: Option<Walk>,
    /// Definitions whose aggregates are not up to `next` yet, or not to what is final.
    catching_up: BTreeMap<String, CatchingUp>,
}

/// Where a definition is that is not served yet.
#[derive(Default)]
struct CatchingUp {
    /// What is stable there.
    stability: Stability,
    /// Its own way through the global order, if it has ordered fields.
    walk: Option<Walk>,
}

impl<V: View> Follower<V> {
    /// Goes on where it was written last, or at the beginning.
    pub(super) fn open(
        view: Arc<V>,
        shard: ShardId,
        states: Arc<dyn States>,
        board: Arc<Board>,
    ) -> Self {
        let mut follower = Self {
            view,
            shard,
            states,
            board,
            catalog: Declarations::default(),
            next: 0,
            last: None,
            verified: false,
            stability: Stability::default(),
            walk: None,
            catching_up: BTreeMap::new(),
        };
        if let Err(error) = follower.resume() {
            follower.recover(&error);
        }
        follower
    }

    fn resume(&mut self) -> Result<(), StateError> {
        let shard = self.shard;
        let kept = self.states.get(&key(shard))?;
        let Kept { next, last, catalog, served } = match kept.map(Reader::new).map(decode) {
            None => Kept::default(),
            Some(Ok(kept)) => kept,
            Some(Err(error)) => {
                tracing::warn!(%shard, %error, "the progress of aggregates cannot be read; definitions are looked for from the beginning of the log");
                Kept::default()
            }
        };
        (self.next, self.last) = (next, last);
        for definition in &served {
            self.put_up(definition)?;
        }
        for declared in catalog.iter() {
            self.put_up(&declared.declaration)?;
        }
        self.catalog = catalog;
        Ok(())
    }

    /// Has the aggregates of a definition built, beside those that are served until then.
    fn put_up(&mut self, definition: &Arc<Definition>) -> Result<(), StateError> {
        let name = definition.category.clone();
        let (serving, building) = self.board.of(&name);
        let is_it = |known: &Option<Arc<Projection>>| {
            known.as_ref().is_some_and(|known| known.definition() == definition)
        };
        // Declared again, it goes on: two that keep their states in one place would spoil them.
        if is_it(&building) {
            return Ok(());
        }
        if is_it(&serving) {
            self.catching_up.remove(&name);
            let dropped =
                self.board.change(|categories| categories.get_mut(&name)?.building.take());
            return dropped.map_or(Ok(()), |dropped| dropped.forget());
        }
        let states = Arc::clone(&self.states);
        let projection = Projection::open(self.shard, Arc::clone(definition), states)?;
        let projection = Arc::new(projection);
        let complete = projection.settled().is_none_or(|settled| settled.is_complete());
        let ready = projection.next() >= self.next && complete;
        if ready {
            // What is served next may be behind the others.
            self.walk = None;
        }
        let replaced = self.board.change(|categories| {
            let category = categories.entry(name.clone()).or_insert_with(Category::default);
            // The one that was being built is of no use any more.
            let built = category.building.take();
            let served = match ready {
                true => category.serving.replace(projection),
                false => {
                    category.building = Some(projection);
                    None
                }
            };
            [built, served]
        });
        match ready {
            true => drop(self.catching_up.remove(&name)),
            false => drop(self.catching_up.insert(name, CatchingUp::default())),
        }
        replaced.into_iter().flatten().try_for_each(|replaced| replaced.forget())
    }

    /// Looks at what is new, not too much at once.
    pub(super) fn pass(&mut self) -> Result<Pass, PassError> {
        if let Some(error) = self.board.take_reported() {
            return Err(error.into());
        }
        let held = self.view.region(|region| {
            self.stability.hear(region);
            region.position()
        });
        if held < self.next {
            // After a start: what was applied before is being applied again.
            return Ok(Pass::Done);
        }
        self.verify()?;
        self.look_at(held.min(self.next + PASS_EVENTS))?;
        let mut pass = if self.next < held { Pass::More } else { Pass::Done };
        for name in self.catching_up.keys().cloned().collect::<Vec<_>>() {
            if self.catch_up(&name)? == Pass::More {
                pass = Pass::More;
            }
        }
        if self.settle()? == Pass::More {
            pass = Pass::More;
        }
        Ok(pass)
    }

    /// Gives what has become final to those that are served and have ordered fields.
    fn settle(&mut self) -> Result<Pass, PassError> {
        let mut serving = self.board.serving();
        serving.retain(|_, projection| projection.settled().is_some());
        let Some(begin) = earliest(serving.values().filter_map(|of| of.settled())) else {
            self.walk = None;
            return Ok(Pass::Done);
        };
        let walk = self.walk.get_or_insert_with(|| Walk::after(begin));
        let Walked { pass, news } = walk.pass(&*self.view, &serving)?;
        if news {
            self.board.moved();
        }
        Ok(pass)
    }

    /// Gives the events before `end` to the aggregates that are served.
    fn look_at(&mut self, end: u64) -> Result<(), PassError> {
        let mut serving = self.board.serving();
        while self.next < end {
            // Most events of most logs are of no aggregate: the index knows without reading them.
            let candidate = self.next_candidate(&serving)?;
            if candidate > self.next {
                self.next = candidate.min(end);
                continue;
            }
            let slices = self.read(self.next)?;
            for slice in &slices {
                self.take_in(slice, end, &mut serving)?;
            }
            if slices.is_empty() {
                break;
            }
        }
        self.publish();
        Ok(())
    }

    /// The next event that may be of an aggregate that is served, or declare one.
    fn next_candidate(
        &self,
        serving: &BTreeMap<String, Arc<Projection>>,
    ) -> Result<u64, StoreError> {
        let served = serving.keys().map(|name| Wanted::Category(name));
        let wanted: Vec<_> = served.chain([Wanted::Category(Definition::CATEGORY)]).collect();
        self.view.store().next_wanted(self.next, &wanted, PASS_EVENTS as usize)
    }

    #[cfg(test)]
    pub(super) fn take_next(&mut self, end: u64) {
        self.look_at(end).unwrap();
    }

    /// Compares the log with what is kept, once. If it is another one, all is built again.
    fn verify(&mut self) -> Result<(), PassError> {
        if self.verified {
            return Ok(());
        }
        if self.group_before()? != self.last {
            tracing::warn!(shard = %self.shard, "aggregates were kept of another log than this one; they are folded anew");
            self.begin_anew();
            self.states.remove_all(&[])?;
        }
        self.verified = true;
        Ok(())
    }

    /// The group of the last event that was looked at.
    fn group_before(&self) -> Result<Option<Chain>, StoreError> {
        let Some(before) = self.next.checked_sub(1) else { return Ok(None) };
        let slices = self.view.store().read_positions(before, Direction::Forward, 1, 1)?;
        Ok(slices.first().map(|slice| slice.group().chain()))
    }

    fn read(&self, from: u64) -> Result<Vec<GroupSlice>, StoreError> {
        self.view.store().read_positions(from, Direction::Forward, READ_EVENTS, READ_BYTES)
    }

    fn take_in(
        &mut self,
        slice: &GroupSlice,
        end: u64,
        serving: &mut BTreeMap<String, Arc<Projection>>,
    ) -> Result<(), PassError> {
        let positions = slice.positions();
        self.stability.pass(slice.group(), positions.start);
        let wanted = |name: &str| name == Definition::CATEGORY || serving.contains_key(name);
        let mut wanted: Vec<Seen> = seen(slice, wanted).collect();
        let declares = |seen: &Seen| category(&seen.event.stream) == Definition::CATEGORY;
        if wanted.iter().any(declares) {
            // What is declared may be served at once, and want the events that follow.
            wanted = seen(slice, |_| true).collect();
        }
        if !wanted.is_empty() {
            let stable = self.stability.cut().clone();
            for seen in wanted.iter().filter(|seen| seen.position < end) {
                self.next = seen.position;
                if declares(seen) {
                    self.declare(seen)?;
                    *serving = self.board.serving();
                } else if let Some(projection) = serving.get(category(&seen.event.stream)) {
                    projection.take(seen.position, seen.revision, &seen.input(), &stable)?;
                }
            }
        }
        self.next = positions.end.min(end);
        Ok(())
    }

    fn declare(&mut self, seen: &Seen) -> Result<(), PassError> {
        let event = &seen.event;
        let taken = self.catalog.take(
            seen.dot.clone(),
            seen.input().stamp,
            &event.stream,
            &event.kind,
            &event.payload,
        );
        match taken {
            Ok(Some(definition)) => {
                let (category, version) = (&definition.category, definition.version);
                tracing::info!(shard = %self.shard, category, version, "aggregates are built by a new definition");
                self.put_up(&definition)?;
            }
            Ok(None) => {
                let (dot, stream) = (&seen.dot, &*event.stream);
                tracing::info!(%dot, stream, "a definition does not count: another one has a higher version, or is later");
            }
            Err(reason) => {
                let (dot, stream) = (&seen.dot, &*event.stream);
                tracing::warn!(%dot, stream, %reason, "an event declares nothing, and is passed over");
            }
        }
        Ok(())
    }

    /// Takes the events that a new definition has not seen, as far as the others are.
    fn catch_up(&mut self, name: &str) -> Result<Pass, PassError> {
        let Some(projection) = self.board.building(name) else {
            self.catching_up.remove(name);
            return Ok(Pass::Done);
        };
        // It stays among those that catch up, also if the log cannot be read now.
        let mut catching_up = self.catching_up.remove(name).unwrap_or_default();
        let caught = self.take_missing(name, &projection, &mut catching_up.stability);
        let settled = self.take_final(name, &projection, &mut catching_up.walk);
        self.catching_up.insert(name.to_owned(), catching_up);
        let (caught, settled) = (caught?, settled?);
        if caught < self.next || settled == Pass::More {
            return Ok(Pass::More);
        }
        if !projection.settled().is_none_or(|settled| settled.is_current()) {
            // The log is being applied again, and has not come to where it was.
            return Ok(Pass::Done);
        }
        let caught_up = self.catching_up.remove(name);
        if self.walk.is_none() {
            self.walk = caught_up.and_then(|caught_up| caught_up.walk);
        }
        let replaced = self.board.change(|categories| {
            let category = categories.entry(name.to_owned()).or_insert_with(Category::default);
            let built = category.building.take();
            built.and_then(|built| category.serving.replace(built))
        });
        tracing::info!(shard = %self.shard, category = name, version = projection.definition().version, "aggregates of a new definition are served");
        if let Some(replaced) = replaced {
            replaced.forget()?;
        }
        self.board.moved();
        Ok(Pass::Done)
    }

    /// Says how far it came.
    fn take_missing(
        &self,
        name: &str,
        projection: &Projection,
        stability: &mut Stability,
    ) -> Result<u64, PassError> {
        let mut at = projection.next();
        let until = self.next.min(at + PASS_EVENTS);
        while at < until {
            let wanted = [Wanted::Category(name)];
            let candidate = self.view.store().next_wanted(at, &wanted, PASS_EVENTS as usize)?;
            if candidate > at {
                at = candidate.min(self.next);
                projection.passed(at);
                continue;
            }
            self.view.region(|region| stability.hear(region));
            let slices = self.read(at)?;
            for slice in &slices {
                stability.pass(slice.group(), slice.positions().start);
                let wanted = seen(slice, |of| of == name);
                for seen in wanted.filter(|seen| seen.position < self.next) {
                    projection.take(
                        seen.position,
                        seen.revision,
                        &seen.input(),
                        stability.cut(),
                    )?;
                }
                at = slice.positions().end.min(self.next);
                projection.passed(at);
            }
            if slices.is_empty() {
                break;
            }
        }
        Ok(at)
    }

    /// Takes what is final and was not seen.
    fn take_final(
        &self,
        name: &str,
        projection: &Arc<Projection>,
        walk: &mut Option<Walk>,
    ) -> Result<Pass, PassError> {
        let Some(settled) = projection.settled() else { return Ok(Pass::Done) };
        let walk = walk.get_or_insert_with(|| Walk::after(settled.cut()));
        let only = BTreeMap::from([(name.to_owned(), Arc::clone(projection))]);
        let Walked { pass, .. } = walk.pass(&*self.view, &only)?;
        // The others must not be ahead: what they have passed, it would miss.
        let ahead = self.walk.as_ref().is_some_and(|others| !walk.cut().covers(others.cut()));
        Ok(if ahead { Pass::More } else { pass })
    }

    fn publish(&self) {
        // Those that are served have seen everything before it.
        self.board.serving().values().for_each(|projection| projection.passed(self.next));
        self.board.publish(self.next);
    }

    /// Writes what has changed.
    pub(super) fn flush(&mut self) -> Result<(), PassError> {
        let none = Context::new();
        let stable = self.stability.cut().clone();
        for projection in self.board.serving().values() {
            projection.flush(&stable)?;
        }
        for name in self.catching_up.keys() {
            if let Some(projection) = self.board.building(name) {
                projection.flush(&none)?;
            }
        }
        if self.verified {
            self.last = self.group_before()?;
        }
        let mut bytes = Vec::new();
        bytes.put_varint(self.next);
        bytes.put_byte(self.last.is_some().into());
        if let Some(last) = &self.last {
            bytes.put(&last.0);
        }
        self.catalog.encode(&mut bytes);
        // They are served until a newer one is built, also after a start.
        let serving = self.board.serving();
        let served =
            serving.values().filter(|of| self.board.building(&of.definition().category).is_some());
        let served: Vec<_> = served.map(|of| of.definition()).collect();
        bytes.put_varint(served.len() as u64);
        served.iter().for_each(|definition| declared::write(definition.as_ref(), &mut bytes));
        Ok(self.states.write(&[(key(self.shard), Some(bytes.into()))])?)
    }

    fn begin_anew(&mut self) {
        // A reader may hold one of them still.
        self.board.clear().iter().for_each(|projection| projection.give_up());
        self.board.take_reported();
        (self.next, self.last, self.catalog) = Default::default();
        (self.stability, self.verified, self.walk) = Default::default();
        self.catching_up.clear();
    }

    /// What is kept is derived: whatever happened to it, it is folded from the log again.
    pub(super) fn recover(&mut self, error: &StateError) {
        let shard = self.shard;
        tracing::warn!(%shard, %error, "what was kept of the aggregates is given up; they are folded from the log again");
        self.begin_anew();
        if let Err(error) = self.states.remove_all(&[]) {
            tracing::error!(%shard, %error, "what was kept of the aggregates cannot be removed; tried again");
        }
    }
}

/// Follows the log until `stop`.
pub(super) async fn run<V: View>(mut follower: Follower<V>, mut stop: watch::Receiver<bool>) {
    let mut applied = follower.view.applied();
    let mut pace = Pace::new(GAP);
    let mut flush_at = Instant::now() + FLUSH_EVERY;
    let mut recovered_at: Option<Instant> = None;
    loop {
        pace.turn().await;
        applied.borrow_and_update();
        let stopping = *stop.borrow_and_update();
        let flush = stopping || Instant::now() >= flush_at;
        let (back, passed, recovered) = blocking(move || {
            let mut passed = follower.pass();
            if flush && passed.is_ok() {
                passed = follower.flush().and(passed);
            }
            let mut recovered = false;
            if let Err(PassError::States(error)) = &passed {
                follower.recover(error);
                (passed, recovered) = (Ok(Pass::More), true);
            }
            (follower, passed, recovered)
        })
        .await;
        follower = back;
        if flush {
            flush_at = Instant::now() + FLUSH_EVERY;
        }
        if stopping {
            return;
        }
        if recovered {
            let before = recovered_at.replace(Instant::now());
            let again = before.is_some_and(|before| before.elapsed() < RECOVERED_LATELY);
            if again && !pause(&mut stop).await {
                return;
            }
        }
        match passed {
            Ok(Pass::More) => tokio::task::consume_budget().await,
            Ok(Pass::Done) => tokio::select! {
                biased;
                changed = stop.changed() => if changed.is_err() { return },
                changed = applied.changed() => if changed.is_err() { return },
                () = sleep_until(flush_at) => {}
            },
            Err(error) => {
                let shard = follower.shard;
                let error = anyhow::Error::from(error);
                tracing::warn!(%shard, error = format!("{error:#}"), "aggregates do not go on; tried again in a second");
                if !pause(&mut stop).await {
                    return;
                }
            }
        }
    }
}

/// Waits before what failed is tried again. Being told to stop ends it; says whether anybody is left who
/// could.
async fn pause(stop: &mut watch::Receiver<bool>) -> bool {
    tokio::select! {
        biased;
        changed = stop.changed() => changed.is_ok(),
        () = sleep(RETRY_AFTER) => true,
    }
}

fn key(shard: ShardId) -> Vec<u8> {
    let mut key = b"followed".to_vec();
    key.put_u16(shard.0);
    key
}

/// What is kept of a follower.
#[derive(Default)]
struct Kept {
    next: u64,
    last: Option<Chain>,
    catalog: Declarations<Definition>,
    /// Definitions that were served while newer ones were being built.
    served: Vec<Arc<Definition>>,
}

fn decode(mut reader: Reader) -> Result<Kept, DecodeError> {
    let next = reader.varint("progress")?;
    let last = match reader.byte("last group")? {
        0 => None,
        _ => Some(Chain(reader.array("chain of the last group")?)),
    };
    let catalog = Declarations::decode(&mut reader)?;
    let count = reader.count("definitions served", 1)?;
    let served = (0..count).map(|_| declared::read(&mut reader));
    let served = served.collect::<Result<_, _>>()?;
    reader.finish("progress")?;
    Ok(Kept { next, last, catalog, served })
}

/// An event, and what a fold needs to know of where it comes from.
pub(super) struct Seen {
    pub(super) position: u64,
    revision: u64,
    pub(super) dot: Dot,
    pub(super) event: EventView,
    stamp: Stamp,
    held: Context,
    identity: u128,
}

impl Seen {
    /// Its place in the global order.
    pub(super) fn place(&self) -> (Stamp, &Dot) {
        (self.stamp, &self.dot)
    }
    pub(super) fn input(&self) -> Input<'_> {
        Input {
            dot: &self.dot,
            stamp: self.stamp,
            held: &self.held,
            identity: self.identity,
            stream: &self.event.stream,
            kind: &self.event.kind,
            payload: &self.event.payload,
        }
    }
}

/// An event that was read by itself.
pub(super) fn placed(event: &PlacedEvent) -> Seen {
    let nth = (event.position - event.source.position) as usize;
    let slice = GroupSlice { source: event.source.clone(), range: nth..nth + 1 };
    let found = seen(&slice, |_| true).next();
    found.expect("the event was read from this group")
}

/// The events of a slice whose category is wanted.
pub(super) fn seen<'a>(
    slice: &'a GroupSlice,
    wanted: impl Fn(&str) -> bool + 'a,
) -> impl Iterator<Item = Seen> + 'a {
    let group = slice.group();
    let start = slice.source.position;
    let revisions = &slice.source.command.groups()[slice.source.ordinal].revisions;
    let requests = group.look().into_iter();
    let events = requests.flat_map(|request| {
        let producer = request.producer;
        (0..).zip(request.events).map(move |(nth, event)| (producer, nth, event))
    });
    let events = events.enumerate().skip(slice.range.start).take(slice.range.len());
    let events = events.filter(move |(_, (_, _, event))| wanted(category(event.stream)));
    events.map(move |(nth, (producer, nth_of_request, event))| {
        let dot = Dot { origin: group.origin().clone(), seq: event.seq };
        let mut held = group.header().context.clone();
        held.advance(group.origin(), Seq(event.seq.0 - 1));
        let identity = identity(event.id, producer.as_ref(), nth_of_request, &dot);
        let position = start + nth as u64;
        let revision = revisions[nth];
        let event = group.view(&event);
        Seen { position, revision, dot, stamp: group.stamp(), held, identity, event }
    })
}
