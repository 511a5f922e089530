//! How each region sees itself and the others, asked through its API a few times a second.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anabranch_client::{Client, wire};
use anabranch_core::RegionName;
use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Pause between two questions.
const EVERY: Duration = Duration::from_millis(250);
/// A node that takes longer counts as silent.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);

/// A region as it described itself last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sight {
    /// Number of the node that leads; 0 if none does.
    pub leader: u64,
    /// How often another node was seen to lead than before.
    pub leader_changes: u64,
    /// Events held, by the region they are of.
    pub held: BTreeMap<String, u64>,
    /// Length of the global order that is final there.
    pub global_position: u64,
    /// Regions that the global order waits for.
    pub blocked_by: Vec<String>,
    /// Member regions that it has heard of, itself included.
    pub known: usize,
    /// The last leader, and its term.
    last: (u64, u64),
}

impl Sight {
    /// Takes what those nodes of the region said that answered.
    fn update(&mut self, answers: Vec<wire::StatusResponse>) {
        // Who is behind believes in a leader of an older term; the leader itself knows most.
        let authority = |s: &wire::StatusResponse| (s.term, s.leader == s.node, s.applied_index);
        let Some(status) = answers.into_iter().max_by_key(authority) else { return };
        self.leader = if status.leader == status.node { status.leader } else { 0 };
        let (term, leader) = self.last;
        if self.leader != 0 && status.term > term {
            self.leader_changes += u64::from(leader != 0 && leader != self.leader);
            self.last = (status.term, self.leader);
        }
        let dots = status.frontier.into_iter().flat_map(|context| context.dots);
        self.held = dots.filter_map(|dot| Some((dot.origin?.region, dot.seq))).collect();
        self.global_position = status.global_position;
        self.blocked_by = status.blocked_by;
        self.known = status.regions.iter().filter(|r| !r.incarnation.is_empty()).count();
    }
}

/// What every region says of itself.
pub type Sights = Arc<Mutex<BTreeMap<RegionName, Sight>>>;

/// Asks all nodes of `region` again and again, until stopped. `nodes` has a client for each.
pub async fn watch(
    nodes: Vec<Client>,
    region: RegionName,
    sights: Sights,
    stop: CancellationToken,
) {
    let ask = async {
        loop {
            let asked = nodes.iter().map(|node| timeout(ANSWER_WITHIN, node.status()));
            let answers = join_all(asked).await.into_iter().flatten().flatten().collect();
            sights.lock().entry(region.clone()).or_default().update(answers);
            sleep(EVERY).await;
        }
    };
    stop.run_until_cancelled(ask).await;
}

/// Waits until every region has a leader and has heard of all `regions`.
///
/// # Errors
/// Which regions have not, after `within`.
pub async fn ready(
    sights: &Sights,
    regions: &[RegionName],
    within: Duration,
) -> Result<(), Vec<RegionName>> {
    let lacking = || {
        let sights = sights.lock();
        let is_ready = |name: &&RegionName| {
            sights.get(*name).is_some_and(|s| s.leader != 0 && s.known == regions.len())
        };
        regions.iter().filter(|name| !is_ready(name)).cloned().collect::<Vec<_>>()
    };
    let all = async {
        while !lacking().is_empty() {
            sleep(EVERY / 5).await;
        }
    };
    tokio::time::timeout(within, all).await.map_err(|_| lacking())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_leader_of_the_newest_term_is_believed_and_its_changes_are_counted() {
        let says =
            |node, leader, term| wire::StatusResponse { node, leader, term, ..Default::default() };
        let mut sight = Sight::default();
        sight.update(vec![says(1, 1, 1), says(2, 1, 1)]);
        assert_eq!((sight.leader, sight.leader_changes), (1, 0));
        sight.update(vec![says(2, 1, 1), says(3, 1, 1)]);
        assert_eq!(sight.leader, 0, "nobody says that it leads");
        sight.update(vec![says(2, 2, 2), says(3, 1, 1)]);
        assert_eq!((sight.leader, sight.leader_changes), (2, 1));
        sight.update(vec![says(1, 1, 1), says(2, 2, 2)]);
        assert_eq!(
            (sight.leader, sight.leader_changes),
            (2, 1),
            "a deposed leader is not believed"
        );
        sight.update(vec![says(2, 2, 3)]);
        assert_eq!((sight.leader, sight.leader_changes), (2, 1), "again the same");
        sight.update(Vec::new());
        assert_eq!(sight.leader, 2, "no answer, no news");
    }
}
