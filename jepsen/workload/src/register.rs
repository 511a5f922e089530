//! Registers: conditional appends of several clients to a few hot streams, those of the region and
//! those that all regions share; some expectations are wrong on purpose.

use std::sync::Arc;

use anabranch_client::Expect;
use anabranch_history::op::{Ack, By, Outcome};
use anabranch_history::shape::Class;
use rand::Rng;
use rand::rngs::SmallRng;

use crate::home::Home;
use crate::reads;
use crate::revisions::{Revisions, wrong};
use crate::scribe::{Scribe, Sent, Wish};

/// Streams that every region writes to.
const SHARED: u32 = 3;
/// Streams that one region writes to.
const OWN: u32 = 3;
/// The region's own streams are new ones every so often, so that they can be read whole.
const ERA_SECONDS: u64 = 20;

/// Runs client `nth` of the region until it is told to stop.
pub(crate) async fn run(home: Home, nth: u32, revisions: Arc<Revisions>) {
    // The last of several may go to another region when its own is gone.
    let roams = nth > 0 && nth + 1 == home.plan.mix.registers;
    let number = Class::Register.writer(home.number, nth);
    let client = home.client("register", nth, roams);
    let rng = home.rng("register", nth);
    let mut scribe = Scribe::new(home, number, client, roams, rng);
    let mut last: Option<(Sent, Ack)> = None;
    while !scribe.home.stopped() {
        match (scribe.rng.random_range(0..100), &last) {
            (0..8, Some((sent, first))) if !roams => {
                repeat(&mut scribe, sent.clone(), first.clone()).await
            }
            (8..16, _) => {
                let stream = own(&mut scribe);
                reads::whole(&scribe, &stream).await;
            }
            _ => {
                let wish = draw(&mut scribe, &revisions);
                let (sent, told) = scribe.append(wish).await;
                revisions.learn(&told.outcome);
                if let Outcome::Acknowledged(ack) = told.outcome {
                    last = Some((sent, ack));
                }
            }
        }
        scribe.home.think(&mut scribe.rng).await;
    }
}

async fn repeat(scribe: &mut Scribe, sent: Sent, first: Ack) {
    let by = if scribe.rng.random_bool(0.5) { By::Sequence } else { By::EventIds };
    let (client, region) = (scribe.client.clone(), scribe.region.clone());
    scribe.repeat(&client, &region, &sent, first, by).await;
}

fn own(scribe: &mut Scribe) -> String {
    let era = scribe.home.ledger.now().as_secs() / ERA_SECONDS;
    format!("own-{}-{}-{era}", scribe.home.name(), scribe.rng.random_range(0..OWN))
}

fn shared(rng: &mut SmallRng) -> String {
    format!("hot-{}", rng.random_range(0..SHARED))
}

fn draw(scribe: &mut Scribe, revisions: &Revisions) -> Wish {
    let own = own(scribe);
    let rng = &mut scribe.rng;
    let stream = if rng.random_bool(0.55) { own } else { shared(rng) };
    let wish = (0..rng.random_range(1..4))
        .fold(Wish::new(), |wish, _| wish.event(&stream, rng.random_range(0..300)));
    let right = revisions.expectation(&stream);
    match rng.random_range(0..100) {
        0..55 => wish.expect(stream, right),
        55..65 => wish.expect(stream, wrong(rng, right)),
        65..75 => wish.expect(stream, Expect::Exists),
        75..88 => wish,
        _ => wish.held_by(2),
    }
}
