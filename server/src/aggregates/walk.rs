//! Going through the global order: every final event goes to what is settled of its category.

use std::collections::BTreeMap;
use std::sync::Arc;

use anabranch_core::Context;
use anabranch_core::event::category;

use super::follow::{PASS_EVENTS, Pass, PassError, seen};
use super::projection::Projection;
use super::settled::Settled;
use crate::read::{Order, View};
use crate::stability::Stability;

/// A way through the global order.
pub(super) struct Walk {
    order: Order,
    stability: Stability,
}

/// What came of a pass.
pub(super) struct Walked {
    pub(super) pass: Pass,
    /// Whether readers may see something new.
    pub(super) news: bool,
}

impl Walk {
    /// Goes on after `cut`, which is a cut of the global order.
    pub(super) fn after(cut: Context) -> Self {
        Self { order: Order::after(cut), stability: Stability::default() }
    }

    /// Gives what is final to those of `to`, by category, that have ordered fields; not too much at once.
    pub(super) fn pass(
        &mut self,
        view: &impl View,
        to: &BTreeMap<String, Arc<Projection>>,
    ) -> Result<Walked, PassError> {
        let finality = view.finality();
        view.region(|region| self.stability.hear(region));
        let begin = self.order.position();
        let settled = |name: &str| to.get(name).and_then(|of| of.settled());
        let mut news = false;
        let mut before = self.order.cut().clone();
        while self.order.position() < begin + PASS_EVENTS {
            let Some(next) = self.order.next(view.store(), &finality)? else {
                let cut = self.order.cut();
                // After a start, what was applied before may be on its way in again.
                if finality.frontier().covers(cut) {
                    for of in to.values().filter_map(|of| of.settled()) {
                        news |= of.came_to_the_end(cut);
                    }
                }
                return Ok(Walked { pass: Pass::Done, news });
            };
            let slice = &next.group.item;
            self.stability.pass_in_order(slice.group(), self.order.cut());
            let wanted = seen(slice, |name| settled(name).is_some());
            let wanted = wanted.filter(|seen| seen.dot.seq >= next.first);
            let mut by_category: BTreeMap<String, Vec<_>> = BTreeMap::new();
            for seen in wanted {
                by_category.entry(category(&seen.event.stream).to_owned()).or_default().push(seen);
            }
            for (name, events) in by_category {
                if let Some(of) = settled(&name) {
                    of.take(&before, &events, self.stability.cut())?;
                    news = true;
                }
            }
            before.advance(&next.origin, next.group.last);
        }
        to.values().filter_map(|of| of.settled()).for_each(|of| of.passed(&before));
        Ok(Walked { pass: Pass::More, news })
    }

    /// Everything before the next group.
    pub(super) fn cut(&self) -> &Context {
        self.order.cut()
    }
}

/// Where a walk begins that all of them need: at the earliest of their cuts.
pub(super) fn earliest<'a>(all: impl Iterator<Item = &'a Settled>) -> Option<Context> {
    all.map(Settled::cut).reduce(|a, b| if a.covers(&b) { b } else { a })
}
