//! What events that are read are concurrent with, and what became of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use anabranch_core::conflict::{Policy, Resolved, Run, Standing, first_of};
use anabranch_core::{Dot, Origin, Stamp};
use anabranch_log::derived::states::StateError;

use super::Side;
use super::rows::{self, Row};

/// Rows looked at for the events of one stream on one page of a read.
const ROWS_MAX: usize = if cfg!(test) { 20 } else { 10_000 };
/// Rows read at once.
const ROWS_AT_ONCE: usize = if cfg!(test) { 8 } else { 512 };
/// Resolutions looked at for one event.
const RESOLUTIONS_MAX: usize = 10_000;
const RESOLUTIONS_AT_ONCE: usize = 128;

/// An event that is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Its stream.
    pub stream: String,
    /// The event.
    pub dot: Dot,
    /// Its stamp.
    pub stamp: Stamp,
    /// Its place in the order.
    pub position: u64,
    /// Place of its group's first event in the order.
    pub group_position: u64,
}

/// What an event is concurrent with, of what is held here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Concurrency {
    /// At most one run an origin, by origin; at least one.
    pub with: Vec<Run>,
    /// What became of the event.
    pub standing: Standing,
    /// The event that decided it, if a resolution did.
    pub resolved_by: Option<Dot>,
    /// There are so many conflicts that some later ones were not looked at.
    pub cut_short: bool,
}

/// Of each event, what it is concurrent with; nothing where there is no conflict.
pub(super) fn of_events(
    side: &Side,
    events: &[Asked],
) -> Result<Vec<Option<Concurrency>>, StateError> {
    let mut by_stream: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, event) in events.iter().enumerate() {
        by_stream.entry(&event.stream).or_default().push(at);
    }
    let mut found = vec![None; events.len()];
    for (stream, places) in by_stream {
        let of: Vec<_> = places.iter().map(|at| &events[*at]).collect();
        let policy = side.policy(stream);
        for (at, found_of) in places.iter().zip(of_stream(side, stream, &of, &policy)?) {
            found[*at] = found_of;
        }
    }
    Ok(found)
}

/// The same, for events of one stream.
fn of_stream(
    side: &Side,
    stream: &str,
    events: &[&Asked],
    policy: &Policy,
) -> Result<Vec<Option<Concurrency>>, StateError> {
    let mut with: Vec<BTreeMap<Origin, Run>> = vec![BTreeMap::new(); events.len()];
    let first = events.iter().map(|event| event.group_position).min().unwrap_or_default();
    let last = events.iter().map(|event| event.position).max().unwrap_or_default();
    let (mut next, mut looked_at, mut cut_short) = (first, 0, false);
    'rows: loop {
        let (rows, _) = side.rows(Some(stream), next, ROWS_AT_ONCE)?;
        for row in &rows {
            // Nothing that the events here could be concurrent with comes after this.
            if row.position > last && row.oldest > last {
                break 'rows;
            }
            for (event, with) in events.iter().zip(&mut with) {
                note(event, row, with);
            }
        }
        looked_at += rows.len();
        match rows.last() {
            Some(row) if rows.len() == ROWS_AT_ONCE => next = row.position + 1,
            _ => break,
        }
        if looked_at >= ROWS_MAX {
            cut_short = true;
            break;
        }
    }
    let concurrency = |(event, with): (&&Asked, BTreeMap<Origin, Run>)| {
        if with.is_empty() {
            return Ok(None);
        }
        let with: Vec<Run> = with.into_values().collect();
        let resolved = match policy {
            Policy::Resolver => resolution(side, stream, &event.dot, event.stamp, &with)?,
            _ => None,
        };
        let winner = resolved.as_ref().map(|resolved| &resolved.winner);
        let standing = policy.standing(&event.dot, event.stamp, &with, winner);
        let resolved_by = resolved.as_ref().map(|resolved| resolved.by.clone());
        Ok(Some(Concurrency { with, standing, resolved_by, cut_short }))
    };
    events.iter().zip(with).map(concurrency).collect()
}

/// Takes in what a row says of an event: what it came after, or what came after it.
fn note(event: &Asked, row: &Row, with: &mut BTreeMap<Origin, Run>) {
    let Dot { origin, seq } = &event.dot;
    let conflict = &row.conflict;
    let mut add = |run: &Run| match with.get_mut(&run.origin) {
        Some(held) => held.extend(run),
        None => drop(with.insert(run.origin.clone(), run.clone())),
    };
    if conflict.events.holds(origin, *seq) {
        conflict.against.iter().for_each(&mut add);
    } else if conflict.against.iter().any(|run| run.holds(origin, *seq)) {
        add(&conflict.events);
    }
}

/// The resolution that counts for an event and all that is against it.
pub(super) fn resolution(
    side: &Side,
    stream: &str,
    event: &Dot,
    stamp: Stamp,
    against: &[Run],
) -> Result<Option<Resolved>, StateError> {
    // It has seen the event, so it is stamped after it.
    let fresh: Vec<_> = side.board.look(|found| {
        let of = (stream.to_owned(), stamp, 0)..=(stream.to_owned(), Stamp::MAX, u64::MAX);
        found.resolved.range(of).map(|(_, resolved)| Arc::clone(resolved)).collect()
    });
    let mut best = first_of(fresh.iter().map(Arc::as_ref), event, against).cloned();
    let (states, keys) = (&*side.states, &side.keys);
    let mut after = rows::before_resolved(keys, stream, stamp);
    for _ in 0..RESOLUTIONS_MAX / RESOLUTIONS_AT_ONCE {
        let some =
            rows::read_resolved(states, keys, stream, after.as_deref(), RESOLUTIONS_AT_ONCE)?;
        let found = first_of(some.iter().map(|(_, one)| one.as_ref()).chain(&best), event, against);
        best = found.cloned();
        let Some((key, last)) = some.last() else { break };
        // They are sorted by stamp: what comes later does not count.
        let decided = best.as_ref().is_some_and(|best| best.stamp < last.stamp);
        if some.len() < RESOLUTIONS_AT_ONCE || decided {
            break;
        }
        after = Some(key.clone());
    }
    Ok(best)
}
