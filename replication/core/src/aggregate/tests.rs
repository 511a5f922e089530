//! Aggregates in several regions that write at once: equal in the end, and what they should be.

use std::collections::{BTreeMap, BTreeSet};

use crdts::{CmRDT, Orswot};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value as Json, json};

use super::*;
use crate::id::{Origin, Seq};
use crate::sample::{at, cut, origin};

impl State {
    /// What one field holds; nothing if there is no such field.
    fn field(&self, definition: &Definition, name: &str) -> Option<Json> {
        self.value(definition).remove(name)
    }
}

fn definition() -> Definition {
    let fields = json!({
        "grown": "g-counter", "n": "pn-counter", "high": "max", "low": "min",
        "last": "lww-register", "many": "mv-register", "all": "g-set", "tags": "or-set",
        "up": "flag", "todo": "list", "by": "map of pn-counter", "best": "map of max",
        "said": "map of lww-register", "sets": "map of or-set", "lists": "map of list",
    });
    let on = json!({
        "Counted": ["n += $.by", "tags add $.tag when exists $.tag"],
        "*": ["last = @region"],
    });
    let json = json!({ "category": "c", "version": 1, "fields": fields, "on": on });
    Definition::from_json(&json).unwrap()
}

#[derive(Debug, Clone)]
struct Made {
    dot: Dot,
    stamp: Stamp,
    held: Context,
    identity: u128,
    sent: Operations,
}

impl Made {
    fn apply(&self, state: &mut State, definition: &Definition, stable: &Context) {
        let payload = self.sent.to_json();
        let input = Input {
            dot: &self.dot,
            stamp: self.stamp,
            held: &self.held,
            identity: self.identity,
            stream: "c-1",
            kind: EVENT_TYPE,
            payload: payload.as_bytes(),
        };
        state.apply(definition, &input, stable, &mut Origins::default()).unwrap();
    }
    fn observed(&self) -> Context {
        self.sent.observed.as_ref().map_or(self.held.clone(), |seen| seen.meet(&self.held))
    }
}

/// One region: a causal order of everything, and the aggregate folded from it.
struct Place {
    origin: Origin,
    frontier: Context,
    /// Cuts that clients of this region may have seen.
    cuts: Vec<Context>,
    /// What the other regions are known to hold.
    known: BTreeMap<Origin, Context>,
    identities: BTreeSet<u128>,
    stamp: u64,
    state: State,
    /// The `tags` field as the crate keeps it.
    oracle: Orswot<Value, Origin>,
}

struct World {
    rng: SmallRng,
    definition: Definition,
    places: Vec<Place>,
    made: BTreeMap<Dot, Made>,
    identities: u128,
    /// Whether clients say what they had seen. The crate's clocks cannot say that of some events.
    clients_say: bool,
    /// Whether ids are given out again, to other requests and where the first is known.
    reused: bool,
}

impl World {
    fn new(seed: u64, regions: usize) -> Self {
        let definition = definition();
        let place = |name: &&str| Place {
            origin: origin(name),
            frontier: Context::new(),
            cuts: Vec::new(),
            known: BTreeMap::new(),
            identities: BTreeSet::new(),
            stamp: 0,
            state: State::new(&definition),
            oracle: Orswot::new(),
        };
        let places = ["asia", "eu", "sa", "us"][..regions].iter().map(place).collect();
        let rng = SmallRng::seed_from_u64(seed);
        let clients_say = seed.is_multiple_of(2);
        let (made, reused) = (BTreeMap::new(), seed % 5 > 2);
        Self { rng, definition, places, made, identities: 0, clients_say, reused }
    }

    fn stable(&self, at: usize) -> Context {
        let place = &self.places[at];
        let others = self.places.iter().filter(|other| other.origin != place.origin);
        others.fold(place.frontier.clone(), |stable, other| {
            stable.meet(&place.known.get(&other.origin).cloned().unwrap_or_default())
        })
    }

    fn take_in(&mut self, at: usize, made: &Made) {
        let stable = self.stable(at);
        let place = &mut self.places[at];
        made.apply(&mut place.state, &self.definition, &stable);
        feed(&mut place.oracle, made);
        place.frontier.advance(&made.dot.origin, made.dot.seq);
        let known = place.known.entry(made.dot.origin.clone()).or_default();
        known.merge(&made.held);
        known.advance(&made.dot.origin, made.dot.seq);
        place.identities.insert(made.identity);
        place.stamp = place.stamp.max(made.stamp.0);
        if self.rng.random_bool(0.2) {
            place.cuts.push(place.frontier.clone());
        }
        // A snapshot at any time, and forgetting at any time, change nothing.
        if self.rng.random_bool(0.1) {
            let mut bytes = Vec::new();
            place.state.encode(&mut bytes);
            let mut origins = Origins::default();
            let back = State::decode(&self.definition, Reader::new(bytes.into()), &mut origins);
            place.state = back.unwrap();
        }
        if self.rng.random_bool(0.2) {
            let stable = self.stable(at);
            self.places[at].state.settle(&self.definition, &stable);
        }
    }

    fn append(&mut self, at: usize, identity: u128, sent: Operations) {
        let place = &self.places[at];
        let seq = place.frontier.seq(&place.origin).next();
        let dot = Dot { origin: place.origin.clone(), seq };
        let stamp = Stamp((place.stamp + 1).max(at_random(&mut self.rng)));
        let made = Made { dot: dot.clone(), stamp, held: place.frontier.clone(), identity, sent };
        self.made.insert(dot, made.clone());
        self.take_in(at, &made);
    }

    fn write(&mut self, at: usize) {
        let operations = (0..self.rng.random_range(1..4)).map(|_| self.operation(at)).collect();
        let cuts = &self.places[at].cuts;
        let says = self.clients_say && self.rng.random_bool(0.3);
        let observed = if says { cuts.choose(&mut self.rng).cloned() } else { None };
        let again = self.reused && self.identities > 0 && self.rng.random_bool(0.3);
        let identity = match again {
            true => self.rng.random_range(1..=self.identities),
            false => {
                self.identities += 1;
                self.identities
            }
        };
        self.append(at, identity, Operations { operations, observed });
    }

    /// A client got no answer, and asks another region, which has not heard of it either.
    fn retry(&mut self, at: usize) {
        let unknown =
            self.made.values().filter(|made| !self.places[at].identities.contains(&made.identity));
        let unknown: Vec<_> = unknown.map(|made| (made.identity, made.sent.clone())).collect();
        if let Some((identity, sent)) = unknown.choose(&mut self.rng).cloned() {
            self.append(at, identity, sent);
        }
    }

    fn deliver(&mut self, at: usize) -> bool {
        let place = &self.places[at];
        let others = self.places.iter().filter(|other| other.origin != place.origin);
        let next = others.filter_map(|other| {
            let seq = place.frontier.seq(&other.origin).next();
            self.made.get(&Dot { origin: other.origin.clone(), seq })
        });
        let ready: Vec<_> =
            next.filter(|made| place.frontier.covers(&made.held)).cloned().collect();
        let chosen = ready.choose(&mut self.rng).cloned();
        chosen.inspect(|made| self.take_in(at, made)).is_some()
    }

    fn operation(&mut self, at: usize) -> Operation {
        let rng = &mut self.rng;
        let value = |rng: &mut SmallRng| Value::Int(rng.random_range(0..4));
        let fields: Vec<_> = self.definition.fields.iter().collect();
        let (field, kind) = fields.choose(rng).unwrap();
        let key =
            matches!(kind, Kind::Map(_)).then(|| format!("k{}", rng.random_range(0..2)).into());
        let inner = if let Kind::Map(inner) = kind { inner } else { *kind };
        let may_clear = !matches!(kind, Kind::GCounter | Kind::GSet);
        if may_clear && rng.random_bool(0.15) {
            let by_key = key.is_some() && rng.random_bool(0.7);
            let (key, action) =
                if by_key { (key, Action::RemoveKey) } else { (None, Action::Clear) };
            return Operation { field: (*field).clone(), key, action };
        }
        let action = match inner {
            Kind::GCounter => Action::Increment(rng.random_range(0..9)),
            Kind::PnCounter => Action::Increment(rng.random_range(-9..9)),
            Kind::Max | Kind::Min => Action::Offer(value(rng)),
            Kind::LwwRegister | Kind::MvRegister => Action::Set(value(rng)),
            Kind::GSet => Action::Add(value(rng)),
            Kind::OrSet if rng.random_bool(0.5) => Action::Remove(value(rng)),
            Kind::OrSet => Action::Add(value(rng)),
            Kind::Flag if rng.random_bool(0.5) => Action::Disable,
            Kind::Flag => Action::Enable,
            Kind::List => {
                let shown = self.places[at].state.field(&self.definition, field).unwrap();
                let list = match &key {
                    Some(key) => shown.get(&**key).cloned().unwrap_or_else(|| json!([])),
                    None => shown,
                };
                list_action(rng, list.as_array().unwrap())
            }
            Kind::Map(_) | Kind::Ordered(_) => unreachable!("none is under a key"),
            Kind::BoundedCounter => unreachable!("tests/model looks at rights"),
        };
        Operation { field: (*field).clone(), key, action }
    }
}

fn list_action(rng: &mut SmallRng, list: &[Json]) -> Action {
    let id =
        |at: usize| list.get(at).map(|element| element["id"].as_str().unwrap().parse().unwrap());
    let at = rng.random_range(0..=list.len());
    match id(at) {
        Some(id) if rng.random_bool(0.3) => Action::Delete(id),
        before => {
            let after = at.checked_sub(1).and_then(id);
            Action::Insert { after, before, value: Value::Int(rng.random_range(0..100)) }
        }
    }
}

fn at_random(rng: &mut SmallRng) -> u64 {
    at(rng.random_range(0..50)).0
}

/// The same operations on the crate's or-set. Its dots have one number: event and operation in one.
fn feed(set: &mut Orswot<Value, Origin>, made: &Made) {
    let number = |seq: Seq, nth: u64| (seq.0 << 8) | nth;
    let mut seen: crdts::VClock<Origin> = made
        .observed()
        .iter()
        .map(|(origin, seq)| crdts::Dot::new(origin.clone(), number(seq, 255)))
        .collect();
    for (nth, operation) in made.sent.operations.iter().enumerate() {
        let dot = crdts::Dot::new(made.dot.origin.clone(), number(made.dot.seq, nth as u64));
        let mut clock = seen.clone();
        clock.glb(&set.clock());
        match (operation.field.as_str(), &operation.action) {
            ("tags", Action::Add(value)) => {
                set.apply(crdts::orswot::Op::Add {
                    dot: dot.clone(),
                    members: vec![value.clone()],
                });
            }
            ("tags", Action::Remove(value)) => {
                set.apply(crdts::orswot::Op::Rm { clock, members: vec![value.clone()] });
            }
            ("tags", Action::Clear) => {
                let members = set.read().val.into_iter().collect();
                set.apply(crdts::orswot::Op::Rm { clock, members });
            }
            _ => {}
        }
        seen.apply(dot);
    }
}

/// What the fields should be, from nothing but the set of events: the definition of every type.
struct Spec<'a> {
    operations: Vec<(&'a Made, u32, &'a Operation)>,
}

impl<'a> Spec<'a> {
    fn of(made: &'a BTreeMap<Dot, Made>) -> Self {
        let operations = made.values().flat_map(|made| {
            (0..).zip(&made.sent.operations).map(move |(nth, operation)| (made, nth, operation))
        });
        Self { operations: operations.collect() }
    }

    fn seen(later: (&Made, u32), earlier: (&Made, u32), by: &Context) -> bool {
        let same = later.0.dot == earlier.0.dot && earlier.1 < later.1;
        same || by.covers_dot(&earlier.0.dot)
    }

    /// Operations on what is at `field` and `key` that nobody has cleared.
    fn left(&self, field: &str, key: Option<&str>) -> Vec<(&'a Made, u32, &'a Action)> {
        let clears: Vec<_> = self
            .operations
            .iter()
            .filter(|(_, _, operation)| {
                let here = operation.key.is_none() || operation.key.as_deref() == key;
                let clears = matches!(operation.action, Action::Clear | Action::RemoveKey);
                operation.field == field && here && clears
            })
            .collect();
        let mine = self.operations.iter().filter(|(_, _, operation)| {
            operation.field == field
                && operation.key.as_deref() == key
                && !matches!(operation.action, Action::Clear | Action::RemoveKey)
        });
        mine.filter(|(made, nth, _)| {
            !clears.iter().any(|clear| Self::seen((clear.0, clear.1), (made, *nth), &clear.0.held))
        })
        .map(|(made, nth, operation)| (*made, *nth, &operation.action))
        .collect()
    }

    /// Every event that asks for the same, cleared or not: of the same identity, and with as many of
    /// that identity before it, each known to the next.
    fn same(&self, field: &str, key: Option<&str>, made: &Made, nth: u32) -> Vec<&'a Made> {
        let here = self.operations.iter().filter(|(other, n, operation)| {
            let adds = matches!(operation.action, Action::Increment(_) | Action::Insert { .. });
            let there = operation.field == field && operation.key.as_deref() == key;
            adds && there && *n == nth && other.identity == made.identity
        });
        let mut here: Vec<_> = here.map(|(other, _, _)| *other).collect();
        here.sort_by_key(|other| other.held.events());
        let mut before: BTreeMap<&Dot, usize> = BTreeMap::new();
        for other in &here {
            let known = before.iter().filter(|(dot, _)| other.held.covers_dot(dot));
            let number = known.map(|(_, number)| number + 1).max().unwrap_or(0);
            before.insert(&other.dot, number);
        }
        here.iter().filter(|o| before[&o.dot] == before[&made.dot]).copied().collect()
    }

    fn value(&self, kind: &Kind, field: &str, key: Option<&str>) -> Json {
        let left = self.left(field, key);
        match kind {
            Kind::GCounter | Kind::PnCounter => {
                // A request counts once, as its first event says, unless one of them was cleared.
                let counted = left.iter().filter(|(made, nth, _)| {
                    let same = self.same(field, key, made, *nth);
                    let first = same.iter().min_by_key(|made| (made.stamp, &made.dot));
                    let left = |same: &&Made| {
                        left.iter().any(|(other, n, _)| other.dot == same.dot && n == nth)
                    };
                    first.is_some_and(|first| first.dot == made.dot) && same.iter().all(left)
                });
                let amount = |(_, _, action): &(&Made, u32, &Action)| match action {
                    Action::Increment(by) => *by,
                    other => panic!("{other:?}"),
                };
                json!(counted.map(amount).sum::<i64>())
            }
            Kind::Max | Kind::Min | Kind::LwwRegister => {
                let offers = left.iter().map(|(made, nth, action)| match action {
                    Action::Offer(value) | Action::Set(value) => {
                        (made.stamp, &made.dot, nth, value)
                    }
                    other => panic!("{other:?}"),
                });
                let best = match kind {
                    Kind::Max => offers.map(|offer| offer.3).max(),
                    Kind::Min => offers.map(|offer| offer.3).min(),
                    _ => {
                        offers.max_by_key(|(stamp, dot, nth, _)| (*stamp, *dot, *nth)).map(|o| o.3)
                    }
                };
                best.map_or(Json::Null, Value::to_json)
            }
            Kind::List | Kind::Ordered(_) => panic!("looked at in their own way"),
            Kind::BoundedCounter => unreachable!("tests/model looks at rights"),
            Kind::Map(inner) => {
                let mut map = Map::new();
                for key in ["k0", "k1"] {
                    if !self.left(field, Some(key)).is_empty() && **inner != Kind::List {
                        map.insert(key.into(), self.value(inner, field, Some(key)));
                    }
                }
                Json::Object(map)
            }
            Kind::MvRegister | Kind::GSet | Kind::OrSet | Kind::Flag => {
                let members = self.members(&left, key.is_some());
                match kind {
                    Kind::Flag => json!(!members.is_empty()),
                    _ => members.iter().map(Value::to_json).collect(),
                }
            }
        }
    }

    fn members(&self, left: &[(&Made, u32, &Action)], under_key: bool) -> BTreeSet<Value> {
        let alive = left.iter().filter_map(|(made, nth, action)| {
            let value = match action {
                Action::Add(value) | Action::Set(value) => value.clone(),
                Action::Enable => Value::Null,
                _ => return None,
            };
            let taken_back = left.iter().any(|(later, n, action)| {
                let takes = match action {
                    Action::Remove(gone) => *gone == value,
                    Action::Set(_) | Action::Disable => true,
                    _ => false,
                };
                let by = if under_key { later.held.clone() } else { later.observed() };
                takes && Self::seen((later, *n), (made, *nth), &by)
            });
            (!taken_back).then_some(value)
        });
        alive.collect()
    }
}

impl World {
    fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            let at = self.rng.random_range(0..self.places.len());
            match self.rng.random_range(0..10) {
                0..4 => self.write(at),
                4 => self.retry(at),
                _ => drop(self.deliver(at)),
            }
        }
        for at in 0..self.places.len() {
            while self.deliver(at) {}
        }
    }

    fn check(&self, seed: u64) {
        let first = &self.places[0];
        let canonical = first.state.canonical(&self.definition);
        for place in &self.places {
            assert_eq!(place.frontier, first.frontier, "seed {seed}: all was delivered");
            let value = place.state.value(&self.definition);
            assert_eq!(value, first.state.value(&self.definition), "seed {seed}: {}", place.origin);
            assert!(
                place.state.canonical(&self.definition) == canonical,
                "seed {seed}: {}",
                place.origin
            );
            if self.clients_say {
                continue;
            }
            let tags: Json = place
                .oracle
                .read()
                .val
                .into_iter()
                .collect::<BTreeSet<_>>()
                .iter()
                .map(Value::to_json)
                .collect();
            assert_eq!(value["tags"], tags, "seed {seed}: the crate's or-set in {}", place.origin);
        }
        let spec = Spec::of(&self.made);
        for (field, kind) in &self.definition.fields {
            let lists = *kind == Kind::List || *kind == Kind::Map(Box::new(Kind::List));
            if !lists {
                let shown = first.state.field(&self.definition, field).unwrap();
                assert_eq!(shown, spec.value(kind, field, None), "seed {seed}: {field}");
            }
        }
        if !self.reused {
            self.check_list(&spec, seed);
        }
    }

    fn check_list(&self, spec: &Spec<'_>, seed: u64) {
        let shown = self.places[0].state.field(&self.definition, "todo").unwrap();
        let shown: BTreeMap<String, Json> = shown
            .as_array()
            .unwrap()
            .iter()
            .map(|element| {
                let id = element["id"].as_str().unwrap();
                (id.rsplit('@').next().unwrap().to_owned(), element["value"].clone())
            })
            .collect();
        let left = spec.left("todo", None);
        let deleted: BTreeSet<String> = self
            .made
            .values()
            .flat_map(|made| &made.sent.operations)
            .filter_map(|operation| match &operation.action {
                Action::Delete(id) if operation.field == "todo" => {
                    Some(id.to_string().rsplit('@').next().unwrap().to_owned())
                }
                _ => None,
            })
            .collect();
        let inserted = left.iter().filter_map(|(made, nth, action)| {
            let Action::Insert { value, .. } = action else { return None };
            let whole = spec
                .same("todo", None, made, *nth)
                .iter()
                .all(|same| left.iter().any(|(other, n, _)| other.dot == same.dot && n == nth));
            let name = format!("{:x}.{nth}", made.identity);
            (whole && !deleted.contains(&name)).then(|| (name, value.to_json()))
        });
        assert_eq!(shown, inserted.collect(), "seed {seed}: todo");
    }
}

#[test]
fn any_causal_order_gives_what_the_set_of_events_says() {
    for seed in 0..300 {
        let mut world = World::new(seed, 2 + seed as usize % 3);
        world.run(30 + seed as usize % 120);
        world.check(seed);
    }
}

/// An event that comes in: its dot, what its region held, and its operation. `None`: whatever is still
/// to come was made by who holds all that came before.
type Step<'a> = Option<(&'a Dot, &'a Context, &'a str)>;

/// What each region holds in the end, given the order of its events.
fn states(orders: &[&[Step<'_>]]) -> Vec<(Json, Vec<u8>)> {
    let definition = definition();
    let of = |order: &&[Step<'_>]| {
        let (mut state, mut origins) = (State::new(&definition), Origins::default());
        let mut frontier = Context::new();
        for step in *order {
            let Some((dot, held, operation)) = step else {
                state.settle(&definition, &frontier);
                continue;
            };
            let payload = format!(r#"{{"do":[{operation}]}}"#);
            // All are one request, as far as their ids say.
            let input = Input { identity: 1, ..event(dot, held, EVENT_TYPE, payload.as_bytes()) };
            state.apply(&definition, &input, &Context::new(), &mut origins).unwrap();
            frontier.advance(&dot.origin, dot.seq);
        }
        (Json::Object(state.value(&definition)), state.canonical(&definition))
    };
    orders.iter().map(of).collect()
}

#[test]
fn a_request_that_its_region_has_forgotten_is_another_one_in_every_region() {
    let (one, gone, two) = (dot("eu", 1), dot("eu", 2), dot("eu", 3));
    let (none, held_one, held) = (Context::new(), cut(&[("eu", 1)]), cut(&[("eu", 2)]));
    let count = r#"{"field":"n","do":"increment","by":5}"#;
    let clear = r#"{"field":"n","do":"clear"}"#;
    let insert = r#"{"field":"todo","do":"insert","value":1}"#;
    let delete = r#"{"field":"todo","do":"clear"}"#;
    for (first, second, shown) in [
        (count, r#"{"field":"low","do":"offer","value":1}"#, json!([10, 0])),
        (count, clear, json!([5, 0])),
        (insert, delete, json!([0, 1])),
    ] {
        let events = [(&one, &none, first), (&gone, &held_one, second), (&two, &held, first)];
        let [one, gone, two] = events.map(Some);
        let states = states(&[&[one, gone, two], &[one, None, gone, None, two]]);
        let n = |of: &Json| json!([of["n"], of["todo"].as_array().unwrap().len()]);
        assert_eq!(n(&states[0].0), shown, "{first}, {second}");
        assert!(states[0] == states[1], "forgetting changes nothing: {first}, {second}");
    }
}

#[test]
fn one_id_for_different_insertions_is_the_same_in_every_region() {
    let (eu, us, gone) = (dot("eu", 1), dot("us", 1), dot("eu", 2));
    let (none, held) = (Context::new(), cut(&[("eu", 1)]));
    let insert = r#"{"field":"todo","do":"insert","value":1}"#;
    let clear = r#"{"field":"todo","do":"clear"}"#;
    for other in [
        r#"{"field":"todo","do":"insert","value":2}"#,
        r#"{"field":"todo","do":"insert","value":2,"after":"5@7.0"}"#,
    ] {
        let [eu, us] = [(&eu, insert), (&us, other)].map(|(dot, text)| Some((dot, &none, text)));
        let gone = Some((&gone, &held, clear));
        let states =
            states(&[&[eu, us], &[us, eu], &[eu, us, gone], &[eu, gone, us], &[us, eu, gone]]);
        assert!(states[0] == states[1], "{other}");
        assert!(states[2] == states[3] && states[3] == states[4], "{other}");
    }
}

#[test]
fn additions_by_clients_who_say_they_have_seen_nothing_do_not_pile_up() {
    let definition = definition();
    let (mut state, mut origins) = (State::new(&definition), Origins::default());
    let mut held = Context::new();
    let payload = r#"{"do":[{"field":"tags","do":"add","value":1}],"observed":"00"}"#;
    let mut memory = Vec::new();
    for seq in 1..=1000 {
        let dot = dot("eu", seq);
        let input = event(&dot, &held, EVENT_TYPE, payload.as_bytes());
        state.apply(&definition, &input, &Context::new(), &mut origins).unwrap();
        held.advance(&dot.origin, dot.seq);
        let mut bytes = Vec::new();
        state.encode(&mut bytes);
        memory.push((state.memory(), bytes.len()));
    }
    assert!(memory[999].0 <= memory[0].0 && memory[999].1 < memory[0].1 + 8, "{:?}", memory[999]);
}

#[test]
fn who_adds_and_removes_at_once_takes_back_nothing_that_was_not_seen() {
    let definition = definition();
    for (field, add, remove) in [
        ("tags", r#""do":"add","value":1"#, r#""do":"remove","value":1"#),
        ("up", r#""do":"enable""#, r#""do":"disable""#),
        ("many", r#""do":"set","value":1"#, r#""do":"set","value":2"#),
    ] {
        let (mut state, mut origins) = (State::new(&definition), Origins::default());
        let (first, second) = (dot("eu", 1), dot("eu", 2));
        let (none, held) = (Context::new(), cut(&[("eu", 1)]));
        let one = format!(r#"{{"do":[{{"field":"{field}",{add}}}]}}"#);
        let two = format!(
            r#"{{"do":[{{"field":"{field}",{add}}},{{"field":"{field}",{remove}}}],"observed":"00"}}"#
        );
        for (dot, held, payload) in [(&first, &none, &one), (&second, &held, &two)] {
            let input = event(dot, held, EVENT_TYPE, payload.as_bytes());
            state.apply(&definition, &input, &none, &mut origins).unwrap();
        }
        let kept = match field {
            "tags" => json!([1]),
            "up" => json!(true),
            _ => json!([1, 2]),
        };
        assert_eq!(state.field(&definition, field), Some(kept), "{field}");
    }
}

#[test]
fn lists_keep_the_order_in_which_each_region_put_its_elements() {
    for seed in 0..40 {
        let mut world = World::new(seed, 3);
        let insert = |after: Option<ElementId>, value: i64| Operations {
            operations: vec![Operation {
                field: "todo".into(),
                key: None,
                action: Action::Insert { after, before: None, value: value.into() },
            }],
            observed: None,
        };
        for nth in 0..30 {
            let at = world.rng.random_range(0..3);
            let shown = world.places[at].state.field(&world.definition, "todo").unwrap();
            let last = shown
                .as_array()
                .unwrap()
                .last()
                .map(|e| e["id"].as_str().unwrap().parse().unwrap());
            world.identities += 1;
            world.append(at, world.identities, insert(last, nth));
            if world.rng.random_bool(0.5) {
                let at = world.rng.random_range(0..3);
                world.deliver(at);
            }
        }
        world.run(0);
        world.check(seed);
        let list = world.places[0].state.field(&world.definition, "todo").unwrap();
        let values: Vec<i64> =
            list.as_array().unwrap().iter().map(|e| e["value"].as_i64().unwrap()).collect();
        for place in &world.places {
            let own = world.made.values().filter(|made| made.dot.origin == place.origin);
            let own: Vec<i64> = own
                .map(|made| match &made.sent.operations[0].action {
                    Action::Insert { value: Value::Int(value), .. } => *value,
                    other => panic!("{other:?}"),
                })
                .collect();
            let kept: Vec<i64> =
                values.iter().copied().filter(|value| own.contains(value)).collect();
            assert_eq!(kept, own, "seed {seed}: each was appended after what was there");
        }
    }
}

fn event<'a>(dot: &'a Dot, held: &'a Context, kind: &'a str, payload: &'a [u8]) -> Input<'a> {
    let identity = identity(None, None, 0, dot);
    Input { dot, stamp: at(dot.seq.0), held, identity, stream: "c-1", kind, payload }
}

fn dot(region: &str, seq: u64) -> Dot {
    Dot { origin: origin(region), seq: Seq(seq) }
}

#[test]
fn ordinary_events_feed_fields_and_bad_ones_are_counted_and_do_nothing() {
    let definition = definition();
    let (mut state, mut origins) = (State::new(&definition), Origins::default());
    let mut held = Context::new();
    let mut apply = |seq, kind: &str, payload: &str| {
        let dot = dot("eu", seq);
        let input = event(&dot, &held, kind, payload.as_bytes());
        let applied = state.apply(&definition, &input, &Context::new(), &mut origins);
        held.advance(&dot.origin, dot.seq);
        applied.map_err(|bad| bad.to_string())
    };
    assert_eq!(apply(1, "Counted", r#"{"by": 5, "tag": "x"}"#), Ok(3));
    assert_eq!(apply(2, "Counted", r#"{"by": -2}"#), Ok(2));
    assert_eq!(apply(3, "Unheard", "not JSON"), Ok(1), "nothing asks for its payload");
    let bad = apply(4, "Counted", r#"{"by": "x", "tag": "y"}"#).unwrap_err();
    assert_eq!(bad, r#""n += $.by": $.by is text, not a whole number of 64 bits"#);
    let bad = apply(5, "Counted", "{").unwrap_err();
    assert!(bad.contains("the payload is no JSON"), "{bad}");
    let operations =
        r#"{"do":[{"field":"n","do":"increment"},{"field":"grown","do":"increment","by":-1}]}"#;
    let bad = apply(6, EVENT_TYPE, operations).unwrap_err();
    assert_eq!(
        bad,
        r#"field "grown" is a g-counter, which has no "increment"; it has increment, by 0 or more"#
    );
    let value = state.value(&definition);
    assert_eq!((&value["n"], &value["tags"]), (&json!(3), &json!(["x"])));
    assert_eq!((state.events(), state.bad()), (6, 3));
}

#[test]
fn operations_that_do_not_fit_are_named() {
    let definition = definition();
    let check = |text: &str| {
        let sent = Operations::from_json(format!(r#"{{"do":[{text}]}}"#).as_bytes()).unwrap();
        sent.operations[0].check(&definition).unwrap_err().to_string()
    };
    for (text, wanted) in [
        (
            r#"{"field":"nn","do":"clear"}"#,
            r#"field "nn" is not in the definition of "c", which has all, best, by"#,
        ),
        (
            r#"{"field":"n","do":"add","value":1}"#,
            r#"field "n" is a pn-counter, which has no "add""#,
        ),
        (
            r#"{"field":"by","do":"increment"}"#,
            r#"field "by" is a map of pn-counter: name the key"#,
        ),
        (
            r#"{"field":"n","key":"k","do":"increment"}"#,
            r#"field "n" is a pn-counter: only maps have keys"#,
        ),
        (r#"{"field":"all","do":"clear"}"#, r#"field "all" is a g-set, which has no "clear""#),
        (
            r#"{"field":"todo","do":"insert","value":1,"after":"2@1.0","before":"1@1.0"}"#,
            r#"field "todo": the element to come after is not before"#,
        ),
    ] {
        let error = check(text);
        assert!(error.starts_with(wanted), "{text}: {error}");
    }
}

#[test]
fn what_every_region_holds_takes_no_room() {
    let definition = definition();
    let (mut state, mut origins) = (State::new(&definition), Origins::default());
    let mut held = Context::new();
    let blank = State::new(&definition).memory();
    for seq in 1..=20_001 {
        let member = seq / 4 % 10;
        let payload = match seq % 4 {
            0 => format!(r#"{{"do":[{{"field":"tags","do":"add","value":{member}}}]}}"#),
            1 => format!(r#"{{"do":[{{"field":"tags","do":"remove","value":{member}}}]}}"#),
            2 => format!(r#"{{"do":[{{"field":"by","key":"k{member}","do":"increment"}}]}}"#),
            _ => format!(r#"{{"do":[{{"field":"by","key":"k{member}","do":"remove-key"}}]}}"#),
        };
        let dot = dot("eu", seq);
        // Of the last ten events, not every region has said yet that it holds them.
        let stable = cut(&[("eu", seq.saturating_sub(10))]);
        let input = event(&dot, &held, EVENT_TYPE, payload.as_bytes());
        state.apply(&definition, &input, &stable, &mut origins).unwrap();
        held.advance(&dot.origin, dot.seq);
        if seq.is_multiple_of(1000) {
            assert!(state.memory() < blank + 32 * 1024, "{} bytes after {seq}", state.memory());
        }
    }
    state.settle(&definition, &held);
    assert_eq!(state.memory(), blank, "nothing is in it, and nothing is left");
}

#[test]
fn states_that_were_cut_or_changed_are_refused_or_read_but_never_panic() {
    let mut world = World::new(7, 3);
    world.run(200);
    let mut bytes = Vec::new();
    world.places[0].state.encode(&mut bytes);
    let read = |bytes: Vec<u8>| {
        State::decode(&world.definition, Reader::new(bytes.into()), &mut Origins::default())
    };
    let mut again = Vec::new();
    read(bytes.clone()).unwrap().encode(&mut again);
    assert!(again == bytes, "it comes back");
    for len in 0..bytes.len() {
        assert!(read(bytes[..len].to_vec()).is_err(), "cut at {len}");
    }
    for at in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 0x41;
        if let Ok(state) = read(bad) {
            state.value(&world.definition);
        }
    }
}
