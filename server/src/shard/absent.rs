//! Says which nodes do not answer, and that nobody leads: once, and again when it is over.

use std::collections::BTreeMap;
use std::time::Duration;

use anabranch_core::{RegionName, ShardId};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::raft::{GroupStatus, RaftGroup, Role};

/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Silence that is worth a line: longer than an election, and than a node's restart often takes.
const SILENCE: Duration = Duration::from_secs(5);

/// What changed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Line {
    Silent { node: u64, for_so_long: Duration },
    Answers { node: u64, after: Duration },
    Leaderless { for_so_long: Duration },
    Led { leader: u64, after: Duration },
}

/// Who has been silent since when, and of whom that was said.
#[derive(Debug, Default)]
struct Absences {
    nodes: BTreeMap<u64, Absence>,
    leader: Option<Absence>,
}

#[derive(Debug)]
struct Absence {
    since: Instant,
    said: bool,
}

impl Absences {
    /// Takes a look at the group, of which this node is `own`. A node that stops to lead knows nothing
    /// of the others any more; one that has no vote yet, or no more, waits for nobody.
    fn look(&mut self, now: Instant, own: u64, group: &GroupStatus) -> Vec<Line> {
        let mut lines = Vec::new();
        match group.leader {
            Some(leader) => {
                let over = self.leader.take().filter(|absence| absence.said);
                let led = |absence: Absence| Line::Led { leader, after: now - absence.since };
                lines.extend(over.map(led));
            }
            None if !group.voters.contains_key(&own) => self.leader = None,
            None => {
                let absence = self.leader.get_or_insert(Absence { since: now, said: false });
                let line = |for_so_long| Line::Leaderless { for_so_long };
                lines.extend(absence.say(now).map(line));
            }
        }
        if group.role != Role::Leader {
            self.nodes.clear();
            return lines;
        }
        self.nodes.retain(|node, _| group.followers.contains_key(node));
        for (node, follower) in &group.followers {
            let (node, silent) = (*node, follower.silent);
            // One that never answered is silent since it was first missed.
            if silent.is_some_and(|silent| silent < SILENCE) {
                let over = self.nodes.remove(&node).filter(|absence| absence.said);
                let answers = |absence: Absence| Line::Answers { node, after: now - absence.since };
                lines.extend(over.map(answers));
                continue;
            }
            let since = silent.and_then(|silent| now.checked_sub(silent)).unwrap_or(now);
            let absence = self.nodes.entry(node).or_insert(Absence { since, said: false });
            let line = |for_so_long| Line::Silent { node, for_so_long };
            lines.extend(absence.say(now).map(line));
        }
        lines
    }
}

impl Absence {
    /// How long it has lasted, if that is to be said now.
    fn say(&mut self, now: Instant) -> Option<Duration> {
        let lasted = now - self.since;
        let say = !self.said && lasted >= SILENCE;
        self.said |= say;
        say.then_some(lasted)
    }
}

/// Watches the group until `stop`.
pub(super) async fn keep(region: RegionName, raft: RaftGroup, mut stop: watch::Receiver<bool>) {
    let (mut absences, own) = (Absences::default(), raft.identity().node().0);
    loop {
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            () = sleep(LOOK_EVERY) => {}
        }
        for line in absences.look(Instant::now(), own, &raft.status()) {
            tell(&region, raft.shard(), &line);
        }
    }
}

fn tell(region: &RegionName, shard: ShardId, line: &Line) {
    match line {
        Line::Silent { node, for_so_long } => {
            tracing::warn!(%region, %shard, node, ?for_so_long, "a node does not answer the leader");
        }
        Line::Answers { node, after } => {
            tracing::info!(%region, %shard, node, ?after, "a node answers again");
        }
        Line::Leaderless { for_so_long } => {
            tracing::warn!(%region, %shard, ?for_so_long, "nobody leads the shard, as this node sees it");
        }
        Line::Led { leader, after } => {
            tracing::info!(%region, %shard, leader, ?after, "the shard is led again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::{FollowerStatus, Node};

    fn node() -> Node {
        Node { raft_address: "a:1".into(), api_address: "a:2".into() }
    }
    fn led(silent: &[(u64, Option<u64>)]) -> GroupStatus {
        let follower = |(node, silent): &(u64, Option<u64>)| {
            let silent = silent.map(Duration::from_secs);
            (*node, FollowerStatus { matched: 0, lag: 0, silent })
        };
        let followers = silent.iter().map(follower).collect();
        GroupStatus { role: Role::Leader, leader: Some(1), followers, ..status() }
    }
    fn status() -> GroupStatus {
        GroupStatus {
            role: Role::Follower,
            term: 1,
            leader: None,
            last_index: 0,
            committed: 0,
            applied: 0,
            voters: BTreeMap::from([(1, node())]),
            learners: BTreeMap::new(),
            changing: false,
            followers: BTreeMap::new(),
            quorum_silent: None,
        }
    }

    #[test]
    fn a_silent_node_is_named_once_and_again_when_it_answers() {
        let (mut absences, start) = (Absences::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let seconds = Duration::from_secs;
        assert_eq!(absences.look(at(0), 1, &led(&[(2, Some(0)), (3, None)])), []);
        assert_eq!(absences.look(at(4), 1, &led(&[(2, Some(4)), (3, None)])), []);
        let never = Line::Silent { node: 3, for_so_long: seconds(5) };
        assert_eq!(absences.look(at(5), 1, &led(&[(2, Some(0)), (3, None)])), [never]);
        let silent = Line::Silent { node: 2, for_so_long: seconds(6) };
        assert_eq!(absences.look(at(11), 1, &led(&[(2, Some(6)), (3, None)])), [silent]);
        assert_eq!(absences.look(at(60), 1, &led(&[(2, Some(55)), (3, None)])), [], "once");
        let answers = Line::Answers { node: 2, after: seconds(56) };
        assert_eq!(absences.look(at(61), 1, &led(&[(2, Some(0))])), [answers], "3 has left");
        assert_eq!(absences.look(at(62), 1, &led(&[(2, Some(0)), (3, None)])), [], "and is new");
    }

    #[test]
    fn a_shard_that_nobody_leads_is_said_once_and_again_when_it_is_led() {
        let (mut absences, start) = (Absences::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        for (seconds, group, said) in [
            (0, status(), None),
            (4, status(), None),
            (5, status(), Some(Line::Leaderless { for_so_long: Duration::from_secs(5) })),
            (9, status(), None),
            (12, led(&[]), Some(Line::Led { leader: 1, after: Duration::from_secs(12) })),
            (13, led(&[]), None),
            (14, status(), None),
            (15, led(&[]), None),
        ] {
            assert_eq!(absences.look(at(seconds), 1, &group), Vec::from_iter(said), "at {seconds}");
        }
        let mut joining = Absences::default();
        for seconds in [0, 60] {
            assert_eq!(joining.look(at(seconds), 2, &status()), [], "it waits to be let in");
        }
    }
}
