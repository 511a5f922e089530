//! Read: from the wire to the reader, and its frames back.

use std::time::Duration;

use anabranch_core::limits::{
    FILTER_ENTRIES, HEARTBEAT_DEFAULT, HEARTBEAT_MIN, SESSION_WAIT_DEFAULT,
};
use anabranch_core::{Cursor, SessionToken};
use anabranch_proto::convert::{Place, Problem, invalid, read_order, recorded_event};
use anabranch_proto::v1;
use anabranch_proto::v1::read_request::{From as WireFrom, Target as WireTarget};
use anabranch_proto::v1::read_response::{
    Batch, CaughtUp, FellBehind, Frame as WireFrame, Heartbeat,
};
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};
use tonic::{Response, Status};

use super::admission::Admitted;
use super::append::no_shard;
use super::concurrency::Annotating;
use super::refusal::of_read;
use super::{Api, of_shard};
use crate::read::{Content, Delivered, Direction, Filter, Frame, From, Reader, Run, Spec, Target};
use crate::shard::{Shard, ShardState};

/// Frames on their way to a caller.
pub(super) type Frames = BoxStream<'static, Result<v1::ReadResponse, Status>>;

impl Api {
    pub(super) async fn handle_read(
        &self,
        request: v1::ReadRequest,
    ) -> Result<Response<Frames>, Status> {
        let with_conflicts = request.with_conflicts;
        let mut spec = self.spec(request)?;
        spec.runs &= !with_conflicts;
        let annotating = with_conflicts.then_some(Annotating {
            order: spec.order,
            within: spec.session_wait.max(SESSION_WAIT_DEFAULT),
        });
        let admitted = self.inner.reads.admit(1)?;
        let shard = self.shard_of_target(&spec.target)?.clone();
        spec.session = of_shard(&spec.session, shard.id());
        if let From::Cursor(cursor) = &mut spec.from {
            cursor.context = of_shard(&cursor.context, shard.id());
        }
        let view = std::sync::Arc::clone(shard.state());
        let tuning = self.inner.settings.reading.clone();
        let reader = Reader::open(view, spec, tuning).await.map_err(of_read)?;
        Ok(Response::new(self.frames(reader, shard, admitted, annotating)))
    }

    /// Pulls frames as the caller takes them; dropped, the reader is gone.
    fn frames(
        &self,
        reader: Reader<ShardState>,
        shard: Shard,
        admitted: Admitted,
        annotating: Option<Annotating>,
    ) -> Frames {
        let stopping = self.inner.stopping.clone();
        // The shard and the admission live as long as the read.
        let open = Some((reader, shard, admitted));
        stream::unfold(open, move |open| {
            let stopping = stopping.clone();
            async move {
                let (mut reader, shard, admitted) = open?;
                let next = tokio::select! {
                    biased;
                    () = stopping.cancelled() => {
                        return Some((Err(Status::unavailable("the node is shutting down")), None));
                    }
                    next = reader.next() => next,
                };
                match next {
                    Ok(Some(frame)) => match answer(frame, &shard, annotating).await {
                        Ok(answer) => Some((Ok(answer), Some((reader, shard, admitted)))),
                        Err(status) => Some((Err(status), None)),
                    },
                    Ok(None) => None,
                    Err(error) => Some((Err(of_read(error)), None)),
                }
            }
        })
        .boxed()
    }

    fn shard_of_target(&self, target: &Target) -> Result<&Shard, Status> {
        let shards = &self.inner.shards;
        let found = match target {
            Target::Stream(stream) => self.shard_for(stream),
            Target::Category(_) | Target::All if shards.len() == 1 => shards.values().next(),
            Target::Category(_) | Target::All => {
                let problem = "one read does not span shards, and this region has several";
                return Err(invalid("target", problem, 1, shards.len() as u64));
            }
        };
        found.ok_or_else(|| no_shard(self.shard_count()))
    }

    fn spec(&self, request: v1::ReadRequest) -> Result<Spec, Status> {
        let target = match request.target {
            None => return Err(Problem::Missing.of("target").into()),
            Some(WireTarget::Stream(stream)) => Target::Stream(self.name("stream", stream)?),
            Some(WireTarget::Category(name)) => Target::Category(self.name("category", name)?),
            Some(WireTarget::All(_)) => Target::All,
        };
        let direction = match v1::Direction::try_from(request.direction) {
            Ok(v1::Direction::Backwards) => Direction::Backwards,
            Ok(_) => Direction::Forwards,
            Err(_) => {
                let value = request.direction;
                return Err(Problem::UnknownValue { value }.of("direction").into());
            }
        };
        let session = session_token(request.session_token)?;
        let heartbeat = match request.heartbeat_ms {
            0 => HEARTBEAT_DEFAULT,
            ms => Duration::from_millis(ms.into()).max(HEARTBEAT_MIN),
        };
        let spec = Spec {
            target,
            order: read_order("order", request.order)?,
            direction,
            from: from(request.from, direction)?,
            max_events: Some(request.max_events).filter(|events| *events > 0),
            follow: request.follow,
            filter: self.filter(request.filter.unwrap_or_default())?,
            session: session.context,
            session_wait: self.session_wait(request.session_deadline_ms),
            runs: request.runs,
            heartbeat,
        };
        spec.check().map_err(of_read)?;
        Ok(spec)
    }

    /// How long to wait for a session, if the caller asks for so much.
    pub(super) fn session_wait(&self, ms: u32) -> Duration {
        let wait = match ms {
            0 => SESSION_WAIT_DEFAULT,
            ms => Duration::from_millis(ms.into()),
        };
        wait.min(self.inner.settings.session_wait_max)
    }

    pub(super) fn name(&self, field: &str, name: String) -> Result<String, Status> {
        let limit = self.inner.settings.limits.name_bytes;
        match name.len() {
            0 => Err(invalid(field, "is empty", 0, 0)),
            bytes if bytes > limit => {
                let problem = format!("has {bytes} bytes, at most {limit} are allowed");
                Err(invalid(field, &problem, limit as u64, bytes as u64))
            }
            _ => Ok(name),
        }
    }

    fn filter(&self, filter: v1::Filter) -> Result<Filter, Status> {
        let check = |field: &str, list: Vec<String>| {
            if list.len() > FILTER_ENTRIES {
                let (limit, actual) = (FILTER_ENTRIES as u64, list.len() as u64);
                let problem = format!("has {actual} entries, at most {limit} are allowed");
                return Err(invalid(field, &problem, limit, actual));
            }
            list.into_iter().map(|name| self.name(field, name)).collect()
        };
        Ok(Filter {
            types: check("filter.types", filter.types)?,
            stream_prefixes: check("filter.stream_prefixes", filter.stream_prefixes)?,
        })
    }
}

/// What a caller has seen; nothing unless it says so.
pub(super) fn session_token(token: bytes::Bytes) -> Result<SessionToken, Status> {
    match token.is_empty() {
        true => Ok(SessionToken::default()),
        false => SessionToken::decode(token)
            .map_err(|error| invalid("session_token", &error.to_string(), 0, 0)),
    }
}

fn from(wire: Option<WireFrom>, direction: Direction) -> Result<From, Status> {
    Ok(match (wire, direction) {
        (None, Direction::Forwards) | (Some(WireFrom::Start(_)), _) => From::Start,
        (None, Direction::Backwards) | (Some(WireFrom::End(_)), _) => From::End,
        (Some(WireFrom::Revision(revision)), _) => From::Revision(revision),
        (Some(WireFrom::Position(position)), _) => From::Position(position),
        (Some(WireFrom::UnixMs(unix_ms)), _) => From::UnixMs(unix_ms),
        (Some(WireFrom::Cursor(bytes)), _) => {
            let cursor = Cursor::decode(bytes);
            From::Cursor(cursor.map_err(|error| invalid("cursor", &error.to_string(), 0, 0))?)
        }
    })
}

async fn answer(
    frame: Frame,
    shard: &Shard,
    annotating: Option<Annotating>,
) -> Result<v1::ReadResponse, Status> {
    let concurrency = match (&frame.content, annotating) {
        (Content::Batch(events), Some(annotating)) => annotating.concurrency(shard, events).await?,
        _ => Vec::new(),
    };
    let mut response = response(frame);
    if let Some(WireFrame::Batch(batch)) = &mut response.frame {
        for (event, concurrency) in batch.events.iter_mut().zip(concurrency) {
            event.concurrency = concurrency;
        }
    }
    Ok(response)
}

fn response(frame: Frame) -> v1::ReadResponse {
    let content = match frame.content {
        Content::Batch(events) => {
            let events = events.iter().map(recorded).collect();
            WireFrame::Batch(Batch { events, ..Batch::default() })
        }
        Content::Runs(runs) => {
            let runs = runs.iter().map(run).collect();
            WireFrame::Batch(Batch { runs, ..Batch::default() })
        }
        Content::CaughtUp => WireFrame::CaughtUp(CaughtUp {}),
        Content::FellBehind => WireFrame::FellBehind(FellBehind {}),
        Content::Heartbeat { blocked_by } => WireFrame::Heartbeat(Heartbeat { blocked_by }),
    };
    v1::ReadResponse {
        frame: Some(content),
        cursor: frame.cursor.map(|cursor| cursor.encode()).unwrap_or_default(),
        session_token: frame.token.encode(),
    }
}

fn run(run: &Run) -> v1::read_response::Run {
    v1::read_response::Run {
        group: run.slice.group().encoded().clone(),
        skipped: run.slice.range.start as u32,
        position: run.position,
        revisions: run.slice.revisions().to_vec(),
    }
}

fn recorded(delivered: &Delivered) -> v1::RecordedEvent {
    let event = &delivered.event;
    let place = delivered.global_position.map_or(Place::Regional(event.position), Place::Global);
    recorded_event(event.origin(), event.stamp(), &event.event, event.revision, place)
}
