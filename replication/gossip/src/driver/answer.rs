//! Answering: questions that the other side of a session asks, each on a stream of its own.

use std::sync::Arc;
use std::time::Duration;

use anabranch_core::{RegionName, ShardId};
use bytes::Bytes;
use quinn::{Connection, ReadExactError, RecvStream, SendStream, VarInt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, timeout, timeout_at};

use super::code;
use super::stream::write_both;
use crate::config::Tuning;
use crate::question::{HEAD_BYTES, Head, Refusal, answer_head};
use crate::traits::{Answer, NotReady};

/// What a question weighs besides its bytes.
const QUESTION_WEIGHT: usize = 1024;
/// How long the other side may take to take an answer.
const DELIVER_WITHIN: Duration = Duration::from_secs(30);
/// Before history, which may fill the way for a long time.
const ANSWER_PRIORITY: i32 = 1;

/// A bound on the bytes of questions that are being answered, over all sessions of a node.
#[derive(Debug, Clone)]
pub(super) struct Room {
    total: u32,
    free: Arc<Semaphore>,
}

impl Room {
    pub(super) fn new(bytes: usize) -> Self {
        let total = u32::try_from(bytes.max(1)).unwrap_or(u32::MAX);
        Self { total, free: Arc::new(Semaphore::new(total as usize)) }
    }

    /// A question that is larger than all there is goes alone.
    fn admit(&self, len: u32) -> Option<OwnedSemaphorePermit> {
        let weight = (len as usize).saturating_add(QUESTION_WEIGHT);
        let weight = u32::try_from(weight).unwrap_or(u32::MAX).min(self.total);
        Arc::clone(&self.free).try_acquire_many_owned(weight).ok()
    }

    /// Waits until every question is answered. New ones are refused from now on.
    pub(super) async fn emptied(&self) {
        let all = Arc::clone(&self.free).acquire_many_owned(self.total).await;
        all.expect("never closed").forget();
    }
}

/// Who asks on a session, and who answers.
#[derive(Clone)]
pub(super) struct Answering {
    /// The region that the other side's certificate names.
    pub(super) from: RegionName,
    pub(super) shard: ShardId,
    pub(super) answer: Option<Arc<dyn Answer>>,
    pub(super) room: Room,
    pub(super) tuning: Tuning,
}

/// Answers until the connection ends. The transport bounds how many questions there are at a time.
pub(super) async fn run(connection: Connection, answering: Answering) {
    let mut answers = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Some(ended) = answers.join_next() => report(&answering.from, ended),
            asked = connection.accept_bi() => match asked {
                Ok((send, recv)) => {
                    answers.spawn(answer(answering.clone(), send, recv));
                }
                // The session sees the loss of its connection itself.
                Err(_) => return,
            },
        }
    }
}

fn report(from: &RegionName, ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%from, %error, "answering a question failed");
    }
}

/// What became of a question.
enum Outcome {
    Answered(Bytes),
    Refused(Refusal),
    /// There is nothing true to say: the asker must not take it for answered or for refused. The code
    /// is that of the stream's end.
    Dropped(VarInt),
}

/// Reads one question and answers it.
async fn answer(answering: Answering, mut send: SendStream, mut recv: RecvStream) {
    // Refused only if the stream is closed already.
    let _ = send.set_priority(ANSWER_PRIORITY);
    let mut share = None;
    let outcome = match hear(&answering, &mut recv, &mut share).await {
        Ok((question, deadline)) => find(&answering, question, deadline).await,
        Err(outcome) => outcome,
    };
    // Nothing further of the question is read; if all was read, this is not sent.
    let _ = recv.stop(code::REFUSED);
    let (head, body) = match outcome {
        Outcome::Answered(answer) => {
            let len = u32::try_from(answer.len()).expect("limited to less");
            (answer_head(len), answer)
        }
        Outcome::Refused(refusal) => (refusal.encode(), Bytes::new()),
        Outcome::Dropped(code) => {
            let _ = send.reset(code);
            return;
        }
    };
    if timeout(DELIVER_WITHIN, deliver(&mut send, head, body)).await.is_err() {
        let _ = send.reset(code::FAILED);
    }
    drop(share);
}

/// Reads the question, within its time. It takes its share of the room.
async fn hear(
    answering: &Answering,
    recv: &mut RecvStream,
    share: &mut Option<OwnedSemaphorePermit>,
) -> Result<(Bytes, Instant), Outcome> {
    let mut head = [0; HEAD_BYTES];
    let reading = timeout(answering.tuning.connect_timeout, recv.read_exact(&mut head));
    let Ok(Ok(())) = reading.await else { return Err(Outcome::Dropped(code::FAILED)) };
    let Ok(head) = Head::decode(head) else { return Err(Outcome::Dropped(code::FAILED)) };
    let deadline = Instant::now() + head.within;
    let limit = answering.tuning.question_bytes;
    if head.len as usize > limit {
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        return Err(Outcome::Refused(Refusal::TooLong { limit }));
    }
    if answering.answer.is_none() {
        return Err(Outcome::Refused(Refusal::NotReady));
    }
    *share = answering.room.admit(head.len);
    if share.is_none() {
        return Err(Outcome::Refused(Refusal::Busy));
    }
    let mut question = vec![0; head.len as usize];
    match timeout_at(deadline, recv.read_exact(&mut question)).await {
        Ok(Ok(())) => Ok((question.into(), deadline)),
        Err(_) => Err(Outcome::Refused(Refusal::Late)),
        // The asker gave up half-way, or the connection is lost.
        Ok(Err(ReadExactError::FinishedEarly(_) | ReadExactError::ReadError(_))) => {
            Err(Outcome::Dropped(code::FAILED))
        }
    }
}

/// Lets the node answer. Dropped at the deadline, what was begun goes on or not, as with any request
/// whose caller is gone.
async fn find(answering: &Answering, question: Bytes, deadline: Instant) -> Outcome {
    let Answering { from, shard, answer, tuning, .. } = answering;
    let Some(answer) = answer else { return Outcome::Refused(Refusal::NotReady) };
    let left = deadline.saturating_duration_since(Instant::now());
    match timeout_at(deadline, answer.answer(from, *shard, question, left)).await {
        Ok(Ok(answer)) if answer.len() <= tuning.question_bytes => Outcome::Answered(answer),
        Ok(Ok(answer)) => {
            let (bytes, limit) = (answer.len(), tuning.question_bytes);
            tracing::error!(%from, bytes, limit, "an answer to another region is too long");
            Outcome::Dropped(code::FAILED)
        }
        Ok(Err(NotReady)) => Outcome::Refused(Refusal::NotReady),
        Err(_) => Outcome::Dropped(code::OUT_OF_TIME),
    }
}

/// Writes, and waits until the other side's transport has all of it: so that a node that stops does not
/// cut its last answers off. An error is the connection's end, or the asker gave up.
async fn deliver(send: &mut SendStream, head: Bytes, body: Bytes) {
    if write_both(send, head, body).await.is_ok() && send.finish().is_ok() {
        let _ = send.stopped().await;
    }
}
