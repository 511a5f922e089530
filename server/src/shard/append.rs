//! Appending through the shard's leader: what callers see of it.

use std::sync::Arc;
use std::time::Duration;

use anabranch_core::aggregate::BadOperation;
use anabranch_core::class::Home;
use anabranch_core::event::{Event, EventId};
use anabranch_core::planted::{self, Bug};
use anabranch_core::region::Receipt;
use anabranch_core::rights::Counter;
use anabranch_core::sequencer::{ClassRefused, Conflict, Expected, Submission};
use anabranch_core::stamp::ClockBehind;
use anabranch_core::{Context, RegionName, SessionToken};
use anabranch_log::Room;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::Shard;
use super::clock_guard::ClockDoubted;
use super::lead::Job;
use super::standing::Forgetful;
use crate::raft::Node;

/// What an append came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// Where the events are.
    pub receipt: Arc<Receipt>,
    /// It was a retry; this is the first result.
    pub repeated: bool,
    /// Regions known to hold it, this one included.
    pub regions: u32,
    /// Reads that carry it see the append, in every region.
    pub token: SessionToken,
}

/// Why an append was not acknowledged. Only [`Unknown`](Self::Unknown) leaves it open whether
/// something was written, and [`RegionsShort`](Self::RegionsShort) says that it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Refused: expectations that do not hold, every one of them.
    #[error("{}", described(.0))]
    Conflicts(Vec<Conflict>),
    /// Refused: a higher epoch of the producer was seen.
    #[error("the producer is fenced by its epoch {epoch}")]
    Fenced {
        /// The highest epoch.
        epoch: u32,
    },
    /// Refused: the producer's sequence lies before the window that is remembered.
    #[error("the sequence is forgotten; remembered from {oldest}")]
    Forgotten {
        /// First sequence that is remembered for certain.
        oldest: u64,
    },
    /// Refused: the id belongs to an event of another request.
    #[error("event id {id} belongs to an event of another append")]
    IdReused {
        /// The id.
        id: EventId,
    },
    /// Refused: the producer appended something else under the sequence.
    #[error(
        "the producer appended something else under sequence {sequence}; each append needs the next \
         sequence, and a producer that starts again a new epoch"
    )]
    SequenceReused {
        /// The sequence.
        sequence: u64,
    },
    /// Refused: only the stream's home appends to it.
    #[error("{stream:.NAME_TOLD$} is homed in {}, epoch {}: append there", .home.region, .home.epoch)]
    NotHome {
        /// The stream, or the category that was to be handed over.
        stream: String,
        /// Its home.
        home: Home,
    },
    /// Refused: no region may append to all of the streams.
    #[error("{:.NAME_TOLD$} is homed in {}, {:.NAME_TOLD$} in {}: append to them one by one", .first.0, .first.1, .second.0, .second.1)]
    HomesDiffer {
        /// A stream and its home.
        first: (String, RegionName),
        /// Another one.
        second: (String, RegionName),
    },
    /// Refused: it is not known yet that every region knows the home.
    #[error(
        "{category} has been homed here lately, and {} has not confirmed it yet: appends with an \
         expectation have to wait", listed(.waits_for)
    )]
    HomeUnconfirmed {
        /// The category.
        category: String,
        /// Regions that have not confirmed it.
        waits_for: Vec<RegionName>,
    },
    /// Refused: the change of class makes no sense.
    #[error(transparent)]
    Class(ClassRefused),
    /// Refused: the region holds too few rights to a bounded counter.
    #[error(
        "this region may take {held} from {} of {:.NAME_TOLD$}, not {wanted}; another region may have \
         rights to pass on", .counter.field, .counter.stream
    )]
    RightsShort {
        /// Which counter.
        counter: Counter,
        /// How much was to be taken away.
        wanted: u64,
        /// What the region may take away.
        held: u128,
    },
    /// Refused: the event is of the type that changes rights, and badly formed.
    #[error(transparent)]
    BadRights(BadOperation),
    /// Refused: too much is waiting.
    #[error("too many {what}; retry after {retry_after:?}")]
    Overload {
        /// What there is too much of.
        what: &'static str,
        /// When to try again.
        retry_after: Duration,
    },
    /// Refused: the log is ahead of this node's clock.
    #[error(transparent)]
    ClockBehind(#[from] ClockBehind),
    /// Refused: this node's clock is not believed.
    #[error(transparent)]
    ClockDoubted(#[from] ClockDoubted),
    /// Refused: the region's disks were set back to an older copy, as another region shows. It stays
    /// so until an operator has done something about it.
    #[error(transparent)]
    Forgetful(Box<Forgetful>),
    /// Refused: another node leads, or none does.
    #[error("this node does not lead the shard")]
    NotLeader {
        /// Who does, if known.
        leader: Option<(u64, Node)>,
    },
    /// Refused: this node leads but has not heard from a quorum lately.
    #[error("the leader has not heard from a quorum lately")]
    NoQuorum,
    /// Refused: the disk is full; reads go on.
    #[error("the disk is full; appends are refused until there is space again")]
    DiskFull,
    /// Durable in this region, not known to be in as many as asked for.
    #[error("held by {reached} of the {wanted} regions asked for")]
    RegionsShort {
        /// Regions asked for.
        wanted: u32,
        /// Regions known to hold it.
        reached: u32,
        /// What was appended.
        appended: Box<Appended>,
    },
    /// It may have been written. Retry with the same producer sequence or event ids.
    #[error("the outcome is unknown: {reason}")]
    Unknown {
        /// What happened.
        reason: String,
    },
    /// Refused: the shard is stopped on this node.
    #[error("the shard is stopped on this node: {reason}")]
    Stopped {
        /// Why.
        reason: String,
    },
}

/// Conflicts that are described in words, and characters of their names. A program finds more in the
/// details.
const CONFLICTS_TOLD: usize = 3;
const NAME_TOLD: usize = 80;

fn described(conflicts: &[Conflict]) -> String {
    let told = conflicts.iter().take(CONFLICTS_TOLD).map(|conflict| {
        let actual = match conflict.actual {
            Some(revision) => format!("is at revision {revision}"),
            None => "has no events".to_owned(),
        };
        let expected = match conflict.expectation.expected {
            Expected::Any => "anything".to_owned(),
            Expected::NoStream => "no events".to_owned(),
            Expected::Exists => "events".to_owned(),
            Expected::Revision(revision) => format!("revision {revision}"),
        };
        let stream = &conflict.expectation.stream;
        format!("{stream:.NAME_TOLD$} {actual}, expected {expected}")
    });
    let told = told.collect::<Vec<_>>().join("; ");
    match conflicts.len().saturating_sub(CONFLICTS_TOLD) {
        0 => told,
        more => format!("{told}; and {more} more"),
    }
}

fn listed(regions: &[RegionName]) -> String {
    regions.iter().map(RegionName::as_str).collect::<Vec<_>>().join(", ")
}

/// When to try again if the sequencer's queue is full.
const QUEUE_FULL_RETRY: Duration = Duration::from_millis(50);

impl Shard {
    /// Appends through this node, which must lead the shard; acknowledged when a quorum of the
    /// region has it on disk and `regions` regions are known to hold it, at most `within` later.
    ///
    /// Dropped half-way, the outcome is unknown to the caller and certain in the log.
    /// # Errors
    /// [`AppendError`].
    pub async fn append(
        &self,
        submission: Submission,
        regions: u32,
        within: Duration,
    ) -> Result<Appended, AppendError> {
        if self.inner.log.room() != Room::Ok {
            return Err(AppendError::DiskFull);
        }
        let leadership = self.inner.raft.leadership().borrow().clone();
        if !leadership.mine {
            return Err(AppendError::NotLeader { leader: leadership.leader });
        }
        let (reply, replied) = oneshot::channel();
        let full =
            || AppendError::Overload { what: "appends waiting", retry_after: QUEUE_FULL_RETRY };
        let bytes = u32::try_from(weight(&submission)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.inner.room).try_acquire_many_owned(bytes);
        let room = room.map_err(|_| full())?;
        let job = Job { submission, reply, _room: room };
        self.inner.jobs.try_send(job).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => full(),
            mpsc::error::TrySendError::Closed(_) => stopped(),
        })?;
        // The leader's task answers every job, or is gone with what it had proposed.
        let unknown = || AppendError::Unknown { reason: "the node is stopping".to_owned() };
        let done = replied.await.unwrap_or_else(|_| Err(unknown()))?;
        let mut context = Context::new();
        let (origin, first) = (&done.receipt.origin, done.receipt.first);
        let last = first.plus(u64::from(done.receipt.events) - 1);
        context.advance(origin, last);
        let token = SessionToken { context };
        let appended =
            Appended { receipt: done.receipt, repeated: done.repeated, regions: 1, token };
        self.await_regions(appended, regions, within).await
    }

    async fn await_regions(
        &self,
        mut appended: Appended,
        wanted: u32,
        within: Duration,
    ) -> Result<Appended, AppendError> {
        if wanted <= 1 {
            return Ok(appended);
        }
        let deadline = Instant::now() + within;
        let inner = &self.inner;
        let (mut heard, mut applied) = (inner.inlet.heard_moved(), inner.state.applied());
        let origin = appended.receipt.origin.clone();
        let last = appended.token.context.seq(&origin);
        loop {
            heard.borrow_and_update();
            applied.borrow_and_update();
            let reached = inner.inlet.holders(&inner.state, &origin, last)
                + usize::from(planted::is(Bug::OwnRegionCountedTwice));
            appended.regions = u32::try_from(reached).unwrap_or(u32::MAX);
            if appended.regions >= wanted {
                return Ok(appended);
            }
            let moved = tokio::select! {
                biased;
                moved = heard.changed() => moved.is_ok(),
                moved = applied.changed() => moved.is_ok(),
                () = tokio::time::sleep_until(deadline) => false,
            };
            if !moved {
                let reached = appended.regions;
                let appended = Box::new(appended);
                return Err(AppendError::RegionsShort { wanted, reached, appended });
            }
        }
    }
}

/// Bytes that a submission takes in the log, at least as many: groups and queues are bounded by it.
pub(super) fn weight(submission: &Submission) -> usize {
    let entry = |(key, value): (&String, &String)| key.len() + value.len() + 16;
    let event = |event: &Event| {
        let texts = event.stream.len() + event.kind.len();
        64 + texts + event.payload.len() + event.metadata.iter().map(entry).sum::<usize>()
    };
    64 + submission.request.events.iter().map(event).sum::<usize>()
}

fn stopped() -> AppendError {
    AppendError::Stopped { reason: "the node is shutting down".to_owned() }
}

#[cfg(test)]
mod tests {
    use anabranch_core::Request;
    use anabranch_core::sequencer::Expectation;

    use super::*;

    #[test]
    fn a_submission_never_takes_more_of_the_log_than_it_weighs() {
        let event = |texts: usize, entries: usize| Event {
            stream: "s".repeat(texts),
            id: Some(EventId([1; 16])),
            kind: "k".repeat(texts),
            metadata: (0..entries).map(|nth| (format!("{nth:04}"), "v".repeat(texts))).collect(),
            payload: vec![0; texts].into(),
        };
        for (texts, entries) in [(0, 0), (1, 64), (200, 64), (20_000, 1)] {
            let request = Request { producer: None, events: vec![event(texts, entries); 3] };
            let mut encoded = Vec::new();
            request.encode(&mut encoded);
            let weight = weight(&Submission { request, expectations: Vec::new() });
            let bytes = encoded.len();
            assert!(
                bytes <= weight && weight < bytes + 64 * (4 + 3 * entries),
                "{bytes}, {weight}"
            );
        }
    }

    #[test]
    fn a_conflict_names_its_streams_what_was_expected_and_what_is_there() {
        let conflict = |stream: &str, expected, actual| {
            let expectation = Expectation { stream: stream.to_owned(), expected };
            Conflict { expectation, actual }
        };
        let said = |conflicts: &[Conflict]| AppendError::Conflicts(conflicts.to_vec()).to_string();
        let one = conflict("cart-1", Expected::Revision(3), Some(5));
        assert_eq!(
            said(std::slice::from_ref(&one)),
            "cart-1 is at revision 5, expected revision 3"
        );
        let two = conflict("cart-2", Expected::NoStream, Some(0));
        let three = conflict("cart-3", Expected::Exists, None);
        assert_eq!(
            said(&[one.clone(), two.clone(), three.clone(), one.clone(), two.clone()]),
            "cart-1 is at revision 5, expected revision 3; cart-2 is at revision 0, expected no \
             events; cart-3 has no events, expected events; and 2 more"
        );
    }
}
