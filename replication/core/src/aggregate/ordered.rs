//! Ordered fields: for rules that are no merge, such as *a withdrawal counts only if the money is
//! there*.
//!
//! They are folded from the events of the stream one after the other, in the order of (stamp, origin,
//! seq), which is the global order. So nothing about them needs to merge, and a statement may look at
//! what was there before. What is folded from a part of the order to which nothing can be added in
//! front is *settled*; folding on, over what is held beyond it, is *tentative*: an event that is still
//! on its way may come before.
//!
//! All statements of an event see the fields as they were before it. So conditions that exclude each
//! other do so whichever is written first, and one event moves a state by one step.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use super::definition::Definition;
use super::repeats::Repeats;
use super::statement::{BadPayload, Change, Statement};
use super::tag::{Loader, Origins, Writer};
use super::value::Value;
use super::{BadEvent, Input};
use crate::codec::{DecodeError, Put, Reader};
use crate::context::Context;
use crate::event::EventId;

const VERSION: u8 = 1;

/// The ordered fields of one stream's aggregate, under one definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ordered {
    /// In the order of the definition's ordered fields.
    values: Vec<Value>,
    repeats: Repeats,
    events: u64,
    bad: u64,
}

impl Ordered {
    /// The ordered fields of a stream without events.
    pub fn new(definition: &Definition) -> Self {
        let values = definition.ordered().map(|(_, first)| first.clone()).collect();
        Self { values, repeats: Repeats::default(), events: 0, bad: 0 }
    }

    /// Takes the next event of the stream in, in the order of (stamp, origin, seq). `stable` is a cut
    /// that every region held before it made any event that is still to come in this order.
    ///
    /// An event does all that it is to do, or nothing. One whose request was taken in already, from
    /// another region that did not know of it, does nothing.
    ///
    /// # Errors
    /// [`BadEvent`]; the event is counted, and left out.
    pub fn apply(
        &mut self,
        definition: &Definition,
        input: &Input<'_>,
        stable: &Context,
        origins: &mut Origins,
    ) -> Result<(), BadEvent> {
        self.events += 1;
        // Operations are for what is merged.
        let statements = definition.statements(input.kind);
        let mut statements = statements.filter(|of| of.ordered().is_some()).peekable();
        if statements.peek().is_none() || self.is_repeat(input, stable, origins) {
            return Ok(());
        }
        let changed = changed(&self.values, statements, input).inspect_err(|_| self.bad += 1)?;
        for (at, value) in changed {
            self.values[at] = value;
        }
        Ok(())
    }

    fn is_repeat(&mut self, input: &Input<'_>, stable: &Context, origins: &mut Origins) -> bool {
        if input.identity == u128::from_be_bytes(EventId::of_dot(input.dot).0) {
            // Nobody named the request, so no other event can be the same.
            return false;
        }
        self.repeats.take(&input.place(0, origins), stable)
    }

    /// Forgets what nothing that is still to come can ask for.
    pub fn settle(&mut self, stable: &Context) {
        self.repeats.settle(stable);
    }

    /// What readers see, field by field.
    pub fn value(&self, definition: &Definition) -> Map<String, Json> {
        let fields = definition.ordered().zip(&self.values);
        fields.map(|((name, _), value)| (name.clone(), value.to_json())).collect()
    }

    /// Events taken in, bad ones included.
    pub fn events(&self) -> u64 {
        self.events
    }
    /// Events that were left out because they are bad.
    pub fn bad(&self) -> u64 {
        self.bad
    }
    /// Bytes of memory it takes, about.
    pub fn memory(&self) -> usize {
        let values = self.values.iter().map(|value| size_of::<Value>() + value.bytes());
        size_of::<Self>() + values.sum::<usize>() + self.repeats.memory()
    }

    /// All of it, for [`decode`](Self::decode).
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut writer = Writer::default();
        writer.bytes.put_varint(self.values.len() as u64);
        self.values.iter().for_each(|value| value.encode(&mut writer.bytes));
        self.repeats.encode(&mut writer);
        writer.finish_state(VERSION, [self.events, self.bad], out);
    }

    /// Reads what [`encode`](Self::encode) wrote under the same definition.
    ///
    /// # Errors
    /// Any [`DecodeError`].
    pub fn decode(
        definition: &Definition,
        reader: Reader,
        origins: &mut Origins,
    ) -> Result<Self, DecodeError> {
        let ([events, bad], mut loader) = Loader::of_state(VERSION, reader, origins)?;
        let count = loader.reader.count("ordered fields", 1)?;
        if count != definition.ordered().count() {
            let (what, value) = ("number of ordered fields", count as u64);
            return Err(DecodeError::Invalid { what, value });
        }
        let values = (0..count).map(|_| Value::decode(&mut loader.reader));
        let values = values.collect::<Result<_, _>>()?;
        let repeats = Repeats::decode(&mut loader)?;
        loader.reader.finish("ordered fields")?;
        Ok(Self { values, repeats, events, bad })
    }
}

/// What becomes of the fields that an event changes.
fn changed<'a>(
    before: &[Value],
    statements: impl Iterator<Item = &'a Statement>,
    input: &Input<'_>,
) -> Result<BTreeMap<usize, Value>, BadEvent> {
    let scope = input.scope(before);
    let mut changed: BTreeMap<usize, Value> = BTreeMap::new();
    for statement in statements {
        let at = statement.ordered().expect("the statement is about an ordered field");
        let now = |changed: &BTreeMap<_, _>| changed.get(&at).unwrap_or(&before[at]).clone();
        let value = match statement.change(&scope) {
            Ok(None) => continue,
            Ok(Some(Change::Set(value))) => Ok(value),
            // What the statements before it have added is not lost.
            Ok(Some(Change::Add(by))) => add(statement.field(), &now(&changed), by),
            Err(bad) => Err(bad),
        };
        let text = || statement.text().to_owned();
        let value = value.map_err(|source| BadEvent::Statement { text: text(), source })?;
        changed.insert(at, value);
    }
    Ok(changed)
}

fn add(field: &str, to: &Value, by: i64) -> Result<Value, BadPayload> {
    match to {
        Value::Int(whole) => {
            let sum = whole.checked_add(by);
            sum.map(Value::Int).ok_or_else(|| BadPayload::Overflow(format!("{field} + {by}")))
        }
        other => Err(BadPayload::Kind {
            what: field.to_owned(),
            found: other.kind(),
            wanted: "a whole number of 64 bits",
        }),
    }
}

#[cfg(test)]
mod tests;
