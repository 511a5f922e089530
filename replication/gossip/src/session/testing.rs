//! Histories to test with.

use anabranch_core::event::{Event, Request};
use anabranch_core::group::GroupHeader;
use anabranch_core::{Chain, Context, Group, Incarnation, Origin, RegionName, Seq, ShardId, Stamp};

/// The only origin of `region` in a test.
pub fn origin(region: &str) -> Origin {
    let region = RegionName::new(region).unwrap();
    Origin { region, incarnation: Incarnation(1), shard: ShardId(0) }
}

/// The group after `before`, with `events` events.
pub fn group_after(origin: &Origin, before: Option<&Group>, events: u32) -> Group {
    let first = before.map_or(Seq(1), |group| group.last().next());
    let header = GroupHeader {
        origin: origin.clone(),
        first,
        events,
        stamp: Stamp(1_000 + first.0),
        context: Context::new(),
        prev: before.map_or(Chain::START, Group::chain),
    };
    let events = (0..u64::from(events)).map(|nth| Event {
        stream: format!("{}-{}", origin.region, (first.0 + nth) % 97),
        id: None,
        kind: "Happened".into(),
        metadata: Default::default(),
        payload: format!("event number {} of this origin, said at some length", first.0 + nth)
            .into(),
    });
    Group::build(header, &[Request { producer: None, events: events.collect() }])
}

/// `groups` groups of `each` events, from the beginning.
pub fn history(region: &str, groups: usize, each: u32) -> Vec<Group> {
    let origin = origin(region);
    let mut history: Vec<Group> = Vec::with_capacity(groups);
    for _ in 0..groups {
        history.push(group_after(&origin, history.last(), each));
    }
    history
}
