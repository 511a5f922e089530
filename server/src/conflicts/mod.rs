//! Conflicts: concurrent events of a stream, found in the background, listed, and shown on reads.
//!
//! Two [`follow`]ers go through a shard's events, one in regional and one in global order, with the same
//! detector ([`anabranch_core::conflict`]). What they find are rows: on disk together with the progress,
//! now and then, and on the [`board`] until then. What may still be concurrent with something is kept in
//! memory ([`recents`]) and is not written down: after a start, the events since the oldest of it
//! ([`rewind`]) are walked past once more.
//!
//! Policies and resolutions are events, so every region has the same. What became of an event is
//! decided when it is asked for ([`standing`]); no row says it.

mod board;
mod error;
mod follow;
mod recents;
mod rewind;
mod rows;
mod standing;
#[cfg(test)]
mod tests;
mod way;

pub use board::Count;
pub use error::ConflictError;
pub use standing::{Asked, Concurrency};

use std::collections::BTreeMap;
use std::sync::Arc;

use anabranch_core::conflict::{Conflict, Declaration, Policy, Standing};
use anabranch_core::declared::Declared;
use anabranch_core::event::category;
use anabranch_core::{Context, Cursor, Dot, ReadOrder, ShardId};
use anabranch_log::derived::states::StateError;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::env::blocking;
use crate::read::{NotCovered, Snapshot, Target, View, await_covered, first_uncovered};
use crate::states::SharedStates;
use board::Board;
use follow::Follower;
use rows::{Keys, Row};

/// Rows looked at for one page.
const LOOKED_AT_MAX: usize = if cfg!(test) { 7 } else { 4096 };

/// Which conflicts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Whose.
    pub target: Target,
    /// In which order.
    pub order: ReadOrder,
    /// Those after it; none: from the first.
    pub after: Option<Cursor>,
    /// From where to go on, if a page before said it; else it is found by the cursor. It goes on through
    /// events that a cursor of another region covers, where the cursor stands still.
    pub from: Option<u64>,
    /// Whether a cursor may be another region's, in regional order.
    pub of_any_region: bool,
    /// Only those that nobody has decided.
    pub open_only: bool,
    /// How many, at most.
    pub limit: usize,
    /// What must be held here before; in regional order, conflicts of that are among the answer.
    pub session: Context,
}

/// A conflict as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The conflict.
    pub conflict: Conflict,
    /// Place of its first event in the order.
    pub position: u64,
    /// By what it is decided.
    pub policy: Policy,
    /// What became of its events, in this conflict.
    pub standing: Standing,
    /// The event that counts, if one does.
    pub winner: Option<Dot>,
    /// The event that said so.
    pub resolved_by: Option<Dot>,
    /// Goes on after it.
    pub cursor: Cursor,
}

/// Some conflicts, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// These.
    pub shown: Vec<Shown>,
    /// Goes on after them, and after all that were passed over.
    pub cursor: Cursor,
    /// Whether there may be more now.
    pub more: bool,
    /// Place of what comes after, in this region.
    pub next: u64,
}

/// The policies and counts of one order, as far as it was looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overview {
    /// By category; of those that have none, all events are kept.
    pub policies: Vec<Declared<Declaration>>,
    /// By category. Beyond many categories, the rest is under the empty name.
    pub counts: BTreeMap<String, Count>,
    /// Events looked at.
    pub position: u64,
}

/// The conflicts of one shard on this node.
pub struct Conflicts<V> {
    view: Arc<V>,
    regional: Side,
    global: Side,
}

/// The conflicts of one order.
struct Side {
    order: ReadOrder,
    board: Arc<Board>,
    states: Arc<SharedStates>,
    keys: Keys,
}

impl<V: View> Conflicts<V> {
    /// Goes on with what `states` keeps. Nothing moves before the second part is awaited; it ends after
    /// `stop`.
    pub fn open(
        view: Arc<V>,
        shard: ShardId,
        states: &Arc<SharedStates>,
        stop: &watch::Receiver<bool>,
    ) -> (Self, impl Future<Output = ()> + Send + use<V>) {
        let side = |order| Side {
            order,
            board: Arc::new(Board::new()),
            states: Arc::clone(states),
            keys: Keys::new(shard, order),
        };
        let (regional, global) = (side(ReadOrder::Regional), side(ReadOrder::Global));
        let follow = |side: &Side| {
            let (view, board) = (Arc::clone(&view), Arc::clone(&side.board));
            let follower = Follower::open(view, shard, side.order, Arc::clone(states), board);
            follow::run(follower, stop.clone())
        };
        let both = (follow(&regional), follow(&global));
        let following = async move {
            tokio::join!(both.0, both.1);
        };
        (Self { view, regional, global }, following)
    }

    fn side(&self, order: ReadOrder) -> &Side {
        match order {
            ReadOrder::Regional => &self.regional,
            ReadOrder::Global => &self.global,
        }
    }

    /// Moves whenever conflicts of an order may have been found.
    pub fn moved(&self, order: ReadOrder) -> watch::Receiver<Option<u64>> {
        self.side(order).board.next()
    }

    /// Policies and counts of an order, without waiting for anything.
    pub fn overview(&self, order: ReadOrder) -> Overview {
        self.side(order).board.look(|found| Overview {
            policies: found.policies.iter().cloned().collect(),
            counts: found.counts.clone(),
            position: found.walked.events(),
        })
    }

    /// The same, once everything is in it that this node holds now, or that is final now.
    ///
    /// # Errors
    /// [`ConflictError::Behind`] at the deadline.
    pub async fn overview_now(
        &self,
        order: ReadOrder,
        deadline: Instant,
    ) -> Result<Overview, ConflictError> {
        self.await_walked(order, self.end(order), deadline).await?;
        Ok(self.overview(order))
    }

    /// Where the cursor is that lets only conflicts through that are found from now on.
    pub fn now(&self, order: ReadOrder) -> Cursor {
        let context = self.side(order).board.look(|found| found.walked.clone());
        Cursor { order, context }
    }

    /// Conflicts, in order. With everything in it that this node held, or that was final, when it was
    /// asked, unless it is cut short.
    ///
    /// # Errors
    /// [`ConflictError`] at the deadline, or at once if waiting is of no use.
    pub async fn page(&self, query: &Query, deadline: Instant) -> Result<Page, ConflictError> {
        let after = query.after.as_ref().map(|cursor| cursor.context.clone()).unwrap_or_default();
        let mut wanted = query.session.clone();
        wanted.merge(&after);
        match await_covered(&*self.view, &wanted, deadline).await {
            Ok(()) => {}
            Err(NotCovered::Closed) => return Err(ConflictError::Closed),
            Err(NotCovered::Missing(missing)) => {
                return Err(ConflictError::NotCaughtUp { missing });
            }
        }
        let order = query.order;
        // A region that is further in the global order may have given the cursor.
        let end = match order {
            ReadOrder::Regional => self.end(order),
            ReadOrder::Global => self.end(order).max(after.events()),
        };
        let (view, query) = (Arc::clone(&self.view), query.clone());
        let page = move |side: &Side| {
            let from = match (query.from, order) {
                (Some(from), _) => from,
                (None, ReadOrder::Global) => after.events(),
                (None, ReadOrder::Regional) if after.is_empty() => 0,
                (None, ReadOrder::Regional) => {
                    let from = first_uncovered(view.store(), &Snapshot::of(&*view), &after)?;
                    if from != after.events() && !query.of_any_region {
                        return Err(ConflictError::OfAnotherRegion);
                    }
                    from
                }
            };
            Ok(side.page(&query, &after, from)?)
        };
        self.read(order, end, deadline, page).await
    }

    /// What is concurrent with each of `events`, of those that are held here.
    ///
    /// Shape: as many as `events`, in their order; none where there is no conflict.
    /// # Errors
    /// As [`page`](Self::page).
    pub async fn concurrency(
        &self,
        order: ReadOrder,
        events: Vec<Asked>,
        deadline: Instant,
    ) -> Result<Vec<Option<Concurrency>>, ConflictError> {
        let end = events.iter().map(|event| event.position + 1).max().unwrap_or_default();
        let read = move |side: &Side| Ok(standing::of_events(side, &events)?);
        self.read(order, end, deadline, read).await
    }

    /// Reads once everything before `end` was looked at; again if what was found is given up meanwhile.
    async fn read<T: Send + 'static>(
        &self,
        order: ReadOrder,
        end: u64,
        deadline: Instant,
        read: impl Fn(&Side) -> Result<T, ConflictError> + Send + Sync + 'static,
    ) -> Result<T, ConflictError> {
        let read = Arc::new(read);
        loop {
            let (side, read) = (self.side(order).clone(), Arc::clone(&read));
            let mut next = side.board.next();
            let life = side.life();
            self.await_walked(order, end, deadline).await?;
            if !side.board.is_of(side.states.removals()) {
                // Somebody has removed what was found; its follower is about to notice.
                match timeout_at(deadline, next.changed()).await {
                    Ok(Ok(())) => continue,
                    Ok(Err(_)) => return Err(ConflictError::Closed),
                    Err(_) => return Err(ConflictError::Behind { done: 0, of: end }),
                }
            }
            let (side, found) = blocking(move || {
                let found = read(&side);
                (side, found)
            })
            .await;
            if side.life() != life {
                continue;
            }
            if let Err(ConflictError::States(error)) = &found {
                side.board.report(error.clone());
            }
            return found;
        }
    }

    /// The end of the order now.
    fn end(&self, order: ReadOrder) -> u64 {
        match order {
            ReadOrder::Regional => self.view.region(|region| region.position()),
            ReadOrder::Global => self.view.final_position(),
        }
    }

    async fn await_walked(
        &self,
        order: ReadOrder,
        wanted: u64,
        deadline: Instant,
    ) -> Result<(), ConflictError> {
        let mut next = self.side(order).board.next();
        let waited = timeout_at(deadline, next.wait_for(|next| *next >= Some(wanted))).await;
        match waited {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(ConflictError::Closed),
            Err(_) => {
                let done = (*self.side(order).board.next().borrow()).unwrap_or_default();
                Err(ConflictError::Behind { done, of: wanted })
            }
        }
    }
}

impl Clone for Side {
    fn clone(&self) -> Self {
        let Self { order, board, states, keys } = self;
        let (board, states) = (Arc::clone(board), Arc::clone(states));
        Self { order: *order, board, states, keys: keys.clone() }
    }
}

impl Side {
    /// Another number whenever what was found is given up.
    fn life(&self) -> (u64, u64) {
        (self.board.life(), self.states.removals())
    }

    /// Up to `limit` rows from `position` on, of a stream or all, and everything that was looked at.
    fn rows(
        &self,
        stream: Option<&str>,
        position: u64,
        limit: usize,
    ) -> Result<(Vec<Arc<Row>>, Context), StateError> {
        // First what is not on disk yet: what is written meanwhile is then seen twice, not missed.
        let (fresh, walked) = self.board.look(|found| {
            let fresh: Vec<_> = match stream {
                None => found.rows.range(position..).map(|(_, row)| Arc::clone(row)).collect(),
                Some(stream) => {
                    let of = (stream.to_owned(), position)..=(stream.to_owned(), u64::MAX);
                    found.of_stream.range(of).map(|(_, row)| Arc::clone(row)).collect()
                }
            };
            (fresh, found.walked.clone())
        });
        let mut rows = rows::read(&*self.states, &self.keys, stream, position, limit)?;
        let next = rows.last().map_or(position, |row| row.position + 1);
        if rows.len() < limit {
            rows.extend(fresh.into_iter().filter(|row| row.position >= next));
        }
        // What was found since is beyond the cut that is told.
        let end = walked.events();
        rows.retain(|row| row.position < end);
        rows.truncate(limit);
        Ok((rows, walked))
    }

    /// The rows from position `from` on of which not everything is in `after`.
    fn page(&self, query: &Query, after: &Context, from: u64) -> Result<Page, StateError> {
        let stream = match &query.target {
            Target::Stream(stream) => Some(stream.as_str()),
            Target::Category(_) | Target::All => None,
        };
        let (rows, walked) = self.rows(stream, from, LOOKED_AT_MAX)?;
        let mut more = rows.len() == LOOKED_AT_MAX;
        let (mut shown, mut looked_at) = (Vec::new(), None);
        for row in rows {
            if shown.len() == query.limit {
                more = true;
                break;
            }
            if self.is_wanted(query, after, &row) {
                let row = self.show(&row, row.cursor(query.order))?;
                if !query.open_only || row.standing == Standing::Open {
                    shown.push(row);
                }
            }
            looked_at = Some(row);
        }
        let (cut, next) = match looked_at {
            Some(row) if more => (row.cursor(query.order).context, row.position + 1),
            _ => {
                let next = walked.events();
                (walked, next)
            }
        };
        // A cursor of another region stands until all that it covers was passed here: only then is
        // every pair in it known to have been told.
        let context = if cut.covers(after) { cut } else { after.clone() };
        Ok(Page { shown, cursor: Cursor { order: query.order, context }, more, next })
    }

    fn is_wanted(&self, query: &Query, after: &Context, row: &Row) -> bool {
        let told = |run: &anabranch_core::conflict::Run| after.covers_dot(&run.newest());
        let of = match &query.target {
            Target::Category(name) => category(&row.conflict.stream) == name,
            Target::Stream(_) | Target::All => true,
        };
        of && !(told(&row.conflict.events) && row.conflict.against.iter().all(told))
    }

    fn policy(&self, stream: &str) -> Policy {
        self.board.look(|found| {
            let declared = found.policies.of(category(stream));
            declared.map(|declared| declared.declaration.policy.clone()).unwrap_or_default()
        })
    }

    fn show(&self, row: &Row, cursor: Cursor) -> Result<Shown, StateError> {
        let conflict = &row.conflict;
        let policy = self.policy(&conflict.stream);
        let (dot, stamp) = (conflict.events.newest(), conflict.events.last_stamp);
        let resolved = match policy {
            Policy::Resolver => {
                standing::resolution(self, &conflict.stream, &dot, stamp, &conflict.against)?
            }
            _ => None,
        };
        let named = resolved.as_ref().map(|resolved| &resolved.winner);
        // A winner among several events of one group stands for them all.
        let own = named.filter(|dot| conflict.events.holds(&dot.origin, dot.seq));
        let asked = own.unwrap_or(&dot);
        Ok(Shown {
            standing: policy.standing(asked, stamp, &conflict.against, named),
            winner: policy.winner(conflict, named),
            resolved_by: resolved.as_ref().map(|resolved| resolved.by.clone()),
            conflict: conflict.clone(),
            position: row.position,
            policy,
            cursor,
        })
    }
}
