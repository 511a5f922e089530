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
use std::ops::Range;

use anabranch_client::{Dot, Order, Origin};
use anabranch_core::Seq;

use super::{Broken, Verdict};
use crate::case::Case;
use crate::evidence::{Evidence, Listed, ListedConflict, ListedRun, RegionRead};

/// Neighbours among the events of one stream and origin, by their places there.
type Span = Range<usize>;

/// Holds the lists of all nodes against the orders that regions show, and against each other.
pub fn check(case: &Case<'_>) -> Verdict {
    let mut verdict =
        Verdict::new("conflicts", "every node lists the concurrent pairs, in global order alike");
    let evidence = case.evidence;
    let known = Known::of(evidence);
    let waits = !evidence.expectations.lost.is_empty();
    for listed in &evidence.listed {
        let name = format!("{} in {:?} order", listed.node, listed.order);
        let told = known.told(&mut verdict, &name, listed);
        if waits && listed.order == Order::Global {
            // The order ends before the rest of them.
            continue;
        }
        let shown = evidence.regions.get(&listed.region);
        let differs = shown.map(|read| known.compare(read, listed.order, told, &mut verdict.facts));
        verdict.check(differs.as_ref().is_some_and(|differs| differs.events == 0), || {
            let Some(Differs { events, lacks, adds }) = differs else {
                return Broken::new(format!("{name} lists conflicts of a region that shows nothing"));
            };
            let words = format!(
                "{name}: of {events} events it does not list what there is to list; lacks {lacks:?}, has besides {adds:?}"
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
///
/// Of an event, those of another origin that come before it in some order and are concurrent with it are
/// neighbours: contexts only grow along an origin. So spans are compared, and never pair by pair: of a stream
/// that was written for minutes on both sides of a cut there are millions.
#[derive(Default)]
struct Known<'a> {
    /// Origins that show their logs.
    origins: Vec<&'a Origin>,
    /// By stream, of each origin its events, oldest first.
    streams: BTreeMap<&'a str, Vec<Vec<Event>>>,
}

struct Event {
    seq: u64,
    /// Of each origin, what this event's region held of it when it made the event.
    held: Vec<u64>,
}

/// What a node tells of each event that came second: by stream, by the event's origin and place, by the other
/// origin, the spans that came first.
type Told<'a> = BTreeMap<(&'a str, usize, usize, usize), Vec<Span>>;

/// How far a list is from what there is to list.
#[derive(Default)]
struct Differs {
    /// Events of which something else is listed.
    events: usize,
    /// Of the first few, a pair that is not listed.
    lacks: Vec<[Dot; 2]>,
    /// And one that is listed, and should not be.
    adds: Vec<[Dot; 2]>,
}

impl<'a> Known<'a> {
    fn of(evidence: &'a Evidence) -> Self {
        let mut known = Self::default();
        let shown = evidence.regions.iter();
        let own = shown.filter_map(|(region, read)| Some((read.own(region)?, &read.regional)));
        let logs: Vec<_> = own.collect();
        known.origins = logs.iter().map(|(origin, _)| *origin).collect();
        let origins = logs.len();
        for (at, (_, log)) in logs.iter().enumerate() {
            let mut held = vec![0; origins];
            for seen in *log {
                let Some(origin) = known.origin(&seen.dot.origin) else { continue };
                if origin == at {
                    let stream = known.streams.entry(&seen.stream);
                    let of_origin = &mut stream.or_insert_with(|| of_each(origins))[at];
                    of_origin.push(Event { seq: seen.dot.seq.0, held: held.clone() });
                }
                held[origin] = held[origin].max(seen.dot.seq.0);
            }
        }
        known
    }

    fn origin(&self, origin: &Origin) -> Option<usize> {
        self.origins.iter().position(|known| *known == origin)
    }

    /// The stream's own name here, the run's origin and its span; none if that origin does not show its log.
    fn run(&self, stream: &str, run: &ListedRun) -> Option<(&'a str, usize, Span)> {
        let origin = self.origin(&run.first.origin)?;
        let (name, of_each) = self.streams.get_key_value(stream)?;
        let events = &of_each[origin];
        let from = events.partition_point(|event| event.seq < run.first.seq.0);
        let to = events.partition_point(|event| event.seq <= run.last);
        Some((name, origin, from..to.max(from)))
    }

    /// What a list says, as far as it is of origins that are known.
    fn told(&self, verdict: &mut Verdict, name: &str, listed: &Listed) -> Told<'a> {
        let mut told = Told::new();
        for conflict in &listed.conflicts {
            let stream = &conflict.stream;
            let mut of = |run: &ListedRun| {
                let found = self.run(stream, run)?;
                let held = found.2.len() as u64;
                verdict.check(held == run.events, || {
                    format!(
                        "{name}: {run:?} of {stream} counts other events than the {held} there are"
                    )
                });
                Some(found)
            };
            let seconds = of(&conflict.events);
            let firsts: Vec<_> = conflict.against.iter().filter_map(&mut of).collect();
            let Some((stream, second, events)) = seconds else { continue };
            for (at, (_, first, span)) in events.flat_map(|at| firsts.iter().map(move |f| (at, f)))
            {
                told.entry((stream, second, at, *first)).or_default().push(span.clone());
            }
        }
        for ((stream, second, at, _), spans) in &mut told {
            spans.sort_unstable_by_key(|span| span.start);
            let twice = spans.windows(2).find(|pair| pair[1].start < pair[0].end);
            verdict.check(twice.is_none(), || {
                let dot = self.dot(*second, self.streams[stream][*second][*at].seq);
                format!("{name} lists what is concurrent with {dot} several times: {spans:?}")
            });
        }
        told
    }

    fn dot(&self, origin: usize, seq: u64) -> Dot {
        Dot { origin: self.origins[origin].clone(), seq: Seq(seq) }
    }

    /// Compares what is told with what the region's own order shows.
    fn compare(
        &self,
        read: &RegionRead,
        order: Order,
        mut told: Told<'a>,
        facts: &mut u64,
    ) -> Differs {
        let order = if order == Order::Global { &read.global } else { &read.regional };
        let mut places = of_each(self.origins.len());
        for (place, seen) in order.iter().enumerate() {
            if let Some(origin) = self.origin(&seen.dot.origin) {
                places[origin].push((seen.dot.seq.0, place));
            }
        }
        let place = |origin: usize, seq: u64| -> Option<usize> {
            let of_origin: &Vec<(u64, usize)> = &places[origin];
            let at = of_origin.binary_search_by_key(&seq, |(seq, _)| *seq).ok()?;
            Some(of_origin[at].1)
        };
        let mut differs = Differs::default();
        for (stream, of_each) in &self.streams {
            for (second, at, event) in events(of_each) {
                let here = place(second, event.seq);
                for (first, firsts) in of_each.iter().enumerate().filter(|(o, _)| *o != second) {
                    let spans = told.remove(&(*stream, second, at, first)).unwrap_or_default();
                    let from = firsts.partition_point(|other| other.seq <= event.held[first]);
                    let to = firsts.partition_point(|other| {
                        let both = here.zip(place(first, other.seq));
                        both.is_some_and(|(here, there)| there < here)
                    });
                    let wanted = from..to.max(from);
                    *facts += wanted.len() as u64;
                    let pair = |nth: usize| {
                        [self.dot(second, event.seq), self.dot(first, firsts[nth].seq)]
                    };
                    differs.note(&wanted, &spans, pair);
                }
            }
        }
        differs
    }
}

fn of_each<T>(origins: usize) -> Vec<Vec<T>> {
    (0..origins).map(|_| Vec::new()).collect()
}

/// The events of a stream, each with its origin and its place there.
fn events(of_each: &[Vec<Event>]) -> impl Iterator<Item = (usize, usize, &Event)> {
    let of_origin = of_each.iter().enumerate();
    of_origin.flat_map(|(origin, events)| {
        events.iter().enumerate().map(move |(at, event)| (origin, at, event))
    })
}

impl Differs {
    /// Takes note of what was `told` of an event, sorted, where `wanted` was to be told.
    fn note(&mut self, wanted: &Span, told: &[Span], pair: impl Fn(usize) -> [Dot; 2]) {
        const NAMED: usize = 2;
        let mut next = wanted.start;
        let mut lacks = None;
        for span in told {
            if next < span.start && next < wanted.end {
                lacks = lacks.or(Some(next));
            }
            next = next.max(span.end);
        }
        if next < wanted.end {
            lacks = lacks.or(Some(next));
        }
        let odd = |nth: usize| !wanted.contains(&nth);
        let ends = told.iter().filter(|span| !span.is_empty());
        let adds = ends.flat_map(|span| [span.start, span.end - 1]).find(|nth| odd(*nth));
        self.events += usize::from(lacks.is_some() || adds.is_some());
        if self.events <= NAMED {
            self.lacks.extend(lacks.map(&pair));
            self.adds.extend(adds.map(&pair));
        }
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
        assert_eq!(broken(again), 2, "of two events everything is there twice");
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
