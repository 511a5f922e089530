//! Subscriptions: reads that go on for ever.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use anabranch_core::{Cursor, ReadOrder};
use anabranch_proto::v1::read_request::Target;
use futures_util::{Stream, StreamExt, ready};

use crate::client::Client;
use crate::error::ReadError;
use crate::event::Event;
use crate::feed::{Feed, Frames, Plan, Sign};
use crate::progress::{Mark, Progress};
use crate::read::{Filter, From};

/// What a subscription yields.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all of them are events: a box for each would cost more"
)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// An event.
    Event(Event),
    /// Everything that was there is delivered; what follows is new. Comes again after a reconnect.
    CaughtUp,
    /// The reader was slower than the writers, and reads from disk again.
    FellBehind,
    /// The node is alive and has nothing new.
    Heartbeat {
        /// In global order: the regions that the order waits for.
        blocked_by: Vec<String>,
    },
}

/// A subscription being put together.
#[must_use = "a subscription does nothing until it is started and polled"]
pub struct Subscribe {
    client: Client,
    plan: Plan,
}

impl Subscribe {
    pub(crate) fn new(client: Client, target: Target) -> Self {
        let mut plan = Plan::new(target, None);
        plan.follow = true;
        Self { client, plan }
    }
    /// Where to begin. The start unless given.
    pub fn from(mut self, from: From) -> Self {
        self.plan.from = Some(from);
        self
    }
    /// In which order. Regional unless given.
    pub fn order(mut self, order: ReadOrder) -> Self {
        self.plan.order = Some(order);
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
    /// How often a node without news says that it is alive. 1 s unless given.
    ///
    /// A node that is silent for three of these and 2 s more is taken for gone.
    pub fn heartbeat(mut self, every: Duration) -> Self {
        self.plan.heartbeat = every;
        self
    }
    /// How long to look for a node before giving up, at the start and after each loss. For ever
    /// unless given.
    pub fn give_up_after(mut self, patience: Duration) -> Self {
        self.plan.patience = Some(patience);
        self
    }
    /// The subscription. Connects when it is first polled.
    pub fn start(self) -> Subscription {
        let at = Progress::new(self.plan.first_cursor());
        let frames = Feed::frames(self.client, self.plan);
        Subscription { at, events: VecDeque::new(), after: None, frames }
    }
}

/// Events as they come, for ever, with an exact cursor.
///
/// It reconnects by itself, to another node or, if the client has fallback regions, to another
/// region, and goes on from its cursor: no event is skipped and none comes twice. At most one batch
/// is held; the server waits for a slow reader. An error ends it.
pub struct Subscription {
    at: Progress,
    events: VecDeque<(Event, Option<Mark>)>,
    /// What the frame says besides its events, and the cursor for its end.
    after: Option<(Option<Message>, Option<Cursor>)>,
    frames: Frames,
}

impl Subscription {
    /// The next message. Nothing is lost if the future is dropped before it is ready.
    pub async fn next(&mut self) -> Option<Result<Message, ReadError>> {
        StreamExt::next(self).await
    }
    /// The next event, passing over the other messages.
    pub async fn next_event(&mut self) -> Option<Result<Event, ReadError>> {
        loop {
            match self.next().await? {
                Ok(Message::Event(event)) => return Some(Ok(event)),
                Ok(_) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
    /// After the message delivered last: exactly the events delivered so far lie before it.
    ///
    /// Keep it together with what the event caused, and begin there again, in any region:
    /// [`From::Cursor`] or [`From::saved`]. None only before the first message of a subscription
    /// that began neither at the start nor at a cursor.
    pub fn cursor(&self) -> Option<Cursor> {
        self.at.cursor().cloned()
    }

    fn pop(&mut self) -> Option<Message> {
        if let Some((event, mark)) = self.events.pop_front() {
            if let Some(mark) = mark {
                self.at.delivered(&event.dot.origin, mark);
            }
            return Some(Message::Event(event));
        }
        let (message, end) = self.after.take()?;
        if let Some(end) = end {
            self.at = Progress::new(Some(end));
        }
        message
    }
}

impl Stream for Subscription {
    type Item = Result<Message, ReadError>;

    fn poll_next(self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let Some(message) = this.pop() {
                return Poll::Ready(Some(Ok(message)));
            }
            let frame = match ready!(this.frames.poll_next_unpin(task)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(frame)) => frame,
            };
            if let Some(start) = frame.start {
                this.at = Progress::new(Some(start));
            }
            this.events = frame.events;
            let message = match frame.sign {
                Sign::Events => None,
                Sign::CaughtUp => Some(Message::CaughtUp),
                Sign::FellBehind => Some(Message::FellBehind),
                Sign::Heartbeat { blocked_by } => Some(Message::Heartbeat { blocked_by }),
            };
            this.after = Some((message, frame.end));
        }
    }
}
