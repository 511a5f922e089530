//! Ordered fields: read here, changed by the events of the stream.

use serde_json::Value as Json;

use super::{Aggregate, AggregateRef};
use crate::error::ReadError;

/// A field of type `ordered`, to be read.
#[derive(Clone)]
pub struct OrderedField {
    of: AggregateRef,
    name: String,
}

/// What an ordered field holds.
#[derive(Debug, Clone, PartialEq)]
pub struct OrderedValue {
    /// Over the events that are final: the same in every region that has come as far. Nothing can come
    /// before them any more.
    pub settled: Json,
    /// Over all events that the node holds. May be another one once an event that comes before some of
    /// them has arrived.
    pub tentative: Json,
}

impl OrderedField {
    pub(super) fn new(of: AggregateRef, name: &str) -> Self {
        Self { of, name: name.to_owned() }
    }

    /// What it holds now.
    ///
    /// # Errors
    /// As [`AggregateRef::get`]; [`ReadError::Invalid`] if there is no such field, or it is not ordered.
    pub async fn value(&self) -> Result<OrderedValue, ReadError> {
        self.of.get().await?.ordered(&self.name)
    }
    /// What it holds as of the final part of the global order.
    ///
    /// # Errors
    /// As [`AggregateRef::get_final`]; [`ReadError::Invalid`] if there is no such field, or it is not
    /// ordered.
    pub async fn settled(&self) -> Result<Json, ReadError> {
        Ok(self.of.get_final().await?.ordered(&self.name)?.settled)
    }
}

impl Aggregate {
    /// An ordered field that the definition should have. Of a final aggregate, both values are the settled
    /// one.
    ///
    /// # Errors
    /// [`ReadError::Invalid`] if there is no such field, or it is not ordered.
    pub fn ordered(&self, name: &str) -> Result<OrderedValue, ReadError> {
        let value = self.field(name)?;
        let settled = value.get("settled").filter(|_| self.ordered.is_some());
        let settled = settled.ok_or_else(|| ReadError::Invalid {
            field: name.to_owned(),
            problem: "is not ordered".to_owned(),
        })?;
        let tentative = value.get("tentative").unwrap_or(settled).clone();
        Ok(OrderedValue { settled: settled.clone(), tentative })
    }
}
