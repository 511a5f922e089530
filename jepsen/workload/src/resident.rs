//! Residents: clients of every region that append to streams with a home, at the revision that they know
//! of; that declare the homes in the first place, and where the home is hand streams over, or end it;
//! and declare another one after that.
//!
//! An append where the home is not may be refused, or passed on: both are fine.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anabranch_client::Event;
use anabranch_core::RegionName;
use anabranch_core::class::{Change, stream_of};
use anabranch_core::event::category;
use anabranch_history::note::Refusal;
use anabranch_history::op::Outcome;
use anabranch_history::said::{HOMED, Said};
use anabranch_history::shape::Class;
use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;

use crate::dice;
use crate::home::Home;
use crate::reads;
use crate::revisions::{Revisions, wrong};
use crate::scribe::{Scribe, Wish};

/// Streams of each category.
const STREAMS: u32 = 2;
/// How long an append is tried: where the home is not, it is refused until then.
const PATIENCE: Duration = Duration::from_millis(1_500);
/// The first category gets its home at once, the others up to so long after each other.
const DECLARED_WITHIN: Duration = Duration::from_secs(8);

/// Appends that every region makes one after the other when a category is being homed: then it matters who
/// knows of it.
const RUSH: u32 = 3;

/// When a category gets its home, and which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Declaration {
    category: &'static str,
    at: Duration,
    /// Number of the region that declares itself the home.
    by: usize,
    /// Another one that does so at the same time.
    rival: Option<usize>,
}

/// The declarations of a run: the same for all clients.
fn declarations(seed: u64, regions: usize) -> Vec<Declaration> {
    let mut rng = dice::rng(seed, "homes", 0, 0);
    let mut at = Duration::ZERO;
    let declaration = |category| {
        let (by, steps) = (rng.random_range(0..regions), rng.random_range(0..regions));
        let rival = rng.random_bool(0.4).then_some((by + steps) % regions);
        let declaration = Declaration { category, at, by, rival: rival.filter(|it| *it != by) };
        at += DECLARED_WITHIN.mul_f64(rng.random_range(0.3..1.0));
        declaration
    };
    HOMED.into_iter().map(declaration).collect()
}

struct Resident {
    scribe: Scribe,
    revisions: Arc<Revisions>,
    /// What it has to declare.
    to_declare: Vec<Declaration>,
    /// What anybody has to declare and is not due, the next one last.
    to_come: Vec<Declaration>,
    /// What is being declared, and appends that are still to be made at once.
    rush: Option<(&'static str, u32)>,
    /// Streams that have their home elsewhere, as far as is known.
    away: BTreeSet<String>,
}

/// Runs client `nth` of the region until it is told to stop.
pub(crate) async fn run(home: Home, nth: u32, revisions: Arc<Revisions>) {
    let number = Class::Resident.writer(home.number, nth);
    let client = home.client("resident", nth, false);
    let rng = home.rng("resident", nth);
    let here = home.number;
    let own = |it: &Declaration| nth == 0 && (it.by == here || it.rival == Some(here));
    let patience = home.plan.deadline.min(PATIENCE);
    let mut to_come = declarations(home.plan.seed, home.sites.regions().len());
    let mut scribe = Scribe::new(home, number, client, false, rng);
    scribe.set_deadline(patience);
    let to_declare = to_come.iter().copied().filter(own).collect();
    to_come.reverse();
    let (rush, away) = (None, BTreeSet::new());
    let mut resident = Resident { scribe, revisions, to_declare, to_come, rush, away };
    while !resident.scribe.home.stopped() {
        resident.turn().await;
        resident.think().await;
    }
}

impl Resident {
    async fn turn(&mut self) {
        let now = self.scribe.home.ledger.now();
        if let Some(at) = self.to_declare.iter().position(|it| it.at <= now) {
            self.declare(at).await;
        }
        if let Some(due) = self.to_come.pop_if(|next| next.at <= now) {
            self.rush = Some((due.category, RUSH));
        }
        let rush = self.rush;
        self.rush =
            rush.and_then(|(of, left)| Some((of, left.checked_sub(1).filter(|it| *it > 0)?)));
        let any = *HOMED.choose(&mut self.scribe.rng).expect("not empty");
        let category = rush.map_or(any, |(category, _)| category);
        let stream = format!("{category}-{}", self.scribe.rng.random_range(0..STREAMS));
        // Where it is known to be refused, that is not tried every time.
        if self.away.contains(&stream) && self.scribe.rng.random_bool(0.6) {
            return;
        }
        if self.scribe.rng.random_bool(0.25) {
            self.change(category, &stream).await;
        }
        self.append(&stream).await;
    }

    /// Lets it think, unless something is being declared; not beyond the next declaration.
    async fn think(&mut self) {
        if self.rush.is_some() {
            return;
        }
        let home = &mut self.scribe.home;
        let pause = home.plan.think.mul_f64(self.scribe.rng.random());
        let now = home.ledger.now();
        let next = self.to_come.last().map_or(pause, |next| next.at.saturating_sub(now));
        home.pause(pause.min(next)).await;
    }

    /// Says that this region is the home of a category, until it is, or another one is.
    async fn declare(&mut self, at: usize) {
        let home = region(self.scribe.home.name());
        let category = self.to_declare[at].category.to_owned();
        let said = Said::change(&Change::Declared { category: category.clone(), home, epoch: 1 });
        let (_, told) = self.scribe.append(Wish::new().tell(stream_of(&category), said)).await;
        match &told.outcome {
            Outcome::Acknowledged(_) => drop(self.to_declare.remove(at)),
            Outcome::Refused { why } if why.contains("homed already") => {
                self.to_declare.remove(at);
            }
            _ => {}
        }
    }

    async fn append(&mut self, stream: &str) {
        let right = self.revisions.expectation(stream);
        let rng = &mut self.scribe.rng;
        let events = rng.random_range(1..3);
        let wish = (0..events).fold(Wish::new(), |wish, _| wish.event(stream, 40));
        let wish = match rng.random_range(0..100) {
            0..75 => wish.expect(stream, right),
            75..85 => wish.expect(stream, wrong(rng, right)),
            _ => wish,
        };
        let (_, told) = self.scribe.append(wish).await;
        self.revisions.learn(&told.outcome);
        match (&told.outcome, &told.refusal) {
            (_, Some(Refusal::NotHome { .. })) => drop(self.away.insert(stream.to_owned())),
            (Outcome::Acknowledged(_) | Outcome::Conflict { .. }, _) => {
                self.away.remove(stream);
            }
            _ => {}
        }
    }

    /// Changes the class of the category, or the home of a stream, if this region may.
    async fn change(&mut self, category: &str, stream: &str) {
        let read = self.scribe.client.read_stream(stream_of(category));
        let what = || format!("a read of the homes of {category}");
        let home = &self.scribe.home;
        let Some(events) = reads::collect(home, self.scribe.number, what, read).await else {
            return;
        };
        let here = region(self.scribe.home.name());
        let next = self.scribe.home.elsewhere(&mut self.scribe.rng);
        let next = region(&self.scribe.home.sites.regions()[next]);
        let wanted = Wanted::draw(&mut self.scribe.rng);
        let Some(change) = Homes::of(&events).change(wanted, &here, next, stream) else { return };
        let wish = Wish::new().tell(stream_of(category), Said::change(&change));
        let (_, told) = self.scribe.append(wish).await;
        let of_all = matches!(change, Change::Declared { .. } | Change::Ended { .. });
        if of_all && matches!(told.outcome, Outcome::Acknowledged(_)) {
            let of = HOMED.into_iter().find(|of| *of == category);
            self.rush = of.map(|of| (of, RUSH));
        }
    }
}

fn region(name: &str) -> RegionName {
    RegionName::new(name).expect("regions of a cluster have names")
}

/// What a resident would like to do to a homed category.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// Give a stream away.
    HandOver,
    /// Give away all streams that were not given away by themselves.
    HandOverAll,
    /// Let every region write to it again; if a stream has another home, that gives it back before.
    End,
}

impl Wanted {
    fn draw(rng: &mut SmallRng) -> Self {
        match rng.random_range(0..100) {
            0..45 => Self::HandOver,
            45..65 => Self::HandOverAll,
            _ => Self::End,
        }
    }
}

/// Homes of a category as its stream of classes tells them: a guess, since more may be on its way.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Homes {
    /// The category's, if it has one now.
    category: Option<(RegionName, u32)>,
    /// Those of streams that were handed over by themselves.
    streams: BTreeMap<String, (RegionName, u32)>,
    /// Epoch of the last end; 0: there was none.
    ended: u32,
}

impl Homes {
    fn of(events: &[Event]) -> Self {
        let read = |event: &Event| Change::read(&event.stream, &event.kind, &event.payload).ok();
        let mut homes = Self::default();
        events.iter().filter_map(read).for_each(|change| homes.take(change));
        homes
    }

    fn take(&mut self, change: Change) {
        match change {
            Change::Declared { home, epoch, .. } => {
                if self.category.is_none() && epoch == self.ended + 1 {
                    self.category = Some((home, epoch));
                }
            }
            Change::Released { stream: Some(stream), to, epoch, .. } => {
                self.streams.insert(stream, (to, epoch));
            }
            Change::Released { to, epoch, .. } => self.category = Some((to, epoch)),
            Change::Ended { epoch, .. } => *self = Self { ended: epoch, ..Self::default() },
        }
    }

    /// What region `here` may do, if it would like that to the stream or its category, and likes `other`
    /// for the next home. The first home is declared by plan, not here.
    fn change(
        &self,
        wanted: Wanted,
        here: &RegionName,
        other: RegionName,
        stream: &str,
    ) -> Option<Change> {
        let of = category(stream).to_owned();
        let Some((home, epoch)) = &self.category else {
            let next = Change::Declared { category: of, home: here.clone(), epoch: self.ended + 1 };
            return (self.ended > 0).then_some(next);
        };
        let (current, last) = self.streams.get(stream).unwrap_or(self.category.as_ref()?);
        let newest = self.streams.values().map(|(_, epoch)| *epoch).fold(*epoch, u32::max);
        let together = self.streams.values().all(|(at, _)| at == home);
        let stream_to = |to: RegionName| {
            let (stream, epoch) = (Some(stream.to_owned()), last + 1);
            Change::Released { category: of.clone(), stream, to, epoch }
        };
        let change = match wanted {
            Wanted::HandOver if current == here => stream_to(other),
            Wanted::HandOverAll if home == here => {
                let epoch = epoch + 1;
                Change::Released { category: of.clone(), stream: None, to: other, epoch }
            }
            Wanted::End if home == here && together => {
                Change::Ended { category: of.clone(), epoch: newest + 1 }
            }
            Wanted::End if current == here && home != here => stream_to(home.clone()),
            _ => return None,
        };
        (change.next() != Some(here)).then_some(change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_category_gets_a_home_and_some_have_rivals() {
        let all: Vec<_> = (0..50).map(|seed| declarations(seed, 3)).collect();
        for declarations in &all {
            assert_eq!(declarations.len(), HOMED.len());
            assert_eq!(declarations[0].at, Duration::ZERO);
            assert!(declarations.iter().all(|it| it.by < 3 && it.rival != Some(it.by)));
            assert!(declarations[1].at > Duration::from_secs(2));
        }
        assert!(all.iter().flatten().any(|it| it.rival.is_some()));
        assert_eq!(declarations(7, 3), declarations(7, 3));
    }

    #[test]
    fn what_a_resident_may_do_follows_from_the_homes() {
        const DEED: &str = "deed-1";
        let [eu, us] = ["eu", "us"].map(region);
        let mut homes = Homes::default();
        let ask = |homes: &Homes, wanted, here: &RegionName, other: &RegionName| {
            homes.change(wanted, here, other.clone(), DEED)
        };
        assert_eq!(ask(&homes, Wanted::End, &eu, &us), None, "nobody has declared it");
        let of = || "deed".to_owned();
        homes.take(Change::Declared { category: of(), home: eu.clone(), epoch: 1 });
        homes.take(Change::Declared { category: of(), home: us.clone(), epoch: 1 });
        assert_eq!(ask(&homes, Wanted::HandOver, &us, &eu), None, "the first one counts");
        let mut take = |wanted, here: &RegionName, other: &RegionName| {
            let change = ask(&homes, wanted, here, other)?;
            homes.take(change.clone());
            Some(change)
        };
        let stream = Some(DEED.to_owned());
        let released = |stream, to: &RegionName, epoch| {
            Some(Change::Released { category: of(), stream, to: to.clone(), epoch })
        };
        assert_eq!(take(Wanted::HandOver, &eu, &us), released(stream.clone(), &us, 2));
        assert_eq!(take(Wanted::HandOverAll, &eu, &eu), None, "it is there already");
        assert_eq!(take(Wanted::End, &eu, &us), None, "a stream is elsewhere");
        assert_eq!(take(Wanted::End, &us, &eu), released(stream, &eu, 3));
        assert_eq!(take(Wanted::HandOverAll, &eu, &us), released(None, &us, 2));
        assert_eq!(take(Wanted::HandOverAll, &us, &eu), released(None, &eu, 3));
        assert_eq!(take(Wanted::End, &eu, &us), Some(Change::Ended { category: of(), epoch: 4 }));
        let again = Change::Declared { category: of(), home: us.clone(), epoch: 5 };
        assert_eq!(take(Wanted::HandOver, &us, &eu), Some(again));
    }
}
