//! One field of an aggregate, with what its type can do.

use std::marker::PhantomData;

use serde_json::{Map as JsonMap, Value as Json};

use super::{AggregateRef, Operate, Operation};
use crate::error::ReadError;

/// Type `g-counter` or `pn-counter`.
#[derive(Debug, Clone, Copy)]
pub enum Counter {}
/// Type `max` or `min`.
#[derive(Debug, Clone, Copy)]
pub enum Best {}
/// Type `lww-register` or `mv-register`.
#[derive(Debug, Clone, Copy)]
pub enum Register {}
/// Type `g-set` or `or-set`.
#[derive(Debug, Clone, Copy)]
pub enum Set {}
/// Type `flag`.
#[derive(Debug, Clone, Copy)]
pub enum Flag {}
/// Type `list`.
#[derive(Debug, Clone, Copy)]
pub enum List {}
/// Type `map of …`, as a whole.
#[derive(Debug, Clone, Copy)]
pub enum Map {}

/// One field of an aggregate, or what is under one key of it. Whether it is of type `K`, nodes know:
/// an operation that it does not have is refused, and a read of something else is an error.
#[derive(Clone)]
pub struct Field<K> {
    of: AggregateRef,
    name: String,
    key: Option<String>,
    kind: PhantomData<K>,
}

/// An element of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Element {
    /// Names it, wherever it is in the list: for [`Field::delete_element`].
    pub id: String,
    /// What was inserted.
    pub value: Json,
}

impl<K> Field<K> {
    pub(super) fn new(of: AggregateRef, name: &str) -> Self {
        Self { of, name: name.to_owned(), key: None, kind: PhantomData }
    }
    /// What is under `key`, if the field is a map of this type.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }
    /// As if it had never been written, as far as its region knows. Fields that only grow have no such.
    pub fn clear(&self) -> Operate {
        self.operate(Operation::clear(&self.name))
    }

    fn operate(&self, operation: Operation) -> Operate {
        let operation = match &self.key {
            None => operation,
            Some(key) => operation.key(key),
        };
        self.of.operate([operation])
    }
    /// None: there is nothing under the key.
    async fn read(&self) -> Result<Option<Json>, ReadError> {
        let mut aggregate = self.of.get().await?;
        aggregate.field(&self.name)?;
        let value = aggregate.value.remove(&self.name);
        match &self.key {
            None => Ok(value),
            Some(key) => match value {
                Some(Json::Object(mut entries)) => Ok(entries.remove(key)),
                value => Err(self.is_no("map", &value.unwrap_or_default())),
            },
        }
    }
    fn is_no(&self, kind: &str, value: &Json) -> ReadError {
        let held = match value {
            Json::Null => "nothing",
            Json::Bool(_) => "a truth value",
            Json::Number(_) => "a number",
            Json::String(_) => "text",
            Json::Array(_) => "an array",
            Json::Object(_) => "an object",
        };
        ReadError::Invalid {
            field: self.name.clone(),
            problem: format!("is no {kind}: it holds {held}"),
        }
    }
    async fn array(&self, kind: &str) -> Result<Vec<Json>, ReadError> {
        match self.read().await? {
            None => Ok(Vec::new()),
            Some(Json::Array(members)) => Ok(members),
            Some(other) => Err(self.is_no(kind, &other)),
        }
    }
}

impl Field<Counter> {
    /// Adds `by`, or takes it away if it is below zero.
    pub fn add(&self, by: i64) -> Operate {
        self.operate(Operation::increment(&self.name, by))
    }
    /// The sum.
    ///
    /// # Errors
    /// As [`AggregateRef::get`]; [`ReadError::Invalid`] if there is no such field, or it is no counter.
    pub async fn value(&self) -> Result<i128, ReadError> {
        match self.read().await? {
            None => Ok(0),
            // What does not fit into a JSON number is text.
            Some(value) => {
                let sum = value.as_i64().map(i128::from);
                let sum = sum.or_else(|| value.as_str().and_then(|text| text.parse().ok()));
                sum.ok_or_else(|| self.is_no("counter", &value))
            }
        }
    }
}

impl Field<Best> {
    /// Takes `value` if it is better than what is there.
    pub fn offer(&self, value: impl Into<Json>) -> Operate {
        self.operate(Operation::offer(&self.name, value))
    }
    /// The best of what was offered; null before.
    ///
    /// # Errors
    /// As [`AggregateRef::get`]; [`ReadError::Invalid`] if there is no such field.
    pub async fn value(&self) -> Result<Json, ReadError> {
        Ok(self.read().await?.unwrap_or_default())
    }
}

impl Field<Register> {
    /// Puts `value` in the place of what was seen.
    pub fn set(&self, value: impl Into<Json>) -> Operate {
        self.operate(Operation::set(&self.name, value))
    }
    /// What was written last; null before. Of an `mv-register`: an array of what was written last,
    /// several if they were written without knowing of each other.
    ///
    /// # Errors
    /// As [`AggregateRef::get`]; [`ReadError::Invalid`] if there is no such field.
    pub async fn value(&self) -> Result<Json, ReadError> {
        Ok(self.read().await?.unwrap_or_default())
    }
}

impl Field<Set> {
    /// Adds a member.
    pub fn add(&self, value: impl Into<Json>) -> Operate {
        self.operate(Operation::add(&self.name, value))
    }
    /// Removes a member. Who adds it at the same time, wins.
    pub fn remove(&self, value: impl Into<Json>) -> Operate {
        self.operate(Operation::remove(&self.name, value))
    }
    /// The members, sorted: null, truth values, whole numbers, texts, anything else.
    ///
    /// # Errors
    /// As [`AggregateRef::get`]; [`ReadError::Invalid`] if there is no such field, or it is no set.
    pub async fn members(&self) -> Result<Vec<Json>, ReadError> {
        self.array("set").await
    }
}

impl Field<Flag> {
    /// Raises it.
    pub fn enable(&self) -> Operate {
        self.operate(Operation::enable(&self.name))
    }
    /// Lowers it. Who raises it at the same time, wins.
    pub fn disable(&self) -> Operate {
        self.operate(Operation::disable(&self.name))
    }
    /// Whether it is raised.
    ///
    /// # Errors
    /// As [`AggregateRef::get`]; [`ReadError::Invalid`] if there is no such field, or it is no flag.
    pub async fn is_up(&self) -> Result<bool, ReadError> {
        let value = self.read().await?.unwrap_or(Json::Bool(false));
        value.as_bool().ok_or_else(|| self.is_no("flag", &value))
    }
}

impl Field<List> {
    /// Puts `value` at the end.
    pub fn push(&self, value: impl Into<Json>) -> Operate {
        self.operate(Operation::push(&self.name, value))
    }
    /// Puts `value` before the element that is number `at` now, from 0.
    pub fn insert(&self, at: u64, value: impl Into<Json>) -> Operate {
        self.operate(Operation::insert(&self.name, at, value))
    }
    /// Deletes the element that is number `at` now, from 0.
    pub fn delete(&self, at: u64) -> Operate {
        self.operate(Operation::delete(&self.name, at))
    }
    /// Deletes an element, whatever its place is by then.
    pub fn delete_element(&self, id: impl Into<String>) -> Operate {
        self.operate(Operation::delete_element(&self.name, id))
    }
    /// The elements, in order.
    ///
    /// # Errors
    /// As [`AggregateRef::get`]; [`ReadError::Invalid`] if there is no such field, or it is no list.
    pub async fn elements(&self) -> Result<Vec<Element>, ReadError> {
        let element = |json: Json| {
            let id = json.get("id").and_then(Json::as_str).map(str::to_owned);
            match (id, json.get("value")) {
                (Some(id), Some(value)) => Ok(Element { id, value: value.clone() }),
                _ => Err(self.is_no("list", &json)),
            }
        };
        self.array("list").await?.into_iter().map(element).collect()
    }
    /// What was inserted, in order.
    ///
    /// # Errors
    /// As [`elements`](Self::elements).
    pub async fn values(&self) -> Result<Vec<Json>, ReadError> {
        Ok(self.elements().await?.into_iter().map(|element| element.value).collect())
    }
}

impl Field<Map> {
    /// Removes `key` and what is under it. Who writes there at the same time, keeps what it wrote.
    pub fn remove_key(&self, key: impl Into<String>) -> Operate {
        self.operate(Operation::remove_key(&self.name, key))
    }
    /// What is under each key.
    ///
    /// # Errors
    /// As [`AggregateRef::get`]; [`ReadError::Invalid`] if there is no such field, or it is no map.
    pub async fn entries(&self) -> Result<JsonMap<String, Json>, ReadError> {
        match self.read().await?.unwrap_or_default() {
            Json::Object(entries) => Ok(entries),
            other => Err(self.is_no("map", &other)),
        }
    }
}
