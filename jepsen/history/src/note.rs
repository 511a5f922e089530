//! What clients note besides the outcomes of their appends.

use std::time::Duration;

use anabranch_client::{Dot, Order, ProducerTag};
use serde::{Deserialize, Serialize};

use crate::text;

/// Something that a client met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Note {
    /// What a refusal says beyond words. The append itself is among the operations, by its tag.
    Refused {
        /// The append.
        #[serde(with = "text")]
        tag: ProducerTag,
        /// The kind of refusal.
        by: Refusal,
    },
    /// A read that goes on where the one before it ended.
    Walked(Walked),
    /// A call that had not ended well after its deadline, and was given up from outside.
    Silent {
        /// Who called.
        writer: u32,
        /// When it was given up, since the run began.
        #[serde(with = "text")]
        at: Duration,
        /// The call in words.
        what: String,
    },
}

/// Kinds of refusal that a law asks about. Expectations that failed are outcomes of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// It breaks a rule or a limit.
    Invalid {
        /// The field that does.
        field: String,
        /// The limit, if a number is involved.
        limit: Option<u64>,
        /// What the field has, if a number is involved.
        actual: Option<u64>,
    },
    /// There was too much to do.
    Overloaded {
        /// What was short.
        what: String,
        /// When to try again.
        #[serde(with = "text")]
        retry_after: Duration,
    },
    /// A higher epoch of its producer was seen.
    Fenced {
        /// That epoch.
        epoch: u32,
    },
    /// Its sequence is older than what is remembered of its producer.
    Forgotten,
    /// Its stream has a home, and that is another region.
    NotHome {
        /// The home.
        home: String,
        /// Which of the stream's homes, from 1.
        epoch: u32,
    },
    /// Not every region was known to hold the declaration of a home.
    HomeUnconfirmed,
    /// The region has too few rights to a bounded counter.
    RightsShort {
        /// How much was to be taken.
        wanted: u64,
        /// What the region could take.
        held: u64,
    },
    /// No node took it in time.
    Unavailable,
    /// Another reason.
    Other,
}

/// One read of a walk: reads that go on from each other by cursor, in whatever region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Walked {
    /// Whose session: what [`Op::writer`](crate::op::Op::writer) says of appends.
    pub writer: u32,
    /// Which walk of this client.
    pub walk: u32,
    /// Region that was read in.
    pub region: String,
    /// The category that is walked.
    pub category: String,
    /// In which order.
    #[serde(with = "text")]
    pub order: Order,
    /// When the read was sent.
    #[serde(with = "text")]
    pub called: Duration,
    /// When it ended.
    #[serde(with = "text")]
    pub returned: Duration,
    /// Place and identity of what it showed, in that order.
    #[serde(with = "text::deliveries")]
    pub shown: Vec<(u64, Dot)>,
    /// Whether it came to the end of what was there. One that did not gave up and said so.
    pub complete: bool,
}
