//! Producers: the same sequence again, in the same region or in another; the same ids again; and
//! the new life of a producer that stops the old one.

use std::time::Duration;

use anabranch_client::{Producer, Ticket};
use anabranch_history::op::{Ack, By, Outcome};
use anabranch_history::shape::Class;
use rand::Rng;

use crate::everywhere::Everywhere;
use crate::home::Home;
use crate::reads;
use crate::scribe::{Scribe, Sent, Told, Wish};

/// Streams that producers of all regions write to.
const SHARED: u32 = 4;
/// How often an unknown outcome is asked for again.
const RETRIES: u32 = 4;

/// A producer, its clients in all regions, and what it was told last.
struct Maker {
    scribe: Scribe,
    clients: Everywhere,
    /// Number of the region it works in.
    here: usize,
    /// Whether its events carry ids.
    named: bool,
    last: Option<(Sent, Ack)>,
}

/// Runs client `nth` of the region until it is told to stop.
pub(crate) async fn run(home: Home, nth: u32) {
    // Where events carry ids, too, these could hide that sequences are forgotten. Half of all
    // producers send none.
    let named = (home.number as u32 + nth).is_multiple_of(2);
    let class = if named { Class::Producer } else { Class::Anonymous };
    let (number, here) = (class.writer(home.number, nth), home.number);
    let clients = Everywhere::new(&home, "producer", nth);
    let rng = home.rng("producer", nth);
    let scribe = Scribe::new(home, number, clients.client(here).clone(), false, rng);
    let mut maker = Maker { scribe, clients, here, named, last: None };
    while !maker.scribe.home.stopped() {
        match maker.scribe.rng.random_range(0..100) {
            0..60 => maker.make().await,
            60..75 => maker.repeat(maker.here).await,
            75..90 => maker.repeat_elsewhere().await,
            _ => maker.live_again().await,
        }
        let Scribe { home, rng, .. } = &mut maker.scribe;
        home.think(rng).await;
    }
}

impl Maker {
    /// Appends, and asks for an unknown outcome again and again, now and then in another region.
    async fn make(&mut self) {
        let wish = self.draw();
        let wanders = self.scribe.rng.random_bool(0.3);
        let sent = self.scribe.begin(wish, wanders);
        let mut told = self.first(&sent).await;
        let mut there = self.here;
        for _ in 0..RETRIES {
            if told.ticket.is_none() || !self.scribe.rng.random_bool(0.9) {
                break;
            }
            if wanders && self.scribe.rng.random_bool(0.5) {
                let next = self.scribe.home.elsewhere(&mut self.scribe.rng);
                if next != there {
                    self.clients.carry(there, next);
                    there = next;
                }
            }
            let region = self.scribe.home.sites.regions()[there].clone();
            let ticket = Ticket { region, tag: sent.tag };
            told = self.scribe.send_again(self.clients.client(there), &sent, ticket).await;
        }
        self.scribe.settle(&sent, &told);
        if there != self.here {
            self.clients.carry(there, self.here);
        }
        if let Outcome::Acknowledged(ack) = told.outcome {
            self.last = Some((sent, ack));
        }
    }

    /// The first attempt; some are given up before an answer can have come.
    async fn first(&mut self, sent: &Sent) -> Told {
        if !self.scribe.rng.random_bool(0.25) {
            return self.scribe.send(sent).await;
        }
        let patience = Duration::from_micros(self.scribe.rng.random_range(200..20_000));
        let deadline = self.scribe.set_deadline(patience);
        let told = self.scribe.send(sent).await;
        self.scribe.set_deadline(deadline);
        told
    }

    async fn repeat(&mut self, there: usize) {
        // A copy of a retry that wandered may stand under another dot: nothing to compare with.
        let Some((sent, first)) = self.last.clone().filter(|(sent, _)| !sent.roams) else { return };
        let by_ids = self.named && self.scribe.rng.random_bool(0.5);
        let by = if by_ids { By::EventIds } else { By::Sequence };
        let region = self.scribe.home.sites.regions()[there].clone();
        self.scribe.repeat(self.clients.client(there), &region, &sent, first, by).await;
    }

    /// Repeats in a region that has the first, as a read there with the session shows.
    async fn repeat_elsewhere(&mut self) {
        let there = self.scribe.home.elsewhere(&mut self.scribe.rng);
        let Some((sent, _)) = &self.last else { return };
        self.clients.carry(self.here, there);
        let stream = sent.events[0].stream.clone();
        let read = self.clients.client(there).read_stream(stream.clone()).backwards().limit(1);
        let what = || format!("a read of {stream} elsewhere");
        let (home, number) = (&self.scribe.home, self.scribe.number);
        if reads::collect(home, number, what, read).await.is_some() {
            self.repeat(there).await;
        }
    }

    /// Begins a new life under the next epoch; what the old one still sends must be fenced.
    async fn live_again(&mut self) {
        let old = self.scribe.producer.clone();
        let new = self.scribe.client.producer_with(old.id(), old.epoch() + 1, 1);
        self.scribe.producer = new.clone();
        self.make_plainly().await;
        if self.last.as_ref().is_some_and(|(sent, _)| sent.tag.epoch == new.epoch()) {
            self.zombie(old).await;
        }
        self.scribe.producer = new;
    }

    async fn zombie(&mut self, old: Producer) {
        self.scribe.producer = old;
        let wish = self.draw();
        let sent = self.scribe.begin(wish, false);
        let told = self.scribe.send(&sent).await;
        self.scribe.settle(&sent, &told);
    }

    async fn make_plainly(&mut self) {
        let wish = self.draw();
        let (sent, told) = self.scribe.append(wish).await;
        if let Outcome::Acknowledged(ack) = told.outcome {
            self.last = Some((sent, ack));
        }
    }

    fn draw(&mut self) -> Wish {
        let own = format!("made-{}", self.scribe.number);
        let rng = &mut self.scribe.rng;
        let shared = format!("made-all-{}", rng.random_range(0..SHARED));
        (0..rng.random_range(1..=3)).fold(Wish::new(), |wish, _| {
            let stream = if rng.random_bool(0.7) { &own } else { &shared };
            wish.event(stream, rng.random_range(0..200))
        })
    }
}
