//! Aggregates of the workload's own events: what definers declare, and what must come of it.
//!
//! Events of the workload carry no JSON, so the definitions count them, and what stands beside them.
//! Definers of two regions declare the same version of a category, each a little differently: one of
//! them counts everywhere.

use std::collections::{BTreeMap, BTreeSet};

use anabranch_core::Dot;
use anabranch_core::event::category;
use serde_json::{Map, Value as Json, json};

use crate::board;
use crate::content::Name;
use crate::evidence::Seen;
use crate::said::{LEFT, SEATS};
use crate::shape::Class;

/// Type of the events that declare a definition.
pub const KIND: &str = "DefinitionDeclared";
/// Categories with aggregates. Those of the first two are changed by operations, the others by ordinary
/// events.
pub const CATEGORIES: [&str; 5] = [board::CATEGORY, SEATS, "set", "made", "hop"];
/// Versions that a definer declares of each.
pub const VERSIONS: u32 = 3;

/// A flag that nobody raises, of every other version of what operations change.
pub const SPARE: &str = "spare";

/// A definition that a definer declares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Declared {
    /// Which version.
    pub version: u32,
    /// Which category.
    pub category: &'static str,
    /// Number of the definer's region.
    pub home: u32,
}

impl Declared {
    /// What an operation of a definer declares, the first being 1; none if it is another client's.
    pub fn of(writer: u32, op: u32) -> Option<Self> {
        let nth = op.checked_sub(1).filter(|_| Class::of(writer) == Some(Class::Definer))?;
        let home = (writer >> 16) & 0xff;
        // Each region begins with another one.
        let category = CATEGORIES[(nth + home) as usize % CATEGORIES.len()];
        let version = nth / CATEGORIES.len() as u32 + 1;
        Some(Self { version, category, home })
    }

    /// The stream that it is declared in.
    pub fn stream(self) -> String {
        format!("$definition-{}", self.category)
    }

    /// Whether operations change its aggregates, and no ordinary event does.
    pub fn is_operated(self) -> bool {
        [board::CATEGORY, SEATS].contains(&self.category)
    }

    /// The definition.
    pub fn definition(self) -> Json {
        if self.is_operated() {
            let mut fields = match self.category {
                SEATS => json!({ LEFT: "bounded-counter" }),
                _ => board::fields(),
            };
            if self.has_more() {
                fields[SPARE] = "flag".into();
            }
            let (category, version) = (self.category, self.version);
            return json!({ "category": category, "version": version, "fields": fields });
        }
        let mut fields = json!({
            "events": "g-counter", "regions": "or-set", "last": "lww-register", "latest": "max",
            "home": "mv-register", "before": "ordered", "turns": "ordered from 0",
        });
        let mut on = vec![
            "events += 1".to_owned(),
            "regions add @region".into(),
            "last = @region".into(),
            "latest offer @time".into(),
            format!("home = {}", self.home),
            "turns += 1 when before != @region".into(),
            "before = @region".into(),
        ];
        if self.has_more() {
            fields["by"] = "map of g-counter".into();
            on.push("by[@region] += 1".into());
        }
        let (category, version) = (self.category, self.version);
        json!({ "category": category, "version": version, "fields": fields, "on": { "*": on } })
    }

    /// Every other version has one field more.
    pub fn has_more(self) -> bool {
        self.version.is_multiple_of(2)
    }

    /// The aggregates of the category, by stream, from nothing but the set of events, and which of them
    /// are `settled`: final in the global order.
    pub fn fold<'a>(
        self,
        seen: impl Iterator<Item = &'a Seen>,
        settled: &BTreeSet<&Dot>,
    ) -> BTreeMap<&'a str, Map<String, Json>> {
        let mut streams: BTreeMap<&str, Vec<&Seen>> = BTreeMap::new();
        for seen in seen.filter(|seen| category(&seen.stream) == self.category) {
            streams.entry(&seen.stream).or_default().push(seen);
        }
        let folded =
            |(stream, events): (_, Vec<&Seen>)| (stream, self.fold_stream(&events, settled));
        streams.into_iter().map(folded).collect()
    }

    fn fold_stream(self, events: &[&Seen], settled: &BTreeSet<&Dot>) -> Map<String, Json> {
        // A retry that reached a second region is another event, and counts once.
        let ids: BTreeSet<_> = events.iter().map(|seen| seen.id).collect();
        let mut by: BTreeMap<&str, BTreeSet<_>> = BTreeMap::new();
        for seen in events {
            by.entry(seen.dot.origin.region.as_str()).or_default().insert(seen.id);
        }
        let last = events.iter().max_by_key(|seen| (seen.stamp, &seen.dot));
        let mut fields = Map::new();
        fields.insert("events".into(), ids.len().into());
        fields.insert("regions".into(), by.keys().copied().collect());
        fields.insert("last".into(), last.map(|seen| seen.dot.origin.region.as_str()).into());
        fields.insert("latest".into(), last.map(|seen| seen.stamp.unix_ms()).into());
        fields.insert("home".into(), json!([self.home]));
        let is_settled = |seen: &&&Seen| settled.contains(&seen.dot);
        let (now, then) = (turns(events.iter()), turns(events.iter().filter(is_settled)));
        for (name, settled, tentative) in [("turns", then.0, now.0), ("before", then.1, now.1)] {
            let both = json!({ "settled": settled, "tentative": tentative });
            fields.insert(name.into(), both);
        }
        if self.has_more() {
            let counts = by.into_iter().map(|(region, ids)| (region.to_owned(), ids.len().into()));
            fields.insert("by".into(), Json::Object(counts.collect()));
        }
        fields
    }

    /// The definition that counts, of a category, among the events that declare one.
    pub fn that_counts<'a>(category: &str, seen: impl Iterator<Item = &'a Seen>) -> Option<Self> {
        let declared = seen.filter_map(|seen| {
            let Name { writer, op, .. } = Name::of(seen.id);
            let declared = Self::of(writer, op).filter(|declared| declared.category == category)?;
            // An id that the store has made may look like a definer's.
            if seen.stream != declared.stream() {
                return None;
            }
            Some((declared.version, seen.stamp, &seen.dot, declared))
        });
        declared
            .max_by_key(|(version, stamp, dot, _)| (*version, *stamp, *dot))
            .map(|found| found.3)
    }
}

/// How often the region was another one than before, in the global order, and which it was last. A request
/// is taken in once, where it comes first.
fn turns<'a>(events: impl Iterator<Item = &'a &'a Seen>) -> (Json, Json) {
    let mut events: Vec<&Seen> = events.copied().collect();
    events.sort_by_key(|seen| (seen.stamp, &seen.dot));
    let (mut ids, mut turns, mut before) = (BTreeSet::new(), 0, None);
    for seen in events.into_iter().filter(|seen| ids.insert(seen.id)) {
        let region = seen.dot.origin.region.as_str();
        turns += u64::from(before != Some(region));
        before = Some(region);
    }
    (turns.into(), before.into())
}

#[cfg(test)]
mod tests {
    use anabranch_core::aggregate::Definition;

    use super::*;

    #[test]
    fn definers_declare_definitions_and_nobody_else_does() {
        let writer = Class::Definer.writer(2, 0);
        for op in 1..=CATEGORIES.len() as u32 * VERSIONS {
            let declared = Declared::of(writer, op).unwrap();
            let definition = Definition::from_json(&declared.definition()).unwrap();
            assert_eq!(
                (&*definition.category, definition.version),
                (declared.category, declared.version)
            );
            assert_eq!((declared.home, declared.version), (2, 1 + (op - 1) / 5));
        }
        assert_eq!(Declared::of(writer, 0), None);
        assert_eq!(Declared::of(Class::Collector.writer(2, 0), 1), None);
    }
}
