//! Each kind of broken history must be found, and be found by the check that names it.

use std::time::Duration;

use anabranch_client::{Event, EventId, Place, Stamp};
use anabranch_core::{Incarnation, Origin, Seq, ShardId};
use tokio::time::Instant;

use super::super::ledger::{Answer, Asked, Ids, content_of};
use super::*;

const REGIONS: [&str; 2] = ["eu", "us"];

/// A sound history of two regions, to be broken in one place.
struct World {
    ledger: Ledger,
    /// What each region has, in its own order.
    regional: Vec<Vec<Event>>,
    global: Vec<Vec<Event>>,
    prints: Vec<NodePrint>,
    file: FileCounts,
    out_of_turn: Vec<Dot>,
    not_converged: Option<String>,
}

fn region(name: &str) -> RegionName {
    RegionName::new(name).unwrap()
}

fn dot(name: &str, seq: u64) -> Dot {
    let origin = Origin { region: region(name), incarnation: Incarnation(1), shard: ShardId(0) };
    Dot { origin, seq: Seq(seq) }
}

fn event(id: EventId, dot: Dot, stream: &str) -> Event {
    Event {
        stamp: Stamp(dot.seq.0 * 10),
        dot,
        own_id: Some(id),
        stream: stream.to_owned(),
        kind: "Happened".to_owned(),
        metadata: BTreeMap::new(),
        payload: bytes::Bytes::from_static(b"{}"),
        revision: 0,
        place: Place::Regional(0),
        concurrency: None,
    }
}

/// Numbers the events as a region would: revisions by stream, in the order given.
fn number(events: &mut [Event]) {
    let mut revisions: BTreeMap<String, u64> = BTreeMap::new();
    for event in events {
        let next = revisions.entry(event.stream.clone()).or_default();
        event.revision = *next;
        *next += 1;
    }
}

impl World {
    /// Each region writes three events to a shared stream and one of its own.
    fn sound() -> Self {
        let (mut ledger, mut all) = (Ledger::default(), Vec::new());
        for (writer, name) in (0_u32..).zip(REGIONS) {
            let mut ids = Ids::new(7, writer);
            for seq in 1..=4 {
                let stream = if seq < 4 { "cart-1".to_owned() } else { format!("own-{name}") };
                let content = content_of(&stream, "Happened", b"{}");
                let asked = [Asked { id: ids.draw(), content }];
                let (region, first, asked) = (&region(name), &dot(name, seq), &asked[..]);
                let (repeated, latency, at) = (false, Duration::from_millis(1), Instant::now());
                ledger.acknowledge(&Answer { region, asked, first, repeated, latency, at });
                all.push(event(asked[0].id, first.clone(), &stream));
            }
        }
        let by_region = |name: &str| {
            let (mut own, other): (Vec<Event>, Vec<Event>) =
                all.iter().cloned().partition(|event| event.dot.origin.region.as_str() == name);
            own.extend(other);
            number(&mut own);
            own
        };
        let mut order = all.clone();
        order.sort_by_key(|event| (event.stamp, event.dot.clone()));
        for (position, event) in (0..).zip(&mut order) {
            event.place = Place::Global(position);
        }
        let print = |name: &str, node| NodePrint {
            region: region(name),
            node,
            frontier: REGIONS.iter().map(|name| (dot(name, 4).origin, Seq(4))).collect(),
            streams: 3,
            buckets: vec![vec![1; 16], vec![2; 16]],
            chains: REGIONS.iter().map(|name| (dot(name, 4), vec![3; 16])).collect(),
            global_position: 8,
            global_chain: vec![9; 16],
        };
        let mut file = FileCounts::default();
        for event in &all {
            *file.regions.entry(event.dot.origin.region.clone()).or_default() += 1;
            *file.streams.entry(event.stream.clone()).or_default() += 1;
        }
        Self {
            ledger,
            regional: REGIONS.iter().map(|name| by_region(name)).collect(),
            global: vec![order.clone(), order],
            prints: vec![print("eu", 1), print("eu", 2), print("us", 1)],
            file,
            out_of_turn: Vec::new(),
            not_converged: None,
        }
    }

    fn proof(&self) -> Proof {
        let regions: Vec<RegionReading> = (REGIONS.iter().zip(&self.regional))
            .map(|(name, events)| {
                let mut reading = RegionReading::new(region(name));
                events.iter().for_each(|event| reading.add(event));
                reading
            })
            .collect();
        let globals: Vec<GlobalReading> = (REGIONS.iter().zip(&self.global))
            .map(|(name, events)| {
                let mut reading = GlobalReading::new(region(name));
                events.iter().for_each(|event| reading.add(event));
                reading
            })
            .collect();
        Proof::of(&Evidence {
            ledger: &self.ledger,
            regions: &regions,
            globals: &globals,
            prints: &self.prints,
            file: Some(&self.file),
            out_of_turn: &self.out_of_turn,
            not_converged: self.not_converged.as_deref(),
            aggregates: &Faults::default(),
        })
    }
}

/// Breaks a sound history and expects exactly these checks to fail.
fn finds(break_it: impl FnOnce(&mut World), expected: &[&str]) -> Proof {
    let mut world = World::sound();
    break_it(&mut world);
    let proof = world.proof();
    let failed: Vec<&str> =
        proof.checks.iter().filter(|check| check.faults > 0).map(|check| check.law).collect();
    assert_eq!(failed, expected, "{:#?}", proof.checks);
    assert_eq!(proof.holds(), expected.is_empty());
    let named = |check: &Check| check.faults == 0 || !check.examples.is_empty();
    assert!(proof.checks.iter().all(named), "every failed check gives an example");
    proof
}

#[tokio::test]
async fn a_sound_history_is_proved() {
    finds(|_| {}, &[]);
}

#[tokio::test]
async fn a_missing_event_is_found() {
    let lose_last = |world: &mut World| {
        world.regional[1].pop();
    };
    let proof = finds(
        lose_last,
        &[
            "every acknowledged event is in every region",
            "the global order is dense and complete",
            "counts are those of the file",
        ],
    );
    assert_eq!((proof.missing, proof.twice), (1, 0));
    assert!(proof.checks[1].examples[0].contains("us lacks eu"), "{:?}", proof.checks[1]);
}

#[tokio::test]
async fn a_duplicate_is_found_also_under_a_dot_of_its_own() {
    let repeat = |world: &mut World| {
        for region in &mut world.regional {
            let mut again = region[0].clone();
            again.dot = dot("eu", 5);
            region.push(again);
            number(region);
        }
    };
    let mut world = World::sound();
    repeat(&mut world);
    let proof = world.proof();
    assert_eq!((proof.missing, proof.twice), (0, 2), "{:#?}", proof.checks);
    assert!(!proof.holds());
}

#[tokio::test]
async fn a_reordered_global_order_is_found_at_its_first_position() {
    let swap = |world: &mut World| {
        let order = &mut world.global[1];
        let (a, b) = (order[2].dot.clone(), order[3].dot.clone());
        (order[2].dot, order[3].dot) = (b, a);
    };
    let proof = finds(swap, &["the global order is the same in all regions"]);
    let check = proof.checks.iter().find(|check| check.faults > 0).unwrap();
    assert!(check.examples[0].starts_with("position 2 is eu"), "{check:?}");
}

#[tokio::test]
async fn a_global_order_that_stops_early_is_found() {
    let cut = |world: &mut World| {
        world.global[0].pop();
    };
    let laws =
        ["the global order is dense and complete", "the global order is the same in all regions"];
    finds(cut, &laws);
}

#[tokio::test]
async fn a_position_that_skips_one_is_found() {
    let skip = |world: &mut World| {
        for order in &mut world.global {
            order[7].place = Place::Global(8);
        }
    };
    finds(skip, &["the global order is dense and complete"]);
}

#[tokio::test]
async fn differing_fingerprints_are_found_whatever_differs() {
    let law = &["all nodes have equal fingerprints"];
    finds(|world| world.prints[2].buckets[1][3] ^= 1, law);
    finds(|world| world.prints[1].chains[0].1[0] ^= 1, law);
    finds(|world| world.prints[1].global_chain[0] ^= 1, law);
    finds(|world| world.prints[1].global_position = 7, law);
    finds(|world| world.prints[2].streams = 4, law);
    finds(|world| world.prints[2].frontier = Context::new(), law);
    finds(|world| drop(world.prints[2].buckets.pop()), law);
}

#[tokio::test]
async fn altered_content_and_a_wrong_dot_are_found() {
    let law = &["every event has the dot and content its client knows"];
    finds(|world| world.regional[0][1].payload = bytes::Bytes::from_static(b"{ }"), law);
    let moved = |world: &mut World| {
        let (a, b) = (world.regional[0][0].own_id, world.regional[0][4].own_id);
        (world.regional[0][0].own_id, world.regional[0][4].own_id) = (b, a);
    };
    finds(moved, &[law[0], "a writer's events keep their order in a stream"]);
}

#[tokio::test]
async fn an_event_nobody_wrote_is_found_and_one_in_doubt_is_not() {
    let id = Ids::new(9, 9).draw();
    let appear = |world: &mut World| {
        for region in &mut world.regional {
            region.push(event(id, dot("us", 5), "cart-2"));
            number(region);
        }
        for order in &mut world.global {
            let mut extra = event(id, dot("us", 5), "cart-2");
            extra.place = Place::Global(8);
            order.push(extra);
        }
        world.file.streams.insert("cart-2".to_owned(), 1);
        *world.file.regions.get_mut(&region("us")).unwrap() += 1;
    };
    finds(appear, &["nothing is there that nobody wrote"]);
    let in_doubt = |world: &mut World| {
        appear(world);
        world.ledger.doubt(&[Asked { id, content: 0 }]);
    };
    finds(in_doubt, &[]);
}

#[tokio::test]
async fn gaps_and_changed_order_within_a_region_are_found() {
    let gap = |world: &mut World| world.regional[0][2].revision += 1;
    finds(gap, &["revisions are dense in every stream"]);
    let swap = |world: &mut World| {
        world.regional[0].swap(0, 1);
        number(&mut world.regional[0]);
    };
    let laws =
        ["numbers are dense in every origin", "a writer's events keep their order in a stream"];
    finds(swap, &laws);
}

#[tokio::test]
async fn wrong_counts_a_late_convergence_and_a_repeating_subscriber_are_found() {
    let more = |world: &mut World| *world.file.streams.get_mut("cart-1").unwrap() += 1;
    finds(more, &["counts are those of the file"]);
    let unknown = |world: &mut World| {
        world.file.streams.remove("own-eu");
    };
    finds(unknown, &["counts are those of the file"]);
    let late = |world: &mut World| world.not_converged = Some("us lags".to_owned());
    finds(late, &["all nodes converge in time"]);
    let again = |world: &mut World| world.out_of_turn.push(dot("eu", 1));
    finds(again, &["subscribers are given every event once, in turn"]);
}
