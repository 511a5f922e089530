//! Homed streams and bounded counters: who asks for what, and what must hold over all regions at once.

use std::collections::BTreeMap;

use anabranch_core::aggregate::{
    self, Action, Definition, Input, Operation, Operations, Origins, State,
};
use anabranch_core::class::{self, Change};
use anabranch_core::event::{Event, Request};
use anabranch_core::rights;
use anabranch_core::sequencer::{Expectation, Expected, Submission};
use anabranch_core::{Context, Dot, Group};

use crate::site::OnItsWay;
use crate::world::World;

/// Streams of this category become homed in the course of a run.
const HOMED: &str = "account";

/// What has been appended anywhere, whoever knows of it.
#[derive(Default)]
pub struct Everywhere {
    events: BTreeMap<String, u64>,
    left: BTreeMap<String, i128>,
}

impl World {
    /// Something to do with homes or rights, as a client of the region would ask for it.
    pub fn special(&mut self, at: usize) -> Submission {
        match self.rng.below(10) {
            0..2 => self.change(at),
            2..7 => self.homed(at),
            _ => self.right(),
        }
    }

    fn change(&mut self, at: usize) -> Submission {
        let next = self.sites[self.rng.below(self.sites.len())].origin.region.clone();
        let category = HOMED.to_owned();
        let stream = self.rng.chance(50).then(|| self.account());
        let ends = self.rng.chance(30);
        let region = &self.sites[at].region;
        let change = match region.homes().of_category(HOMED) {
            None => {
                let epoch = region.homes().next_epoch(HOMED);
                Change::Declared { category, home: next, epoch }
            }
            Some(_) if ends => Change::Ended { epoch: region.homes().next_epoch(HOMED), category },
            Some(declared) => {
                let of_stream = stream.as_ref().and_then(|stream| region.homes().of(stream));
                let epoch = of_stream.unwrap_or(&declared.home).epoch + 1;
                Change::Released { category, stream, to: next, epoch }
            }
        };
        let request = Request { producer: None, events: vec![change.event()] };
        Submission { request, expectations: Vec::new() }
    }

    fn account(&mut self) -> String {
        format!("{HOMED}-{}", self.rng.below(2))
    }

    fn homed(&mut self, at: usize) -> Submission {
        let stream = self.account();
        let events = self.sites[at].region.stream(&stream).map_or(0, |head| head.next_revision);
        let expected = match (self.rng.chance(75), events.checked_sub(1)) {
            (true, Some(revision)) => Expected::Revision(revision),
            (true, None) => Expected::NoStream,
            (false, _) => Expected::Any,
        };
        let mut event = self.event(false);
        event.stream.clone_from(&stream);
        let request = Request { producer: None, events: vec![event] };
        Submission { request, expectations: vec![Expectation { stream, expected }] }
    }

    fn right(&mut self) -> Submission {
        let amount = 1 + self.rng.below(5) as u64;
        let action = match self.rng.below(10) {
            0..3 => Action::Earn(amount),
            3..8 => Action::Spend(amount),
            _ => {
                let to = self.sites[self.rng.below(self.sites.len())].origin.region.clone();
                Action::Pass { amount, to }
            }
        };
        let operations = vec![Operation { field: "left".into(), key: None, action }];
        let payload = Operations { operations, observed: None }.to_json().into();
        let event = Event {
            stream: format!("stock-{}", self.rng.below(2)),
            id: None,
            kind: rights::EVENT_TYPE.into(),
            metadata: BTreeMap::new(),
            payload,
        };
        let request = Request { producer: None, events: vec![event] };
        Submission { request, expectations: Vec::new() }
    }

    /// Law 7 on homed streams: what was expected holds of everything that any region has appended.
    /// Before the command is entered.
    pub fn check_homed(&mut self, at: usize, own: Option<&Group>, way: &OnItsWay) {
        let mut events = self.everywhere.events.clone();
        let mut homed = self.sites[at].record.homed;
        for promised in way.promised.iter().filter(|promised| promised.fresh) {
            for Expectation { stream, expected } in &promised.submission.expectations {
                let there = events.get(stream).copied().unwrap_or(0);
                let holds = match *expected {
                    Expected::NoStream => there == 0,
                    Expected::Revision(revision) => there == revision + 1,
                    Expected::Exists | Expected::Any => true,
                };
                let strict = homed && stream.starts_with(HOMED);
                assert!(holds || !strict, "law 7: {expected:?} of {stream}, {there} anywhere");
            }
            for event in &promised.submission.request.events {
                *events.entry(event.stream.clone()).or_default() += 1;
                homed = (homed || event.kind == class::DECLARED) && event.kind != class::ENDED;
            }
        }
        if let Some(group) = own {
            for event in group.events() {
                *self.everywhere.events.entry(event.stream.to_string()).or_default() += 1;
                count(&mut self.everywhere.left, &event.stream, &event.kind, &event.payload);
            }
            for (stream, left) in &self.everywhere.left {
                assert!(*left >= 0, "{stream} went to {left}, over all regions");
            }
        }
    }

    /// No bounded counter is seen below zero where a region stands now, and no region's rights to it.
    pub fn check_rights(&mut self, at: usize, group: &Group) {
        let definition = stock();
        let record = &mut self.sites[at].record;
        for event in group.events() {
            record.homed |= *event.kind == *class::DECLARED;
            record.homed &= *event.kind != *class::ENDED;
            if *event.kind != *rights::EVENT_TYPE {
                continue;
            }
            let dot = Dot { origin: group.origin().clone(), seq: event.seq };
            let input = Input {
                dot: &dot,
                stamp: group.stamp(),
                held: &group.header().context,
                identity: aggregate::identity(event.id, None, 0, &dot),
                stream: &event.stream,
                kind: &event.kind,
                payload: &event.payload,
            };
            let new = || State::new(&definition);
            let state = record.stocks.entry(event.stream.to_string()).or_insert_with(new);
            let none = Context::new();
            state.apply(&definition, &input, &none, &mut Origins::default()).expect("made here");
            let left = &state.value(&definition)["left"];
            let rights = left["rights"].as_object().expect("by region").values();
            for number in rights.chain([&left["value"]]) {
                assert!(number.as_i64() >= Some(0), "{}: {left}", event.stream.as_str());
            }
        }
    }

    /// How many homes of the category have ended.
    pub fn homes_ended(&self) -> u32 {
        let events = self.history.values().flatten().flat_map(Group::events);
        events.filter(|event| *event.kind == *class::ENDED).count() as u32
    }

    /// Whoever holds the same agrees on homes, and all rights together are what is left.
    pub fn check_classes_agree(&self) {
        for pair in self.sites.windows(2) {
            assert_eq!(pair[0].region.homes(), pair[1].region.homes(), "law 5: homes");
        }
        for (stream, left) in &self.everywhere.left {
            let counter = rights::Counter { stream: stream.as_str().into(), field: "left".into() };
            let held = self.sites.iter().map(|site| site.region.rights().of(&counter));
            assert_eq!(held.sum::<u128>() as i128, *left, "all rights to {stream}");
            for site in &self.sites {
                let seen = site.record.stocks[stream].value(&stock());
                assert_eq!(seen["left"]["value"].as_i64(), i64::try_from(*left).ok(), "{stream}");
                let rights = seen["left"]["rights"].get(site.origin.region.as_str());
                let held = site.region.rights().of(&counter) as u64;
                assert_eq!(rights.map_or(Some(0), |rights| rights.as_u64()), Some(held));
            }
        }
        let known: Context = self.sites[0].region.frontier().clone();
        assert_eq!(known.events(), self.everywhere.events.values().sum::<u64>());
    }
}

/// What the bounded counters are fields of.
fn stock() -> Definition {
    let json = serde_json::json!({
        "category": "stock", "version": 1, "fields": { "left": "bounded-counter" },
    });
    Definition::from_json(&json).expect("a definition")
}

fn count(left: &mut BTreeMap<String, i128>, stream: &str, kind: &str, payload: &[u8]) {
    if kind != rights::EVENT_TYPE {
        return;
    }
    let operations = Operations::from_json(payload).expect("made here").operations;
    for operation in operations {
        let left = left.entry(stream.to_owned()).or_default();
        match operation.action {
            Action::Earn(amount) => *left += i128::from(amount),
            Action::Spend(amount) => *left -= i128::from(amount),
            _ => {}
        }
    }
}
