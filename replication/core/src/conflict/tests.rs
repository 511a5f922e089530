//! Conflicts of random histories, compared with what the definition says.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::codec::Reader;
use crate::context::Context;
use crate::declared::{Declarations, Declare};
use crate::id::{Incarnation, Origin, RegionName, Seq, ShardId};
use crate::stamp::Stamp;

/// SplitMix64.
struct Rng(u64);

impl Rng {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end as u64) as usize
    }
}

const NAMES: [&str; 4] = ["asia", "eu", "sa", "us"];
const STREAMS: [&str; 3] = ["a", "b", "c"];

fn origin(region: &str) -> Origin {
    let region = RegionName::new(region).unwrap();
    Origin { region, incarnation: Incarnation(1), shard: ShardId(0) }
}
fn dot(region: &str, seq: u64) -> Dot {
    Dot { origin: origin(region), seq: Seq(seq) }
}
fn run(region: &str, seqs: (u64, u64), stamps: (u64, u64)) -> Run {
    Run {
        origin: origin(region),
        first: Seq(seqs.0),
        last: Seq(seqs.1),
        events: seqs.1 - seqs.0 + 1,
        first_stamp: Stamp(stamps.0),
        last_stamp: Stamp(stamps.1),
    }
}

/// A group: its origin, context, stamp, and the streams of its events.
#[derive(Debug, Clone)]
struct Made {
    first: Dot,
    context: Context,
    stamp: Stamp,
    streams: Vec<&'static str>,
}

impl Made {
    fn last(&self) -> Seq {
        self.first.seq.plus(self.streams.len() as u64 - 1)
    }
    /// The stream's events, as a run; and the place of the first among the group's.
    fn of(&self, stream: &str) -> Option<(u64, Run)> {
        let places = (0..self.streams.len()).filter(|at| self.streams[*at] == stream);
        let dot = |at| Dot { origin: self.first.origin.clone(), seq: self.first.seq.plus(at) };
        places.fold(None, |run: Option<(u64, Run)>, at| {
            let next = Run::of(&dot(at as u64), self.stamp);
            let Some((first, mut run)) = run else { return Some((at as u64, next)) };
            run.extend(&next);
            Some((first, run))
        })
    }
}

#[derive(Default)]
struct Region {
    log: Vec<Made>,
    held: Context,
    stamp: u64,
}

/// Regions that write, and take what others wrote in any order that puts causes first.
fn history(rng: &mut Rng, regions: usize, steps: usize) -> Vec<Region> {
    let mut all: Vec<Region> = (0..regions).map(|_| Region::default()).collect();
    for step in 0..steps + 200 {
        let at = rng.below(regions);
        if step < steps && rng.below(3) == 0 {
            let own = origin(NAMES[at]);
            let region = &mut all[at];
            region.stamp += 1 + rng.below(3) as u64;
            let streams = (0..=rng.below(3)).map(|_| STREAMS[rng.below(3)]).collect();
            let made = Made {
                first: Dot { origin: own.clone(), seq: region.held.seq(&own).next() },
                context: region.held.without(&own),
                stamp: Stamp(region.stamp),
                streams,
            };
            region.held.advance(&own, made.last());
            region.log.push(made);
            continue;
        }
        let from = rng.below(regions);
        let new = all[from].log.iter().find(|made| {
            made.first.seq == all[at].held.seq(&made.first.origin).next()
                && all[at].held.covers(&made.context)
        });
        if let Some(new) = new.cloned() {
            all[at].held.advance(&new.first.origin, new.last());
            all[at].stamp = all[at].stamp.max(new.stamp.0);
            all[at].log.push(new);
        }
    }
    all
}

type Pair = (&'static str, Dot, Dot);

/// By the definition: neither is in the other's context.
fn concurrent(log: &[Made]) -> BTreeSet<Pair> {
    let events = |made: &Made| -> Vec<(&'static str, Dot, Context)> {
        let event = |(at, stream): (usize, &&'static str)| {
            let seq = made.first.seq.plus(at as u64);
            let mut held = made.context.clone();
            held.advance(&made.first.origin, Seq(seq.0 - 1));
            (*stream, Dot { origin: made.first.origin.clone(), seq }, held)
        };
        made.streams.iter().enumerate().map(event).collect()
    };
    let all: Vec<_> = log.iter().flat_map(events).collect();
    let mut pairs = BTreeSet::new();
    for (at, (stream, one, one_held)) in all.iter().enumerate() {
        for (_, other, other_held) in all[..at].iter().filter(|(of, ..)| of == stream) {
            if !one_held.covers_dot(other) && !other_held.covers_dot(one) {
                let (low, high) = if one < other { (one, other) } else { (other, one) };
                pairs.insert((*stream, low.clone(), high.clone()));
            }
        }
    }
    pairs
}

/// Walks a log, forgetting what is stable whenever `forget` says so.
fn walk(log: &[Made], members: usize, mut forget: impl FnMut() -> bool) -> Vec<Conflict> {
    let mut recent: BTreeMap<&str, Recent> = BTreeMap::new();
    let mut known: BTreeMap<Origin, Context> = BTreeMap::new();
    let (mut found, mut position) = (Vec::new(), 0);
    for made in log {
        let whole = known.entry(made.first.origin.clone()).or_default();
        whole.merge(&made.context);
        whole.advance(&made.first.origin, made.last());
        for stream in STREAMS {
            let Some((at, events)) = made.of(stream) else { continue };
            let recent = recent.entry(stream).or_default();
            let against = recent.feed(&events, position + at, &made.context);
            if !against.is_empty() {
                found.push(Conflict { stream: stream.into(), events, against });
            }
            if known.len() == members && forget() {
                let stable = known.values().cloned().reduce(|a, b| a.meet(&b)).unwrap();
                recent.prune(&stable);
            }
        }
        position += made.streams.len() as u64;
    }
    found
}

/// The pairs of what was found; each must have been found once.
fn pairs(log: &[Made], found: &[Conflict]) -> BTreeSet<Pair> {
    let of_run = |stream: &str, run: &Run| -> Vec<Dot> {
        let groups = log.iter().filter(|made| made.first.origin == run.origin);
        let dots = groups.flat_map(|made| {
            let dot = |at| Dot { origin: run.origin.clone(), seq: made.first.seq.plus(at) };
            made.streams.iter().zip(0..).map(move |(of, at)| (*of, dot(at)))
        });
        let dots = dots.filter(|(of, dot)| *of == stream && run.holds(&dot.origin, dot.seq));
        dots.map(|(_, dot)| dot).collect()
    };
    let mut pairs = BTreeSet::new();
    for conflict in found {
        let stream = *STREAMS.iter().find(|stream| **stream == &*conflict.stream).unwrap();
        let (events, mut count) = (of_run(stream, &conflict.events), 0);
        assert_eq!(events.len() as u64, conflict.events.events);
        for run in &conflict.against {
            let others = of_run(stream, run);
            assert_eq!(others.len() as u64, run.events);
            for (one, other) in events.iter().flat_map(|e| others.iter().map(move |o| (e, o))) {
                let (low, high) = if one < other { (one, other) } else { (other, one) };
                assert!(
                    pairs.insert((stream, low.clone(), high.clone())),
                    "found twice: {one} {other}"
                );
                count += 1;
            }
        }
        assert_eq!(count, conflict.pairs());
    }
    pairs
}

fn in_global_order(log: &[Made]) -> Vec<Made> {
    let mut log = log.to_vec();
    log.sort_by_key(|made| (made.stamp, made.first.clone()));
    log
}

fn bytes(found: &[Conflict]) -> Vec<u8> {
    let mut out = Vec::new();
    found.iter().for_each(|conflict| conflict.encode(&mut out));
    out
}

#[test]
fn every_order_finds_the_pairs_that_the_definition_says_whatever_is_forgotten() {
    let mut found_any = 0;
    for seed in 0..300 {
        let mut rng = Rng(seed);
        let members = 2 + rng.below(3);
        let regions = history(&mut rng, members, 60);
        for region in &regions {
            let wanted = concurrent(&region.log);
            found_any += wanted.len();
            let found = walk(&region.log, members, || false);
            assert_eq!(pairs(&region.log, &found), wanted, "seed {seed}, regional order");
            let pruned = walk(&region.log, members, || rng.below(2) == 0);
            assert_eq!(pruned, found, "seed {seed}, with forgetting");
            let ordered = in_global_order(&region.log);
            let found = walk(&ordered, members, || rng.below(3) == 0);
            assert_eq!(pairs(&ordered, &found), wanted, "seed {seed}, global order");
        }
    }
    assert!(found_any > 10_000, "only {found_any} pairs: the histories are too tame");
}

#[test]
fn in_the_global_order_all_regions_find_the_same_bytes() {
    for seed in 1000..1100 {
        let mut rng = Rng(seed);
        let regions = history(&mut rng, 3, 40);
        let all = regions.iter().max_by_key(|region| region.held.events()).unwrap();
        let whole = walk(&in_global_order(&all.log), 3, || false);
        for region in regions.iter().filter(|region| region.held == all.held) {
            let found = walk(&in_global_order(&region.log), 3, || rng.below(2) == 0);
            assert_eq!(bytes(&found), bytes(&whole), "seed {seed}");
        }
    }
}

#[test]
fn what_is_kept_and_what_was_found_come_back() {
    let mut recent = Recent::default();
    recent.feed(&run("eu", (3, 5), (7, 7)), 4, &Context::new());
    let context = [(origin("eu"), Seq(2))].into_iter().collect();
    let events = run("us", (1, 1), (9, 9));
    let against = recent.feed(&events, 7, &context);
    assert_eq!(against, [run("eu", (3, 5), (7, 7))]);
    assert_eq!((recent.oldest(), recent.parts()), (Some(4), 2));
    let mut out = Vec::new();
    recent.encode(&mut out);
    assert_eq!(Recent::decode(&mut Reader::new(out.into())), Ok(recent.clone()));
    assert_eq!(recent.shorten(1), 1);
    assert_eq!(recent.oldest(), Some(7), "the oldest goes first");
    let conflict = Conflict { stream: "a-1".into(), events, against };
    let mut out = Vec::new();
    conflict.encode(&mut out);
    assert_eq!(Conflict::decode(&mut Reader::new(out.into())), Ok(conflict.clone()));
    assert_eq!(conflict.pairs(), 3);
    let other = Conflict { events: run("us", (2, 2), (9, 9)), ..conflict.clone() };
    assert_ne!(conflict.id(), other.id());
}

#[test]
fn a_policy_decides_by_the_set_of_events() {
    use Standing::{Kept, Lost, Open, Won};
    let priority = Policy::RegionPriority(vec![RegionName::new("us").unwrap()]);
    // Before it eu:1..3 with stamps 5 to 9; it is us:4, stamped 7.
    let against = [run("eu", (1, 3), (5, 9))];
    for (policy, winner, wanted) in [
        (Policy::KeepAll, None, Kept),
        (Policy::LastWriterWins, None, Lost),
        (Policy::FirstWriterWins, None, Lost),
        (priority.clone(), None, Won),
        (Policy::Resolver, None, Open),
        (Policy::Resolver, Some(dot("us", 4)), Won),
        (Policy::Resolver, Some(dot("eu", 2)), Lost),
        (Policy::Resolver, Some(dot("asia", 1)), Kept),
    ] {
        let standing = policy.standing(&dot("us", 4), Stamp(7), &against, winner.as_ref());
        assert_eq!(standing, wanted, "{policy}");
    }
    let conflict =
        Conflict { stream: "a".into(), events: run("us", (4, 4), (7, 7)), against: against.into() };
    let winner = |policy: &Policy| policy.winner(&conflict, None);
    assert_eq!(winner(&Policy::LastWriterWins), Some(dot("eu", 3)));
    assert_eq!(winner(&Policy::FirstWriterWins), Some(dot("eu", 1)));
    assert_eq!(winner(&priority), Some(dot("us", 4)));
    assert_eq!((winner(&Policy::KeepAll), winner(&Policy::Resolver)), (None, None));
    // Of the same stamp, the origin decides, and the two sides agree.
    let (eu, us) = (run("eu", (1, 1), (7, 7)), run("us", (1, 1), (7, 7)));
    for (policy, winner) in [(Policy::LastWriterWins, &us), (Policy::FirstWriterWins, &eu)] {
        let loser = if winner == &eu { &us } else { &eu };
        let standing = |one: &Run, other: &Run| {
            policy.standing(&one.oldest(), Stamp(7), std::slice::from_ref(other), None)
        };
        assert_eq!((standing(winner, loser), standing(loser, winner)), (Won, Lost));
    }
}

#[test]
fn a_resolution_covers_only_what_was_seen() {
    let context: Context = [(origin("eu"), Seq(5))].into_iter().collect();
    let by = |seq| dot("us", seq);
    let resolved = |seq, stamp, observed: Option<Context>| {
        let resolution = Resolution { winner: dot("eu", 5), observed };
        let back = Resolution::from_json(resolution.to_json().as_bytes());
        assert_eq!(back, Ok(resolution.clone()));
        Resolved::new(by(seq), Stamp(stamp), &context, resolution)
    };
    let seen_less: Context = [(origin("eu"), Seq(4)), (origin("us"), Seq(8))].into_iter().collect();
    let (all, less) = (resolved(9, 20, None), resolved(9, 19, Some(seen_less)));
    let event = dot("us", 3);
    let (four, five) = ([run("eu", (4, 4), (3, 3))], [run("eu", (4, 5), (3, 4))]);
    assert!(all.covers(&event, &five) && less.covers(&event, &four));
    assert!(!less.covers(&event, &five), "eu:5 was not seen");
    assert!(!all.covers(&dot("us", 9), &four), "an event does not resolve itself");
    let both = [all.clone(), less.clone()];
    assert_eq!(first_of(&both, &event, &four), Some(&less), "the first counts");
    assert_eq!(first_of(&both, &event, &five), Some(&all));
    let mut out = Vec::new();
    less.encode(&mut out);
    assert_eq!(Resolved::decode(&mut Reader::new(out.into())), Ok(less));
    for (text, part) in [
        ("[]", "winner is missing"),
        (r#"{"winner":{"region":"EU"}}"#, "winner.region"),
        (r#"{"winner":{"region":"eu","incarnation":"1","shard":0,"seq":1}}"#, "winner.incarnation"),
        (
            r#"{"winner":{"region":"eu","incarnation":"00000000000000000000000000000001","shard":0,"seq":0}}"#,
            "winner.seq",
        ),
        ("no", "no JSON"),
    ] {
        let error = Resolution::from_json(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn of_two_policies_the_higher_version_counts_then_the_later() {
    let declare = |version, policy: &str| {
        serde_json::json!({ "category": "cart", "version": version, "policy": policy }).to_string()
    };
    let (stream, event_type) = (Declaration::stream_of("cart"), Declaration::EVENT_TYPE);
    let events = [
        (dot("eu", 1), Stamp(5), declare(2, "resolver")),
        (dot("us", 1), Stamp(6), declare(2, "keep-all")),
        (dot("us", 2), Stamp(7), declare(1, "last-writer-wins")),
    ];
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
        let mut policies = Declarations::<Declaration>::default();
        for at in order {
            let (dot, stamp, payload) = &events[at];
            policies.take(dot.clone(), *stamp, &stream, event_type, payload.as_bytes()).unwrap();
        }
        let counts = policies.of("cart").unwrap();
        assert_eq!((&counts.declaration.policy, counts.stamp), (&Policy::KeepAll, Stamp(6)));
        let mut out = Vec::new();
        policies.encode(&mut out);
        assert_eq!(Declarations::decode(&mut Reader::new(out.into())), Ok(policies));
    }
    let mut policies = Declarations::<Declaration>::default();
    let mut take = |stream: &str, kind: &str, payload: &str| {
        let taken = policies.take(dot("eu", 1), Stamp(1), stream, kind, payload.as_bytes());
        taken.unwrap_err().to_string()
    };
    assert!(take(&stream, "Other", "{}").contains("its type is Other"));
    assert!(take("$conflicts-file", event_type, &declare(1, "resolver")).contains("about cart"));
    assert!(take(&stream, event_type, &declare(0, "resolver")).contains("version"));
    assert!(take(&stream, event_type, &declare(1, "coin")).contains("\"coin\""));
    assert!(take(&stream, event_type, &declare(1, "region-priority")).contains("0 regions"));
    let regions =
        r#"{"category":"cart","version":1,"policy":"region-priority","regions":["eu","eu"]}"#;
    assert!(take(&stream, event_type, regions).contains("eu twice"));
}
