//! What a region lists as conflicts, in a form that can be held against what another region lists.
//!
//! In regional order two regions list the same pairs of concurrent events, each in another arrangement.

use std::collections::BTreeSet;

use anabranch_client::{Dot, FoundConflict, Run};

/// An event that somebody wrote, and what it does.
#[derive(Debug, Clone)]
pub(super) struct Written {
    pub dot: Dot,
    pub says: &'static str,
}

/// Pairs of concurrent events: by place among those that were written, the lower one first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Clashes {
    pairs: BTreeSet<(usize, usize)>,
    /// Pairs that the region counts beyond these.
    strange: u64,
}

impl Clashes {
    pub fn of(listed: &[FoundConflict], written: &[Written]) -> Self {
        let places = |run: &Run| {
            let held = |(_, event): &(usize, &Written)| run.holds(&event.dot.origin, event.dot.seq);
            let held: Vec<_> = written.iter().enumerate().filter(held).map(|(at, _)| at).collect();
            held
        };
        let mut clashes = Self::default();
        let mut told = 0;
        for FoundConflict { events, against, pairs, .. } in listed {
            let events = places(events);
            for other in against.iter().flat_map(places) {
                clashes.pairs.extend(events.iter().map(|at| (*at.min(&other), *at.max(&other))));
            }
            told += pairs;
        }
        clashes.strange = told.abs_diff(clashes.pairs.len() as u64);
        clashes
    }

    /// Everything that one region wrote against everything that the other wrote meanwhile.
    pub fn between(written: &[Written]) -> Self {
        let regions = written.iter().map(|event| &event.dot.origin.region).enumerate();
        let pairs = regions.clone().flat_map(|(at, region)| {
            regions.clone().filter(move |(_, other)| region < *other).map(move |(to, _)| (at, to))
        });
        Self { pairs: pairs.map(|(at, to)| (at.min(to), at.max(to))).collect(), strange: 0 }
    }

    /// By what the events do.
    pub fn to_text(&self, written: &[Written]) -> String {
        let pair = |(one, other): &(usize, usize)| {
            format!("{} / {}", written[*one].says, written[*other].says)
        };
        let mut pairs: Vec<_> = self.pairs.iter().map(pair).collect();
        if self.strange > 0 {
            pairs.push(format!("{} other pairs", self.strange));
        }
        pairs.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use anabranch_client::{ConflictStanding, Cursor, Order};
    use anabranch_core::conflict::ConflictId;
    use anabranch_core::{Context, Incarnation, Origin, RegionName, Seq, ShardId, Stamp};

    use super::*;

    fn dot(region: &str, seq: u64) -> Dot {
        let region = RegionName::new(region).unwrap();
        let origin = Origin { region, incarnation: Incarnation(1), shard: ShardId(0) };
        Dot { origin, seq: Seq(seq) }
    }

    /// From `first` to `last`, with one event of another stream in the middle.
    fn run(region: &str, [first, last]: [u64; 2]) -> Run {
        let events = if first == last { 1 } else { last - first };
        Run { last: Seq(last), events, ..Run::of(&dot(region, first), Stamp(1)) }
    }

    fn conflict(events: Run, against: Run) -> FoundConflict {
        FoundConflict {
            id: ConflictId([0; 16]),
            stream: "cart-1".into(),
            pairs: events.events * against.events,
            events,
            against: vec![against],
            position: 0,
            policy: "keep-all".into(),
            standing: ConflictStanding::Kept,
            winner: None,
            resolved_by: None,
            cursor: Cursor { order: Order::Regional, context: Context::default() },
        }
    }

    fn written() -> [Written; 4] {
        [("eu", 1, "a"), ("us", 7, "b"), ("eu", 3, "c"), ("us", 8, "d")]
            .map(|(region, seq, says)| Written { dot: dot(region, seq), says })
    }

    #[test]
    fn the_same_pairs_in_another_arrangement_are_the_same() {
        let written = written();
        let in_eu = [7, 8].map(|seq| conflict(run("us", [seq; 2]), run("eu", [1, 3])));
        // The other region compares one run of two events that it wrote apart.
        let in_us =
            [1, 3].map(|seq| conflict(run("eu", [seq; 2]), Run { events: 2, ..run("us", [7, 8]) }));
        let [eu, us] = [&in_eu, &in_us].map(|listed| Clashes::of(listed, &written));
        assert_eq!(eu, us);
        assert_eq!(eu, Clashes::between(&written));
        assert_eq!(eu.to_text(&written), "a / b, a / d, b / c, c / d");
    }

    #[test]
    fn pairs_that_are_missing_or_that_nobody_wrote_are_seen() {
        let written = written();
        let listed = [7, 8].map(|seq| conflict(run("us", [seq; 2]), run("eu", [1, 3])));
        let all = Clashes::of(&listed, &written);
        assert_ne!(Clashes::of(&listed[..1], &written), all);
        let strange = Clashes::of(&listed, &written[..3]);
        assert_ne!(strange, Clashes::between(&written[..3]));
        assert_eq!(strange.to_text(&written), "a / b, b / c, 2 other pairs");
        assert_eq!(Clashes::of(&[], &written).to_text(&written), "");
    }
}
