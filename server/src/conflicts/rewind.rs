//! From where a walk must be repeated after a start.

use std::collections::VecDeque;

use anabranch_core::Context;

/// Groups of one stage, at first.
const STAGE_GROUPS: u64 = 64;
/// Stages that are remembered; beyond it, each becomes twice as long.
const STAGES_MAX: usize = 1024;

/// Remembers where the oldest event was that something to come may not have seen, roughly: in stages.
///
/// So nothing about single events has to be written down: after a start, the events from there on are
/// walked past once more.
pub(super) struct Rewind {
    stages: VecDeque<Stage>,
    stage_groups: u64,
}

struct Stage {
    start: Context,
    end: Context,
    groups: u64,
}

impl Rewind {
    pub(super) fn new() -> Self {
        Self { stages: VecDeque::new(), stage_groups: STAGE_GROUPS }
    }

    /// A group was walked past: from `before` to `after`. True at the end of a stage.
    pub(super) fn pass(&mut self, before: &Context, after: &Context) -> bool {
        let full = |stage: &Stage| stage.groups >= self.stage_groups;
        if self.stages.back().is_none_or(full) {
            self.stages.push_back(Stage { start: before.clone(), end: before.clone(), groups: 0 });
        }
        let ended = self.stages.back_mut().is_some_and(|stage| {
            stage.groups += 1;
            stage.end.clone_from(after);
            stage.groups >= self.stage_groups
        });
        if self.stages.len() > STAGES_MAX {
            self.lengthen();
        }
        ended
    }

    fn lengthen(&mut self) {
        self.stage_groups *= 2;
        let mut stages = std::mem::take(&mut self.stages).into_iter();
        while let Some(mut stage) = stages.next() {
            if let Some(next) = stages.next() {
                (stage.end, stage.groups) = (next.end, stage.groups + next.groups);
            }
            self.stages.push_back(stage);
        }
    }

    /// Where to begin again: everything before it is stable. `walked` is everything so far.
    pub(super) fn from(&mut self, stable: &Context, walked: &Context) -> Context {
        while self.stages.front().is_some_and(|stage| stable.covers(&stage.end)) {
            self.stages.pop_front();
        }
        self.stages.front().map_or_else(|| walked.clone(), |stage| stage.start.clone())
    }
}

#[cfg(test)]
mod tests {
    use anabranch_core::Seq;

    use super::*;
    use crate::read::testing::origin;

    fn cut(seq: u64) -> Context {
        [(origin("eu"), Seq(seq))].into_iter().collect()
    }

    #[test]
    fn a_walk_is_repeated_from_before_the_oldest_that_is_not_stable() {
        let mut rewind = Rewind::new();
        let groups = STAGE_GROUPS * STAGES_MAX as u64 * 5;
        for seq in 0..groups {
            rewind.pass(&cut(seq), &cut(seq + 1));
        }
        assert!(rewind.stages.len() <= STAGES_MAX, "{} stages", rewind.stages.len());
        for stable in [0, 1, 1000, groups - 1] {
            let from = rewind.from(&cut(stable), &cut(groups)).events();
            assert!(from <= stable, "{stable} is stable, and {from} is where it begins");
            assert!(stable - from <= rewind.stage_groups, "{stable} is stable, and not {from}");
        }
        assert_eq!(rewind.from(&cut(groups), &cut(groups)), cut(groups));
    }
}
