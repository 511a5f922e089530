//! Aggregates: what the events of a stream add up to, folded by the nodes.
//!
//! Declared with [`Client::define`], changed with [`AggregateRef::operate`] or a [`Field`], read with
//! [`AggregateRef::get`], [`AggregateRef::watch`] and [`Client::query`]. `docs/aggregates.md` says
//! which types of fields there are, and what becomes of two regions' writes at the same time.

mod define;
pub mod field;
mod operate;
mod operation;
mod ordered;
mod query;
mod watch;

use anabranch_core::Context;
use anabranch_core::event::category;
use anabranch_proto::v1;
use anabranch_proto::v1::aggregates_client::AggregatesClient;
use bytes::Bytes;
use serde_json::{Map, Value as Json};
use tonic::Code;
use tonic::transport::Channel;

pub use define::{DefineError, Defined, Settled, Standing};
pub use operate::Operate;
pub use operation::Operation;
pub use ordered::{OrderedField, OrderedValue};
pub use query::{Comparison, Page, Query};
pub use watch::Aggregates;

use crate::call::Asking;
use crate::client::{Client, MESSAGE_BYTES_MAX};
use crate::error::{Malformed, ReadError};
use field::Field;

/// What the events of a stream add up to.
#[derive(Debug, Clone, PartialEq)]
pub struct Aggregate {
    /// The stream.
    pub stream: String,
    /// Version of the definition that it was folded by.
    pub version: u32,
    /// Every field of the definition.
    pub value: Map<String, Json>,
    /// Events of the stream that are in it, bad ones included.
    pub events: u64,
    /// Events that were left out of the merged fields, because the definition cannot be applied to them.
    pub bad_events: u64,
    /// What went into the ordered fields, if the definition has any.
    pub ordered: Option<OrderedCounts>,
    /// What was seen with it, for [`Operate::observed`]; merged into the client's session. Of a page of
    /// a query, it may hold a little more.
    pub session_token: Bytes,
    /// What is in it; only of [`AggregateRef::get_final`].
    pub cut: Option<Context>,
}

/// What went into ordered fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrderedCounts {
    /// Events of the stream that are final: nothing can come before them any more.
    pub settled_events: u64,
    /// Of these, left out because they are bad.
    pub settled_bad_events: u64,
    /// The settled ones, and those that the node held beyond them.
    pub tentative_events: u64,
    /// Of these, left out because they are bad.
    pub tentative_bad_events: u64,
}

impl Aggregate {
    fn from_wire(wire: v1::Aggregate) -> Result<Self, ReadError> {
        let value = serde_json::from_slice(&wire.value).map_err(|error| json("value", &error))?;
        let v1::Aggregate {
            stream, version, events, bad_events, session_token, cut, ordered, ..
        } = wire;
        let ordered = ordered.map(|wire| OrderedCounts {
            settled_events: wire.settled_events,
            settled_bad_events: wire.settled_bad_events,
            tentative_events: wire.tentative_events,
            tentative_bad_events: wire.tentative_bad_events,
        });
        let cut = cut.map(Context::try_from).transpose()?;
        Ok(Self { stream, version, value, events, bad_events, ordered, session_token, cut })
    }

    /// A field that the definition should have.
    ///
    /// # Errors
    /// [`ReadError::Invalid`], naming those that it has.
    pub fn field(&self, name: &str) -> Result<&Json, ReadError> {
        self.value.get(name).ok_or_else(|| {
            let fields: Vec<_> = self.value.keys().map(String::as_str).collect();
            let problem =
                format!("is no field of {}, which has {}", self.stream, fields.join(", "));
            ReadError::Invalid { field: name.to_owned(), problem }
        })
    }
}

fn json(field: &'static str, error: &serde_json::Error) -> ReadError {
    let problem = Malformed::Json { field, problem: error.to_string() };
    ReadError::Malformed { problem }
}

/// The error of a question about aggregates of `category`: it is the only thing that is not found.
fn of_category(category: &str, error: ReadError) -> ReadError {
    match error {
        ReadError::Refused { code: Code::NotFound, .. } => {
            ReadError::NoDefinition { category: category.to_owned() }
        }
        error => error,
    }
}

fn service(channel: Channel) -> AggregatesClient<Channel> {
    AggregatesClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

impl Client {
    /// The aggregate of a stream.
    pub fn aggregate(&self, stream: impl Into<String>) -> AggregateRef {
        AggregateRef { client: self.clone(), stream: stream.into() }
    }
    /// The aggregates of a category.
    pub fn query(&self, category: impl Into<String>) -> Query {
        Query::new(self.clone(), category.into())
    }

    /// A field of type `g-counter` or `pn-counter`.
    pub fn counter(&self, stream: impl Into<String>, name: &str) -> Field<field::Counter> {
        Field::new(self.aggregate(stream), name)
    }
    /// A field of type `max` or `min`.
    pub fn best(&self, stream: impl Into<String>, name: &str) -> Field<field::Best> {
        Field::new(self.aggregate(stream), name)
    }
    /// A field of type `lww-register` or `mv-register`.
    pub fn register(&self, stream: impl Into<String>, name: &str) -> Field<field::Register> {
        Field::new(self.aggregate(stream), name)
    }
    /// A field of type `g-set` or `or-set`.
    pub fn set(&self, stream: impl Into<String>, name: &str) -> Field<field::Set> {
        Field::new(self.aggregate(stream), name)
    }
    /// A field of type `flag`.
    pub fn flag(&self, stream: impl Into<String>, name: &str) -> Field<field::Flag> {
        Field::new(self.aggregate(stream), name)
    }
    /// A field of type `list`.
    pub fn list(&self, stream: impl Into<String>, name: &str) -> Field<field::List> {
        Field::new(self.aggregate(stream), name)
    }
    /// A field of type `ordered`: changed by events only.
    pub fn ordered(&self, stream: impl Into<String>, name: &str) -> OrderedField {
        OrderedField::new(self.aggregate(stream), name)
    }
    /// A field of type `map of …`, as a whole. What is under one key: [`Field::key`] of the type there.
    pub fn map(&self, stream: impl Into<String>, name: &str) -> Field<field::Map> {
        Field::new(self.aggregate(stream), name)
    }

    /// How a question about aggregates is asked that waits for the session.
    fn asking_for_aggregates(&self) -> Asking {
        let options = self.options();
        let answer_within = options.attempt_timeout + options.session_wait;
        Asking { portable: true, patience: options.timeout, answer_within }
    }
    pub(crate) fn session_wait_ms(&self) -> u32 {
        u32::try_from(self.options().session_wait.as_millis()).unwrap_or(u32::MAX)
    }
}

/// The aggregate of one stream, to be read and changed. Asks nobody by itself.
#[derive(Clone)]
pub struct AggregateRef {
    client: Client,
    stream: String,
}

impl AggregateRef {
    /// What it is now, with everything in it that this client has written and seen. A stream without
    /// events has an aggregate, too.
    ///
    /// # Errors
    /// [`ReadError::NoDefinition`]; [`ReadError::Unavailable`] while it is still being built.
    pub async fn get(&self) -> Result<Aggregate, ReadError> {
        self.ask(false).await
    }
    /// What it is as of the final part of the global order: the same in every region that has come as
    /// far. It may lack what this client has just written.
    ///
    /// # Errors
    /// As [`get`](Self::get); [`ReadError::Refused`] for a stream with too many events.
    pub async fn get_final(&self) -> Result<Aggregate, ReadError> {
        self.ask(true).await
    }
    /// What it is now, and again whenever it has changed. Changes in quick succession come as one.
    pub fn watch(&self) -> Aggregates {
        watch::watch(self.client.clone(), self.stream.clone())
    }
    /// Does all of `operations`, or nothing: an event of the stream carries them.
    pub fn operate(&self, operations: impl IntoIterator<Item = Operation>) -> Operate {
        let operations = operations.into_iter().collect();
        Operate::new(self.client.clone(), self.stream.clone(), operations)
    }

    async fn ask(&self, is_final: bool) -> Result<Aggregate, ReadError> {
        let client = &self.client;
        let mut request = self.request();
        request.r#final = is_final;
        let ask = |channel| {
            let request = request.clone();
            async move { service(channel).get(request).await }
        };
        let answer = client.ask(client.asking_for_aggregates(), ask).await;
        let wire = answer.map_err(|error| of_category(category(&self.stream), error))?;
        client.session().merge_answer(&wire.session_token)?;
        Aggregate::from_wire(wire)
    }

    fn request(&self) -> v1::GetAggregateRequest {
        v1::GetAggregateRequest {
            stream: self.stream.clone(),
            session_token: self.client.session().to_send(),
            deadline_ms: self.client.session_wait_ms(),
            r#final: false,
        }
    }
}
