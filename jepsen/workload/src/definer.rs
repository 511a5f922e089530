//! Definers: declare what the aggregates of some categories are, change it while events come in, and look
//! at what comes of it.

use std::time::Duration;

use anabranch_history::defined::{CATEGORIES, Declared, VERSIONS};
use anabranch_history::shape::Class;
use rand::Rng;

use crate::home::Home;
use crate::scribe::{Scribe, Wish};

/// Longest pause of a definer, in thoughts of other clients: a definition holds for a while.
const PAUSE_THOUGHTS: u32 = 8;

/// Runs client `nth` of the region until it has declared everything, or is told to stop.
pub(crate) async fn run(home: Home, nth: u32) {
    let number = Class::Definer.writer(home.number, nth);
    let client = home.client("definer", nth, false);
    let rng = home.rng("definer", nth);
    let reader = client.clone();
    let mut scribe = Scribe::new(home, number, client, false, rng);
    for _ in 0..VERSIONS * CATEGORIES.len() as u32 {
        if scribe.home.stopped() {
            return;
        }
        let declared = Declared::of(number, scribe.next_op()).expect("a definer's operation");
        let bytes = declared.definition().to_string().len() as u32;
        // What is refused or in doubt is not said again: the other regions say something like it.
        scribe.append(Wish::new().event(declared.stream(), bytes)).await;
        // What a node keeps for the next reader is there only if somebody reads.
        for category in CATEGORIES {
            let _ = reader.query(category).page().await;
        }
        let longest = (scribe.home.plan.think * PAUSE_THOUGHTS).max(Duration::from_millis(1));
        let pause = longest.mul_f64(scribe.rng.random());
        scribe.home.pause(pause).await;
    }
}
