//! Append: check, admit, sequence here or pass on.

use std::time::Duration;

use anabranch_core::class::is_of_classes;
use anabranch_core::{Dot, Limits};
use anabranch_proto::convert::{LEADER, invalid};
use anabranch_proto::v1;
use anabranch_proto::v1::events_client::EventsClient;
use tokio::time::{Instant, timeout_at};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use super::Api;
use super::carry::{Away, HOPS_MAX};
use super::forward::{answer, hops, name_leader, no_answer, passed_on, set_hops, was_forwarded};
use super::refusal::{not_leader, of_append, unknown};
use super::rights::{Asked, Short, may_ask};
use super::validate::{check, submission};
use crate::shard::{AppendError, Appended, Shard};

/// Key of the trace context, in request metadata and in metadata of events.
const TRACE: &str = "traceparent";
/// The longest trace context that is kept; the W3C's has 55 bytes.
const TRACE_BYTES_MAX: usize = 128;

impl Api {
    pub(super) async fn handle_append(
        &self,
        request: Request<v1::AppendRequest>,
    ) -> Result<Response<v1::AppendResponse>, Status> {
        let (metadata, _, message) = request.into_parts();
        let within = within(&metadata);
        self.append_within(metadata, within, message).await
    }

    /// Appends, within the time that the caller gives, if it gives any.
    pub(super) async fn append_within(
        &self,
        metadata: MetadataMap,
        within: Option<Duration>,
        mut message: v1::AppendRequest,
    ) -> Result<Response<v1::AppendResponse>, Status> {
        let began = Instant::now();
        let within = within.unwrap_or(self.inner.settings.append_within);
        let deadline = began + with_margin(within);
        let limits = &self.inner.settings.limits;
        let checked = check(&message, limits, self.shard_count())?;
        let _admitted = self.inner.appends.admit(checked.weight)?;
        keep_trace(&metadata, &mut message, limits);
        let shard =
            self.inner.shards.get(&checked.shard).ok_or_else(|| no_shard(checked.shard.0))?;
        check_regions(shard, message.regions)?;
        let leadership = shard.raft().leadership().borrow().clone();
        let leader = leadership.leader.map(|(_, node)| node.api_address);
        let result = match (&leader, leadership.mine) {
            (_, true) => self.append_here(shard, message, hops(&metadata), began, deadline).await,
            (Some(address), false) if !was_forwarded(&metadata) => {
                self.append_there(address, message, hops(&metadata), deadline).await
            }
            (known, false) => {
                Err(not_leader("this node does not lead the shard", known.as_deref()))
            }
        };
        named(result, leader.as_deref())
    }

    async fn append_here(
        &self,
        shard: &Shard,
        mut message: v1::AppendRequest,
        hops: u32,
        began: Instant,
        deadline: Instant,
    ) -> Result<Response<v1::AppendResponse>, Status> {
        let mut asked = Asked::default();
        loop {
            // The sequencer says whether it is at home here, after it has looked for a retry of what this
            // region wrote itself.
            let has_more_to_try =
                (hops < HOPS_MAX && has_home(shard, &message)) || may_ask(&message);
            let again = has_more_to_try.then(|| message.clone());
            match (self.sequence_here(shard, message, began, deadline).await, again) {
                (Err(NotHere::Away(away)), Some(message)) if hops < HOPS_MAX => {
                    return self.append_in_region(shard, &away, message, hops, deadline).await;
                }
                (Err(NotHere::Short(short)), Some(again)) if !again.own_rights_only => {
                    let asking = self.ask_for_rights(shard, &again, &short, &mut asked, deadline);
                    if !asking.await {
                        return Err(asked.refusal(short));
                    }
                    message = again;
                }
                (result, _) => return result.map_err(NotHere::into_status),
            }
        }
    }

    async fn sequence_here(
        &self,
        shard: &Shard,
        message: v1::AppendRequest,
        began: Instant,
        deadline: Instant,
    ) -> Result<Response<v1::AppendResponse>, NotHere> {
        let streams = streams_of(&message);
        let regions = message.regions;
        let asked = Duration::from_millis(message.regions_deadline_ms.into());
        let left = deadline.saturating_duration_since(Instant::now());
        // Before the caller gives up: then it learns what was written.
        let for_regions = left.saturating_sub(left / 10);
        let for_regions = if asked.is_zero() { for_regions } else { asked.min(for_regions) };
        let submission = submission(message)?;
        let leader = self.own_address(shard);
        let describe = |appended: Appended| response(appended, streams, leader);
        let appending = shard.append(submission, regions, for_regions);
        match timeout_at(deadline, appending).await {
            Ok(Ok(appended)) => Ok(Response::new(describe(appended))),
            Ok(Err(error)) => {
                log(&error);
                Err(match error {
                    AppendError::NotHome { stream, home } => NotHere::Away(Away { stream, home }),
                    AppendError::RightsShort { counter, wanted, held } => {
                        NotHere::Short(Short { counter, wanted, held })
                    }
                    error => of_append(error, began.elapsed(), describe).into(),
                })
            }
            Err(_) => Err(unknown("no outcome before the deadline", began.elapsed()).into()),
        }
    }

    async fn append_there(
        &self,
        address: &str,
        message: v1::AppendRequest,
        hops: u32,
        deadline: Instant,
    ) -> Result<Response<v1::AppendResponse>, Status> {
        let channel = self.inner.leaders.channel(address)?;
        let bytes_max = self.inner.settings.limits.message_bytes();
        let mut leader = EventsClient::new(channel)
            .max_decoding_message_size(bytes_max)
            .max_encoding_message_size(bytes_max);
        let began = Instant::now();
        let left = deadline.saturating_duration_since(began);
        let mut request = passed_on(message, left);
        set_hops(request.metadata_mut(), hops);
        match timeout_at(deadline, leader.append(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(status)) => Err(answer(status, address, began.elapsed())),
            Err(_) => {
                self.inner.leaders.forget(address);
                Err(no_answer(address, left))
            }
        }
    }

    /// This node's own address, as the shard's members know it.
    pub(super) fn own_address(&self, shard: &Shard) -> String {
        let leader = shard.raft().leadership().borrow().leader.clone();
        leader.map(|(_, node)| node.api_address).unwrap_or_default()
    }
}

/// Why an append was not acknowledged here.
enum NotHere {
    /// Another region may.
    Away(Away),
    /// Others may have the rights.
    Short(Short),
    /// Nobody can help.
    Failed(Box<Status>),
}

impl NotHere {
    fn into_status(self) -> Status {
        match self {
            Self::Away(away) => away.refusal(),
            Self::Short(short) => Asked::default().refusal(short),
            Self::Failed(status) => *status,
        }
    }
}

impl From<Status> for NotHere {
    fn from(status: Status) -> Self {
        Self::Failed(Box::new(status))
    }
}

fn log(error: &AppendError) {
    match error {
        AppendError::Unknown { .. }
        | AppendError::ClockDoubted(_)
        | AppendError::ClockBehind(_)
        | AppendError::Forgetful(_) => {
            tracing::warn!(%error, "an append failed");
        }
        _ => tracing::debug!(%error, "an append was refused"),
    }
}

pub(super) fn no_shard(shard: u16) -> Status {
    invalid("shard", &format!("shard {shard} is not on this node"), 0, shard.into())
}

/// The time that the caller gives, if it says.
///
/// Shape: as gRPC has it, up to 8 digits and a unit.
pub(super) fn within(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(value * 3600)),
        "M" => Some(Duration::from_secs(value * 60)),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

/// A little less than the caller waits, so that it hears from us what is known.
pub(super) fn with_margin(within: Duration) -> Duration {
    within - (within / 10).min(Duration::from_millis(50))
}

/// Keeps the caller's trace context with its events.
pub(super) fn keep_trace(metadata: &MetadataMap, message: &mut v1::AppendRequest, limits: &Limits) {
    let Some(Ok(trace)) = metadata.get(TRACE).map(|value| value.to_str()) else { return };
    if trace.is_empty() || trace.len() > TRACE_BYTES_MAX {
        return;
    }
    for event in &mut message.events {
        let held: usize = event.metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
        let fits = held + TRACE.len() + trace.len() <= limits.metadata_bytes
            && event.metadata.len() < limits.metadata_entries;
        if fits && !event.metadata.contains_key(TRACE) {
            event.metadata.insert(TRACE.to_owned(), trace.to_owned());
        }
    }
}

/// Whether the append is about a category that has a home, or about its home itself.
fn has_home(shard: &Shard, message: &v1::AppendRequest) -> bool {
    shard.state().region(|region| {
        let homes = region.homes();
        let has_home = |stream: &str| is_of_classes(stream) || homes.of(stream).is_some();
        !homes.is_empty()
            && (message.events.iter().any(|event| has_home(&event.stream))
                || message.expectations.iter().any(|on| has_home(&on.stream)))
    })
}

fn check_regions(shard: &Shard, regions: u32) -> Result<(), Status> {
    let members = shard.state().region(|region| region.members().len()) as u64;
    if members > 0 && u64::from(regions) > members {
        let problem = format!("is {regions}, there are {members} regions");
        return Err(invalid("regions", &problem, members, regions.into()));
    }
    Ok(())
}

/// Names of the streams written to, in the order in which the request first names them.
fn streams_of(message: &v1::AppendRequest) -> Vec<String> {
    let mut known = std::collections::BTreeSet::new();
    let first = message.events.iter().filter(|event| known.insert(&*event.stream));
    first.map(|event| event.stream.clone()).collect()
}

fn response(appended: Appended, streams: Vec<String>, leader: String) -> v1::AppendResponse {
    let receipt = &appended.receipt;
    let first = Dot { origin: receipt.origin.clone(), seq: receipt.first };
    let revisions = streams.into_iter().zip(receipt.last_revisions.iter());
    let revision = |(stream, last_revision): (String, &u64)| v1::StreamRevision {
        stream,
        last_revision: *last_revision,
    };
    v1::AppendResponse {
        first: Some((&first).into()),
        events: receipt.events,
        position: receipt.position,
        stamp: receipt.stamp.0,
        revisions: revisions.map(revision).collect(),
        session_token: appended.token.encode(),
        repeated: appended.repeated,
        regions: appended.regions,
        leader,
    }
}

fn named<T>(
    result: Result<Response<T>, Status>,
    leader: Option<&str>,
) -> Result<Response<T>, Status> {
    let Some(leader) = leader else { return result };
    let name = |metadata: &mut MetadataMap| {
        if !metadata.contains_key(LEADER) {
            name_leader(metadata, leader);
        }
    };
    match result {
        Ok(mut response) => {
            name(response.metadata_mut());
            Ok(response)
        }
        Err(mut status) => {
            name(status.metadata_mut());
            Err(status)
        }
    }
}
