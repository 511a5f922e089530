//! Following one order of a shard's events, and finding what is concurrent.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anabranch_core::codec::{DecodeError, Put, Reader};
use anabranch_core::conflict::{Conflict, Declaration, RESOLVED, Resolution, Resolved, Run};
use anabranch_core::declared::{Declarations, Declare};
use anabranch_core::event::category;
use anabranch_core::planted::{self, Bug};
use anabranch_core::{
    Chain, Context, Dot, EventRef, Group, Origin, ReadOrder, RequestRef, Seq, ShardId,
};
use anabranch_log::derived::states::{Change, StateError, States};
use anabranch_log::store::{GroupSlice, StoreError};
use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::board::{Board, Count, Found};
use super::recents::Recents;
use super::rewind::Rewind;
use super::rows::{Keys, Row};
use super::way::Way;
use crate::env::blocking;
use crate::pace::Pace;
use crate::read::View;
use crate::stability::Stability;
use crate::states::SharedStates;

/// Events looked at before others have their turn.
const PASS_EVENTS: u64 = 8192;
/// What was found is written this often, at the end, and when there is so much of it.
const FLUSH_EVERY: Duration = Duration::from_secs(2);
const FLUSH_ROWS: usize = if cfg!(test) { 50 } else { 2000 };
/// Rows in one write.
const WRITE_ROWS: usize = 2000;
/// A pass begins no sooner than this after the one before it.
const GAP: Duration = Duration::from_millis(5);
/// Pause after the log, or what is kept, could not be read or written.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Categories that are counted by name; the others are counted together, under the empty name.
const CATEGORIES_MAX: usize = 4096;

/// Why a pass ended early.
#[derive(Debug, thiserror::Error)]
pub(super) enum PassError {
    #[error("read the log")]
    Store(#[from] StoreError),
    #[error("what is kept of conflicts")]
    States(#[from] StateError),
}

/// Whether a pass went all the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    Done,
    More,
}

/// Goes through one order of one shard.
pub(super) struct Follower<V> {
    view: Arc<V>,
    order: ReadOrder,
    keys: Keys,
    states: Arc<SharedStates>,
    removals: u64,
    board: Arc<Board>,
    way: Way,
    /// Everything that was looked at. Of an order, so its place is the number of its events.
    walked: Context,
    /// The last group of it.
    last: Option<(Dot, Chain)>,
    /// What was looked at when it was written last: before it, nothing new is found.
    done: Context,
    /// Whether the log is known to be the one that was followed so far.
    verified: bool,
    /// What is kept is of no use, and could not be removed yet.
    spoiled: bool,
    recents: Recents,
    rewind: Rewind,
    stability: Stability,
    /// As of a while ago.
    stable: Context,
}

/// What is kept of a follower.
#[derive(Default)]
struct Kept {
    walked: Context,
    rewind: Context,
    last: Option<(Dot, Chain)>,
    policies: Declarations<Declaration>,
    counts: BTreeMap<String, Count>,
}

impl<V: View> Follower<V> {
    /// Goes on where it was written last, or at the beginning.
    pub(super) fn open(
        view: Arc<V>,
        shard: ShardId,
        order: ReadOrder,
        states: Arc<SharedStates>,
        board: Arc<Board>,
    ) -> Self {
        let mut follower = Self {
            view,
            order,
            keys: Keys::new(shard, order),
            removals: states.removals(),
            states,
            board,
            way: Way::after(order, &Context::new()),
            walked: Context::new(),
            last: None,
            done: Context::new(),
            verified: false,
            spoiled: false,
            recents: Recents::default(),
            rewind: Rewind::new(),
            stability: Stability::default(),
            stable: Context::new(),
        };
        if let Err(error) = follower.resume() {
            follower.give_up(&error);
        }
        follower
    }

    fn resume(&mut self) -> Result<(), StateError> {
        let key = self.keys.progress();
        let kept = match self.states.get(&key)? {
            None => {
                // What is there without progress was not kept whole, or not removed whole.
                if !self.states.scan(self.keys.all(), None, 1)?.is_empty() {
                    self.states.remove_all(self.keys.all())?;
                }
                return Ok(());
            }
            Some(kept) => decode(Reader::new(kept)).map_err(|_| StateError::Damaged { key })?,
        };
        self.states.remove_all(&self.keys.recents())?;
        self.begin(kept);
        Ok(())
    }

    fn begin(&mut self, kept: Kept) {
        let Kept { walked, rewind, last, policies, counts } = kept;
        let found = Found { walked: walked.clone(), policies, counts, ..Found::default() };
        self.board.begin(found, self.removals);
        self.way = Way::after(self.order, &rewind);
        (self.walked, self.done, self.last) = (rewind, walked, last);
        (self.verified, self.recents, self.rewind) = (false, Recents::default(), Rewind::new());
        (self.stability, self.stable) = Default::default();
    }

    /// What is kept is derived: whatever happened to it, it is found in the log again.
    pub(super) fn give_up(&mut self, error: &StateError) {
        let order = self.order;
        tracing::warn!(?order, %error, "what was kept of conflicts is given up; they are looked for again from the beginning of the log");
        self.begin_anew();
    }

    fn begin_anew(&mut self) {
        self.removals = self.states.removals();
        self.begin(Kept::default());
        self.spoiled = true;
    }

    /// Looks at what is new, not too much at once.
    pub(super) fn pass(&mut self) -> Result<Pass, PassError> {
        if self.removals != self.states.removals() {
            self.begin_anew();
        }
        if self.spoiled {
            self.states.remove_all(self.keys.all())?;
            self.spoiled = false;
        }
        if let Some(error) = self.board.take_reported() {
            return Err(error.into());
        }
        let (members, held) = self.view.region(|region| {
            self.stability.hear(region);
            (region.members().len(), region.frontier().clone())
        });
        if members <= 1 {
            // Nobody else writes.
            let next = held.events();
            self.board.change(|found| found.walked = held);
            self.board.publish((members == 1).then_some(next));
            return Ok(Pass::Done);
        }
        if !self.verify(&held)? {
            return Ok(Pass::Done);
        }
        let end = self.walked.events().saturating_add(PASS_EVENTS);
        while self.walked.events() < end {
            let groups = self.way.next(&*self.view, &self.walked)?;
            if groups.is_empty() {
                self.publish();
                return Ok(Pass::Done);
            }
            let mut rows = Vec::new();
            for slice in &groups {
                self.take(slice, &mut rows)?;
            }
            self.put_up(rows);
            if self.recents.is_full() || self.board.look(|found| found.rows.len() >= FLUSH_ROWS) {
                self.flush()?;
            }
        }
        Ok(Pass::More)
    }

    /// Compares the log with what is kept, once. If it is another one, all is looked for again. False
    /// while the log is not applied that far: after a start.
    fn verify(&mut self, held: &Context) -> Result<bool, PassError> {
        if self.verified {
            return Ok(true);
        }
        let same = held.covers(&self.done)
            && match &self.last {
                None => self.done.is_empty(),
                Some((dot, chain)) => {
                    let found = self.view.store().read_origin(&dot.origin, dot.seq, 1)?;
                    found.first().map(|slice| slice.group().chain()) == Some(*chain)
                }
            };
        if !same {
            if held.events() < self.done.events() {
                return Ok(false);
            }
            self.is_of_another_log()?;
        }
        self.verified = true;
        Ok(true)
    }

    fn is_of_another_log(&mut self) -> Result<(), StateError> {
        tracing::warn!(order = ?self.order, "conflicts were kept of another log than this one; they are looked for anew");
        self.begin(Kept::default());
        self.states.remove_all(self.keys.all())
    }

    /// Takes a group in. What is before `done` was found already; its events are only remembered.
    fn take(&mut self, slice: &GroupSlice, rows: &mut Vec<Row>) -> Result<(), PassError> {
        let group = slice.group();
        let start = self.walked.events();
        match self.order {
            ReadOrder::Regional => self.stability.pass(group, start),
            ReadOrder::Global => self.stability.pass_in_order(group, &self.walked),
        }
        let is_new = start >= self.done.events();
        let requests = group.look();
        for (stream, (nth, run)) in self.by_stream(group, &requests, start, is_new) {
            let (position, context) = (start + nth, &group.header().context);
            let stable = match planted::is(Bug::ConflictsForgetWhatIsHeldHere) {
                true => &self.walked,
                false => &self.stable,
            };
            let (against, oldest) =
                self.recents.with(&*self.states, &self.keys, stream, stable, |recent| {
                    (recent.feed(&run, position, context), recent.oldest())
                })?;
            if is_new && !against.is_empty() {
                let (before, oldest) = (self.walked.clone(), oldest.unwrap_or(position));
                let conflict = Conflict { stream: stream.into(), events: run, against };
                rows.push(Row { position, before, oldest, conflict });
            }
        }
        let before = self.walked.clone();
        self.walked.advance(group.origin(), group.last());
        let last = Dot { origin: group.origin().clone(), seq: group.last() };
        self.last = Some((last, group.chain()));
        if self.rewind.pass(&before, &self.walked) {
            self.stable.clone_from(self.stability.cut());
        }
        Ok(())
    }

    /// The events of a group that may be in conflicts: of each stream, the place of the first in the
    /// group, and all of them. Policies and resolutions among them are taken in.
    fn by_stream<'a>(
        &self,
        group: &Group,
        requests: &[RequestRef<'a>],
        start: u64,
        is_new: bool,
    ) -> BTreeMap<&'a str, (u64, Run)> {
        let mut streams: BTreeMap<&str, (u64, Run)> = BTreeMap::new();
        for (event, nth) in requests.iter().flat_map(|request| &request.events).zip(0..) {
            let dot = Dot { origin: group.origin().clone(), seq: event.seq };
            if is_new && category(event.stream) == Declaration::CATEGORY {
                self.declare(&dot, group, event);
            }
            if event.kind == RESOLVED {
                if is_new {
                    self.resolve(dot, group, event, start + nth);
                }
                continue;
            }
            let one = Run::of(&dot, group.stamp());
            match streams.get_mut(event.stream) {
                Some((_, run)) => run.extend(&one),
                None => drop(streams.insert(event.stream, (nth, one))),
            }
        }
        streams
    }

    fn declare(&self, dot: &Dot, group: &Group, event: &EventRef<'_>) {
        let taken = self.board.change(|found| {
            let Found { policies, .. } = found;
            policies.take(dot.clone(), group.stamp(), event.stream, event.kind, event.payload)
        });
        if let Err(reason) = taken {
            let stream = event.stream;
            tracing::warn!(%dot, stream, %reason, "an event declares no policy, and is passed over");
        }
    }

    fn resolve(&self, dot: Dot, group: &Group, event: &EventRef<'_>, position: u64) {
        let (stamp, stream) = (group.stamp(), event.stream);
        match Resolution::from_json(event.payload) {
            Ok(resolution) => {
                let resolved = Resolved::new(dot, stamp, &group.header().context, resolution);
                let key = (stream.to_owned(), stamp, position);
                self.board.change(|found| found.resolved.insert(key, Arc::new(resolved)));
            }
            Err(reason) => {
                tracing::warn!(%dot, stream, %reason, "an event resolves nothing, and is passed over");
            }
        }
    }

    /// Shows readers what was found.
    fn put_up(&self, rows: Vec<Row>) {
        self.board.change(|found| {
            for row in rows {
                let name = category(&row.conflict.stream);
                let full = found.counts.len() >= CATEGORIES_MAX && !found.counts.contains_key(name);
                let name = if full { "" } else { name };
                let count = found.counts.entry(name.to_owned()).or_default();
                count.conflicts += 1;
                count.pairs = count.pairs.saturating_add(row.conflict.pairs());
                let row = Arc::new(row);
                let key = (row.conflict.stream.to_string(), row.position);
                found.rows.insert(row.position, Arc::clone(&row));
                found.of_stream.insert(key, row);
            }
        });
        self.publish();
    }

    fn publish(&self) {
        let next = self.walked.events();
        // Before it, rows on disk are beyond what is said to be looked at.
        if next < self.done.events() {
            return;
        }
        self.board.change(|found| found.walked.clone_from(&self.walked));
        self.board.publish(Some(next));
    }

    /// Writes what was found, and how far it is.
    pub(super) fn flush(&mut self) -> Result<(), PassError> {
        if self.spoiled || !self.verified {
            return Ok(());
        }
        self.stable.clone_from(self.stability.cut());
        let from = self.rewind.from(&self.stable, &self.walked);
        let (next, oldest) = (self.walked.events(), from.events());
        self.recents.tidy(&*self.states, &self.keys, &self.stable, next, oldest)?;
        if next < self.done.events() {
            return Ok(());
        }
        let found = self.board.look(Found::clone);
        let rows = found.rows.values().flat_map(|row| {
            let bytes = row.encode();
            let of_stream = self.keys.of_stream(&row.conflict.stream, row.position);
            [(self.keys.row(row.position), Some(bytes.clone())), (of_stream, Some(bytes))]
        });
        let resolved = found.resolved.iter().map(|((stream, stamp, position), resolved)| {
            let mut bytes = Vec::new();
            resolved.encode(&mut bytes);
            (self.keys.resolved(stream, *stamp, *position), Some(Bytes::from(bytes)))
        });
        let mut changes: Vec<Change> = rows.chain(resolved).collect();
        changes.push((self.keys.progress(), Some(self.progress(&from, &found))));
        // The progress comes last: what is there before it is found again, under the same keys.
        changes.chunks(WRITE_ROWS * 2).try_for_each(|changes| self.states.write(changes))?;
        self.board.change(|board| {
            board.rows.retain(|position, _| !found.rows.contains_key(position));
            board.of_stream.retain(|key, _| !found.of_stream.contains_key(key));
            board.resolved.retain(|key, _| !found.resolved.contains_key(key));
        });
        Ok(())
    }

    fn progress(&self, rewind: &Context, found: &Found) -> Bytes {
        let mut bytes = Vec::new();
        self.walked.encode(&mut bytes);
        rewind.encode(&mut bytes);
        bytes.put_byte(self.last.is_some().into());
        if let Some((dot, chain)) = &self.last {
            dot.origin.encode(&mut bytes);
            bytes.put_varint(dot.seq.0);
            bytes.put(&chain.0);
        }
        found.policies.encode(&mut bytes);
        bytes.put_varint(found.counts.len() as u64);
        for (category, count) in &found.counts {
            bytes.put_slice_with_len(category.as_bytes());
            bytes.put_varint(count.conflicts);
            bytes.put_varint(count.pairs);
        }
        bytes.into()
    }
}

fn decode(mut reader: Reader) -> Result<Kept, DecodeError> {
    let walked = Context::decode(&mut reader)?;
    let rewind = Context::decode(&mut reader)?;
    let last = match reader.byte("last group")? {
        0 => None,
        _ => {
            let origin = Origin::decode(&mut reader)?;
            let seq = Seq(reader.varint("seq of the last group")?);
            Some((Dot { origin, seq }, Chain(reader.array("chain of the last group")?)))
        }
    };
    let policies = Declarations::decode(&mut reader)?;
    let mut counts = BTreeMap::new();
    for _ in 0..reader.count("categories", 3)? {
        let category = reader.text("category")?.to_string();
        let conflicts = reader.varint("conflicts of a category")?;
        let pairs = reader.varint("pairs of a category")?;
        counts.insert(category, Count { conflicts, pairs });
    }
    reader.finish("progress")?;
    Ok(Kept { walked, rewind, last, policies, counts })
}

/// Follows the order until `stop`.
pub(super) async fn run<V: View>(mut follower: Follower<V>, mut stop: watch::Receiver<bool>) {
    let mut applied = follower.view.applied();
    let mut pace = Pace::new(GAP);
    let mut flush_at = Instant::now() + FLUSH_EVERY;
    loop {
        pace.turn().await;
        applied.borrow_and_update();
        let stopping = *stop.borrow_and_update();
        let flush = stopping || Instant::now() >= flush_at;
        let (back, passed) = blocking(move || {
            let mut passed = follower.pass();
            if flush && passed.is_ok() {
                passed = follower.flush().and(passed);
            }
            if let Err(PassError::States(error)) = &passed
                && !follower.spoiled
            {
                follower.give_up(error);
            }
            (follower, passed)
        })
        .await;
        follower = back;
        if flush {
            flush_at = Instant::now() + FLUSH_EVERY;
        }
        if stopping {
            return;
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
                let (order, error) = (follower.order, anyhow::Error::from(error));
                tracing::warn!(
                    ?order,
                    error = format!("{error:#}"),
                    "conflicts are not looked for now; tried again in a second"
                );
                tokio::select! {
                    biased;
                    changed = stop.changed() => if changed.is_err() { return },
                    () = sleep(RETRY_AFTER) => {}
                }
            }
        }
    }
}
