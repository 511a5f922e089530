//! Asking: questions to another region, over the session with it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anabranch_core::{DecodeError, RegionName};
use bytes::Bytes;
use quinn::{Connection, ConnectionError, ReadError, ReadToEndError, RecvStream, WriteError};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::code;
use super::stream::write_both;
use crate::config::Tuning;
use crate::question::{ANSWER_HEAD_BYTES_MAX, Head, Refusal, Reply, WITHIN_MAX};

/// Why a question has no answer. [`may_have_been_begun`](Self::may_have_been_begun) says of which of
/// these it is not known what the other side did.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Not sent. This node has no session with the region: it does not lead the shard, the region is
    /// out of reach, or it is none that gossip knows.
    #[error("there is no session with region {region}")]
    NoSession {
        /// Which.
        region: RegionName,
    },
    /// Not sent. So many questions to the region wait for their answers already.
    #[error("{limit} questions to region {region} wait for their answers already")]
    TooMany {
        /// Which.
        region: RegionName,
        /// How many there may be.
        limit: usize,
    },
    /// Not sent.
    #[error("the question has {bytes} bytes, at most {limit} are allowed")]
    TooLong {
        /// Bytes it has.
        bytes: usize,
        /// Bytes it may have.
        limit: usize,
    },
    /// Not sent, or not all of it: there was not enough time.
    #[error("region {region} cannot be asked within {within:?}")]
    OutOfTime {
        /// Which.
        region: RegionName,
        /// The time there was.
        within: Duration,
    },
    /// Not sent, or not all of it: the session ended.
    #[error("the session with region {region} ended before the question was sent: {source}")]
    NotSent {
        /// Which.
        region: RegionName,
        /// What the transport says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The other side did not begin.
    #[error("region {region} did not take the question: {reason}")]
    Refused {
        /// Which.
        region: RegionName,
        /// Why.
        reason: Refusal,
    },
    /// Unknown: sent, and not answered in time.
    #[error("region {region} did not answer within {within:?}")]
    NoAnswer {
        /// Which.
        region: RegionName,
        /// The time there was.
        within: Duration,
    },
    /// Unknown: sent, and then the session ended, or the other side gave up.
    #[error("the question to region {region} was lost before it was answered: {source}")]
    Lost {
        /// Which.
        region: RegionName,
        /// What the transport says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Unknown: answered with something that cannot be read.
    #[error("read the answer of region {region}")]
    Answer {
        /// Which.
        region: RegionName,
        /// What is wrong with it.
        source: DecodeError,
    },
}

impl AskError {
    /// Whether the other side may have begun, and finished, what the question asks for. If not, it
    /// surely did nothing and never will.
    pub fn may_have_been_begun(&self) -> bool {
        match self {
            Self::NoSession { .. }
            | Self::TooMany { .. }
            | Self::TooLong { .. }
            | Self::OutOfTime { .. }
            | Self::NotSent { .. }
            | Self::Refused { .. } => false,
            Self::NoAnswer { .. } | Self::Lost { .. } | Self::Answer { .. } => true,
        }
    }
}

/// The sessions over which a shard's questions go. Locked briefly, never across an await.
#[derive(Debug, Default)]
pub(super) struct Lines {
    open: Mutex<BTreeMap<RegionName, Line>>,
}

#[derive(Debug, Clone)]
struct Line {
    connection: Connection,
    /// How many more questions may be under way.
    room: Arc<Semaphore>,
}

/// A session that takes questions. No longer once this is dropped; those under way are lost, or
/// answered still, as the connection goes.
#[derive(Debug)]
pub(super) struct OpenLine<'a> {
    lines: &'a Lines,
    region: &'a RegionName,
}

impl Drop for OpenLine<'_> {
    fn drop(&mut self) {
        // A region's sessions of one shard follow each other, so this is the one put there.
        self.lines.lock().remove(self.region);
    }
}

impl Lines {
    /// Lets questions to `region` go over `connection`.
    pub(super) fn open<'a>(
        &'a self,
        region: &'a RegionName,
        connection: &Connection,
        tuning: &Tuning,
    ) -> OpenLine<'a> {
        let room = Arc::new(Semaphore::new(tuning.questions_max));
        let line = Line { connection: connection.clone(), room };
        self.lock().insert(region.clone(), line);
        OpenLine { lines: self, region }
    }

    /// Asks, and waits for the answer, `within` at most.
    ///
    /// Dropped half-way, the other side may have begun, unless the question was not sent yet.
    pub(super) async fn ask(
        &self,
        region: &RegionName,
        question: Bytes,
        within: Duration,
        tuning: &Tuning,
    ) -> Result<Bytes, AskError> {
        let (bytes, limit) = (question.len(), tuning.question_bytes);
        if bytes > limit {
            return Err(AskError::TooLong { bytes, limit });
        }
        let line = self.lock().get(region).cloned();
        let Line { connection, room } =
            line.ok_or_else(|| AskError::NoSession { region: region.clone() })?;
        let Ok(_share) = room.try_acquire() else {
            let limit = tuning.questions_max;
            return Err(AskError::TooMany { region: region.clone(), limit });
        };
        let within = within.min(WITHIN_MAX);
        let asking =
            Asking { connection: &connection, region, within, deadline: Instant::now() + within };
        asking.ask(question, limit).await
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<RegionName, Line>> {
        self.open.lock().expect("nothing panics under this lock")
    }
}

/// Whether the transport took all of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    Whole,
    /// The other side stopped it half-way: it has refused.
    Stopped,
}

/// One question.
struct Asking<'a> {
    connection: &'a Connection,
    region: &'a RegionName,
    within: Duration,
    deadline: Instant,
}

impl Asking<'_> {
    async fn ask(&self, question: Bytes, limit: usize) -> Result<Bytes, AskError> {
        // Dropped at the deadline, the stream ends short of what its head says, and nobody acts on it.
        let sent = timeout_at(self.deadline, self.send(question)).await;
        let (mut answer, sent) = sent.map_err(|_| self.out_of_time())??;
        let reading = answer.read_to_end(limit + ANSWER_HEAD_BYTES_MAX);
        let read = match (timeout_at(self.deadline, reading).await, sent) {
            (Ok(Ok(read)), _) => read,
            (Ok(Err(ReadToEndError::Read(ReadError::Reset(code::OUT_OF_TIME)))), _)
            | (Err(_), Sent::Whole) => return Err(self.no_answer()),
            (Ok(Err(error)), Sent::Whole) => return Err(self.lost(error)),
            (Ok(Err(error)), Sent::Stopped) => return Err(self.not_sent(error)),
            (Err(_), Sent::Stopped) => return Err(self.out_of_time()),
        };
        let region = || self.region.clone();
        match Reply::decode(read.into()) {
            Ok(Reply::Answer(answer)) => Ok(answer),
            Ok(Reply::Refused(reason)) => Err(AskError::Refused { region: region(), reason }),
            Err(source) if sent == Sent::Stopped => Err(self.not_sent(source)),
            Err(source) => Err(AskError::Answer { region: region(), source }),
        }
    }

    /// Sends the question, and says where its answer will be.
    async fn send(&self, question: Bytes) -> Result<(RecvStream, Sent), AskError> {
        let opened = self.connection.open_bi().await;
        let (mut stream, answer) = opened.map_err(|error: ConnectionError| self.not_sent(error))?;
        let left = self.deadline.saturating_duration_since(Instant::now());
        // So that the answer is back in time; half of it passes before the question is there.
        let within = left.saturating_sub(self.connection.rtt());
        if within < Duration::from_millis(1) {
            return Err(self.out_of_time());
        }
        let len = u32::try_from(question.len()).expect("limited to less");
        let head = Bytes::copy_from_slice(&Head { within, len }.encode());
        match write_both(&mut stream, head, question).await {
            Ok(()) => {
                // Stopped meanwhile: the answer says why.
                let _ = stream.finish();
                Ok((answer, Sent::Whole))
            }
            Err(WriteError::Stopped(_)) => Ok((answer, Sent::Stopped)),
            Err(error) => Err(self.not_sent(error)),
        }
    }

    fn out_of_time(&self) -> AskError {
        AskError::OutOfTime { region: self.region.clone(), within: self.within }
    }

    fn no_answer(&self) -> AskError {
        AskError::NoAnswer { region: self.region.clone(), within: self.within }
    }

    fn not_sent(&self, source: impl std::error::Error + Send + Sync + 'static) -> AskError {
        AskError::NotSent { region: self.region.clone(), source: Box::new(source) }
    }

    fn lost(&self, source: ReadToEndError) -> AskError {
        AskError::Lost { region: self.region.clone(), source: Box::new(source) }
    }
}
