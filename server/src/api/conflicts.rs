//! The service `anabranch.v1.Conflicts`.

use std::time::Duration;

use anabranch_core::conflict::{Declaration, Policy, RESOLVED, Resolution};
use anabranch_core::limits::{HEARTBEAT_DEFAULT, HEARTBEAT_MIN, SESSION_WAIT_DEFAULT};
use anabranch_core::{Context, Cursor, Dot, ReadOrder, RegionName, SessionToken};
use anabranch_proto::convert::{self, Problem, invalid, read_order};
use anabranch_proto::v1;
use anabranch_proto::v1::conflicts_server::Conflicts as Service;
use anabranch_proto::v1::refusal::{Invalid, Reason};
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};
use tokio::time::{Instant, timeout};
use tonic::{Code, Request, Response, Status};

use super::declare::declaring;
use super::page::{PAGE_DEFAULT, page_size};
use super::read::session_token;
use super::refusal::of_conflict;
use super::{Api, of_shard};
use crate::conflicts::{Page, Query, Shown};
use crate::env::blocking;
use crate::read::Target;
use crate::shard::Shard;

#[tonic::async_trait]
impl Service for Api {
    type SubscribeStream = BoxStream<'static, Result<v1::ListConflictsResponse, Status>>;

    async fn list(
        &self,
        request: Request<v1::ListConflictsRequest>,
    ) -> Result<Response<v1::ListConflictsResponse>, Status> {
        let _admitted = self.inner.reads.admit(1)?;
        let request = request.into_inner();
        let shard = self.shard_of_conflicts()?;
        let query = Query {
            target: self.whose(request.category, request.stream)?,
            order: read_order("order", request.order)?,
            after: cursor(request.after, request.order, shard)?,
            from: None,
            of_any_region: false,
            open_only: request.open_only,
            limit: page_size(request.limit)?,
            session: of_shard(&session_token(request.session_token)?.context, shard.id()),
        };
        let within = self.session_wait(request.deadline_ms);
        let page = shard.conflicts().page(&query, Instant::now() + within).await;
        let page = page.map_err(|error| of_conflict(error, within))?;
        Ok(Response::new(wire(page, &query.session)))
    }

    async fn subscribe(
        &self,
        request: Request<v1::SubscribeConflictsRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let admitted = self.inner.reads.admit(1)?;
        let request = request.into_inner();
        let shard = self.shard_of_conflicts()?.clone();
        let order = read_order("order", request.order)?;
        let mut after = cursor(request.after, request.order, &shard)?;
        if request.from_now {
            if after.is_some() {
                return Err(invalid("from_now", "is not for a subscription with a cursor", 0, 0));
            }
            after = Some(shard.conflicts().now(order));
        }
        let query = Query {
            target: self.whose(request.category, request.stream)?,
            order,
            after,
            from: None,
            of_any_region: true,
            open_only: request.open_only,
            limit: PAGE_DEFAULT,
            session: of_shard(&session_token(request.session_token)?.context, shard.id()),
        };
        let heartbeat = match request.heartbeat_ms {
            0 => HEARTBEAT_DEFAULT,
            ms => Duration::from_millis(ms.into()).max(HEARTBEAT_MIN),
        };
        let within = self.session_wait(request.deadline_ms);
        let moved = shard.conflicts().moved(order);
        let feed = Feed { shard, query, within, heartbeat, moved, spoke: None };
        let stopping = self.inner.stopping.clone();
        // The admission lives as long as the subscription.
        let frames = stream::unfold(Some((feed, admitted)), move |open| {
            let stopping = stopping.clone();
            async move {
                let (mut feed, admitted) = open?;
                let next = tokio::select! {
                    biased;
                    () = stopping.cancelled() => Err(Status::unavailable("the node is shutting down")),
                    next = feed.next() => next,
                };
                match next {
                    Ok(frame) => Some((Ok(frame), Some((feed, admitted)))),
                    Err(status) => Some((Err(status), None)),
                }
            }
        });
        Ok(Response::new(frames.boxed()))
    }

    async fn set_policy(
        &self,
        request: Request<v1::SetPolicyRequest>,
    ) -> Result<Response<v1::SetPolicyResponse>, Status> {
        let (metadata, extensions, message) = request.into_parts();
        let category = self.name("category", message.category)?;
        let shard = self.shard_of_conflicts()?;
        let policy = policy(&message.policy, &message.regions)?;
        let members = shard.state().region(|region| region.members().len());
        if members <= 1 {
            let problem = "there is no other region: nothing is concurrent with anything";
            return Err(precondition("category", problem, 2, members as u64));
        }
        let deadline = Instant::now() + SESSION_WAIT_DEFAULT;
        let known = shard.conflicts().overview_now(ReadOrder::Regional, deadline).await;
        let known = known.map_err(|error| of_conflict(error, SESSION_WAIT_DEFAULT))?;
        let known = known.policies.into_iter().find(|known| known.declaration.category == category);
        let known = known.map(|known| known.declaration);
        let (version, repeated) = next_version(known.as_deref(), &policy, message.version)?;
        let mut response = v1::SetPolicyResponse {
            category: category.clone(),
            version,
            repeated,
            ..v1::SetPolicyResponse::default()
        };
        if repeated {
            return Ok(Response::new(response));
        }
        let declaration = Declaration { category, version, policy };
        let append = declaring(shard, &declaration);
        let appended =
            self.handle_append(Request::from_parts(metadata, extensions, append)).await?;
        let appended = appended.into_inner();
        (response.dot, response.session_token) = (appended.first, appended.session_token);
        Ok(Response::new(response))
    }

    async fn policies(
        &self,
        request: Request<v1::PoliciesRequest>,
    ) -> Result<Response<v1::PoliciesResponse>, Status> {
        let request = request.into_inner();
        let order = read_order("order", request.order)?;
        let wanted = |category: &str| request.category.is_empty() || request.category == category;
        let within = self.session_wait(request.deadline_ms);
        let deadline = Instant::now() + within;
        let mut response = v1::PoliciesResponse::default();
        for shard in self.inner.shards.values() {
            let overview = shard.conflicts().overview_now(order, deadline).await;
            let overview = overview.map_err(|error| of_conflict(error, within))?;
            response.position += overview.position;
            let policies = overview.policies.into_iter();
            let policies = policies.filter(|declared| wanted(&declared.declaration.category));
            response.policies.extend(policies.map(|declared| v1::DeclaredPolicy {
                version: declared.declaration.version,
                policy: declared.declaration.policy.name().to_owned(),
                regions: regions(&declared.declaration.policy),
                category: declared.declaration.category.clone(),
                dot: Some((&declared.dot).into()),
                unix_ms: declared.stamp.unix_ms(),
            }));
            let counts = overview.counts.into_iter().filter(|(category, _)| wanted(category));
            response.counts.extend(counts.map(|(category, count)| v1::ConflictCount {
                category,
                conflicts: count.conflicts,
                pairs: count.pairs,
            }));
        }
        Ok(Response::new(response))
    }

    async fn resolve(
        &self,
        request: Request<v1::ResolveRequest>,
    ) -> Result<Response<v1::AppendResponse>, Status> {
        let (metadata, extensions, message) = request.into_parts();
        let stream = self.name("stream", message.stream)?;
        let shard = self.shard_of_conflicts()?;
        let winner = message.winner.ok_or_else(|| Problem::Missing.of("winner"))?;
        let winner = Dot::try_from(winner)?;
        let session = |token| Ok::<_, Status>(of_shard(&session_token(token)?.context, shard.id()));
        let observed = match message.observed.is_empty() {
            true => None,
            false => Some(session(message.observed)?),
        };
        let mut seen = session(message.session_token)?;
        observed.iter().for_each(|observed| seen.merge(observed));
        let within = self.session_wait(message.deadline_ms);
        if let Err(missing) = shard.await_context(&seen, Instant::now() + within).await {
            let error = crate::conflicts::ConflictError::NotCaughtUp { missing };
            return Err(of_conflict(error, within));
        }
        check_winner(shard, &stream, &winner).await?;
        let payload = Resolution { winner, observed }.to_json();
        let append = v1::AppendRequest {
            events: vec![v1::NewEvent {
                stream,
                id: message.id,
                r#type: RESOLVED.to_owned(),
                payload: payload.into(),
                ..v1::NewEvent::default()
            }],
            regions: message.regions,
            regions_deadline_ms: message.regions_deadline_ms,
            ..v1::AppendRequest::default()
        };
        self.handle_append(Request::from_parts(metadata, extensions, append)).await
    }
}

impl Api {
    fn shard_of_conflicts(&self) -> Result<&Shard, Status> {
        match (self.inner.shards.len(), self.inner.shards.values().next()) {
            (1, Some(shard)) => Ok(shard),
            (shards, _) => {
                let problem = "one list does not span shards, and this region has several";
                Err(invalid("category", problem, 1, shards as u64))
            }
        }
    }

    fn whose(&self, category: String, stream: String) -> Result<Target, Status> {
        Ok(match (category.is_empty(), stream.is_empty()) {
            (true, true) => Target::All,
            (false, true) => Target::Category(self.name("category", category)?),
            (true, false) => Target::Stream(self.name("stream", stream)?),
            (false, false) => {
                return Err(invalid("stream", "is given beside a category: one of them", 0, 0));
            }
        })
    }
}

/// A subscription under way.
struct Feed {
    shard: Shard,
    query: Query,
    within: Duration,
    heartbeat: Duration,
    moved: tokio::sync::watch::Receiver<Option<u64>>,
    /// When something was sent last.
    spoke: Option<Instant>,
}

impl Feed {
    async fn next(&mut self) -> Result<v1::ListConflictsResponse, Status> {
        loop {
            // What is found from here on wakes the wait below, also if the page does not show it.
            self.moved.borrow_and_update();
            let page = self.shard.conflicts().page(&self.query, Instant::now() + self.within).await;
            let page = page.map_err(|error| of_conflict(error, self.within))?;
            let session = std::mem::take(&mut self.query.session);
            self.query.after = Some(page.cursor.clone());
            self.query.from = Some(page.next);
            let due = self.spoke.is_none_or(|spoke| spoke.elapsed() >= self.heartbeat);
            if !page.shown.is_empty() || due {
                self.spoke = Some(Instant::now());
                return Ok(wire(page, &session));
            }
            if !page.more {
                let left = self
                    .spoke
                    .map_or(Duration::ZERO, |spoke| self.heartbeat.saturating_sub(spoke.elapsed()));
                let moved = timeout(left, self.moved.changed()).await;
                if matches!(moved, Ok(Err(_))) {
                    return Err(Status::unavailable("the node is shutting down"));
                }
            }
        }
    }
}

/// The version that a policy gets, and whether it counts already. One that changes needs a higher one.
fn next_version(
    known: Option<&Declaration>,
    wanted: &Policy,
    version: u32,
) -> Result<(u32, bool), Status> {
    let Some(known) = known else { return Ok((version.max(1), false)) };
    if known.policy == *wanted && (version == 0 || version == known.version) {
        return Ok((known.version, true));
    }
    let next = if version == 0 { known.version.saturating_add(1) } else { version };
    if next > known.version {
        return Ok((next, false));
    }
    let problem = format!(
        "is {next}, and version {} of {} is there: {}. A change needs a higher one",
        known.version, known.category, known.policy
    );
    Err(precondition("version", &problem, known.version.into(), next.into()))
}

fn precondition(field: &str, problem: &str, limit: u64, actual: u64) -> Status {
    let message = format!("{field}: {problem}");
    let (field, problem) = (field.to_owned(), problem.to_owned());
    let reason = Reason::Invalid(Invalid { field, problem, limit, actual });
    convert::refused(Code::FailedPrecondition, message, reason)
}

/// An event that is not there, or of another stream, would leave the conflict as it is for ever.
async fn check_winner(shard: &Shard, stream: &str, winner: &Dot) -> Result<(), Status> {
    let (state, dot, name) = (shard.state().clone(), winner.clone(), stream.to_owned());
    let held = shard.state().region(|region| region.frontier().covers_dot(winner));
    let of_stream = move || {
        let slices = state.store().read_origin(&dot.origin, dot.seq, 1)?;
        let mut events = slices.iter().flat_map(|slice| slice.group().events());
        Ok(events.any(|event| event.seq == dot.seq && *event.stream == *name))
    };
    let found = match held {
        true => blocking(of_stream).await.map_err(|error| of_conflict(error, Duration::ZERO))?,
        false => false,
    };
    match found {
        true => Ok(()),
        false => {
            Err(Status::not_found(format!("{winner} is no event of {stream} that is held here")))
        }
    }
}

fn policy(name: &str, names: &[String]) -> Result<Policy, Status> {
    let region = |name: &String| {
        RegionName::new(name).map_err(|error| invalid("regions", &error.to_string(), 0, 0))
    };
    let regions = names.iter().map(region).collect::<Result<Vec<_>, _>>()?;
    Policy::named(name, regions).map_err(|error| invalid("policy", &error.to_string(), 0, 0))
}

fn regions(policy: &Policy) -> Vec<String> {
    match policy {
        Policy::RegionPriority(regions) => regions.iter().map(ToString::to_string).collect(),
        _ => Vec::new(),
    }
}

fn cursor(after: Bytes, order: i32, shard: &Shard) -> Result<Option<Cursor>, Status> {
    if after.is_empty() {
        return Ok(None);
    }
    let mut cursor =
        Cursor::decode(after).map_err(|error| invalid("after", &error.to_string(), 0, 0))?;
    if cursor.order != read_order("order", order)? {
        return Err(invalid("after", "a cursor of one order does not go on in the other", 0, 0));
    }
    cursor.context = of_shard(&cursor.context, shard.id());
    Ok(Some(cursor))
}

fn wire(page: Page, session: &Context) -> v1::ListConflictsResponse {
    let mut context = session.clone();
    context.merge(&page.cursor.context);
    for Shown { conflict, .. } in &page.shown {
        // The cursor may be in the middle of a group.
        context.advance(&conflict.events.origin, conflict.events.last);
    }
    v1::ListConflictsResponse {
        conflicts: page.shown.iter().map(conflict_wire).collect(),
        cursor: page.cursor.encode(),
        more: page.more,
        session_token: SessionToken { context }.encode(),
    }
}

fn conflict_wire(shown: &Shown) -> v1::Conflict {
    let conflict = &shown.conflict;
    v1::Conflict {
        id: Bytes::copy_from_slice(&conflict.id().0),
        stream: conflict.stream.to_string(),
        events: Some((&conflict.events).into()),
        against: conflict.against.iter().map(Into::into).collect(),
        pairs: conflict.pairs(),
        position: shown.position,
        policy: shown.policy.name().to_owned(),
        standing: v1::ConflictStanding::from(shown.standing) as i32,
        winner: shown.winner.as_ref().map(Into::into),
        resolved_by: shown.resolved_by.as_ref().map(Into::into),
        cursor: shown.cursor.encode(),
    }
}
