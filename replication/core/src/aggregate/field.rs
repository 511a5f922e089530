//! Fields: the state of one type each, and maps of them.

use std::collections::BTreeMap;

use serde_json::{Map as JsonMap, Value as Json, json};

use super::best::{Best, Better};
use super::bounded::Bounded;
use super::counter::Counter;
use super::definition::Kind;
use super::list::List;
use super::memory;
use super::operation::Action;
use super::set::Set;
use super::tag::{Loader, Place, Tag, Writer, is_stable};
use super::value::{Value, total_to_json};
use crate::codec::{DecodeError, Put};
use crate::context::Context;

/// The state of a field. Which kind it is, the definition says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Field {
    Counter(Counter),
    Bounded(Bounded),
    Best(Best),
    Set(Set),
    List(List),
    Map(Entries),
}

/// What is under the keys of a map.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Entries {
    entries: BTreeMap<Box<str>, Entry>,
    /// Operations since the keys were last looked through for what can be forgotten.
    since: usize,
    /// How much there was to look through, when it was done.
    left: usize,
}

/// Keys are looked through after as many operations as there is to look through, and not after fewer
/// than this.
const OPERATIONS_MIN: usize = 32;

/// What is under a key of a map. The key is there as long as one of its updates was not seen by
/// whoever removed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    updates: Vec<Tag>,
    field: Field,
}

impl Kind {
    fn better(&self) -> Better {
        match self {
            Self::Max => Better::Larger,
            Self::Min => Better::Smaller,
            _ => Better::Later,
        }
    }
}

impl Field {
    pub(super) fn new(kind: &Kind) -> Self {
        match kind {
            Kind::GCounter | Kind::PnCounter => Self::Counter(Counter::default()),
            Kind::BoundedCounter => Self::Bounded(Bounded::default()),
            Kind::Max | Kind::Min | Kind::LwwRegister => Self::Best(Best::default()),
            Kind::MvRegister | Kind::GSet | Kind::OrSet | Kind::Flag => Self::Set(Set::default()),
            Kind::List => Self::List(List::default()),
            Kind::Map(_) => Self::Map(Entries::default()),
            Kind::Ordered(_) => unreachable!("ordered fields are not merged"),
        }
    }

    /// Does what the kind admits; see [`super::Operation::check`].
    pub(super) fn apply(
        &mut self,
        kind: &Kind,
        key: Option<&str>,
        action: &Action,
        place: &Place<'_>,
        stable: &Context,
    ) {
        match (self, action) {
            (Self::Map(map), _) => {
                let Kind::Map(inner) = kind else { unreachable!("a map is of kind map") };
                map.apply(inner, key, action, place, stable);
            }
            (Self::Counter(counter), Action::Increment(by)) => counter.add(*by, place, stable),
            (Self::Bounded(bounded), _) => bounded.apply(&place.tag.origin.region, action),
            (Self::Best(best), Action::Offer(value) | Action::Set(value)) => {
                best.offer(kind.better(), value.clone(), place, stable);
            }
            (Self::Set(set), Action::Set(value)) => set.replace(value.clone(), place),
            (Self::Set(set), Action::Add(value)) => set.add(value.clone(), place),
            (Self::Set(set), Action::Remove(value)) => set.remove(value, place),
            (Self::Set(set), Action::Enable) => set.add(Value::Null, place),
            (Self::Set(set), Action::Disable) => set.clear(place),
            (Self::List(list), Action::Insert { after, before, value }) => {
                list.insert(after.as_ref(), before.as_ref(), value.clone(), place);
            }
            (Self::List(list), Action::Delete(id)) => list.delete(id, place, stable),
            (field, Action::Clear) => field.clear(place),
            (_, action) => unreachable!("{} was checked against {kind}", action.name()),
        }
    }

    /// Takes back everything that the operation's region held.
    fn clear(&mut self, place: &Place<'_>) {
        // What it leaves to be remembered is judged by what the region held, not by what the client
        // had seen, because the memory is given up when every region holds it.
        let place = &Place { observed: None, ..place.clone() };
        match self {
            Self::Counter(counter) => counter.clear(place),
            Self::Bounded(_) => unreachable!("a bounded counter is not cleared"),
            Self::Best(best) => best.clear(place),
            Self::Set(set) => set.clear(place),
            Self::List(list) => list.clear(place),
            Self::Map(map) => map.entries.retain(|_, entry| !entry.remove(place)),
        }
    }

    /// Forgets what nothing that is still to come can ask for.
    pub(super) fn settle(&mut self, kind: &Kind, stable: &Context) {
        match (self, kind) {
            (Self::Counter(counter), _) => counter.settle(stable),
            (Self::Best(best), _) => best.settle(stable),
            (Self::List(list), _) => list.settle(stable),
            (Self::Map(map), Kind::Map(inner)) => map.settle(inner, stable),
            (Self::Bounded(_) | Self::Set(_) | Self::Map(_), _) => {}
        }
    }

    /// What [`settle`](Self::settle) looks through.
    fn records(&self) -> usize {
        match self {
            Self::Counter(counter) => counter.records(),
            Self::Best(best) => best.records(),
            Self::List(list) => list.records(),
            Self::Bounded(_) | Self::Set(_) | Self::Map(_) => 0,
        }
    }

    fn is_blank(&self) -> bool {
        match self {
            Self::Counter(counter) => counter.is_blank(),
            Self::Bounded(bounded) => bounded.is_blank(),
            Self::Best(best) => best.is_blank(),
            Self::Set(set) => set.is_empty(),
            Self::List(list) => list.is_blank(),
            Self::Map(map) => map.entries.is_empty(),
        }
    }

    /// What readers see.
    pub(super) fn value(&self, kind: &Kind) -> Json {
        match (self, kind) {
            (Self::Counter(counter), _) => total_to_json(counter.total()),
            (Self::Bounded(bounded), _) => bounded.value(),
            (Self::Best(best), _) => best.value().map_or(Json::Null, Value::to_json),
            (Self::Set(set), Kind::Flag) => Json::from(!set.is_empty()),
            (Self::Set(set), _) => set.members().map(Value::to_json).collect(),
            (Self::List(list), _) => {
                let element = |(id, value): (&super::ElementId, &Value)| json!({ "id": id.to_string(), "value": value.to_json() });
                list.elements().map(element).collect()
            }
            (Self::Map(map), Kind::Map(inner)) => {
                let there = map.entries.iter().filter(|(_, entry)| !entry.updates.is_empty());
                let values = there.map(|(key, entry)| (key.to_string(), entry.field.value(inner)));
                Json::Object(values.collect::<JsonMap<_, _>>())
            }
            (Self::Map(_), _) => unreachable!("a map is of kind map"),
        }
    }

    /// What is the same in all regions that hold the same events.
    pub(super) fn canonical(&self, kind: &Kind, out: &mut Vec<u8>) {
        match (self, kind) {
            (Self::Counter(counter), _) => out.put_u128(counter.total() as u128),
            (Self::Bounded(bounded), _) => bounded.encode(out),
            (Self::Best(best), _) => {
                let value = best.value();
                out.put_byte(value.is_some().into());
                value.inspect(|value| value.encode(out));
            }
            (Self::Set(set), _) => set.canonical(out),
            (Self::List(list), _) => list.canonical(out),
            (Self::Map(map), Kind::Map(inner)) => {
                let there = map.entries.iter().filter(|(_, entry)| !entry.updates.is_empty());
                for (key, entry) in there {
                    out.put_slice_with_len(key.as_bytes());
                    entry.field.canonical(inner, out);
                }
            }
            (Self::Map(_), _) => unreachable!("a map is of kind map"),
        }
    }

    /// Bytes of memory, about.
    pub(super) fn memory(&self) -> usize {
        match self {
            Self::Counter(counter) => counter.memory(),
            Self::Bounded(bounded) => bounded.memory(),
            Self::Best(best) => best.memory(),
            Self::Set(set) => set.memory(),
            Self::List(list) => list.memory(),
            Self::Map(map) => {
                let entries = map.entries.iter().map(|(key, entry)| {
                    key.len() + memory::tags(&entry.updates) + entry.field.memory()
                });
                memory::tree::<Box<str>, Entry>(map.entries.len()) + entries.sum::<usize>()
            }
        }
    }

    pub(super) fn encode(&self, out: &mut Writer) {
        match self {
            Self::Counter(counter) => counter.encode(out),
            Self::Bounded(bounded) => bounded.encode(&mut out.bytes),
            Self::Best(best) => best.encode(out),
            Self::Set(set) => set.encode(out),
            Self::List(list) => list.encode(out),
            Self::Map(map) => {
                out.bytes.put_varint(map.entries.len() as u64);
                for (key, entry) in &map.entries {
                    out.bytes.put_slice_with_len(key.as_bytes());
                    out.tags(&entry.updates);
                    entry.field.encode(out);
                }
            }
        }
    }

    pub(super) fn decode(kind: &Kind, from: &mut Loader) -> Result<Self, DecodeError> {
        Ok(match kind {
            Kind::GCounter | Kind::PnCounter => Self::Counter(Counter::decode(from)?),
            Kind::BoundedCounter => Self::Bounded(Bounded::decode(&mut from.reader)?),
            Kind::Max | Kind::Min | Kind::LwwRegister => {
                Self::Best(Best::decode(kind.better(), from)?)
            }
            Kind::MvRegister | Kind::GSet | Kind::OrSet | Kind::Flag => {
                Self::Set(Set::decode(from)?)
            }
            Kind::List => Self::List(List::decode(from)?),
            Kind::Map(inner) => {
                let mut entries = BTreeMap::new();
                for _ in 0..from.reader.count("keys of a map", 2)? {
                    let key = from.reader.text("key of a map")?;
                    let updates = from.tags()?;
                    let field = Self::decode(inner, from)?;
                    entries.insert(key.as_str().into(), Entry { updates, field });
                }
                let left = entries.len();
                Self::Map(Entries { entries, since: 0, left })
            }
            Kind::Ordered(_) => unreachable!("ordered fields are not merged"),
        })
    }
}

impl Entry {
    fn new(kind: &Kind) -> Self {
        Self { updates: Vec::with_capacity(1), field: Field::new(kind) }
    }

    /// Takes back what was held; says whether nothing is left, to be seen or to be remembered.
    fn remove(&mut self, place: &Place<'_>) -> bool {
        self.updates.retain(|update| !place.held(update));
        self.field.clear(place);
        self.updates.is_empty() && self.field.is_blank()
    }

    /// One of the updates that every region holds is enough: whoever removes the key has seen all.
    fn settle(&mut self, stable: &Context) {
        let last = self.updates.iter().filter(|tag| is_stable(tag, stable)).max().cloned();
        self.updates.retain(|tag| !is_stable(tag, stable) || Some(tag) == last.as_ref());
    }
}

impl Entries {
    fn apply(
        &mut self,
        inner: &Kind,
        key: Option<&str>,
        action: &Action,
        place: &Place<'_>,
        stable: &Context,
    ) {
        match (key, action) {
            (None, _) => self.entries.retain(|_, entry| !entry.remove(place)),
            (Some(key), Action::RemoveKey) => {
                if self.entries.get_mut(key).is_some_and(|entry| entry.remove(place)) {
                    self.entries.remove(key);
                }
            }
            (Some(key), action) => {
                let new = || Entry::new(inner);
                let entry = self.entries.entry(key.into()).or_insert_with(new);
                // Whoever has seen this update has seen what this update's region held.
                entry.updates.retain(|update| !place.held(update));
                entry.updates.push(place.tag.clone());
                // Under a key, what the client had seen does not count: see `Field::clear`.
                let place = &Place { observed: None, ..place.clone() };
                entry.field.apply(inner, None, action, place, stable);
            }
        }
        self.since += 1;
        if self.since >= self.left.max(OPERATIONS_MIN) {
            self.settle(inner, stable);
        }
    }

    fn settle(&mut self, inner: &Kind, stable: &Context) {
        (self.since, self.left) = (0, 0);
        self.entries.retain(|_, entry| {
            entry.field.settle(inner, stable);
            entry.settle(stable);
            self.left += 1 + entry.field.records();
            !(entry.updates.is_empty() && entry.field.is_blank())
        });
    }
}
