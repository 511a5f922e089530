//! Operating: an event is prepared by a node, then appended like any other.

use std::future::IntoFuture;
use std::time::Duration;

use anabranch_core::event::category;
use anabranch_core::{Context, EventId};
use anabranch_proto::convert::required;
use anabranch_proto::v1;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::time::Instant;
use tonic::Code;

use super::{Operation, of_category, service};
use crate::append::{Appended, Regions, Ticket};
use crate::call::Asking;
use crate::client::Client;
use crate::error::{AppendError, Doubt, ReadError};
use crate::event::NewEvent;

/// Operations on one aggregate being put together; `.await` does all of them, or none.
///
/// A node checks them and makes the event that carries them, which is then appended: what is said of
/// retries, sessions and errors of an [`Append`](crate::Append) holds for it, too.
#[must_use = "nothing is done until it is awaited"]
pub struct Operate {
    client: Client,
    stream: String,
    operations: Vec<Operation>,
    observed: Bytes,
    id: Option<EventId>,
    regions: Regions,
    within: Duration,
    timeout: Duration,
    retry_of: Option<Ticket>,
    retry_elsewhere: bool,
    own_rights_only: bool,
}

impl Operate {
    pub(super) fn new(client: Client, stream: String, operations: Vec<Operation>) -> Self {
        let timeout = client.options().timeout;
        Self {
            client,
            stream,
            operations,
            observed: Bytes::new(),
            id: None,
            regions: Regions(1),
            within: Duration::ZERO,
            timeout,
            retry_of: None,
            retry_elsewhere: false,
            own_rights_only: false,
        }
    }

    /// Removing from sets, replacing in registers and lowering flags touches only what was seen with
    /// this token, of an [`Aggregate`](super::Aggregate) or a session. Without it: what the region held.
    pub fn observed(mut self, session_token: impl Into<Bytes>) -> Self {
        self.observed = session_token.into();
        self
    }
    /// An id of your own for the event: doing it again with the same id counts once.
    pub fn id(mut self, id: EventId) -> Self {
        self.id = Some(id);
        self
    }
    /// As [`Append::acknowledge`](crate::Append::acknowledge).
    pub fn acknowledge(mut self, regions: Regions, within: Duration) -> Self {
        (self.regions, self.within) = (regions, within);
        self
    }
    /// How long to try, besides waiting for other regions.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
    /// As [`Append::retry_of`](crate::Append::retry_of). Places in lists that are given by numbers are
    /// looked up again, and what has become another operation stays unknown: to repeat these, keep the
    /// [`event`](Self::event) and append it.
    pub fn retry_of(mut self, ticket: Ticket) -> Self {
        self.retry_of = Some(ticket);
        self
    }
    /// As [`Append::retry_elsewhere`](crate::Append::retry_elsewhere).
    pub fn retry_elsewhere(mut self, allowed: bool) -> Self {
        self.retry_elsewhere = allowed;
        self
    }

    /// As [`Append::own_rights_only`](crate::Append::own_rights_only).
    pub fn own_rights_only(mut self, only: bool) -> Self {
        self.own_rights_only = only;
        self
    }

    /// The event that carries the operations, checked by a node, to be appended to the same stream with
    /// [`Client::append`]. Nothing is written.
    ///
    /// # Errors
    /// [`ReadError::Invalid`] names the operation that is wrong; [`ReadError::NoDefinition`].
    pub async fn event(&self) -> Result<NewEvent, ReadError> {
        let request = v1::PrepareRequest {
            stream: self.stream.clone(),
            operations: self.operations.iter().map(Operation::to_string).collect(),
            observed: self.observed.clone(),
            session_token: self.client.session().to_send(),
            deadline_ms: self.client.session_wait_ms(),
        };
        let ask = |channel| {
            let request = request.clone();
            async move { service(channel).prepare(request).await }
        };
        let asking = Asking { patience: self.timeout, ..self.client.asking_for_aggregates() };
        let answer = self.client.ask(asking, ask).await;
        let answer = answer.map_err(|error| of_category(category(&self.stream), error))?;
        let event = NewEvent::from_wire(required("event", answer.event)?)?;
        Ok(match self.id {
            Some(id) => event.id(id),
            None => event,
        })
    }

    async fn send(self) -> Result<Appended, AppendError> {
        let started = Instant::now();
        let event = match self.event().await {
            Ok(event) => event,
            Err(error) => return Err(self.not_prepared(error, started.elapsed())),
        };
        let left = self.timeout.saturating_sub(started.elapsed());
        let mut append = self
            .client
            .append(self.stream, event)
            .acknowledge(self.regions, self.within)
            .timeout(left)
            .retry_elsewhere(self.retry_elsewhere)
            .own_rights_only(self.own_rights_only);
        if let Some(ticket) = self.retry_of {
            append = append.retry_of(ticket);
        }
        append.await
    }

    /// Nothing was written now. What a repeated attempt did before, nobody knows.
    fn not_prepared(self, error: ReadError, waited: Duration) -> AppendError {
        let refusal = refusal(error);
        match self.retry_of {
            None => refusal,
            Some(ticket) => {
                let doubt = Doubt::RefusedLater { refusal: Box::new(refusal) };
                AppendError::Unknown { ticket, waited, doubt }
            }
        }
    }
}

impl IntoFuture for Operate {
    type Output = Result<Appended, AppendError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

fn refusal(error: ReadError) -> AppendError {
    let behind = |missing: &Context| format!("no node holds what was seen, missing {missing}");
    match error {
        ReadError::Invalid { field, problem } => {
            AppendError::Invalid { field, problem, limit: None, actual: None }
        }
        ReadError::NoDefinition { category } => AppendError::NoDefinition { category },
        ReadError::NotCaughtUp { missing, waited } => {
            AppendError::Unavailable { waited, last: behind(&missing) }
        }
        ReadError::Unavailable { waited, last } => {
            let last = anabranch_proto::convert::cause(&last);
            AppendError::Unavailable { waited, last }
        }
        ReadError::Refused { code, message } => AppendError::Refused { code, message },
        ReadError::Malformed { problem } => {
            AppendError::Refused { code: Code::Internal, message: problem.to_string() }
        }
    }
}
