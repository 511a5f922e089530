//! Where a walk begins, and what is covered there.
//!
//! Of every origin, events lie in the log in the order of their seqs. So an origin's part of a cut at a
//! position is found by bisecting its groups, without reading the events between.

use anabranch_core::planted::{self, Bug};
use anabranch_core::{Context, Origin, Seq, Stamp};
use anabranch_log::index::Direction;
use anabranch_log::store::{Store, StoreError};

use super::view::View;

/// The log at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    /// Next position.
    pub(crate) position: u64,
    /// What is held: the events before `position`.
    pub(crate) frontier: Context,
}

impl Snapshot {
    pub(crate) fn of(view: &impl View) -> Self {
        view.region(|region| Self {
            position: region.position(),
            frontier: region.frontier().clone(),
        })
    }
}

/// A group as the index knows it.
struct GroupAt {
    entry: u64,
    first: Seq,
    last: Seq,
    stamp: Stamp,
}

/// The group of `origin` that holds `seq`.
fn group_at(store: &Store, origin: &Origin, seq: Seq) -> Result<Option<GroupAt>, StoreError> {
    if let Ok(places) = store.index().groups_of(origin, seq, 1) {
        return Ok(places.first().map(|place| GroupAt {
            entry: place.entry,
            first: place.first,
            last: place.last,
            stamp: place.stamp,
        }));
    }
    // Reading repairs an index file that is damaged, or says why it cannot.
    let slices = store.read_origin(origin, seq, 1)?;
    Ok(slices.first().map(|slice| GroupAt {
        entry: slice.source.entry,
        first: slice.group().first(),
        last: slice.group().last(),
        stamp: slice.group().stamp(),
    }))
}

/// The last seq of `origin`, up to `held`, whose group is `before` something. Groups before it come
/// first.
fn last_before(
    store: &Store,
    origin: &Origin,
    held: Seq,
    before: impl Fn(&GroupAt) -> bool,
) -> Result<Seq, StoreError> {
    let (mut low, mut high) = (0, held.0);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        match group_at(store, origin, Seq(middle))? {
            Some(group) if before(&group) => low = group.last.0,
            Some(group) => high = group.first.0 - 1,
            None => high = middle - 1,
        }
    }
    Ok(Seq(low.min(held.0)))
}

/// The cut that holds exactly the events before `position`; at most what `snapshot` holds.
pub(super) fn cut_at(
    store: &Store,
    snapshot: &Snapshot,
    position: u64,
) -> Result<Context, StoreError> {
    if position == 0 {
        return Ok(Context::new());
    }
    if position >= snapshot.position {
        return Ok(snapshot.frontier.clone());
    }
    let slices = store.read_positions(position, Direction::Forward, 1, 1)?;
    let Some(slice) = slices.first() else { return Ok(snapshot.frontier.clone()) };
    let (entry, command) = (slice.source.entry, &slice.source.command);
    let mut cut = Context::new();
    for (origin, held) in snapshot.frontier.iter() {
        cut.advance(origin, last_before(store, origin, held, |group| group.entry < entry)?);
    }
    let mut at = command.position().unwrap_or(position);
    for placed in command.groups() {
        let group = &placed.group;
        let before = position.saturating_sub(at).min(group.header().events.into());
        if before == 0 {
            break;
        }
        cut.advance(group.origin(), group.first().plus(before - 1));
        at += u64::from(group.header().events);
    }
    Ok(cut)
}

/// The position of the first event that `covered` does not hold; the end if it holds all.
pub(crate) fn first_uncovered(
    store: &Store,
    snapshot: &Snapshot,
    covered: &Context,
) -> Result<u64, StoreError> {
    if planted::is(Bug::CursorByPosition) && !covered.is_empty() {
        return Ok(covered.events().min(snapshot.position));
    }
    let mut first = snapshot.position;
    for (origin, held) in snapshot.frontier.iter() {
        let next = covered.seq(origin).next();
        if held < next {
            continue;
        }
        let slices = store.read_origin(origin, next, 1)?;
        if let Some(slice) = slices.first() {
            first = first.min(slice.source.position + next.0 - slice.group().first().0);
        }
    }
    if planted::is(Bug::ResumesOneLate) && !covered.is_empty() {
        first = (first + 1).min(snapshot.position);
    }
    Ok(first)
}

/// The position of the first event stamped at or after `unix_ms`; the end if there is none.
pub(super) fn first_at_time(
    store: &Store,
    snapshot: &Snapshot,
    unix_ms: u64,
) -> Result<u64, StoreError> {
    let time = Stamp::from_unix_ms(unix_ms);
    let mut at = store.position_at_time(unix_ms)?;
    // At most the groups of one entry are passed here.
    while at < snapshot.position {
        let slices = store.read_positions(at, Direction::Forward, 1, 1)?;
        let Some(slice) = slices.first() else { break };
        if slice.group().stamp() >= time {
            return Ok(at);
        }
        at = slice.source.end_position();
    }
    Ok(at.min(snapshot.position))
}

/// The greatest cut of the global order in which everything is covered by `covered`.
///
/// A client's cursor may cover events beyond ones that it does not, where a filter passed them over.
/// Up to `watermark` everything that any region has is held here; so what is covered, stamped at or
/// below it, and before the first event that is not covered, is a cut of the global order.
pub(super) fn order_prefix(
    store: &Store,
    frontier: &Context,
    watermark: Stamp,
    covered: &Context,
) -> Result<Context, StoreError> {
    let mut first: Option<(Stamp, Origin)> = None;
    for (origin, held) in frontier.iter() {
        let next = covered.seq(origin).next();
        if next <= held
            && let Some(group) = group_at(store, origin, next)?
        {
            let key = (group.stamp, origin.clone());
            first = Some(first.map_or(key.clone(), |known| known.min(key)));
        }
    }
    let mut prefix = Context::new();
    for (origin, held) in covered.iter() {
        let held = held.min(frontier.seq(origin));
        let before = |group: &GroupAt| {
            let precedes = |(stamp, other): &(Stamp, Origin)| {
                // The first group that is not covered may be covered in part.
                (group.stamp, origin) <= (*stamp, other)
            };
            group.stamp <= watermark && first.as_ref().is_none_or(precedes)
        };
        prefix.advance(origin, last_before(store, origin, held, before)?);
    }
    Ok(prefix)
}

/// The first revision of `stream` at or after `position`, of `revisions` that it has.
pub(super) fn first_revision_from(
    store: &Store,
    stream: &str,
    revisions: u64,
    position: u64,
) -> Result<u64, StoreError> {
    let (mut low, mut high) = (0, revisions);
    while low < high {
        let middle = low + (high - low) / 2;
        let found = store.read_stream(stream, middle, Direction::Forward, 1, 1)?;
        match found.first() {
            Some(event) if event.position < position => low = middle + 1,
            Some(_) | None => high = middle,
        }
    }
    Ok(low)
}
