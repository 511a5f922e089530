//! Law 11, for reads: what a stream, a category or a prefix selects is what reading everything shows.
//!
//! Source: DESIGN.md law 11 and section 10: an index, a filter and a segment that is passed over change
//! how fast an answer comes, never what it is. Each selection of the region's final read is held
//! against the whole, in order.
//!
//! It cannot see: streams that nobody drew; reads from the middle (`walks.rs`, `cursor.rs`); and what
//! came after everything was read, which is passed over.

use std::collections::{BTreeMap, BTreeSet};

use anabranch_client::{Dot, Order};

use super::{Broken, Verdict};
use crate::case::Case;
use crate::evidence::{Seen, Selection};

/// Holds every selection against the whole.
pub fn check(case: &Case<'_>) -> Verdict {
    let mut verdict =
        Verdict::new("selections", "a stream, a category or a prefix shows what the whole shows");
    let mut held: BTreeMap<(&str, bool), BTreeSet<&Dot>> = BTreeMap::new();
    for selection in &case.evidence.selections {
        let Selection { region, part, order, backwards, shown } = selection;
        let Some(read) = case.evidence.regions.get(region) else { continue };
        let whole: &[Seen] = match order {
            Order::Regional => &read.regional,
            Order::Global => &read.global,
        };
        let mut wanted: Vec<&Dot> =
            whole.iter().filter(|seen| part.holds(&seen.stream)).map(|seen| &seen.dot).collect();
        if *backwards {
            wanted.reverse();
        }
        let all = held
            .entry((region, *order == Order::Global))
            .or_insert_with(|| whole.iter().map(|seen| &seen.dot).collect());
        let known: Vec<&Dot> = shown.iter().filter(|dot| all.contains(dot)).collect();
        verdict.check(known == wanted, || {
            let odd = (0..).find(|at| known.get(*at) != wanted.get(*at)).expect("they differ");
            let (known_there, wanted_there) = (known.get(odd), wanted.get(odd));
            let words = format!(
                "{region} shows {} events of {part:?} in {order:?} order, backwards: {backwards}, \
                 and {} in the whole: event {odd} is {known_there:?}, should be {wanted_there:?}",
                known.len(),
                wanted.len(),
            );
            let dots = known_there.into_iter().chain(wanted_there);
            dots.fold(Broken::new(words), |broken, dot| broken.dot(dot).ops(case.op_of(dot)))
        });
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::{judge, sound};
    use crate::evidence::Part;

    #[test]
    fn a_selection_that_lacks_adds_or_turns_round_is_found() {
        assert!(judge(check, &sound()).holds());
        for at in 0..sound().selections.len() {
            let changed = |change: fn(&mut Vec<Dot>)| {
                let mut evidence = sound();
                change(&mut evidence.selections[at].shown);
                judge(check, &evidence)
            };
            let lacks = changed(|shown| drop(shown.remove(1)));
            assert_eq!(lacks.broken, 1, "{:?}", lacks.words);
            let dot = &sound().selections[at].shown[1];
            assert!(lacks.dots.contains(dot), "{:?}", lacks.words);
            assert_eq!(changed(Vec::clear).broken, 1);
            assert_eq!(changed(|shown| shown.reverse()).broken, 1);
            assert_eq!(changed(|shown| shown.push(shown[0].clone())).broken, 1);
        }
    }

    #[test]
    fn an_event_of_another_stream_is_found_and_one_that_came_later_is_not() {
        let mut evidence = sound();
        let elsewhere = evidence.regions["eu"].regional[0].dot.clone();
        evidence.selections[0].shown.push(elsewhere);
        assert_eq!(judge(check, &evidence).broken, 1);
        let mut evidence = sound();
        let mut later = evidence.selections[0].shown[0].clone();
        later.seq.0 += 100;
        evidence.selections[0].shown.push(later);
        assert!(judge(check, &evidence).holds());
    }

    #[test]
    fn parts_hold_what_belongs_to_them() {
        assert!(Part::Category("cart".into()).holds("cart-1"));
        assert!(!Part::Category("cart".into()).holds("carts-1"));
        assert!(Part::Prefix("cart".into()).holds("carts-1"));
        assert!(!Part::Stream("cart".into()).holds("cart-1"));
    }
}
