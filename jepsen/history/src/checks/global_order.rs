//! Law 6: what one region has delivered at global position p, every region (also one later removed)
//! delivers at p; nothing is inserted before it; the watermark never goes back.
//!
//! Source: DESIGN.md law 6; reliability table P3. The order is that of (stamp, origin, seq). A
//! position has one event for ever: in the final reads, in what regions showed before they were lost,
//! and in what subscribers were given at any time. During the run, two nodes that have ordered the
//! same number of events have the same hash over them, and within one life of a node its watermark,
//! its frontier and what it has ordered never go back.
//!
//! It cannot see: an order that was taken back between two observations of a node, unless somebody
//! was given it; what a node of a lost region showed to nobody.

use std::collections::BTreeMap;

use anabranch_client::{Dot, Order, Origin, Stamp};
use bytes::Bytes;

use super::{Broken, Verdict};
use crate::case::Case;
use crate::evidence::Seen;
use crate::observation::Observation;

/// Holds everything that tells of the global order against everything else.
pub fn check(case: &Case<'_>) -> Verdict {
    let mut verdict = Verdict::new("global_order", "the global order is one, for ever");
    let mut order: BTreeMap<u64, (String, &Dot)> = BTreeMap::new();
    let mut showings: Vec<(String, Vec<(u64, &Dot)>)> = Vec::new();
    for (region, read) in case.evidence.regions.iter().chain(&case.evidence.before_loss) {
        sorted(&mut verdict, case, region, &read.global);
        let shown = read.global.iter().map(|seen| (seen.place, &seen.dot)).collect();
        showings.push((region.clone(), shown));
    }
    for given in case.evidence.subscribed.iter().filter(|given| given.order == Order::Global) {
        let given_at_all = given.events.iter().chain(&given.forgotten);
        let shown = given_at_all.map(|(place, dot)| (*place, dot)).collect();
        showings.push((given.name.clone(), shown));
    }
    for (name, shown) in showings {
        for (place, dot) in shown {
            let (first, one) = order.entry(place).or_insert_with(|| (name.clone(), dot));
            verdict.check(*one == dot, || {
                let words = format!("at {place} {first} shows {one}, {name} shows {dot}");
                let ops = [*one, dot].into_iter().filter_map(|dot| case.op_of(dot));
                Broken::new(words).dot(one).dot(dot).ops(ops)
            });
        }
    }
    check_chains(&mut verdict, case);
    check_lives(&mut verdict, &case.evidence.history.observations);
    verdict
}

fn sorted(verdict: &mut Verdict, case: &Case<'_>, region: &str, order: &[Seen]) {
    for pair in order.windows(2) {
        verdict.check(key(&pair[0]) < key(&pair[1]), || {
            let words = format!("{region} shows {} before {}", pair[0].dot, pair[1].dot);
            let ops = pair.iter().filter_map(|seen| case.op_of(&seen.dot));
            Broken::new(words).dot(&pair[0].dot).dot(&pair[1].dot).ops(ops)
        });
    }
}

fn key(seen: &Seen) -> (Stamp, &Origin, u64) {
    (seen.stamp, &seen.dot.origin, seen.dot.seq.0)
}

/// One hash a position, whoever says it and whenever.
fn check_chains(verdict: &mut Verdict, case: &Case<'_>) {
    let mut chains: BTreeMap<u64, (String, &Bytes)> = BTreeMap::new();
    let observed = case.evidence.history.observations.iter().enumerate();
    let observed = observed.filter_map(|(at, seen)| {
        let chain = seen.global_chain.as_ref()?;
        let name = format!("{} at {:.3?}", seen.name(), seen.at);
        Some((Some(at), name, seen.global_position, chain))
    });
    let last = case.evidence.prints.iter().map(|(node, print)| {
        (None, format!("{node} in the end"), print.global_position, &print.global_chain)
    });
    let mut by: BTreeMap<u64, Option<usize>> = BTreeMap::new();
    for (at, name, position, chain) in observed.chain(last) {
        let (first, one) = chains.entry(position).or_insert_with(|| (name.clone(), chain));
        let first_at = *by.entry(position).or_insert(at);
        verdict.check(*one == chain, || {
            let words =
                format!("{first} and {name} have other hashes of the first {position} events");
            [first_at, at].into_iter().flatten().fold(Broken::new(words), Broken::observation)
        });
    }
}

/// Within one life of a node nothing goes back.
fn check_lives(verdict: &mut Verdict, observations: &[Observation]) {
    let mut last: BTreeMap<(&str, u32, u32), usize> = BTreeMap::new();
    for (at, seen) in observations.iter().enumerate() {
        let Some(before) = last.insert((&seen.region, seen.node, seen.life), at) else { continue };
        let earlier = &observations[before];
        let back = |what: String| {
            let words = format!("{} went back: {what}", seen.name());
            Broken::new(words).observation(before).observation(at)
        };
        verdict.check(earlier.global_position <= seen.global_position, || {
            let (one, other) = (earlier.global_position, seen.global_position);
            back(format!("from global position {one} to {other}"))
        });
        verdict.check(seen.frontier.covers(&earlier.frontier), || {
            back(format!("it held {}, then {}", earlier.frontier, seen.frontier))
        });
        if let (Some(one), Some(other)) = (earlier.watermark, seen.watermark) {
            verdict.check(one <= other, || back(format!("from watermark {one} to {other}")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::{judge, renumber, sound};

    #[test]
    fn two_events_that_changed_places_are_found() {
        let mut evidence = sound();
        assert!(judge(check, &evidence).holds(), "{:?}", judge(check, &evidence).words);
        let global = &mut evidence.regions.get_mut("us").unwrap().global;
        global.swap(1, 2);
        renumber(global);
        let verdict = judge(check, &evidence);
        assert_eq!(verdict.broken, 2 + 1, "two positions differ, one pair is turned");
    }

    #[test]
    fn what_was_once_delivered_stays_also_if_the_region_is_lost() {
        let mut given = sound();
        given.subscribed[0].events.swap(0, 1);
        let events = &mut given.subscribed[0].events;
        (events[0].0, events[1].0) = (0, 1);
        assert_eq!(judge(check, &given).broken, 2);
        let mut lost = sound();
        let mut eu = lost.regions["eu"].clone();
        eu.global.truncate(3);
        eu.global.remove(0);
        renumber(&mut eu.global);
        lost.before_loss.insert("asia".into(), eu);
        assert_eq!(judge(check, &lost).broken, 2);
    }

    #[test]
    fn hashes_that_differ_at_one_position_are_found_with_who_said_so() {
        let mut evidence = sound();
        evidence.history.observations[1].global_chain = Some(vec![9; 16].into());
        let verdict = judge(check, &evidence);
        assert_eq!(verdict.broken, 1, "{:?}", verdict.words);
        assert_eq!(verdict.observations, [0, 1].into());
    }

    #[test]
    fn a_node_goes_back_only_from_one_life_to_the_next() {
        let mut evidence = sound();
        let mut later = evidence.history.observations[0].clone();
        later.watermark = Some(Stamp(1));
        (later.global_position, later.global_chain) = (0, None);
        (later.position, later.frontier) = (0, anabranch_client::Context::new());
        later.life = 1;
        evidence.history.observations.push(later);
        assert!(judge(check, &evidence).holds(), "a new life");
        evidence.history.observations.last_mut().unwrap().life = 0;
        assert_eq!(judge(check, &evidence).broken, 3, "watermark, frontier, position");
    }
}
