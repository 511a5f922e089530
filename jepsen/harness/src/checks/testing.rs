//! A small run without a fault, for the tests to break.

use std::collections::BTreeMap;
use std::time::Duration;

use anabranch_client::{Context, Dot, Expect, Order, Origin, ProducerId, ProducerTag, Stamp};
use anabranch_core::{Incarnation, RegionName, Seq, ShardId};

use crate::content::{Name, mark};
use crate::evidence::{Evidence, Print, RegionRead, Seen, Subscribed};
use crate::history::{Ack, By, History, Op, Outcome, Repeat, SessionRead};

fn origin(region: &str) -> Origin {
    let region = RegionName::new(region).unwrap();
    Origin { region, incarnation: Incarnation(1), shard: ShardId(0) }
}

/// Three appends of two events each, by turns in two regions; the last two to one stream.
pub(super) fn sound() -> Evidence {
    let mut ops = Vec::new();
    let mut order: Vec<Seen> = Vec::new();
    for (nth, (region, stream)) in (0_u32..).zip([("eu", "a"), ("us", "b"), ("eu", "b")]) {
        let (op, seen) = op(nth, region, stream, &order);
        ops.push(op);
        order.extend(seen);
    }
    let read = RegionRead { regional: order.clone(), global: order.clone() };
    let events: Vec<(u64, Dot)> = order.iter().map(|seen| (seen.place, seen.dot.clone())).collect();
    let subscribed = [Order::Global, Order::Regional].map(|order| Subscribed {
        name: format!("{order:?}"),
        order,
        events: events.clone(),
        moves: 1,
        problems: Vec::new(),
    });
    let regions = ["eu", "us"].map(|region| (region.to_owned(), read.clone()));
    let prints = ["eu-1", "us-1"].map(|node| (node.to_owned(), print()));
    Evidence {
        history: history(ops),
        regions: regions.into(),
        prints: prints.into(),
        subscribed: subscribed.into(),
        deaths: Vec::new(),
        not_converged: Vec::new(),
    }
}

fn op(nth: u32, region: &str, stream: &str, before: &[Seen]) -> (Op, Vec<Seen>) {
    let origin = origin(region);
    let first = before.iter().filter(|seen| seen.dot.origin == origin).count() as u64 + 1;
    let revision = before.iter().filter(|seen| seen.stream == stream).count() as u64;
    let (position, stamp) = (before.len() as u64, Stamp(100 + u64::from(nth)));
    let tag = ProducerTag { id: ProducerId([7; 16]), epoch: 1, sequence: u64::from(nth) + 1 };
    let ids = [0, 1].map(|event| Name { run: 1, writer: 0, op: nth, nth: event }.id());
    let seen = (0..).zip(ids).map(|(event, id)| Seen {
        dot: Dot { origin: origin.clone(), seq: Seq(first + event) },
        id,
        stream: stream.into(),
        revision: revision + event,
        stamp,
        place: position + event,
        producer: mark(tag, id),
        intact: true,
    });
    let ack = Ack {
        first: Dot { origin: origin.clone(), seq: Seq(first) },
        events: 2,
        position,
        stamp,
        revisions: BTreeMap::from([(stream.to_owned(), revision + 1)]),
    };
    let second = Duration::from_secs(1);
    let op = Op {
        writer: 0,
        tag,
        events: ids.map(|id| (id, stream.to_owned())).into(),
        expect: revision.checked_sub(1).map_or(Expect::NoStream, Expect::Revision),
        called: second * nth,
        returned: second * (nth + 1),
        outcome: Outcome::Acknowledged(ack),
    };
    (op, seen.collect())
}

fn history(ops: Vec<Op>) -> History {
    let Outcome::Acknowledged(ack) = ops[0].outcome.clone() else { unreachable!() };
    let again = Repeat { first: ack.clone(), by: By::Sequence, again: ack.clone(), said_so: true };
    let dot = |nth| Dot { origin: ack.first.origin.clone(), seq: ack.first.seq.plus(nth) };
    let shown = vec![dot(0), dot(1)];
    let read = SessionRead { wrote: ack, read_in: "us".into(), shown };
    History { ops, repeats: vec![again], session_reads: vec![read], session_gave_up: 0 }
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
