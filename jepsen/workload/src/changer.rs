//! Changers: change aggregates by operations, of every type of field and every kind of operation, and take
//! back what others have done.

use anabranch_core::aggregate::{Action, ElementId, Operation, Value};
use anabranch_history::board::{CATEGORY, LIST};
use anabranch_history::said::Said;
use anabranch_history::shape::Class;
use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use serde_json::Value as Json;

use crate::home::Home;
use crate::scribe::{Scribe, Wish};

/// Streams whose aggregates are changed.
const STREAMS: u32 = 2;
/// Members of sets, values of registers, keys of maps.
const WORDS: [&str; 4] = ["ash", "birch", "cedar", "dogwood"];

/// Runs client `nth` of the region until it is told to stop.
pub(crate) async fn run(home: Home, nth: u32) {
    let number = Class::Changer.writer(home.number, nth);
    let client = home.client("changer", nth, false);
    let rng = home.rng("changer", nth);
    let mut scribe = Scribe::new(home, number, client, false, rng);
    while !scribe.home.stopped() {
        let stream = format!("{CATEGORY}-{}", scribe.rng.random_range(0..STREAMS));
        let of_list = scribe.rng.random_bool(0.4);
        let mut operations = draw(&mut scribe.rng);
        if of_list {
            let list = list(&mut scribe, &stream).await;
            let name = format!("{}.{}", scribe.home.name(), scribe.next_op());
            operations.push(draw_of_list(&mut scribe.rng, &list, &name));
        }
        scribe.append(Wish::new().tell(stream, Said::operations(operations))).await;
        scribe.home.think(&mut scribe.rng).await;
    }
}

/// Ids of the elements as a node shows them; none if it shows nothing now.
async fn list(scribe: &mut Scribe, stream: &str) -> Vec<ElementId> {
    let (home, limit) = (&scribe.home, scribe.home.plan.deadline);
    let what = || format!("a read of the aggregate of {stream}");
    let asked = scribe.client.aggregate(stream);
    let shown = tokio::time::timeout(limit, asked.get());
    let Some(Ok(Ok(shown))) = home.answer(scribe.number, limit, what, shown).await else {
        return Vec::new();
    };
    let elements = shown.value.get(LIST).and_then(Json::as_array).cloned().unwrap_or_default();
    elements.iter().filter_map(|element| element["id"].as_str()?.parse().ok()).collect()
}

fn value(json: impl Into<Json>) -> Value {
    Value::from_json(&json.into()).expect("it is short")
}

/// One to three operations, each on another field.
fn draw(rng: &mut SmallRng) -> Vec<Operation> {
    const FIELDS: [&str; 9] =
        ["tally", "low", "high", "title", "choices", "seen", "tags", "open", "by"];
    let count = rng.random_range(1..=3);
    let fields: Vec<&str> = FIELDS.choose_multiple(rng, count).copied().collect();
    fields.into_iter().map(|field| draw_of(rng, field)).collect()
}

fn draw_of(rng: &mut SmallRng, field: &str) -> Operation {
    let word = *WORDS.choose(rng).expect("not empty");
    let clears = field != "seen" && rng.random_bool(0.1);
    let takes_back = rng.random_bool(0.35);
    let by = rng.random_range(-4..=6);
    let action = match field {
        _ if clears => Action::Clear,
        "tally" => Action::Increment(by),
        "low" | "high" => Action::Offer(value(by)),
        "title" | "choices" => Action::Set(value(word)),
        "tags" if takes_back => Action::Remove(value(word)),
        "seen" | "tags" => Action::Add(value(word)),
        "open" if takes_back => Action::Disable,
        "open" => Action::Enable,
        _ if takes_back => Action::RemoveKey,
        _ => Action::Increment(by),
    };
    let key = (field == "by" && !clears).then(|| word.into());
    Operation { field: field.to_owned(), key, action }
}

/// An element more or less, at a place drawn from those that are shown.
fn draw_of_list(rng: &mut SmallRng, list: &[ElementId], name: &str) -> Operation {
    let at = rng.random_range(0..=list.len());
    let action = match list.get(at) {
        _ if rng.random_bool(0.05) => Action::Clear,
        Some(element) if rng.random_bool(0.35) => Action::Delete(element.clone()),
        before => Action::Insert {
            after: at.checked_sub(1).map(|at| list[at].clone()),
            before: before.cloned(),
            value: value(name),
        },
    };
    Operation { field: LIST.to_owned(), key: None, action }
}

#[cfg(test)]
mod tests {
    use anabranch_core::aggregate::Definition;
    use anabranch_history::board::fields;
    use serde_json::json;

    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_operation_is_one_of_its_field_and_all_kinds_are_drawn() {
        let definition = json!({ "category": CATEGORY, "version": 1, "fields": fields() });
        let definition = Definition::from_json(&definition).unwrap();
        let mut rng = crate::dice::rng(1, "test", 0, 0);
        let mut drawn = BTreeSet::new();
        let element: ElementId = "1/2@a.0".parse().unwrap();
        for _ in 0..500 {
            let mut operations = draw(&mut rng);
            operations.push(draw_of_list(&mut rng, std::slice::from_ref(&element), "x"));
            for operation in operations {
                operation.check(&definition).unwrap();
                drawn.insert((operation.field, operation.action.name()));
            }
        }
        // Nine that can be cleared, and what each has besides.
        assert_eq!(drawn.len(), 9 + 14, "{drawn:?}");
    }
}
