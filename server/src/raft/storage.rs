//! The shard's log in openraft's terms: entries, vote and commit mark.
//!
//! openraft counts entries from 0 and the log from 1; [`index_of`] and its reverse are the border.
//! The log is never purged: it is the event store, and a node that is far behind, or empty, catches
//! up by ordinary replication.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};

use anabranch_log::{Done, Log, LogError, ReadError, Record, RecordId, RecordKind};
use bytes::Bytes;
use futures_util::{Stream, stream};
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};
use tokio::sync::oneshot;

use super::encoding::{
    committed_bytes, committed_from, membership_bytes, membership_from, vote_bytes, vote_from,
};
use super::fatal::Fatal;
use super::machine::no_snapshots;
use super::types::{Entry, LeaderId, LogId, Payload, Proposal, TypeConfig, Vote, index_of};

/// Bytes of entries in one message to a follower, and in one read of the log. A single entry may
/// be larger; with the largest one a message stays under 16 MiB.
pub(super) const READ_BYTES: usize = 4 * 1024 * 1024;

/// The log of one shard, as openraft writes it.
pub(super) struct Storage {
    reader: Reader,
}

/// The same log, as openraft reads it. Cheap to clone.
#[derive(Clone)]
pub(super) struct Reader {
    log: Log,
    fatal: Fatal,
}

impl Storage {
    pub(super) fn new(log: Log, fatal: Fatal) -> Self {
        Self { reader: Reader { log, fatal } }
    }
}

impl Reader {
    /// A callback for the log's writer, and where its result arrives.
    fn done(&self) -> (Done, oneshot::Receiver<Result<(), LogError>>) {
        let (sender, receiver) = oneshot::channel();
        // Nobody waits any more if the receiver is gone: openraft was shut down meanwhile.
        (Box::new(move |result| drop(sender.send(result))), receiver)
    }

    /// Waits until the log's queue has room: its own wait would block a thread, for as long as the
    /// disk is full. openraft has one append on its way at a time.
    async fn space(&self, records: &[Record]) {
        let (ready, come) = oneshot::channel();
        // Dropping it says as much as sending: look at the log again.
        self.log.on_space(records, Box::new(move || drop::<oneshot::Sender<()>>(ready)));
        let _ = come.await;
    }

    async fn wait(
        &self,
        what: &str,
        receiver: oneshot::Receiver<Result<(), LogError>>,
    ) -> io::Result<()> {
        match receiver.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.stop(what, &error)),
            Err(_) => Err(self.stop(what, &"the log's writer is gone")),
        }
    }

    /// openraft stops at the first storage error; say why where the node looks.
    fn stop(&self, what: &str, error: &dyn std::fmt::Display) -> io::Error {
        let reason = format!("cannot {what}: {error}");
        self.fatal.raise(&reason);
        io::Error::other(reason)
    }

    /// Reads entries of a range that is given, and cut, in openraft's counting.
    fn read(&self, range: Range<u64>, max_bytes: usize) -> io::Result<Vec<Entry>> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let records = self.log.read(range.start + 1..range.end + 1, max_bytes);
        let records = match records {
            Ok(records) => records,
            // The log was cut back since the range was: openraft tolerates an early end.
            Err(ReadError::BeyondEnd { .. }) => return Ok(Vec::new()),
            Err(error) => return Err(self.stop("read the log", &error)),
        };
        records.into_iter().map(|record| self.entry(record)).collect()
    }

    fn entry(&self, record: Record) -> io::Result<Entry> {
        let log_id = log_id(record.id());
        let payload = match record.kind {
            RecordKind::Blank => Payload::Blank,
            RecordKind::Command => Payload::Normal(Proposal(record.payload)),
            RecordKind::Membership => {
                let membership = membership_from(record.payload)
                    .map_err(|error| self.stop("read a membership entry", &error))?;
                Payload::Membership(membership)
            }
        };
        Ok(Entry { log_id, payload })
    }

    /// A range of openraft's, cut to what the log holds.
    fn clamp(&self, range: impl RangeBounds<u64>) -> Range<u64> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(before) => before + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last + 1,
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        let held = self.log.last().map_or(0, |last| last.index);
        start..end.min(held)
    }
}

fn log_id(RecordId { index, term, leader }: RecordId) -> LogId {
    LogId::new(LeaderId { term, node_id: leader }, index - 1)
}

fn record(entry: Entry) -> Record {
    let (kind, payload) = match entry.payload {
        Payload::Blank => (RecordKind::Blank, Bytes::new()),
        Payload::Normal(command) => (RecordKind::Command, command.0),
        Payload::Membership(members) => (RecordKind::Membership, membership_bytes(&members)),
    };
    let LeaderId { term, node_id } = entry.log_id.leader_id;
    Record { index: index_of(&entry.log_id), term, leader: node_id, kind, payload }
}

impl RaftLogReader<TypeConfig> for Reader {
    async fn try_get_log_entries<R>(&mut self, range: R) -> io::Result<Vec<Entry>>
    where
        R: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let mut wanted = self.clamp(range);
        let mut entries = Vec::new();
        while !wanted.is_empty() {
            let read = self.read(wanted.clone(), READ_BYTES)?;
            // The log was truncated under us: openraft tolerates an early end, not a hole.
            let Some(last) = read.last() else { break };
            wanted.start = last.log_id.index + 1;
            entries.extend(read);
        }
        Ok(entries)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let wanted = self.clamp(start..end);
        self.read(wanted, READ_BYTES)
    }

    async fn entries_stream<R>(
        &mut self,
        range: R,
    ) -> impl Stream<Item = io::Result<Entry>> + OptionalSend
    where
        R: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let reader = self.clone();
        let start = (reader.clamp(range), Vec::new().into_iter());
        // Read piece by piece: the range is as long as the log when a node catches up.
        let entries = stream::try_unfold(start, move |(mut wanted, mut held)| {
            let reader = reader.clone();
            async move {
                if held.len() == 0 && !wanted.is_empty() {
                    held = reader.read(wanted.clone(), READ_BYTES)?.into_iter();
                }
                let next: Option<Entry> = held.next();
                Ok(next.map(|entry| {
                    wanted.start = entry.log_id.index + 1;
                    (entry, (wanted, held))
                }))
            }
        });
        Box::pin(entries)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        vote_from(self.log.hard_state().vote).map_err(|error| self.stop("read the vote", &error))
    }
}

impl RaftLogStorage<TypeConfig> for Storage {
    type LogReader = Reader;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let last_log_id = self.reader.log.last().map(log_id);
        Ok(LogState { last_purged_log_id: None, last_log_id })
    }

    async fn get_log_reader(&mut self) -> Reader {
        self.reader.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let (done, saved) = self.reader.done();
        self.reader.log.save_vote(vote_bytes(vote), done);
        self.reader.wait("save the vote", saved).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        let Some(committed) = committed else { return Ok(()) };
        let saved =
            self.reader.log.save_committed(index_of(&committed), committed_bytes(&committed));
        saved.map_err(|error| self.reader.stop("save the commit mark", &error))
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        let committed = committed_from(self.reader.log.hard_state().committed);
        committed.map_err(|error| self.reader.stop("read the commit mark", &error))
    }

    async fn append<I>(&mut self, entries: I, flushed: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let records: Vec<Record> = entries.into_iter().map(record).collect();
        self.reader.space(&records).await;
        let reader = self.reader.clone();
        let done = move |result: Result<(), LogError>| {
            flushed.io_completed(result.map_err(|error| reader.stop("append to the log", &error)));
        };
        self.reader.log.append(records, Box::new(done));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let (done, cut) = self.reader.done();
        self.reader.log.truncate_after(last.as_ref().map(index_of), done);
        self.reader.wait("cut the log back", cut).await
    }

    async fn purge(&mut self, _: LogId) -> io::Result<()> {
        Err(no_snapshots())
    }
}

#[cfg(test)]
mod tests;
