//! What every region holds, as of a place in the log, or in the global order.

use std::collections::BTreeMap;

use anabranch_core::planted::{self, Bug};
use anabranch_core::region::Region;
use anabranch_core::{Context, Group, Origin, RegionName};

/// A cut that every member region held before it made anything that comes later in this log.
///
/// A group says what its region held: everything in its context, and all of its own before it. What a
/// region said of itself between its groups counts from the place in the log where it was heard.
#[derive(Debug, Default)]
pub(crate) struct Stability {
    members: Vec<RegionName>,
    known: BTreeMap<Origin, Context>,
    heard: Option<(u64, Vec<(Origin, Context)>)>,
    cut: Context,
    stale: bool,
}

impl Stability {
    /// Hears what regions say of themselves now, unless the last is not used up yet.
    pub(crate) fn hear(&mut self, region: &Region) {
        if self.heard.is_some() {
            return;
        }
        self.members = region.members().to_vec();
        let own = region.origin().cloned().map(|origin| (origin, region.frontier().clone()));
        let peers = region.peers().map(|peer| (peer.origin.clone(), peer.frontier.clone()));
        self.heard = Some((region.position(), own.into_iter().chain(peers).collect()));
    }

    /// The next group of the log is taken in; it begins at `position`.
    pub(crate) fn pass(&mut self, group: &Group, position: u64) {
        if let Some((_, heard)) = self.heard.take_if(|(from, _)| *from <= position) {
            self.learn(heard);
        }
        self.take_in(group);
    }

    /// The same along the global order: `cut` is everything up to the end of the group. What regions said
    /// of themselves counts once all that they had made by then is behind.
    pub(crate) fn pass_in_order(&mut self, group: &Group, cut: &Context) {
        let made = |(origin, held): &(Origin, Context)| held.seq(origin) <= cut.seq(origin);
        if let Some((_, heard)) = self.heard.take_if(|(_, heard)| heard.iter().all(made)) {
            self.learn(heard);
        }
        self.take_in(group);
    }

    fn learn(&mut self, heard: Vec<(Origin, Context)>) {
        for (origin, frontier) in heard {
            self.known.entry(origin).or_default().merge(&frontier);
        }
    }

    fn take_in(&mut self, group: &Group) {
        let known = self.known.entry(group.origin().clone()).or_default();
        known.merge(&group.header().context);
        known.advance(group.origin(), group.last());
        self.stale = true;
    }

    /// The cut; empty while nothing is known of one of the members.
    pub(crate) fn cut(&mut self) -> &Context {
        if planted::is(Bug::StableWhenHeldHere) {
            self.cut = self.known.values().fold(Context::new(), |mut held, known| {
                held.merge(known);
                held
            });
            return &self.cut;
        }
        if std::mem::take(&mut self.stale) {
            let of = |member: &RegionName| {
                self.known.iter().find(|(origin, _)| origin.region == *member).map(|(_, held)| held)
            };
            let held: Option<Vec<&Context>> = self.members.iter().map(of).collect();
            let meet = |held: Vec<&Context>| held.into_iter().cloned().reduce(|a, b| a.meet(&b));
            self.cut = held.and_then(meet).unwrap_or_default();
        }
        &self.cut
    }
}

#[cfg(test)]
mod tests {
    use anabranch_core::{Seq, ShardId};

    use super::*;
    use crate::read::testing::{Site, event, origin};

    fn cut(seqs: &[(&str, u64)]) -> Context {
        seqs.iter().map(|(region, seq)| (origin(region), Seq(*seq))).collect()
    }

    fn followed(site: &Site) -> Stability {
        let mut stability = Stability::default();
        site.state.region(|region| {
            stability.members = region.members().to_vec();
        });
        let mut next = 0;
        let store = site.state.store();
        let forward = anabranch_log::index::Direction::Forward;
        loop {
            let slices = store.read_positions(next, forward, 100, 1 << 20).unwrap();
            let Some(last) = slices.last() else { return stability };
            next = last.positions().end;
            slices.iter().for_each(|slice| stability.pass(slice.group(), slice.positions().start));
        }
    }

    #[test]
    fn what_is_in_every_regions_context_is_stable() {
        assert_eq!(origin("eu").shard, ShardId(0));
        let (eu, us) = (Site::new("eu", &["eu", "us"], 8), Site::new("us", &["eu", "us"], 8));
        eu.append(1, vec![vec![event("a-1", "E", 1), event("a-1", "E", 1)]]);
        assert_eq!(followed(&eu).cut(), &Context::new(), "nothing is known of us");
        us.import(&eu, 9);
        us.append(2, vec![vec![event("a-1", "E", 1)]]);
        eu.import(&us, 9);
        assert_eq!(followed(&eu).cut(), &cut(&[("eu", 2)]), "us held eu's two when it wrote");
        eu.append(3, vec![vec![event("a-1", "E", 1)]]);
        assert_eq!(followed(&eu).cut(), &cut(&[("eu", 2), ("us", 1)]), "eu holds us's, too");
    }

    #[test]
    fn what_a_region_says_of_itself_counts_from_where_it_was_heard() {
        let (eu, us) = (Site::new("eu", &["eu", "us"], 8), Site::new("us", &["eu", "us"], 8));
        eu.append(3, vec![vec![event("a-1", "E", 1)]]);
        us.import(&eu, 9);
        us.append(2, vec![vec![event("a-1", "E", 1)]]);
        eu.import(&us, 9);
        let mut stability = followed(&eu);
        eu.append(3, vec![vec![event("a-1", "E", 1)]]);
        eu.state.region(|region| stability.hear(region));
        assert_eq!(stability.cut(), &cut(&[("eu", 1)]), "heard after three events, two are passed");
        let slices = eu.state.store();
        let slices =
            slices.read_positions(2, anabranch_log::index::Direction::Forward, 9, 1 << 20).unwrap();
        stability.pass(slices[0].group(), 2);
        assert_eq!(stability.cut(), &cut(&[("eu", 1), ("us", 1)]));
    }
}
