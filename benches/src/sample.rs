//! Histories to measure on: made by the real sequencer, so they are what a region's log holds.

use std::collections::BTreeMap;
use std::time::Duration;

use anabranch_core::event::{Event, Request};
use anabranch_core::region::{Outcome, Region};
use anabranch_core::sequencer::{Sequencer, Submission, Ticketed, Verdict};
use anabranch_core::stamp::EPOCH_UNIX_MS;
use anabranch_core::{Command, Incarnation, Origin, RegionName, ShardId};
use bytes::Bytes;

/// Streams that the events are spread over, so that heads are looked up and not only pushed.
const STREAMS: u64 = 10_000;
/// Clocks may differ by this much, as in a node's defaults.
const DRIFT_MAX: Duration = Duration::from_millis(500);

/// The origin named `region`, in its first life.
pub fn origin(region: &str) -> Origin {
    let region = RegionName::new(region).expect("names of samples are sound");
    Origin { region, incarnation: Incarnation(1), shard: ShardId(0) }
}

/// A region of three, after its genesis.
pub fn born(own: &str) -> Region {
    let mut region = Region::new();
    let members = ["asia", "eu", "us"].map(|name| origin(name).region).into();
    let outcome = region.apply(&Command::Genesis { origin: origin(own), members });
    assert_eq!(outcome, Outcome::Accepted, "a new log takes its genesis");
    region
}

/// A request of `events` events whose payloads have `payload` bytes; `nth` tells requests apart.
pub fn request(nth: u64, events: u64, payload: usize) -> Request {
    let event = |place: u64| Event {
        stream: format!("cart-{}", (nth * events + place) * 7919 % STREAMS),
        id: None,
        kind: "ItemAdded".to_owned(),
        metadata: BTreeMap::new(),
        payload: Bytes::from(vec![nth as u8; payload]),
    };
    Request { producer: None, events: (0..events).map(event).collect() }
}

/// Writes the commands of a region, as its leader does.
pub struct Author {
    region: Region,
    sequencer: Sequencer,
    written: u64,
}

impl Author {
    /// The leader of the region named `own`.
    pub fn new(own: &str) -> Self {
        let region = born(own);
        let sequencer = Sequencer::new(&region, DRIFT_MAX).expect("the region is born");
        Self { region, sequencer, written: 0 }
    }

    /// The state that everything written so far gives.
    pub fn region(&self) -> &Region {
        &self.region
    }

    /// The next command: one request of `events` events. Does not apply it.
    pub fn write(&mut self, events: u64, payload: usize) -> Command {
        self.sequence(events, payload).command
    }

    /// Like [`write`](Self::write), with the bytes that go into the log.
    pub fn sequence(&mut self, events: u64, payload: usize) -> Ticketed {
        let request = request(self.written, events, payload);
        let submission = Submission { request, expectations: Vec::new() };
        let now = EPOCH_UNIX_MS + 1_000_000 + self.written;
        self.written += 1;
        let (ticketed, verdicts) = self
            .sequencer
            .sequence(now, &self.region, vec![submission])
            .expect("the sample's clock only rises");
        assert!(matches!(verdicts[..], [Verdict::Sequenced { .. }]), "{verdicts:?}");
        ticketed.expect("one request, one command")
    }

    /// The next command, applied here.
    pub fn write_and_apply(&mut self, events: u64, payload: usize) -> Command {
        let command = self.write(events, payload);
        assert_eq!(self.region.apply(&command), Outcome::Accepted, "the leader predicts its apply");
        self.sequencer = Sequencer::new(&self.region, DRIFT_MAX).expect("the region is born");
        command
    }
}

/// `count` commands of `events` events each, the first history of the region named `own`.
pub fn commands(own: &str, count: u64, events: u64, payload: usize) -> Vec<Command> {
    let mut author = Author::new(own);
    (0..count).map(|_| author.write_and_apply(events, payload)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_a_history_that_a_region_accepts() {
        let mut region = born("eu");
        for command in commands("eu", 8, 5, 16) {
            let command = Command::decode(command.encode()).unwrap();
            assert_eq!(region.apply(&command), Outcome::Accepted);
        }
        assert_eq!(region.position(), 40);
    }
}
