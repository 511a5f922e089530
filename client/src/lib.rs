//! The native client of Anabranch, an event store that several regions write at the same time.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use anabranch_client::{Client, Expect, event};
//!
//! let client = Client::builder()
//!     .region("us-east", ["http://127.0.0.1:7101", "http://127.0.0.1:7102"])
//!     .fallback_region("eu-west", ["http://127.0.0.1:7201"])
//!     .build()?;
//! let added = client
//!     .append("cart-42", event("ItemAdded").payload(r#"{"sku":"tea"}"#))
//!     .expect(Expect::NoStream)
//!     .await?;
//! println!("revision {:?}", added.revision_of("cart-42"));
//! # Ok(()) }
//! ```
//!
//! What it takes care of:
//!
//! - **Retries that cannot write twice.** Every append carries a producer triple (see [`Producer`]);
//!   the same triple is sent until there is an answer or the deadline has come.
//! - **No lies.** [`AppendError`] separates *refused* (nothing was written) from *unknown* (it may
//!   have been written). A refusal that follows an unanswered attempt is reported as unknown.
//! - **Finding the leader**, failing over between nodes, and between regions where that is allowed.
//! - **Sessions** ([`Session`]): reads wait until they can show what this client has written and seen.
//! - **Exact cursors** ([`Subscription::cursor`]): each event has one, and it resumes in any region.
//! - **Aggregates** ([`AggregateRef`], [`Field`], [`Query`]): states that the nodes fold from streams.
//! - **Conflicts** ([`Conflicts`], [`Policy`]): what regions wrote at the same time, and what counts.
//! - **Homes** ([`Classes`]): categories whose streams one region writes, so that expectations are strict.
//! - **Back-pressure**: nothing here queues without a bound; a full window is an `await` that waits.
//!
//! `examples/` is the manual.
#![deny(missing_docs)]

mod aggregates;
mod append;
mod builder;
mod call;
mod classes;
mod client;
mod conflicts;
mod connect;
mod error;
mod event;
mod failure;
mod feed;
mod lane;
mod nodes;
mod plain;
mod producer;
mod progress;
mod read;
mod retry;
mod session;
mod subscribe;

pub use aggregates::field::{self, Element, Field};
pub use aggregates::{
    Aggregate, AggregateRef, Aggregates, Comparison, DefineError, Defined, Operate, Operation,
    OrderedCounts, OrderedField, OrderedValue, Page, Query, Settled, Standing,
};
pub use anabranch_core::conflict::{ConflictId, Policy, Run, Standing as ConflictStanding};
pub use anabranch_core::cursor::Cursor;
pub use anabranch_core::event::ProducerTag;
pub use anabranch_core::{Context, Dot, EventId, Origin, ProducerId, ReadOrder as Order, Stamp};
pub use anabranch_proto::convert::Expected as Expect;
/// The wire messages, for the calls that return them as they are.
pub use anabranch_proto::v1 as wire;
pub use append::{Append, Appended, Regions, Ticket};
pub use builder::{BuildError, Builder};
pub use classes::{
    Classes, HandOver, HandedOver, Home, HomeChanged, HomeEnded, HomeError, HomedCategory,
};
pub use client::Client;
pub use conflicts::{
    Concurrency, ConflictFeed, ConflictNews, ConflictPage, Conflicts, Counted, DeclaredPolicy,
    FoundConflict, PoliciesKnown, PolicySet, SetPolicyError,
};
pub use error::{AppendError, Conflict, Doubt, Malformed, ReadError};
pub use event::{Event, IntoEvents, NewEvent, Place, event};
pub use producer::Producer;
pub use read::{Events, Filter, From, Read};
pub use session::{BadToken, Session};
pub use subscribe::{Message, Subscribe, Subscription};
/// Status codes, as refusals carry them.
pub use tonic::Code;
