//! Frames from the server, over as many connections as it takes.
//!
//! A feed knows where it is at the end of the last frame it handed out, and asks the next node to go
//! on from there: forwards by the frame's cursor, backwards by the place of the last event.

use std::collections::VecDeque;
use std::time::Duration;

use anabranch_core::{Cursor, ReadOrder};
use anabranch_proto::convert::Problem;
use anabranch_proto::v1;
use anabranch_proto::v1::events_client::EventsClient;
use anabranch_proto::v1::read_request::{From as WireFrom, Target};
use anabranch_proto::v1::read_response::{Batch, Frame as WireFrame};
use futures_util::StreamExt;
use futures_util::stream::{BoxStream, unfold};
use tokio::time::{Instant, sleep, timeout};
use tonic::{Request, Status, Streaming};

use crate::call::Route;
use crate::client::{Client, MESSAGE_BYTES_MAX};
use crate::error::ReadError;
use crate::event::{Event, of_run};
use crate::failure::ReadFailure;
use crate::progress::{self, Mark};
use crate::read::From;

/// A connection that lasted this long was a good one, also if it brought no event.
pub(crate) const LASTING: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Forwards,
    Backwards,
}

/// What is to be read.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) target: Target,
    pub(crate) order: Option<ReadOrder>,
    pub(crate) direction: Direction,
    pub(crate) from: Option<From>,
    /// 0: no limit.
    pub(crate) events_max: u64,
    pub(crate) follow: bool,
    pub(crate) filter: Option<v1::Filter>,
    pub(crate) heartbeat: Duration,
    pub(crate) with_conflicts: bool,
    /// How long to go without progress; none: for ever.
    pub(crate) patience: Option<Duration>,
}

impl Plan {
    pub(crate) fn new(target: Target, patience: Option<Duration>) -> Self {
        Self {
            target,
            order: None,
            direction: Direction::Forwards,
            from: None,
            events_max: 0,
            follow: false,
            filter: None,
            heartbeat: Duration::from_secs(1),
            with_conflicts: false,
            patience,
        }
    }

    /// The order asked for, or that of the cursor to begin at.
    fn order(&self) -> ReadOrder {
        match (self.order, &self.from) {
            (Some(order), _) => order,
            (None, Some(From::Cursor(cursor))) => cursor.order,
            (None, _) => ReadOrder::Regional,
        }
    }
    /// Where a forward read begins, if that is known before anything was read.
    pub(crate) fn first_cursor(&self) -> Option<Cursor> {
        match &self.from {
            _ if self.direction == Direction::Backwards => None,
            None | Some(From::Start) => Some(Cursor::start(self.order())),
            Some(From::Cursor(cursor)) => Some(cursor.clone()),
            Some(_) => None,
        }
    }
    /// What can be seen to be wrong without asking.
    fn check(&self) -> Result<(), ReadError> {
        let wrong = |field: &str, problem: &str| {
            Err(ReadError::Invalid { field: field.into(), problem: problem.into() })
        };
        match &self.from {
            Some(From::Cursor(_)) if self.direction == Direction::Backwards => {
                wrong("from.cursor", "a cursor resumes forward reads only")
            }
            Some(From::Cursor(cursor)) if cursor.order != self.order() => {
                wrong("from.cursor", "a cursor of one order does not resume the other")
            }
            _ => Ok(()),
        }
    }
}

/// What a frame is, besides its events.
#[derive(Debug)]
pub(crate) enum Sign {
    Events,
    CaughtUp,
    FellBehind,
    Heartbeat { blocked_by: Vec<String> },
}

/// A frame as read. `start` and `end` are the cursors before its first event and after its last.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) events: VecDeque<(Event, Option<Mark>)>,
    pub(crate) start: Option<Cursor>,
    pub(crate) end: Option<Cursor>,
    pub(crate) sign: Sign,
}

pub(crate) type Frames = BoxStream<'static, Result<Frame, ReadError>>;

/// Where the next connection begins.
#[derive(Debug)]
enum Place {
    /// As the plan says: nothing was read yet.
    Planned,
    /// After this, forwards.
    After(Cursor),
    /// At or before this revision or position, backwards.
    Before(WireFrom),
    /// Everything was read.
    End,
}

/// The connection in use.
struct Open {
    stream: Streaming<v1::ReadResponse>,
    since: Instant,
}

/// One read, over as many connections as it takes.
pub(crate) struct Feed {
    client: Client,
    plan: Plan,
    place: Place,
    delivered: u64,
    connected_once: bool,
    open: Option<Open>,
    route: Option<Route>,
    progressed: bool,
}

impl Feed {
    /// The frames of a read. The future inside survives a dropped `next`, so nothing is lost.
    pub(crate) fn frames(client: Client, plan: Plan) -> Frames {
        let place = plan.first_cursor().map_or(Place::Planned, Place::After);
        let feed = Self {
            client,
            plan,
            place,
            delivered: 0,
            connected_once: false,
            open: None,
            route: None,
            progressed: false,
        };
        unfold(Some(feed), |feed| async {
            let mut feed = feed?;
            match feed.next().await? {
                Ok(frame) => Some((Ok(frame), Some(feed))),
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed()
    }

    async fn next(&mut self) -> Option<Result<Frame, ReadError>> {
        if let Err(error) = self.plan.check() {
            return Some(Err(error));
        }
        loop {
            if self.finished() {
                return None;
            }
            let failure = match self.step().await {
                Ok(Some(wire)) => return Some(self.accept(wire)),
                Ok(None) if !self.plan.follow => return None,
                Ok(None) => ReadFailure::Broken(Status::unavailable("the node ended the stream")),
                Err(failure) => failure,
            };
            if let Err(error) = self.recover(failure).await {
                return Some(Err(error));
            }
        }
    }

    fn finished(&self) -> bool {
        let limit = self.plan.events_max;
        matches!(self.place, Place::End) || (limit > 0 && limit <= self.delivered)
    }

    /// Whether what is asked means the same in another region.
    fn portable(&self) -> bool {
        let global = self.plan.order() == ReadOrder::Global;
        match &self.place {
            Place::After(_) | Place::End => true,
            Place::Before(_) => global,
            Place::Planned => match self.plan.from {
                Some(From::Position(_)) => global,
                Some(From::Revision(_)) => false,
                _ => true,
            },
        }
    }

    async fn step(&mut self) -> Result<Option<v1::ReadResponse>, ReadFailure> {
        let silence = self.silence();
        if self.open.is_none() {
            self.open = Some(self.connect(silence).await?);
        }
        let open = self.open.as_mut().expect("opened above");
        let silent = || {
            let text = format!("the node was silent for {silence:?}");
            ReadFailure::Broken(Status::deadline_exceeded(text))
        };
        let next = timeout(silence, open.stream.message()).await;
        next.map_err(|_| silent())?.map_err(ReadFailure::of)
    }

    /// How long a node may say nothing. The session is waited for before the first frame only.
    fn silence(&self) -> Duration {
        let options = self.client.options();
        let alive = match self.plan.follow {
            true => self.plan.heartbeat * 3 + Duration::from_secs(2),
            false => options.attempt_timeout,
        };
        alive + options.session_wait
    }

    async fn connect(&mut self, silence: Duration) -> Result<Open, ReadFailure> {
        let portable = self.portable();
        let request = Request::new(self.request());
        let (client, patience) = (&self.client, self.plan.patience);
        let route = self.route.get_or_insert_with(|| Route::new(client, patience, portable));
        let node = route.node(client);
        let mut events = EventsClient::new(node.channel())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        match timeout(silence, events.read(request)).await {
            Ok(Ok(response)) => Ok(Open { stream: response.into_inner(), since: Instant::now() }),
            Ok(Err(status)) => Err(ReadFailure::of(status)),
            Err(_) => {
                node.renew(client.dialer());
                let silent = format!("{} did not answer in {silence:?}", node.address);
                Err(ReadFailure::Broken(Status::deadline_exceeded(silent)))
            }
        }
    }

    fn request(&self) -> v1::ReadRequest {
        let backwards = self.plan.direction == Direction::Backwards;
        // A subscription that goes on from its cursor cannot go back, and what the session holds
        // will come to it; only its beginning waits, so that "caught up" covers the session.
        let waits = !(self.plan.follow && self.connected_once);
        let direction = if backwards { v1::Direction::Backwards } else { v1::Direction::Forwards };
        v1::ReadRequest {
            target: Some(self.plan.target.clone()),
            order: v1::Order::from(self.plan.order()) as i32,
            direction: direction as i32,
            from: self.from(),
            max_events: self.plan.events_max.saturating_sub(self.delivered),
            follow: self.plan.follow,
            filter: self.plan.filter.clone(),
            session_token: if waits { self.client.session().to_send() } else { Default::default() },
            session_deadline_ms: self.client.options().session_wait.as_millis() as u32,
            heartbeat_ms: self.plan.heartbeat.as_millis() as u32,
            with_conflicts: self.plan.with_conflicts,
            runs: true,
        }
    }

    fn from(&self) -> Option<WireFrom> {
        match (&self.place, &self.plan.from) {
            (Place::After(cursor), _) if cursor.context.is_empty() => {
                Some(WireFrom::Start(v1::read_request::Start {}))
            }
            (Place::After(cursor), _) => Some(WireFrom::Cursor(cursor.encode())),
            (Place::Before(place), _) => Some(place.clone()),
            (Place::Planned | Place::End, planned) => planned.as_ref().map(to_wire),
        }
    }

    fn accept(&mut self, wire: v1::ReadResponse) -> Result<Frame, ReadError> {
        self.client.session().merge_answer(&wire.session_token)?;
        self.connected_once = true;
        let end = match wire.cursor.is_empty() {
            true => None,
            false => Some(Cursor::decode(wire.cursor)?),
        };
        let (batch, sign) = match wire.frame {
            Some(WireFrame::Batch(batch)) => (batch, Sign::Events),
            Some(WireFrame::CaughtUp(_)) => (Batch::default(), Sign::CaughtUp),
            Some(WireFrame::FellBehind(_)) => (Batch::default(), Sign::FellBehind),
            Some(WireFrame::Heartbeat(beat)) => {
                (Batch::default(), Sign::Heartbeat { blocked_by: beat.blocked_by })
            }
            // A kind of frame that this release does not know says nothing that it could miss.
            None => (Batch::default(), Sign::Events),
        };
        let events = self.events(batch)?;
        self.delivered += events.len() as u64;
        self.progressed |= !events.is_empty();
        self.settled();
        match self.plan.direction {
            Direction::Forwards => self.forwards(events, end, sign),
            Direction::Backwards => Ok(self.backwards(events, sign)),
        }
    }

    fn events(&self, batch: Batch) -> Result<Vec<Event>, ReadError> {
        let recorded = batch.events.into_iter().map(Event::try_from);
        let mut events = recorded.collect::<Result<Vec<_>, _>>()?;
        events.reserve(batch.runs.iter().map(|run| run.revisions.len()).sum());
        for run in batch.runs {
            of_run(run, self.plan.order(), &mut events)?;
        }
        Ok(events)
    }

    fn forwards(
        &mut self,
        events: Vec<Event>,
        end: Option<Cursor>,
        sign: Sign,
    ) -> Result<Frame, ReadError> {
        let Some(end) = end else {
            if !events.is_empty() {
                return Err(Problem::Missing.of("cursor").into());
            }
            return Ok(Frame { events: VecDeque::new(), start: None, end: None, sign });
        };
        self.place = Place::After(end.clone());
        if events.is_empty() {
            return Ok(Frame { events: VecDeque::new(), start: None, end: Some(end), sign });
        }
        let cuts = progress::cuts(&end.context, events.iter().map(|event| &event.dot));
        let start = Cursor { order: end.order, context: cuts.start };
        let events = events.into_iter().zip(cuts.marks.into_iter().map(Some)).collect();
        Ok(Frame { events, start: Some(start), end: Some(end), sign })
    }

    fn backwards(&mut self, events: Vec<Event>, sign: Sign) -> Frame {
        if let Some(last) = events.last() {
            let of_stream = matches!(self.plan.target, Target::Stream(_));
            let regional = self.plan.order() == ReadOrder::Regional;
            let (at, from): (u64, fn(u64) -> WireFrom) = match last.global_position() {
                Some(position) => (position, WireFrom::Position),
                None if of_stream && regional => (last.revision, WireFrom::Revision),
                None => (last.position().unwrap_or_default(), WireFrom::Position),
            };
            self.place = at.checked_sub(1).map_or(Place::End, |before| Place::Before(from(before)));
        }
        let events = events.into_iter().map(|event| (event, None)).collect();
        Frame { events, start: None, end: None, sign }
    }

    fn settled(&mut self) {
        if let Some(route) = &self.route {
            route.settled(&self.client);
        }
    }

    /// Finds the next node to ask, and waits as long as it must.
    async fn recover(&mut self, failure: ReadFailure) -> Result<(), ReadError> {
        let lasted = self.open.take().is_some_and(|open| open.since.elapsed() >= LASTING);
        let portable = self.portable();
        let (client, patience) = (&self.client, self.plan.patience);
        let route = self.route.get_or_insert_with(|| Route::new(client, patience, portable));
        // What failed before the last progress no longer counts.
        if std::mem::take(&mut self.progressed) || lasted {
            route.fresh(client, patience, portable);
        }
        if self.connected_once {
            tracing::info!(?failure, "a read lost its node and goes on from where it was");
        }
        let after = route.after(client, failure)?;
        sleep(after).await;
        Ok(())
    }
}

fn to_wire(from: &From) -> WireFrom {
    match from {
        From::Start => WireFrom::Start(v1::read_request::Start {}),
        From::End => WireFrom::End(v1::read_request::End {}),
        From::Revision(revision) => WireFrom::Revision(*revision),
        From::Position(position) => WireFrom::Position(*position),
        From::Cursor(cursor) => WireFrom::Cursor(cursor.encode()),
        From::Time(unix_ms) => WireFrom::UnixMs(*unix_ms),
    }
}
