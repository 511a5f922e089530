//! Law 5, for aggregates that operations change: what every node serves of them is what the operations
//! that its region shows come to, by what their regions held.
//!
//! Source: docs/aggregates.md, "Fields" and "Bounded counters". The model (`board.rs`) is no fold: an
//! operation counts unless one that takes it back was made where it was held. Of a list, the elements are
//! those that nobody deleted; each stands between those it was put between, and all nodes show one order.
//!
//! It cannot see: operations with a token of what a client had seen (the model of `core::aggregate` has
//! them); streams of which an event's region was lost, so that nobody can tell what it held.

use std::collections::BTreeMap;

use anabranch_core::aggregate::Action;
use anabranch_core::event::category;
use anabranch_core::{Dot, RegionName};
use serde_json::{Map, Value as Json, json};

use super::{Broken, Verdict};
use crate::board::{self, Done, LIST};
use crate::case::Case;
use crate::defined::{Declared, SPARE};
use crate::evidence::{Seen, Served, ServedAggregate};
use crate::said::{LEFT, SEATS};

/// To be reached: something of a kind of operation that took back what another one had added.
pub const TAKEN_BACK: &str = "operations that take something back";

/// Holds what every node serves against the operations that its region shows.
pub fn check(case: &Case<'_>) -> Verdict {
    let mut verdict =
        Verdict::new("operations", "operations come to what they say, by what was held");
    verdict.reach(TAKEN_BACK, taken_back(case));
    let mut lists: BTreeMap<&str, (&str, Vec<Json>)> = BTreeMap::new();
    for served in &case.evidence.served {
        let Some(read) = case.evidence.regions.get(&served.region) else { continue };
        let declared = Declared::that_counts(&served.category, read.regional.iter());
        let Some(declared) = declared.filter(|declared| declared.is_operated()) else { continue };
        let Some(aggregates) = &served.aggregates else {
            let node = &served.node;
            verdict.check(false, || {
                format!("{node} does not know {declared:?}, which its region holds")
            });
            continue;
        };
        let mut streams: BTreeMap<&str, Vec<&Seen>> = BTreeMap::new();
        for seen in read.regional.iter().filter(|seen| category(&seen.stream) == declared.category)
        {
            streams.entry(&seen.stream).or_default().push(seen);
        }
        for (stream, events) in streams {
            let found = aggregates.iter().find(|one| one.stream == stream);
            let one = One { case, served, declared, stream, events };
            if let Some(list) = one.check(&mut verdict, found) {
                let (node, first) = lists.entry(stream).or_insert((&served.node, list.clone()));
                verdict.check(*first == list, || {
                    format!("{node} shows {first:?} of {stream}, {} shows {list:?}", served.node)
                });
            }
        }
    }
    verdict
}

/// Operations that take something back, wherever they were made.
fn taken_back(case: &Case<'_>) -> u64 {
    let said =
        case.acknowledged().flat_map(|(_, op, _)| &op.events).filter_map(|it| it.says.as_ref());
    let takes = |action: &Action| {
        matches!(action, Action::Clear | Action::RemoveKey | Action::Delete(_) | Action::Disable)
    };
    said.flat_map(|said| said.as_operations()).filter(|one| takes(&one.action)).count() as u64
}

/// What a node serves of one stream.
struct One<'c, 'a> {
    case: &'c Case<'a>,
    served: &'c Served,
    declared: Declared,
    stream: &'c str,
    events: Vec<&'c Seen>,
}

impl One<'_, '_> {
    /// Returns the list that is shown, if there is one.
    fn check(&self, verdict: &mut Verdict, found: Option<&ServedAggregate>) -> Option<Vec<Json>> {
        let done = self.done();
        let mut expected = match self.declared.category {
            SEATS => self.rights(),
            _ if self.events.iter().any(|seen| self.case.causes(&seen.dot).is_none()) => {
                return None;
            }
            _ => board::fold(&done, &|later, earlier| self.knew(later, earlier)),
        };
        if self.declared.has_more() {
            expected.insert(SPARE.into(), false.into());
        }
        let mut fields = found.and_then(|one| serde_json::from_str::<Map<_, _>>(&one.value).ok());
        let list = fields.as_mut().and_then(|fields| fields.remove(LIST));
        let version = found.map(|one| one.version);
        let same = fields.as_ref() == Some(&expected) && version == Some(self.declared.version);
        verdict.check(same, || {
            let (node, stream, right) = (&self.served.node, self.stream, Json::Object(expected));
            let words = format!(
                "{node} serves {fields:?} of {stream} by {version:?}; its operations come to {right} by version {}",
                self.declared.version
            );
            let shown = self.events.iter().take(3);
            shown.fold(Broken::new(words), |broken, seen| broken.dot(&seen.dot))
        });
        let list = list?.as_array()?.clone();
        self.check_list(verdict, &done, &list);
        Some(list)
    }

    fn done(&self) -> Vec<Done<'_>> {
        let of = |seen: &&'_ &'_ Seen| seen.says.is_some();
        let events = self.events.iter().filter(of);
        let done = events.flat_map(|seen| {
            let operations = seen.says.iter().flat_map(|said| said.as_operations());
            operations.enumerate().map(|(nth, operation)| Done {
                dot: &seen.dot,
                stamp: seen.stamp,
                mark: format!("{:x}.{nth}", u128::from_be_bytes(seen.id.0)),
                operation,
            })
        });
        done.collect()
    }

    fn knew(&self, later: &Dot, earlier: &Dot) -> bool {
        match later.origin == earlier.origin {
            true => earlier.seq < later.seq,
            false => self.case.knew(later, earlier),
        }
    }

    fn rights(&self) -> Map<String, Json> {
        let mut held: BTreeMap<RegionName, i128> = BTreeMap::new();
        for seen in &self.events {
            let said = seen.says.iter().flat_map(|said| said.as_rights(&seen.dot.origin.region));
            said.for_each(|(region, change)| *held.entry(region).or_default() += change);
        }
        let value = held.values().sum::<i128>() as i64;
        let rights = held.iter().filter(|(_, held)| **held != 0);
        let rights = rights.map(|(region, held)| (region.to_string(), (*held as i64).into()));
        let rights: Map<String, Json> = rights.collect();
        Map::from_iter([(LEFT.to_owned(), json!({ "rights": rights, "value": value }))])
    }

    fn check_list(&self, verdict: &mut Verdict, done: &[Done<'_>], list: &[Json]) {
        let (node, stream) = (&self.served.node, self.stream);
        let elements = board::elements(done, &|later, earlier| self.knew(later, earlier));
        let mark = |element: &Json| board::mark_of(element["id"].as_str().unwrap_or("")).to_owned();
        let places: BTreeMap<String, usize> =
            list.iter().enumerate().map(|(at, element)| (mark(element), at)).collect();
        let same = places.keys().eq(elements.keys()) && places.len() == list.len();
        verdict.check(same, || {
            let right: Vec<_> = elements.keys().collect();
            format!("{node} shows {list:?} in {stream}; not deleted are {right:?}")
        });
        for (mark, one) in &elements {
            let Action::Insert { after, before, value } = &one.operation.action else { continue };
            let Some(at) = places.get(mark) else { continue };
            let of = |id: &anabranch_core::aggregate::ElementId| {
                places.get(board::mark_of(&id.to_string())).copied()
            };
            let right = list[*at]["value"] == value.to_json()
                && after.as_ref().and_then(of).is_none_or(|after| after < *at)
                && before.as_ref().and_then(of).is_none_or(|before| before > *at);
            verdict.check(right, || {
                let words =
                    format!("{node} shows {list:?} in {stream}, {one:?} is out of its place");
                Broken::new(words).dot(one.dot)
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use anabranch_core::aggregate::{Operation, Value};

    use super::*;
    use crate::checks::testing::{judge, sound};
    use crate::content::Name;
    use crate::evidence::Evidence;
    use crate::said::Said;
    use crate::shape::Class;

    fn text(text: &str) -> Value {
        Value::from_json(&text.into()).unwrap()
    }
    fn operation(field: &str, action: Action) -> Operation {
        Operation { field: field.into(), key: None, action }
    }

    /// A board that eu defines and us and eu then write to, each knowing all before; `last` is done last.
    fn boarded(last: Vec<Operation>, shown: Json) -> Evidence {
        let mut evidence = sound();
        let definition = Name { run: 1, writer: Class::Definer.writer(0, 0), op: 1, nth: 0 }.id();
        let insert = |value| Action::Insert { after: None, before: None, value: text(value) };
        let says = [
            vec![
                operation("tally", Action::Increment(5)),
                operation("tags", Action::Add(text("x"))),
            ],
            vec![operation("choices", Action::Set(text("a"))), operation(LIST, insert("l"))],
            vec![operation("open", Action::Enable), operation("low", Action::Offer(text("z")))],
            last,
        ];
        for region in evidence.regions.values_mut() {
            for events in [&mut region.regional, &mut region.global] {
                events[0].stream = "$definition-board".into();
                events[0].id = definition;
                events[1].stream = "other-1".into();
                for (seen, says) in events[2..].iter_mut().zip(&says) {
                    let says = (!says.is_empty()).then(|| Said::operations(says.clone()));
                    (seen.stream, seen.says) = ("board-1".into(), says);
                }
            }
        }
        let inserted = &evidence.regions["eu"].regional[3];
        let id = format!("1/2@{:x}.1", u128::from_be_bytes(inserted.id.0));
        let mut value = json!({
            "tally": 5, "low": "z", "high": null, "title": null, "choices": ["a"], "seen": [],
            "tags": ["x"], "open": true, LIST: [{ "id": id, "value": "l" }], "by": {},
        });
        for (field, shown) in shown.as_object().unwrap() {
            value[field] = shown.clone();
        }
        let aggregate = |value: &Json| {
            let (stream, value) = ("board-1".to_owned(), value.to_string());
            ServedAggregate { stream, version: 1, value }
        };
        let of = |region: &str| Served {
            node: format!("{region}-1"),
            region: region.into(),
            category: board::CATEGORY.into(),
            aggregates: Some(vec![aggregate(&value)]),
        };
        evidence.served = vec![of("eu"), of("us")];
        evidence
    }

    fn broken(last: Vec<Operation>, shown: Json) -> u64 {
        judge(check, &boarded(last, shown)).broken
    }

    #[test]
    fn operations_come_to_what_they_say() {
        let none = Vec::new;
        assert!(judge(check, &boarded(none(), json!({}))).holds());
        for (field, wrong) in [
            ("tally", json!(6)),
            ("low", json!(null)),
            ("choices", json!([])),
            ("tags", json!([])),
            ("open", json!(false)),
            (LIST, json!([])),
            ("by", json!({"a": 1})),
        ] {
            assert_eq!(broken(none(), json!({ field: wrong })), 2, "{field}, on two nodes");
        }
    }

    #[test]
    fn what_was_held_is_taken_back_and_what_was_not_stays() {
        let removed = vec![operation("tags", Action::Remove(text("x")))];
        assert_eq!(broken(removed.clone(), json!({ "tags": [] })), 0);
        assert_eq!(broken(removed.clone(), json!({})), 2, "it was held");
        let cleared = ["tally", LIST, "open"].map(|field| operation(field, Action::Clear)).to_vec();
        let shown = json!({ "tally": 0, LIST: [], "open": false });
        assert_eq!(broken(cleared, shown), 0);
        let replaced = vec![operation("choices", Action::Set(text("b")))];
        assert_eq!(broken(replaced.clone(), json!({ "choices": ["b"] })), 0);
        // eu made its last event before it held those of us.
        let mut apart = boarded(removed, json!({}));
        apart.regions.get_mut("eu").unwrap().regional[2..].rotate_left(2);
        assert_eq!(judge(check, &apart).broken, 0, "{:?}", judge(check, &apart).words);
        let mut apart = boarded(replaced, json!({ "choices": ["a", "b"] }));
        apart.regions.get_mut("eu").unwrap().regional[2..].rotate_left(2);
        assert_eq!(judge(check, &apart).broken, 0, "{:?}", judge(check, &apart).words);
    }

    #[test]
    fn keys_of_maps_live_and_go_by_themselves() {
        let by = |key: &str, action| Operation { key: Some(key.into()), ..operation("by", action) };
        let two = vec![by("ada", Action::Increment(2)), by("bob", Action::Increment(-1))];
        assert_eq!(broken(two, json!({ "by": { "ada": 2, "bob": -1 } })), 0);
        let gone = vec![by("ada", Action::RemoveKey), by("bob", Action::Increment(3))];
        assert_eq!(broken(gone, json!({ "by": { "bob": 3 } })), 0);
    }

    #[test]
    fn a_list_in_another_order_elsewhere_is_found() {
        let mut evidence = boarded(Vec::new(), json!({}));
        let served = evidence.served[1].aggregates.as_mut().unwrap();
        served[0].value = served[0].value.replace("1/2@", "1/3@");
        assert_eq!(judge(check, &evidence).broken, 1);
    }
}
