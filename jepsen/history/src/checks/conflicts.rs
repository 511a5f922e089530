//! Law 5, for conflicts: every node lists the pairs of concurrent events that its region shows, each once, and
//! in global order all list the same.
//!
//! Source: DESIGN.md laws 3 and 5 and section 7. What a region held when it made an event is what comes
//! before that event in the region's own log. So which events are concurrent follows from what the
//! regions show of their regional orders, without anything that the nodes say about conflicts.
//!
//! It cannot see: pairs with events of a region that was lost, or of an earlier life of a region, since
//! nobody shows what that one held; and what was listed while the faults went on.

use std::collections::{BTreeMap, BTreeSet};

use anabranch_client::{Dot, Order, Origin};
use anabranch_core::Seq;

use super::{Broken, Verdict};
use crate::case::Case;
use crate::evidence::{Evidence, Listed, ListedConflict, ListedRun};

type Pair = (Dot, Dot);

/// Holds the lists of all nodes against the orders that regions show, and against each other.
pub fn check(case: &Case<'_>) -> Verdict {
    let mut verdict =
        Verdict::new("conflicts", "every node lists the concurrent pairs, in global order alike");
    let evidence = case.evidence;
    let known = Known::of(evidence);
    let wanted = known.concurrent();
    let waits = !evidence.expectations.lost.is_empty();
    for listed in &evidence.listed {
        let name = format!("{} in {:?} order", listed.node, listed.order);
        let told = known.told(&mut verdict, &name, listed);
        if waits && listed.order == Order::Global {
            // The order ends before the rest of them.
            continue;
        }
        verdict.check(told == wanted, || {
            let lacks: Vec<_> = wanted.difference(&told).take(2).collect();
            let adds: Vec<_> = told.difference(&wanted).take(2).collect();
            let words = format!(
                "{name} lists {} concurrent pairs, there are {}; lacks {lacks:?}, has besides {adds:?}",
                told.len(),
                wanted.len()
            );
            let odd = lacks.iter().chain(&adds).flat_map(|(one, other)| [one, other]);
            odd.fold(Broken::new(words), |broken, dot| broken.dot(dot).ops(case.op_of(dot)))
        });
    }
    compare(&mut verdict, evidence);
    verdict
}

/// What is final is listed alike; some nodes may be further than others if a region was lost.
fn compare(verdict: &mut Verdict, evidence: &Evidence) {
    let mut global = evidence.listed.iter().filter(|listed| listed.order == Order::Global);
    let Some(first) = global.next() else { return };
    for other in global {
        let (one, two) = (&first.conflicts, &other.conflicts);
        let both = one.len().min(two.len());
        let differ = (0..both).find(|at| one[*at] != two[*at]);
        verdict.check(differ.is_none(), || {
            let at = differ.unwrap_or_default();
            let (one, two): (&ListedConflict, &ListedConflict) = (&one[at], &two[at]);
            format!("{} and {} list as number {at} {one:?} and {two:?}", first.node, other.node)
        });
        let complete = one.len() == two.len() || !evidence.expectations.lost.is_empty();
        verdict.check(complete, || {
            format!("{} lists {} conflicts, {} {}", first.node, one.len(), other.node, two.len())
        });
    }
}

/// Which events there are, and what each region held when.
struct Known {
    /// Of each origin that shows its log: the place of every event in it.
    places: BTreeMap<Origin, BTreeMap<Dot, usize>>,
    /// By stream, the events of these origins.
    streams: BTreeMap<String, BTreeSet<Dot>>,
}

impl Known {
    fn of(evidence: &Evidence) -> Self {
        let (mut places, mut streams) = (BTreeMap::new(), BTreeMap::new());
        for (region, read) in &evidence.regions {
            let Some(own) = read.own(region) else { continue };
            let dots = read.regional.iter().map(|seen| seen.dot.clone());
            places.insert(own.clone(), dots.zip(0..).collect::<BTreeMap<_, _>>());
        }
        for seen in evidence.regions.values().flat_map(|read| &read.regional) {
            if places.contains_key(&seen.dot.origin) {
                let of = streams.entry(seen.stream.clone()).or_insert_with(BTreeSet::new);
                of.insert(seen.dot.clone());
            }
        }
        Self { places, streams }
    }

    /// Whether `one` was there when the region of `other` made `other`.
    fn is_before(&self, one: &Dot, other: &Dot) -> bool {
        let log = &self.places[&other.origin];
        matches!((log.get(one), log.get(other)), (Some(one), Some(other)) if one < other)
    }

    fn concurrent(&self) -> BTreeSet<Pair> {
        let mut pairs = BTreeSet::new();
        for dots in self.streams.values() {
            for one in dots {
                for other in dots.range(one..).filter(|other| other.origin != one.origin) {
                    if !self.is_before(one, other) && !self.is_before(other, one) {
                        pairs.insert((one.clone(), other.clone()));
                    }
                }
            }
        }
        pairs
    }

    fn events(&self, stream: &str, run: &ListedRun) -> Vec<&Dot> {
        let last = Dot { origin: run.first.origin.clone(), seq: Seq(run.last) };
        let of = self.streams.get(stream);
        of.map(|dots| dots.range(run.first.clone()..=last).collect()).unwrap_or_default()
    }

    /// The pairs of a list, as far as they are of origins that are known.
    fn told(&self, verdict: &mut Verdict, name: &str, listed: &Listed) -> BTreeSet<Pair> {
        let mut pairs = BTreeSet::new();
        for ListedConflict { stream, events, against, .. } in &listed.conflicts {
            for run in against.iter().chain([events]) {
                let known = self.places.contains_key(&run.first.origin);
                let held = self.events(stream, run).len() as u64;
                verdict.check(!known || held == run.events, || {
                    format!(
                        "{name}: {run:?} of {stream} counts other events than the {held} there are"
                    )
                });
            }
            for one in self.events(stream, events) {
                for other in against.iter().flat_map(|run| self.events(stream, run)) {
                    let (low, high) = if one < other { (one, other) } else { (other, one) };
                    let new = pairs.insert((low.clone(), high.clone()));
                    verdict.check(new, || format!("{name} lists {low} and {high} twice"));
                }
            }
        }
        pairs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::{judge, sound};

    /// Of the two appends to stream b, each of two events, neither region saw the other's first.
    fn listed() -> Evidence {
        let mut evidence = sound();
        let of_b = |evidence: &Evidence, region: &str| -> Vec<Dot> {
            let seen = evidence.regions["eu"].regional.iter().filter(|seen| seen.stream == "b");
            let dots = seen.map(|seen| seen.dot.clone());
            dots.filter(|dot| dot.origin.region.as_str() == region).collect()
        };
        let (eu, us) = (of_b(&evidence, "eu"), of_b(&evidence, "us"));
        let read = evidence.regions.get_mut("eu").unwrap();
        // In eu, what us wrote to b comes after its own.
        let at = |dot: &Dot| us.contains(dot);
        let (late, mut rest): (Vec<_>, Vec<_>) =
            read.regional.drain(..).partition(|seen| at(&seen.dot));
        rest.extend(late);
        read.regional = rest;
        let run =
            |dots: &[Dot]| ListedRun { first: dots[0].clone(), last: dots[1].seq.0, events: 2 };
        let conflict = |second: &[Dot], first: &[Dot]| ListedConflict {
            id: "7".into(),
            position: 4,
            stream: "b".into(),
            events: run(second),
            against: vec![run(first)],
        };
        let list = |region: &str, order, conflict: ListedConflict| Listed {
            node: format!("{region}-1"),
            region: region.into(),
            order,
            conflicts: vec![conflict],
        };
        evidence.listed = vec![
            list("eu", Order::Regional, conflict(&us, &eu)),
            list("us", Order::Regional, conflict(&eu, &us)),
            list("eu", Order::Global, conflict(&eu, &us)),
            list("us", Order::Global, conflict(&eu, &us)),
        ];
        evidence
    }

    #[test]
    fn lists_that_lack_add_repeat_or_differ_are_found() {
        assert!(judge(check, &listed()).holds(), "{:?}", judge(check, &listed()).words);
        let broken = |change: fn(&mut Evidence)| {
            let mut evidence = listed();
            change(&mut evidence);
            judge(check, &evidence).broken
        };
        assert_eq!(broken(|evidence| evidence.listed[0].conflicts.clear()), 1, "a pair is missing");
        assert!(broken(|evidence| evidence.listed[1].conflicts[0].against.clear()) > 0);
        let again = |evidence: &mut Evidence| {
            let again = evidence.listed[0].conflicts[0].clone();
            evidence.listed[0].conflicts.push(again);
        };
        assert_eq!(broken(again), 4, "each of four pairs is there twice");
        assert_eq!(broken(|evidence| evidence.listed[2].conflicts[0].id = "8".into()), 1);
        assert_eq!(broken(|evidence| evidence.listed[0].conflicts[0].events.events = 3), 1);
        // Had us held what eu wrote, there would be no conflict to list.
        let held = |evidence: &mut Evidence| {
            let eu = evidence.regions["us"].clone().regional;
            evidence.regions.get_mut("eu").unwrap().regional = eu;
        };
        assert_eq!(broken(held), 4, "every list has pairs that are none");
    }
}
