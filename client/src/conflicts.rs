//! Conflicts: what several regions wrote to one stream without having seen each other.
//!
//! Listed and followed with [`Client::conflicts`], decided by policies ([`Client::set_policy`]) or one
//! by one ([`Client::resolve`]). Events that are read say what they are concurrent with, if asked:
//! [`Read::with_conflicts`](crate::Read::with_conflicts). `docs/conflicts.md` says which policy is for
//! what.

mod policy;
mod watch;

use anabranch_core::conflict::{ConflictId, RESOLVED, Resolution, Run, Standing};
use anabranch_core::{Context, Cursor, Dot, ReadOrder, SessionToken};
use anabranch_proto::conflicts::standing;
use anabranch_proto::convert::{ConvertError, Problem, required};
use anabranch_proto::v1;
use anabranch_proto::v1::conflicts_client::ConflictsClient;
use bytes::Bytes;
use tonic::transport::Channel;

pub use policy::{Counted, DeclaredPolicy, PoliciesKnown, PolicySet, SetPolicyError};
pub use watch::{ConflictFeed, ConflictNews};

use crate::append::Append;
use crate::call::Asking;
use crate::client::{Client, MESSAGE_BYTES_MAX};
use crate::error::ReadError;
use crate::event::event;

/// Events of one group and stream, and what they are concurrent with among what came before them in the
/// order that is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundConflict {
    /// Its name; in global order the same in every region.
    pub id: ConflictId,
    /// The stream.
    pub stream: String,
    /// The events that came second.
    pub events: Run,
    /// Those that came first: at most one run an origin; at least one.
    pub against: Vec<Run>,
    /// Number of concurrent pairs in it.
    pub pairs: u64,
    /// Place of the first of `events` in the order.
    pub position: u64,
    /// The policy of its category now.
    pub policy: String,
    /// What became of `events` in this conflict.
    pub standing: Standing,
    /// The event that counts, if one does.
    pub winner: Option<Dot>,
    /// The event that said so, if a resolution did.
    pub resolved_by: Option<Dot>,
    /// Goes on after it.
    pub cursor: Cursor,
}

/// What an event that was read is concurrent with, of what its region held then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Concurrency {
    /// At most one run an origin; at least one.
    pub with: Vec<Run>,
    /// What became of the event, by the policy of its category.
    pub standing: Standing,
    /// The event that decided it, if a resolution did.
    pub resolved_by: Option<Dot>,
    /// There are so many that some later ones were not looked at.
    pub cut_short: bool,
}

/// Some conflicts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConflictPage {
    /// In order.
    pub conflicts: Vec<FoundConflict>,
    /// Goes on after them, and after all that were passed over.
    pub cursor: Cursor,
    /// Whether there may be more now.
    pub more: bool,
    /// What was seen with it, for [`Client::resolve`]; merged into the client's session.
    pub session_token: Bytes,
}

impl TryFrom<v1::Concurrency> for Concurrency {
    type Error = ConvertError;

    fn try_from(wire: v1::Concurrency) -> Result<Self, ConvertError> {
        Ok(Self {
            with: wire.with.into_iter().map(Run::try_from).collect::<Result<_, _>>()?,
            standing: standing("concurrency.standing", wire.standing)?,
            resolved_by: wire.resolved_by.map(Dot::try_from).transpose()?,
            cut_short: wire.cut_short,
        })
    }
}

impl FoundConflict {
    fn from_wire(wire: v1::Conflict) -> Result<Self, ReadError> {
        let (expected, actual) = (16, wire.id.len());
        let id = wire.id.as_ref().try_into();
        let id = id.map_err(|_| Problem::Length { expected, actual }.of("conflict.id"))?;
        Ok(Self {
            id: ConflictId(id),
            stream: wire.stream,
            events: required("conflict.events", wire.events)?.try_into()?,
            against: wire.against.into_iter().map(Run::try_from).collect::<Result<_, _>>()?,
            pairs: wire.pairs,
            position: wire.position,
            policy: wire.policy,
            standing: standing("conflict.standing", wire.standing)?,
            winner: wire.winner.map(Dot::try_from).transpose()?,
            resolved_by: wire.resolved_by.map(Dot::try_from).transpose()?,
            cursor: Cursor::decode(wire.cursor)?,
        })
    }
}

impl ConflictPage {
    fn from_wire(wire: v1::ListConflictsResponse) -> Result<Self, ReadError> {
        let conflicts = wire.conflicts.into_iter().map(FoundConflict::from_wire);
        Ok(Self {
            conflicts: conflicts.collect::<Result<_, _>>()?,
            cursor: Cursor::decode(wire.cursor)?,
            more: wire.more,
            session_token: wire.session_token,
        })
    }
}

fn service(channel: Channel) -> ConflictsClient<Channel> {
    ConflictsClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

/// Which conflicts, being put together.
#[derive(Clone)]
#[must_use = "nothing is asked before a page or a feed is"]
pub struct Conflicts {
    client: Client,
    category: String,
    stream: String,
    order: ReadOrder,
    after: Option<Cursor>,
    from_now: bool,
    open_only: bool,
    limit: u32,
}

impl Client {
    /// Conflicts of all streams, in regional order, from the first, unless it is narrowed down.
    pub fn conflicts(&self) -> Conflicts {
        Conflicts {
            client: self.clone(),
            category: String::new(),
            stream: String::new(),
            order: ReadOrder::Regional,
            after: None,
            from_now: false,
            open_only: false,
            limit: 0,
        }
    }

    /// Says which event of a stream counts, where the policy of its category is `resolver`. An event of
    /// type `$resolved` is appended; what is said of an [`Append`] holds for it.
    ///
    /// `observed` is what whoever decides had seen, as the token of a [`ConflictPage`]: what is not in it
    /// stays open. So does what the region that takes it does not hold. None: what that region holds.
    ///
    /// # Errors
    /// [`ReadError::Invalid`] if `observed` is no session token.
    pub fn resolve(
        &self,
        stream: impl Into<String>,
        winner: &Dot,
        observed: Option<Bytes>,
    ) -> Result<Append, ReadError> {
        let context = |token| -> Result<Context, ReadError> {
            let token = SessionToken::decode(token).map_err(|error| ReadError::Invalid {
                field: "observed".into(),
                problem: error.to_string(),
            })?;
            Ok(token.context)
        };
        let observed = observed.map(context).transpose()?;
        let resolution = Resolution { winner: winner.clone(), observed };
        Ok(self.append(stream, event(RESOLVED).payload(resolution.to_json())))
    }

    fn asking_for_conflicts(&self, portable: bool) -> Asking {
        let options = self.options();
        let answer_within = options.attempt_timeout + options.session_wait;
        Asking { portable, patience: options.timeout, answer_within }
    }
}

impl Conflicts {
    /// Only those of the category's streams.
    pub fn category(mut self, category: impl Into<String>) -> Self {
        self.category = category.into();
        self
    }
    /// Only those of one stream.
    pub fn stream(mut self, stream: impl Into<String>) -> Self {
        self.stream = stream.into();
        self
    }
    /// In which order. In global order only what is final is looked at, and every region has the same.
    pub fn order(mut self, order: ReadOrder) -> Self {
        self.order = order;
        self
    }
    /// Those after a cursor, whose order it is.
    pub fn after(mut self, cursor: Cursor) -> Self {
        self.order = cursor.order;
        self.after = Some(cursor);
        self
    }
    /// Of a feed: only what is found from now on.
    pub fn from_now(mut self) -> Self {
        self.from_now = true;
        self
    }
    /// Only those that nobody has decided yet, under policy `resolver`.
    pub fn open_only(mut self) -> Self {
        self.open_only = true;
        self
    }
    /// Conflicts on a page, at most 1000. 100 unless given.
    pub fn limit(mut self, conflicts: u32) -> Self {
        self.limit = conflicts;
        self
    }

    /// One page. In regional order, with everything in it that this client has written and seen.
    ///
    /// # Errors
    /// [`ReadError::Invalid`]; [`ReadError::Unavailable`] while conflicts are still being looked for.
    pub async fn page(&self) -> Result<ConflictPage, ReadError> {
        let client = &self.client;
        let request = v1::ListConflictsRequest {
            category: self.category.clone(),
            stream: self.stream.clone(),
            order: v1::Order::from(self.order) as i32,
            after: self.after.as_ref().map(Cursor::encode).unwrap_or_default(),
            limit: self.limit,
            open_only: self.open_only,
            session_token: client.session().to_send(),
            deadline_ms: client.session_wait_ms(),
        };
        // A place in one region's order is nowhere in another's.
        let portable = self.order == ReadOrder::Global || self.after.is_none();
        let ask = |channel| {
            let request = request.clone();
            async move { service(channel).list(request).await }
        };
        let wire = client.ask(client.asking_for_conflicts(portable), ask).await?;
        client.session().merge_answer(&wire.session_token)?;
        ConflictPage::from_wire(wire)
    }

    /// Conflicts as they are found, for ever. Connects when it is first polled.
    pub fn feed(self) -> ConflictFeed {
        watch::feed(self)
    }
}
