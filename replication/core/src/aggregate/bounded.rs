//! Bounded counters: never below zero in any region.

use std::collections::BTreeMap;

use serde_json::{Map as JsonMap, Value as Json, json};

use super::memory;
use super::operation::Action;
use super::value::total_to_json;
use crate::codec::{DecodeError, Put, Reader};
use crate::id::RegionName;

/// What the regions may take away, and so what there is. Sums only, so it does not matter in which order
/// regions learn of them; why none ever gets below zero is said in [`crate::rights`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Bounded {
    rights: BTreeMap<RegionName, i128>,
}

impl Bounded {
    pub(super) fn apply(&mut self, by: &RegionName, action: &Action) {
        match action {
            Action::Earn(amount) => self.change(by, i128::from(*amount)),
            Action::Spend(amount) => self.change(by, -i128::from(*amount)),
            Action::Pass { amount, to } => {
                self.change(by, -i128::from(*amount));
                self.change(to, i128::from(*amount));
            }
            _ => unreachable!("{} was checked against a bounded counter", action.name()),
        }
    }

    fn change(&mut self, region: &RegionName, by: i128) {
        let rights = self.rights.entry(region.clone()).or_default();
        // Amounts have 63 bits: no history is long enough to come to the end of it.
        *rights = rights.saturating_add(by);
    }

    /// What there is, and what of it each region may take away. Wherever an event is held, so is what its
    /// region held before it: no region is ever seen to have less than nothing.
    pub(super) fn value(&self) -> Json {
        let held = self.rights.iter().filter(|(_, rights)| **rights != 0);
        let held = held.map(|(region, rights)| (region.to_string(), total_to_json(*rights)));
        json!({
            "value": total_to_json(self.total()),
            "rights": held.collect::<JsonMap<_, _>>(),
        })
    }

    fn total(&self) -> i128 {
        self.rights.values().fold(0, |sum, rights| sum.saturating_add(*rights))
    }

    pub(super) fn is_blank(&self) -> bool {
        self.rights.is_empty()
    }

    pub(super) fn memory(&self) -> usize {
        memory::tree::<RegionName, i128>(self.rights.len())
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_varint(self.rights.len() as u64);
        for (region, rights) in &self.rights {
            region.encode(out);
            out.put_u128(*rights as u128);
        }
    }

    pub(super) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let count = reader.count("regions with rights", 18)?;
        let entry = |_| Ok((RegionName::decode(reader)?, reader.u128("rights")? as i128));
        Ok(Self { rights: (0..count).map(entry).collect::<Result<_, DecodeError>>()? })
    }
}
