//! Nodes that forgot what they promised.
//!
//! Raft rests on memory: who acknowledged an entry has it, and who voted does not vote for another in
//! that term. A node whose disk was lost, or set back to an older copy, would make a leader that lacks
//! acknowledged entries, or count among those that hold them. It looks like one that is new. So:
//!
//! - A region is born only when all of its first members are there: the first leader writes the first
//!   command when every voter holds what came before ([`HELD_AT_BIRTH`]). And who joins later has a
//!   vote only when it holds as much. From then on an empty log under the id of a voter is a loss, and
//!   whoever speaks for the region tells it: a candidate by asking for its vote, a leader by a mark on
//!   what it sends to voters.
//! - A leader also tells every follower what that acknowledged to it. Who holds less was set back.
//!
//! Such a node stops, and says what to do: leave the region, and come back under a new id.

use anabranch_core::planted::{self, Bug};
use anabranch_proto::internal::Frame;

use super::types::{AppendRequest, Vote, VoteRequest, index_of};

/// What every voter holds when its region is born: the entry with the first members, and the one with
/// which the first leader opened its term.
pub(super) const HELD_AT_BIRTH: u64 = 2;

/// Why a node must have no say.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Forgotten {
    /// Its log is empty. Maybe it never had one, and the region is not born yet.
    #[error("the log of this node is empty: it has no vote for a node that has one")]
    Empty,
    /// Its log is empty, and was not.
    #[error(
        "the log of this node is empty, but node {told_by} knows it as a voter: its disk was lost. A \
         node that forgot what it acknowledged must not vote: stop it, and let it join with an empty \
         data folder under a new node id (docs/runbooks/lost-disk.md)"
    )]
    Lost {
        /// Who knows.
        told_by: u64,
    },
    /// Its log was longer once.
    #[error(
        "the log of this node ends with entry {held}, but it acknowledged entry {acknowledged} to node \
         {told_by}: its disk was set back to an older copy. A node that forgot what it acknowledged \
         must not vote: stop it, and put back its newest disk, or let it join with an empty data \
         folder under a new node id (docs/runbooks/lost-disk.md)"
    )]
    SetBack {
        /// Who knows.
        told_by: u64,
        /// Last entry of its log.
        held: u64,
        /// Last entry that it acknowledged.
        acknowledged: u64,
    },
}

/// Whether a node whose log ends with entry `held` may take what a leader sends. `vote` is its own, as
/// its disk has it.
pub(super) fn check_append(
    frame: &Frame,
    request: &AppendRequest,
    held: u64,
    vote: Option<&Vote>,
) -> Result<(), Forgotten> {
    let told_by = frame.from;
    if planted::is(Bug::LostDiskUnnoticed) {
        return Ok(());
    }
    if frame.voter && is_born(frame) && held < HELD_AT_BIRTH {
        return Err(Forgotten::Lost { told_by });
    }
    // What was acknowledged to this leader, a later one may have had cut off.
    let is_late = vote.is_some_and(|vote| *vote > request.vote);
    let acknowledged = frame.acknowledged;
    match !is_late && held < acknowledged {
        true => Err(Forgotten::SetBack { told_by, held, acknowledged }),
        false => Ok(()),
    }
}

/// Whether a node whose log ends with entry `held` may vote for who asks.
pub(super) fn check_vote(frame: &Frame, asked: &VoteRequest, held: u64) -> Result<(), Forgotten> {
    let theirs = asked.last_log_id.as_ref().map_or(0, index_of);
    if planted::is(Bug::LostDiskUnnoticed) || held >= HELD_AT_BIRTH {
        return Ok(());
    }
    match (is_born(frame), theirs < HELD_AT_BIRTH) {
        (true, _) => Err(Forgotten::Lost { told_by: frame.from }),
        (false, false) => Err(Forgotten::Empty),
        (false, true) => Ok(()),
    }
}

/// The sender's region is born.
fn is_born(frame: &Frame) -> bool {
    !frame.incarnation.is_empty()
}

#[cfg(test)]
mod tests {
    use openraft::vote::RaftVote;

    use super::*;
    use crate::raft::types::{LeaderId, LogId};

    fn leader(term: u64) -> LeaderId {
        LeaderId { term, node_id: 1 }
    }

    fn frame(born: bool, voter: bool, acknowledged: u64) -> Frame {
        let incarnation = if born { vec![7; 16] } else { Vec::new() };
        Frame { from: 1, incarnation: incarnation.into(), voter, acknowledged, ..Frame::default() }
    }

    #[test]
    fn an_empty_log_has_no_vote_but_at_the_birth_of_its_region() {
        let asked = |entries: u64| {
            let last_log_id = entries.checked_sub(1).map(|index| LogId::new(leader(1), index));
            VoteRequest { vote: Vote::new(2, 1), last_log_id, leadership_transfer: false }
        };
        let unborn = frame(false, false, 0);
        for held in [0, 1] {
            assert_eq!(check_vote(&unborn, &asked(1), held), Ok(()), "the first election");
            assert_eq!(check_vote(&unborn, &asked(2), held), Err(Forgotten::Empty));
            let lost = Err(Forgotten::Lost { told_by: 1 });
            assert_eq!(check_vote(&frame(true, false, 0), &asked(9), held), lost);
        }
        assert_eq!(check_vote(&frame(true, false, 0), &asked(9), 2), Ok(()));
    }

    #[test]
    fn who_holds_less_than_it_acknowledged_takes_nothing() {
        let of_term = |term| Vote::from_leader_id(leader(term), true);
        let check = |frame: &Frame, held, own: u64| {
            let (entries, vote) = (Vec::new(), of_term(3));
            let request = AppendRequest { vote, prev_log_id: None, entries, leader_commit: None };
            check_append(frame, &request, held, Some(&of_term(own)))
        };
        assert_eq!(check(&frame(false, true, 0), 0, 0), Ok(()), "the region is being born");
        assert_eq!(check(&frame(true, false, 0), 0, 0), Ok(()), "it joins");
        for held in [0, 1] {
            let lost = Err(Forgotten::Lost { told_by: 1 });
            assert_eq!(check(&frame(true, true, 0), held, 0), lost);
        }
        assert_eq!(check(&frame(true, true, 9), 9, 3), Ok(()));
        let set_back = Err(Forgotten::SetBack { told_by: 1, held: 8, acknowledged: 9 });
        assert_eq!(check(&frame(true, true, 9), 8, 3), set_back);
        assert_eq!(check(&frame(true, true, 9), 8, 2), set_back, "its vote was set back, too");
        assert_eq!(check(&frame(true, true, 9), 8, 4), Ok(()), "a later leader cut it off");
    }
}
