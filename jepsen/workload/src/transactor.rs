//! Transactions: appends to two to eight streams at once, with expectations on them and on streams
//! that are only checked. All of it happens, or nothing.

use std::sync::Arc;

use anabranch_client::Expect;
use anabranch_history::shape::Class;
use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;

use crate::home::Home;
use crate::revisions::{Revisions, wrong};
use crate::scribe::{Scribe, Wish};

/// Streams of all regions, and as many of each region alone.
const STREAMS: u32 = 8;

/// Runs client `nth` of the region until it is told to stop.
pub(crate) async fn run(home: Home, nth: u32, revisions: Arc<Revisions>) {
    let number = Class::Transactor.writer(home.number, nth);
    let client = home.client("transactor", nth, false);
    let rng = home.rng("transactor", nth);
    let region = home.name().to_owned();
    let mut scribe = Scribe::new(home, number, client, false, rng);
    while !scribe.home.stopped() {
        let wish = draw(&mut scribe.rng, &region, &revisions);
        let (_, told) = scribe.append(wish).await;
        revisions.learn(&told.outcome);
        scribe.home.think(&mut scribe.rng).await;
    }
}

fn draw(rng: &mut SmallRng, region: &str, revisions: &Revisions) -> Wish {
    let own = (0..STREAMS).map(|nth| format!("txown-{region}-{nth}"));
    let streams: Vec<String> = (0..STREAMS).map(|nth| format!("tx-{nth}")).chain(own).collect();
    let written = rng.random_range(2..=8);
    let checked = rng.random_range(0..=2);
    let chosen: Vec<&String> = streams.choose_multiple(rng, written + checked).collect();
    let mut wish = Wish::new();
    for stream in &chosen[..written] {
        for _ in 0..rng.random_range(1..=2) {
            wish = wish.event(*stream, rng.random_range(0..120));
        }
    }
    // One that is wrong must keep all of it out.
    let spoiled = rng.random_bool(0.15).then(|| rng.random_range(0..chosen.len()));
    for (at, stream) in chosen.into_iter().enumerate() {
        let right = revisions.expectation(stream);
        // What is shared moves by itself: its exact revision would hardly ever hold.
        let own = stream.starts_with("txown");
        let expects = at >= written || rng.random_bool(if own { 0.5 } else { 0.2 });
        let loose = right != Expect::NoStream && rng.random_bool(if own { 0.2 } else { 0.9 });
        let expected = match (spoiled == Some(at), expects) {
            (true, _) => wrong(rng, right),
            (false, true) if loose => Expect::Exists,
            (false, true) => right,
            (false, false) => continue,
        };
        wish = wish.expect(stream, expected);
    }
    wish
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_transaction_writes_two_to_eight_streams_and_some_only_check_others() {
        let (mut rng, revisions) = (crate::dice::rng(1, "test", 0, 0), Revisions::default());
        let mut only_checked = 0;
        for _ in 0..500 {
            let wish = draw(&mut rng, "eu", &revisions);
            let written: BTreeSet<&String> =
                wish.events.iter().map(|piece| &piece.stream).collect();
            assert!((2..=8).contains(&written.len()));
            let expected: BTreeSet<&String> = wish.expects.iter().map(|e| &e.stream).collect();
            assert_eq!(expected.len(), wish.expects.len(), "a stream is named once");
            only_checked += expected.difference(&written).count();
        }
        assert!(only_checked > 300, "{only_checked}");
    }
}
