//! Operations, as JSON that nodes check.

use std::fmt;

use serde_json::{Map, Value as Json};

/// Something to be done to a field of an aggregate. Nodes check whether the field can do it.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation(Map<String, Json>);

impl Operation {
    /// An operation of the form in `docs/aggregates.md`, as it is.
    pub fn from_json(json: Map<String, Json>) -> Self {
        Self(json)
    }

    /// Counters: adds `by`, or takes it away if it is below zero. From a bounded counter, a region takes no
    /// more than its rights: [`AppendError::RightsShort`](crate::AppendError::RightsShort).
    pub fn increment(field: impl Into<String>, by: i64) -> Self {
        Self::new(field, "increment").with("by", by)
    }
    /// Bounded counters: gives `amount` of this region's rights to the region `to`.
    pub fn pass(field: impl Into<String>, amount: u64, to: impl Into<String>) -> Self {
        Self::new(field, "pass").with("by", amount).with("to", to.into())
    }
    /// Registers: puts `value` in the place of what was seen.
    pub fn set(field: impl Into<String>, value: impl Into<Json>) -> Self {
        Self::new(field, "set").with("value", value)
    }
    /// `max` and `min`: takes `value` if it is larger, smaller.
    pub fn offer(field: impl Into<String>, value: impl Into<Json>) -> Self {
        Self::new(field, "offer").with("value", value)
    }
    /// Sets: adds a member.
    pub fn add(field: impl Into<String>, value: impl Into<Json>) -> Self {
        Self::new(field, "add").with("value", value)
    }
    /// `or-set`: removes a member.
    pub fn remove(field: impl Into<String>, value: impl Into<Json>) -> Self {
        Self::new(field, "remove").with("value", value)
    }
    /// Flags: raises it.
    pub fn enable(field: impl Into<String>) -> Self {
        Self::new(field, "enable")
    }
    /// Flags: lowers it.
    pub fn disable(field: impl Into<String>) -> Self {
        Self::new(field, "disable")
    }
    /// Lists: puts `value` at the end.
    pub fn push(field: impl Into<String>, value: impl Into<Json>) -> Self {
        Self::new(field, "insert").with("value", value)
    }
    /// Lists: puts `value` before the element that is number `at` now, from 0. The number is looked up
    /// once, when the operation is prepared, and for each operation in the list as it was before all.
    pub fn insert(field: impl Into<String>, at: u64, value: impl Into<Json>) -> Self {
        Self::new(field, "insert").with("value", value).with("at", at)
    }
    /// Lists: deletes the element that is number `at` now, from 0; see [`insert`](Self::insert).
    pub fn delete(field: impl Into<String>, at: u64) -> Self {
        Self::new(field, "delete").with("at", at)
    }
    /// Lists: deletes the element of this id, whatever its place.
    pub fn delete_element(field: impl Into<String>, id: impl Into<String>) -> Self {
        Self::new(field, "delete").with("element", id.into())
    }
    /// Maps: removes `key` and what is under it.
    pub fn remove_key(field: impl Into<String>, key: impl Into<String>) -> Self {
        Self::new(field, "remove-key").key(key)
    }
    /// Any field that can shrink: as if it had never been written.
    pub fn clear(field: impl Into<String>) -> Self {
        Self::new(field, "clear")
    }

    /// Maps: does it to what is under `key`.
    pub fn key(self, key: impl Into<String>) -> Self {
        self.with("key", key.into())
    }

    fn new(field: impl Into<String>, does: &str) -> Self {
        Self(Map::new()).with("field", field.into()).with("do", does)
    }
    fn with(mut self, name: &str, value: impl Into<Json>) -> Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }
}

/// The JSON that is sent.
impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = serde_json::to_string(&self.0).map_err(|_| fmt::Error)?;
        f.write_str(&text)
    }
}
