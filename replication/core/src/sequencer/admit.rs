//! Whether this region may append something: homes of streams, and rights to bounded counters.

use std::collections::{BTreeMap, HashMap};

use super::overlay::{OnItsWay, Overlay};
use super::{Draft, Expected, Sequencer, Submission, Verdict};
use crate::class::{self, Change, Declared, Entry, Home, Lookup};
use crate::event::category;
use crate::id::{Dot, RegionName};
use crate::planted::{self, Bug};
use crate::region::Region;
use crate::rights::{self, Counter, Step};

/// Why a change of class is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClassRefused {
    /// It is none.
    #[error("the event is no change of class: {0}")]
    Bad(#[from] class::BadChange),
    /// A change of class is an append of its own.
    #[error("a change of class has to be the only event of its append")]
    NotAlone,
    /// The region is no member.
    #[error("{region} is no region of this cluster; they are {members}")]
    NoMember {
        /// The region named.
        region: RegionName,
        /// Those there are.
        members: String,
    },
    /// The category has a home already.
    #[error("{category} is homed already, in {home}; hand it over there")]
    Declared {
        /// The category.
        category: String,
        /// Its home.
        home: RegionName,
    },
    /// The category is not homed.
    #[error("{category} is not homed: there is nothing to hand over, or to end")]
    NotHomed {
        /// The category.
        category: String,
    },
    /// A stream has a home of its own, so the category's home cannot speak for it.
    #[error("{stream} has a home of its own, {home}; hand it back first")]
    Apart {
        /// The stream.
        stream: String,
        /// Its home.
        home: RegionName,
    },
    /// The home is another one than whoever asks believes.
    #[error("{what} is at epoch {epoch} of its homes, so the next is {next}, not {found}", next = u64::from(*.epoch) + 1)]
    Epoch {
        /// The stream or category.
        what: String,
        /// Of the home it has.
        epoch: u32,
        /// Of the home it should get.
        found: u32,
    },
}

/// A home, or rights, that nobody would ever have.
fn no_member(region: &Region, named: &RegionName) -> Option<Verdict> {
    if region.members().contains(named) {
        return None;
    }
    let members = region.members().iter().map(RegionName::as_str).collect::<Vec<_>>();
    let (region, members) = (named.clone(), members.join(", "));
    Some(Verdict::Class(ClassRefused::NoMember { region, members }))
}

/// Homes after everything that is on its way.
struct Predicted<'a> {
    overlay: &'a Overlay,
    region: &'a Region,
}

impl Lookup for Predicted<'_> {
    fn declared(&self, category: &str) -> Option<&Declared> {
        let changed = self.overlay.declared.get(category).map(|(declared, _)| declared);
        changed.or_else(|| self.region.homes().declared(category))
    }
    fn moved(&self, stream: &str) -> Option<&Home> {
        let changed = self.overlay.moved.get(stream).map(|(home, _)| home);
        changed.or_else(|| self.region.homes().moved(stream))
    }
    fn moved_in<'a>(&'a self, of: &'a str) -> BTreeMap<&'a str, &'a Home> {
        let mut moved = self.region.homes().moved_in(of);
        let changed = self.overlay.moved.iter().filter(|(stream, _)| category(stream) == of);
        moved.extend(changed.map(|(stream, (home, _))| (&**stream, home)));
        moved
    }
}

impl Overlay {
    fn has_homes(&self, region: &Region) -> bool {
        !self.declared.is_empty() || !region.homes().is_empty()
    }

    fn rights(&self, region: &Region, counter: &Counter) -> u128 {
        match self.rights.get(counter) {
            Some((held, _)) => *held,
            None => region.rights().of(counter),
        }
    }

    fn put_home(&mut self, entry: Entry, way: &mut OnItsWay) {
        match entry {
            Entry::Category(category, declared) => {
                way.categories.push(category.clone());
                self.declared.insert(category, (declared, way.ticket));
            }
            Entry::Stream(stream, home) => {
                way.moved.push(stream.clone());
                self.moved.insert(stream, (home, way.ticket));
            }
        }
    }

    /// Notes what an event on its way does to homes and rights.
    pub(super) fn note(
        &mut self,
        region: &Region,
        dot: &Dot,
        stamp: crate::Stamp,
        (stream, kind, payload): (&str, &str, &[u8]),
        way: &mut OnItsWay,
    ) {
        if class::is_of_classes(stream) {
            let change = Change::read(stream, kind, payload).ok();
            let homes = Predicted { overlay: self, region };
            let entry = change.and_then(|change| homes.effect(&change, dot, stamp));
            entry.into_iter().for_each(|entry| self.put_home(entry, way));
        } else if kind == rights::EVENT_TYPE
            && let Some(own) = region.origin()
        {
            let steps = rights::steps(&own.region, &dot.origin.region, stream, payload);
            for Step { counter, change, .. } in steps.unwrap_or_default() {
                let held = change.of(self.rights(region, &counter)).unwrap_or_default();
                way.counters.push(counter.clone());
                self.rights.insert(counter, (held, way.ticket));
            }
        }
    }
}

impl Sequencer {
    /// Why this region may not append a submission that is no retry, if it may not.
    pub(super) fn forbids(&self, region: &Region, submission: &Submission) -> Option<Verdict> {
        let events = &submission.request.events;
        if let Some(event) = events.iter().find(|event| class::is_of_classes(&event.stream)) {
            let change = Change::read(&event.stream, &event.kind, &event.payload);
            return match change {
                _ if events.len() > 1 => Some(Verdict::Class(ClassRefused::NotAlone)),
                Ok(change) => self.forbids_change(region, &change),
                Err(bad) => Some(Verdict::Class(bad.into())),
            };
        }
        self.elsewhere(region, submission).or_else(|| self.short(region, submission))
    }

    fn forbids_change(&self, region: &Region, change: &Change) -> Option<Verdict> {
        let homes = Predicted { overlay: &self.overlay, region };
        if let Some(verdict) = change.next().and_then(|next| no_member(region, next)) {
            return Some(verdict);
        }
        let declared = homes.homed(change.category());
        let category = change.category().to_owned();
        match (change, declared) {
            (Change::Declared { epoch: found, .. }, None) => {
                let (next, found) = (homes.next_declared(change.category()), *found);
                let epoch = next.map_or(u32::MAX, |next| next - 1);
                let what = category;
                (next != Some(found)).then_some(Verdict::Class(ClassRefused::Epoch {
                    what,
                    epoch,
                    found,
                }))
            }
            (Change::Declared { .. }, Some(known)) => {
                let home = known.home.region.clone();
                Some(Verdict::Class(ClassRefused::Declared { category, home }))
            }
            (Change::Released { .. } | Change::Ended { .. }, None) => {
                Some(Verdict::Class(ClassRefused::NotHomed { category }))
            }
            (Change::Released { stream, epoch: found, .. }, Some(declared)) => {
                let of = stream.as_deref();
                let home = of.map_or(&declared.home, |stream| homes.home_in(declared, stream));
                let what = stream.clone().unwrap_or(category);
                self.not_ours(what, home, home.epoch, *found)
                    .or_else(|| self.unconfirmed(region, change.category(), home, declared))
            }
            (Change::Ended { epoch, .. }, Some(declared)) => {
                let (newest, apart) = homes.apart(change.category(), declared);
                let apart = apart.map(|(stream, home)| {
                    let (stream, home) = (stream.to_owned(), home.region.clone());
                    Verdict::Class(ClassRefused::Apart { stream, home })
                });
                let home = &declared.home;
                let unconfirmed = || match planted::is(Bug::HomeEndsBeforeAllKnow) {
                    true => None,
                    false => self.unconfirmed(region, change.category(), home, declared),
                };
                self.not_ours(category, home, home.epoch.max(newest), *epoch)
                    .or(apart)
                    .or_else(unconfirmed)
            }
        }
    }

    /// Whether this region is not the home, or is not at the epoch that comes before `found`.
    fn not_ours(&self, what: String, home: &Home, epoch: u32, found: u32) -> Option<Verdict> {
        if home.region != self.own.region {
            let (home, stream) = (home.clone(), what);
            return Some(Verdict::NotHome { stream, home });
        }
        (epoch.checked_add(1) != Some(found)).then_some(Verdict::Class(ClassRefused::Epoch {
            what,
            epoch,
            found,
        }))
    }

    /// Whether a stream's home is another region, or is this one and not known to all yet.
    fn elsewhere(&self, region: &Region, submission: &Submission) -> Option<Verdict> {
        if !self.overlay.has_homes(region) {
            return None;
        }
        let homes = Predicted { overlay: &self.overlay, region };
        let written = submission.request.events.iter().map(|event| event.stream.as_str());
        let looked_at = submission.expectations.iter().map(|on| on.stream.as_str());
        let mut away: Option<(&str, &Home)> = None;
        let mut here: Option<&str> = None;
        for stream in written.chain(looked_at) {
            match (homes.home(stream), away) {
                (None, _) => {}
                (Some(home), _) if home.region == self.own.region => here = Some(stream),
                (Some(home), None) => away = Some((stream, home)),
                (Some(home), Some((first, other))) if home.region != other.region => {
                    let first = (first.to_owned(), other.region.clone());
                    let second = (stream.to_owned(), home.region.clone());
                    return Some(Verdict::HomesDiffer { first, second });
                }
                (Some(_), Some(_)) => {}
            }
        }
        if let Some((stream, home)) = away {
            if let Some(ours) = here {
                let first = (ours.to_owned(), self.own.region.clone());
                let second = (stream.to_owned(), home.region.clone());
                return Some(Verdict::HomesDiffer { first, second });
            }
            return Some(Verdict::NotHome { stream: stream.to_owned(), home: home.clone() });
        }
        let strict = submission.expectations.iter().filter(|on| on.expected != Expected::Any);
        strict.into_iter().find_map(|on| {
            let declared = homes.homed(category(&on.stream))?;
            let home = homes.home_in(declared, &on.stream);
            self.unconfirmed(region, category(&on.stream), home, declared)
        })
    }

    /// Whether the first home of a category does not know yet that everybody knows.
    fn unconfirmed(
        &self,
        region: &Region,
        category: &str,
        home: &Home,
        declared: &Declared,
    ) -> Option<Verdict> {
        if home.epoch > declared.since || planted::is(Bug::HomeBeforeAllKnow) {
            return None;
        }
        let waits_for = region.unconfirmed(declared);
        let category = category.to_owned();
        (!waits_for.is_empty()).then_some(Verdict::HomeUnconfirmed { category, waits_for })
    }

    /// Whether the submission spends more than this region may.
    fn short(&self, region: &Region, submission: &Submission) -> Option<Verdict> {
        let own = &self.own.region;
        let mut left: HashMap<Counter, u128> = HashMap::new();
        let events = submission.request.events.iter();
        for event in events.filter(|event| event.kind == rights::EVENT_TYPE) {
            let steps = match rights::steps(own, own, &event.stream, &event.payload) {
                Ok(steps) => steps,
                Err(bad) => return Some(Verdict::BadRights(bad)),
            };
            for Step { counter, change, to } in steps {
                if let Some(verdict) = to.and_then(|to| no_member(region, &to)) {
                    return Some(verdict);
                }
                let predicted = || match planted::is(Bug::RightsOfAppliedOnly) {
                    true => region.rights().of(&counter),
                    false => self.overlay.rights(region, &counter),
                };
                let held = left.get(&counter).copied().unwrap_or_else(predicted);
                match (change.of(held), change) {
                    (Some(after), _) => drop(left.insert(counter, after)),
                    (None, rights::Change::Gain(wanted) | rights::Change::Lose(wanted)) => {
                        return Some(Verdict::Short { counter, wanted, held });
                    }
                }
            }
        }
        None
    }

    /// Notes what a request that is being written does to homes and rights.
    pub(super) fn note_own(
        &mut self,
        region: &Region,
        request: &crate::Request,
        draft: &mut Draft,
    ) {
        let first = draft.first.plus(draft.revisions.len() as u64 - request.events.len() as u64);
        for (nth, event) in (0..).zip(&request.events) {
            if event.is_of_the_store() {
                let dot = Dot { origin: self.own.clone(), seq: first.plus(nth) };
                let what = (event.stream.as_str(), event.kind.as_str(), &event.payload[..]);
                self.overlay.note(region, &dot, draft.stamp, what, &mut draft.way);
            }
        }
    }
}

#[cfg(test)]
mod tests;
