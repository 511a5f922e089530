//! Following conflicts, over as many connections as it takes.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use anabranch_core::Cursor;
use anabranch_proto::v1;
use futures_util::stream::{BoxStream, unfold};
use futures_util::{Stream, StreamExt};
use tokio::time::{Instant, sleep, timeout};
use tonic::{Status, Streaming};

use super::{ConflictPage, Conflicts, FoundConflict, service};
use crate::call::Route;
use crate::error::ReadError;
use crate::failure::ReadFailure;
use crate::feed::LASTING;

/// How often a node without news says that it is alive; silent for three of these and 2 s, it is gone.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// What a feed of conflicts yields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConflictNews {
    /// A conflict.
    Found(Box<FoundConflict>),
    /// There is nothing new. Everything up to the cursor was told.
    Nothing(Cursor),
}

/// Conflicts as they are found, for ever; an error ends it.
///
/// It reconnects by itself and goes on from its cursor: in global order none is left out and none comes
/// twice, in any region; so in regional order within one region. In another one some may come again.
pub struct ConflictFeed {
    inner: BoxStream<'static, Result<ConflictNews, ReadError>>,
}

impl ConflictFeed {
    /// The next news. Nothing is lost if the future is dropped before it is ready.
    pub async fn next(&mut self) -> Option<Result<ConflictNews, ReadError>> {
        self.inner.next().await
    }
    /// The next conflict.
    pub async fn next_conflict(&mut self) -> Option<Result<FoundConflict, ReadError>> {
        loop {
            match self.next().await? {
                Ok(ConflictNews::Found(conflict)) => return Some(Ok(*conflict)),
                Ok(ConflictNews::Nothing(_)) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl Stream for ConflictFeed {
    type Item = Result<ConflictNews, ReadError>;

    fn poll_next(mut self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        self.inner.poll_next_unpin(task)
    }
}

pub(super) fn feed(of: Conflicts) -> ConflictFeed {
    let news = VecDeque::new();
    let watch = Watch { of, news, open: None, route: None, progressed: false };
    let inner = unfold(Some(watch), |watch| async {
        let mut watch = watch?;
        match watch.next().await {
            Ok(news) => Some((Ok(news), Some(watch))),
            Err(error) => Some((Err(error), None)),
        }
    });
    ConflictFeed { inner: inner.boxed() }
}

/// A feed that asks again, somewhere else, whenever a call breaks.
struct Watch {
    of: Conflicts,
    /// At most one response's.
    news: VecDeque<ConflictNews>,
    open: Option<(Streaming<v1::ListConflictsResponse>, Instant)>,
    route: Option<Route>,
    progressed: bool,
}

impl Watch {
    async fn next(&mut self) -> Result<ConflictNews, ReadError> {
        loop {
            if let Some(news) = self.news.pop_front() {
                return Ok(news);
            }
            match self.step().await {
                Ok(wire) => self.accept(wire)?,
                Err(failure) => self.recover(failure).await?,
            }
        }
    }

    fn accept(&mut self, wire: v1::ListConflictsResponse) -> Result<(), ReadError> {
        let client = &self.of.client;
        if let Some(route) = &self.route {
            route.settled(client);
        }
        client.session().merge_answer(&wire.session_token)?;
        let page = ConflictPage::from_wire(wire)?;
        self.progressed |= !page.conflicts.is_empty();
        // All of the response is handed out before anything is asked again.
        self.of.after = Some(page.cursor.clone());
        self.of.from_now = false;
        let nothing = page.conflicts.is_empty();
        self.news = page.conflicts.into_iter().map(Box::new).map(ConflictNews::Found).collect();
        if nothing {
            self.news.push_back(ConflictNews::Nothing(page.cursor));
        }
        Ok(())
    }

    async fn step(&mut self) -> Result<v1::ListConflictsResponse, ReadFailure> {
        let Self { of, open, route, .. } = self;
        let options = of.client.options();
        let silence = HEARTBEAT * 3 + Duration::from_secs(2) + options.session_wait;
        let silent = || {
            let text = format!("the node was silent for {silence:?}");
            ReadFailure::Broken(Status::deadline_exceeded(text))
        };
        let (stream, _) = match open {
            Some(open) => open,
            None => {
                let route = route.get_or_insert_with(|| Route::new(&of.client, None, true));
                let node = route.node(&of.client);
                let mut conflicts = service(node.channel());
                let Ok(answer) = timeout(silence, conflicts.subscribe(request(of))).await else {
                    node.renew(of.client.dialer());
                    return Err(silent());
                };
                let stream = answer.map_err(ReadFailure::of)?.into_inner();
                open.insert((stream, Instant::now()))
            }
        };
        let ended = || ReadFailure::Broken(Status::unavailable("the node ended the stream"));
        let message = timeout(silence, stream.message()).await.map_err(|_| silent())?;
        message.map_err(ReadFailure::of)?.ok_or_else(ended)
    }

    /// Finds the next node to ask, and waits as long as it must.
    async fn recover(&mut self, failure: ReadFailure) -> Result<(), ReadError> {
        let client = &self.of.client;
        let route = self.route.get_or_insert_with(|| Route::new(client, None, true));
        let lasted = self.open.take().is_some_and(|(_, since)| since.elapsed() >= LASTING);
        // What failed before the last progress no longer counts.
        if std::mem::take(&mut self.progressed) || lasted {
            route.fresh(client, None, true);
        }
        let after = route.after(client, failure)?;
        sleep(after).await;
        Ok(())
    }
}

fn request(of: &Conflicts) -> v1::SubscribeConflictsRequest {
    v1::SubscribeConflictsRequest {
        category: of.category.clone(),
        stream: of.stream.clone(),
        order: v1::Order::from(of.order) as i32,
        after: of.after.as_ref().map(Cursor::encode).unwrap_or_default(),
        from_now: of.from_now,
        open_only: of.open_only,
        session_token: of.client.session().to_send(),
        deadline_ms: of.client.session_wait_ms(),
        heartbeat_ms: HEARTBEAT.as_millis() as u32,
    }
}
