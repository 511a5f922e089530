//! Following an aggregate, over as many connections as it takes.

use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};

use anabranch_core::event::category;
use anabranch_proto::v1;
use futures_util::stream::{BoxStream, unfold};
use futures_util::{Stream, StreamExt};
use tokio::time::{Instant, sleep, timeout};
use tonic::{Status, Streaming};

use super::{Aggregate, AggregateRef, of_category, service};
use crate::call::Route;
use crate::client::Client;
use crate::error::ReadError;
use crate::failure::ReadFailure;
use crate::feed::LASTING;

/// Aggregates, one after the other. Asks nobody before it is polled; an error ends it.
pub struct Aggregates {
    inner: BoxStream<'static, Result<Aggregate, ReadError>>,
}

impl Aggregates {
    pub(super) fn new(
        inner: impl Stream<Item = Result<Aggregate, ReadError>> + Send + 'static,
    ) -> Self {
        Self { inner: inner.boxed() }
    }
    /// The next one. Nothing is lost if the future is dropped before it is ready.
    pub async fn next(&mut self) -> Option<Result<Aggregate, ReadError>> {
        self.inner.next().await
    }
}

impl Stream for Aggregates {
    type Item = Result<Aggregate, ReadError>;

    fn poll_next(mut self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        self.inner.poll_next_unpin(task)
    }
}

pub(super) fn watch(client: Client, stream: String) -> Aggregates {
    let watch = Watch {
        of: AggregateRef { client, stream },
        open: None,
        route: None,
        told: None,
        progressed: false,
    };
    Aggregates::new(unfold(Some(watch), |watch| async {
        let mut watch = watch?;
        match watch.next().await {
            Ok(aggregate) => Some((Ok(aggregate), Some(watch))),
            Err(error) => Some((Err(error), None)),
        }
    }))
}

/// A watch that asks again, somewhere else, whenever a call breaks.
struct Watch {
    of: AggregateRef,
    open: Option<Open>,
    route: Option<Route>,
    told: Option<Aggregate>,
    progressed: bool,
}

/// The call in use.
struct Open {
    stream: Streaming<v1::Aggregate>,
    since: Instant,
    /// It has said what the aggregate is. After that it may be silent for as long as nothing changes.
    answered: bool,
}

impl Watch {
    async fn next(&mut self) -> Result<Aggregate, ReadError> {
        loop {
            match self.step().await {
                Ok(wire) => {
                    if let Some(route) = &self.route {
                        route.settled(&self.of.client);
                    }
                    self.of.client.session().merge_answer(&wire.session_token)?;
                    let now = Aggregate::from_wire(wire)?;
                    // A new call begins with what the one before may have said already.
                    if !self.told.as_ref().is_some_and(|told| is_same(told, &now)) {
                        self.told = Some(now.clone());
                        self.progressed = true;
                        return Ok(now);
                    }
                }
                Err(failure) => self.recover(failure).await?,
            }
        }
    }

    async fn step(&mut self) -> Result<v1::Aggregate, ReadFailure> {
        let Self { of, open, route, .. } = self;
        let options = of.client.options();
        let limit = options.attempt_timeout + options.session_wait;
        let silent =
            || ReadFailure::Broken(Status::deadline_exceeded(format!("no answer in {limit:?}")));
        let open = match open {
            Some(open) => open,
            None => {
                let route = route.get_or_insert_with(|| Route::new(&of.client, None, true));
                let node = route.node(&of.client);
                let mut aggregates = service(node.channel());
                // Whoever answers holds what was told before: an aggregate never goes back.
                let Ok(answer) = timeout(limit, aggregates.watch(of.request())).await else {
                    node.renew(of.client.dialer());
                    return Err(silent());
                };
                let stream = answer.map_err(ReadFailure::of)?.into_inner();
                open.insert(Open { stream, since: Instant::now(), answered: false })
            }
        };
        let message = open.stream.message();
        let message = match open.answered {
            true => message.await,
            false => timeout(limit, message).await.map_err(|_| silent())?,
        };
        let ended = || ReadFailure::Broken(Status::unavailable("the node ended the stream"));
        let message = message.map_err(ReadFailure::of)?.ok_or_else(ended)?;
        open.answered = true;
        Ok(message)
    }

    /// Finds the next node to ask, and waits as long as it must.
    async fn recover(&mut self, failure: ReadFailure) -> Result<(), ReadError> {
        let client = &self.of.client;
        let route = self.route.get_or_insert_with(|| Route::new(client, None, true));
        let lasted = self.open.take().is_some_and(|open| open.since.elapsed() >= LASTING);
        // What failed before the last progress no longer counts.
        if std::mem::take(&mut self.progressed) || lasted {
            route.fresh(client, None, true);
        }
        let after = route.after(client, failure);
        let after = after.map_err(|error| of_category(category(&self.of.stream), error))?;
        sleep(after).await;
        Ok(())
    }
}

fn is_same(told: &Aggregate, now: &Aggregate) -> bool {
    told.value == now.value && told.events == now.events && told.version == now.version
}
