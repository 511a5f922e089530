//! What the bodies of Raft messages hold. Both ends are the same release.
//!
//! Payloads are copied once on the way out, into the body, and not at all on the way in: an entry
//! that was received shares the message's allocation.

use anabranch_core::DecodeError;
use anabranch_core::codec::{Put, Reader};
use bytes::Bytes;
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, TransferLeaderRequest, VoteRequest as Request,
    VoteResponse,
};

use super::encoding::{
    membership_bytes, membership_from, put_log_id, put_maybe_log_id, put_vote, take_flag,
    take_log_id, take_maybe_log_id, take_vote,
};
use super::types::{
    AppendReply, AppendRequest, Entry, Payload, Proposal, TypeConfig, VoteReply, VoteRequest,
};

pub(super) type TransferRequest = TransferLeaderRequest<TypeConfig>;

/// Least number of bytes an encoded entry takes.
const ENTRY_MIN: usize = 5;

const BLANK: u8 = 0;
const COMMAND: u8 = 1;
const MEMBERSHIP: u8 = 2;

pub(super) fn append_request(request: &AppendRequest) -> Bytes {
    let mut out = Vec::with_capacity(64 + payload_bytes(&request.entries));
    put_vote(&mut out, &request.vote);
    put_maybe_log_id(&mut out, request.prev_log_id.as_ref());
    put_maybe_log_id(&mut out, request.leader_commit.as_ref());
    out.put_varint(request.entries.len() as u64);
    request.entries.iter().for_each(|entry| put_entry(&mut out, entry));
    out.into()
}

fn payload_bytes(entries: &[Entry]) -> usize {
    let size = |entry: &Entry| match &entry.payload {
        Payload::Normal(command) => 48 + command.0.len(),
        Payload::Blank | Payload::Membership(_) => 48,
    };
    entries.iter().map(size).sum()
}

pub(super) fn take_append_request(body: Bytes) -> Result<AppendRequest, DecodeError> {
    let mut reader = Reader::new(body);
    let vote = take_vote(&mut reader)?;
    let prev_log_id = take_maybe_log_id(&mut reader)?;
    let leader_commit = take_maybe_log_id(&mut reader)?;
    let entries = (0..reader.count("entries", ENTRY_MIN)?)
        .map(|_| take_entry(&mut reader))
        .collect::<Result<_, _>>()?;
    reader.finish("an append request")?;
    Ok(AppendEntriesRequest { vote, prev_log_id, entries, leader_commit })
}

fn put_entry(out: &mut Vec<u8>, entry: &Entry) {
    put_log_id(out, &entry.log_id);
    match &entry.payload {
        Payload::Blank => put_payload(out, BLANK, &[]),
        Payload::Normal(command) => put_payload(out, COMMAND, &command.0),
        Payload::Membership(members) => put_payload(out, MEMBERSHIP, &membership_bytes(members)),
    }
}
fn put_payload(out: &mut Vec<u8>, kind: u8, bytes: &[u8]) {
    out.put_byte(kind);
    out.put_slice_with_len(bytes);
}

fn take_entry(reader: &mut Reader) -> Result<Entry, DecodeError> {
    let log_id = take_log_id(reader)?;
    let kind = reader.byte("kind of an entry")?;
    let bytes = reader.slice("payload of an entry")?;
    let payload = match kind {
        BLANK => Payload::Blank,
        COMMAND => Payload::Normal(Proposal(bytes)),
        MEMBERSHIP => Payload::Membership(membership_from(bytes)?),
        other => {
            return Err(DecodeError::Invalid { what: "kind of an entry", value: other.into() });
        }
    };
    Ok(Entry { log_id, payload })
}

const MATCHES: u8 = 0;
const CONFLICT: u8 = 1;
const HIGHER_VOTE: u8 = 2;

pub(super) fn append_reply(reply: &AppendReply) -> Bytes {
    let mut out = Vec::with_capacity(32);
    match reply {
        Ok(matching) => {
            out.put_byte(MATCHES);
            put_maybe_log_id(&mut out, matching.as_ref());
        }
        Err(StreamAppendError::Conflict(at)) => {
            out.put_byte(CONFLICT);
            put_log_id(&mut out, at);
        }
        Err(StreamAppendError::HigherVote(vote)) => {
            out.put_byte(HIGHER_VOTE);
            put_vote(&mut out, vote);
        }
    }
    out.into()
}

pub(super) fn take_append_reply(body: Bytes) -> Result<AppendReply, DecodeError> {
    let mut reader = Reader::new(body);
    let reply = match reader.byte("kind of an append reply")? {
        MATCHES => Ok(take_maybe_log_id(&mut reader)?),
        CONFLICT => Err(StreamAppendError::Conflict(take_log_id(&mut reader)?)),
        HIGHER_VOTE => Err(StreamAppendError::HigherVote(take_vote(&mut reader)?)),
        other => {
            let what = "kind of an append reply";
            return Err(DecodeError::Invalid { what, value: other.into() });
        }
    };
    reader.finish("an append reply")?;
    Ok(reply)
}

pub(super) fn vote_request(request: &VoteRequest) -> Bytes {
    let mut out = Vec::with_capacity(32);
    put_vote(&mut out, &request.vote);
    put_maybe_log_id(&mut out, request.last_log_id.as_ref());
    out.put_byte(request.leadership_transfer.into());
    out.into()
}
pub(super) fn take_vote_request(body: Bytes) -> Result<VoteRequest, DecodeError> {
    let mut reader = Reader::new(body);
    let mut request = Request::new(take_vote(&mut reader)?, take_maybe_log_id(&mut reader)?);
    request.leadership_transfer = take_flag(&mut reader, "whether the leader asked for it")?;
    reader.finish("a vote request")?;
    Ok(request)
}

pub(super) fn vote_reply(reply: &VoteReply) -> Bytes {
    let mut out = Vec::with_capacity(32);
    put_vote(&mut out, &reply.vote);
    put_maybe_log_id(&mut out, reply.last_log_id.as_ref());
    out.put_byte(reply.vote_granted.into());
    out.into()
}
pub(super) fn take_vote_reply(body: Bytes) -> Result<VoteReply, DecodeError> {
    let mut reader = Reader::new(body);
    let vote = take_vote(&mut reader)?;
    let last_log_id = take_maybe_log_id(&mut reader)?;
    let granted = take_flag(&mut reader, "whether the vote is granted")?;
    reader.finish("a vote reply")?;
    Ok(VoteResponse::new(vote, last_log_id, granted))
}

pub(super) fn transfer_request(request: &TransferRequest) -> Bytes {
    let mut out = Vec::with_capacity(32);
    put_vote(&mut out, request.from_leader());
    out.put_varint(*request.to_node_id());
    put_maybe_log_id(&mut out, request.last_log_id());
    out.into()
}
pub(super) fn take_transfer_request(body: Bytes) -> Result<TransferRequest, DecodeError> {
    let mut reader = Reader::new(body);
    let from = take_vote(&mut reader)?;
    let to = reader.varint("node to lead next")?;
    let last = take_maybe_log_id(&mut reader)?;
    reader.finish("a transfer request")?;
    Ok(TransferLeaderRequest::new(from, to, last))
}

const ACCEPTED: u8 = 0;
const VOTE_CHANGED: u8 = 1;
const NOT_FLUSHED: u8 = 2;

type TransferError = openraft::raft::TransferLeaderError<TypeConfig>;

pub(super) fn transfer_reply(reply: &Result<(), TransferError>) -> Bytes {
    let mut out = Vec::with_capacity(32);
    match reply {
        Ok(()) => out.put_byte(ACCEPTED),
        Err(TransferError::VoteChanged { expected, actual }) => {
            out.put_byte(VOTE_CHANGED);
            put_vote(&mut out, expected);
            put_vote(&mut out, actual);
        }
        Err(TransferError::LogNotFlushed { expected, actual }) => {
            out.put_byte(NOT_FLUSHED);
            put_maybe_log_id(&mut out, expected.as_ref());
            put_maybe_log_id(&mut out, actual.as_ref());
        }
    }
    out.into()
}
pub(super) fn take_transfer_reply(body: Bytes) -> Result<Result<(), TransferError>, DecodeError> {
    let mut reader = Reader::new(body);
    let reply = match reader.byte("kind of a transfer reply")? {
        ACCEPTED => Ok(()),
        VOTE_CHANGED => {
            let (expected, actual) = (take_vote(&mut reader)?, take_vote(&mut reader)?);
            Err(TransferError::VoteChanged { expected, actual })
        }
        NOT_FLUSHED => {
            let expected = take_maybe_log_id(&mut reader)?;
            let actual = take_maybe_log_id(&mut reader)?;
            Err(TransferError::LogNotFlushed { expected, actual })
        }
        other => {
            let what = "kind of a transfer reply";
            return Err(DecodeError::Invalid { what, value: other.into() });
        }
    };
    reader.finish("a transfer reply")?;
    Ok(reply)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::super::types::{LeaderId, LogId, Membership, Node, Vote};
    use super::*;

    fn id(term: u64, node_id: u64, index: u64) -> LogId {
        LogId::new(LeaderId { term, node_id }, index)
    }
    fn vote(term: u64, committed: bool) -> Vote {
        Vote { leader_id: LeaderId { term, node_id: 3 }, committed }
    }
    fn request() -> AppendRequest {
        let node = Node { raft_address: "a:1".into(), api_address: "b:1".into() };
        let members =
            Membership::new(vec![BTreeSet::from([1])], BTreeMap::from([(1, node)])).unwrap();
        let command = Proposal(Bytes::from_static(b"an event"));
        let entries = vec![
            Entry { log_id: id(4, 3, 10), payload: Payload::Blank },
            Entry { log_id: id(4, 3, 11), payload: Payload::Normal(command) },
            Entry { log_id: id(4, 3, 12), payload: Payload::Membership(members) },
        ];
        let prev_log_id = Some(id(2, 1, 9));
        AppendEntriesRequest { vote: vote(4, true), prev_log_id, entries, leader_commit: None }
    }

    #[test]
    fn an_append_request_comes_back_and_shares_the_bytes_it_came_in() {
        let body = append_request(&request());
        let read = take_append_request(body.clone()).unwrap();
        assert_eq!(format!("{read:?}"), format!("{:?}", request()));
        let Payload::Normal(command) = &read.entries[1].payload else { panic!("{read:?}") };
        assert!(body.as_ptr_range().contains(&command.0.as_ptr()), "payload was copied");
        let heartbeat = AppendEntriesRequest { entries: Vec::new(), ..request() };
        let read = take_append_request(append_request(&heartbeat)).unwrap();
        assert_eq!(format!("{read:?}"), format!("{heartbeat:?}"));
    }

    #[test]
    fn every_reply_and_vote_comes_back() {
        let conflict = StreamAppendError::Conflict(id(1, 2, 3));
        let higher = StreamAppendError::HigherVote(vote(9, false));
        for reply in [Ok(None), Ok(Some(id(5, 6, 7))), Err(conflict), Err(higher)] {
            assert_eq!(take_append_reply(append_reply(&reply)), Ok(reply));
        }
        let mut asked = Request::new(vote(8, false), Some(id(7, 1, 100)));
        asked.leadership_transfer = true;
        assert_eq!(take_vote_request(vote_request(&asked)), Ok(asked));
        let answered = VoteResponse::new(vote(8, false), None, true);
        assert_eq!(take_vote_reply(vote_reply(&answered)), Ok(answered));
        let transfer = TransferLeaderRequest::new(vote(8, true), 2, Some(id(8, 3, 4)));
        assert_eq!(take_transfer_request(transfer_request(&transfer)), Ok(transfer));
        let changed = TransferError::VoteChanged { expected: vote(1, true), actual: vote(2, true) };
        let behind = TransferError::LogNotFlushed { expected: Some(id(1, 1, 1)), actual: None };
        for reply in [Ok(()), Err(changed), Err(behind)] {
            assert_eq!(take_transfer_reply(transfer_reply(&reply)), Ok(reply));
        }
    }

    #[test]
    fn a_cut_message_is_an_error_and_never_a_panic() {
        let body = append_request(&request());
        for end in 0..body.len() {
            assert!(take_append_request(body.slice(..end)).is_err(), "cut at {end}");
        }
        for byte in 3..=u8::MAX {
            assert!(take_append_reply(Bytes::copy_from_slice(&[byte])).is_err());
            assert!(take_transfer_reply(Bytes::copy_from_slice(&[byte])).is_err());
        }
    }
}
