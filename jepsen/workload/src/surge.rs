//! Overload: many clients at once, for as long as the driver wants them.

use std::time::Duration;

use anabranch_client::Client;
use anabranch_history::shape::Class;
use rand::Rng;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::home::Home;
use crate::scribe::{Scribe, Wish};

/// Connections that the many share.
const CLIENTS: u32 = 4;
/// Numbers for them, over all surges of a run. When they are used up nobody else comes.
const CROWD_MAX: u32 = 1 << 16;
/// Streams that they write to.
const STREAMS: u32 = 8;
/// They are in a hurry: what is refused for long is given up.
const PATIENCE: Duration = Duration::from_millis(700);

/// Sends clients in whenever `wanted` says so and calls them back when it no longer does; until the
/// region is told to stop.
pub(crate) async fn run(mut home: Home, mut wanted: watch::Receiver<bool>) {
    let clients: Vec<Client> = (0..CLIENTS).map(|nth| home.client("surge", nth, false)).collect();
    // Clients are numbered on over all surges, so that no two write under one name.
    let mut next = 0;
    while !home.stopped() {
        if !*wanted.borrow_and_update() {
            tokio::select! {
                biased;
                _ = home.stop.changed() => {}
                changed = wanted.changed() => if changed.is_err() { return },
            }
            continue;
        }
        let (stop, stopped) = watch::channel(false);
        let mut crowd = JoinSet::new();
        for _ in 0..home.plan.surge.clients.min(CROWD_MAX - next) {
            let client = clients[next as usize % clients.len()].clone();
            crowd.spawn(hurry(Home { stop: stopped.clone(), ..home.clone() }, client, next));
            next += 1;
        }
        while *wanted.borrow_and_update() && !home.stopped() {
            tokio::select! {
                biased;
                _ = home.stop.changed() => {}
                changed = wanted.changed() => if changed.is_err() { break },
            }
        }
        stop.send_replace(true);
        crowd.join_all().await;
    }
}

async fn hurry(home: Home, client: Client, nth: u32) {
    let number = Class::Surge.writer(home.number, nth);
    let (rng, think) = (home.rng("surge", nth), home.plan.surge.think);
    let mut scribe = Scribe::new(home, number, client, false, rng);
    scribe.set_deadline(PATIENCE);
    while !scribe.home.stopped() {
        // First the pause: the many do not all begin in one moment.
        let pause = think.mul_f64(scribe.rng.random());
        scribe.home.pause(pause).await;
        let stream = format!("surge-{}", scribe.rng.random_range(0..STREAMS));
        let size = scribe.rng.random_range(0..1_000);
        let sent = scribe.begin(Wish::new().event(stream, size), false);
        let told = scribe.send(&sent).await;
        scribe.settle(&sent, &told);
        if think.is_zero() {
            tokio::task::yield_now().await;
        }
    }
}
