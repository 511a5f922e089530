//! Limits: appends that are exactly as large as they may be, and one byte larger.

use anabranch_client::Expect;
use anabranch_core::Limits;
use anabranch_history::shape::{Class, Probe, long_name};

use crate::home::Home;
use crate::plan::Reach;
use crate::scribe::{Scribe, Wish};

/// The small ones come first among all; a prober begins behind them, so that the larger ones are
/// tried once however short the run is.
const SMALL: u32 = 9;
/// Payload of all events but the last of an append that is as large as it may be.
const PART: u32 = 900_000;

/// Runs client `nth` of the region until it is told to stop.
pub(crate) async fn run(home: Home, nth: u32) {
    let number = Class::Prober.writer(home.number, nth);
    let client = home.client("prober", nth, false);
    let rng = home.rng("prober", nth);
    let reaches = home.plan.reach_of(home.number);
    let mut scribe = Scribe::new(home, number, client, false, rng);
    (1..SMALL).for_each(|_| scribe.skip_op());
    while !scribe.home.stopped() {
        let op = scribe.next_op();
        let probe = Probe::of(number, op).expect("it is a prober's number");
        let again = op >= Probe::ALL.len() as u32;
        if reach(probe) > if again { Reach::Small } else { reaches } {
            scribe.skip_op();
            continue;
        }
        let wish = wish(probe, &format!("probe-{}-{nth}", scribe.home.name()));
        scribe.append(wish).await;
        scribe.home.think(&mut scribe.rng).await;
    }
}

/// How far a plan must reach for this to be tried.
fn reach(probe: Probe) -> Reach {
    match probe {
        Probe::LargestPayload
        | Probe::PayloadTooLarge
        | Probe::LargestAppend
        | Probe::AppendTooLarge => Reach::Large,
        Probe::MostStreams
        | Probe::TooManyStreams
        | Probe::MostExpectations
        | Probe::MostEvents
        | Probe::TooManyEvents => Reach::Huge,
        _ => Reach::Small,
    }
}

fn wish(probe: Probe, stream: &str) -> Wish {
    let limits = Limits::DEFAULT;
    let one = |size| Wish::new().event(stream, size);
    let named = |name: String| Wish::new().event(name, 10);
    let each = |count: usize| {
        (0..count).fold(Wish::new(), |wish, nth| wish.event(format!("{stream}-{nth}"), 0))
    };
    let whole = |bytes| {
        let parts = limits.append_bytes / PART as usize + 1;
        Wish {
            bytes: Some(bytes),
            ..(0..parts).fold(Wish::new(), |wish, _| wish.event(stream, PART))
        }
    };
    match probe {
        Probe::EmptyPayload => one(0),
        Probe::LongestStream => named(long_name(stream, limits.name_bytes)),
        Probe::StreamTooLong => named(long_name(stream, limits.name_bytes + 1)),
        Probe::NoStreamName => named(String::new()),
        Probe::ControlCharacter => named(format!("{stream}\u{7}")),
        Probe::LongestKind | Probe::KindTooLong | Probe::FullMetadata | Probe::TooMuchMetadata => {
            one(10)
        }
        Probe::LargestPayload => one(limits.payload_bytes as u32),
        Probe::PayloadTooLarge => one(limits.payload_bytes as u32 + 1),
        Probe::LargestAppend => whole(limits.append_bytes),
        Probe::AppendTooLarge => whole(limits.append_bytes + 1),
        Probe::MostStreams => each(limits.append_streams),
        Probe::TooManyStreams => each(limits.append_streams + 1),
        Probe::MostExpectations => (1..limits.append_streams).fold(one(10), |wish, nth| {
            wish.expect(format!("{stream}-none-{nth}"), Expect::NoStream)
        }),
        Probe::MostEvents => many(stream, limits.append_events),
        Probe::TooManyEvents => many(stream, limits.append_events + 1),
    }
}

fn many(stream: &str, events: usize) -> Wish {
    (0..events).fold(Wish::new(), |wish, _| wish.event(stream, 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_small_ones_come_first() {
        let small = Probe::ALL.iter().take_while(|probe| reach(**probe) == Reach::Small).count();
        assert_eq!(small as u32, SMALL);
        assert!(Probe::ALL[small..].iter().all(|probe| reach(*probe) > Reach::Small));
    }

    #[test]
    fn every_probe_names_as_many_streams_and_events_as_it_says() {
        let of = |probe| {
            let wish = wish(probe, "probe-eu-0");
            let written = wish.events.iter().map(|piece| piece.stream.clone());
            let expected = wish.expects.iter().map(|expects| expects.stream.clone());
            let streams: BTreeSet<String> = written.chain(expected).collect();
            (wish.events.len(), streams.len())
        };
        assert_eq!(of(Probe::MostStreams), (1_000, 1_000));
        assert_eq!(of(Probe::TooManyStreams), (1_001, 1_001));
        assert_eq!(of(Probe::MostExpectations), (1, 1_000));
        assert_eq!(of(Probe::MostEvents), (10_000, 1));
        assert_eq!(of(Probe::TooManyEvents), (10_001, 1));
        assert_eq!(of(Probe::LargestAppend), (5, 1));
        let longest = wish(Probe::LongestStream, "probe-eu-0");
        assert_eq!(longest.events[0].stream.len(), 512);
    }
}
