//! Replication to one node: a stream of appends, several in flight, answered in order.
//!
//! Requests, answers and the deadline are driven by polling the one stream that this returns, by
//! no task of its own. That matters: openraft holds a lock inside its request stream, so that
//! stream must be gone the moment openraft drops ours. Were it handed to the HTTP connection, it
//! would live until the connection noticed, and openraft would wait for it.

use std::collections::VecDeque;
use std::time::Duration;

use anabranch_core::planted::{self, Bug};
use anabranch_proto::internal::Frame;
use futures_util::{Stream, StreamExt, stream};
use openraft::OptionalSend;
use openraft::base::BoxStream;
use openraft::errors::NetworkError;
use openraft::network::{RPCOption, RPCTypes};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::network::Peer;
use super::types::{AppendReply, AppendRequest, RpcError, Vote};
use super::wire;

/// Appends in flight to one node.
const IN_FLIGHT_MESSAGES: usize = 64;
/// Bytes in flight to one node, beyond which no further append is read from the log.
const IN_FLIGHT_BYTES: usize = 8 * 1024 * 1024;

/// Sends `requests` to `peer`; yields the answers in order, until the first that is no match, or an
/// error.
pub(super) fn append<'s, S>(
    peer: &'s mut Peer,
    requests: S,
    option: &RPCOption,
) -> BoxStream<'s, Result<AppendReply, RpcError>>
where
    S: Stream<Item = AppendRequest> + OptionalSend + Unpin + 'static,
{
    let deadline = peer.append_deadline(option);
    let (outgoing, frames) = mpsc::channel(IN_FLIGHT_MESSAGES);
    let sending = Sending {
        requests: Some(requests),
        outgoing: Some(outgoing),
        in_flight: VecDeque::new(),
        bytes: 0,
        vote: None,
        done_at: None,
    };
    let session = Session { peer, sending, frames: Some(frames), replies: None, deadline };
    Box::pin(stream::unfold(Some(session), |session| async move {
        let mut session = session?;
        let reply = session.next_reply().await?;
        let goes_on = matches!(reply, Ok(Ok(_)));
        Some((reply, goes_on.then_some(session)))
    }))
}

struct Session<'s, S> {
    peer: &'s mut Peer,
    sending: Sending<S>,
    /// What goes out, until the stream is opened.
    frames: Option<mpsc::Receiver<Frame>>,
    /// What comes back, from then on.
    replies: Option<Streaming<Frame>>,
    deadline: Duration,
}

struct Sending<S> {
    /// Gone once it ended.
    requests: Option<S>,
    /// Gone with it, which closes our half of the stream.
    outgoing: Option<mpsc::Sender<Frame>>,
    /// Bytes and time of each append that was not answered yet.
    in_flight: VecDeque<(usize, Instant)>,
    bytes: usize,
    /// Whose appends these are: one leader's.
    vote: Option<Vote>,
    /// When all was done.
    done_at: Option<Instant>,
}

impl<S: Stream<Item = AppendRequest> + Unpin> Sending<S> {
    fn has_room(&self) -> bool {
        self.in_flight.len() < IN_FLIGHT_MESSAGES && self.bytes < IN_FLIGHT_BYTES
    }

    /// The next request; `None` once there are no more. Waits for ever while there is no room.
    /// Nothing is lost when it is cancelled.
    async fn next_request(&mut self) -> Option<AppendRequest> {
        if !self.has_room() {
            return std::future::pending().await;
        }
        match &mut self.requests {
            Some(requests) => requests.next().await,
            None => std::future::pending().await,
        }
    }

    fn send(&mut self, peer: &Peer, request: Option<AppendRequest>) {
        let Some(request) = request else {
            self.requests = None;
            self.outgoing = None;
            return;
        };
        let frame = peer.append_frame(&request);
        self.vote = Some(request.vote);
        let bytes = frame.body.len();
        let outgoing = self.outgoing.as_ref();
        let is_sent = outgoing.is_some_and(|outgoing| outgoing.try_send(frame).is_ok());
        // The channel holds as much as may be in flight. If it is closed, the connection is gone,
        // and the replies say so next.
        if !is_sent {
            self.outgoing = None;
        }
        self.in_flight.push_back((bytes, Instant::now()));
        self.bytes += bytes;
    }

    fn on_reply(&mut self) {
        if let Some((bytes, _)) = self.in_flight.pop_front() {
            self.bytes -= bytes;
        }
    }

    /// Every append was answered, and there are no more.
    fn is_done(&self) -> bool {
        self.requests.is_none() && self.in_flight.is_empty()
    }

    /// Since when something is owed to us: an answer; or, once all is done, the end of the other half.
    /// openraft waits for our end, so nothing may be waited for without a limit.
    fn waits_since(&mut self) -> Option<Instant> {
        match self.in_flight.front() {
            Some((_, sent)) => Some(*sent),
            None if planted::is(Bug::AppendStreamEndAwaited) => None,
            None if self.is_done() => Some(*self.done_at.get_or_insert_with(Instant::now)),
            None => None,
        }
    }
}

enum Happened {
    Replied(Result<Option<Frame>, Status>),
    Asked(Option<AppendRequest>),
    Silent,
}

impl<S: Stream<Item = AppendRequest> + Unpin> Session<'_, S> {
    /// The next answer; `None` once every request was answered and there are no more.
    async fn next_reply(&mut self) -> Option<Result<AppendReply, RpcError>> {
        if self.replies.is_none() {
            match self.open().await? {
                Ok(replies) => self.replies = Some(replies),
                Err(error) => return Some(Err(error)),
            }
        }
        loop {
            let overdue_at = self.sending.waits_since().map(|since| since + self.deadline);
            let happened = tokio::select! {
                biased;
                reply = next_frame(&mut self.replies) => Happened::Replied(reply),
                request = self.sending.next_request() => Happened::Asked(request),
                () = until(overdue_at) => Happened::Silent,
            };
            match happened {
                Happened::Replied(Ok(Some(frame))) => return Some(self.on_reply(frame)),
                Happened::Replied(Ok(None)) if self.sending.in_flight.is_empty() => return None,
                Happened::Replied(Ok(None)) => {
                    self.peer.link.on_broken();
                    let reason = "append stream ended before every append was answered";
                    return Some(Err(NetworkError::from_string(reason).into()));
                }
                Happened::Replied(Err(status)) => return Some(Err(self.peer.on_status(&status))),
                Happened::Asked(request) => self.sending.send(self.peer, request),
                Happened::Silent => {
                    let silent = self.peer.on_silence(RPCTypes::AppendEntries, self.deadline);
                    // All is answered: only the other side's end, or ours, was lost.
                    return (!self.sending.is_done()).then_some(Err(silent));
                }
            }
        }
    }

    /// Opens the stream to the other node, with the first request in it; `None` if there is none.
    ///
    /// Not before there is a request: openraft pauses after errors by holding the request back, so
    /// opening first would hammer at a node that is away.
    async fn open(&mut self) -> Option<Result<Streaming<Frame>, RpcError>> {
        let first = self.sending.next_request().await?;
        self.sending.send(self.peer, Some(first));
        let frames = self.frames.take()?;
        let mut client = match self.peer.client() {
            Ok(client) => client,
            Err(error) => return Some(Err(error)),
        };
        let opened = client.append(ReceiverStream::new(frames));
        Some(match tokio::time::timeout(self.deadline, opened).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.peer.on_status(&status)),
            Err(_) => Err(self.peer.on_silence(RPCTypes::AppendEntries, self.deadline)),
        })
    }

    fn on_reply(&mut self, frame: Frame) -> Result<AppendReply, RpcError> {
        self.peer.on_heard();
        self.sending.on_reply();
        let reply = wire::take_append_reply(frame.body);
        let reply = reply.map_err(|error| self.peer.on_nonsense(&error))?;
        if let (Ok(Some(matching)), Some(vote)) = (&reply, self.sending.vote) {
            self.peer.on_acknowledged(vote, matching);
        }
        Ok(reply)
    }
}

async fn next_frame(replies: &mut Option<Streaming<Frame>>) -> Result<Option<Frame>, Status> {
    match replies {
        Some(replies) => replies.message().await,
        None => Ok(None),
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
