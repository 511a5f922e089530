//! Bounded reads.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use anabranch_core::{Cursor, DecodeError, ReadOrder};
use anabranch_proto::v1;
use anabranch_proto::v1::read_request::Target;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, ready};

use crate::client::Client;
use crate::error::ReadError;
use crate::event::Event;
use crate::feed::{Direction, Feed, Frames, Plan};

/// Where to begin reading. Forwards: at the first event at or after it; backwards: at or before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum From {
    /// The first event.
    Start,
    /// After the last event; backwards: the last event.
    End,
    /// An event of a stream by its revision, from 0; regional order only.
    Revision(u64),
    /// A regional position; in global order a global position.
    Position(u64),
    /// After everything that the cursor covers; forwards only. The cursor decides the order. It belongs
    /// to the target and filter that it was taken with: others skip what they let through before it.
    Cursor(Cursor),
    /// The first event stamped at or after this time, in milliseconds since the Unix epoch.
    Time(u64),
}

impl From {
    /// Begins where a cursor was saved, with [`Cursor::encode`].
    ///
    /// # Errors
    /// If the bytes are not those of a cursor.
    pub fn saved(bytes: &[u8]) -> Result<Self, DecodeError> {
        Ok(Self::Cursor(Cursor::decode(Bytes::copy_from_slice(bytes))?))
    }
}

/// What to let through. Each list is "one of", the two lists are "and"; an empty one passes all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    types: Vec<String>,
    stream_prefixes: Vec<String>,
}

impl Filter {
    /// Lets everything through.
    pub fn new() -> Self {
        Self::default()
    }
    /// Events of these types.
    pub fn types<T: Into<String>>(mut self, types: impl IntoIterator<Item = T>) -> Self {
        self.types.extend(types.into_iter().map(Into::into));
        self
    }
    /// Events of streams whose names begin like this.
    pub fn stream_prefixes<T: Into<String>>(
        mut self,
        prefixes: impl IntoIterator<Item = T>,
    ) -> Self {
        self.stream_prefixes.extend(prefixes.into_iter().map(Into::into));
        self
    }
    pub(crate) fn into_wire(self) -> v1::Filter {
        v1::Filter { types: self.types, stream_prefixes: self.stream_prefixes }
    }
}

/// A bounded read being put together: ends at its limit, or at the end of what is there.
#[must_use = "a read does nothing until its events are asked for"]
pub struct Read {
    client: Client,
    plan: Plan,
}

impl Read {
    pub(crate) fn new(client: Client, target: Target) -> Self {
        let patience = Some(client.options().timeout);
        Self { client, plan: Plan::new(target, patience) }
    }
    /// Newest first.
    pub fn backwards(mut self) -> Self {
        self.plan.direction = Direction::Backwards;
        self
    }
    /// Where to begin. The start unless given; backwards: the end.
    pub fn from(mut self, from: From) -> Self {
        self.plan.from = Some(from);
        self
    }
    /// In which order. Regional unless given.
    pub fn order(mut self, order: ReadOrder) -> Self {
        self.plan.order = Some(order);
        self
    }
    /// Ends after this many events; 0: no limit.
    pub fn limit(mut self, events: u64) -> Self {
        self.plan.events_max = events;
        self
    }
    /// Has each event say what it is concurrent with: [`Event::concurrency`].
    pub fn with_conflicts(mut self) -> Self {
        self.plan.with_conflicts = true;
        self
    }
    /// What to let through.
    pub fn filter(mut self, filter: Filter) -> Self {
        self.plan.filter = Some(filter.into_wire());
        self
    }
    /// How long to go without any progress before giving up.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.plan.patience = Some(timeout);
        self
    }
    /// The events, as a stream. Nothing is sent before it is polled; dropping it ends the read.
    pub fn events(self) -> Events {
        Events { at: None, pending: VecDeque::new(), frames: Feed::frames(self.client, self.plan) }
    }
    /// All of the events at once.
    ///
    /// # Errors
    /// As the stream's: the first error ends it.
    pub async fn collect(self) -> Result<Vec<Event>, ReadError> {
        let mut events = self.events();
        let mut all = Vec::new();
        while let Some(event) = events.next().await {
            all.push(event?);
        }
        Ok(all)
    }
}

/// The events of a bounded read. At most one batch is held, the server waits for the reader.
///
/// A node that goes away is replaced by another without an event being skipped or repeated.
pub struct Events {
    at: Option<crate::progress::Progress>,
    pending: VecDeque<(Event, Option<crate::progress::Mark>)>,
    frames: Frames,
}

impl Events {
    /// The next event; none at the end. Nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Option<Result<Event, ReadError>> {
        StreamExt::next(self).await
    }
    /// After the event delivered last: [`From::Cursor`] goes on from there, in any region.
    ///
    /// None before the first event, and in backward reads.
    pub fn cursor(&self) -> Option<Cursor> {
        self.at.as_ref().and_then(|at| at.cursor().cloned())
    }
}

impl Stream for Events {
    type Item = Result<Event, ReadError>;

    fn poll_next(self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let Some((event, mark)) = this.pending.pop_front() {
                if let (Some(at), Some(mark)) = (&mut this.at, mark) {
                    at.delivered(&event.dot.origin, mark);
                }
                return Poll::Ready(Some(Ok(event)));
            }
            let frame = match ready!(this.frames.poll_next_unpin(task)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(frame)) => frame,
            };
            if let Some(start) = frame.start {
                this.at = Some(crate::progress::Progress::new(Some(start)));
            }
            this.pending = frame.events;
        }
    }
}
