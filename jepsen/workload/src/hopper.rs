//! Sessions: clients that hop from region to region with their token, write here and read there.

use anabranch_history::op::Outcome;
use anabranch_history::shape::Class;
use rand::Rng;

use crate::everywhere::Everywhere;
use crate::home::Home;
use crate::reads;
use crate::scribe::{Scribe, Wish};

/// After so many appends a hopper begins a new stream, so that the old one can be read whole.
const ERA: u32 = 20;

/// Runs client `nth` of the region until it is told to stop.
pub(crate) async fn run(home: Home, nth: u32) {
    let number = Class::Hopper.writer(home.number, nth);
    let clients = Everywhere::new(&home, "hopper", nth);
    let (mut here, regions) = (home.number, home.sites.regions().to_vec());
    let rng = home.rng("hopper", nth);
    let mut scribe = Scribe::new(home, number, clients.client(here).clone(), false, rng);
    while !scribe.home.stopped() {
        if scribe.rng.random_bool(0.4) {
            let there = scribe.rng.random_range(0..regions.len());
            if there != here {
                clients.carry(here, there);
                here = there;
                scribe.move_to(clients.client(here), &regions[here]);
            }
        }
        let stream = format!("hop-{}-{nth}-{}", scribe.home.name(), scribe.next_op() / ERA);
        if scribe.rng.random_bool(0.55) {
            let size = scribe.rng.random_range(0..100);
            let (_, told) = scribe.append(Wish::new().event(&stream, size)).await;
            // Right after a write somebody else's region is where a lie would show.
            if matches!(told.outcome, Outcome::Acknowledged(_)) && scribe.rng.random_bool(0.5) {
                let there = scribe.rng.random_range(0..regions.len());
                if there != here {
                    clients.carry(here, there);
                    here = there;
                    scribe.move_to(clients.client(here), &regions[here]);
                }
                reads::whole(&scribe, &stream).await;
            }
        } else {
            reads::whole(&scribe, &stream).await;
        }
        scribe.home.think(&mut scribe.rng).await;
    }
}
