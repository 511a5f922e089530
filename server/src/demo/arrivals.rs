//! When each region could read what the others wrote: a subscriber in every region.
//!
//! One process, so one clock: the age of an event on arrival is its arrival less the moment its
//! writer was told that it is durable.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anabranch_client::{Client, Dot};
use anabranch_core::RegionName;
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::ledger::{Ledger, micros};

/// Arrivals of the events of every region at the subscriber of each.
#[derive(Debug, Default)]
pub struct Arrivals {
    /// By reading region, then by the region of origin: when number 1, 2, ... came.
    came: BTreeMap<RegionName, BTreeMap<RegionName, Vec<Instant>>>,
    /// Events that came with a gap before them, or again.
    pub out_of_turn: Vec<Dot>,
}

/// A time during which a region was cut off, until all that waited had arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outage {
    /// Which region.
    pub region: RegionName,
    /// When it was cut off.
    pub from: Instant,
    /// When the backlog was gone.
    pub until: Instant,
}

/// How long events took from one region to another. Microseconds.
#[derive(Debug)]
pub struct PairLag {
    /// Where they were written.
    pub from: RegionName,
    /// Where they were read.
    pub to: RegionName,
    /// Of events acknowledged while the two could reach each other.
    pub connected: Histogram<u64>,
    /// Of events acknowledged during an outage of one of them.
    pub cut: Histogram<u64>,
}

impl Arrivals {
    /// `reader`'s subscriber was given the event.
    pub fn record(&mut self, reader: &RegionName, dot: &Dot, at: Instant) {
        let reader = self.came.entry(reader.clone()).or_default();
        let origin = reader.entry(dot.origin.region.clone()).or_default();
        if dot.seq.0 == origin.len() as u64 + 1 {
            origin.push(at);
        } else {
            self.out_of_turn.push(dot.clone());
        }
    }

    /// Number of events of `origin` that `reader` could read so far.
    pub fn held(&self, reader: &RegionName, origin: &RegionName) -> u64 {
        self.times(reader, origin).len() as u64
    }

    /// When `reader` could read everything up to `heads`; none if it cannot yet.
    pub fn reached(
        &self,
        reader: &RegionName,
        heads: &BTreeMap<RegionName, u64>,
    ) -> Option<Instant> {
        let mut latest = None;
        for (origin, seq) in heads.iter().filter(|(_, seq)| **seq > 0) {
            let at = *self.times(reader, origin).get(usize::try_from(*seq).ok()? - 1)?;
            latest = latest.max(Some(at));
        }
        latest
    }

    /// Age on arrival, for every ordered pair of different regions.
    pub fn lags(
        &self,
        ledger: &Ledger,
        regions: &[RegionName],
        outages: &[Outage],
    ) -> Vec<PairLag> {
        let mut pairs = Vec::new();
        for from in regions {
            for to in regions.iter().filter(|to| *to != from) {
                pairs.push(self.lag(ledger, from, to, outages));
            }
        }
        pairs
    }

    fn lag(
        &self,
        ledger: &Ledger,
        from: &RegionName,
        to: &RegionName,
        outages: &[Outage],
    ) -> PairLag {
        let (mut connected, mut cut) = (micros(), micros());
        let apart = |at: Instant| {
            let touches = |outage: &Outage| outage.region == *from || outage.region == *to;
            let during = |outage: &Outage| outage.from <= at && at <= outage.until;
            outages.iter().any(|outage| touches(outage) && during(outage))
        };
        for (seq, came) in (1..).zip(self.times(to, from)) {
            // An event that the subscriber saw is not always one whose writer had its answer.
            let Some(acked) = ledger.region(from).and_then(|region| region.acked_at(seq)) else {
                continue;
            };
            // The subscriber may be told before the writer: that is an age of 0.
            let age = came.saturating_duration_since(acked).as_micros() as u64;
            if apart(acked) { &mut cut } else { &mut connected }.saturating_record(age);
        }
        PairLag { from: from.clone(), to: to.clone(), connected, cut }
    }

    fn times(&self, reader: &RegionName, origin: &RegionName) -> &[Instant] {
        let origins = self.came.get(reader);
        origins.and_then(|origins| origins.get(origin)).map_or(&[], Vec::as_slice)
    }
}

/// Follows everything in `region` until stopped. Reconnects by itself, from where it was.
///
/// # Errors
/// What ends the subscription other than `stop`.
pub async fn follow(
    client: Client,
    region: RegionName,
    arrivals: Arc<Mutex<Arrivals>>,
    stop: CancellationToken,
) -> Result<(), anabranch_client::ReadError> {
    let heartbeat = Duration::from_secs(1);
    let mut everything = client.subscribe_all().heartbeat(heartbeat).start();
    loop {
        let next = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            next = everything.next_event() => next,
        };
        match next {
            Some(Ok(event)) => arrivals.lock().record(&region, &event.dot, Instant::now()),
            Some(Err(error)) => return Err(error),
            None => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use anabranch_client::EventId;
    use anabranch_core::{Incarnation, Origin, Seq, ShardId};

    use super::super::ledger::{Answer, Asked};
    use super::*;

    fn region(name: &str) -> RegionName {
        RegionName::new(name).unwrap()
    }
    fn dot(name: &str, seq: u64) -> Dot {
        let (region, shard) = (region(name), ShardId(0));
        Dot { origin: Origin { region, incarnation: Incarnation(1), shard }, seq: Seq(seq) }
    }
    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[tokio::test]
    async fn lag_is_arrival_less_acknowledgement_with_outages_apart() {
        let (start, mut ledger, mut arrivals) =
            (Instant::now(), Ledger::default(), Arrivals::default());
        let (eu, us) = (region("eu"), region("us"));
        for (seq, acked, came) in [(1, 10, 30), (2, 100, 2_100), (3, 3_000, 2_999)] {
            let asked = [Asked { id: EventId([seq as u8; 16]), content: 0 }];
            let (first, latency, at) = (dot("eu", seq), ms(1), start + ms(acked));
            let (region, asked) = (&eu, &asked[..]);
            let (first, repeated) = (&first, false);
            ledger.acknowledge(&Answer { region, asked, first, repeated, latency, at });
            arrivals.record(&us, first, start + ms(came));
        }
        let outage = Outage { region: us.clone(), from: start + ms(50), until: start + ms(2_500) };
        let lags = arrivals.lags(&ledger, &[eu.clone(), us.clone()], &[outage]);
        let there = &lags[0];
        assert_eq!((&there.from, &there.to), (&eu, &us));
        assert_eq!((there.connected.len(), there.cut.len()), (2, 1));
        assert!((19_900..=20_100).contains(&there.connected.max()), "{}", there.connected.max());
        assert_eq!(there.connected.min(), 0, "the subscriber was told first");
        assert!(there.cut.max() >= 1_999_000, "{}", there.cut.max());
        assert_eq!(arrivals.reached(&us, &[(eu.clone(), 2)].into()), Some(start + ms(2_100)));
        assert_eq!(arrivals.reached(&us, &[(eu, 4)].into()), None);
    }

    #[tokio::test]
    async fn an_event_that_comes_again_or_too_early_is_remembered() {
        let mut arrivals = Arrivals::default();
        let us = region("us");
        for seq in [1, 1, 3, 2] {
            arrivals.record(&us, &dot("eu", seq), Instant::now());
        }
        assert_eq!(arrivals.out_of_turn, vec![dot("eu", 1), dot("eu", 3)]);
        assert_eq!(arrivals.held(&us, &region("eu")), 2);
    }
}
