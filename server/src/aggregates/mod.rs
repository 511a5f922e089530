//! Aggregates: folded from the log in the background, and served.
//!
//! Definitions are events of streams of one category ([`anabranch_core::declared`]), so every region has the same. The
//! [`follow`]er of a shard goes through the log in regional order and gives each event to the
//! [`projection`] of its category. A newer definition is built beside the one that is served, and takes
//! over when it has seen as much. All of it is derived: states and progress are written to disk
//! together, now and then, and what is missing or damaged is folded from the log again.
//!
//! Ordered fields are folded by a second [`walk`], over the part of the global order that is final. What a
//! node holds beyond it, it folds when it is asked ([`settled`]).
//!
//! How an event changes a state is decided in [`anabranch_core::aggregate`].

mod board;
mod cache;
mod error;
mod follow;
mod in_order;
mod projection;
mod settled;
#[cfg(test)]
mod tests;
mod walk;

pub use error::AggregateError;
pub use projection::{Shown, ShownOrdered, Tally};

use std::collections::BTreeSet;
use std::sync::Arc;

use anabranch_core::aggregate::{Definition, Ordered, Origins, State};
use anabranch_core::event::category;
use anabranch_core::{Context, ShardId};
use anabranch_log::derived::states::States;
use anabranch_log::index::Direction;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::env::blocking;
use crate::read::{NotCovered, View, await_covered};
use board::Board;
use follow::Follower;
use in_order::in_order;
use projection::Projection;
use settled::NotShown;

/// Events that are folded for one answer about the past, at most.
const FOLD_EVENTS_MAX: u64 = 1_000_000;
/// Events read at once for it.
const READ_EVENTS: usize = 2048;
const READ_BYTES: usize = 4 * 1024 * 1024;

/// A definition, and how far its aggregates are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The definition.
    pub definition: Arc<Definition>,
    /// Whether it is the one that readers see.
    pub serving: bool,
    /// Events of the log that were looked at.
    pub position: u64,
    /// What came of them.
    pub tally: Tally,
    /// How far the ordered fields are, if there are any.
    pub settled: Option<SettledStanding>,
}

/// How far ordered fields are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettledStanding {
    /// Events of the global order that were looked at.
    pub position: u64,
    /// What came of them.
    pub tally: Tally,
}

/// The aggregates of one shard on this node.
pub struct Aggregates<V> {
    view: Arc<V>,
    board: Arc<Board>,
}

impl<V: View> Aggregates<V> {
    /// Goes on with what `states` keeps. Nothing moves before the second part is awaited; it ends after
    /// `stop`.
    pub fn open(
        view: Arc<V>,
        shard: ShardId,
        states: Arc<dyn States>,
        stop: watch::Receiver<bool>,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let board = Arc::new(Board::new());
        let follower = Follower::open(Arc::clone(&view), shard, states, Arc::clone(&board));
        (Self { view, board }, follow::run(follower, stop))
    }

    /// The newest definition of the category that this node holds, whether it is served already or not.
    ///
    /// # Errors
    /// [`AggregateError::Behind`] at the deadline.
    pub async fn newest(
        &self,
        category: &str,
        deadline: Instant,
    ) -> Result<Option<Arc<Definition>>, AggregateError> {
        let wanted = self.view.region(|region| region.position());
        let newest = |category: &board::Category| {
            let newest = category.building.as_ref().or(category.serving.as_ref());
            newest.map(|projection| Arc::clone(projection.definition()))
        };
        let mut next = self.board.next();
        loop {
            let (done, newest) = self.board.look(|categories| {
                (*next.borrow_and_update(), categories.get(category).and_then(newest))
            });
            if done >= Some(wanted) {
                return Ok(newest);
            }
            match timeout_at(deadline, next.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(AggregateError::Closed),
                Err(_) => return Err(behind(done, wanted)),
            }
        }
    }

    /// All definitions, by category, and how far their aggregates are.
    pub fn standings(&self) -> Vec<Standing> {
        let projections = self.board.look(|categories| {
            let both = |category: &board::Category| {
                [(true, category.serving.clone()), (false, category.building.clone())]
            };
            categories.values().flat_map(both).collect::<Vec<_>>()
        });
        let standing = |(serving, projection): (bool, Option<Arc<Projection>>)| {
            let projection = projection?;
            Some(Standing {
                definition: Arc::clone(projection.definition()),
                serving,
                position: projection.next(),
                tally: projection.tally(),
                settled: projection.settled().map(|settled| SettledStanding {
                    position: settled.cut().events(),
                    tally: settled.tally(),
                }),
            })
        };
        projections.into_iter().filter_map(standing).collect()
    }

    /// Moves whenever aggregates may have changed.
    pub fn moved(&self) -> watch::Receiver<Option<u64>> {
        self.board.next()
    }

    /// Everything that this node holds: what readers of the aggregates may have seen by now.
    pub fn seen(&self) -> Context {
        self.view.region(|region| region.frontier().clone())
    }

    /// The aggregate of a stream, with everything in it that this node held when it was asked, and
    /// that `session` holds.
    ///
    /// # Errors
    /// [`AggregateError`] at the deadline, or at once if waiting is of no use.
    pub async fn get(
        &self,
        stream: &str,
        session: &Context,
        deadline: Instant,
    ) -> Result<Shown, AggregateError> {
        let name = stream.to_owned();
        let show = move |served: &Projection, view: &V| {
            let shown = served.show(&name).map_err(|error| of_states(served, error))?;
            shown.map_or(Ok(None), |shown| with_ordered(served, view, shown))
        };
        self.read(category(stream), session, deadline, show).await
    }

    /// Up to `limit` aggregates of a category, by the names of their streams, after `after`.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn page(
        &self,
        category: &str,
        after: Option<String>,
        limit: usize,
        session: &Context,
        deadline: Instant,
    ) -> Result<Vec<Shown>, AggregateError> {
        let page = move |served: &Projection, view: &V| {
            let page = served.page(after.as_deref(), limit);
            let page = page.map_err(|error| of_states(served, error))?;
            let with_ordered = |shown| with_ordered(served, view, shown);
            // None, if it was given up meanwhile.
            page.map_or(Ok(None), |page| page.into_iter().map(with_ordered).collect())
        };
        self.read(category, session, deadline, page).await
    }

    /// Reads from the aggregates that are served; from the next ones if these are given up meanwhile.
    async fn read<T: Send + 'static>(
        &self,
        category: &str,
        session: &Context,
        deadline: Instant,
        read: impl Fn(&Projection, &V) -> Result<Option<T>, AggregateError> + Clone + Send + 'static,
    ) -> Result<T, AggregateError> {
        loop {
            let projection = self.projection(category, session, deadline).await?;
            let (read, view) = (read.clone(), Arc::clone(&self.view));
            match blocking(move || read(&projection, &view)).await {
                Ok(Some(found)) => return Ok(found),
                Ok(None) => {}
                Err(error) => {
                    if let AggregateError::States { source, .. } = &error {
                        self.board.report(source.clone());
                    }
                    return Err(error);
                }
            }
        }
    }

    /// The aggregate of a stream as of a cut: the same in every region that holds the cut.
    ///
    /// # Errors
    /// As [`get`](Self::get); [`AggregateError::TooLong`].
    pub async fn get_at(
        &self,
        stream: &str,
        cut: &Context,
        deadline: Instant,
    ) -> Result<Shown, AggregateError> {
        let projection = self.projection(category(stream), cut, deadline).await?;
        let events =
            self.view.region(|region| region.stream(stream).map_or(0, |h| h.next_revision));
        if events > FOLD_EVENTS_MAX {
            let (stream, limit) = (stream.to_owned(), FOLD_EVENTS_MAX);
            return Err(AggregateError::TooLong { stream, events, limit });
        }
        let (view, stream, cut) = (Arc::clone(&self.view), stream.to_owned(), cut.clone());
        blocking(move || fold(&*view, &projection, &stream, &cut, events)).await
    }

    /// The aggregates of a category, once they hold what this node and the session hold now.
    async fn projection(
        &self,
        category: &str,
        session: &Context,
        deadline: Instant,
    ) -> Result<Arc<Projection>, AggregateError> {
        self.await_context(session, deadline).await?;
        let wanted = self.view.region(|region| region.position());
        let mut next = self.board.next();
        loop {
            // At once: between the two, all might be taken away, or another one be served.
            let (done, serving) = self.board.look(|categories| {
                let both = |category: &board::Category| {
                    (category.serving.clone(), category.building.clone())
                };
                (*next.borrow_and_update(), categories.get(category).map(both))
            });
            match &serving {
                None if done >= Some(wanted) => {
                    let category = category.to_owned();
                    return Err(AggregateError::NoDefinition { category });
                }
                Some((Some(projection), _)) if done >= Some(wanted) && is_current(projection) => {
                    return Ok(Arc::clone(projection));
                }
                _ => {}
            }
            match timeout_at(deadline, next.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(AggregateError::Closed),
                Err(_) => {
                    return Err(match serving {
                        Some((None, Some(building))) => AggregateError::Building {
                            category: category.to_owned(),
                            done: building.next(),
                            of: wanted,
                        },
                        _ => behind(done, wanted),
                    });
                }
            }
        }
    }

    /// Waits until this node holds all of `context`.
    ///
    /// # Errors
    /// [`AggregateError::NotCaughtUp`] at the deadline.
    pub async fn await_context(
        &self,
        context: &Context,
        deadline: Instant,
    ) -> Result<(), AggregateError> {
        match await_covered(&*self.view, context, deadline).await {
            Ok(()) => Ok(()),
            Err(NotCovered::Closed) => Err(AggregateError::Closed),
            Err(NotCovered::Missing(missing)) => Err(AggregateError::NotCaughtUp { missing }),
        }
    }
}

fn behind(done: Option<u64>, of: u64) -> AggregateError {
    AggregateError::Behind { done: done.unwrap_or_default(), of }
}

/// Whether nothing that it shows can be behind what was shown before the last start.
fn is_current(projection: &Projection) -> bool {
    projection.settled().is_none_or(|settled| settled.is_current())
}

fn of_states(
    projection: &Projection,
    source: anabranch_log::derived::states::StateError,
) -> AggregateError {
    let category = projection.definition().category.clone();
    AggregateError::States { category, source }
}

/// Adds the ordered fields, if there are any. Nothing, if they were given up meanwhile.
fn with_ordered(
    projection: &Projection,
    view: &impl View,
    mut shown: Shown,
) -> Result<Option<Shown>, AggregateError> {
    let Some(settled) = projection.settled() else { return Ok(Some(shown)) };
    match settled.show(view, &mut shown) {
        Ok(there) => Ok(there.then_some(shown)),
        Err(NotShown::States(source)) => Err(of_states(projection, source)),
        Err(NotShown::Store(error)) => Err(error.into()),
        Err(NotShown::Unsettled { events, limit }) => {
            Err(AggregateError::Unsettled { stream: shown.stream, events, limit })
        }
    }
}

/// Folds the events of a stream that are in a cut. What is merged is folded in
/// this region's order of them, what is ordered in the global one.
fn fold(
    view: &impl View,
    projection: &Projection,
    stream: &str,
    cut: &Context,
    events: u64,
) -> Result<Shown, AggregateError> {
    let definition = projection.definition();
    let (mut state, mut origins) = (State::new(definition), Origins::default());
    let (none, mut next, mut of) = (Context::new(), 0, BTreeSet::new());
    while next < events {
        let store = view.store();
        let page = store.read_stream(stream, next, Direction::Forward, READ_EVENTS, READ_BYTES)?;
        let Some(last) = page.last() else { break };
        next = last.revision + 1;
        for event in page.into_iter().filter(|event| cut.covers_dot(&event.dot())) {
            let seen = follow::placed(&event);
            // What is wrong with an event is counted in the state.
            let _ = state.apply(definition, &seen.input(), &none, &mut origins);
            of.insert(seen.dot.origin);
        }
    }
    let mut shown = projection.shown(stream, &state);
    if definition.has_ordered() {
        let mut ordered = Ordered::new(definition);
        let wanted = |dot: &anabranch_core::Dot| cut.covers_dot(dot);
        in_order(view.store(), stream, 0..next, &of, wanted, |seen| {
            let _ = ordered.apply(definition, &seen.input(), &none, &mut origins);
        })?;
        let (fields, counts) = settled::as_of(definition, &ordered);
        shown.value.extend(fields);
        shown.ordered = Some(counts);
    }
    Ok(shown)
}
