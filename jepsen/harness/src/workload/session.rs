//! Writes in one region and reads in another, with the session between them.

use std::sync::Arc;
use std::time::Duration;

use anabranch_client::{Client, Expect, From};
use rand::Rng;
use rand::rngs::SmallRng;
use tokio::sync::watch;

use super::Load;
use super::writer::outcome;
use crate::cluster::REGIONS;
use crate::content::{Name, new_event};
use crate::history::{Ack, Ledger, Outcome, SessionRead};

/// Session writers are numbered from here.
const NUMBERS: u32 = 1_000;
/// A read that cannot see the write yet gives up after this.
const PATIENCE: Duration = Duration::from_secs(4);

pub(super) async fn run(
    home: usize,
    client: Client,
    load: Load,
    mut rng: SmallRng,
    ledger: Arc<Ledger>,
    stop: watch::Receiver<bool>,
) {
    let (producer, writer) = (client.producer(), NUMBERS + home as u32);
    let mut op = 0;
    while !*stop.borrow() {
        op += 1;
        let (tag, stream) = (producer.next(), format!("session-{}", REGIONS[home]));
        let id = Name { run: load.run, writer, op, nth: 0 }.id();
        let entry = ledger.begin(writer, tag, vec![(id, stream.clone())], Expect::Any);
        let outcome = outcome(producer.append(stream.clone(), new_event(id, tag)).await);
        ledger.settle(entry, outcome.clone());
        if let Outcome::Acknowledged(wrote) = outcome {
            let other = REGIONS[(home + rng.random_range(1..REGIONS.len())) % REGIONS.len()];
            ledger.session_read(read(&client, other, &stream, wrote).await);
        }
        tokio::time::sleep(load.think.mul_f64(rng.random::<f64>() * 10.0)).await;
    }
}

/// Reads the newest events of the stream; none if the region could not catch up in time.
///
/// The stream is this session's alone, so the write is the newest or close to it: appends of unknown
/// outcome may come after it.
async fn read(client: &Client, region: &str, stream: &str, wrote: Ack) -> Option<SessionRead> {
    let there = client.in_region(region).expect("the client knows all regions");
    let read = there.read_stream(stream).backwards().from(From::End).limit(20).timeout(PATIENCE);
    let shown = read.collect().await.ok()?.into_iter().map(|event| event.dot).collect();
    Some(SessionRead { wrote, read_in: region.to_owned(), shown })
}
