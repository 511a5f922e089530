//! A scribe: gives each append of a client its name, sends it, and enters into the ledger what the
//! client is told.

use std::future::IntoFuture as _;
use std::time::Duration;

use anabranch_client::{
    Append, AppendError, Appended, Client, Code, Expect, NewEvent, Producer, ProducerTag, Regions,
    Ticket,
};
use anabranch_history::content::{Mark, Name, new_event};
use anabranch_history::ledger::{Call, OpId};
use anabranch_history::note::{Note, Refusal};
use anabranch_history::op::{Ack, Asked, By, Conflict, Expectation, Outcome, Repeat};
use anabranch_history::said::Said;
use anabranch_history::shape;
use rand::Rng;
use rand::rngs::SmallRng;

use crate::home::Home;

/// How often an unknown outcome is asked for again before it is left unknown.
const RETRIES_OF_UNKNOWN: u32 = 2;
/// How long an append may wait for other regions.
const WITHIN_REGIONS: Duration = Duration::from_millis(800);

/// An append to be made.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Wish {
    /// The events, in order.
    pub(crate) events: Vec<Piece>,
    /// What is expected.
    pub(crate) expects: Vec<Expectation>,
    /// Regions that must hold it before it is acknowledged; 0 and 1: its own.
    pub(crate) regions: u32,
    /// Bytes that all events must have together: the last one's payload makes it so.
    pub(crate) bytes: Option<usize>,
}

/// An event to be made.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Piece {
    pub(crate) stream: String,
    pub(crate) amount: i64,
    pub(crate) size: u32,
    pub(crate) says: Option<Said>,
}

impl Wish {
    /// A wish for nothing yet.
    pub(crate) fn new() -> Self {
        Self::default()
    }
    /// Adds an event that brings no money.
    pub(crate) fn event(self, stream: impl Into<String>, size: u32) -> Self {
        self.money(stream, 0, size)
    }
    /// Adds an event that brings money.
    pub(crate) fn money(mut self, stream: impl Into<String>, amount: i64, size: u32) -> Self {
        self.events.push(Piece { stream: stream.into(), amount, size, says: None });
        self
    }
    /// Adds an event that the store itself reads.
    pub(crate) fn tell(mut self, stream: impl Into<String>, said: Said) -> Self {
        let size = said.payload.len() as u32;
        self.events.push(Piece { stream: stream.into(), amount: 0, size, says: Some(said) });
        self
    }
    /// Adds an expectation.
    pub(crate) fn expect(mut self, stream: impl Into<String>, expected: Expect) -> Self {
        self.expects.push(Expectation { stream: stream.into(), expected });
        self
    }
    /// Wants it held by so many regions.
    pub(crate) fn held_by(mut self, regions: u32) -> Self {
        self.regions = regions;
        self
    }
}

/// An append that was sent at least once.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) op: OpId,
    pub(crate) tag: ProducerTag,
    pub(crate) events: Vec<Asked>,
    /// Whether it may have been sent to several regions.
    pub(crate) roams: bool,
    expects: Vec<Expectation>,
    regions: u32,
}

/// What a client was told, and what it needs to ask again.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) outcome: Outcome,
    /// If it is unknown: what names the attempt.
    pub(crate) ticket: Option<Ticket>,
    /// If it was refused, what the refusal says beyond words.
    pub(crate) refusal: Option<Refusal>,
}

/// Writes for one client: one append at a time, all under one producer.
pub(crate) struct Scribe {
    pub(crate) home: Home,
    pub(crate) number: u32,
    pub(crate) client: Client,
    pub(crate) producer: Producer,
    /// Name of the region that is asked first.
    pub(crate) region: String,
    /// Whether appends may go to other regions.
    pub(crate) roams: bool,
    pub(crate) rng: SmallRng,
    deadline: Duration,
    op: u32,
}

impl Scribe {
    /// A scribe of a client that is at home here.
    pub(crate) fn new(home: Home, number: u32, client: Client, roams: bool, rng: SmallRng) -> Self {
        let (producer, region) = (client.producer(), home.name().to_owned());
        let deadline = home.plan.deadline;
        Self { home, number, client, producer, region, roams, rng, deadline, op: 0 }
    }
    /// Gives appends another deadline than the plan's, and returns the one before.
    pub(crate) fn set_deadline(&mut self, deadline: Duration) -> Duration {
        std::mem::replace(&mut self.deadline, deadline)
    }
    /// Goes on as another client of the same person, perhaps in another region.
    pub(crate) fn move_to(&mut self, client: &Client, region: &str) {
        self.client = client.clone();
        self.producer = client.producer();
        self.region = region.to_owned();
    }
    /// Number of the next operation.
    pub(crate) fn next_op(&self) -> u32 {
        self.op + 1
    }
    /// Passes over an operation number.
    pub(crate) fn skip_op(&mut self) {
        self.op += 1;
    }

    /// Appends; an unknown outcome is often asked for again, in the same region.
    pub(crate) async fn append(&mut self, wish: Wish) -> (Sent, Told) {
        let sent = self.begin(wish, self.roams);
        let mut told = self.send(&sent).await;
        let mut retries = 0;
        while let Some(ticket) = &told.ticket
            && retries < RETRIES_OF_UNKNOWN
            && self.rng.random_bool(0.7)
        {
            retries += 1;
            told = self.send_again(&self.client, &sent, ticket.clone()).await;
        }
        self.settle(&sent, &told);
        (sent, told)
    }

    /// Names an append and enters it. `roams`: whether it may be sent to several regions.
    pub(crate) fn begin(&mut self, wish: Wish, roams: bool) -> Sent {
        self.op += 1;
        let (run, writer, op) = (self.home.plan.run, self.number, self.op);
        let asked = |(nth, Piece { stream, amount, size, says })| {
            let id = Name { run, writer, op, nth }.id();
            Asked { id, stream, amount, size, says }
        };
        let Wish { events, expects, regions, bytes } = wish;
        let mut events: Vec<Asked> = (0..).zip(events).map(asked).collect();
        // Only this task uses the producer, and one append at a time.
        let tag = self.producer.next();
        if let Some(bytes) = bytes {
            fill(tag, &mut events, bytes);
        }
        let call = Call {
            writer,
            region: self.region.clone(),
            roams,
            tag,
            events: events.clone(),
            expects: expects.clone(),
            regions: regions.max(1),
        };
        let op = self.home.ledger.begin(call);
        Sent { op, tag, events, roams, expects, regions }
    }

    /// Sends an append for the first time.
    pub(crate) async fn send(&self, sent: &Sent) -> Told {
        let append = self.build(sent, |stream, event| self.producer.append(stream, event));
        self.tell(append, sent).await
    }
    /// Sends an append again under its first sequence, to the region that the ticket names.
    pub(crate) async fn send_again(&self, client: &Client, sent: &Sent, ticket: Ticket) -> Told {
        let append = self.build(sent, |stream, event| client.append(stream, event));
        self.tell(append.retry_of(ticket), sent).await
    }
    /// Enters what the client was told.
    pub(crate) fn settle(&self, sent: &Sent, told: &Told) {
        self.home.ledger.settle(sent.op, told.outcome.clone());
    }

    /// Sends again what was acknowledged, to the region of `client`. The answer is entered.
    pub(crate) async fn repeat(
        &self,
        client: &Client,
        region: &str,
        sent: &Sent,
        first: Ack,
        by: By,
    ) {
        let append = self.build(sent, |stream, event| client.append(stream, event));
        let append = match by {
            By::Sequence => append.retry_of(Ticket { region: region.to_owned(), tag: sent.tag }),
            By::EventIds => append,
        };
        let again = match self.call(append).await {
            Some(Ok(again)) => again,
            Some(Err(AppendError::RegionsShort { appended, .. })) => *appended,
            Some(Err(_)) | None => return,
        };
        let said_so = again.repeated;
        let region = region.to_owned();
        self.home.ledger.repeated(Repeat { first, by, region, again: ack(again), said_so });
    }

    fn build(&self, sent: &Sent, begin: impl FnOnce(String, NewEvent) -> Append) -> Append {
        let marks = Mark::all(sent.tag, &sent.events);
        let mut events = sent.events.iter().zip(marks);
        let mut next =
            || events.next().map(|(asked, mark)| (asked.stream.clone(), new_event(asked, mark)));
        let (stream, event) = next().expect("an append has an event");
        let mut append = begin(stream, event).timeout(self.deadline);
        while let Some((stream, event)) = next() {
            append = append.and(stream, event);
        }
        for Expectation { stream, expected } in &sent.expects {
            append = append.expect_of(stream, *expected);
        }
        match sent.regions {
            0 | 1 => append,
            regions => append.acknowledge(Regions(regions), WITHIN_REGIONS),
        }
    }

    async fn call(&self, append: Append) -> Option<Result<Appended, AppendError>> {
        let what = || "an append".to_owned();
        let limit = self.deadline + WITHIN_REGIONS;
        self.home.answer(self.number, limit, what, append.into_future()).await
    }

    async fn tell(&self, append: Append, sent: &Sent) -> Told {
        let Some(result) = self.call(append).await else {
            let why = "the client was silent".into();
            return Told { outcome: Outcome::Unknown { why }, ticket: None, refusal: None };
        };
        let refusal = result.as_ref().err().and_then(refusal);
        if let Some(by) = refusal.clone() {
            self.home.ledger.note(Note::Refused { tag: sent.tag, by });
        }
        Told { refusal, ..told(result) }
    }
}

/// Sizes the last payload so that all events have `bytes` together, as the server counts them.
fn fill(tag: ProducerTag, events: &mut [Asked], bytes: usize) {
    // The mark tells the size, in digits: a first guess with as many as the answer.
    let last = events.len() - 1;
    events[last].size = 100_000;
    let marks = Mark::all(tag, events);
    let held: usize = events
        .iter()
        .zip(marks)
        .map(|(asked, mark)| {
            let metadata = shape::metadata_bytes(&shape::metadata(asked.id, &mark));
            asked.stream.len() + shape::kind(asked.id).len() + metadata + asked.size as usize
        })
        .sum();
    events[last].size += (bytes - held) as u32;
    assert!((100_000..1_000_000).contains(&events[last].size), "a guess of six digits was right");
}

fn ack(appended: Appended) -> Ack {
    let Appended { first, events, position, stamp, revisions, regions, .. } = appended;
    Ack { first, events, position, stamp, revisions, regions }
}

/// What a client was told, as the ledger has it.
fn told(result: Result<Appended, AppendError>) -> Told {
    let (outcome, ticket) = match result {
        Ok(appended) => (Outcome::Acknowledged(ack(appended)), None),
        Err(AppendError::RegionsShort { appended, .. }) => {
            (Outcome::Acknowledged(ack(*appended)), None)
        }
        Err(AppendError::Conflict { conflicts }) => {
            let conflict = |conflict: anabranch_client::Conflict| Conflict {
                expectation: Expectation { stream: conflict.stream, expected: conflict.expected },
                actual: conflict.actual,
            };
            let conflicts = conflicts.into_iter().map(conflict).collect();
            (Outcome::Conflict { conflicts }, None)
        }
        Err(error) if error.is_refused() => (Outcome::Refused { why: error.to_string() }, None),
        Err(error) => {
            let why = error.to_string();
            let ticket = match error {
                AppendError::Unknown { ticket, .. } => Some(ticket),
                _ => None,
            };
            (Outcome::Unknown { why }, ticket)
        }
    };
    Told { outcome, ticket, refusal: None }
}

/// What a refusal says beyond words; none if it is none, or has an outcome of its own.
fn refusal(error: &AppendError) -> Option<Refusal> {
    Some(match error {
        AppendError::Conflict { .. }
        | AppendError::RegionsShort { .. }
        | AppendError::Unknown { .. } => return None,
        AppendError::Invalid { field, limit, actual, .. } => {
            Refusal::Invalid { field: field.clone(), limit: *limit, actual: *actual }
        }
        AppendError::Overloaded { what, retry_after } => {
            Refusal::Overloaded { what: what.clone(), retry_after: *retry_after }
        }
        AppendError::Fenced { epoch } => Refusal::Fenced { epoch: *epoch },
        AppendError::Forgotten { .. } => Refusal::Forgotten,
        AppendError::Unavailable { .. } => Refusal::Unavailable,
        // A clock that is off, a region set back to an old copy: it says nothing of the append.
        AppendError::Refused { code: Code::Unavailable | Code::FailedPrecondition, .. } => {
            Refusal::Unavailable
        }
        AppendError::NotHome { home, epoch, .. } => {
            Refusal::NotHome { home: home.clone(), epoch: *epoch }
        }
        AppendError::HomeUnreachable { .. } => Refusal::Unavailable,
        AppendError::HomeUnconfirmed { .. } => Refusal::HomeUnconfirmed,
        AppendError::RightsShort { wanted, held, .. } => {
            Refusal::RightsShort { wanted: *wanted, held: *held }
        }
        AppendError::NoDefinition { .. } | AppendError::Refused { .. } => Refusal::Other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use anabranch_client::ProducerId;

    #[test]
    fn an_append_is_filled_to_the_byte() {
        for sequence in [1, 999, 1_000_000] {
            let tag = ProducerTag { id: ProducerId([3; 16]), epoch: 1, sequence };
            let asked = |nth| Asked {
                id: Name { run: 1, writer: 2, op: 3, nth }.id(),
                stream: format!("probe-{nth}"),
                amount: 0,
                size: 900_000,
                says: None,
            };
            let mut events: Vec<Asked> = (0..5).map(asked).collect();
            fill(tag, &mut events, 4 * 1024 * 1024);
            let bytes: usize = events
                .iter()
                .zip(Mark::all(tag, &events))
                .map(|(asked, mark)| {
                    let metadata = format!("producer{mark}").len();
                    asked.stream.len() + "Noted".len() + metadata + asked.size as usize
                })
                .sum();
            assert_eq!(bytes, 4 * 1024 * 1024);
        }
    }
}
