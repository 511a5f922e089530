//! Law 5, for aggregates: what every node serves of a category is the fold of the events that its
//! region shows, by the definition that counts there.
//!
//! Source: DESIGN.md laws 2 and 5 and section 7. The definition with the highest version counts, of
//! two the later in global order. A field is a function of the set of events (`defined.rs`): a count of
//! requests, however often one was sent; a union; the last by stamp; the greatest; and, of ordered fields,
//! a fold one after the other, over what the region shows as final, and over all it shows. So regions that
//! show the same events serve the same aggregates, and nodes that were killed, set back or lost what
//! they had kept serve no others.
//!
//! What is changed by operations is judged in `operations.rs`.
//!
//! It cannot see: what was served while the faults went on, and events that are not of the workload.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use super::{Broken, Verdict};
use crate::case::Case;
use crate::defined::Declared;

/// Holds every node's aggregates against the events of its region.
pub fn check(case: &Case<'_>) -> Verdict {
    let mut verdict =
        Verdict::new("aggregates", "every node serves the fold of the events it holds");
    for served in &case.evidence.served {
        let Some(read) = case.evidence.regions.get(&served.region) else { continue };
        let (node, category) = (&served.node, &served.category);
        let Some(declared) = Declared::that_counts(category, read.regional.iter()) else {
            verdict.check(served.aggregates.is_none(), || {
                Broken::new(format!("{node} serves aggregates of {category}, which nobody defined"))
            });
            continue;
        };
        if declared.is_operated() {
            continue;
        }
        let Some(aggregates) = &served.aggregates else {
            verdict.check(false, || {
                Broken::new(format!("{node} does not know {declared:?}, which its region holds"))
            });
            continue;
        };
        let settled: BTreeSet<_> = read.global.iter().map(|seen| &seen.dot).collect();
        let expected = declared.fold(read.regional.iter(), &settled);
        let streams: BTreeMap<&str, _> = aggregates.iter().map(|one| (&*one.stream, one)).collect();
        for stream in streams.keys().filter(|stream| !expected.contains_key(**stream)) {
            verdict.check(false, || {
                Broken::new(format!("{node} serves an aggregate of {stream}, which has no events"))
            });
        }
        for (stream, fields) in expected {
            let fields = Json::Object(fields).to_string();
            let found = streams.get(stream);
            let same =
                found.is_some_and(|one| one.value == fields && one.version == declared.version);
            verdict.check(same, || {
                let found = found.map(|one| format!("{} by version {}", one.value, one.version));
                let found = found.unwrap_or("nothing".into());
                let version = declared.version;
                let words = format!(
                    "{node} serves {found} of {stream}; its events give {fields} by version {version}"
                );
                let of_stream = read.regional.iter().filter(|seen| seen.stream == stream);
                of_stream.take(3).fold(Broken::new(words), |broken, seen| broken.dot(&seen.dot))
            });
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::{judge, sound};
    use crate::content::Name;
    use crate::evidence::{Evidence, Served, ServedAggregate};
    use crate::shape::Class;

    /// A definition of `set`, declared twice, and two events of one set, the second a retry of the first
    /// in another region.
    fn served() -> Evidence {
        let mut evidence = sound();
        let definer =
            |home, op| Name { run: 1, writer: Class::Definer.writer(home, 0), op, nth: 0 }.id();
        for read in evidence.regions.values_mut() {
            for (nth, seen) in read.regional.iter_mut().enumerate().take(4) {
                (seen.stream, seen.id) = match nth {
                    0 | 1 => ("$definition-set".into(), definer(nth, 3 - nth as u32)),
                    _ => ("set-1".into(), Name { run: 1, writer: 7, op: 1, nth: 0 }.id()),
                };
            }
        }
        let read = &evidence.regions["eu"];
        let declared = Declared::that_counts("set", read.regional.iter()).unwrap();
        assert_eq!(declared.home, 1, "the later one counts");
        let settled: BTreeSet<_> = read.global.iter().map(|seen| &seen.dot).collect();
        let folded = declared.fold(read.regional.iter(), &settled);
        let turns = &folded["set-1"]["turns"];
        assert_eq!(turns["tentative"], 1, "the retry is no turn");
        assert_eq!(folded["set-1"]["events"], 1, "a request counts once");
        let aggregate = |(stream, fields): (&str, _)| ServedAggregate {
            stream: stream.to_owned(),
            version: 1,
            value: Json::Object(fields).to_string(),
        };
        let aggregates: Vec<_> = folded.into_iter().map(aggregate).collect();
        let of = |region: &str, category: &str, aggregates: Option<Vec<_>>| Served {
            node: format!("{region}-1"),
            region: region.to_owned(),
            category: category.to_owned(),
            aggregates,
        };
        evidence.served = vec![
            of("eu", "set", Some(aggregates.clone())),
            of("us", "set", Some(aggregates)),
            of("us", "made", None),
        ];
        evidence
    }

    #[test]
    fn aggregates_that_lack_or_add_anything_are_found() {
        assert!(judge(check, &served()).holds(), "{:?}", judge(check, &served()).words);
        let broken = |change: fn(&mut Evidence)| {
            let mut evidence = served();
            change(&mut evidence);
            judge(check, &evidence).broken
        };
        fn first(evidence: &mut Evidence) -> &mut Vec<ServedAggregate> {
            evidence.served[0].aggregates.as_mut().unwrap()
        }
        assert_eq!(broken(|e| first(e)[0].value = first(e)[0].value.replace(":1", ":2")), 1);
        for part in ["settled", "tentative"] {
            let mut evidence = served();
            let value = &mut first(&mut evidence)[0].value;
            let mut json: Json = serde_json::from_str(value).unwrap();
            json["turns"][part] = 7.into();
            *value = json.to_string();
            assert_eq!(judge(check, &evidence).broken, 1, "{part}");
        }
        assert_eq!(broken(|e| first(e)[0].version = 2), 1);
        assert_eq!(broken(|e| first(e).clear()), 1);
        assert_eq!(broken(|e| e.served[0].aggregates = None), 1, "it does not know the definition");
        assert_eq!(broken(|e| e.served[2].aggregates = Some(Vec::new())), 1, "nobody defined it");
        assert_eq!(
            broken(|e| {
                let mut odd = first(e)[0].clone();
                odd.stream = "set-2".into();
                first(e).push(odd);
            }),
            1
        );
    }
}
