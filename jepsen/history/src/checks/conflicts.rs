//! Law 5, for conflicts: every node lists the pairs of concurrent events that its region shows, each once, and
//! in global order all list the same.
//!
//! Source: DESIGN.md laws 3 and 5 and section 7. What a region held when it made an event is what comes
//! before that event in the region's own log. So which events are concurrent follows from what the
//! regions show of their regional orders, without anything that the nodes say about conflicts.
//!
//! It cannot see: pairs with events of a region that was lost, or of an earlier life of a region, since
//! nobody shows what that one held; and what was listed while the faults went on.

use std::collections::BTreeMap;

use anabranch_client::{Dot, Order, Origin};
use anabranch_core::Seq;

use super::{Broken, Verdict};
use crate::case::Case;
use crate::evidence::{Evidence, Listed, ListedConflict, ListedRun};

/// Two events by their numbers in [`Known`], the lower one first. There may be millions of pairs.
type Pair = (u32, u32);

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
            let (lacks, adds) = (known.named(&wanted, &told), known.named(&told, &wanted));
            let words = format!(
                "{name} lists {} concurrent pairs, there are {}; lacks {lacks:?}, has besides {adds:?}",
                told.len(),
                wanted.len()
            );
            let odd = lacks.into_iter().chain(adds).flatten();
            odd.fold(Broken::new(words), |broken, dot| broken.dot(&dot).ops(case.op_of(&dot)))
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
#[derive(Default)]
struct Known<'a> {
    /// Origins that show their logs.
    origins: Vec<&'a Origin>,
    /// Their events; a number names the one at its place.
    events: Vec<Event>,
    /// By stream, the numbers of its events, by origin and place within it.
    streams: BTreeMap<&'a str, Vec<u32>>,
}

struct Event {
    /// Of `origins`.
    origin: usize,
    seq: u64,
    /// Of each origin, what this event's region held of it when it made the event.
    held: Vec<u64>,
}

impl<'a> Known<'a> {
    fn of(evidence: &'a Evidence) -> Self {
        let mut known = Self::default();
        let shown = evidence.regions.iter();
        let own = shown.filter_map(|(region, read)| Some((read.own(region)?, &read.regional)));
        let logs: Vec<_> = own.collect();
        known.origins = logs.iter().map(|(origin, _)| *origin).collect();
        for (at, (_, log)) in logs.iter().enumerate() {
            let mut held = vec![0; logs.len()];
            for seen in *log {
                let Some(origin) = known.origin(&seen.dot.origin) else { continue };
                if origin == at {
                    let number = known.events.len() as u32;
                    known.streams.entry(&seen.stream).or_default().push(number);
                    let seq = seen.dot.seq.0;
                    known.events.push(Event { origin, seq, held: held.clone() });
                }
                held[origin] = held[origin].max(seen.dot.seq.0);
            }
        }
        known
    }

    fn origin(&self, origin: &Origin) -> Option<usize> {
        self.origins.iter().position(|known| *known == origin)
    }
    fn event(&self, number: u32) -> &Event {
        &self.events[number as usize]
    }
    fn dot(&self, number: u32) -> Dot {
        let Event { origin, seq, .. } = self.event(number);
        Dot { origin: self.origins[*origin].clone(), seq: Seq(*seq) }
    }

    /// Whether `one` was there when the region of `other` made `other`.
    fn is_before(&self, one: &Event, other: &Event) -> bool {
        one.seq <= other.held[one.origin]
    }

    /// All pairs, sorted.
    fn concurrent(&self) -> Vec<Pair> {
        let mut pairs = Vec::new();
        for numbers in self.streams.values() {
            for (nth, low) in numbers.iter().enumerate() {
                let one = self.event(*low);
                for high in &numbers[nth + 1..] {
                    let other = self.event(*high);
                    let apart = one.origin != other.origin;
                    if apart && !self.is_before(one, other) && !self.is_before(other, one) {
                        pairs.push((*low, *high));
                    }
                }
            }
        }
        pairs.sort_unstable();
        pairs
    }

    /// The first few of the sorted `pairs` that are not among the sorted `others`.
    fn named(&self, pairs: &[Pair], others: &[Pair]) -> Vec<[Dot; 2]> {
        let lacking = pairs.iter().filter(|pair| others.binary_search(pair).is_err());
        lacking.take(2).map(|(low, high)| [self.dot(*low), self.dot(*high)]).collect()
    }

    /// The numbers of a run's events; none if its origin does not show its log.
    fn run(&self, stream: &str, run: &ListedRun) -> Option<&[u32]> {
        let origin = self.origin(&run.first.origin)?;
        let numbers = self.streams.get(stream).map_or(&[][..], |numbers| numbers);
        let place = |number: u32| (self.event(number).origin, self.event(number).seq);
        let from = numbers.partition_point(|number| place(*number) < (origin, run.first.seq.0));
        let to = numbers.partition_point(|number| place(*number) <= (origin, run.last));
        Some(&numbers[from..to.max(from)])
    }

    /// The pairs of a list, as far as they are of origins that are known, sorted.
    fn told(&self, verdict: &mut Verdict, name: &str, listed: &Listed) -> Vec<Pair> {
        let mut pairs = Vec::new();
        for ListedConflict { stream, events, against, .. } in &listed.conflicts {
            let mut of = |run: &ListedRun| {
                let Some(numbers) = self.run(stream, run) else { return &[][..] };
                let held = numbers.len() as u64;
                verdict.check(held == run.events, || {
                    format!(
                        "{name}: {run:?} of {stream} counts other events than the {held} there are"
                    )
                });
                numbers
            };
            let ones = of(events);
            for others in against.iter().map(&mut of) {
                let both = ones.iter().flat_map(|one| others.iter().map(move |other| (one, other)));
                pairs.extend(both.map(|(one, other)| (*one.min(other), *one.max(other))));
            }
        }
        pairs.sort_unstable();
        for twice in pairs.chunk_by(|one, other| one == other).filter(|same| same.len() > 1) {
            verdict.check(false, || {
                let [low, high] = [self.dot(twice[0].0), self.dot(twice[0].1)];
                format!("{name} lists {low} and {high} {} times", twice.len())
            });
        }
        pairs.dedup();
        verdict.facts += pairs.len() as u64;
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
