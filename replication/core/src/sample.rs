//! What the tests of this crate build histories from.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::command::{Command, PlacedGroup};
use crate::context::Context;
use crate::digest::Digest;
use crate::event::{Event, EventId, ProducerTag, Request};
use crate::group::{Chain, Group, GroupHeader};
use crate::id::{Incarnation, Origin, ProducerId, RegionName, Seq, ShardId};
use crate::region::{Outcome, Refused, Region};
use crate::stamp::{EPOCH_UNIX_MS, Stamp};

pub(crate) const NOW: u64 = EPOCH_UNIX_MS + 1_000_000;

pub(crate) fn name(region: &str) -> RegionName {
    RegionName::new(region).unwrap()
}

pub(crate) fn life(region: &str, incarnation: u128) -> Origin {
    let (region, incarnation) = (name(region), Incarnation(incarnation));
    Origin { region, incarnation, shard: ShardId(0) }
}

pub(crate) fn origin(region: &str) -> Origin {
    life(region, 1)
}

/// The stamp `ms` after [`NOW`].
pub(crate) fn at(ms: u64) -> Stamp {
    Stamp::from_unix_ms(NOW + ms)
}

pub(crate) fn cut(seqs: &[(&str, u64)]) -> Context {
    seqs.iter().map(|(region, seq)| (origin(region), Seq(*seq))).collect()
}

/// A region named `own` of eu, us and asia, after its genesis.
pub(crate) fn born(own: &str) -> Region {
    let mut region = Region::new();
    accept(&mut region, &genesis(own));
    region
}

pub(crate) fn genesis(own: &str) -> Command {
    Command::Genesis { origin: origin(own), members: ["eu", "us", "asia"].map(name).into() }
}

pub(crate) fn accept(region: &mut Region, command: &Command) {
    let command = Command::decode(command.encode()).unwrap();
    assert_eq!(region.apply(&command), Outcome::Accepted);
}

/// Applies a command that has to be refused without leaving a trace.
pub(crate) fn refuse(region: &mut Region, command: &Command) -> Refused {
    let before = region.clone();
    let outcome = region.apply(command);
    assert!(*region == before, "a refused command left a trace: {outcome:?}");
    match outcome {
        Outcome::Refused(refused) => refused,
        Outcome::Accepted => panic!("accepted {command:?}"),
    }
}

pub(crate) fn event(stream: &str, payload: &str) -> Event {
    Event {
        stream: stream.into(),
        id: None,
        kind: "Happened".into(),
        metadata: BTreeMap::new(),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
    }
}

/// A request with one event in each of `streams`.
pub(crate) fn request(streams: &[&str]) -> Request {
    Request { producer: None, events: streams.iter().map(|s| event(s, "x")).collect() }
}

pub(crate) fn tag(epoch: u32, sequence: u64) -> ProducerTag {
    ProducerTag { id: ProducerId([1; 16]), epoch, sequence }
}

pub(crate) fn tagged(stream: &str, tag: ProducerTag) -> Request {
    Request { producer: Some(tag), ..request(&[stream]) }
}

/// A request whose events have these ids.
pub(crate) fn with_ids(stream: &str, ids: &[u8]) -> Request {
    let event = |id: &u8| Event { id: Some(EventId([*id; 16])), ..event(stream, "x") };
    Request { producer: None, events: ids.iter().map(event).collect() }
}

/// Writes the groups of one origin, one after the other.
#[derive(Clone)]
pub(crate) struct Author {
    pub(crate) origin: Origin,
    pub(crate) last: Seq,
    pub(crate) chain: Chain,
}

impl Author {
    pub(crate) fn new(origin: Origin) -> Self {
        Self { origin, last: Seq(0), chain: Chain::START }
    }

    pub(crate) fn write(&mut self, stamp: Stamp, context: Context, requests: &[Request]) -> Group {
        let events: usize = requests.iter().map(|request| request.events.len()).sum();
        let header = GroupHeader {
            origin: self.origin.clone(),
            first: self.last.next(),
            events: events as u32,
            stamp,
            context,
            prev: self.chain,
        };
        let group = Group::build(header, requests);
        (self.last, self.chain) = (group.last(), group.chain());
        group
    }

    /// A group of one event in stream `s-1`, that depends on nothing of others.
    pub(crate) fn one(&mut self, stamp: Stamp) -> Group {
        self.write(stamp, Context::new(), &[request(&["s-1"])])
    }
}

pub(crate) fn local(position: u64, group: Group, revisions: &[u64]) -> Command {
    Command::Local { position, placed: PlacedGroup { group, revisions: revisions.into() } }
}

pub(crate) fn import(position: u64, groups: Vec<(Group, &[u64])>, digests: Vec<Digest>) -> Command {
    let placed = |(group, revisions): (Group, &[u64])| {
        let revisions = revisions.into();
        PlacedGroup { group, revisions }
    };
    Command::Import { position, groups: groups.into_iter().map(placed).collect(), digests }
}

pub(crate) fn digest(region: &str, stamp: Stamp, frontier: &[(&str, u64)]) -> Digest {
    Digest { origin: origin(region), stamp, frontier: cut(frontier) }
}
