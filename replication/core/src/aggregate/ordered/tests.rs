//! Ordered fields in several regions that write at once: what is settled is what a plain fold of the
//! events in order gives, and the same everywhere.

use std::collections::BTreeSet;

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::json;

use super::super::identity;
use super::*;
use crate::aggregate::EVENT_TYPE;
use crate::id::{Dot, Origin, Seq};
use crate::sample::{at, cut, origin};
use crate::stamp::Stamp;

fn definition() -> Definition {
    let fields = json!({
        "events": "g-counter", "balance": "ordered from 0", "refused": "ordered from 0",
        "last": "ordered", "high": "ordered", "step": "ordered from \"new\"",
    });
    let on = json!({
        "Deposited": ["balance += $.amount", "high = max(high, balance + $.amount)", "events += 1"],
        "Withdrawn": ["balance -= $.amount when balance >= $.amount",
                      "refused += 1 when balance < $.amount"],
        "Moved": ["step = \"open\" when step == \"new\"", "step = \"closed\" when step == \"open\""],
        "*": ["last = @region"],
    });
    let json = json!({ "category": "c", "version": 1, "fields": fields, "on": on });
    Definition::from_json(&json).unwrap()
}

#[derive(Debug, Clone)]
struct Made {
    stamp: Stamp,
    dot: Dot,
    held: Context,
    identity: u128,
    kind: &'static str,
    payload: String,
}

impl Made {
    fn input(&self) -> Input<'_> {
        Input {
            dot: &self.dot,
            stamp: self.stamp,
            held: &self.held,
            identity: self.identity,
            stream: "c-1",
            kind: self.kind,
            payload: self.payload.as_bytes(),
        }
    }
}

/// What the definition says, written down once more.
#[derive(Debug, Default)]
struct Account {
    balance: i64,
    refused: i64,
    last: Option<String>,
    high: Option<i64>,
    step: usize,
    bad: u64,
    requests: BTreeSet<u128>,
}

impl Account {
    /// Of `events` in the order given.
    fn of<'a>(events: impl Iterator<Item = &'a Made>) -> Self {
        let mut account = Self::default();
        events.for_each(|made| account.take(made));
        account
    }

    fn take(&mut self, made: &Made) {
        if !self.requests.insert(made.identity) {
            return;
        }
        let payload: Json = serde_json::from_str(&made.payload).unwrap();
        let amount = payload["amount"].as_i64();
        match (made.kind, amount) {
            ("Moved", _) => self.step = (self.step + 1).min(2),
            (_, None) => return self.bad += 1,
            ("Deposited", Some(amount)) => match self.balance.checked_add(amount) {
                None => return self.bad += 1,
                Some(balance) => {
                    self.balance = balance;
                    self.high = self.high.max(Some(balance));
                }
            },
            (_, Some(amount)) if amount <= self.balance => self.balance -= amount,
            _ => self.refused += 1,
        }
        self.last = Some(made.dot.origin.region.to_string());
    }

    fn value(&self) -> Json {
        let step = ["new", "open", "closed"][self.step];
        let Self { balance, refused, last, high, .. } = self;
        json!({ "balance": balance, "refused": refused, "last": last, "high": high, "step": step })
    }
}

/// One region: what it holds, and the part of the order that it knows to be complete.
struct Place {
    origin: Origin,
    frontier: Context,
    held: BTreeSet<(Stamp, Dot)>,
    settled: Ordered,
    settled_events: usize,
    /// Of each region, what it held when it made its last event that is settled.
    known: BTreeMap<Origin, Context>,
}

struct World {
    rng: SmallRng,
    definition: Definition,
    places: Vec<Place>,
    made: BTreeMap<(Stamp, Dot), Made>,
    identities: u128,
}

impl World {
    fn new(seed: u64, regions: usize) -> Self {
        let definition = definition();
        let place = |name: &&str| Place {
            origin: origin(name),
            frontier: Context::new(),
            held: BTreeSet::new(),
            settled: Ordered::new(&definition),
            settled_events: 0,
            known: BTreeMap::new(),
        };
        let places = ["asia", "eu", "sa", "us"][..regions].iter().map(place).collect();
        let rng = SmallRng::seed_from_u64(seed);
        Self { rng, definition, places, made: BTreeMap::new(), identities: 0 }
    }

    fn append(&mut self, at_place: usize, identity: u128, kind: &'static str, payload: String) {
        let wall = at(self.rng.random_range(0..200) + self.made.len() as u64);
        let place = &mut self.places[at_place];
        let last = place.held.last().map_or(0, |(stamp, _)| stamp.0);
        let stamp = Stamp((last + 1).max(wall.0));
        let dot =
            Dot { origin: place.origin.clone(), seq: place.frontier.seq(&place.origin).next() };
        let held = place.frontier.clone();
        place.frontier.advance(&dot.origin, dot.seq);
        place.held.insert((stamp, dot.clone()));
        let made = Made { stamp, dot: dot.clone(), held, identity, kind, payload };
        self.made.insert((stamp, dot), made);
    }

    fn write(&mut self, at_place: usize) {
        self.identities += 1;
        let kind = *["Deposited", "Withdrawn", "Withdrawn", "Moved"].choose(&mut self.rng).unwrap();
        let amount = match self.rng.random_range(0..20) {
            0 => json!("much"),
            1 => json!(i64::MAX),
            amount => json!(amount),
        };
        self.append(at_place, self.identities, kind, json!({ "amount": amount }).to_string());
    }

    /// A client got no answer, and asks another region, which has not heard of it either.
    fn retry(&mut self, at_place: usize) {
        let held = &self.places[at_place].held;
        let knows: BTreeSet<_> = held.iter().map(|key| self.made[key].identity).collect();
        let unknown: Vec<_> =
            self.made.values().filter(|made| !knows.contains(&made.identity)).cloned().collect();
        if let Some(made) = unknown.choose(&mut self.rng).cloned() {
            self.append(at_place, made.identity, made.kind, made.payload);
        }
    }

    fn deliver(&mut self, at_place: usize) -> bool {
        let place = &self.places[at_place];
        let ready = self.made.iter().filter(|(_, made)| {
            place.frontier.seq(&made.dot.origin).next() == made.dot.seq
                && place.frontier.covers(&made.held)
        });
        let ready: Vec<_> = ready.map(|(key, _)| key.clone()).collect();
        let Some(key) = ready.choose(&mut self.rng).cloned() else { return false };
        let place = &mut self.places[at_place];
        place.frontier.advance(&key.1.origin, key.1.seq);
        place.held.insert(key);
        true
    }

    /// Takes in what is final: nobody's next event can be stamped at or below the last of each.
    fn settle(&mut self, at_place: usize) {
        let last = |place: &Place, of: &Origin| {
            place.held.iter().filter(|(_, dot)| dot.origin == *of).map(|(stamp, _)| *stamp).max()
        };
        let origins: Vec<_> = self.places.iter().map(|place| place.origin.clone()).collect();
        let place = &mut self.places[at_place];
        let Some(watermark) = origins.iter().map(|of| last(place, of)).min().flatten() else {
            return;
        };
        let ready = place.held.iter().skip(place.settled_events);
        let ready: Vec<_> = ready.take_while(|(stamp, _)| *stamp <= watermark).cloned().collect();
        for key in ready {
            let made = &self.made[&key];
            let known = place.known.entry(made.dot.origin.clone()).or_default();
            known.merge(&made.held);
            known.advance(&made.dot.origin, made.dot.seq);
            let of = |origin| place.known.get(origin).cloned().unwrap_or_default();
            let stable = origins.iter().map(of).reduce(|a, b| a.meet(&b)).unwrap();
            let mut shared = Origins::default();
            let _ = place.settled.apply(&self.definition, &made.input(), &stable, &mut shared);
            place.settled_events += 1;
            // A snapshot at any time, and forgetting at any time, change nothing.
            if self.rng.random_bool(0.1) {
                place.settled.settle(&stable);
                let mut bytes = Vec::new();
                place.settled.encode(&mut bytes);
                let back =
                    Ordered::decode(&self.definition, Reader::new(bytes.into()), &mut shared);
                place.settled = back.unwrap();
            }
        }
    }

    fn check(&self, at_place: usize, seed: u64) {
        let (place, none) = (&self.places[at_place], Context::new());
        let in_order = || place.held.iter().map(|key| &self.made[key]);
        let whole: Vec<_> = self.made.keys().take(place.settled_events).collect();
        let own: Vec<_> = place.held.iter().take(place.settled_events).collect();
        assert_eq!(own, whole, "seed {seed}: nothing comes in front of what is settled");
        let plain = Account::of(in_order().take(place.settled_events));
        let settled = &place.settled;
        assert_eq!(Json::Object(settled.value(&self.definition)), plain.value(), "seed {seed}");
        assert_eq!((settled.events(), settled.bad()), (own.len() as u64, plain.bad), "seed {seed}");

        let mut tentative = settled.clone();
        for made in in_order().skip(place.settled_events) {
            let mut shared = Origins::default();
            let _ = tentative.apply(&self.definition, &made.input(), &none, &mut shared);
        }
        let plain = Account::of(in_order());
        assert_eq!(Json::Object(tentative.value(&self.definition)), plain.value(), "seed {seed}");
        assert_eq!(tentative.bad(), plain.bad, "seed {seed}");
    }
}

#[test]
fn settled_is_the_plain_fold_in_every_region_and_tentative_that_of_all_it_holds() {
    let (mut refused, mut bad, mut behind) = (0, 0, 0);
    for seed in 0..60 {
        let regions = 2 + seed as usize % 3;
        let mut world = World::new(seed, regions);
        for _ in 0..150 {
            let place = world.rng.random_range(0..regions);
            match world.rng.random_range(0..10) {
                0..3 => world.write(place),
                3 => world.retry(place),
                _ => drop(world.deliver(place)),
            }
            if world.rng.random_bool(0.3) {
                world.settle(place);
                world.check(place, seed);
                behind += world.places[place].held.len() - world.places[place].settled_events;
            }
        }
        for place in 0..regions {
            while world.deliver(place) {}
            world.settle(place);
            world.check(place, seed);
        }
        // With the same final cut, everything is the same, byte for byte.
        let settled = world.places.iter().map(|place| place.settled_events);
        assert_eq!(settled.collect::<BTreeSet<_>>().len(), 1, "seed {seed}");
        let whole = Account::of(world.made.values());
        (refused, bad) = (refused + whole.refused, bad + whole.bad);
    }
    assert!(refused > 100 && bad > 50 && behind > 1000, "{refused}, {bad}, {behind}");
}

fn event<'a>(dot: &'a Dot, held: &'a Context, kind: &'a str, payload: &'a str) -> Input<'a> {
    let identity = identity(None, None, 0, dot);
    let payload = payload.as_bytes();
    Input { dot, stamp: at(dot.seq.0), held, identity, stream: "c-1", kind, payload }
}

fn dot(region: &str, seq: u64) -> Dot {
    Dot { origin: origin(region), seq: Seq(seq) }
}

#[test]
fn an_event_does_all_it_is_to_do_or_nothing_and_sees_what_was_before_it() {
    let definition = definition();
    let (mut ordered, mut shared) = (Ordered::new(&definition), Origins::default());
    let (mut held, none) = (Context::new(), Context::new());
    let mut apply = |seq, kind: &str, payload: &str| {
        let dot = dot("eu", seq);
        let applied =
            ordered.apply(&definition, &event(&dot, &held, kind, payload), &none, &mut shared);
        held.advance(&dot.origin, dot.seq);
        let value = ordered.value(&definition);
        let shown = json!([value["balance"], value["refused"], value["last"], value["step"]]);
        (applied.map_err(|bad| bad.to_string()), shown)
    };
    assert_eq!(apply(1, "Other", "no JSON"), (Ok(()), json!([0, 0, "eu", "new"])));
    assert_eq!(apply(2, "Deposited", r#"{"amount":5}"#), (Ok(()), json!([5, 0, "eu", "new"])));
    // Two conditions that exclude each other: the first does not make the second true.
    assert_eq!(apply(3, "Withdrawn", r#"{"amount":4}"#), (Ok(()), json!([1, 0, "eu", "new"])));
    assert_eq!(apply(4, "Withdrawn", r#"{"amount":4}"#), (Ok(()), json!([1, 1, "eu", "new"])));
    assert_eq!(apply(5, "Moved", "{}"), (Ok(()), json!([1, 1, "eu", "open"])));
    let text = r#""balance += $.amount": balance + 9223372036854775807 does not fit into 64 bits"#;
    let most = r#"{"amount":9223372036854775807}"#;
    assert_eq!(apply(6, "Deposited", most), (Err(text.into()), json!([1, 1, "eu", "open"])));
    let text =
        r#""balance -= $.amount when balance >= $.amount": there is no $.amount in the payload"#;
    assert_eq!(apply(7, "Withdrawn", "{}"), (Err(text.into()), json!([1, 1, "eu", "open"])));
    // Operations are of no concern, whatever they say.
    assert_eq!(apply(8, EVENT_TYPE, "{"), (Ok(()), json!([1, 1, "eu", "open"])));
    assert_eq!((ordered.events(), ordered.bad()), (8, 2));
}

#[test]
fn what_statements_add_to_one_field_is_added_up_and_of_two_that_set_it_the_last_counts() {
    let json = json!({ "category": "c", "version": 1, "fields": { "n": "ordered from 1", "m": "ordered" },
        "on": { "E": ["n += 2", "n += n", "m = n", "m = 7 when n == 1"], "F": ["n = 5", "n -= 1"] } });
    let definition = Definition::from_json(&json).unwrap();
    let (mut ordered, mut shared) = (Ordered::new(&definition), Origins::default());
    let none = Context::new();
    let mut apply = |seq, kind: &str| {
        let dot = dot("eu", seq);
        ordered.apply(&definition, &event(&dot, &none, kind, ""), &none, &mut shared).unwrap();
        Json::Object(ordered.value(&definition))
    };
    assert_eq!(apply(1, "E"), json!({ "n": 4, "m": 7 }));
    assert_eq!(apply(2, "E"), json!({ "n": 10, "m": 4 }));
    assert_eq!(apply(3, "F"), json!({ "n": 4, "m": 4 }));
}

#[test]
fn a_request_that_was_forgotten_counts_again_and_one_that_was_not_known_does_not() {
    let definition = definition();
    let deposit = r#"{"amount":5}"#;
    let balance = |events: &[(&Dot, &Context)], stable: &Context| {
        let (mut ordered, mut shared) = (Ordered::new(&definition), Origins::default());
        for (dot, held) in events {
            let input = Input { identity: 7, ..event(dot, held, "Deposited", deposit) };
            ordered.apply(&definition, &input, stable, &mut shared).unwrap();
            ordered.settle(stable);
        }
        ordered.value(&definition)["balance"].clone()
    };
    let (eu, us, again) = (dot("eu", 1), dot("us", 1), dot("us", 2));
    let (none, both) = (Context::new(), cut(&[("eu", 1), ("us", 1)]));
    assert_eq!(balance(&[(&eu, &none), (&us, &none)], &none), 5);
    assert_eq!(balance(&[(&eu, &none), (&us, &none), (&again, &both)], &none), 10);
    // What is stable was known to whoever comes later.
    assert_eq!(balance(&[(&eu, &none), (&again, &both)], &both), 10);
}

#[test]
fn operations_on_ordered_fields_are_refused() {
    let definition = definition();
    for action in [r#""do":"set","value":1"#, r#""do":"increment""#, r#""do":"clear""#] {
        let text = format!(r#"{{"do":[{{"field":"balance",{action}}}]}}"#);
        let sent = super::super::Operations::from_json(text.as_bytes()).unwrap();
        let error = sent.operations[0].check(&definition).unwrap_err().to_string();
        assert!(error.starts_with("field \"balance\" is ordered: the stream's events"), "{error}");
    }
}

#[test]
fn what_every_region_holds_takes_no_room() {
    let definition = definition();
    let (mut ordered, mut shared) = (Ordered::new(&definition), Origins::default());
    let mut held = Context::new();
    for seq in 1..=5000 {
        let dot = dot("eu", seq);
        let stable = cut(&[("eu", seq.saturating_sub(10))]);
        let input = Input { identity: seq.into(), ..event(&dot, &held, "Moved", "{}") };
        ordered.apply(&definition, &input, &stable, &mut shared).unwrap();
        held.advance(&dot.origin, dot.seq);
        assert!(ordered.memory() < 16 * 1024, "{} bytes after {seq}", ordered.memory());
    }
}

#[test]
fn ordered_fields_that_were_cut_or_changed_are_refused_or_read_but_never_panic() {
    let mut world = World::new(3, 3);
    (0..40).for_each(|nth| world.write(nth % 3));
    for place in 0..3 {
        while world.deliver(place) {}
    }
    world.settle(0);
    let mut bytes = Vec::new();
    world.places[0].settled.encode(&mut bytes);
    let definition = &world.definition;
    let read = |bytes: Vec<u8>| {
        Ordered::decode(definition, Reader::new(bytes.into()), &mut Origins::default())
    };
    assert!(world.places[0].settled_events > 10);
    let mut again = Vec::new();
    read(bytes.clone()).unwrap().encode(&mut again);
    assert!(again == bytes, "it comes back");
    for len in 0..bytes.len() {
        assert!(read(bytes[..len].to_vec()).is_err(), "cut at {len}");
    }
    for at in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 0x41;
        if let Ok(ordered) = read(bad) {
            assert_eq!(ordered.value(definition).len(), 5);
        }
    }
}
