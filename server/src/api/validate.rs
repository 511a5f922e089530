//! What an append must be before it is let in.

use std::collections::BTreeSet;
use std::fmt;

use anabranch_core::event::shard_of;
use anabranch_core::planted::{self, Bug};
use anabranch_core::sequencer::Submission;
use anabranch_core::{Limits, ShardId};
use anabranch_proto::convert::{self, invalid};
use anabranch_proto::v1;
use tonic::Status;

/// What was found out about a request that may be let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Checked {
    /// The shard of all its streams.
    pub(super) shard: ShardId,
    /// Bytes of its events.
    pub(super) bytes: usize,
    /// Bytes of memory that it takes, about.
    pub(super) weight: usize,
}

/// What an event takes in memory besides its texts and payload: its parts, and their allocations.
const EVENT_WEIGHT: usize = 256;
/// The same of a pair of metadata: two texts, and their place in a map that is half full. Keys of two
/// bytes take eighty times as much, so a bound on bytes alone is none.
const ENTRY_WEIGHT: usize = 160;

/// Checks an append against the limits. Every refusal names the field, the limit and what was found.
pub(super) fn check(
    request: &v1::AppendRequest,
    limits: &Limits,
    shards: u16,
) -> Result<Checked, Status> {
    if request.events.is_empty() {
        return Err(invalid("events", "is empty", 0, 0));
    }
    at_most("events", "events", limits.append_events, request.events.len())?;
    let expectations = request.expectations.len();
    at_most("expectations", "expectations", limits.append_streams, expectations)?;
    let mut bytes = 0;
    let mut ids = BTreeSet::new();
    for (nth, event) in request.events.iter().enumerate() {
        bytes += check_event(nth, event, limits)?;
        if !event.id.is_empty() && !ids.insert(&event.id) {
            let field = format!("events[{nth}].id");
            return Err(invalid(&field, "is the id of another event of this append", 0, 0));
        }
    }
    at_most("events", "bytes", limits.append_bytes, bytes)?;
    check_expectations(&request.expectations, limits)?;
    check_producer(request.producer.as_ref())?;
    let shard = check_streams(request, limits, shards)?;
    let entries: usize = request.events.iter().map(|event| event.metadata.len()).sum();
    let weight = bytes + EVENT_WEIGHT * request.events.len() + ENTRY_WEIGHT * entries;
    Ok(Checked { shard, bytes, weight })
}

/// The name of the field is put together only for a refusal: this is asked for every field of every event.
fn at_most(
    field: impl fmt::Display,
    unit: &str,
    limit: usize,
    actual: usize,
) -> Result<(), Status> {
    match actual <= limit {
        true => Ok(()),
        false => {
            let problem = format!("has {actual} {unit}, at most {limit} are allowed");
            Err(invalid(&field.to_string(), &problem, limit as u64, actual as u64))
        }
    }
}

/// Bytes of the event, which is the `nth` of its append.
fn check_event(nth: usize, event: &v1::NewEvent, limits: &Limits) -> Result<usize, Status> {
    check_name(format_args!("events[{nth}].stream"), &event.stream, limits)?;
    check_name(format_args!("events[{nth}].type"), &event.r#type, limits)?;
    if !matches!(event.id.len(), 0 | 16) {
        let problem = format!("has {} bytes instead of 16 or none", event.id.len());
        return Err(invalid(&format!("events[{nth}].id"), &problem, 16, event.id.len() as u64));
    }
    let payload = format_args!("events[{nth}].payload");
    at_most(payload, "bytes", limits.payload_bytes, event.payload.len())?;
    let metadata = format_args!("events[{nth}].metadata");
    let bytes: usize = event.metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
    at_most(metadata, "bytes", limits.metadata_bytes, bytes)?;
    at_most(metadata, "entries", limits.metadata_entries, event.metadata.len())?;
    if event.metadata.keys().any(|key| key.is_empty() || key.chars().any(char::is_control)) {
        let problem = "has a key that is empty or holds a control character";
        return Err(invalid(&metadata.to_string(), problem, 0, 0));
    }
    Ok(event.stream.len() + event.r#type.len() + bytes + event.payload.len())
}

fn check_name(field: impl fmt::Display, name: &str, limits: &Limits) -> Result<(), Status> {
    if name.is_empty() {
        return Err(invalid(&field.to_string(), "is empty", 0, 0));
    }
    let limit = limits.name_bytes + usize::from(planted::is(Bug::LimitOneMore));
    at_most(&field, "bytes", limit, name.len())?;
    match name.chars().position(char::is_control) {
        None => Ok(()),
        Some(at) => {
            let problem = format!("holds a control character, as character {at}");
            Err(invalid(&field.to_string(), &problem, 0, 0))
        }
    }
}

fn check_expectations(expectations: &[v1::Expectation], limits: &Limits) -> Result<(), Status> {
    let mut named = BTreeSet::new();
    for (nth, expectation) in expectations.iter().enumerate() {
        let path = format!("expectations[{nth}]");
        check_name(format_args!("{path}.stream"), &expectation.stream, limits)?;
        if expectation.expected.is_none() {
            return Err(invalid(&format!("{path}.expected"), "is missing", 0, 0));
        }
        if !named.insert(&*expectation.stream) {
            let problem = format!("{} is named twice", expectation.stream);
            return Err(invalid(&format!("{path}.stream"), &problem, 0, 0));
        }
    }
    Ok(())
}

fn check_producer(producer: Option<&v1::Producer>) -> Result<(), Status> {
    let Some(producer) = producer else { return Ok(()) };
    if producer.id.len() != 16 {
        let problem = format!("has {} bytes instead of 16", producer.id.len());
        return Err(invalid("producer.id", &problem, 16, producer.id.len() as u64));
    }
    match producer.sequence {
        0 => Err(invalid("producer.sequence", "is 0, the first is 1", 0, 0)),
        _ => Ok(()),
    }
}

/// The shard of all streams that the request names.
fn check_streams(
    request: &v1::AppendRequest,
    limits: &Limits,
    shards: u16,
) -> Result<ShardId, Status> {
    // Most events of an append are of the stream of the one before.
    let written = request.events.chunk_by(|a, b| a.stream == b.stream);
    let written = written.map(|events| &*events[0].stream);
    let expected = request.expectations.iter().map(|expectation| &*expectation.stream);
    let streams: BTreeSet<&str> = written.chain(expected).collect();
    at_most("events", "streams", limits.append_streams, streams.len())?;
    let mut found: Option<(ShardId, &str)> = None;
    for stream in streams {
        let shard = shard_of(stream, shards);
        match found {
            Some((known, other)) if known != shard => {
                let problem = format!(
                    "name streams of several shards: {other} is in shard {known}, {stream} in {shard}"
                );
                return Err(invalid("events", &problem, 0, 0));
            }
            _ => found = Some((shard, stream)),
        }
    }
    Ok(found.map_or(ShardId(0), |(shard, _)| shard))
}

/// What the sequencer decides about, without copying payloads.
pub(super) fn submission(request: v1::AppendRequest) -> Result<Submission, Status> {
    let v1::AppendRequest { events, expectations, producer, .. } = request;
    let request = convert::request(events, producer)?;
    let expectations =
        expectations.into_iter().map(|wire| Ok(wire.try_into()?)).collect::<Result<_, Status>>()?;
    Ok(Submission { request, expectations })
}
