//! Which events of a target a reader wants.

use anabranch_core::EventView;
use anabranch_core::event::category;
use anabranch_log::index::Wanted;

use super::spec::Target;

/// Lets events through: each list is "one of", both must agree, an empty list lets everything through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Types of events.
    pub types: Vec<String>,
    /// Beginnings of stream names.
    pub stream_prefixes: Vec<String>,
}

impl Filter {
    fn matches(&self, event: &EventView) -> bool {
        let one_of = |list: &[String], fits: &dyn Fn(&String) -> bool| {
            list.is_empty() || list.iter().any(fits)
        };
        one_of(&self.types, &|kind| **kind == *event.kind)
            && one_of(&self.stream_prefixes, &|prefix| event.stream.starts_with(prefix.as_str()))
    }
}

/// A target and a filter: what a reader wants.
#[derive(Debug, Clone)]
pub(super) struct Selection {
    pub(super) target: Target,
    pub(super) filter: Filter,
}

impl Selection {
    pub(super) fn matches(&self, event: &EventView) -> bool {
        let targeted = match &self.target {
            Target::Stream(stream) => **stream == *event.stream,
            Target::Category(name) => *name == category(&event.stream),
            Target::All => true,
        };
        targeted && self.filter.matches(event)
    }

    /// Names of which a segment must hold one to be of interest; empty if every segment is.
    pub(super) fn wanted(&self) -> Vec<Wanted<'_>> {
        match &self.target {
            Target::Stream(stream) => vec![Wanted::Stream(stream)],
            Target::Category(name) => vec![Wanted::Category(name)],
            Target::All => self.filter.types.iter().map(|kind| Wanted::Kind(kind)).collect(),
        }
    }
}
