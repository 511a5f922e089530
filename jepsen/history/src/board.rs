//! Aggregates that operations change: a field of every type that merges, and what must come of it.
//!
//! The model knows no states and no order of arrival, only which operation was made where which other one
//! was held. An operation counts unless one that takes it back held it.

use std::collections::{BTreeMap, BTreeSet};

use anabranch_core::aggregate::{Action, Operation, Value};
use anabranch_core::{Dot, Stamp};
use serde_json::{Map, Value as Json, json};

/// Category of their streams.
pub const CATEGORY: &str = "board";
/// The field that is a list.
pub const LIST: &str = "lines";

/// The fields and their types.
pub fn fields() -> Json {
    json!({
        "tally": "pn-counter", "low": "min", "high": "max", "title": "lww-register",
        "choices": "mv-register", "seen": "g-set", "tags": "or-set", "open": "flag",
        LIST: "list", "by": "map of pn-counter",
    })
}

/// An operation that somebody did: the `nth` of its event.
#[derive(Debug, Clone)]
pub struct Done<'a> {
    /// The event that carries it.
    pub dot: &'a Dot,
    /// The event's stamp.
    pub stamp: Stamp,
    /// What makes elements that it inserts unlike others: the event's id, and which operation it is.
    pub mark: String,
    /// What was done.
    pub operation: Operation,
}

/// The fields of an aggregate but the list, from the operations on it, in any order. `knew` tells whether
/// the one was made where the other was held.
pub fn fold(done: &[Done<'_>], knew: &impl Fn(&Dot, &Dot) -> bool) -> Map<String, Json> {
    let of = |field: &str| living(done, field, knew);
    let mut fields = Map::new();
    fields.insert("tally".into(), sum(&of("tally")).into());
    let offers = |field: &str| -> Vec<Value> { of(field).iter().filter_map(value).collect() };
    let best = |value: Option<Value>| value.map_or(Json::Null, |value| value.to_json());
    fields.insert("low".into(), best(offers("low").into_iter().min()));
    fields.insert("high".into(), best(offers("high").into_iter().max()));
    let title = of("title").into_iter().max_by_key(|one| (one.stamp, one.dot));
    fields.insert("title".into(), best(title.as_ref().and_then(value)));
    for field in ["choices", "seen", "tags"] {
        let members: BTreeSet<Value> = offers(field).into_iter().collect();
        fields.insert(field.into(), members.iter().map(Value::to_json).collect());
    }
    fields.insert("open".into(), (!of("open").is_empty()).into());
    let mut by: BTreeMap<String, Vec<Done<'_>>> = BTreeMap::new();
    for one in of("by") {
        let key = one.operation.key.as_deref().unwrap_or_default().to_owned();
        by.entry(key).or_default().push(one);
    }
    let by = by.into_iter().map(|(key, living)| (key, sum(&living).into()));
    fields.insert("by".into(), Json::Object(by.collect()));
    fields
}

/// The elements of the list, by their marks.
pub fn elements<'a>(
    done: &[Done<'a>],
    knew: &impl Fn(&Dot, &Dot) -> bool,
) -> BTreeMap<String, Done<'a>> {
    living(done, LIST, knew).into_iter().map(|one| (one.mark.clone(), one)).collect()
}

/// The mark within an element's id.
pub fn mark_of(element: &str) -> &str {
    element.rsplit('@').next().unwrap_or_default()
}

/// What adds something to a field and was not taken back by one that held it.
fn living<'a>(done: &[Done<'a>], field: &str, knew: &impl Fn(&Dot, &Dot) -> bool) -> Vec<Done<'a>> {
    let of_field: Vec<_> = done.iter().filter(|one| one.operation.field == field).collect();
    let adds = |one: &&&Done<'a>| {
        let action = &one.operation.action;
        matches!(
            action,
            Action::Increment(_)
                | Action::Offer(_)
                | Action::Set(_)
                | Action::Add(_)
                | Action::Enable
                | Action::Insert { .. }
        )
    };
    let lives = |one: &&&Done<'a>| {
        !of_field.iter().any(|other| takes_back(other, one, field) && knew(other.dot, one.dot))
    };
    of_field.iter().filter(adds).filter(lives).map(|one| (*one).clone()).collect()
}

/// Whether `later` is of a kind to take back what `earlier` added.
fn takes_back(later: &Done<'_>, earlier: &Done<'_>, field: &str) -> bool {
    match (&later.operation.action, &earlier.operation.action) {
        (Action::Clear | Action::Disable, _) => true,
        (Action::RemoveKey, _) => later.operation.key == earlier.operation.key,
        (Action::Remove(value), Action::Add(added)) => value == added,
        (Action::Delete(element), _) => mark_of(&element.to_string()) == earlier.mark,
        // A register with one value takes the last one, seen or not.
        (Action::Set(_), Action::Set(_)) => field == "choices",
        _ => false,
    }
}

fn value(one: &Done<'_>) -> Option<Value> {
    match &one.operation.action {
        Action::Offer(value) | Action::Set(value) | Action::Add(value) => Some(value.clone()),
        _ => None,
    }
}

fn sum(living: &[Done<'_>]) -> i64 {
    let amount = |one: &Done<'_>| match one.operation.action {
        Action::Increment(by) => by,
        _ => 0,
    };
    living.iter().map(amount).sum()
}
