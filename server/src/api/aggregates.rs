//! The service `anabranch.v1.Aggregates`.

use std::time::Duration;

use anabranch_core::aggregate::{
    Action, Definition, EVENT_TYPE, Kind, OPERATIONS, Operation, Operations,
};
use anabranch_core::event::category;
use anabranch_core::limits::SESSION_WAIT_DEFAULT;
use anabranch_core::rights;
use anabranch_core::{Context, SessionToken};
use anabranch_proto::convert::{self, Problem, invalid};
use anabranch_proto::v1;
use anabranch_proto::v1::aggregates_server::Aggregates as Service;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};
use serde_json::{Value as Json, json};
use tokio::time::Instant;
use tonic::{Code, Request, Response, Status};

use super::conditions::Conditions;
use super::declare::declaring;
use super::page::page_size;
use super::read::session_token;
use super::refusal::of_aggregate;
use super::{Api, of_shard};
use crate::aggregates::{AggregateError, Aggregates, Shown};
use crate::shard::{Shard, ShardState};

/// Aggregates read at once.
const READ_AT_ONCE: usize = 200;
/// Aggregates looked at for one page.
const LOOKED_AT_MAX: usize = 10_000;
/// Pause between two looks of a watch: what changes faster comes as one.
const WATCH_EVERY: Duration = Duration::from_millis(20);
/// How often an aggregate is read again because events of its stream came in meanwhile.
const TOKEN_TRIES: u32 = 8;

#[tonic::async_trait]
impl Service for Api {
    type WatchStream = BoxStream<'static, Result<v1::Aggregate, Status>>;

    async fn define(
        &self,
        request: Request<v1::DefineRequest>,
    ) -> Result<Response<v1::DefineResponse>, Status> {
        let (metadata, extensions, message) = request.into_parts();
        let json: Json = serde_json::from_slice(&message.definition)
            .map_err(|error| invalid("definition", &format!("is no JSON: {error}"), 0, 0))?;
        let definition = Definition::from_json(&json)
            .map_err(|error| invalid("definition", &error.to_string(), 0, 0))?;
        let shard = self.only_shard()?;
        let known = shard.aggregates().newest(&definition.category, soon()).await;
        let known = known.map_err(refused)?;
        let mut response = v1::DefineResponse {
            category: definition.category.clone(),
            version: definition.version,
            ..v1::DefineResponse::default()
        };
        if let Some(known) = known {
            if *known == definition {
                response.repeated = true;
                return Ok(Response::new(response));
            }
            check_version(&known, &definition)?;
        }
        let append = declaring(shard, &definition);
        let appended =
            self.handle_append(Request::from_parts(metadata, extensions, append)).await?;
        let appended = appended.into_inner();
        (response.dot, response.session_token) = (appended.first, appended.session_token);
        Ok(Response::new(response))
    }

    async fn definitions(
        &self,
        request: Request<v1::DefinitionsRequest>,
    ) -> Result<Response<v1::DefinitionsResponse>, Status> {
        let wanted = request.into_inner().category;
        let mut response = v1::DefinitionsResponse::default();
        for shard in self.inner.shards.values() {
            response.position += shard.state().region(|region| region.position());
            for standing in shard.aggregates().standings() {
                if !wanted.is_empty() && wanted != standing.definition.category {
                    continue;
                }
                response.definitions.push(v1::DefinitionStanding {
                    definition: standing.definition.to_json().to_string().into(),
                    serving: standing.serving,
                    position: standing.position,
                    events: standing.tally.events,
                    bad_events: standing.tally.bad,
                    last_bad_event: standing.tally.last_bad,
                    settled: standing.settled.map(|settled| v1::SettledStanding {
                        position: settled.position,
                        events: settled.tally.events,
                        bad_events: settled.tally.bad,
                        last_bad_event: settled.tally.last_bad,
                    }),
                });
            }
        }
        Ok(Response::new(response))
    }

    async fn prepare(
        &self,
        request: Request<v1::PrepareRequest>,
    ) -> Result<Response<v1::PrepareResponse>, Status> {
        let event = self.operations_event(request.into_inner()).await?;
        Ok(Response::new(v1::PrepareResponse { event: Some(event) }))
    }

    async fn operate(
        &self,
        request: Request<v1::OperateRequest>,
    ) -> Result<Response<v1::AppendResponse>, Status> {
        let (metadata, extensions, message) = request.into_parts();
        let operations = message.operations.ok_or_else(|| Problem::Missing.of("operations"))?;
        let mut event = self.operations_event(operations).await?;
        event.id = message.id;
        let append = v1::AppendRequest {
            events: vec![event],
            regions: message.regions,
            regions_deadline_ms: message.regions_deadline_ms,
            own_rights_only: message.own_rights_only,
            ..v1::AppendRequest::default()
        };
        self.handle_append(Request::from_parts(metadata, extensions, append)).await
    }

    async fn get(
        &self,
        request: Request<v1::GetAggregateRequest>,
    ) -> Result<Response<v1::Aggregate>, Status> {
        let _admitted = self.inner.reads.admit(1)?;
        let reading = self.reading(request.into_inner())?;
        Ok(Response::new(reading.get().await?))
    }

    async fn watch(
        &self,
        request: Request<v1::GetAggregateRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let admitted = self.inner.reads.admit(1)?;
        let reading = self.reading(request.into_inner())?;
        let stopping = self.inner.stopping.clone();
        let moved = reading.shard.aggregates().moved();
        // The admission lives as long as the watch.
        let open = Some((reading, moved, None::<v1::Aggregate>, admitted));
        let watch = stream::unfold(open, move |open| {
            let stopping = stopping.clone();
            async move {
                let (reading, mut moved, told, admitted) = open?;
                loop {
                    moved.borrow_and_update();
                    let now = tokio::select! {
                        biased;
                        () = stopping.cancelled() => {
                            return Some((Err(Status::unavailable("the node is shutting down")), None));
                        }
                        now = reading.get() => now,
                    };
                    let same = |told: &v1::Aggregate, now: &v1::Aggregate| {
                        told.value == now.value
                            && told.events == now.events
                            && told.version == now.version
                    };
                    match now {
                        Ok(now) if told.as_ref().is_some_and(|told| same(told, &now)) => {}
                        Ok(now) => {
                            let told = Some(now.clone());
                            return Some((Ok(now), Some((reading, moved, told, admitted))));
                        }
                        Err(status) => return Some((Err(status), None)),
                    }
                    tokio::select! {
                        biased;
                        () = stopping.cancelled() => {}
                        changed = moved.changed() => {
                            changed.ok()?;
                            tokio::time::sleep(WATCH_EVERY).await;
                        }
                    }
                }
            }
        });
        Ok(Response::new(watch.boxed()))
    }

    async fn query(
        &self,
        request: Request<v1::QueryRequest>,
    ) -> Result<Response<v1::QueryResponse>, Status> {
        let _admitted = self.inner.reads.admit(1)?;
        let request = request.into_inner();
        let shard = self.only_shard()?;
        let limit = page_size(request.limit)?;
        let session = session(request.session_token, shard)?;
        let deadline = Instant::now() + self.session_wait(request.deadline_ms);
        let aggregates = shard.aggregates();
        let definition = aggregates.newest(&request.category, deadline).await.map_err(refused)?;
        let definition = definition.ok_or_else(|| no_definition(&request.category))?;
        let conditions = Conditions::read(&request.conditions, &definition)?;
        let mut response = v1::QueryResponse::default();
        let mut after = Some(request.after).filter(|after| !after.is_empty());
        let mut looked_at = 0;
        loop {
            let page = aggregates
                .page(&request.category, after.clone(), READ_AT_ONCE, &session, deadline)
                .await
                .map_err(refused)?;
            let full = page.len() == READ_AT_ONCE;
            for shown in page {
                looked_at += 1;
                let enough = response.aggregates.len() == limit || looked_at > LOOKED_AT_MAX;
                if enough {
                    response.next = after.unwrap_or_default();
                    response.session_token = token(&session, aggregates);
                    return Ok(Response::new(response));
                }
                after = Some(shown.stream.clone());
                if conditions.hold(&shown.value) {
                    response.aggregates.push(wire(shown));
                }
            }
            if !full {
                response.session_token = token(&session, aggregates);
                return Ok(Response::new(response));
            }
        }
    }
}

impl Api {
    pub(super) fn only_shard(&self) -> Result<&Shard, Status> {
        match (self.inner.shards.len(), self.inner.shards.values().next()) {
            (1, Some(shard)) => Ok(shard),
            (shards, _) => {
                let problem = "one definition does not span shards, and this region has several";
                Err(invalid("category", problem, 1, shards as u64))
            }
        }
    }

    fn reading(&self, request: v1::GetAggregateRequest) -> Result<Reading, Status> {
        let stream = self.name("stream", request.stream)?;
        let shard = self.only_shard()?.clone();
        let session = session(request.session_token, &shard)?;
        let within = self.session_wait(request.deadline_ms);
        Ok(Reading { shard, stream, session, within, is_final: request.r#final })
    }

    /// The event that carries operations, checked against the definition.
    async fn operations_event(&self, request: v1::PrepareRequest) -> Result<v1::NewEvent, Status> {
        let stream = self.name("stream", request.stream)?;
        let shard = self.only_shard()?;
        let aggregates = shard.aggregates();
        let deadline = Instant::now() + self.session_wait(request.deadline_ms);
        let mut known = session(request.session_token, shard)?;
        let observed = match request.observed.is_empty() {
            true => None,
            false => Some(session(request.observed, shard)?),
        };
        observed.iter().for_each(|observed| known.merge(observed));
        aggregates.await_context(&known, deadline).await.map_err(refused)?;
        let name = category(&stream);
        let definition = aggregates.newest(name, deadline).await.map_err(refused)?;
        let definition = definition.ok_or_else(|| no_definition(name))?;
        let count = request.operations.len();
        if count == 0 || count > OPERATIONS {
            let problem = format!("has {count} operations instead of 1 to {OPERATIONS}");
            return Err(invalid("operations", &problem, OPERATIONS as u64, count as u64));
        }
        let mut operations = Vec::with_capacity(count);
        for (nth, text) in request.operations.iter().enumerate() {
            let field = format!("operations[{nth}]");
            let wrong = |problem: &str| invalid(&field, problem, 0, 0);
            let mut json: Json = serde_json::from_str(text)
                .map_err(|error| wrong(&format!("is no JSON: {error}")))?;
            place_in_list(aggregates, &definition, &stream, &mut json).await.map_err(|status| {
                if status.code() == Code::InvalidArgument {
                    wrong(status.message())
                } else {
                    status
                }
            })?;
            let operation = Operation::from_json(&json).map_err(|problem| wrong(&problem))?;
            let operation = as_right(operation, &definition).map_err(|problem| wrong(&problem))?;
            operation.check(&definition).map_err(|error| wrong(&error.to_string()))?;
            operations.push(operation);
        }
        let of_rights = operations.iter().filter(|operation| operation.action.is_about_rights());
        let r#type = match of_rights.count() {
            0 => EVENT_TYPE.to_owned(),
            rights if rights == operations.len() => rights::EVENT_TYPE.to_owned(),
            _ => {
                let problem = "change a bounded counter and other fields; send these by themselves";
                return Err(invalid("operations", problem, 0, 0));
            }
        };
        let payload = Operations { operations, observed }.to_json();
        Ok(v1::NewEvent { stream, r#type, payload: payload.into(), ..v1::NewEvent::default() })
    }
}

/// What an increment means to a bounded counter.
fn as_right(operation: Operation, definition: &Definition) -> Result<Operation, String> {
    let bounded = definition.fields.get(&operation.field) == Some(&Kind::BoundedCounter);
    let action = match operation.action {
        Action::Increment(i64::MIN) if bounded => return Err("by is out of range".to_owned()),
        Action::Increment(by) if bounded && by < 0 => Action::Spend(by.unsigned_abs()),
        Action::Increment(by) if bounded => Action::Earn(by.unsigned_abs()),
        other => other,
    };
    Ok(Operation { action, ..operation })
}

/// A read of one aggregate, now or again and again.
struct Reading {
    shard: Shard,
    stream: String,
    session: Context,
    within: Duration,
    is_final: bool,
}

impl Reading {
    async fn get(&self) -> Result<v1::Aggregate, Status> {
        let deadline = Instant::now() + self.within;
        match self.is_final {
            true => self.get_final(deadline).await,
            false => self.get_now(deadline).await,
        }
    }

    async fn get_now(&self, deadline: Instant) -> Result<v1::Aggregate, Status> {
        let aggregates = self.shard.aggregates();
        let mut tries = TOKEN_TRIES;
        loop {
            let shown = aggregates.get(&self.stream, &self.session, deadline).await;
            let mut wire = wire(shown.map_err(refused)?);
            // A token with more of the stream than is shown would let its holder take back what it has
            // not seen.
            let (seen, events) = self.shard.state().region(|region| {
                let events = region.stream(&self.stream).map_or(0, |head| head.next_revision);
                (region.frontier().clone(), events)
            });
            tries -= 1;
            if events == wire.events || tries == 0 {
                wire.session_token = SessionToken { context: seen }.encode();
                return Ok(wire);
            }
        }
    }

    async fn get_final(&self, deadline: Instant) -> Result<v1::Aggregate, Status> {
        let cut = self.shard.state().order().cut;
        let shown = self.shard.aggregates().get_at(&self.stream, &cut, deadline).await;
        let mut wire = wire(shown.map_err(refused)?);
        wire.cut = Some((&cut).into());
        wire.session_token = SessionToken { context: cut }.encode();
        Ok(wire)
    }
}

/// Says where in a list an operation strikes, if it says so by a number, as the list is here now.
async fn place_in_list(
    aggregates: &Aggregates<ShardState>,
    definition: &Definition,
    stream: &str,
    operation: &mut Json,
) -> Result<(), Status> {
    let wrong = |problem: &str| invalid("operations", problem, 0, 0);
    let Some(fields) = operation.as_object_mut() else { return Ok(()) };
    let does = fields.get("do").and_then(Json::as_str).map(str::to_owned);
    let inserts = does.as_deref() == Some("insert");
    let at = fields.remove("at");
    let placed = fields.contains_key("after") || fields.contains_key("before");
    if at.is_none() && (!inserts || placed) {
        return Ok(());
    }
    let name = fields.get("field").and_then(Json::as_str).unwrap_or_default().to_owned();
    if !definition.fields.contains_key(&name) {
        // What is wrong with it is found where operations are checked.
        return Ok(());
    }
    let shown = aggregates.get(stream, &Context::new(), soon()).await.map_err(refused)?;
    let value = shown.value.get(&name).cloned().unwrap_or_default();
    let value = match fields.get("key").and_then(Json::as_str) {
        Some(key) => value.get(key).cloned().unwrap_or_else(|| json!([])),
        None => value,
    };
    let Some(list) = value.as_array() else { return Ok(()) };
    let id = |at: usize| list.get(at).and_then(|element| element.get("id")).cloned();
    let at = match &at {
        None => list.len(),
        Some(at) => {
            let at = at.as_u64().and_then(|at| usize::try_from(at).ok());
            let last = if inserts { list.len() } else { list.len().saturating_sub(1) };
            let range = format!("at is not a place in the list, which has {}", list.len());
            at.filter(|at| *at <= last && (inserts || !list.is_empty()))
                .ok_or_else(|| wrong(&range))?
        }
    };
    match does.as_deref() {
        Some("insert") => {
            let (after, before) = (at.checked_sub(1).and_then(id), id(at));
            after.and_then(|id| fields.insert("after".into(), id));
            before.and_then(|id| fields.insert("before".into(), id));
        }
        Some("delete") => {
            if let Some(id) = id(at) {
                fields.insert("element".into(), id);
            }
        }
        _ => return Err(wrong("at is for insert and delete")),
    }
    Ok(())
}

/// A definition that changes needs a higher version.
fn check_version(known: &Definition, wanted: &Definition) -> Result<(), Status> {
    if wanted.version > known.version {
        return Ok(());
    }
    let changed = known.fields.keys().filter_map(|name| {
        let old = known.type_of(name)?;
        match wanted.type_of(name) {
            Some(new) if new != old => Some(format!("fields.{name} was {old} and would be {new}")),
            Some(_) => None,
            None => Some(format!("fields.{name} would be gone")),
        }
    });
    let changed: Vec<_> = changed.collect();
    let what =
        if changed.is_empty() { "it says something else".into() } else { changed.join(", ") };
    let problem = format!(
        "is {}, and version {} of {} is there: {what}. A change needs version {} or higher; its \
         aggregates are built anew from the events",
        wanted.version,
        known.version,
        known.category,
        known.version + 1
    );
    let (limit, actual) = (known.version.into(), wanted.version.into());
    let (code, field) = (Code::FailedPrecondition, "definition.version");
    Err(convert::invalid_as(code, field, &problem, limit, actual))
}

fn no_definition(category: &str) -> Status {
    let category = category.to_owned();
    refused(AggregateError::NoDefinition { category })
}

fn soon() -> Instant {
    Instant::now() + SESSION_WAIT_DEFAULT
}

fn session(token: bytes::Bytes, shard: &Shard) -> Result<Context, Status> {
    Ok(of_shard(&session_token(token)?.context, shard.id()))
}

/// What the reader may have seen: everything that is here now.
fn token(session: &Context, aggregates: &Aggregates<ShardState>) -> bytes::Bytes {
    let mut context = aggregates.seen();
    context.merge(session);
    SessionToken { context }.encode()
}

fn wire(shown: Shown) -> v1::Aggregate {
    v1::Aggregate {
        stream: shown.stream,
        version: shown.version,
        value: Json::Object(shown.value).to_string().into(),
        events: shown.events,
        bad_events: shown.bad,
        ordered: shown.ordered.map(|ordered| v1::OrderedCounts {
            settled_events: ordered.settled_events,
            settled_bad_events: ordered.settled_bad,
            tentative_events: ordered.tentative_events,
            tentative_bad_events: ordered.tentative_bad,
        }),
        ..v1::Aggregate::default()
    }
}

fn refused(error: AggregateError) -> Status {
    of_aggregate(error, Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(version: u32, fields: Json) -> Definition {
        Definition::from_json(&json!({ "category": "c", "version": version, "fields": fields }))
            .unwrap()
    }

    #[test]
    fn a_change_needs_a_higher_version_and_says_what_changes() {
        let known = definition(2, json!({ "n": "pn-counter", "m": "max" }));
        assert!(check_version(&known, &definition(3, json!({ "n": "g-counter" }))).is_ok());
        let status =
            check_version(&known, &definition(2, json!({ "n": "g-counter" }))).unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition);
        let text = status.message();
        assert!(
            text.contains("fields.m would be gone, fields.n was pn-counter and would be g-counter"),
            "{text}"
        );
        assert!(text.contains("needs version 3"), "{text}");
    }
}
