//! Conditions on the fields of aggregates.

use anabranch_core::aggregate::{Definition, Kind, Value};
use anabranch_proto::convert::invalid;
use anabranch_proto::v1;
use anabranch_proto::v1::condition::Comparison;
use serde_json::{Map, Value as Json};
use tonic::Status;

/// Conditions of one query.
const CONDITIONS_MAX: usize = 16;

/// Conditions, all of which must hold.
pub(super) struct Conditions(Vec<(String, Comparison, Value)>);

impl Conditions {
    /// Reads conditions on the fields of a definition.
    pub(super) fn read(wire: &[v1::Condition], definition: &Definition) -> Result<Self, Status> {
        if wire.len() > CONDITIONS_MAX {
            let problem =
                format!("has {} conditions, at most {CONDITIONS_MAX} are allowed", wire.len());
            return Err(invalid("conditions", &problem, CONDITIONS_MAX as u64, wire.len() as u64));
        }
        let read = |(nth, condition): (usize, &v1::Condition)| {
            let path = |part: &str| format!("conditions[{nth}].{part}");
            let (name, part) = match condition.field.split_once('.') {
                Some((name, part)) => (name, Some(part)),
                None => (condition.field.as_str(), None),
            };
            let kind = definition.fields.get(name);
            let is_ordered = matches!(kind, Some(Kind::Ordered(_)));
            if is_ordered && !matches!(part, Some("settled" | "tentative")) {
                let problem = format!("is ordered: say {name}.settled or {name}.tentative");
                return Err(invalid(&path("field"), &problem, 0, 0));
            }
            if kind.is_none() || part.is_some() && !is_ordered {
                let fields: Vec<_> = definition.fields.keys().map(String::as_str).collect();
                let (category, fields) = (&definition.category, fields.join(", "));
                let problem = format!("is no field of {category}, which has {fields}");
                return Err(invalid(&path("field"), &problem, 0, 0));
            }
            let comparison = match condition.comparison() {
                Comparison::Unspecified => {
                    return Err(invalid(&path("comparison"), "is missing, or unknown", 0, 0));
                }
                comparison => comparison,
            };
            let json: Json = serde_json::from_slice(&condition.value)
                .map_err(|error| invalid(&path("value"), &format!("is no JSON: {error}"), 0, 0))?;
            let value = Value::from_json(&json)
                .map_err(|error| invalid(&path("value"), &error.to_string(), 0, 0))?;
            Ok((condition.field.clone(), comparison, value))
        };
        Ok(Self(wire.iter().enumerate().map(read).collect::<Result<_, _>>()?))
    }

    /// Whether all hold for an aggregate.
    pub(super) fn hold(&self, fields: &Map<String, Json>) -> bool {
        let part = |(name, part): (&str, &str)| fields.get(name)?.get(part);
        let of = |field: &str| fields.get(field).or_else(|| part(field.split_once('.')?));
        self.0.iter().all(|(field, comparison, wanted)| match of(field) {
            Some(Json::Array(members)) => match comparison {
                // None of them is.
                Comparison::NotEqual => members.iter().all(|one| holds(one, *comparison, wanted)),
                _ => members.iter().any(|one| holds(one, *comparison, wanted)),
            },
            Some(value) => holds(value, *comparison, wanted),
            None => false,
        })
    }
}

/// Values of two kinds are not equal, and neither is less.
fn holds(json: &Json, comparison: Comparison, wanted: &Value) -> bool {
    // Elements of lists are shown with their ids, bounded counters with the rights of regions.
    let beside =
        |shown: &Map<String, Json>| shown.contains_key("id") || shown.contains_key("rights");
    let json = match json.as_object() {
        Some(shown) if shown.len() == 2 && beside(shown) => shown.get("value").unwrap_or(json),
        _ => json,
    };
    let Ok(value) = Value::from_json(json) else { return false };
    let alike = std::mem::discriminant(&value) == std::mem::discriminant(wanted);
    match comparison {
        Comparison::Unspecified => false,
        Comparison::Equal => value == *wanted,
        Comparison::NotEqual => value != *wanted,
        Comparison::Less => alike && value < *wanted,
        Comparison::LessOrEqual => alike && value <= *wanted,
        Comparison::Greater => alike && value > *wanted,
        Comparison::GreaterOrEqual => alike && value >= *wanted,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn definition() -> Definition {
        let fields = json!({ "n": "pn-counter", "tags": "or-set", "todo": "list", "last": "lww-register",
                    "sum": "ordered from 0", "left": "bounded-counter" });
        Definition::from_json(&json!({ "category": "c", "version": 1, "fields": fields })).unwrap()
    }

    fn condition(field: &str, comparison: Comparison, value: &str) -> v1::Condition {
        v1::Condition {
            field: field.into(),
            comparison: comparison.into(),
            value: value.as_bytes().to_vec().into(),
        }
    }

    #[test]
    fn conditions_are_about_values_or_about_members() {
        let fields = json!({ "n": 5, "tags": ["a", "b"], "todo": [{ "id": "x", "value": 7 }], "last": null,
                             "sum": { "settled": 3, "tentative": 8 },
                             "left": { "value": 3, "rights": { "eu": 3 } } });
        let fields = fields.as_object().unwrap();
        for (field, comparison, value, wanted) in [
            ("n", Comparison::Greater, "4", true),
            ("n", Comparison::Greater, "5", false),
            ("n", Comparison::GreaterOrEqual, "5", true),
            ("n", Comparison::Less, "\"6\"", false),
            ("tags", Comparison::Equal, "\"b\"", true),
            ("tags", Comparison::Equal, "\"c\"", false),
            ("tags", Comparison::NotEqual, "\"b\"", false),
            ("tags", Comparison::NotEqual, "\"c\"", true),
            ("todo", Comparison::Equal, "7", true),
            ("last", Comparison::Equal, "null", true),
            ("last", Comparison::LessOrEqual, "1", false),
            ("sum.settled", Comparison::Less, "4", true),
            ("left", Comparison::Greater, "2", true),
            ("left", Comparison::Greater, "3", false),
            ("sum.tentative", Comparison::Less, "4", false),
            ("sum.tentative", Comparison::Equal, "8", true),
        ] {
            let condition = condition(field, comparison, value);
            let conditions = Conditions::read(&[condition], &definition()).unwrap();
            assert_eq!(conditions.hold(fields), wanted, "{field} {comparison:?} {value}");
        }
    }

    #[test]
    fn what_is_wrong_with_one_is_named() {
        let read = |condition| {
            let read = Conditions::read(&[condition], &definition());
            read.err().unwrap().message().to_owned()
        };
        let text = read(condition("m", Comparison::Equal, "1"));
        assert!(
            text.contains("conditions[0].field") && text.contains("last, left, n, sum, tags, todo"),
            "{text}"
        );
        for field in ["sum", "sum.now"] {
            let text = read(condition(field, Comparison::Equal, "1"));
            assert!(text.contains("say sum.settled or sum.tentative"), "{text}");
        }
        let text = read(condition("n.settled", Comparison::Equal, "1"));
        assert!(text.contains("is no field of c"), "{text}");
        let text = read(condition("n", Comparison::Unspecified, "1"));
        assert!(text.contains("conditions[0].comparison"), "{text}");
        let text = read(condition("n", Comparison::Equal, "{"));
        assert!(text.contains("conditions[0].value"), "{text}");
        let many = vec![condition("n", Comparison::Equal, "1"); CONDITIONS_MAX + 1];
        assert!(Conditions::read(&many, &definition()).is_err());
    }
}
