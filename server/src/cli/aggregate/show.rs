//! Aggregates as text: for people, or as JSON.

use anabranch_client::Aggregate;
use indicatif::HumanCount;
use serde_json::{Map, Value, json};

use crate::cli::print::{clean, harmless};

/// Everything, in one line.
pub fn as_json(aggregate: &Aggregate) -> String {
    let mut json = json!({
        "stream": aggregate.stream,
        "version": aggregate.version,
        "events": aggregate.events,
        "bad_events": aggregate.bad_events,
        "value": aggregate.value,
    });
    if let Some(ordered) = &aggregate.ordered {
        json["ordered"] = json!({
            "settled_events": ordered.settled_events,
            "settled_bad_events": ordered.settled_bad_events,
            "tentative_events": ordered.tentative_events,
            "tentative_bad_events": ordered.tentative_bad_events,
        });
    }
    if let Some(cut) = &aggregate.cut {
        let seqs = cut.iter().map(|(origin, seq)| (origin.to_string(), seq.0.into()));
        json["cut"] = Value::Object(seqs.collect::<Map<_, _>>());
    }
    harmless(&json.to_string())
}

/// The stream and what it comes to, in one line.
pub fn as_line(aggregate: &Aggregate) -> String {
    let fields = aggregate.value.iter().map(|(name, value)| (name.clone(), plain(value)));
    let value = Value::Object(fields.collect::<Map<_, _>>());
    clean(&format!("{}  {value}", aggregate.stream))
}

/// A line about the stream, and one a field.
pub fn as_text(aggregate: &Aggregate) -> String {
    let Aggregate { stream, version, value, .. } = aggregate;
    let all = events(aggregate.events, aggregate.bad_events);
    let mut text = clean(&format!("{stream}  version {version}, {all}"));
    if let Some(ordered) = &aggregate.ordered {
        let settled = events(ordered.settled_events, ordered.settled_bad_events);
        let tentative = events(ordered.tentative_events, ordered.tentative_bad_events);
        text += &format!("\n  settled: {settled}; tentative: {tentative}");
    }
    let width = value.keys().map(String::len).max().unwrap_or_default();
    for (name, value) in value {
        text += &format!("\n  {}", clean(&format!("{name:width$}  {}", plain(value))));
    }
    text
}

/// How many events, and how many of them were left out.
pub fn events(events: u64, bad: u64) -> String {
    let noun = if events == 1 { "event" } else { "events" };
    let left_out = match bad {
        0 => String::new(),
        bad => format!(", {} of them bad and left out", HumanCount(bad)),
    };
    format!("{} {noun}{left_out}", HumanCount(events))
}

/// Elements of lists without their ids, which say little to people.
fn plain(value: &Value) -> Value {
    match value {
        Value::Array(members) => {
            let values = members.iter().map(|member| match member.as_object() {
                Some(element) if element.len() == 2 && element.contains_key("id") => {
                    element.get("value").cloned()
                }
                _ => None,
            });
            values.collect::<Option<Vec<_>>>().map_or_else(|| value.clone(), Value::Array)
        }
        Value::Object(entries) => {
            let entries = entries.iter().map(|(key, value)| (key.clone(), plain(value)));
            Value::Object(entries.collect())
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_see_names_and_values_and_nothing_that_moves_their_cursor() {
        let value = json!({
            "by": { "ada": 5, "todos": [{ "id": "1@a.0", "value": "milk" }] },
            "n": 7,
            "tags": ["a\u{202e}b"],
            "todo": [{ "id": "1@a.0", "value": "tea" }, { "id": "2@a.0", "value": [1] }],
        });
        let aggregate = Aggregate {
            stream: "stock-1".into(),
            version: 2,
            value: value.as_object().unwrap().clone(),
            events: 1_200,
            bad_events: 1,
            ordered: None,
            session_token: Default::default(),
            cut: None,
        };
        let text = as_text(&aggregate);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "stock-1  version 2, 1,200 events, 1 of them bad and left out");
        assert_eq!(lines[1], r#"  by    {"ada":5,"todos":["milk"]}"#);
        assert_eq!(lines[2], "  n     7");
        assert_eq!(lines[3], r#"  tags  ["a\u{202e}b"]"#);
        assert_eq!(lines[4], r#"  todo  ["tea",[1]]"#);
        let json: Value = serde_json::from_str(&as_json(&aggregate)).unwrap();
        assert_eq!((&json["value"], &json["bad_events"]), (&value, &1.into()));
        assert!(json.get("cut").is_none());
    }
}
