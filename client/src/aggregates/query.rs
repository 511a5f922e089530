//! Queries: the aggregates of a category, page by page.

use std::collections::VecDeque;

use anabranch_proto::v1;
use anabranch_proto::v1::condition::Comparison as Wire;
use futures_util::stream::unfold;
use serde_json::Value as Json;

use super::{Aggregate, Aggregates, of_category, service};
use crate::client::Client;
use crate::error::ReadError;

/// How a field compares to a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// It is the same. Of a set, a list or an `mv-register`: one of the members is.
    Equal,
    /// It is not the same. Of a set, a list or an `mv-register`: none of the members is.
    NotEqual,
    /// It is of the same kind, and less; so for the others.
    Less,
    /// Less, or the same.
    LessOrEqual,
    /// Greater.
    Greater,
    /// Greater, or the same.
    GreaterOrEqual,
}

impl From<Comparison> for Wire {
    fn from(comparison: Comparison) -> Self {
        match comparison {
            Comparison::Equal => Self::Equal,
            Comparison::NotEqual => Self::NotEqual,
            Comparison::Less => Self::Less,
            Comparison::LessOrEqual => Self::LessOrEqual,
            Comparison::Greater => Self::Greater,
            Comparison::GreaterOrEqual => Self::GreaterOrEqual,
        }
    }
}

/// Aggregates, by the names of their streams.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// Up to as many as were asked for. There may be fewer, or none, although more follow.
    pub aggregates: Vec<Aggregate>,
    /// For [`Query::after`], to get the next page; none: that was all.
    pub next: Option<String>,
}

/// A query being put together.
#[must_use = "a query does nothing until a page of it is asked for"]
#[derive(Clone)]
pub struct Query {
    client: Client,
    request: v1::QueryRequest,
}

impl Query {
    pub(super) fn new(client: Client, category: String) -> Self {
        Self { client, request: v1::QueryRequest { category, ..v1::QueryRequest::default() } }
    }

    /// Only aggregates of which this holds. All conditions must hold; 16 at most.
    pub fn where_(
        mut self,
        field: impl Into<String>,
        comparison: Comparison,
        value: impl Into<Json>,
    ) -> Self {
        self.request.conditions.push(v1::Condition {
            field: field.into(),
            comparison: Wire::from(comparison).into(),
            value: value.into().to_string().into(),
        });
        self
    }
    /// Only streams whose names come after this one; it need not exist.
    pub fn after(mut self, stream: impl Into<String>) -> Self {
        self.request.after = stream.into();
        self
    }
    /// Aggregates on a page, at most 1000. 100 unless given.
    pub fn limit(mut self, aggregates: u32) -> Self {
        self.request.limit = aggregates;
        self
    }

    /// One page, with everything in it that this client has written and seen.
    ///
    /// # Errors
    /// [`ReadError::NoDefinition`]; [`ReadError::Invalid`] if a condition is wrong;
    /// [`ReadError::Unavailable`] while the aggregates are still being built.
    pub async fn page(self) -> Result<Page, ReadError> {
        let Self { client, mut request } = self;
        request.session_token = client.session().to_send();
        request.deadline_ms = client.session_wait_ms();
        let ask = |channel| {
            let request = request.clone();
            async move { service(channel).query(request).await }
        };
        let answer = client.ask(client.asking_for_aggregates(), ask).await;
        let wire = answer.map_err(|error| of_category(&request.category, error))?;
        client.session().merge_answer(&wire.session_token)?;
        let read = |mut aggregate: v1::Aggregate| {
            aggregate.session_token = wire.session_token.clone();
            Aggregate::from_wire(aggregate)
        };
        let aggregates = wire.aggregates.into_iter().map(read).collect::<Result<_, _>>()?;
        Ok(Page { aggregates, next: Some(wire.next).filter(|next| !next.is_empty()) })
    }

    /// All of them, page by page. At most one page is held; each is as it is when its page is read.
    pub fn all(self) -> Aggregates {
        let begin = (VecDeque::new(), Some(self));
        Aggregates::new(unfold(begin, |(mut page, mut query)| async {
            loop {
                if let Some(aggregate) = page.pop_front() {
                    return Some((Ok(aggregate), (page, query)));
                }
                let this: Self = query.take()?;
                match this.clone().page().await {
                    Ok(next) => {
                        page = next.aggregates.into();
                        query = next.next.map(|after| this.after(after));
                    }
                    Err(error) => return Some((Err(error), (page, None))),
                }
            }
        }))
    }
}
