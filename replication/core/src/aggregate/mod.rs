//! Aggregates: the state folded from a stream, the same in every region that holds the same events.
//!
//! A [`Definition`] names a category, the fields that its aggregates have, and what feeds them:
//! [`Operations`] sent for that purpose, and [`Statement`]s about ordinary events. A [`State`] takes
//! the events of one stream in any causal order (every region's log is one) and comes to the same
//! value: each operation is decided by what it is, by which operation it is, and by what its region
//! held when it was made. Nothing depends on when it came in.
//!
//! What makes concurrent operations merge is kept only while it can matter. An event that every region
//! holds is *stable*: whatever is still to come was made by somebody who held it. So what is stable
//! needs no record of its own, and [`State::settle`] forgets it; sets need none from the start
//! (docs/adr/0009-aggregates.md).
//!
//! Beside what is merged there are ordered fields: folded by the same statements, but one event after
//! the other, in the global order. [`Ordered`] holds those of a stream.

mod best;
mod bounded;
mod counter;
mod definition;
mod field;
mod list;
mod memory;
mod operation;
mod ordered;
mod repeats;
mod set;
mod statement;
mod tag;
#[cfg(test)]
mod tests;
mod value;

use std::collections::BTreeSet;

use serde_json::{Map, Value as Json};

pub use definition::{ANY_TYPE, BadDefinition, DEFINITION_BYTES, Definition, Kind};
pub use list::{ELEMENT_ID_BYTES, ElementId, NoElementId};
pub use operation::{Action, BadOperation, EVENT_TYPE, OPERATIONS, Operation, Operations};
pub(crate) use operation::{context_of_hex, hex_of_context};
pub use ordered::Ordered;
pub use statement::{BadPayload, BadStatement, Statement};
pub use tag::Origins;
pub use value::{VALUE_BYTES, Value, ValueTooLong};

use crate::codec::{DecodeError, Put, Reader};
use crate::context::Context;
use crate::event::{EventId, ProducerTag};
use crate::id::Dot;
use crate::planted::{self, Bug};
use crate::rights;
use crate::stamp::Stamp;
use field::Field;
use statement::{Payload, Scope};
use tag::{Loader, Mark, Place, Writer};

/// An event of the aggregate's stream, and what was known where it was written.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// Which event.
    pub dot: &'a Dot,
    /// When.
    pub stamp: Stamp,
    /// Everything that its region held before it.
    pub held: &'a Context,
    /// What it asks for, whichever region it reached; see [`identity`].
    pub identity: u128,
    /// Its stream.
    pub stream: &'a str,
    /// Its type.
    pub kind: &'a str,
    /// Its payload.
    pub payload: &'a [u8],
}

impl Input<'_> {
    /// Where its `nth` operation stands.
    fn place(&self, nth: u32, origins: &mut Origins) -> Place<'_> {
        Place {
            tag: origins.tag(self.dot, nth),
            mark: Mark { identity: self.identity, nth },
            stamp: self.stamp,
            held: self.held,
            observed: None,
            undone: false,
        }
    }

    /// What statements see of it.
    fn scope<'a>(&'a self, ordered: &'a [Value]) -> Scope<'a> {
        Scope {
            payload: Payload::new(self.payload),
            stream: self.stream,
            kind: self.kind,
            region: self.dot.origin.region.as_str(),
            unix_ms: self.stamp.unix_ms(),
            ordered,
        }
    }
}

/// What makes a retry of an event in another region the same event: its id, if the client gave one,
/// else its producer's sequence and its place in the request, else nothing but its dot.
pub fn identity(
    id: Option<EventId>,
    producer: Option<&ProducerTag>,
    nth_of_request: u64,
    dot: &Dot,
) -> u128 {
    if planted::is(Bug::RetryCountedTwice) {
        return u128::from_be_bytes(EventId::of_dot(dot).0);
    }
    if let Some(id) = id {
        return u128::from_be_bytes(id.0);
    }
    let Some(tag) = producer else { return u128::from_be_bytes(EventId::of_dot(dot).0) };
    let mut bytes = Vec::with_capacity(36);
    bytes.put(&tag.id.0);
    bytes.put_u32(tag.epoch);
    bytes.put_u64(tag.sequence);
    bytes.put_u64(nth_of_request);
    xxhash_rust::xxh3::xxh3_128(&bytes)
}

/// Why an event was left out of its aggregate. The same in every region.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadEvent {
    /// One of its operations cannot be done.
    #[error(transparent)]
    Operation(#[from] BadOperation),
    /// A statement about events of its type cannot be carried out.
    #[error("{text:?}: {source}")]
    Statement {
        /// The statement.
        text: String,
        /// Why not.
        source: BadPayload,
    },
}

/// The aggregate of one stream, under one definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// In the order of the definition's fields.
    fields: Vec<Field>,
    events: u64,
    bad: u64,
}

impl State {
    /// The aggregate of a stream without events.
    pub fn new(definition: &Definition) -> Self {
        let fields = definition.merged().map(|(_, kind)| Field::new(kind)).collect();
        Self { fields, events: 0, bad: 0 }
    }

    /// Takes the next event of the stream in, in any order in which no event comes before one that its
    /// region held. `stable` is a cut that every region held before it made what is still to come.
    ///
    /// An event does all that it is to do, or nothing. Says how many operations it did.
    ///
    /// # Errors
    /// [`BadEvent`]; the event is counted, and left out.
    pub fn apply(
        &mut self,
        definition: &Definition,
        input: &Input<'_>,
        stable: &Context,
        origins: &mut Origins,
    ) -> Result<usize, BadEvent> {
        self.events += 1;
        if input.kind == rights::EVENT_TYPE {
            return self.apply_rights(definition, input, stable, origins);
        }
        let work = Work::of(definition, input).inspect_err(|_| self.bad += 1)?;
        let undone = work.undone();
        for ((nth, operation), undone) in work.operations.iter().zip(undone) {
            let observed = work.observed.as_ref();
            let place = Place { observed, undone, ..input.place(*nth, origins) };
            self.carry_out(definition, operation, &place, stable);
        }
        Ok(work.operations.len())
    }

    /// Does an operation that was checked.
    fn carry_out(
        &mut self,
        definition: &Definition,
        operation: &Operation,
        place: &Place<'_>,
        stable: &Context,
    ) {
        let mut fields = definition.merged().zip(&mut self.fields);
        let named = fields.find(|((name, _), _)| **name == operation.field);
        let ((_, kind), field) = named.expect("the operation was checked");
        field.apply(kind, operation.key.as_deref(), &operation.action, place, stable);
    }

    /// Rights change operation by operation: a region that could spend them has spent them, whatever else
    /// the event wanted.
    fn apply_rights(
        &mut self,
        definition: &Definition,
        input: &Input<'_>,
        stable: &Context,
        origins: &mut Origins,
    ) -> Result<usize, BadEvent> {
        let sent = Operations::from_json(input.payload).inspect_err(|_| self.bad += 1)?;
        let (mut done, mut wrong) = (0, None);
        for (nth, operation) in (0..).zip(&sent.operations) {
            if let Err(bad) = operation.check_rights(definition) {
                wrong = wrong.or(Some(bad));
                continue;
            }
            self.carry_out(definition, operation, &input.place(nth, origins), stable);
            done += 1;
        }
        match wrong {
            None => Ok(done),
            Some(bad) => {
                self.bad += 1;
                Err(bad.into())
            }
        }
    }

    /// Forgets what nothing that is still to come can ask for.
    pub fn settle(&mut self, definition: &Definition, stable: &Context) {
        for ((_, kind), field) in definition.merged().zip(&mut self.fields) {
            field.settle(kind, stable);
        }
    }

    /// What readers see: an object with every field that is merged.
    pub fn value(&self, definition: &Definition) -> Map<String, Json> {
        let fields = definition.merged().zip(&self.fields);
        fields.map(|((name, kind), field)| (name.clone(), field.value(kind))).collect()
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
        let fields = self.fields.len() * size_of::<Field>();
        size_of::<Self>() + fields + self.fields.iter().map(Field::memory).sum::<usize>()
    }

    /// Bytes that are equal in all regions that hold the same events of the stream.
    pub fn canonical(&self, definition: &Definition) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_varint(self.events);
        out.put_varint(self.bad);
        for ((_, kind), field) in definition.merged().zip(&self.fields) {
            field.canonical(kind, &mut out);
        }
        out
    }

    /// All of it, for [`decode`](Self::decode).
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut writer = Writer::default();
        self.fields.iter().for_each(|field| field.encode(&mut writer));
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
        let fields = definition.merged().map(|(_, kind)| Field::decode(kind, &mut loader));
        let fields = fields.collect::<Result<_, _>>()?;
        loader.reader.finish("state")?;
        Ok(Self { fields, events, bad })
    }
}

const VERSION: u8 = 2;

/// What an event is to do.
struct Work {
    operations: Vec<(u32, Operation)>,
    observed: Option<Context>,
}

impl Work {
    fn of(definition: &Definition, input: &Input<'_>) -> Result<Self, BadEvent> {
        if input.kind == EVENT_TYPE {
            let sent = Operations::from_json(input.payload)?;
            sent.operations.iter().try_for_each(|operation| operation.check_plain(definition))?;
            // Nobody has seen what was not there.
            let observed = sent.observed.map(|observed| observed.meet(input.held));
            return Ok(Self { operations: (0..).zip(sent.operations).collect(), observed });
        }
        let mut work = Self { operations: Vec::new(), observed: None };
        let statements = definition.statements(input.kind);
        let scope = input.scope(&[]);
        for (nth, statement) in (0..).zip(statements).filter(|(_, of)| of.ordered().is_none()) {
            let bad = |source| BadEvent::Statement { text: statement.text().to_owned(), source };
            if let Some(operation) = statement.evaluate(&scope).map_err(bad)? {
                operation.check(definition)?;
                work.operations.push((nth, operation));
            }
        }
        Ok(work)
    }

    /// Of each operation, whether a later one takes back what it adds to a set.
    fn undone(&self) -> Vec<bool> {
        let mut taken: BTreeSet<(&str, Option<&Value>)> = BTreeSet::new();
        let undone = self.operations.iter().rev().map(|(_, Operation { field, key, action })| {
            let field = field.as_str();
            let all = taken.contains(&(field, None));
            let undone = match action {
                Action::Add(value) => all || taken.contains(&(field, Some(value))),
                Action::Set(_) | Action::Enable => all,
                _ => false,
            };
            match action {
                Action::Remove(value) => drop(taken.insert((field, Some(value)))),
                Action::Set(_) | Action::Disable => drop(taken.insert((field, None))),
                _ => {}
            }
            undone && key.is_none()
        });
        let mut undone: Vec<bool> = undone.collect();
        undone.reverse();
        undone
    }
}
