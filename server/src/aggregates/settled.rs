//! What is settled of the ordered fields of one definition, and how readers see what is not.
//!
//! Settled is the fold over the final part of the global order, which every region has the same; it is
//! kept like what is merged. Tentative is that fold gone on with, over the events that are held beyond
//! it. As nothing final ever comes in front, tentative is the fold in order of *all* that is held,
//! wherever settled has come to meanwhile: so it can be kept and gone on with, as long as what comes in
//! is later than what was folded. Else it is folded again from what is settled.

use std::collections::BTreeSet;
use std::sync::Arc;

use anabranch_core::aggregate::{Definition, Ordered, Origins};
use anabranch_core::codec::{DecodeError, Put, Reader};
use anabranch_core::planted::{self, Bug};
use anabranch_core::{Context, Dot, Stamp};
use anabranch_log::derived::states::{StateError, States};
use anabranch_log::index::Direction;
use anabranch_log::store::{PlacedEvent, StoreError};
use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Map, json};

use super::cache::{Cache, Foldable};
use super::follow::{Seen, placed};
use super::in_order::in_order;
use super::projection::{Shown, ShownOrdered, Tally};
use crate::read::View;

/// Events looked at for one answer, at most.
const TENTATIVE_EVENTS_MAX: u64 = if cfg!(test) { 300 } else { 1_000_000 };
/// Bytes of the largest tentative fold that is kept for the next reader.
const TENTATIVE_BYTES_MAX: usize = 1024 * 1024;
/// Events and bytes read at once.
const READ_EVENTS: usize = 2048;
const READ_BYTES: usize = 4 * 1024 * 1024;

/// Why ordered fields cannot be shown.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotShown {
    #[error(transparent)]
    States(#[from] StateError),
    #[error("read the log")]
    Store(#[from] StoreError),
    /// Too much is not settled.
    #[error("{events} events are not settled, at most {limit} are folded for one answer")]
    Unsettled { events: u64, limit: u64 },
}

/// The ordered fields of the aggregates of one definition, in one shard.
pub(super) struct Settled {
    folding: Mutex<Folding>,
}

struct Folding {
    given_up: bool,
    /// Everything before it in the global order is in.
    cut: Context,
    /// Every region held it before it made what comes after the cut.
    stable: Context,
    /// Whether it was once all that was final.
    complete: bool,
    /// So it was since the start.
    current: bool,
    tally: Tally,
    cache: Cache<Held>,
}

/// What is held of a stream.
struct Held {
    settled: Ordered,
    /// Not kept on disk.
    tentative: Option<Tentative>,
}

/// The fold of the first events of a stream, in order.
#[derive(Clone)]
struct Tentative {
    /// Of so many events.
    state: Ordered,
    /// The last of them in order.
    last: Option<(Stamp, Dot)>,
}

impl Foldable for Held {
    fn blank(definition: &Definition) -> Self {
        Self { settled: Ordered::new(definition), tentative: None }
    }
    fn memory(&self) -> usize {
        let tentative = self.tentative.as_ref().map(|tentative| tentative.state.memory());
        self.settled.memory() + tentative.unwrap_or_default() + size_of::<Self>()
    }
    fn settle(&mut self, _: &Definition, stable: &Context) {
        self.settled.settle(stable);
    }
    fn encode(&self, out: &mut Vec<u8>) {
        self.settled.encode(out);
    }
    fn decode(
        definition: &Definition,
        reader: Reader,
        origins: &mut Origins,
    ) -> Result<Self, DecodeError> {
        Ok(Self { settled: Ordered::decode(definition, reader, origins)?, tentative: None })
    }
}

impl Settled {
    /// Goes on where it was written last, or at the beginning.
    pub(super) fn open(
        prefix: Vec<u8>,
        definition: Arc<Definition>,
        states: Arc<dyn States>,
    ) -> Result<Self, StateError> {
        let (cache, kept) = Cache::open(prefix, definition, states)?;
        let (complete, cut, tally) = match kept.map(progress) {
            None => Default::default(),
            Some(Ok(progress)) => progress,
            Some(Err(error)) => {
                let category = &cache.definition().category;
                tracing::warn!(category, %error, "the progress of ordered fields cannot be read; they are rebuilt from the log");
                cache.remove_kept()?;
                Default::default()
            }
        };
        let (stable, given_up, current) = (Context::new(), false, false);
        let folding = Folding { given_up, cut, stable, complete, current, tally, cache };
        Ok(Self { folding: Mutex::new(folding) })
    }

    /// Everything before it in the global order is in.
    pub(super) fn cut(&self) -> Context {
        self.folding.lock().cut.clone()
    }
    pub(super) fn tally(&self) -> Tally {
        self.folding.lock().tally.clone()
    }
    /// Whether it once held all that was final, if before the last start or after it.
    pub(super) fn is_complete(&self) -> bool {
        self.folding.lock().complete
    }
    /// Whether it has held all that was final since the last start. Before, what was shown may have been
    /// lost with the process, and would seem to go back.
    pub(super) fn is_current(&self) -> bool {
        self.folding.lock().current
    }
    pub(super) fn give_up(&self) {
        let mut folding = self.folding.lock();
        folding.given_up = true;
        folding.cache.clear();
    }

    /// Everything before `cut`, a cut of the global order, was looked at.
    pub(super) fn passed(&self, cut: &Context) {
        self.folding.lock().cut.merge(cut);
    }
    /// Everything before `cut` was looked at, and that is all that is final. Says whether this is news.
    pub(super) fn came_to_the_end(&self, cut: &Context) -> bool {
        let mut folding = self.folding.lock();
        folding.cut.merge(cut);
        let news = !folding.current;
        (folding.complete, folding.current) = (true, true);
        news
    }

    /// Takes events in, unless they are in already: some of one group, which comes after `before` in the
    /// global order.
    pub(super) fn take(
        &self,
        before: &Context,
        events: &[Seen],
        stable: &Context,
    ) -> Result<(), StateError> {
        let mut folding = self.folding.lock();
        folding.cut.merge(before);
        folding.stable.merge(stable);
        for seen in events {
            let input = seen.input();
            if folding.cut.covers_dot(input.dot) {
                continue;
            }
            let Folding { cache, stable, tally, cut, .. } = &mut *folding;
            let take = |held: &mut Held, definition: &Definition, origins: &mut Origins| {
                held.settled.apply(definition, &input, stable, origins).err()
            };
            let bad = cache.change(input.stream, input.payload.len(), take)?;
            tally.count(&input, bad);
            cut.advance(&input.dot.origin, input.dot.seq);
            if cache.is_full() {
                folding.write()?;
            }
        }
        Ok(())
    }

    /// Writes what has changed, and how far it is.
    pub(super) fn flush(&self) -> Result<(), StateError> {
        self.folding.lock().write()
    }

    /// Adds the ordered fields of a stream to what is shown of it. False once it is given up.
    pub(super) fn show(&self, view: &impl View, shown: &mut Shown) -> Result<bool, NotShown> {
        let (definition, settled, cut, kept) = {
            let mut folding = self.folding.lock();
            if folding.given_up {
                return Ok(false);
            }
            let definition = Arc::clone(folding.cache.definition());
            let (settled, kept) = match folding.cache.get(&shown.stream)? {
                Some(held) => (held.settled.clone(), held.tentative.clone()),
                None => (Ordered::new(&definition), None),
            };
            folding.cache.make_room();
            (definition, settled, folding.cut.clone(), kept)
        };
        let stream = shown.stream.as_str();
        // In this order: what is settled is held.
        let held = view.region(|region| region.stream(stream).map_or(0, |head| head.next_revision));
        let reading = Reading { view, definition: &definition, stream, held };
        let tentative = match kept {
            Some(kept) if kept.state.events() >= held => Some(kept),
            Some(kept) => reading.go_on(kept)?,
            None => None,
        };
        let tentative = match tentative {
            Some(tentative) => tentative,
            None => reading.replay(&settled, &cut)?.ok_or_else(|| self.damaged(stream))?,
        };
        let (first, last) = (settled.value(&definition), tentative.state.value(&definition));
        for ((name, settled), tentative) in first.into_iter().zip(last.into_values()) {
            shown.value.insert(name, json!({ "settled": settled, "tentative": tentative }));
        }
        shown.ordered = Some(ShownOrdered {
            settled_events: settled.events(),
            settled_bad: settled.bad(),
            tentative_events: tentative.state.events(),
            tentative_bad: tentative.state.bad(),
        });
        self.keep(stream, tentative)?;
        Ok(true)
    }

    fn damaged(&self, stream: &str) -> StateError {
        self.folding.lock().cache.damaged(stream)
    }

    /// The next reader may go on with it.
    fn keep(&self, stream: &str, tentative: Tentative) -> Result<(), StateError> {
        let mut folding = self.folding.lock();
        let too_large = tentative.state.memory() > TENTATIVE_BYTES_MAX;
        if too_large || tentative.state.events() == 0 || folding.given_up {
            return Ok(());
        }
        folding.cache.note(stream, |held| {
            let newer = |kept: &Tentative| kept.state.events() < tentative.state.events();
            if held.tentative.as_ref().is_none_or(newer) {
                held.tentative = Some(tentative);
            }
        })
    }
}

/// A stream being read, up to a revision.
struct Reading<'a, V> {
    view: &'a V,
    definition: &'a Definition,
    stream: &'a str,
    held: u64,
}

impl<V: View> Reading<'_, V> {
    /// Takes in what came since. Nothing, if that is much, or if it comes before something that is in.
    fn go_on(&self, mut tentative: Tentative) -> Result<Option<Tentative>, StoreError> {
        let from = tentative.state.events();
        let page = self.page(from, Direction::Forward)?;
        let mut new: Vec<_> = page.iter().filter(|event| event.revision < self.held).collect();
        if (new.len() as u64) < self.held - from {
            return Ok(None);
        }
        let key = |event: &PlacedEvent| (event.stamp(), event.dot());
        new.sort_by_cached_key(|event| key(event));
        let in_order = new.first().is_none_or(|first| tentative.last < Some(key(first)));
        if !in_order && !planted::is(Bug::LateEventFoldedLast) {
            return Ok(None);
        }
        new.into_iter().for_each(|event| self.take(&mut tentative, &placed(event)));
        Ok(Some(tentative))
    }

    /// Goes on after what is settled, which is what `cut` holds of the stream. Nothing, if the two do not
    /// fit.
    fn replay(&self, settled: &Ordered, cut: &Context) -> Result<Option<Tentative>, NotShown> {
        let Some(unsettled) = self.held.checked_sub(settled.events()) else { return Ok(None) };
        let too_many = || NotShown::Unsettled { events: unsettled, limit: TENTATIVE_EVENTS_MAX };
        if unsettled > TENTATIVE_EVENTS_MAX {
            return Err(too_many());
        }
        // Where the first of them is.
        let (mut found, mut origins, mut from) = (0, BTreeSet::new(), self.held);
        while found < unsettled {
            let Some(newest) = from.checked_sub(1) else { return Ok(None) };
            if self.held - from > TENTATIVE_EVENTS_MAX {
                return Err(too_many());
            }
            let page = self.page(newest, Direction::Backward)?;
            if page.is_empty() {
                return Ok(None);
            }
            for event in page {
                from = event.revision;
                let dot = event.dot();
                if !cut.covers_dot(&dot) {
                    found += 1;
                    origins.insert(dot.origin);
                }
            }
        }
        // A page may reach further down than needed, and must find nothing more there.
        if found > unsettled {
            return Ok(None);
        }
        let mut tentative = Tentative { state: settled.clone(), last: None };
        let wanted = |dot: &Dot| !cut.covers_dot(dot);
        let (store, stream) = (self.view.store(), self.stream);
        in_order(store, stream, from..self.held, &origins, wanted, |seen| {
            self.take(&mut tentative, seen);
        })?;
        Ok(Some(tentative))
    }

    fn take(&self, tentative: &mut Tentative, seen: &Seen) {
        let (none, mut origins) = (Context::new(), Origins::default());
        // What is wrong with an event is counted in the state.
        let _ = tentative.state.apply(self.definition, &seen.input(), &none, &mut origins);
        let place = Some(seen.place());
        tentative.last = tentative.last.take().max(place.map(|(stamp, dot)| (stamp, dot.clone())));
    }

    fn page(&self, from: u64, direction: Direction) -> Result<Vec<PlacedEvent>, StoreError> {
        self.view.store().read_stream(self.stream, from, direction, READ_EVENTS, READ_BYTES)
    }
}

impl Folding {
    fn write(&mut self) -> Result<(), StateError> {
        let mut bytes = Vec::new();
        bytes.put_byte(self.complete.into());
        self.cut.encode(&mut bytes);
        self.tally.encode(&mut bytes);
        self.cache.write(&self.stable, bytes.into())
    }
}

fn progress(bytes: Bytes) -> Result<(bool, Context, Tally), DecodeError> {
    let mut reader = Reader::new(bytes);
    let complete = reader.byte("whether it was complete")? != 0;
    let cut = Context::decode(&mut reader)?;
    let tally = Tally::decode(&mut reader)?;
    reader.finish("progress")?;
    Ok((complete, cut, tally))
}

/// The ordered fields as of a cut, of which all is final.
pub(super) fn as_of(
    definition: &Definition,
    state: &Ordered,
) -> (Map<String, serde_json::Value>, ShownOrdered) {
    let fields = state.value(definition).into_iter();
    let value = fields.map(|(name, value)| (name, json!({ "settled": value }))).collect();
    let (events, bad) = (state.events(), state.bad());
    let ordered = ShownOrdered {
        settled_events: events,
        settled_bad: bad,
        tentative_events: events,
        tentative_bad: bad,
    };
    (value, ordered)
}
