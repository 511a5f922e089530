//! The sequencer: what the shard's leader puts into the log next.
//!
//! It predicts. From the applied [`Region`] and the commands that are still on their way through
//! Raft it knows what every number will be when the next command is applied, decides each request
//! against that prediction, and writes complete commands. While one command is being flushed the
//! next forms from everything that waits: group commit without a timer.
//!
//! The prediction is right as long as this node leads: it alone proposes, and Raft keeps its order.
//! If it loses the lead, apply refuses what no longer fits, and the sequencer is thrown away; a new
//! one starts from the applied state.

mod admit;
mod overlay;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::aggregate::BadOperation;
use crate::class::Home;
use crate::command::{Command, PlacedGroup};
use crate::context::Context;
use crate::digest::Digest;
use crate::event::{ContentHash, EventId, Request};
use crate::group::{Chain, Group, GroupHeader};
use crate::id::{Dot, Origin, RegionName, Seq};
use crate::planted::{self, Bug};
use crate::region::{Known, LastRevisions, Receipt, Region, RequestKey};
use crate::rights::Counter;
use crate::stamp::{ClockBehind, Stamp, StampClock};
pub use admit::ClassRefused;
use overlay::{OnItsWay, Overlay};

/// What must be true of a stream, in this region, for an append to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Anything.
    Any,
    /// No event yet.
    NoStream,
    /// At least one event.
    Exists,
    /// The last event has this revision.
    Revision(u64),
}

/// An expectation on a stream, written to or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expectation {
    /// The stream.
    pub stream: String,
    /// What must be true of it.
    pub expected: Expected,
}

/// An expectation that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// What was expected.
    pub expectation: Expectation,
    /// Revision of the stream's last event; `None` if it has none.
    pub actual: Option<u64>,
}

/// A request with its expectations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission {
    /// What to append.
    pub request: Request,
    /// What must hold; all of it.
    pub expectations: Vec<Expectation>,
}

/// Number of a command within one sequencer's life, from 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What became of a submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is in the command with this ticket; the receipt holds once that command is accepted.
    Sequenced {
        /// The command.
        ticket: Ticket,
        /// What to answer then.
        receipt: Arc<Receipt>,
    },
    /// A retry of a request that is in a command on its way; as above.
    Joined {
        /// The command.
        ticket: Ticket,
        /// What to answer then.
        receipt: Arc<Receipt>,
    },
    /// A retry of a request that was appended before; this is the first result.
    Repeated(Arc<Receipt>),
    /// Refused: these expectations do not hold.
    Conflicts(Vec<Conflict>),
    /// Refused: a higher epoch of the producer was seen.
    Fenced {
        /// The highest epoch.
        epoch: u32,
    },
    /// Refused: the sequence is older than what is remembered of the producer.
    Forgotten {
        /// First sequence that is remembered for certain.
        oldest: u64,
    },
    /// Refused: the id belongs to an event of another request.
    IdReused {
        /// The id.
        id: EventId,
    },
    /// Refused: the producer appended something else under the sequence.
    SequenceReused {
        /// The sequence.
        sequence: u64,
    },
    /// Refused: only the stream's home may append to it.
    NotHome {
        /// The stream, or the category that was to be handed over.
        stream: String,
        /// Its home, as far as this region knows.
        home: Home,
    },
    /// Refused: the streams have different homes, so no region may append to all of them.
    HomesDiffer {
        /// A stream and its home.
        first: (String, RegionName),
        /// Another one.
        second: (String, RegionName),
    },
    /// Refused: not every region is known to hold the declaration of the home, so nobody can say yet
    /// that an expectation holds everywhere.
    HomeUnconfirmed {
        /// The category.
        category: String,
        /// Regions that have not confirmed it.
        waits_for: Vec<RegionName>,
    },
    /// Refused: the change of class makes no sense.
    Class(ClassRefused),
    /// Refused: the region holds too few rights to a bounded counter.
    Short {
        /// Which counter.
        counter: Counter,
        /// How much was to be taken away.
        wanted: u64,
        /// What the region may take away.
        held: u128,
    },
    /// Refused: the event is of the type that changes rights, and badly formed.
    BadRights(BadOperation),
}

/// A command and what it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticketed {
    /// Its number; tell [`Sequencer::applied`].
    pub ticket: Ticket,
    /// To be proposed, in the order of the tickets.
    pub command: Command,
    /// The same as bytes.
    pub encoded: Bytes,
}

/// Predicts the region's state and writes complete commands. One per term of leadership.
pub struct Sequencer {
    own: Origin,
    clock: StampClock,
    next_ticket: Ticket,
    /// Heads of every origin after all commands on their way.
    heads: BTreeMap<Origin, (Seq, Chain)>,
    frontier: Context,
    last_stamp: Stamp,
    position: u64,
    overlay: Overlay,
}

impl Sequencer {
    /// Starts from the applied state, when everything of earlier terms is applied.
    /// `None` if the log has no genesis yet.
    pub fn new(region: &Region, drift_max: Duration) -> Option<Self> {
        let own = region.origin()?.clone();
        let heads = region.heads().map(|(o, head)| (o.clone(), (head.seq, head.chain))).collect();
        Some(Self {
            own,
            clock: StampClock::new(drift_max),
            next_ticket: Ticket(1),
            heads,
            frontier: region.frontier().clone(),
            last_stamp: match planted::is(Bug::NewLeaderForgetsStamps) {
                true => Stamp::ZERO,
                false => region.last_stamp(),
            },
            position: region.position(),
            overlay: Overlay::default(),
        })
    }

    /// Everything that the log will hold once all commands on their way are applied.
    pub fn frontier(&self) -> &Context {
        &self.frontier
    }
    /// Number of commands on their way.
    pub fn on_their_way(&self) -> usize {
        self.overlay.on_their_way.len()
    }
    /// The greatest stamp that the log will hold or have promised.
    pub fn last_stamp(&self) -> Stamp {
        self.last_stamp
    }

    /// Decides every submission, in order, and writes one command of those that may be appended.
    ///
    /// One verdict a submission. No command if nothing is to be appended.
    ///
    /// # Errors
    /// [`ClockBehind`]: nothing was decided, nothing may be written until the clocks agree.
    pub fn sequence(
        &mut self,
        unix_ms: u64,
        region: &Region,
        submissions: Vec<Submission>,
    ) -> Result<(Option<Ticketed>, Vec<Verdict>), ClockBehind> {
        let stamp = self.clock.propose(unix_ms, self.last_stamp)?;
        let mut draft = Draft::new(self.next_ticket, stamp, self.head(&self.own).0.next());
        let verdicts = submissions
            .into_iter()
            .map(|submission| self.decide(region, submission, &mut draft))
            .collect();
        Ok((self.finish(draft), verdicts))
    }

    fn decide(&mut self, region: &Region, submission: Submission, draft: &mut Draft) -> Verdict {
        let content = submission.request.content_hash();
        if let Some(verdict) = self.known(region, &submission.request, content) {
            return verdict;
        }
        if let Some(verdict) = self.forbids(region, &submission) {
            return verdict;
        }
        let mut expectations = submission.expectations;
        if planted::is(Bug::CheckOnlyIgnored) {
            let events = &submission.request.events;
            expectations.retain(|on| events.iter().any(|event| event.stream == on.stream));
        }
        let conflicts = self.conflicts(region, &expectations);
        if !conflicts.is_empty() {
            return Verdict::Conflicts(conflicts);
        }
        let receipt = Arc::new(self.place(region, &submission.request, content, draft));
        let ticket = draft.ticket;
        if let Some(tag) = submission.request.producer {
            self.overlay.sequences.insert(tag, (ticket, Arc::clone(&receipt)));
            self.overlay.epochs.insert(tag.id, (tag.epoch, ticket));
            draft.way.tags.push(tag);
        }
        for id in submission.request.events.iter().filter_map(|event| event.id) {
            self.overlay.ids.insert(id, (ticket, Arc::clone(&receipt)));
            draft.way.ids.push(id);
        }
        draft.requests.push(submission.request);
        Verdict::Sequenced { ticket, receipt }
    }

    fn known(&self, region: &Region, request: &Request, content: ContentHash) -> Option<Verdict> {
        if let Some(tag) = request.producer {
            if let Some((ticket, receipt)) = self.overlay.sequences.get(&tag)
                && !planted::is(Bug::RetryMissesOnItsWay)
            {
                return Some(match receipt.content == content {
                    true => Verdict::Joined { ticket: *ticket, receipt: Arc::clone(receipt) },
                    false => Verdict::SequenceReused { sequence: tag.sequence },
                });
            }
            let epoch = self.overlay.epochs.get(&tag.id).map_or(0, |(epoch, _)| *epoch);
            if tag.epoch < epoch && !planted::is(Bug::EpochNotFenced) {
                return Some(Verdict::Fenced { epoch });
            }
        }
        let ids: Vec<_> = request.events.iter().filter_map(|event| event.id).collect();
        if let Some(verdict) = self.overlay.known_by_ids(&ids, content) {
            return Some(verdict);
        }
        let key = RequestKey { producer: request.producer, ids: &ids, content };
        match region.known(&key) {
            Known::New => None,
            Known::Done(receipt) => Some(Verdict::Repeated(receipt)),
            Known::Fenced { epoch } => Some(Verdict::Fenced { epoch }),
            Known::Forgotten { oldest } => Some(Verdict::Forgotten { oldest }),
            Known::IdReused { id } => Some(Verdict::IdReused { id }),
            Known::SequenceReused { sequence } => Some(Verdict::SequenceReused { sequence }),
        }
    }

    fn conflicts(&self, region: &Region, expectations: &[Expectation]) -> Vec<Conflict> {
        let failing = |expectation: &&Expectation| {
            let events = match planted::is(Bug::ExpectationsOnAppliedOnly) {
                true => region.stream(&expectation.stream).map_or(0, |head| head.next_revision),
                false => self.next_revision(region, &expectation.stream),
            };
            match expectation.expected {
                Expected::Any => false,
                Expected::NoStream => events != 0,
                Expected::Exists => events == 0 && !planted::is(Bug::ExistsUnchecked),
                Expected::Revision(revision) => revision.checked_add(1) != Some(events),
            }
        };
        let conflict = |expectation: &Expectation| Conflict {
            expectation: expectation.clone(),
            actual: self.next_revision(region, &expectation.stream).checked_sub(1),
        };
        expectations.iter().filter(failing).map(conflict).collect()
    }

    fn next_revision(&self, region: &Region, stream: &str) -> u64 {
        match self.overlay.revisions.get(stream) {
            Some((next, _)) => *next,
            None => region.stream(stream).map_or(0, |head| head.next_revision),
        }
    }

    /// Assigns the numbers of one request's events.
    fn place(
        &mut self,
        region: &Region,
        request: &Request,
        content: ContentHash,
        draft: &mut Draft,
    ) -> Receipt {
        let position = self.position + draft.revisions.len() as u64;
        let first = draft.first.plus(draft.revisions.len() as u64);
        let streams = request.events.iter().map(|event| event.stream.as_str());
        let last_revisions =
            self.claim(region, streams, draft.ticket, &mut draft.way, &mut draft.revisions);
        self.note_own(region, request, draft);
        Receipt {
            origin: self.own.clone(),
            first,
            events: request.events.len() as u32,
            content,
            position,
            stamp: draft.stamp,
            last_revisions,
        }
    }

    /// Gives each event its stream's next revision; returns the last of each stream, in the order in
    /// which the events first name them.
    fn claim<'a>(
        &mut self,
        region: &Region,
        streams: impl Iterator<Item = &'a str>,
        ticket: Ticket,
        way: &mut OnItsWay,
        revisions: &mut Vec<u64>,
    ) -> Box<[u64]> {
        let mut last_revisions = LastRevisions::new();
        let mut streams = streams.peekable();
        while let Some(stream) = streams.next() {
            let mut events = 1;
            while streams.next_if_eq(&stream).is_some() {
                events += 1;
            }
            let first = self.next_revision(region, stream);
            let next = first + events;
            if let Some(stream) = self.overlay.foresee(stream, next, ticket) {
                way.streams.push(stream);
            }
            revisions.extend(first..next);
            last_revisions.note(stream, next - 1);
        }
        last_revisions.into_boxed()
    }

    fn finish(&mut self, draft: Draft) -> Option<Ticketed> {
        if draft.requests.is_empty() {
            return None;
        }
        let header = GroupHeader {
            origin: self.own.clone(),
            first: draft.first,
            events: draft.revisions.len() as u32,
            stamp: draft.stamp,
            context: self.frontier.without(&self.own),
            prev: self.head(&self.own).1,
        };
        let (command, encoded) =
            Command::local(self.position, draft.revisions, header, &draft.requests);
        command.groups().iter().for_each(|placed| self.pass(&placed.group));
        Some(self.send(draft.way, command, encoded))
    }

    /// Writes the command that imports `groups`, each after all that is in its context, and
    /// `digests`. The importer has checked that they continue [`frontier`](Self::frontier).
    pub fn import(
        &mut self,
        region: &Region,
        groups: Vec<Group>,
        digests: Vec<Digest>,
    ) -> Ticketed {
        let ticket = self.next_ticket;
        let position = self.position;
        let mut way = OnItsWay::new(ticket);
        let placed = groups
            .into_iter()
            .map(|group| {
                let mut revisions = Vec::with_capacity(group.header().events as usize);
                for request in group.look() {
                    let first = revisions.len() as u64;
                    for event in request.events.iter().filter(|event| event.is_of_the_store()) {
                        let dot = Dot { origin: group.origin().clone(), seq: event.seq };
                        let what = (event.stream, event.kind, event.payload);
                        self.overlay.note(region, &dot, group.stamp(), what, &mut way);
                    }
                    let streams = request.events.iter().map(|event| event.stream);
                    let last = self.claim(region, streams, ticket, &mut way, &mut revisions);
                    let receipt = Receipt {
                        origin: group.origin().clone(),
                        first: group.first().plus(first),
                        events: request.events.len() as u32,
                        content: request.content_hash(),
                        position: self.position + first,
                        stamp: group.stamp(),
                        last_revisions: last,
                    };
                    self.overlay.remember(region, &request, Arc::new(receipt), &mut way);
                }
                self.pass(&group);
                PlacedGroup { group, revisions }
            })
            .collect();
        let command = Command::Import { position, groups: placed, digests };
        let encoded = command.encode();
        self.send(way, command, encoded)
    }

    /// Writes a promise that no later event of this region is stamped at or below now.
    ///
    /// # Errors
    /// [`ClockBehind`] as for [`sequence`](Self::sequence).
    pub fn close(&mut self, unix_ms: u64) -> Result<Ticketed, ClockBehind> {
        let stamp = self.clock.propose(unix_ms, self.last_stamp)?;
        self.last_stamp = stamp;
        let command = Command::Close { stamp };
        let encoded = command.encode();
        Ok(self.send(OnItsWay::new(self.next_ticket), command, encoded))
    }

    /// Takes note that the command was applied; its prediction is the region's state now.
    pub fn applied(&mut self, ticket: Ticket) {
        while self.overlay.on_their_way.front().is_some_and(|way| way.ticket <= ticket) {
            let way = self.overlay.on_their_way.pop_front().expect("looked at just now");
            self.overlay.land(&way);
        }
    }

    fn head(&self, origin: &Origin) -> (Seq, Chain) {
        self.heads.get(origin).copied().unwrap_or((Seq(0), Chain::START))
    }

    /// Moves the prediction past a group.
    fn pass(&mut self, group: &Group) {
        self.position += u64::from(group.header().events);
        self.frontier.advance(group.origin(), group.last());
        self.heads.insert(group.origin().clone(), (group.last(), group.chain()));
        if *group.origin() == self.own || !planted::is(Bug::ImportDoesNotRaiseClock) {
            self.last_stamp = self.last_stamp.max(group.stamp());
        }
    }

    fn send(&mut self, way: OnItsWay, command: Command, encoded: Bytes) -> Ticketed {
        let ticket = way.ticket;
        assert_eq!(ticket, self.next_ticket, "one command a ticket");
        self.next_ticket = Ticket(ticket.0 + 1);
        self.overlay.on_their_way.push_back(way);
        Ticketed { ticket, command, encoded }
    }
}

/// The command that is being written.
struct Draft {
    ticket: Ticket,
    stamp: Stamp,
    first: Seq,
    requests: Vec<Request>,
    revisions: Vec<u64>,
    way: OnItsWay,
}

impl Draft {
    fn new(ticket: Ticket, stamp: Stamp, first: Seq) -> Self {
        let way = OnItsWay::new(ticket);
        Self { ticket, stamp, first, requests: Vec::new(), revisions: Vec::new(), way }
    }
}

#[cfg(test)]
mod tests;
