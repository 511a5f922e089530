//! Operations: what is done to a field, as JSON in an event.

use serde_json::{Map, Value as Json};

use super::definition::{Definition, Kind, NoSuchPlace};
use super::list::ElementId;
use super::value::{VALUE_BYTES, Value};
use crate::codec::Reader;
use crate::context::Context;
use crate::id::RegionName;
use crate::rights;

/// Type of the events that carry operations.
pub const EVENT_TYPE: &str = "$operations";
/// Operations in one event.
pub const OPERATIONS: usize = 1000;

/// What is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Counters: add this much, or take it away.
    Increment(i64),
    /// Bounded counters: add this much, and the right to take as much away.
    Earn(u64),
    /// Bounded counters: take this much away, out of the region's rights.
    Spend(u64),
    /// Bounded counters: give another region this much of the region's rights.
    Pass {
        /// How much.
        amount: u64,
        /// To whom.
        to: RegionName,
    },
    /// Registers: put this in the place of what was seen.
    Set(Value),
    /// `max`, `min`: take it if it is larger, smaller.
    Offer(Value),
    /// Sets: add a member.
    Add(Value),
    /// `or-set`: remove a member.
    Remove(Value),
    /// Flags: raise it.
    Enable,
    /// Flags: lower it.
    Disable,
    /// Lists: put an element between two others; without one of them, at that end of the list.
    Insert {
        /// The element that it comes after.
        after: Option<ElementId>,
        /// The element that it comes before.
        before: Option<ElementId>,
        /// What is inserted.
        value: Value,
    },
    /// Lists: delete an element.
    Delete(ElementId),
    /// Maps: remove the key and what is under it.
    RemoveKey,
    /// Every field: as if it had never been written.
    Clear,
}

impl Action {
    /// Its name in events and messages.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Increment(_) => "increment",
            Self::Earn(_) => "earn",
            Self::Spend(_) => "spend",
            Self::Pass { .. } => "pass",
            Self::Set(_) => "set",
            Self::Offer(_) => "offer",
            Self::Add(_) => "add",
            Self::Remove(_) => "remove",
            Self::Enable => "enable",
            Self::Disable => "disable",
            Self::Insert { .. } => "insert",
            Self::Delete(_) => "delete",
            Self::RemoveKey => "remove-key",
            Self::Clear => "clear",
        }
    }
}

impl Action {
    /// Whether it changes the rights to a bounded counter.
    pub fn is_about_rights(&self) -> bool {
        matches!(self, Self::Earn(_) | Self::Spend(_) | Self::Pass { .. })
    }
}

/// An action on a field, or on what is under a key of a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Name of the field.
    pub field: String,
    /// Key, if the field is a map.
    pub key: Option<Box<str>>,
    /// What is done.
    pub action: Action,
}

/// Why an operation cannot be done. The same in every region.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadOperation {
    /// The payload is not JSON of the form that operations have.
    #[error("operation {nth}: {problem}")]
    Form {
        /// Which of the event's operations, from 0.
        nth: usize,
        /// What is wrong.
        problem: String,
    },
    /// There is no such field.
    #[error("field {field:?} is not in the definition of {category:?}, which has {fields}")]
    NoField {
        /// The field named.
        field: String,
        /// The aggregate's category.
        category: String,
        /// The fields there are.
        fields: String,
    },
    /// The field's type has no such operation.
    #[error("field {field:?} is a {kind}, which has no {action:?}; it has {has}")]
    WrongAction {
        /// The field named.
        field: String,
        /// Its type.
        kind: String,
        /// The operation asked for.
        action: &'static str,
        /// The operations of the type.
        has: &'static str,
    },
    /// No operation is for an ordered field.
    #[error(
        "field {field:?} is ordered: the stream's events feed it, by the statements of the definition, \
         and no operation does"
    )]
    Ordered {
        /// The field named.
        field: String,
    },
    /// A map needs a key for that; other fields have none.
    #[error("field {field:?} is a {kind}: {problem}")]
    Key {
        /// The field named.
        field: String,
        /// Its type.
        kind: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// Rights to bounded counters are changed by events of their own type, and only rights are.
    #[error("operation {action:?} on field {field:?} belongs in an event of type {belongs}")]
    Elsewhere {
        /// The field named.
        field: String,
        /// The operation.
        action: &'static str,
        /// The type of event that carries it.
        belongs: &'static str,
    },
    /// The elements of a list are not in the order in which they are named.
    #[error("field {field:?}: the element to come after is not before the element to come before")]
    Order {
        /// The field named.
        field: String,
    },
}

impl Operation {
    /// Whether the definition has the field, and its type the action.
    ///
    /// # Errors
    /// Any [`BadOperation`] but those of form.
    pub fn check(&self, definition: &Definition) -> Result<(), BadOperation> {
        let Some(kind) = definition.fields.get(&self.field) else {
            let fields = definition.fields.keys().map(String::as_str).collect::<Vec<_>>();
            let (field, category) = (self.field.clone(), definition.category.clone());
            return Err(BadOperation::NoField { field, category, fields: fields.join(", ") });
        };
        if let Kind::Ordered(_) = kind {
            return Err(BadOperation::Ordered { field: self.field.clone() });
        }
        let key = |problem| {
            Err(BadOperation::Key { field: self.field.clone(), kind: kind.to_string(), problem })
        };
        let inner = match kind.reached(self.key.is_some(), &self.action) {
            Ok(Some(inner)) => inner,
            Ok(None) => return Ok(()),
            Err(NoSuchPlace::KeyMissing) => return key("name the key"),
            Err(NoSuchPlace::NoKeys) => return key("only maps have keys"),
        };
        if !inner.admits(&self.action) {
            return Err(BadOperation::WrongAction {
                field: self.field.clone(),
                kind: kind.to_string(),
                action: self.action.name(),
                has: inner.actions(),
            });
        }
        match &self.action {
            Action::Insert { after: Some(after), before: Some(before), .. } if after >= before => {
                Err(BadOperation::Order { field: self.field.clone() })
            }
            _ => Ok(()),
        }
    }

    /// As [`check`](Self::check), in an event of type [`EVENT_TYPE`].
    pub(super) fn check_plain(&self, definition: &Definition) -> Result<(), BadOperation> {
        self.check(definition)?;
        self.check_place(!self.action.is_about_rights(), rights::EVENT_TYPE)
    }

    /// As [`check`](Self::check), in an event of type [`rights::EVENT_TYPE`].
    pub(super) fn check_rights(&self, definition: &Definition) -> Result<(), BadOperation> {
        self.check(definition)?;
        self.check_place(self.action.is_about_rights(), EVENT_TYPE)
    }

    fn check_place(&self, is_right: bool, belongs: &'static str) -> Result<(), BadOperation> {
        match is_right {
            true => Ok(()),
            false => {
                let (field, action) = (self.field.clone(), self.action.name());
                Err(BadOperation::Elsewhere { field, action, belongs })
            }
        }
    }

    fn to_json(&self) -> Json {
        let mut json = Map::new();
        json.insert("field".into(), self.field.clone().into());
        json.insert("do".into(), self.action.name().into());
        if let Some(key) = &self.key {
            json.insert("key".into(), (&**key).into());
        }
        match &self.action {
            Action::Increment(by) => drop(json.insert("by".into(), (*by).into())),
            Action::Earn(by) | Action::Spend(by) => drop(json.insert("by".into(), (*by).into())),
            Action::Pass { amount, to } => {
                json.insert("by".into(), (*amount).into());
                json.insert("to".into(), to.as_str().into());
            }
            Action::Set(value)
            | Action::Offer(value)
            | Action::Add(value)
            | Action::Remove(value) => {
                json.insert("value".into(), value.to_json());
            }
            Action::Insert { after, before, value } => {
                json.insert("value".into(), value.to_json());
                for (name, id) in [("after", after), ("before", before)] {
                    if let Some(id) = id {
                        json.insert(name.into(), id.to_string().into());
                    }
                }
            }
            Action::Delete(id) => drop(json.insert("element".into(), id.to_string().into())),
            Action::Enable | Action::Disable | Action::RemoveKey | Action::Clear => {}
        }
        Json::Object(json)
    }

    /// Reads one operation: `{"field": "lines", "do": "increment", "by": 3}`.
    ///
    /// # Errors
    /// What is wrong with its form.
    pub fn from_json(json: &Json) -> Result<Self, String> {
        let json = json.as_object().ok_or("is not an object")?;
        let text = |name: &str| match json.get(name) {
            None => Ok(None),
            Some(Json::String(text)) => Ok(Some(text.as_str())),
            Some(_) => Err(format!("{name} is not text")),
        };
        let value = || {
            let value = json.get("value").ok_or("value is missing")?;
            Value::from_json(value).map_err(|error| error.to_string())
        };
        let element = |name: &str| match text(name)? {
            None => Ok(None),
            Some(id) => {
                id.parse::<ElementId>().map(Some).map_err(|error| format!("{name} {error}"))
            }
        };
        let amount = || {
            let by = json.get("by").and_then(Json::as_u64);
            by.filter(|by| *by <= i64::MAX as u64)
                .ok_or("by is not a whole number from 0 to 2^63 - 1")
        };
        let action = match text("do")?.ok_or("do is missing")? {
            "increment" => Action::Increment(
                json.get("by").map_or(Some(1), Json::as_i64).ok_or("by is not a whole number")?,
            ),
            "earn" => Action::Earn(amount()?),
            "spend" => Action::Spend(amount()?),
            "pass" => {
                let to = text("to")?.ok_or("to is missing")?;
                let to = to.parse::<RegionName>().map_err(|error| error.to_string())?;
                Action::Pass { amount: amount()?, to }
            }
            "set" => Action::Set(value()?),
            "offer" => Action::Offer(value()?),
            "add" => Action::Add(value()?),
            "remove" => Action::Remove(value()?),
            "enable" => Action::Enable,
            "disable" => Action::Disable,
            "insert" => Action::Insert {
                after: element("after")?,
                before: element("before")?,
                value: value()?,
            },
            "delete" => Action::Delete(element("element")?.ok_or("element is missing")?),
            "remove-key" => Action::RemoveKey,
            "clear" => Action::Clear,
            other => return Err(format!("{other:?} is no operation")),
        };
        const KNOWN: [&str; 9] =
            ["field", "do", "key", "by", "to", "value", "after", "before", "element"];
        if let Some(unknown) = json.keys().find(|name| !KNOWN.contains(&name.as_str())) {
            return Err(format!("{unknown:?} is no part of an operation"));
        }
        let field = text("field")?.ok_or("field is missing")?.to_owned();
        let key = text("key")?;
        if key.is_some_and(|key| key.len() > VALUE_BYTES) {
            return Err(format!("key has more than {VALUE_BYTES} bytes"));
        }
        Ok(Self { field, key: key.map(Into::into), action })
    }
}

/// The payload of an event of type [`EVENT_TYPE`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Operations {
    /// At least one.
    pub operations: Vec<Operation>,
    /// What the client had seen; nothing: what its region held.
    pub observed: Option<Context>,
}

impl Operations {
    /// The payload, JSON.
    pub fn to_json(&self) -> String {
        let mut json = Map::new();
        json.insert("do".into(), self.operations.iter().map(Operation::to_json).collect());
        if let Some(observed) = &self.observed {
            json.insert("observed".into(), hex_of_context(observed).into());
        }
        Json::Object(json).to_string()
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// [`BadOperation::Form`].
    pub fn from_json(payload: &[u8]) -> Result<Self, BadOperation> {
        let bad = |nth, problem: &str| BadOperation::Form { nth, problem: problem.to_owned() };
        let json: Json =
            serde_json::from_slice(payload).map_err(|error| bad(0, &error.to_string()))?;
        let list = json.get("do").and_then(Json::as_array);
        let list = list.ok_or_else(|| bad(0, "the payload has no array named do"))?;
        if list.is_empty() || list.len() > OPERATIONS {
            return Err(bad(0, &format!("{} operations instead of 1 to {OPERATIONS}", list.len())));
        }
        let operations = list.iter().enumerate();
        let operations = operations
            .map(|(nth, json)| Operation::from_json(json).map_err(|problem| bad(nth, &problem)))
            .collect::<Result<_, _>>()?;
        let observed = match json.get("observed") {
            None => None,
            Some(hex) => {
                let context = hex.as_str().and_then(context_of_hex);
                Some(context.ok_or_else(|| bad(0, "observed is no context"))?)
            }
        };
        Ok(Self { operations, observed })
    }
}

/// A context as text.
pub(crate) fn hex_of_context(context: &Context) -> String {
    let mut bytes = Vec::new();
    context.encode(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A context from the text that [`hex_of_context`] made.
pub(crate) fn context_of_hex(hex: &str) -> Option<Context> {
    let digits = hex.as_bytes().chunks(2);
    let byte = |two: &[u8]| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok();
    let bytes: Vec<u8> = digits.map(byte).collect::<Option<_>>()?;
    let mut reader = Reader::new(bytes.into());
    let context = Context::decode(&mut reader).ok()?;
    reader.finish("context").ok()?;
    Some(context)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::cut;

    fn whole(text: &str) -> Result<Operations, BadOperation> {
        Operations::from_json(text.as_bytes())
    }

    #[test]
    fn operations_come_back() {
        let operation = |key: Option<&str>, action| Operation {
            field: "f".into(),
            key: key.map(Into::into),
            action,
        };
        let operations = vec![
            operation(None, Action::Increment(-3)),
            operation(Some("k"), Action::Set(Value::from("x"))),
            operation(None, Action::Offer(Value::Int(7))),
            operation(None, Action::Earn(7)),
            operation(None, Action::Spend(0)),
            operation(None, Action::Pass { amount: 7, to: "eu".parse().unwrap() }),
            operation(None, Action::Add(Value::Null)),
            operation(None, Action::Remove(Value::Bool(true))),
            operation(None, Action::Enable),
            operation(None, Action::Disable),
            operation(
                None,
                Action::Insert {
                    after: Some("-1/2@ff.0;3@1.2".parse().unwrap()),
                    before: None,
                    value: Value::from("v"),
                },
            ),
            operation(None, Action::Delete("0@a.1".parse().unwrap())),
            operation(Some("k"), Action::RemoveKey),
            operation(None, Action::Clear),
        ];
        let observed = Some(cut(&[("eu", 3), ("us", 9)]));
        let operations = Operations { operations, observed };
        assert_eq!(whole(&operations.to_json()), Ok(operations));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, wanted) in [
            ("[]", "no array named do"),
            (r#"{"do":[]}"#, "0 operations instead of 1 to 1000"),
            (r#"{"do":[{"field":"a","do":"grow"}]}"#, r#"operation 0: "grow" is no operation"#),
            (r#"{"do":[{"do":"clear"}]}"#, "field is missing"),
            (r#"{"do":[{"field":"a","do":"increment","by":1.5}]}"#, "by is not a whole number"),
            (r#"{"do":[{"field":"a","do":"clear","vaule":1}]}"#, r#""vaule" is no part"#),
            (
                r#"{"do":[{"field":"a","do":"delete","element":"1/0@1.1"}]}"#,
                "element is not the id",
            ),
            (r#"{"do":[{"field":"a","do":"clear"}],"observed":"0g"}"#, "observed is no context"),
        ] {
            let error = whole(text).unwrap_err().to_string();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }
}
