use std::time::Duration;

use super::*;
use crate::aggregate::{Action, Operation, Operations};
use crate::event::{Event, Request};
use crate::sample::*;
use crate::sequencer::{Expectation, Ticketed};
use crate::{Context, Group};

const DRIFT_MAX: Duration = Duration::from_millis(500);

/// A region that leads itself.
struct Lone {
    region: Region,
    sequencer: Sequencer,
    on_their_way: Vec<Ticketed>,
}

impl Lone {
    fn new() -> Self {
        let region = born("eu");
        let sequencer = Sequencer::new(&region, DRIFT_MAX).unwrap();
        Self { region, sequencer, on_their_way: Vec::new() }
    }

    fn ask(&mut self, submission: Submission) -> Verdict {
        let asked = self.sequencer.sequence(NOW, &self.region, vec![submission]);
        let (ticketed, mut verdicts) = asked.unwrap();
        self.on_their_way.extend(ticketed);
        verdicts.remove(0)
    }

    fn verdict(&mut self, events: Vec<Event>) -> Verdict {
        let request = Request { producer: None, events };
        self.ask(Submission { request, expectations: Vec::new() })
    }

    fn strict(&mut self, stream: &str, expected: Expected) -> Verdict {
        let expectations = vec![Expectation { stream: stream.into(), expected }];
        self.ask(Submission { request: request(&[stream]), expectations })
    }

    /// Another region's group is on its way into the log.
    fn import(&mut self, group: Group) {
        let ticketed = self.sequencer.import(&self.region, vec![group], Vec::new());
        self.on_their_way.push(ticketed);
    }

    /// Applies what is on its way.
    fn settle(&mut self) {
        for Ticketed { ticket, command, .. } in self.on_their_way.drain(..) {
            accept(&mut self.region, &command);
            self.sequencer.applied(ticket);
        }
    }

    /// Appends, and applies it at once.
    fn append(&mut self, event: Event) {
        let verdict = self.verdict(vec![event]);
        assert!(is_sequenced(&verdict), "{verdict:?}");
        self.settle();
    }

    /// Hears that the others hold this region's first `seq` events.
    fn confirm(&mut self, by: &[&str], seq: u64) {
        let words = by.iter().map(|region| digest(region, at(0), &[("eu", seq)]));
        let ticketed = self.sequencer.import(&self.region, Vec::new(), words.collect());
        self.on_their_way.push(ticketed);
        self.settle();
    }
}

fn declared(home: &str) -> Event {
    again(home, 1)
}

fn again(home: &str, epoch: u32) -> Event {
    Change::Declared { category: "account".into(), home: name(home), epoch }.event()
}

fn released(stream: Option<&str>, to: &str, epoch: u32) -> Event {
    let (category, stream) = ("account".into(), stream.map(str::to_owned));
    Change::Released { category, stream, to: name(to), epoch }.event()
}

fn ended(epoch: u32) -> Event {
    Change::Ended { category: "account".into(), epoch }.event()
}

fn right(action: Action) -> Event {
    let operations = vec![Operation { field: "left".into(), key: None, action }];
    let payload = Operations { operations, observed: None }.to_json();
    Event { kind: rights::EVENT_TYPE.into(), ..event("stock-1", &payload) }
}

fn is_sequenced(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Sequenced { .. })
}

#[test]
fn a_declared_home_is_strict_once_everybody_is_known_to_know() {
    let mut eu = Lone::new();
    eu.append(declared("eu"));
    let first = eu.verdict(vec![event("account-1", "x")]);
    assert!(is_sequenced(&first), "without an expectation it goes on: {first:?}");
    let waits = |waits_for: &[&str]| Verdict::HomeUnconfirmed {
        category: "account".into(),
        waits_for: waits_for.iter().map(|region| name(region)).collect(),
    };
    assert_eq!(eu.strict("account-2", Expected::NoStream), waits(&["asia", "us"]));
    assert!(eu.region.awaits_confirmation());
    eu.confirm(&["us"], 1);
    assert_eq!(eu.strict("account-2", Expected::NoStream), waits(&["asia"]));
    assert!(is_sequenced(&eu.strict("account-2", Expected::Any)));
    assert_eq!(
        eu.verdict(vec![released(None, "us", 2)]),
        waits(&["asia"]),
        "handing over is for those who are sure"
    );
    eu.confirm(&["asia"], 1);
    assert!(!eu.region.awaits_confirmation());
    assert!(is_sequenced(&eu.strict("account-3", Expected::NoStream)));
    assert!(is_sequenced(&eu.strict("cart-1", Expected::NoStream)), "others stay as they are");
}

#[test]
fn a_home_that_all_know_of_ends_and_an_expectation_is_the_regions_own_again() {
    let mut eu = Lone::new();
    let is_class = |verdict: Verdict, said: &str| match verdict {
        Verdict::Class(why) => assert!(why.to_string().contains(said), "{why}"),
        other => panic!("{other:?}"),
    };
    is_class(eu.verdict(vec![ended(1)]), "not homed");
    eu.append(declared("eu"));
    let waiting = eu.verdict(vec![ended(2)]);
    assert!(matches!(waiting, Verdict::HomeUnconfirmed { .. }), "{waiting:?}");
    eu.confirm(&["us", "asia"], 1);
    eu.append(released(Some("account-1"), "us", 2));
    is_class(eu.verdict(vec![ended(3)]), "account-1 has a home of its own, us; hand it back first");
    let back = Request { producer: None, events: vec![released(Some("account-1"), "eu", 3)] };
    let held = eu.region.frontier().clone();
    eu.import(Author::new(origin("us")).write(at(100), held, &[back]));
    eu.settle();
    is_class(
        eu.verdict(vec![ended(3)]),
        "account is at epoch 3 of its homes, so the next is 4, not 3",
    );

    // All of this is on its way at once.
    assert!(is_sequenced(&eu.verdict(vec![ended(4)])));
    assert!(is_sequenced(&eu.strict("account-1", Expected::NoStream)), "nobody is asked");
    is_class(eu.verdict(vec![ended(5)]), "not homed");
    is_class(
        eu.verdict(vec![declared("us")]),
        "account is at epoch 4 of its homes, so the next is 5, not 1",
    );
    assert!(is_sequenced(&eu.verdict(vec![again("us", 5)])));
    let us = Home { region: name("us"), epoch: 5 };
    for stream in ["account-1", "account-2"] {
        let there = Verdict::NotHome { stream: stream.into(), home: us.clone() };
        assert_eq!(eu.verdict(vec![event(stream, "x")]), there);
    }
    eu.settle();
    assert!(!eu.region.awaits_confirmation(), "it is not the home");
}

#[test]
fn a_home_that_is_declared_after_an_end_waits_for_all_again() {
    let mut eu = Lone::new();
    eu.append(declared("eu"));
    eu.confirm(&["us", "asia"], 1);
    eu.append(ended(2));
    eu.append(again("eu", 3));
    assert!(eu.region.awaits_confirmation());
    let strict = eu.strict("account-1", Expected::NoStream);
    assert!(matches!(strict, Verdict::HomeUnconfirmed { .. }), "{strict:?}");
    eu.confirm(&["us", "asia"], 3);
    assert!(is_sequenced(&eu.strict("account-1", Expected::NoStream)));
}

#[test]
fn what_is_released_is_appended_to_no_more_also_while_the_release_is_on_its_way() {
    let mut eu = Lone::new();
    eu.append(declared("eu"));
    eu.confirm(&["us", "asia"], 1);
    assert!(is_sequenced(&eu.verdict(vec![released(Some("account-1"), "us", 2)])));
    let us = Home { region: name("us"), epoch: 2 };
    let not_home = |stream: &str| Verdict::NotHome { stream: stream.into(), home: us.clone() };
    assert_eq!(eu.verdict(vec![event("account-1", "x")]), not_home("account-1"));
    assert_eq!(eu.strict("account-1", Expected::NoStream), not_home("account-1"));
    assert!(is_sequenced(&eu.verdict(vec![event("account-2", "x")])));
    assert_eq!(eu.verdict(vec![released(Some("account-1"), "asia", 3)]), not_home("account-1"));
    assert!(is_sequenced(&eu.verdict(vec![released(None, "us", 2)])));
    assert_eq!(eu.verdict(vec![event("account-2", "x")]), not_home("account-2"));
    assert!(is_sequenced(&eu.verdict(vec![event("cart-1", "x")])));
}

#[test]
fn a_new_home_appends_once_it_holds_the_release() {
    let mut eu = Lone::new();
    let mut us = Author::new(origin("us"));
    let to_us = Request { producer: None, events: vec![declared("us")] };
    let group = us.write(at(1), Context::new(), &[to_us]);
    eu.import(group);
    let home = Home { region: name("us"), epoch: 1 };
    let not_home = Verdict::NotHome { stream: "account-1".into(), home };
    assert_eq!(eu.strict("account-1", Expected::NoStream), not_home, "the import is on its way");
    eu.settle();
    assert_eq!(eu.verdict(vec![event("account-1", "x")]), not_home);
    let to_eu = Request { producer: None, events: vec![released(None, "eu", 2)] };
    let group = us.write(at(2), Context::new(), &[to_eu]);
    eu.import(group);
    assert!(is_sequenced(&eu.strict("account-1", Expected::NoStream)), "after it in the log");
    eu.settle();
    assert!(is_sequenced(&eu.strict("account-2", Expected::NoStream)), "nobody is asked again");
}

#[test]
fn streams_of_different_homes_are_not_appended_to_at_once() {
    let mut eu = Lone::new();
    eu.append(declared("eu"));
    eu.confirm(&["us", "asia"], 1);
    eu.append(released(Some("account-2"), "us", 2));
    eu.append(released(Some("account-3"), "asia", 2));
    let pair = |first: (&str, &str), second: (&str, &str)| Verdict::HomesDiffer {
        first: (first.0.into(), name(first.1)),
        second: (second.0.into(), name(second.1)),
    };
    let both =
        |eu: &mut Lone, one: &str, two: &str| eu.verdict(vec![event(one, "x"), event(two, "x")]);
    let found = both(&mut eu, "account-1", "account-2");
    assert_eq!(found, pair(("account-1", "eu"), ("account-2", "us")));
    let found = both(&mut eu, "account-2", "account-3");
    assert_eq!(found, pair(("account-2", "us"), ("account-3", "asia")));
    assert!(is_sequenced(&both(&mut eu, "account-1", "cart-1")), "any region writes the other");
    assert!(matches!(both(&mut eu, "cart-1", "account-2"), Verdict::NotHome { .. }));
    let looks = Expectation { stream: "account-2".into(), expected: Expected::Exists };
    let verdict =
        eu.ask(Submission { request: request(&["account-1"]), expectations: vec![looks] });
    assert_eq!(verdict, pair(("account-1", "eu"), ("account-2", "us")));
}

#[test]
fn a_change_of_class_that_makes_no_sense_is_refused_with_its_reason() {
    let mut eu = Lone::new();
    let refused = |eu: &mut Lone, events: Vec<Event>| match eu.verdict(events) {
        Verdict::Class(refused) => refused.to_string(),
        other => panic!("{other:?}"),
    };
    assert!(refused(&mut eu, vec![declared("mars")]).contains("asia, eu, us"));
    assert!(refused(&mut eu, vec![released(None, "us", 2)]).contains("nothing to hand over"));
    assert!(refused(&mut eu, vec![declared("eu"), event("a", "x")]).contains("only event"));
    assert!(refused(&mut eu, vec![event("$class-account", "{}")]).contains("Happened"));
    assert!(is_sequenced(&eu.verdict(vec![declared("eu")])));
    let again = refused(&mut eu, vec![declared("us")]);
    assert!(again.contains("homed already, in eu"), "also while it is on its way: {again}");
    eu = Lone::new();
    eu.append(declared("eu"));
    eu.confirm(&["us", "asia"], 1);
    let epoch = refused(&mut eu, vec![released(None, "us", 7)]);
    assert!(epoch.contains("epoch 1 of its homes, so the next is 2, not 7"), "{epoch}");
}

#[test]
fn nobody_spends_more_than_the_rights_of_the_region() {
    let mut eu = Lone::new();
    let counter = Counter { stream: "stock-1".into(), field: "left".into() };
    let short = |wanted, held| Verdict::Short { counter: counter.clone(), wanted, held };
    assert_eq!(eu.verdict(vec![right(Action::Spend(1))]), short(1, 0));
    assert!(is_sequenced(&eu.verdict(vec![right(Action::Earn(5))])));
    assert!(is_sequenced(&eu.verdict(vec![right(Action::Spend(3))])), "earned on its way");
    assert_eq!(eu.verdict(vec![right(Action::Spend(3))]), short(3, 2));
    let both = vec![right(Action::Spend(1)), right(Action::Spend(2))];
    assert_eq!(eu.verdict(both), short(2, 1), "one after the other");
    let pass = |amount, to| right(Action::Pass { amount, to: name(to) });
    assert_eq!(eu.verdict(vec![pass(3, "us")]), short(3, 2));
    assert!(is_sequenced(&eu.verdict(vec![pass(9, "eu")])), "to itself: nothing is asked for");
    let nowhere = eu.verdict(vec![pass(1, "mars")]);
    assert!(matches!(&nowhere, Verdict::Class(ClassRefused::NoMember { .. })), "{nowhere:?}");
    assert!(is_sequenced(&eu.verdict(vec![pass(2, "us")])));
    assert_eq!(eu.verdict(vec![right(Action::Spend(1))]), short(1, 0));
    let bad = Event { kind: rights::EVENT_TYPE.into(), ..event("stock-1", "{}") };
    assert!(matches!(eu.verdict(vec![bad]), Verdict::BadRights(_)));
}

#[test]
fn what_another_region_passes_on_is_held_with_its_event() {
    let mut eu = Lone::new();
    let mut us = Author::new(origin("us"));
    let events = [Action::Earn(9), Action::Pass { amount: 4, to: name("eu") }, Action::Spend(1)];
    let events = events.into_iter().map(right).collect();
    let group = us.write(at(1), Context::new(), &[Request { producer: None, events }]);
    eu.import(group);
    assert!(is_sequenced(&eu.verdict(vec![right(Action::Spend(3))])), "passed on, on its way");
    eu.settle();
    let counter = Counter { stream: "stock-1".into(), field: "left".into() };
    assert_eq!(eu.region.rights().of(&counter), 1);
    let restored = Region::decode_checkpoint(eu.region.encode_checkpoint());
    assert_eq!(restored.as_ref().map(Region::rights), Ok(eu.region.rights()));
}
