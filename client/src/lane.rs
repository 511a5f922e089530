//! Small appends to one node, all in one call: a call's own cost is more than theirs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anabranch_proto::v1;
use anabranch_proto::v1::append_many_response::Outcome;
use anabranch_proto::v1::events_client::EventsClient;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::Channel;

use crate::client::MESSAGE_BYTES_MAX;

/// Appends that wait for the connection to take them.
const QUEUE: usize = 64;
/// A call that nobody has used for so long is ended.
const IDLE: Duration = Duration::from_secs(30);
/// What is small: beyond this, a call of its own costs little beside what it carries, and does not stand
/// in the way of others.
const EVENTS_MAX: usize = 16;
const BYTES_MAX: usize = 16 * 1024;

/// Whether an append is small enough for a lane.
pub(crate) fn is_small(append: &v1::AppendRequest) -> bool {
    let bytes = |event: &v1::NewEvent| {
        let metadata = event.metadata.iter().map(|(key, value)| key.len() + value.len());
        event.payload.len() + event.stream.len() + event.r#type.len() + metadata.sum::<usize>()
    };
    append.events.len() <= EVENTS_MAX
        && append.expectations.len() <= EVENTS_MAX
        && append.events.iter().map(bytes).sum::<usize>() <= BYTES_MAX
}

type Answer = Result<v1::AppendResponse, Status>;

/// One call of AppendMany. Dropped, it takes no more; those under way are answered still.
pub(crate) struct Lane {
    asked: mpsc::Sender<v1::AppendManyRequest>,
    waiting: Arc<Mutex<Waiting>>,
}

/// Who waits in a lane for an answer.
#[derive(Default)]
struct Waiting {
    last: u64,
    replies: BTreeMap<u64, oneshot::Sender<Answer>>,
    /// How the call ended, if it has.
    ended: Option<Status>,
}

/// Who gave up waiting is forgotten.
struct Place<'a> {
    number: u64,
    waiting: &'a Mutex<Waiting>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.waiting.lock().replies.remove(&self.number);
    }
}

impl Lane {
    /// A call that begins now, over `channel`.
    pub(crate) fn open(channel: Channel) -> Self {
        let (asked, queue) = mpsc::channel(QUEUE);
        let waiting = Arc::new(Mutex::new(Waiting::default()));
        tokio::spawn(run(channel, queue, Arc::clone(&waiting)));
        Self { asked, waiting }
    }

    /// Whether it takes no more.
    pub(crate) fn has_ended(&self) -> bool {
        self.waiting.lock().ended.is_some()
    }

    /// Appends. A status says the same as one of a call of its own.
    pub(crate) async fn append(&self, append: v1::AppendRequest, within: Duration) -> Answer {
        let (reply, answer) = oneshot::channel();
        let number = {
            let mut waiting = self.waiting.lock();
            if let Some(ended) = &waiting.ended {
                return Err(ended.clone());
            }
            waiting.last += 1;
            let number = waiting.last;
            waiting.replies.insert(number, reply);
            number
        };
        let _place = Place { number, waiting: &self.waiting };
        let within_ms = u32::try_from(within.as_millis()).unwrap_or(u32::MAX).max(1);
        let asked = v1::AppendManyRequest { number, within_ms, append: Some(append) };
        // If nobody takes it, the call is ending, and everybody in it is told.
        let _ = self.asked.send(asked).await;
        answer.await.unwrap_or_else(|_| Err(Status::internal("the lane has lost an append")))
    }
}

async fn run(
    channel: Channel,
    queue: mpsc::Receiver<v1::AppendManyRequest>,
    waiting: Arc<Mutex<Waiting>>,
) {
    let ended = call(channel, queue, &waiting).await;
    let mut waiting = waiting.lock();
    for reply in std::mem::take(&mut waiting.replies).into_values() {
        let _ = reply.send(Err(ended.clone()));
    }
    waiting.ended = Some(ended);
}

/// Makes the call, and hands out its answers; says how it ended.
async fn call(
    channel: Channel,
    queue: mpsc::Receiver<v1::AppendManyRequest>,
    waiting: &Mutex<Waiting>,
) -> Status {
    let mut events = EventsClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let mut answers = match events.append_many(ReceiverStream::new(queue)).await {
        Ok(response) => response.into_inner(),
        Err(status) => return status,
    };
    loop {
        match timeout(IDLE, answers.message()).await {
            Ok(Ok(Some(v1::AppendManyResponse { number, outcome }))) => {
                let reply = waiting.lock().replies.remove(&number);
                if let Some(reply) = reply {
                    let _ = reply.send(answer(outcome));
                }
            }
            Ok(Ok(None)) => return Status::unavailable("the node ended the call"),
            Ok(Err(status)) => return status,
            Err(_) => {
                // Under the lock nobody can come in between.
                let mut waiting = waiting.lock();
                if waiting.replies.is_empty() {
                    let idle = Status::unavailable("nobody has used the lane for a while");
                    waiting.ended = Some(idle.clone());
                    return idle;
                }
            }
        }
    }
}

fn answer(outcome: Option<Outcome>) -> Answer {
    match outcome {
        Some(Outcome::Appended(appended)) => Ok(appended),
        Some(Outcome::Failed(failed)) => Err(failed.into()),
        // It was decided, in a way that this release does not know.
        None => Err(Status::unknown("the answer to an append is empty")),
    }
}

#[cfg(test)]
mod tests {
    use anabranch_proto::convert::LEADER;
    use anabranch_proto::v1::append_many_response::Failed;
    use bytes::Bytes;
    use tonic::Code;

    use super::*;

    fn append(events: usize, bytes: usize) -> v1::AppendRequest {
        let event = v1::NewEvent { payload: Bytes::from(vec![0; bytes]), ..Default::default() };
        v1::AppendRequest { events: vec![event; events], ..Default::default() }
    }

    #[test]
    fn what_is_large_in_either_way_is_not_small() {
        assert!(is_small(&append(1, BYTES_MAX)));
        assert!(!is_small(&append(1, BYTES_MAX + 1)));
        assert!(is_small(&append(EVENTS_MAX, 10)));
        assert!(!is_small(&append(EVENTS_MAX + 1, 10)));
    }

    #[test]
    fn a_refusal_comes_out_as_the_status_that_it_was() {
        let failed = Failed {
            code: Code::FailedPrecondition.into(),
            message: "no".into(),
            details: Bytes::from_static(b"why"),
            leader: "node-2:4000".into(),
        };
        let status = answer(Some(Outcome::Failed(failed))).unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::FailedPrecondition, "no"));
        assert_eq!(status.details(), b"why");
        assert_eq!(status.metadata().get(LEADER).unwrap(), "node-2:4000");
    }
}
