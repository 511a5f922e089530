//! Following the global order in the background: its position, its hash, and marks to seek by.
//!
//! Nothing is stored but the marks, and they are derived: the order itself is in the origins.

use std::sync::Arc;
use std::time::Duration;

use anabranch_core::codec::{DecodeError, Put, Reader};
use anabranch_core::order::{Finality, Mark, Merge, Mergeable, OrderHash};
use anabranch_core::{Chain, Context, Origin, Seq, Stamp};
use anabranch_log::store::{Store, StoreError};
use bytes::Bytes;
use parking_lot::RwLock;
use tokio::sync::watch;

use super::state::ShardState;
use crate::pace::Pace;

/// Bytes of groups read at once of one origin.
const READ_BYTES: usize = 1024 * 1024;

/// Groups followed before what is known is published: a reader sees a long way (after a start, or
/// when a region is back) come nearer, and a stop need not wait for its end.
const PASS_GROUPS: usize = 4096;

/// A pass begins no sooner than this after the one before it.
const GAP: Duration = Duration::from_millis(2);

/// Whether a pass went all the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    /// Up to what is final.
    Done,
    /// There is more.
    More,
}

/// How far a node has followed the global order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderView {
    /// Events of the order that are final here.
    pub position: u64,
    /// The same as a cut.
    pub cut: Context,
    /// Hash over the order up to there.
    pub chain: Chain,
}

/// What the follower publishes.
pub(super) struct OrderBoard {
    board: RwLock<Board>,
    moved: watch::Sender<u64>,
}

struct Board {
    view: OrderView,
    marks: Vec<Mark>,
}

impl OrderBoard {
    pub(super) fn new(marks: Vec<Mark>) -> Self {
        let view = match marks.last() {
            Some(mark) => {
                OrderView { position: mark.position, cut: mark.cut.clone(), chain: mark.chain }
            }
            None => OrderView { position: 0, cut: Context::new(), chain: Chain::START },
        };
        let moved = watch::Sender::new(view.position);
        Self { board: RwLock::new(Board { view, marks }), moved }
    }
    pub(super) fn view(&self) -> OrderView {
        self.board.read().view.clone()
    }
    pub(super) fn position(&self) -> u64 {
        *self.moved.borrow()
    }
    pub(super) fn moved(&self) -> watch::Receiver<u64> {
        self.moved.subscribe()
    }
    pub(super) fn marks(&self) -> Vec<Mark> {
        self.board.read().marks.clone()
    }
    pub(super) fn last_mark(&self) -> Option<Mark> {
        self.board.read().marks.last().cloned()
    }
    pub(super) fn mark_at(&self, position: u64) -> Option<Mark> {
        let board = self.board.read();
        let end = board.marks.partition_point(|mark| mark.position <= position);
        board.marks[..end].last().cloned()
    }
    pub(super) fn mark_before(&self, stamp: Stamp) -> Option<Mark> {
        let board = self.board.read();
        let end = board.marks.partition_point(|mark| mark.stamp < stamp);
        board.marks[..end].last().cloned()
    }

    fn publish(&self, view: OrderView, marks: &[Mark]) {
        let position = view.position;
        let mut board = self.board.write();
        assert!(board.view.position <= position, "the global order never goes back");
        board.view = view;
        board.marks.extend_from_slice(marks);
        drop(board);
        self.moved.send_replace(position);
    }
}

/// One way through the global order, from a mark on.
pub(super) struct Follower {
    merge: Merge<()>,
    hash: OrderHash,
}

impl Follower {
    pub(super) fn after(mark: Option<Mark>) -> Self {
        match mark {
            Some(mark) => Self { hash: OrderHash::after(&mark), merge: Merge::after(mark.cut) },
            None => Self { hash: OrderHash::default(), merge: Merge::after(Context::new()) },
        }
    }

    /// Goes on as far as the order is final, but not too long at once, and publishes it.
    pub(super) fn advance(
        &mut self,
        store: &Store,
        finality: &Finality,
        board: &OrderBoard,
    ) -> Result<Pass, StoreError> {
        let mut marks = Vec::new();
        let before = self.merge.position();
        let result = self.advance_to(store, finality, &mut marks);
        if self.merge.position() > before {
            let view = OrderView {
                position: self.merge.position(),
                cut: self.merge.cut().clone(),
                chain: self.hash.chain(),
            };
            board.publish(view, &marks);
        }
        result
    }

    fn advance_to(
        &mut self,
        store: &Store,
        finality: &Finality,
        marks: &mut Vec<Mark>,
    ) -> Result<Pass, StoreError> {
        for _ in 0..PASS_GROUPS {
            for (origin, from) in self.merge.needs(finality) {
                let groups = read_mergeable(store, &origin, from)?;
                self.merge.push(&origin, groups);
            }
            let Some(next) = self.merge.next(finality) else { return Ok(Pass::Done) };
            marks.extend(self.hash.add(&next, self.merge.cut()));
        }
        Ok(Pass::More)
    }
}

fn read_mergeable(
    store: &Store,
    origin: &Origin,
    from: Seq,
) -> Result<Vec<Mergeable<()>>, StoreError> {
    let groups = store.read_origin(origin, from, READ_BYTES)?;
    let mergeable = |slice: &anabranch_log::store::GroupSlice| {
        let group = slice.group();
        let (first, last) = (group.first(), group.last());
        Mergeable { first, last, stamp: group.stamp(), chain: group.chain(), item: () }
    };
    Ok(groups.iter().map(mergeable).collect())
}

/// Follows the order until `stop`.
pub(super) async fn follow(state: Arc<ShardState>, mut stop: watch::Receiver<bool>) {
    let mut applied = state.applied();
    let mut pace = Pace::new(GAP);
    loop {
        pace.turn().await;
        applied.borrow_and_update();
        let follower = Arc::clone(&state);
        match crate::env::blocking(move || follower.follow_order()).await {
            Ok(Pass::More) if *stop.borrow() => return,
            Ok(Pass::More) => continue,
            Ok(Pass::Done) => state.set_unreadable(None),
            Err(error) => {
                let why = chain(&error);
                if state.unreadable().borrow().as_ref() != Some(&why) {
                    tracing::error!(
                        why,
                        "events cannot be read, and the global order not followed"
                    );
                }
                state.set_unreadable(Some(why));
            }
        }
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            moved = applied.changed() => if moved.is_err() { return },
        }
    }
}

/// An error with all that caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Encodes marks for a checkpoint.
pub(super) fn encode_marks(marks: &[Mark]) -> Bytes {
    let mut out = Vec::with_capacity(16 + marks.len() * 128);
    out.put_varint(marks.len() as u64);
    for mark in marks {
        out.put_varint(mark.position);
        out.put_u64(mark.stamp.0);
        out.put(&mark.chain.0);
        mark.cut.encode(&mut out);
    }
    out.into()
}

/// Reads what [`encode_marks`] wrote.
pub(super) fn decode_marks(reader: &mut Reader) -> Result<Vec<Mark>, DecodeError> {
    let count = reader.count("marks", 26)?;
    (0..count)
        .map(|_| {
            let position = reader.varint("mark position")?;
            let stamp = Stamp(reader.u64("mark stamp")?);
            let chain = Chain(reader.array("mark chain")?);
            let cut = Context::decode(reader)?;
            Ok(Mark { position, cut, stamp, chain })
        })
        .collect()
}
