//! Aggregates: defined when everything is written, built in every region from its own order of the
//! events, and held against a plain fold.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anabranch_client::{Client, ReadError};
use anabranch_core::event::category;
use anyhow::Context as _;
use serde_json::{Map, Value as Json, json};
use tokio::time::{Instant, sleep};

use super::cluster::Endpoints;
use super::reading::Faults;

/// Pause before a region that is still at work is asked again.
pub(super) const ASK_AGAIN: Duration = Duration::from_millis(100);

/// Whether a region that answered so is still at work on a definition; if so, waits a little for it, but
/// not beyond the deadline.
pub(super) async fn at_work(error: &ReadError, deadline: Instant) -> bool {
    let not_yet = matches!(error, ReadError::NoDefinition { .. } | ReadError::Unavailable { .. });
    let wait = not_yet && Instant::now() < deadline;
    if wait {
        sleep(ASK_AGAIN).await;
    }
    wait
}

/// The aggregates of all streams that a plain fold knows: one event after the other, in any order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlainFold {
    streams: BTreeMap<String, Plain>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Plain {
    changes: u64,
    lines: i64,
    authors: BTreeSet<String>,
    items: BTreeMap<String, i64>,
}

/// What an event does, of the kinds that are folded.
enum Change {
    Lines { by: i64, author: String },
    Item { name: String, count: i64 },
}

impl Change {
    fn read(kind: &str, payload: &[u8]) -> Option<Self> {
        let sign = match kind {
            "FileChanged" | "ItemAdded" => 1,
            "ItemRemoved" => -1,
            _ => return None,
        };
        let json: Json = serde_json::from_slice(payload).ok()?;
        let number = |name: &str| json.get(name).and_then(Json::as_i64);
        let text = |name: &str| json.get(name).and_then(Json::as_str).map(str::to_owned);
        Some(match kind {
            "FileChanged" => {
                Self::Lines { by: number("added")? - number("deleted")?, author: text("author")? }
            }
            _ => Self::Item { name: text("item")?, count: sign * number("count")? },
        })
    }
}

impl PlainFold {
    /// Takes an event in, if it is of a kind that is folded.
    pub fn add(&mut self, stream: &str, kind: &str, payload: &[u8]) {
        let Some(change) = Change::read(kind, payload) else { return };
        let plain = self.streams.entry(stream.to_owned()).or_default();
        plain.changes += 1;
        match change {
            Change::Lines { by, author } => {
                plain.lines += by;
                plain.authors.insert(author);
            }
            Change::Item { name, count } => *plain.items.entry(name).or_default() += count,
        }
    }

    /// Number of streams.
    pub fn len(&self) -> usize {
        self.streams.len()
    }
    /// Whether nothing was of a kind that is folded.
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// The definition of every category in it.
    fn definitions(&self) -> BTreeMap<&str, Json> {
        let categories = self.streams.keys().map(|stream| category(stream));
        categories.map(|category| (category, definition(category))).collect()
    }
}

impl Plain {
    fn value(&self) -> Map<String, Json> {
        let items = self.items.iter().map(|(name, count)| (name.clone(), Json::from(*count)));
        let value = json!({
            "changes": self.changes,
            "lines": self.lines,
            "authors": self.authors,
            "items": items.collect::<Map<_, _>>(),
        });
        value.as_object().cloned().unwrap_or_default()
    }
}

fn definition(category: &str) -> Json {
    json!({
        "category": category,
        "version": 1,
        "fields": {
            "changes": "g-counter",
            "lines": "pn-counter",
            "authors": "or-set",
            "items": "map of pn-counter",
        },
        "on": {
            "FileChanged": ["changes += 1", "lines += $.added - $.deleted", "authors add $.author"],
            "ItemAdded": ["changes += 1", "items[$.item] += $.count"],
            "ItemRemoved": ["changes += 1", "items[$.item] -= $.count"],
        },
    })
}

/// Has the aggregates defined in the first region, reads them from all, and names every one that is
/// not what the plain fold gives.
///
/// # Errors
/// If they cannot be defined, or a region does not serve them `within` that time.
pub async fn compare(
    endpoints: &[Endpoints],
    expected: &PlainFold,
    within: Duration,
) -> anyhow::Result<Faults> {
    let mut faults = Faults::default();
    let deadline = Instant::now() + within;
    let first = endpoints.first().context("there is no region")?.client()?;
    for (category, definition) in expected.definitions() {
        let defined = first.define(definition.to_string()).await;
        defined.with_context(|| format!("define aggregates of {category}"))?;
    }
    for endpoints in endpoints {
        let (client, region) = (endpoints.client()?, &endpoints.region);
        let mut served = BTreeMap::new();
        for category in expected.definitions().keys() {
            let read = read(&client, category, deadline).await;
            served.extend(
                read.with_context(|| format!("read aggregates of {category} in {region}"))?,
            );
        }
        for (stream, plain) in &expected.streams {
            let (found, wanted) = (served.remove(stream), plain.value());
            if found.as_ref() != Some(&wanted) {
                let found =
                    found.map_or("nothing".to_owned(), |found| Json::Object(found).to_string());
                let wanted = Json::Object(wanted).to_string();
                faults.add(|| format!("{region} serves {found} of {stream}, not {wanted}"));
            }
        }
        for stream in served.keys() {
            faults.add(|| {
                format!("{region} serves an aggregate of {stream}, which has no such events")
            });
        }
    }
    Ok(faults)
}

/// All aggregates of a category, as soon as the region knows the definition.
async fn read(
    client: &Client,
    category: &str,
    deadline: Instant,
) -> Result<BTreeMap<String, Map<String, Json>>, ReadError> {
    'again: loop {
        let mut all = client.query(category).all();
        let mut served = BTreeMap::new();
        while let Some(aggregate) = all.next().await {
            match aggregate {
                Ok(aggregate) => drop(served.insert(aggregate.stream, aggregate.value)),
                Err(error) if at_work(&error, deadline).await => continue 'again,
                Err(error) => return Err(error),
            }
        }
        return Ok(served);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_fold_adds_up_what_it_knows_and_passes_over_the_rest() {
        let mut fold = PlainFold::default();
        fold.add("file-a", "FileChanged", br#"{"added":5,"deleted":2,"author":"x"}"#);
        fold.add("file-a", "FileChanged", br#"{"added":1,"deleted":9,"author":"y"}"#);
        fold.add("file-a", "FileChanged", br#"{"added":1}"#);
        fold.add("file-a", "Renamed", b"{}");
        fold.add("cart-1", "ItemAdded", br#"{"item":"sku-1","count":4}"#);
        fold.add("cart-1", "ItemRemoved", br#"{"item":"sku-1","count":1}"#);
        let value = |stream: &str| Json::Object(fold.streams[stream].value());
        let files = json!({ "changes": 2, "lines": -5, "authors": ["x", "y"], "items": {} });
        let carts = json!({ "changes": 2, "lines": 0, "authors": [], "items": { "sku-1": 3 } });
        assert_eq!((value("file-a"), value("cart-1")), (files, carts));
        assert_eq!(fold.definitions().keys().copied().collect::<Vec<_>>(), ["cart", "file"]);
    }

    #[test]
    fn what_is_declared_is_a_definition() {
        anabranch_core::aggregate::Definition::from_json(&definition("file")).unwrap();
    }
}
