//! Our own bytes for openraft's values, so that neither the disk nor the wire moves with openraft.
//!
//! On disk: the vote and the commit mark of the hard state, membership entries, and the resume mark
//! of a checkpoint; each starts with a version byte. On the wire (wire.rs) both ends are the same
//! release and the version is the service's.

use std::collections::{BTreeMap, BTreeSet};

use anabranch_core::DecodeError;
use anabranch_core::codec::{Put, Reader};
use bytes::Bytes;
use openraft::impls::Vote as OpenraftVote;

use super::types::{LeaderId, LogId, Membership, Node, StoredMembership, Vote};

const VERSION: u8 = 1;

pub(super) fn put_version(out: &mut Vec<u8>) {
    out.put_byte(VERSION);
}
pub(super) fn take_version(reader: &mut Reader, what: &'static str) -> Result<(), DecodeError> {
    match reader.byte(what)? {
        VERSION => Ok(()),
        other => Err(DecodeError::Invalid { what, value: other.into() }),
    }
}

pub(super) fn put_log_id(out: &mut Vec<u8>, id: &LogId) {
    out.put_varint(id.leader_id.term);
    out.put_varint(id.leader_id.node_id);
    out.put_varint(id.index);
}
pub(super) fn take_log_id(reader: &mut Reader) -> Result<LogId, DecodeError> {
    let term = reader.varint("term of a log id")?;
    let node_id = reader.varint("leader of a log id")?;
    let index = reader.varint("index of a log id")?;
    Ok(LogId::new(LeaderId { term, node_id }, index))
}

pub(super) fn put_maybe_log_id(out: &mut Vec<u8>, id: Option<&LogId>) {
    out.put_byte(id.is_some().into());
    if let Some(id) = id {
        put_log_id(out, id);
    }
}
pub(super) fn take_maybe_log_id(reader: &mut Reader) -> Result<Option<LogId>, DecodeError> {
    take_flag(reader, "presence of a log id")?.then(|| take_log_id(reader)).transpose()
}

pub(super) fn take_flag(reader: &mut Reader, what: &'static str) -> Result<bool, DecodeError> {
    match reader.byte(what)? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(DecodeError::Invalid { what, value: other.into() }),
    }
}

pub(super) fn put_vote(out: &mut Vec<u8>, vote: &Vote) {
    out.put_varint(vote.leader_id.term);
    out.put_varint(vote.leader_id.node_id);
    out.put_byte(vote.committed.into());
}
pub(super) fn take_vote(reader: &mut Reader) -> Result<Vote, DecodeError> {
    let term = reader.varint("term of a vote")?;
    let node_id = reader.varint("candidate of a vote")?;
    let committed = take_flag(reader, "whether a vote is granted")?;
    Ok(OpenraftVote { leader_id: LeaderId { term, node_id }, committed })
}

/// A vote as the hard state keeps it.
pub(super) fn vote_bytes(vote: &Vote) -> Bytes {
    let mut out = Vec::with_capacity(24);
    put_version(&mut out);
    put_vote(&mut out, vote);
    out.into()
}
/// What [`vote_bytes`] wrote; nothing was ever saved if it is empty.
pub(super) fn vote_from(bytes: Bytes) -> Result<Option<Vote>, DecodeError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let mut reader = Reader::new(bytes);
    take_version(&mut reader, "version of the vote")?;
    let vote = take_vote(&mut reader)?;
    reader.finish("the vote")?;
    Ok(Some(vote))
}

/// The commit mark as the hard state keeps it.
pub(super) fn committed_bytes(committed: &LogId) -> Bytes {
    let mut out = Vec::with_capacity(24);
    put_version(&mut out);
    put_log_id(&mut out, committed);
    out.into()
}
/// What [`committed_bytes`] wrote; nothing was ever saved if it is empty.
pub(super) fn committed_from(bytes: Bytes) -> Result<Option<LogId>, DecodeError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let mut reader = Reader::new(bytes);
    take_version(&mut reader, "version of the commit mark")?;
    let committed = take_log_id(&mut reader)?;
    reader.finish("the commit mark")?;
    Ok(Some(committed))
}

/// A membership as its log entry holds it.
pub(super) fn membership_bytes(membership: &Membership) -> Bytes {
    let mut out = Vec::new();
    put_version(&mut out);
    put_membership(&mut out, membership);
    out.into()
}
/// What [`membership_bytes`] wrote.
pub(super) fn membership_from(bytes: Bytes) -> Result<Membership, DecodeError> {
    let mut reader = Reader::new(bytes);
    take_version(&mut reader, "version of the membership")?;
    let membership = take_membership(&mut reader)?;
    reader.finish("the membership")?;
    Ok(membership)
}

fn put_membership(out: &mut Vec<u8>, membership: &Membership) {
    let configs = membership.get_joint_config();
    out.put_varint(configs.len() as u64);
    for voters in configs {
        out.put_varint(voters.len() as u64);
        voters.iter().for_each(|voter| out.put_varint(*voter));
    }
    out.put_varint(membership.nodes().count() as u64);
    for (id, node) in membership.nodes() {
        out.put_varint(*id);
        out.put_slice_with_len(node.raft_address.as_bytes());
        out.put_slice_with_len(node.api_address.as_bytes());
    }
}

fn take_membership(reader: &mut Reader) -> Result<Membership, DecodeError> {
    let configs = (0..reader.count("configurations", 1)?)
        .map(|_| take_voters(reader))
        .collect::<Result<Vec<_>, _>>()?;
    let nodes = (0..reader.count("nodes", 3)?)
        .map(|_| take_node(reader))
        .collect::<Result<BTreeMap<_, _>, _>>()?;
    // An empty membership is what a node knows before it was ever a member of anything.
    if configs.is_empty() && nodes.is_empty() {
        return Ok(Membership::default());
    }
    let what = "membership in which every voter is a node";
    Membership::new(configs, nodes).map_err(|_| DecodeError::Invalid { what, value: 0 })
}

fn take_voters(reader: &mut Reader) -> Result<BTreeSet<u64>, DecodeError> {
    (0..reader.count("voters", 1)?).map(|_| reader.varint("id of a voter")).collect()
}

fn take_node(reader: &mut Reader) -> Result<(u64, Node), DecodeError> {
    let id = reader.varint("id of a node")?;
    let raft_address = reader.text("Raft address of a node")?.to_string();
    let api_address = reader.text("API address of a node")?.to_string();
    Ok((id, Node { raft_address, api_address }))
}

/// Where a machine stands, as its checkpoint keeps it.
pub(super) fn resume_bytes(applied: &LogId, membership: &StoredMembership) -> Bytes {
    let mut out = Vec::new();
    put_version(&mut out);
    put_log_id(&mut out, applied);
    put_maybe_log_id(&mut out, membership.log_id().as_ref());
    put_membership(&mut out, membership.membership());
    out.into()
}
/// What [`resume_bytes`] wrote.
pub(super) fn resume_from(bytes: Bytes) -> Result<(LogId, StoredMembership), DecodeError> {
    let mut reader = Reader::new(bytes);
    take_version(&mut reader, "version of the resume mark")?;
    let applied = take_log_id(&mut reader)?;
    let at = take_maybe_log_id(&mut reader)?;
    let membership = take_membership(&mut reader)?;
    reader.finish("the resume mark")?;
    Ok((applied, StoredMembership::new(at, membership)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(term: u64, node_id: u64, index: u64) -> LogId {
        LogId::new(LeaderId { term, node_id }, index)
    }
    fn node(port: u16) -> Node {
        Node { raft_address: format!("a:{port}"), api_address: format!("b:{port}") }
    }
    fn joint() -> Membership {
        let configs = vec![BTreeSet::from([1, 2]), BTreeSet::from([2, 3])];
        let nodes = BTreeMap::from([(1, node(1)), (2, node(2)), (3, node(3)), (9, node(9))]);
        Membership::new(configs, nodes).unwrap()
    }

    #[test]
    fn everything_kept_on_disk_comes_back() {
        let vote = Vote { leader_id: LeaderId { term: 7, node_id: 300 }, committed: true };
        assert_eq!(vote_from(vote_bytes(&vote)), Ok(Some(vote)));
        assert_eq!(vote_from(Bytes::new()), Ok(None));
        let committed = id(3, 2, 1 << 40);
        assert_eq!(committed_from(committed_bytes(&committed)), Ok(Some(committed)));
        assert_eq!(committed_from(Bytes::new()), Ok(None));
        assert_eq!(membership_from(membership_bytes(&joint())), Ok(joint()));
        let empty = StoredMembership::default();
        for stored in [empty, StoredMembership::new(Some(id(1, 1, 4)), joint())] {
            let bytes = resume_bytes(&id(2, 3, 5), &stored);
            assert_eq!(resume_from(bytes), Ok((id(2, 3, 5), stored)));
        }
    }

    #[test]
    fn a_membership_is_the_same_bytes_in_every_release() {
        let one = Membership::new(vec![BTreeSet::from([1])], BTreeMap::from([(1, node(5))]));
        let bytes = membership_bytes(&one.unwrap());
        assert_eq!(&bytes[..], b"\x01\x01\x01\x01\x01\x01\x03a:5\x03b:5");
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic() {
        let whole = membership_bytes(&joint());
        for end in 0..whole.len() {
            assert!(membership_from(whole.slice(..end)).is_err(), "cut at {end}");
        }
        let mut voter_without_node = Vec::new();
        put_version(&mut voter_without_node);
        [1, 1, 8, 0].iter().for_each(|field| voter_without_node.put_varint(*field));
        assert!(membership_from(voter_without_node.into()).is_err());
        assert!(vote_from(Bytes::from_static(&[2, 1, 1, 1])).is_err(), "unknown version");
    }
}
