//! The reader: opens a walk and turns its steps into frames.

use std::sync::Arc;

use anabranch_core::planted::{self, Bug};
use anabranch_core::{Context, Cursor, ReadOrder, SessionToken, Stamp};
use anabranch_log::store::StoreError;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::error::ReadError;
use super::filter::Selection;
use super::global::{Begin, Ordered};
use super::global_back::{Before, OrderedBack};
use super::place::{
    Snapshot, cut_at, first_at_time, first_revision_from, first_uncovered, order_prefix,
};
use super::regional::{Scan, ScanBack};
use super::runs::{RunOrder, RunScan};
use super::spec::{Direction, From, Spec, Target, Tuning};
use super::stream::{First, StreamBack, StreamEnd, StreamWalk, revisions};
use super::view::{NotCovered, View, await_covered};
use super::walk::{Batch, Coverage, Delivered, Run, Step, Walk, seen};
use crate::env::blocking;

/// What a frame is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Events, in the direction and order asked for. Empty only as the last frame of a bounded read,
    /// to say where it ended.
    Batch(Vec<Delivered>),
    /// The same, as runs of neighbours, where that is asked for and everything is read.
    Runs(Vec<Run>),
    /// Everything that was there is delivered; what follows is new.
    CaughtUp,
    /// The reader was slower than the writers.
    FellBehind,
    /// There was nothing to send for a while.
    Heartbeat {
        /// In global order, if events wait to become final: the regions that they wait for.
        blocked_by: Vec<String>,
    },
}

/// One message to the consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub content: Content,
    /// Resumes after everything delivered or passed over so far; `None` in backward reads.
    pub cursor: Option<Cursor>,
    /// The session that was brought, and what was seen since.
    pub token: SessionToken,
}

/// A read under way.
pub struct Reader<V: View> {
    view: Arc<V>,
    spec: Spec,
    tuning: Tuning,
    applied: watch::Receiver<V::Applied>,
    /// Absent while a step is under way.
    walk: Option<Box<dyn Walk<V>>>,
    token: Context,
    /// Events that may still be delivered.
    left: Option<u64>,
    phase: Phase,
    spoke: Instant,
    /// What the consumer was told last.
    told: Context,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    CatchingUp,
    CaughtUp,
    Done,
}

impl<V: View> Reader<V> {
    /// Waits until this node holds what the session and the cursor hold, and finds where to begin.
    ///
    /// # Errors
    /// [`ReadError::Invalid`], [`ReadError::NotCaughtUp`] when `spec.session_wait` is over, or
    /// [`ReadError::Store`].
    pub async fn open(view: Arc<V>, spec: Spec, tuning: Tuning) -> Result<Self, ReadError> {
        spec.check()?;
        let applied = view.applied();
        let mut wanted = match planted::is(Bug::SessionIgnored) {
            true => Context::new(),
            false => spec.session.clone(),
        };
        if let From::Cursor(cursor) = &spec.from {
            wanted.merge(&cursor.context);
        }
        let began = Instant::now();
        match await_covered(&*view, &wanted, began + spec.session_wait).await {
            Ok(()) => {}
            Err(NotCovered::Closed) => return Err(ReadError::Closed),
            Err(NotCovered::Missing(missing)) => {
                return Err(ReadError::NotCaughtUp { missing, waited: began.elapsed() });
            }
        }
        let opened = (Arc::clone(&view), spec.clone());
        let walk = blocking(move || open(&*opened.0, &opened.1)).await?;
        let (token, told) = (spec.session.clone(), Context::new());
        let (left, phase) = (spec.max_events, Phase::CatchingUp);
        let (walk, spoke) = (Some(walk), Instant::now());
        Ok(Self { view, spec, tuning, applied, walk, token, left, phase, spoke, told })
    }

    /// The next frame; none at the end of a bounded read.
    ///
    /// Not to be called again after an error, or after the future was dropped half-way.
    ///
    /// # Errors
    /// [`ReadError::Store`] if events cannot be read, [`ReadError::Closed`] if the node shuts down.
    ///
    /// # Panics
    /// If it is called again after its future was dropped half-way.
    pub async fn next(&mut self) -> Result<Option<Frame>, ReadError> {
        if self.phase == Phase::Done {
            return Ok(None);
        }
        if self.phase == Phase::CaughtUp && self.behind() > self.tuning.behind_events {
            self.phase = Phase::CatchingUp;
            return Ok(Some(self.frame(Content::FellBehind)));
        }
        loop {
            // What is applied from here on wakes the wait below, also if the step does not see it.
            self.applied.borrow_and_update();
            let (step, batch) = self.step().await?;
            if !batch.events.is_empty() {
                return Ok(Some(self.batch(batch.events)));
            }
            if !batch.runs.is_empty() {
                return Ok(Some(self.runs(batch.runs)));
            }
            match step {
                Step::More if self.heartbeat_due() => return Ok(Some(self.heartbeat())),
                Step::More => tokio::task::consume_budget().await,
                Step::End if !self.spec.follow => return Ok(self.finish()),
                Step::End if self.phase == Phase::CatchingUp => {
                    self.phase = Phase::CaughtUp;
                    return Ok(Some(self.frame(Content::CaughtUp)));
                }
                Step::End => {
                    let due = self.spoke + self.spec.heartbeat;
                    tokio::select! {
                        biased;
                        moved = self.applied.changed() => moved.map_err(|_| ReadError::Closed)?,
                        () = sleep_until(due) => return Ok(Some(self.heartbeat())),
                    }
                    if self.heartbeat_due() {
                        return Ok(Some(self.heartbeat()));
                    }
                }
            }
        }
    }

    async fn step(&mut self) -> Result<(Step, Batch), ReadError> {
        let mut walk = self.walk.take().expect("the last step came to its end");
        let room = self.left.and_then(|left| usize::try_from(left).ok());
        // A run is sent with its whole group: it is not cut short but by the reader's own limit.
        let frame = if self.spec.sends_runs() { usize::MAX } else { self.tuning.batch_events };
        let events_max = frame.min(room.unwrap_or(usize::MAX)).max(1);
        let mut batch = Batch::new(events_max, self.tuning.batch_bytes);
        let view = Arc::clone(&self.view);
        let (walk, result) = blocking(move || {
            let result = walk.step(&*view, &mut batch);
            (walk, result.map(|step| (step, batch)))
        })
        .await;
        self.walk = Some(walk);
        Ok(result?)
    }

    fn batch(&mut self, events: Vec<Delivered>) -> Frame {
        if self.covered().is_none() {
            seen(&events, &mut self.token);
        }
        self.count(events.len());
        self.frame(Content::Batch(events))
    }

    fn runs(&mut self, runs: Vec<Run>) -> Frame {
        self.count(runs.iter().map(|run| run.slice.len()).sum());
        self.frame(Content::Runs(runs))
    }

    fn count(&mut self, events: usize) {
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(events as u64);
            if *left == 0 {
                self.phase = Phase::Done;
            }
        }
    }

    fn finish(&mut self) -> Option<Frame> {
        self.phase = Phase::Done;
        let moved = self.covered().is_some_and(|covered| *covered != self.told);
        moved.then(|| self.frame(Content::Batch(Vec::new())))
    }

    fn heartbeat(&mut self) -> Frame {
        let walk = self.walk.as_ref().expect("no step is under way");
        let blocked_by = match walk.blocked(&self.view) {
            true => self.view.finality().blocked_by.iter().map(ToString::to_string).collect(),
            false => Vec::new(),
        };
        self.frame(Content::Heartbeat { blocked_by })
    }

    fn frame(&mut self, content: Content) -> Frame {
        self.spoke = Instant::now();
        let covered = self.covered().cloned();
        if let Some(covered) = &covered {
            self.token.merge(covered);
            self.told.clone_from(covered);
        }
        let order = self.spec.order;
        let cursor = covered.map(|context| Cursor { order, context });
        Frame { content, cursor, token: SessionToken { context: self.token.clone() } }
    }

    fn covered(&self) -> Option<&Context> {
        self.walk.as_ref().and_then(|walk| walk.covered())
    }
    fn behind(&self) -> u64 {
        self.walk.as_ref().map_or(0, |walk| walk.behind(&self.view))
    }
    fn heartbeat_due(&self) -> bool {
        self.spoke.elapsed() >= self.spec.heartbeat
    }
}

type Opened<V> = Result<Box<dyn Walk<V>>, StoreError>;

fn open<V: View>(view: &V, spec: &Spec) -> Opened<V> {
    let selection = Selection { target: spec.target.clone(), filter: spec.filter.clone() };
    match (spec.order, spec.direction, &spec.target) {
        (ReadOrder::Regional, Direction::Forwards, Target::Stream(stream)) => {
            open_stream(view, spec, stream, selection)
        }
        (ReadOrder::Regional, Direction::Forwards, _) => open_scan(view, spec, selection),
        (ReadOrder::Regional, Direction::Backwards, Target::Stream(stream)) => {
            open_stream_back(view, spec, stream, selection)
        }
        (ReadOrder::Regional, Direction::Backwards, _) => {
            let end = position_end(view, &spec.from)?;
            Ok(Box::new(ScanBack::new(end, selection)))
        }
        (ReadOrder::Global, Direction::Forwards, _) => open_ordered(view, spec, selection),
        (ReadOrder::Global, Direction::Backwards, _) => {
            let before = match spec.from {
                From::Start => Before::Position(0),
                From::Position(newest) => Before::Position(newest.saturating_add(1)),
                From::UnixMs(time) => Before::Stamp(Stamp::from_unix_ms(time.saturating_add(1))),
                From::End | From::Revision(_) | From::Cursor(_) => Before::End,
            };
            Ok(Box::new(OrderedBack::new(before, view.finality(), selection)))
        }
    }
}

/// A position to begin at, what is covered there, and the first position that is wanted.
struct Beginning {
    position: u64,
    covered: Context,
    first_wanted: u64,
}

fn beginning(view: &impl View, snapshot: &Snapshot, from: &From) -> Result<Beginning, StoreError> {
    let store = view.store();
    let at = |position: u64| -> Result<Beginning, StoreError> {
        let (first_wanted, position) = (position, position.min(snapshot.position));
        Ok(Beginning { position, covered: cut_at(store, snapshot, position)?, first_wanted })
    };
    match from {
        From::Start => at(0),
        From::End => at(snapshot.position),
        From::Position(position) => at(*position),
        From::UnixMs(time) => at(first_at_time(store, snapshot, *time)?),
        From::Cursor(cursor) => {
            let position = first_uncovered(store, snapshot, &cursor.context)?;
            Ok(Beginning { position, covered: cursor.context.clone(), first_wanted: 0 })
        }
        // Checked: only walks of streams begin at a revision, and they look it up before.
        From::Revision(_) => at(0),
    }
}

fn open_scan<V: View>(view: &V, spec: &Spec, selection: Selection) -> Opened<V> {
    let snapshot = Snapshot::of(view);
    let Beginning { position, covered, first_wanted } = beginning(view, &snapshot, &spec.from)?;
    let end = (!spec.follow).then_some(snapshot.position);
    if spec.sends_runs() {
        return Ok(Box::new(RunScan::new(position, first_wanted, end, covered)));
    }
    Ok(Box::new(Scan::new(position, first_wanted, end, covered, selection)))
}

fn open_stream<V: View>(view: &V, spec: &Spec, stream: &str, selection: Selection) -> Opened<V> {
    let store = view.store();
    let (snapshot, end) = view.region(|region| {
        let frontier = region.frontier().clone();
        let end = StreamEnd { revision: revisions(region, stream), frontier: frontier.clone() };
        (Snapshot { position: region.position(), frontier }, end)
    });
    let (next, first, covered) = match spec.from {
        From::Start => (0, First::default(), Context::new()),
        From::Revision(revision) => {
            let next = revision.min(end.revision);
            let found =
                store.read_stream(stream, next, anabranch_log::index::Direction::Forward, 1, 1)?;
            let position = found.first().map_or(snapshot.position, |event| event.position);
            let first = First { revision, position: 0 };
            (next, first, cut_at(store, &snapshot, position)?)
        }
        _ => {
            let begin = beginning(view, &snapshot, &spec.from)?;
            let next = first_revision_from(store, stream, end.revision, begin.position)?;
            let first = First { revision: 0, position: begin.first_wanted };
            (next, first, begin.covered)
        }
    };
    let end = (!spec.follow).then_some(end);
    let stream = stream.to_owned();
    Ok(Box::new(StreamWalk::new(stream, next, first, end, covered, selection)))
}

fn open_stream_back<V: View>(
    view: &V,
    spec: &Spec,
    stream: &str,
    selection: Selection,
) -> Opened<V> {
    let end = view.region(|region| revisions(region, stream));
    let end = match spec.from {
        From::End => end,
        From::Revision(newest) => newest.saturating_add(1).min(end),
        _ => {
            let position = position_end(view, &spec.from)?;
            first_revision_from(view.store(), stream, end, position)?
        }
    };
    Ok(Box::new(StreamBack::new(stream.to_owned(), end, selection)))
}

/// The position before which a backward walk begins.
fn position_end(view: &impl View, from: &From) -> Result<u64, StoreError> {
    let snapshot = Snapshot::of(view);
    match from {
        From::Start => Ok(0),
        From::Position(newest) => Ok(newest.saturating_add(1).min(snapshot.position)),
        From::UnixMs(time) => first_at_time(view.store(), &snapshot, time.saturating_add(1)),
        From::End | From::Revision(_) | From::Cursor(_) => Ok(snapshot.position),
    }
}

fn open_ordered<V: View>(view: &V, spec: &Spec, selection: Selection) -> Opened<V> {
    let finality = view.finality();
    let (cut, begin, covered) = match &spec.from {
        From::Cursor(cursor) => {
            let (frontier, watermark) = (finality.frontier(), finality.watermark);
            let cut = order_prefix(view.store(), frontier, watermark, &cursor.context)?;
            (cut, Begin::Here, Some(cursor.context.clone()))
        }
        From::Start | From::Revision(_) => (Context::new(), Begin::Here, None),
        From::End => (mark_cut(view.seek_global(u64::MAX)), Begin::End, None),
        From::Position(first) => {
            (mark_cut(view.seek_global(*first)), Begin::Position(*first), None)
        }
        From::UnixMs(time) => {
            let mark = view.mark_before(Stamp::from_unix_ms(*time));
            (mark_cut(mark), Begin::Stamp(Stamp::from_unix_ms(*time)), None)
        }
    };
    let covered = covered.unwrap_or_else(|| cut.clone());
    let bound = (!spec.follow).then_some(finality);
    if spec.sends_runs() {
        return Ok(Box::new(RunOrder::new(cut, begin, bound, covered)));
    }
    Ok(Box::new(Ordered::new(cut, begin, bound, Coverage { covered, selection })))
}

fn mark_cut(mark: Option<anabranch_core::order::Mark>) -> Context {
    mark.map_or_else(Context::new, |mark| mark.cut)
}
