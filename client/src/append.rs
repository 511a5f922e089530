//! Appending: the request, and the loop that carries out what [`AppendRetry`] decides.

use std::collections::BTreeMap;
use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use anabranch_core::event::ProducerTag;
use anabranch_core::planted::{self, Bug};
use anabranch_core::{Dot, Seq, Stamp};
use anabranch_proto::convert::{ConvertError, Expectation, Expected, LEADER, required};
use anabranch_proto::v1;
use anabranch_proto::v1::events_client::EventsClient;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tonic::{Code, Request, Status};

use crate::client::{Client, MESSAGE_BYTES_MAX};
use crate::error::AppendError;
use crate::event::{IntoEvents, NewEvent};
use crate::failure::Failure;
use crate::lane;
use crate::nodes::Node;
use crate::producer::{Line, Slot};
use crate::retry::{AppendRetry, Policy, Step, Whom};

/// How many regions must hold an append durably before it is acknowledged, its own included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Regions(pub u32);

/// Names one append, so that it can be retried without being written twice.
///
/// The region belongs to it: another region recognises the triple only if the first has reached it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The region that was asked.
    pub region: String,
    /// The producer's id, epoch and sequence.
    pub tag: ProducerTag,
}

/// An append that was acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// Identity of the first event; the others follow densely.
    pub first: Dot,
    /// Number of events.
    pub events: u32,
    /// Regional position of the first event.
    pub position: u64,
    /// Stamp of all of them.
    pub stamp: Stamp,
    /// The last revision of each stream written, after this append, in this region.
    pub revisions: BTreeMap<String, u64>,
    /// The session, as the server saw it; already merged into the client's.
    pub session_token: Bytes,
    /// True if this is the first result of an append that was sent before.
    pub repeated: bool,
    /// Regions known to hold it when this was sent.
    pub regions: u32,
    /// What it was sent as.
    pub ticket: Ticket,
}

impl Appended {
    /// The last revision of `stream` after this append; none if it was not written to.
    pub fn revision_of(&self, stream: &str) -> Option<u64> {
        self.revisions.get(stream).copied()
    }
    /// The identities of the events, in order.
    pub fn dots(&self) -> impl Iterator<Item = Dot> + '_ {
        let dot = |nth| Dot { origin: self.first.origin.clone(), seq: self.first.seq.plus(nth) };
        (0..self.events.into()).map(dot)
    }
    /// Number of the last event within its origin.
    pub fn last_seq(&self) -> Seq {
        self.first.seq.plus(u64::from(self.events).saturating_sub(1))
    }

    pub(crate) fn from_wire(
        wire: v1::AppendResponse,
        ticket: Ticket,
    ) -> Result<Self, ConvertError> {
        let revision = |entry: v1::StreamRevision| (entry.stream, entry.last_revision);
        Ok(Self {
            first: required("first", wire.first)?.try_into()?,
            events: wire.events,
            position: wire.position,
            stamp: Stamp(wire.stamp),
            revisions: wire.revisions.into_iter().map(revision).collect(),
            session_token: wire.session_token,
            repeated: wire.repeated,
            regions: wire.regions,
            ticket,
        })
    }
}

/// An append being put together; `.await` sends it. All of its events are written, or none.
///
/// Dropping the future while it runs leaves the outcome unknown.
#[must_use = "an append does nothing until it is awaited"]
pub struct Append {
    client: Client,
    line: Option<Arc<Line>>,
    stream: String,
    events: Vec<v1::NewEvent>,
    expectations: Vec<Expectation>,
    regions: Regions,
    within: Duration,
    timeout: Duration,
    retry_of: Option<Ticket>,
    retry_elsewhere: bool,
    own_rights_only: bool,
}

impl Append {
    pub(crate) fn new(client: Client, stream: String, events: Vec<NewEvent>) -> Self {
        let events = events.into_iter().map(|event| event.into_wire(stream.clone())).collect();
        let timeout = client.options().timeout;
        Self {
            client,
            line: None,
            stream,
            events,
            expectations: Vec::new(),
            regions: Regions(1),
            within: Duration::ZERO,
            timeout,
            retry_of: None,
            retry_elsewhere: false,
            own_rights_only: false,
        }
    }
    pub(crate) fn of_line(mut self, line: Arc<Line>) -> Self {
        self.line = Some(line);
        self
    }

    /// Adds events, to this or another stream of the same shard.
    pub fn and(mut self, stream: impl Into<String>, events: impl IntoEvents) -> Self {
        let stream = stream.into();
        let added = events.into_events().into_iter().map(|event| event.into_wire(stream.clone()));
        self.events.extend(added);
        self
    }
    /// What must be true of the stream the append began with.
    ///
    /// It is checked in the region that is asked, against that region's history. An append that
    /// expects something is never sent to another region.
    pub fn expect(self, expected: Expected) -> Self {
        let stream = self.stream.clone();
        self.expect_of(stream, expected)
    }
    /// What must be true of any stream, written to or not.
    pub fn expect_of(mut self, stream: impl Into<String>, expected: Expected) -> Self {
        self.expectations.push(Expectation { stream: stream.into(), expected });
        self
    }
    /// Waits until `regions` hold it durably, for at most `within` after it is durable here.
    ///
    /// If they do not in time: [`AppendError::RegionsShort`], and it stays written. One region is its
    /// own, and nothing is waited for.
    pub fn acknowledge(mut self, regions: Regions, within: Duration) -> Self {
        self.regions = regions;
        self.within = if regions > Regions(1) { within } else { Duration::ZERO };
        self
    }
    /// How long to try, besides waiting for other regions.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
    /// Repeats an append whose outcome is unknown. Everything else must be as it was then.
    ///
    /// It is sent to the region that was asked then.
    pub fn retry_of(mut self, ticket: Ticket) -> Self {
        self.retry_of = Some(ticket);
        self
    }
    /// Whether to try another region also after an attempt in this one went unanswered.
    ///
    /// Off by default, because the other region recognises the repetition only if the first attempt,
    /// in case it was written, has already reached it. If it has not, the events are written twice:
    /// the regions later mark one of the two as a duplicate, but readers may have met both.
    pub fn retry_elsewhere(mut self, allowed: bool) -> Self {
        self.retry_elsewhere = allowed;
        self
    }

    /// Whether to take from a bounded counter only what the region may, at once, and not to ask other
    /// regions for rights. Off by default.
    pub fn own_rights_only(mut self, only: bool) -> Self {
        self.own_rights_only = only;
        self
    }

    async fn send(self) -> Result<Appended, AppendError> {
        if self.events.is_empty() {
            let (field, problem) = ("events".into(), "is empty".into());
            return Err(AppendError::Invalid { field, problem, limit: None, actual: None });
        }
        let deadline = Instant::now() + self.timeout + self.within;
        let slot = self.slot(deadline).await?;
        Sending::new(self, slot, deadline)?.run().await
    }

    /// A sequence of the producer; none if this repeats an append that has one.
    async fn slot(&self, deadline: Instant) -> Result<Option<Slot>, AppendError> {
        if self.retry_of.is_some() {
            return Ok(None);
        }
        let line = match &self.line {
            Some(line) => line,
            None => self.client.line(self.regions),
        };
        let full = |_| AppendError::Overloaded {
            what: "too many appends of this producer in flight".into(),
            retry_after: Duration::ZERO,
        };
        timeout_at(deadline, line.take()).await.map(Some).map_err(full)
    }
}

impl IntoFuture for Append {
    type Output = Result<Appended, AppendError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

/// An append under way: carries out what [`AppendRetry`] decides.
struct Sending {
    client: Client,
    message: v1::AppendRequest,
    within: Duration,
    deadline: Instant,
    ticket: Ticket,
    began: usize,
    region: usize,
    at: usize,
    retry: AppendRetry,
    /// Held until there is an outcome: the sequence must stay within what the server remembers.
    _slot: Option<Slot>,
}

impl Sending {
    fn new(append: Append, slot: Option<Slot>, deadline: Instant) -> Result<Self, AppendError> {
        let (client, now) = (append.client, Instant::now());
        let expects = append.expectations.iter().any(|e| e.expected != Expected::Any);
        let policy = Policy {
            deadline: Some(deadline),
            region_patience: client.options().region_patience,
            may_move: client.regions().len() > 1 && !expects,
            move_in_doubt: append.retry_elsewhere,
        };
        let (region, tag, doubt) = match (&append.retry_of, &slot) {
            (Some(ticket), _) => {
                let doubt = Status::unknown("the attempt that this one repeats");
                (client.region_named(&ticket.region)?, ticket.tag, Some(doubt))
            }
            (None, Some(slot)) if policy.may_move => (client.base().region(now), slot.tag, None),
            (None, Some(slot)) => (client.base().home(), slot.tag, None),
            (None, None) => unreachable!("an append has a sequence or repeats one"),
        };
        let chosen = &client.regions()[region];
        let ticket = Ticket { region: chosen.name.clone(), tag };
        let message = v1::AppendRequest {
            events: append.events,
            expectations: append.expectations.into_iter().map(Into::into).collect(),
            producer: Some(tag.into()),
            regions: append.regions.0,
            regions_deadline_ms: 0,
            own_rights_only: append.own_rights_only,
        };
        let retry = AppendRetry::new(now, chosen.size(), policy, ticket.clone(), doubt);
        let (at, within) = (chosen.turn(), append.within);
        let (began, _slot) = (region, slot);
        Ok(Self { client, message, within, deadline, ticket, began, region, at, retry, _slot })
    }

    async fn run(mut self) -> Result<Appended, AppendError> {
        let mut node = self.region().leader().unwrap_or_else(|| self.region().node(self.at));
        loop {
            let failure = match self.attempt(&node).await {
                Ok(appended) => {
                    self.client.base().settled(self.began, self.region, Instant::now());
                    return Ok(self.seen(appended));
                }
                Err(failure) => failure,
            };
            if !matches!(
                failure,
                Failure::Final(_) | Failure::Later { .. } | Failure::Homeless { .. }
            ) {
                self.region().not_leader(&node);
            }
            let jitter = self.client.jitter();
            match self.retry.handle(Instant::now(), jitter, failure) {
                Step::Stop(AppendError::RegionsShort { wanted, reached, appended }) => {
                    let appended = Box::new(self.seen(*appended));
                    return Err(AppendError::RegionsShort { wanted, reached, appended });
                }
                Step::Stop(error) => return Err(error),
                Step::Try { whom, after } => {
                    tracing::debug!(tag = ?self.ticket.tag, ?whom, ?after, "append is retried");
                    // Dropped here, the outcome is what the attempts so far made it: unknown.
                    sleep(after).await;
                    if planted::is(Bug::NewSequencePerAttempt)
                        && let Some(producer) = &mut self.message.producer
                    {
                        producer.sequence += 1 << 20;
                    }
                    node = self.go(whom, node);
                }
            }
        }
    }

    fn region(&self) -> &crate::nodes::Region {
        &self.client.regions()[self.region]
    }

    fn seen(&self, appended: Appended) -> Appended {
        if planted::is(Bug::OwnWritesNotInSession) {
            return appended;
        }
        // A token that cannot be read must not hide that the append was written.
        if let Err(error) = self.client.session().merge_answer(&appended.session_token) {
            tracing::warn!(%error, "the answer to an append carries a session token that is damaged");
        }
        appended
    }

    fn go(&mut self, whom: Whom, node: Arc<Node>) -> Arc<Node> {
        match whom {
            Whom::Same => return node,
            Whom::Leader(address) => {
                let dialer = self.client.dialer();
                if let Some(leader) = self.region().learn_leader(&address, dialer) {
                    return leader;
                }
                self.at += 1;
            }
            Whom::Next => self.at += 1,
            Whom::NextRegion => {
                self.region = (self.region + 1) % self.client.regions().len();
                let region = &self.client.regions()[self.region];
                self.at = region.turn();
                self.ticket.region.clone_from(&region.name);
                self.retry.entered_region(Instant::now(), region.size(), &region.name);
                return region.leader().unwrap_or_else(|| region.node(self.at));
            }
        }
        self.region().node(self.at)
    }

    async fn attempt(&mut self, node: &Node) -> Result<Appended, Failure> {
        let left = self.deadline.duration_since(Instant::now());
        let limit = left.min(self.client.options().attempt_timeout + self.within);
        self.message.regions_deadline_ms = self.regions_deadline_ms(left);
        let response = match timeout(limit, self.ask(node, limit)).await {
            Ok(Ok(response)) => response,
            Ok(Err(status)) => {
                self.learn(status.metadata());
                return Err(Failure::of(status, &self.ticket));
            }
            Err(_) => {
                node.renew(self.client.dialer());
                let silent = format!("{} did not answer in {limit:?}", node.address);
                return Err(Failure::NoAnswer(Status::deadline_exceeded(silent)));
            }
        };
        if !response.leader.is_empty() {
            self.region().learn_leader(&response.leader, self.client.dialer());
        }
        Appended::from_wire(response, self.ticket.clone())
            .map_err(|error| Failure::NoAnswer(Status::internal(error.to_string())))
    }

    /// Sends the append: with others if it is small, else in a call of its own.
    async fn ask(&self, node: &Node, limit: Duration) -> Result<v1::AppendResponse, Status> {
        // For the server. A little longer than ours, which must come first: it also changes the
        // connection, because a node that does not answer may be one that cannot be reached.
        let within = limit + limit / 8;
        if lane::is_small(&self.message)
            && let Some(lane) = node.lane()
        {
            match lane.append(self.message.clone(), within).await {
                Err(status) if status.code() == Code::Unimplemented => node.has_no_lanes(),
                answer => return answer,
            }
        }
        let mut request = Request::new(self.message.clone());
        request.set_timeout(within);
        let mut events = EventsClient::new(node.channel())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let response = events.append(request).await?;
        self.learn(response.metadata());
        Ok(response.into_inner())
    }

    /// How long the node is to wait for other regions. To it, 0 is "as long as the call may take".
    fn regions_deadline_ms(&self, left: Duration) -> u32 {
        match self.message.regions {
            0 | 1 => 0,
            _ => u32::try_from(self.within.min(left).as_millis()).unwrap_or(u32::MAX).max(1),
        }
    }

    fn learn(&self, metadata: &tonic::metadata::MetadataMap) {
        if let Some(Ok(address)) = metadata.get(LEADER).map(|value| value.to_str()) {
            self.region().learn_leader(address, self.client.dialer());
        }
    }
}
