//! Events that the store itself reads: changes of class, operations, and changes of rights.
//!
//! What they say follows from nothing but the ledger, where it stands in full.

use anabranch_client::EventId;
use anabranch_core::aggregate::{self, Action, Operation, Operations};
use anabranch_core::class::{self, Change};
use anabranch_core::event::category;
use anabranch_core::{RegionName, rights};
use serde::{Deserialize, Serialize};

use crate::content::Name;
use crate::shape::Class;

/// Categories that become homed in the course of a run.
pub const HOMED: [&str; 2] = ["deed", "lease"];
/// Category of the streams with bounded counters.
pub const SEATS: &str = "seats";
/// The bounded counter of these.
pub const LEFT: &str = "left";

/// Whether a stream gets a home in the course of a run.
pub fn is_homed(stream: &str) -> bool {
    HOMED.contains(&category(stream))
}

/// What an event says to the store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Said {
    /// Its type.
    pub kind: String,
    /// Its payload.
    pub payload: String,
}

impl Said {
    /// What an event of the workload says; none if the store does not read it. Definitions are not
    /// meant: they follow from the event's name.
    pub fn of(id: EventId, kind: &str, payload: &[u8]) -> Option<Self> {
        // A region that is asked for rights passes them on of its own accord.
        let read = match Class::of(Name::of(id).writer) {
            _ if kind == rights::EVENT_TYPE => true,
            Some(Class::Resident) => {
                [class::DECLARED, class::RELEASED, class::ENDED].contains(&kind)
            }
            Some(Class::Changer) => kind == aggregate::EVENT_TYPE,
            _ => false,
        };
        let payload = std::str::from_utf8(payload).ok().filter(|_| read)?;
        Some(Self { kind: kind.to_owned(), payload: payload.to_owned() })
    }

    /// A change of class.
    pub fn change(change: &Change) -> Self {
        let event = change.event();
        let payload = String::from_utf8(event.payload.to_vec()).expect("it is JSON");
        Self { kind: event.kind, payload }
    }
    /// Operations on an aggregate.
    pub fn operations(operations: Vec<Operation>) -> Self {
        let payload = Operations { operations, observed: None }.to_json();
        Self { kind: aggregate::EVENT_TYPE.to_owned(), payload }
    }
    /// Changes of the rights to the bounded counter [`LEFT`].
    pub fn rights(actions: impl IntoIterator<Item = Action>) -> Self {
        let operation = |action| Operation { field: LEFT.to_owned(), key: None, action };
        let operations = actions.into_iter().map(operation).collect();
        let payload = Operations { operations, observed: None }.to_json();
        Self { kind: rights::EVENT_TYPE.to_owned(), payload }
    }

    /// Whether it is nothing but rights that are passed on.
    pub fn passes_on(&self) -> bool {
        let operations = Operations::from_json(self.payload.as_bytes()).map(|all| all.operations);
        let is_pass = |operation: &Operation| matches!(operation.action, Action::Pass { .. });
        self.kind == rights::EVENT_TYPE && operations.is_ok_and(|all| all.iter().all(is_pass))
    }
    /// The change of class that it is, in this stream.
    pub fn as_change(&self, stream: &str) -> Option<Change> {
        Change::read(stream, &self.kind, self.payload.as_bytes()).ok()
    }
    /// The operations that it is, none of them about rights.
    pub fn as_operations(&self) -> Vec<Operation> {
        if self.kind != aggregate::EVENT_TYPE {
            return Vec::new();
        }
        let operations = Operations::from_json(self.payload.as_bytes());
        operations.map(|all| all.operations).unwrap_or_default()
    }
    /// The changes of rights that it is, in order: what each takes from or gives to which region.
    pub fn as_rights(&self, by: &RegionName) -> Vec<(RegionName, i128)> {
        if self.kind != rights::EVENT_TYPE {
            return Vec::new();
        }
        let operations = Operations::from_json(self.payload.as_bytes()).map(|all| all.operations);
        let mut changes = Vec::new();
        for operation in operations.unwrap_or_default() {
            match operation.action {
                Action::Earn(amount) => changes.push((by.clone(), i128::from(amount))),
                Action::Spend(amount) => changes.push((by.clone(), -i128::from(amount))),
                Action::Pass { amount, to } => {
                    changes.push((by.clone(), -i128::from(amount)));
                    changes.push((to, i128::from(amount)));
                }
                _ => {}
            }
        }
        changes
    }
}
