//! Definitions: which fields the aggregates of a category have, and what feeds them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value as Json};

use super::operation::{Action, EVENT_TYPE};
use super::statement::{BadStatement, RESERVED, Statement};
use super::value::Value;
use crate::declared::Declare;
use crate::planted::Bug;
use crate::rights;

/// Stands for every type of event but [`EVENT_TYPE`] and [`rights::EVENT_TYPE`].
pub const ANY_TYPE: &str = "*";
/// What is written behind the type of a bounded counter that is never asked of other regions for.
const OWN_RIGHTS: &str = ", own-rights";
/// Fields of a definition.
pub const FIELDS: usize = 64;
/// Event types that a definition maps.
pub const EVENT_TYPES: usize = 256;
/// Statements for one event type.
pub const STATEMENTS: usize = 64;
/// Bytes of a definition, as JSON.
pub const DEFINITION_BYTES: usize = 64 * 1024;
/// Bytes of a category's, a field's or an event type's name.
pub const NAME_BYTES: usize = 128;

/// What a field is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A counter that only grows.
    GCounter,
    /// A counter.
    PnCounter,
    /// A counter that never goes below zero, in any region.
    BoundedCounter,
    /// The largest value offered.
    Max,
    /// The smallest value offered.
    Min,
    /// The value written last, by stamp.
    LwwRegister,
    /// The values written last; several if they were written without knowing of each other.
    MvRegister,
    /// A set that only grows.
    GSet,
    /// A set in which adding wins over removing.
    OrSet,
    /// A flag in which raising wins over lowering.
    Flag,
    /// A list.
    List,
    /// From keys to any of the others but the next.
    Map(Box<Kind>),
    /// A value that the stream's events change one after the other, in the global order: not merged. It
    /// begins as this one.
    Ordered(Value),
}

/// Why an action has no place in a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoSuchPlace {
    /// It is for what is under a key of the map, and names none.
    KeyMissing,
    /// It names a key, and the field is no map.
    NoKeys,
}

impl Kind {
    const PLAIN: [(&'static str, Self); 11] = [
        ("g-counter", Self::GCounter),
        ("pn-counter", Self::PnCounter),
        ("bounded-counter", Self::BoundedCounter),
        ("max", Self::Max),
        ("min", Self::Min),
        ("lww-register", Self::LwwRegister),
        ("mv-register", Self::MvRegister),
        ("g-set", Self::GSet),
        ("or-set", Self::OrSet),
        ("flag", Self::Flag),
        ("list", Self::List),
    ];

    /// The type that an action is for, with a key or without one; `None` if it is for the map itself.
    ///
    /// # Errors
    /// [`NoSuchPlace`].
    pub(super) fn reached(
        &self,
        has_key: bool,
        action: &Action,
    ) -> Result<Option<&Self>, NoSuchPlace> {
        match (self, has_key, action) {
            (Self::Map(_), false, Action::Clear) | (Self::Map(_), true, Action::RemoveKey) => {
                Ok(None)
            }
            (Self::Map(inner), true, _) => Ok(Some(inner)),
            (Self::Map(_), false, _) => Err(NoSuchPlace::KeyMissing),
            (_, true, _) => Err(NoSuchPlace::NoKeys),
            (plain, false, _) => Ok(Some(plain)),
        }
    }

    /// Whether the type has the operation, apart from those on keys.
    pub fn admits(&self, action: &Action) -> bool {
        match action {
            Action::Increment(by) => match self {
                Self::GCounter => *by >= 0,
                _ => *self == Self::PnCounter,
            },
            Action::Earn(_) | Action::Spend(_) | Action::Pass { .. } => {
                *self == Self::BoundedCounter
            }
            Action::Set(_) => matches!(self, Self::LwwRegister | Self::MvRegister),
            Action::Offer(_) => matches!(self, Self::Max | Self::Min),
            Action::Add(_) => matches!(self, Self::GSet | Self::OrSet),
            Action::Remove(_) => *self == Self::OrSet,
            Action::Enable | Action::Disable => *self == Self::Flag,
            Action::Insert { .. } | Action::Delete(_) => *self == Self::List,
            Action::RemoveKey => false,
            Action::Clear => !matches!(
                self,
                Self::GCounter | Self::BoundedCounter | Self::GSet | Self::Ordered(_)
            ),
        }
    }

    /// The operations that it has, for messages.
    pub fn actions(&self) -> &'static str {
        match self {
            Self::GCounter => "increment, by 0 or more",
            Self::PnCounter => "increment, clear",
            Self::BoundedCounter => "earn, spend, pass",
            Self::Max | Self::Min => "offer, clear",
            Self::LwwRegister | Self::MvRegister => "set, clear",
            Self::GSet => "add",
            Self::OrSet => "add, remove, clear",
            Self::Flag => "enable, disable, clear",
            Self::List => "insert, delete, clear",
            Self::Map(_) => "clear; with a key: remove-key, and what the type under it has",
            Self::Ordered(_) => "none: events feed it",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Map(inner) => return write!(f, "map of {inner}"),
            Self::Ordered(Value::Null) => return f.write_str("ordered"),
            Self::Ordered(first) => return write!(f, "ordered from {first}"),
            _ => {}
        }
        let name = Self::PLAIN.iter().find(|(_, kind)| kind == self).map(|(name, _)| *name);
        f.write_str(name.expect("every plain type has a name"))
    }
}

impl FromStr for Kind {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let plain = |text: &str| Self::PLAIN.into_iter().find(|(name, _)| *name == text);
        if let Some(inner) = text.strip_prefix("map of ") {
            // Rights are counted by stream and field.
            let inner = plain(inner).filter(|(_, kind)| *kind != Self::BoundedCounter);
            return inner.map(|(_, kind)| Self::Map(Box::new(kind))).ok_or(());
        }
        if let Some(first) = text.strip_prefix("ordered from ") {
            let json: Json = serde_json::from_str(first).map_err(|_| ())?;
            return Value::from_json(&json).map(Self::Ordered).map_err(|_| ());
        }
        match text {
            "ordered" => Ok(Self::Ordered(Value::Null)),
            text => plain(text).map(|(_, kind)| kind).ok_or(()),
        }
    }
}

/// How the events of a category's streams become aggregates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// The category: the part of a stream's name before the first `-`.
    pub category: String,
    /// Rises with every change.
    pub version: u32,
    /// Fields by name.
    pub fields: BTreeMap<String, Kind>,
    /// The bounded counters among them for which no region asks another one for rights.
    pub own_rights: BTreeSet<String>,
    /// What events of a type do, in this order; then what those of [`ANY_TYPE`] do.
    pub on: BTreeMap<String, Vec<Statement>>,
}

/// Why a definition is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadDefinition {
    /// A part is missing, unknown, or of the wrong form.
    #[error("{at}: {problem}")]
    Form {
        /// Where in the definition.
        at: String,
        /// What is wrong there.
        problem: String,
    },
    /// There are too many of something, or it is too long.
    #[error("{at}: {actual}, at most {limit} are allowed")]
    Limit {
        /// Where in the definition.
        at: String,
        /// How many there are, and of what.
        actual: String,
        /// How many there may be.
        limit: usize,
    },
    /// Only bounded counters have rights.
    #[error("{at}: own-rights is for a bounded-counter, and not for a {kind}")]
    OwnRights {
        /// Where in the definition.
        at: String,
        /// What the field is.
        kind: Kind,
    },
    /// A statement cannot be read, or does not fit its field.
    #[error("on.{event}[{nth}], {text:?}: {source}")]
    Statement {
        /// The event type.
        event: String,
        /// Which of its statements, from 0.
        nth: usize,
        /// The statement.
        text: String,
        /// What is wrong with it.
        source: Box<BadStatement>,
    },
}

fn form(at: impl Into<String>, problem: impl Into<String>) -> BadDefinition {
    BadDefinition::Form { at: at.into(), problem: problem.into() }
}

fn at_most(at: &str, limit: usize, actual: usize, what: &str) -> Result<(), BadDefinition> {
    match actual <= limit {
        true => Ok(()),
        false => {
            let actual = format!("{actual} {what}");
            Err(BadDefinition::Limit { at: at.into(), actual, limit })
        }
    }
}

fn check_name(at: &str, name: &str) -> Result<(), BadDefinition> {
    at_most(at, NAME_BYTES, name.len(), "bytes in a name")?;
    match name.is_empty() || name.chars().any(char::is_control) {
        true => Err(form(at, "is empty or holds a control character")),
        false => Ok(()),
    }
}

impl Definition {
    /// The fields that are merged: all but the ordered ones.
    pub(super) fn merged(&self) -> impl Iterator<Item = (&String, &Kind)> {
        self.fields.iter().filter(|(_, kind)| !matches!(kind, Kind::Ordered(_)))
    }
    /// The ordered fields, and what each begins as.
    pub(super) fn ordered(&self) -> impl Iterator<Item = (&String, &Value)> {
        ordered(&self.fields)
    }
    /// Whether any field is ordered.
    pub fn has_ordered(&self) -> bool {
        self.ordered().next().is_some()
    }

    /// What events of a type do, in this order.
    pub(super) fn statements(&self, kind: &str) -> impl Iterator<Item = &Statement> {
        let of = |kind: &str| self.on.get(kind).map_or(&[][..], Vec::as_slice).iter();
        let carries_operations = kind == EVENT_TYPE || kind == rights::EVENT_TYPE;
        of(kind).chain(of(ANY_TYPE).filter(move |_| !carries_operations))
    }

    /// Reads a definition:
    /// `{"category": …, "version": …, "fields": {name: type}, "on": {event type: [statement]}}`.
    ///
    /// # Errors
    /// Any [`BadDefinition`].
    pub fn from_json(json: &Json) -> Result<Self, BadDefinition> {
        at_most("the definition", DEFINITION_BYTES, json.to_string().len(), "bytes")?;
        let object = json.as_object().ok_or_else(|| form("the definition", "is not an object"))?;
        if let Some(unknown) = object
            .keys()
            .find(|key| !["category", "version", "fields", "on"].contains(&key.as_str()))
        {
            return Err(form(unknown, "is no part of a definition: category, version, fields, on"));
        }
        let category = object.get("category").and_then(Json::as_str);
        let category = category.ok_or_else(|| form("category", "is missing, or not text"))?;
        check_name("category", category)?;
        if category.contains('-') || category.starts_with('$') {
            return Err(form(
                "category",
                "holds a '-', at which categories end, or begins with '$'",
            ));
        }
        let version = object.get("version").and_then(Json::as_u64);
        let version = version.and_then(|version| u32::try_from(version).ok()).filter(|v| *v > 0);
        let version = version.ok_or_else(|| form("version", "is not a whole number from 1 on"))?;
        let (fields, own_rights) = Self::fields_of(object)?;
        let on = Self::statements_of(object, &fields)?;
        Ok(Self { category: category.into(), version, fields, own_rights, on })
    }

    /// Their types, and which of them are [`own_rights`](Self::own_rights).
    fn fields_of(
        object: &Map<String, Json>,
    ) -> Result<(BTreeMap<String, Kind>, BTreeSet<String>), BadDefinition> {
        let fields = object.get("fields").and_then(Json::as_object);
        let fields = fields.ok_or_else(|| form("fields", "is missing, or not a table"))?;
        at_most("fields", FIELDS, fields.len(), "fields")?;
        let (mut kinds, mut own_rights) = (BTreeMap::new(), BTreeSet::new());
        for (name, kind) in fields {
            let at = format!("fields.{name}");
            check_name(&at, name)?;
            if !is_field_name(name) {
                return Err(form(at, "is no name: a letter, then letters, digits and _"));
            }
            let text = kind.as_str().ok_or_else(|| form(&at, "is not text"))?;
            let (typed, is_own) = match text.strip_suffix(OWN_RIGHTS) {
                Some(typed) => (typed, true),
                None => (text, false),
            };
            let kind = typed.parse().map_err(|()| {
                let names: Vec<_> = Kind::PLAIN.iter().map(|(name, _)| *name).collect();
                let names = names.join(", ");
                let others = "map of one of these but bounded-counter, ordered, or ordered from a \
                              value in JSON";
                form(&at, format!("{text:?} is no type: {names}, {others}"))
            })?;
            if matches!(kind, Kind::Ordered(_)) && RESERVED.contains(&name.as_str()) {
                return Err(form(at, "is a word of statements, so none could read the field"));
            }
            if is_own {
                if kind != Kind::BoundedCounter {
                    return Err(BadDefinition::OwnRights { at, kind });
                }
                own_rights.insert(name.clone());
            }
            kinds.insert(name.clone(), kind);
        }
        match kinds.is_empty() {
            true => Err(form("fields", "is empty")),
            false => Ok((kinds, own_rights)),
        }
    }

    fn statements_of(
        object: &Map<String, Json>,
        fields: &BTreeMap<String, Kind>,
    ) -> Result<BTreeMap<String, Vec<Statement>>, BadDefinition> {
        let mut on = BTreeMap::new();
        let Some(json) = object.get("on") else { return Ok(on) };
        let events = json.as_object().ok_or_else(|| form("on", "is not a table"))?;
        at_most("on", EVENT_TYPES, events.len(), "event types")?;
        for (event, statements) in events {
            let at = format!("on.{event}");
            check_name(&at, event)?;
            if event == EVENT_TYPE || event == rights::EVENT_TYPE {
                return Err(form(at, "is the type of events that carry operations"));
            }
            let list = statements.as_array().ok_or_else(|| form(&at, "is not an array"))?;
            at_most(&at, STATEMENTS, list.len(), "statements")?;
            let mut read = Vec::with_capacity(list.len());
            for (nth, text) in list.iter().enumerate() {
                let text =
                    text.as_str().ok_or_else(|| form(format!("{at}[{nth}]"), "is not text"))?;
                let bad = |source| BadDefinition::Statement {
                    event: event.clone(),
                    nth,
                    text: text.to_owned(),
                    source: Box::new(source),
                };
                read.push(Statement::parse(text, fields).map_err(bad)?);
            }
            on.insert(event.clone(), read);
        }
        Ok(on)
    }

    /// The type of a field, as it is written in a definition.
    pub fn type_of(&self, field: &str) -> Option<String> {
        let kind = self.fields.get(field)?;
        let behind = if self.own_rights.contains(field) { OWN_RIGHTS } else { "" };
        Some(format!("{kind}{behind}"))
    }

    /// The definition as JSON, always the same for the same definition.
    pub fn to_json(&self) -> Json {
        let fields = self.fields.keys().map(|name| (name.clone(), self.type_of(name).into()));
        let texts = |statements: &Vec<Statement>| -> Json {
            statements.iter().map(|statement| Json::from(statement.text())).collect()
        };
        let on = self.on.iter().map(|(event, statements)| (event.clone(), texts(statements)));
        serde_json::json!({
            "category": self.category,
            "version": self.version,
            "fields": fields.collect::<Map<_, _>>(),
            "on": on.collect::<Map<_, _>>(),
        })
    }
}

impl Declare for Definition {
    const CATEGORY: &'static str = "$definition";
    const EVENT_TYPE: &'static str = "DefinitionDeclared";
    const WHAT: &'static str = "definition";
    const LAST_COUNTS: Option<Bug> = Some(Bug::LastDefinitionCounts);
    type Bad = BadDefinition;

    fn from_json(json: &Json) -> Result<Self, BadDefinition> {
        Self::from_json(json)
    }
    fn to_json(&self) -> Json {
        self.to_json()
    }
    fn category(&self) -> &str {
        &self.category
    }
    fn version(&self) -> u32 {
        self.version
    }
}

/// The ordered ones among fields, and what each begins as.
pub(super) fn ordered(fields: &BTreeMap<String, Kind>) -> impl Iterator<Item = (&String, &Value)> {
    fields.iter().filter_map(|(name, kind)| match kind {
        Kind::Ordered(first) => Some((name, first)),
        _ => None,
    })
}

/// A letter, then letters, digits and `_`.
pub(super) fn is_field_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|first| first.is_ascii_alphabetic())
        && chars.all(|char| char.is_ascii_alphanumeric() || char == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Definition, BadDefinition> {
        Definition::from_json(&serde_json::from_str(text).unwrap())
    }

    #[test]
    fn definitions_come_back() {
        let definition = read(
            r#"{"category": "file", "version": 3,
                "fields": {"lines": "pn-counter", "by": "map of pn-counter", "authors": "or-set",
                           "state": "ordered from \"new\"", "last": "ordered", "high": "ordered from -1"},
                "on": {"FileChanged": ["lines += $.added - $.deleted", "authors add $.author",
                                       "by[$.author] += 1 when $.added > 0",
                                       "last = $.author", "high = max(high, $.added)"]}}"#,
        )
        .unwrap();
        assert_eq!(definition.fields["state"], Kind::Ordered("new".into()));
        assert_eq!(definition.to_json()["fields"]["last"], "ordered");
        assert_eq!(Definition::from_json(&definition.to_json()), Ok(definition));
    }

    #[test]
    fn a_bounded_counter_may_keep_to_the_rights_that_a_region_holds() {
        // As versions before wrote it: it means the same, and is written the same.
        let before =
            r#"{"category":"c","fields":{"a":"bounded-counter","b":"max"},"on":{},"version":1}"#;
        let definition = read(before).unwrap();
        assert!(definition.own_rights.is_empty());
        assert_eq!(definition.to_json().to_string(), before);

        let said = before.replace("bounded-counter", "bounded-counter, own-rights");
        let own = read(&said).unwrap();
        assert_eq!((&own.fields, own.own_rights.contains("a")), (&definition.fields, true));
        assert_eq!(own.to_json().to_string(), said);
        assert_ne!(own, definition);

        let with_b = |kind: Json| {
            let mut json = definition.to_json();
            json["fields"]["b"] = kind;
            Definition::from_json(&json).unwrap_err()
        };
        let (at, kind) = ("fields.b".to_owned(), Kind::PnCounter);
        let error = with_b("pn-counter, own-rights".into());
        assert_eq!(error, BadDefinition::OwnRights { at: at.clone(), kind });
        assert_eq!(
            error.to_string(),
            "fields.b: own-rights is for a bounded-counter, and not for a pn-counter"
        );
        let kind = Kind::Ordered("x, own-rights".into());
        let error = with_b(r#"ordered from "x, own-rights", own-rights"#.into());
        assert_eq!(error, BadDefinition::OwnRights { at, kind });
        for text in ["bounded-counter, own-rights, own-rights", "bounded-counter,own-rights"] {
            assert!(with_b(text.into()).to_string().contains("is no type"), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let with = |fields: &str, on: &str| {
            format!(r#"{{"category":"c","version":1,"fields":{fields},"on":{on}}}"#)
        };
        for (text, wanted) in [
            ("[]".into(), "the definition: is not an object"),
            (r#"{"category":"a-b","version":1,"fields":{}}"#.into(), "category: holds a '-'"),
            (
                r#"{"category":"a","version":0,"fields":{}}"#.into(),
                "version: is not a whole number",
            ),
            (r#"{"category":"a","version":1,"feilds":{}}"#.into(), "feilds: is no part"),
            (with("{}", "{}"), "fields: is empty"),
            (with(r#"{"a":"counter"}"#, "{}"), r#"fields.a: "counter" is no type: g-counter"#),
            (with(r#"{"a b":"max"}"#, "{}"), "fields.a b: is no name"),
            (with(r#"{"a":"map of map of max"}"#, "{}"), "is no type"),
            (with(r#"{"a":"map of bounded-counter"}"#, "{}"), "is no type"),
            (
                with(r#"{"a":"bounded-counter"}"#, r#"{"E":["a -= 1"]}"#),
                "field a is a bounded-counter, which has no \"increment\"",
            ),
            (with(r#"{"a":"max"}"#, r#"{"$rights":[]}"#), "carry operations"),
            (
                with(r#"{"a":"max"}"#, r#"{"E":["b += 1"]}"#),
                r#"on.E[0], "b += 1": there is no field"#,
            ),
            (
                with(r#"{"a":"max"}"#, r#"{"E":["a += 1"]}"#),
                "field a is a max, which has no \"increment\"",
            ),
            (with(r#"{"a":"max"}"#, r#"{"$operations":[]}"#), "carry operations"),
            (with(r#"{"a":"ordered from x"}"#, "{}"), r#""ordered from x" is no type"#),
            (with(r#"{"a":"map of ordered"}"#, "{}"), "is no type"),
            (with(r#"{"not":"ordered"}"#, "{}"), "fields.not: is a word of statements"),
            (
                with(r#"{"a":"max","o":"ordered"}"#, r#"{"E":["o = 1","a offer o"]}"#),
                r#"on.E[1], "a offer o": field a is a max and cannot read o, which is ordered"#,
            ),
            (
                with(r#"{"a":"max","o":"ordered"}"#, r#"{"*":["o = a"]}"#),
                "field o is ordered and cannot read a, which is a max",
            ),
        ] {
            let error = read(&text).unwrap_err().to_string();
            assert!(error.contains(wanted), "{text}: {error}");
        }
        let many: Vec<_> = (0..=FIELDS).map(|n| format!(r#""f{n}":"max""#)).collect();
        let error = read(&with(&format!("{{{}}}", many.join(",")), "{}")).unwrap_err();
        assert_eq!(error.to_string(), "fields: 65 fields, at most 64 are allowed");
    }
}
