//! A writer: appends one after the other, and enters into the ledger what it is told.

use std::sync::Arc;
use std::time::Duration;

use anabranch_client::{
    Append, AppendError, Appended, Client, EventId, Producer, ProducerTag, Regions,
};
use rand::Rng;
use rand::rngs::SmallRng;
use tokio::sync::watch;

use super::requests::{self, Revisions, Wish};
use super::{Load, rng};
use crate::content::{Name, new_event};
use crate::history::{Ack, By, Ledger, Outcome, Repeat};

/// How often an unknown outcome is asked for again before it is left unknown.
const RETRIES_OF_UNKNOWN: u32 = 2;
const WITHIN_REGIONS: Duration = Duration::from_millis(800);

pub(super) struct Writer {
    number: u32,
    region: &'static str,
    load: Load,
    client: Client,
    producer: Producer,
    roams: bool,
    revisions: Arc<Revisions>,
    ledger: Arc<Ledger>,
    stop: watch::Receiver<bool>,
    rng: SmallRng,
    op: u32,
    /// The last append that was acknowledged, to repeat.
    last: Option<(Sent, Ack)>,
}

/// An append as it was sent.
#[derive(Debug, Clone)]
struct Sent {
    wish: Wish,
    tag: ProducerTag,
    ids: Vec<EventId>,
}

impl Writer {
    #[allow(clippy::too_many_arguments, reason = "each is another thing, and there is one caller")]
    pub(super) fn new(
        number: u32,
        region: &'static str,
        load: Load,
        client: Client,
        roams: bool,
        revisions: Arc<Revisions>,
        ledger: Arc<Ledger>,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let producer = client.producer();
        let rng = rng(load.seed, number.into());
        let (op, last) = (0, None);
        Self {
            number,
            region,
            load,
            client,
            producer,
            roams,
            revisions,
            ledger,
            stop,
            rng,
            op,
            last,
        }
    }

    pub(super) async fn run(mut self) {
        while !*self.stop.borrow() {
            if self.rng.random_bool(0.08) && !self.roams {
                self.repeat().await;
            } else {
                self.append().await;
            }
            let think = self.load.think.mul_f64(self.rng.random());
            tokio::time::sleep(think).await;
        }
    }

    async fn append(&mut self) {
        let wish = requests::draw(&mut self.rng, self.region, &self.revisions);
        let sent = self.name(wish);
        let ids = sent.ids.iter().copied();
        let events =
            ids.zip(sent.wish.stream_of_each()).map(|(id, stream)| (id, stream.to_owned()));
        let id = self.ledger.begin(self.number, sent.tag, events.collect(), sent.wish.expect);
        let mut result = self.build(&sent).await;
        let mut retries = 0;
        while let Err(AppendError::Unknown { ticket, .. }) = &result
            && retries < RETRIES_OF_UNKNOWN
            && self.rng.random_bool(0.7)
        {
            retries += 1;
            result = self.build(&sent).retry_of(ticket.clone()).await;
        }
        if let Err(AppendError::Conflict { conflicts }) = &result {
            conflicts.iter().for_each(|c| self.revisions.learn(&c.stream, c.actual));
        }
        let outcome = outcome(result);
        if let Outcome::Acknowledged(ack) = &outcome {
            for (stream, last) in &ack.revisions {
                self.revisions.learn(stream, Some(*last));
            }
            self.last = Some((sent, ack.clone()));
        }
        self.ledger.settle(id, outcome);
    }

    fn name(&mut self, wish: Wish) -> Sent {
        self.op += 1;
        let (run, writer, op) = (self.load.run, self.number, self.op);
        let events: u32 = wish.streams.iter().map(|(_, events)| events).sum();
        let ids = (0..events).map(|nth| Name { run, writer, op, nth }.id()).collect();
        // Only this task uses the producer, and one append at a time.
        Sent { wish, tag: self.producer.next(), ids }
    }

    fn build(&self, sent: &Sent) -> Append {
        self.build_with(sent, |stream, events| self.producer.append(stream, events))
    }

    fn build_with(
        &self,
        sent: &Sent,
        begin: impl FnOnce(String, Vec<anabranch_client::NewEvent>) -> Append,
    ) -> Append {
        let mut ids = sent.ids.iter();
        let mut of_streams = sent.wish.streams.iter().map(|(stream, events)| {
            let ids = ids.by_ref().take(*events as usize);
            (stream.clone(), ids.map(|id| new_event(*id, sent.tag)).collect::<Vec<_>>())
        });
        let (stream, events) = of_streams.next().expect("a wish names a stream");
        let append = of_streams
            .fold(begin(stream, events), |append, (stream, events)| append.and(stream, events));
        let append = append.expect(sent.wish.expect);
        match sent.wish.regions {
            0 | 1 => append,
            regions => append.acknowledge(Regions(regions), WITHIN_REGIONS),
        }
    }

    /// Sends again what was acknowledged. An answer must be the first one.
    async fn repeat(&mut self) {
        let Some((sent, first)) = self.last.clone() else { return };
        let by = if self.rng.random_bool(0.5) { By::Sequence } else { By::EventIds };
        let sequence = sent.tag.sequence;
        let again = match by {
            By::Sequence => {
                self.build_with(&sent, |stream, events| {
                    self.producer.append_again(sequence, stream, events)
                })
                .await
            }
            By::EventIds => {
                self.build_with(&sent, |stream, events| self.client.append(stream, events)).await
            }
        };
        if let Ok(again) | Err(AppendError::RegionsShort { appended: again, .. }) =
            again.map(Box::new)
        {
            let said_so = again.repeated;
            self.ledger.repeated(Repeat { first, by, again: ack(*again), said_so });
        }
    }
}

impl Wish {
    fn stream_of_each(&self) -> impl Iterator<Item = &str> {
        self.streams.iter().flat_map(|(stream, events)| (0..*events).map(move |_| stream.as_str()))
    }
}

fn ack(appended: Appended) -> Ack {
    let Appended { first, events, position, stamp, revisions, .. } = appended;
    Ack { first, events, position, stamp, revisions }
}

/// What a client was told, as the ledger has it.
pub(super) fn outcome(result: Result<Appended, AppendError>) -> Outcome {
    match result {
        Ok(appended) => Outcome::Acknowledged(ack(appended)),
        Err(AppendError::RegionsShort { appended, .. }) => Outcome::Acknowledged(ack(*appended)),
        Err(error) if error.is_refused() => Outcome::Refused { why: error.to_string() },
        Err(error) => Outcome::Unknown { why: error.to_string() },
    }
}
