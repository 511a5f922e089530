//! A small run without a fault, for the tests to break.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anabranch_client::{Context, Dot, Expect, Order, Origin, ProducerId, ProducerTag, Stamp};
use anabranch_core::{Incarnation, RegionName, Seq, ShardId};

use super::Check;
use crate::case::Case;
use crate::content::{Mark, Name};
use crate::evidence::{
    Blame, Evidence, Part, Print, Recovery, RegionRead, Seen, Selection, Subscribed,
};
use crate::observation::Observation;
use crate::op::{Ack, Asked, By, Conflict, Expectation, History, Op, Outcome, Repeat, SessionRead};
use crate::verdict::Verdict;

/// What one check says.
pub(crate) fn judge(check: Check, evidence: &Evidence) -> Verdict {
    check(&Case::new(evidence))
}

/// Gives events the places they stand at.
pub(crate) fn renumber(events: &mut [Seen]) {
    (0..).zip(events).for_each(|(place, seen)| seen.place = place);
}

fn origin(region: &str) -> Origin {
    let region = RegionName::new(region).unwrap();
    Origin { region, incarnation: Incarnation(1 << 100), shard: ShardId(0) }
}

/// Three appends of two events each, by turns in two regions, one a second; the last two to one
/// stream. Each region saw one before the next was made, so both orders are the same everywhere.
pub(crate) fn sound() -> Evidence {
    let mut ops = Vec::new();
    let mut order: Vec<Seen> = Vec::new();
    for (nth, (region, stream)) in (0_u32..).zip([("eu", "a"), ("us", "b"), ("eu", "b")]) {
        let (op, seen) = op(nth, region, stream, &order);
        ops.push(op);
        order.extend(seen);
    }
    let events: Vec<(u64, Dot)> = order.iter().map(|seen| (seen.place, seen.dot.clone())).collect();
    let subscribed = [Order::Global, Order::Regional].map(|order| Subscribed {
        name: format!("{order:?}"),
        order,
        category: None,
        complete: true,
        events: events.clone(),
        forgotten: Vec::new(),
        moves: 1,
        problems: Vec::new(),
    });
    let selections = selections(&order);
    let regions = ["eu", "us"].map(|region| {
        let (regional, global) = (order.clone(), order.clone());
        (region.to_owned(), RegionRead { own: Some(origin(region)), regional, global })
    });
    let prints = ["eu-1", "us-1"].map(|node| (node.to_owned(), print()));
    let (events, ordered) = (print().events, print().global_position);
    let blame = Blame { events, ordered, blocked_by: BTreeSet::new() };
    let blames = ["eu-1", "us-1"].map(|node| (node.to_owned(), blame.clone()));
    let second = Duration::from_secs(1);
    Evidence {
        history: history(ops),
        regions: regions.into(),
        selections,
        served: Vec::new(),
        listed: Vec::new(),
        before_loss: BTreeMap::new(),
        prints: prints.into(),
        blames: blames.into(),
        subscribed: subscribed.into(),
        deaths: Vec::new(),
        recovery: Some(Recovery {
            within: second * 60,
            served: ["eu", "us"].map(|region| (region.to_owned(), Some(second))).into(),
            agreed: Some(second * 2),
            not_converged: Vec::new(),
        }),
        expectations: Default::default(),
    }
}

/// What two regions show of stream b, forwards and backwards, by each way to ask for it.
fn selections(order: &[Seen]) -> Vec<Selection> {
    let of_b = order.iter().filter(|seen| seen.stream == "b").map(|seen| seen.dot.clone());
    let forwards: Vec<Dot> = of_b.collect();
    let backwards: Vec<Dot> = forwards.iter().rev().cloned().collect();
    let selection = |region: &str, part, order, shown: &Vec<Dot>| Selection {
        region: region.to_owned(),
        part,
        order,
        backwards: *shown == backwards,
        shown: shown.clone(),
    };
    vec![
        selection("eu", Part::Stream("b".into()), Order::Regional, &forwards),
        selection("us", Part::Stream("b".into()), Order::Regional, &backwards),
        selection("us", Part::Category("b".into()), Order::Global, &forwards),
        selection("eu", Part::Prefix("b".into()), Order::Global, &backwards),
    ]
}

fn tag(nth: u32) -> ProducerTag {
    ProducerTag { id: ProducerId([7; 16]), epoch: 1, sequence: u64::from(nth) + 1 }
}

fn op(nth: u32, region: &str, stream: &str, before: &[Seen]) -> (Op, Vec<Seen>) {
    let origin = origin(region);
    let first = before.iter().filter(|seen| seen.dot.origin == origin).count() as u64 + 1;
    let revision = before.iter().filter(|seen| seen.stream == stream).count() as u64;
    let (position, stamp) = (before.len() as u64, Stamp(100 + u64::from(nth)));
    let asked = |event| Asked {
        id: Name { run: 1, writer: 0, op: nth, nth: event }.id(),
        stream: stream.to_owned(),
        amount: 0,
        size: 30,
        says: None,
    };
    let events = vec![asked(0), asked(1)];
    let marks = Mark::all(tag(nth), &events);
    let seen = (0..).zip(events.iter().zip(marks)).map(|(event, (asked, mark))| Seen {
        dot: Dot { origin: origin.clone(), seq: Seq(first + event) },
        id: asked.id,
        stream: stream.into(),
        revision: revision + event,
        stamp,
        place: position + event,
        mark: Some(mark),
        intact: true,
        says: None,
    });
    let seen: Vec<Seen> = seen.collect();
    let ack = Ack {
        first: Dot { origin: origin.clone(), seq: Seq(first) },
        events: 2,
        position,
        stamp,
        revisions: BTreeMap::from([(stream.to_owned(), revision + 1)]),
        regions: if nth == 0 { 1 } else { 2 },
    };
    let second = Duration::from_secs(1);
    let op = Op {
        writer: nth,
        region: region.into(),
        roams: false,
        tag: tag(nth),
        events,
        expects: vec![Expectation {
            stream: stream.to_owned(),
            expected: revision.checked_sub(1).map_or(Expect::NoStream, Expect::Revision),
        }],
        regions: 1,
        called: second * nth,
        returned: second * nth + second / 2,
        outcome: Outcome::Acknowledged(ack),
    };
    (op, seen)
}

/// An append that was refused within the second after `at`, because of all that it expected.
pub(crate) fn conflict(region: &str, streams: &[(&str, Expect, Option<u64>)], at: u64) -> Op {
    let conflict = |(stream, expected, actual): &(&str, Expect, Option<u64>)| Conflict {
        expectation: Expectation { stream: (*stream).to_owned(), expected: *expected },
        actual: *actual,
    };
    let conflicts: Vec<Conflict> = streams.iter().map(conflict).collect();
    let id = Name { run: 1, writer: 5, op: 0, nth: 0 }.id();
    let called = Duration::from_secs(at);
    Op {
        writer: 5,
        region: region.into(),
        roams: false,
        tag: tag(50),
        events: vec![Asked { id, stream: streams[0].0.into(), amount: 0, size: 30, says: None }],
        expects: conflicts.iter().map(|conflict| conflict.expectation.clone()).collect(),
        regions: 1,
        called,
        returned: called + Duration::from_millis(500),
        outcome: Outcome::Conflict { conflicts },
    }
}

fn history(ops: Vec<Op>) -> History {
    let ack = ops[0].ack().expect("it was acknowledged").clone();
    let again = Repeat {
        first: ack.clone(),
        by: By::Sequence,
        region: "eu".into(),
        again: ack.clone(),
        said_so: true,
    };
    let second = Duration::from_secs(1);
    let read = SessionRead {
        writer: 0,
        region: "us".into(),
        stream: "a".into(),
        whole: true,
        shown: ack.dots().collect(),
        called: second * 4,
        returned: second * 5,
    };
    let observation = |region: &str| Observation {
        at: second * 6,
        region: region.into(),
        node: 0,
        life: 0,
        frontier: print().frontier,
        position: 6,
        watermark: Some(Stamp(200)),
        global_position: 6,
        global_chain: Some(print().global_chain),
        blocked_by: Vec::new(),
    };
    History {
        ops,
        repeats: vec![again],
        session_reads: vec![read],
        session_gave_up: 0,
        observations: vec![observation("eu"), observation("us")],
        notes: Vec::new(),
    }
}

fn print() -> Print {
    let frontier: Context = [(origin("eu"), Seq(4)), (origin("us"), Seq(2))].into_iter().collect();
    Print {
        chains: frontier.iter().map(|(o, seq)| (o.clone(), (seq.0, vec![1; 32].into()))).collect(),
        frontier,
        streams: 2,
        events: 6,
        buckets: vec![vec![1; 16].into(), vec![2; 16].into()],
        global_position: 6,
        global_chain: vec![3; 32].into(),
    }
}
