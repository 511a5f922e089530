//! What committed commands are applied to, and its seat in openraft.

use std::error::Error;
use std::io;

use anabranch_core::region::Outcome;
use bytes::Bytes;
use futures_util::{Stream, TryStreamExt};
use openraft::RaftSnapshotBuilder;
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine};
use openraft::type_config::alias::{SnapshotMetaOf, SnapshotOf};
use parking_lot::Mutex;

use super::encoding::{resume_bytes, resume_from};
use super::fatal::Fatal;
use super::types::{Entry, LogId, Payload, StoredMembership, TypeConfig, index_of};

/// Entries handed to the machine at once.
const BATCH_ENTRIES: usize = 512;
/// Bytes of commands handed to the machine at once, unless one alone is larger.
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// Applies the committed commands of one shard, in order, each exactly once since its checkpoint.
///
/// A machine that keeps a checkpoint keeps beside it the [`Resume`] of the last batch that is in
/// it, and gives it back when it is opened again: replay starts at the entry after. A machine
/// without a checkpoint gives `None`, and gets the whole log.
pub trait Machine: Send + 'static {
    /// The bytes of the [`Resume`] that the loaded checkpoint was stored with.
    fn resume(&self) -> Option<Bytes>;

    /// Applies committed commands: (log index, encoded command), rising. Empty when the batch held
    /// only entries of Raft's own.
    ///
    /// Shape: one outcome a command, in order. Afterwards everything up to `resume.index` is
    /// applied.
    /// # Errors
    /// [`MachineFailed`]: the machine cannot go on. The node stops serving the shard, for good.
    fn apply(
        &mut self,
        commands: Vec<(u64, Bytes)>,
        resume: &Resume,
    ) -> Result<Vec<Outcome>, MachineFailed>;
}

/// Where a machine stands after a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resume {
    /// Index of the last entry applied; the log counts from 1.
    pub index: u64,
    /// What to keep with a checkpoint of exactly this state. Opaque.
    pub bytes: Bytes,
}

/// The machine cannot go on.
#[derive(Debug, thiserror::Error)]
#[error("cannot apply the log: {reason}")]
pub struct MachineFailed {
    /// What went wrong, for the operator.
    pub reason: String,
    /// The error below it.
    #[source]
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

/// A [`Machine`] as openraft wants it.
pub struct StateMachine {
    /// In a mutex because openraft wants `Sync`; it is never contended.
    machine: Mutex<Box<dyn Machine>>,
    applied: Option<LogId>,
    membership: StoredMembership,
    fatal: Fatal,
}

impl StateMachine {
    /// # Errors
    /// `InvalidData` if the machine's resume mark cannot be read.
    pub(super) fn open(machine: Box<dyn Machine>, fatal: Fatal) -> io::Result<Self> {
        let resumed = machine.resume().map(resume_from).transpose();
        let resumed = resumed.map_err(|error| {
            let reason = format!("resume mark of the checkpoint cannot be read: {error}");
            io::Error::new(io::ErrorKind::InvalidData, reason)
        })?;
        let (applied, membership) = match resumed {
            Some((applied, membership)) => (Some(applied), membership),
            None => (None, StoredMembership::default()),
        };
        Ok(Self { machine: Mutex::new(machine), applied, membership, fatal })
    }

    fn apply_batch(&mut self, batch: &mut Batch) -> io::Result<()> {
        let Some(last) = batch.last.take() else { return Ok(()) };
        if let Some(membership) = batch.membership.take() {
            self.membership = membership;
        }
        self.applied = Some(last);
        let bytes = resume_bytes(&last, &self.membership);
        let resume = Resume { index: index_of(&last), bytes };
        let commands = std::mem::take(&mut batch.commands);
        let count = commands.len();
        let outcomes = self.machine.get_mut().apply(commands, &resume);
        let outcomes = outcomes.map_err(|error| self.stop(&error))?;
        assert_eq!(outcomes.len(), count, "a machine answers every command");
        batch.answer(outcomes);
        Ok(())
    }

    fn stop(&self, error: &MachineFailed) -> io::Error {
        let reason = match &error.source {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        };
        self.fatal.raise(&reason);
        io::Error::other(reason)
    }
}

/// Entries on their way into the machine.
#[derive(Default)]
struct Batch {
    commands: Vec<(u64, Bytes)>,
    bytes: usize,
    last: Option<LogId>,
    membership: Option<StoredMembership>,
    /// Who waits for each entry, and whether it is a command.
    waiting: Vec<(Option<ApplyResponder<TypeConfig>>, bool)>,
}

impl Batch {
    fn push(&mut self, entry: Entry, responder: Option<ApplyResponder<TypeConfig>>) {
        let is_command = matches!(entry.payload, Payload::Normal(_));
        self.waiting.push((responder, is_command));
        self.last = Some(entry.log_id);
        match entry.payload {
            Payload::Blank => {}
            Payload::Normal(command) => {
                self.bytes += command.0.len();
                self.commands.push((index_of(&entry.log_id), command.0));
            }
            Payload::Membership(membership) => {
                self.membership = Some(StoredMembership::new(Some(entry.log_id), membership));
            }
        }
    }
    fn is_full(&self) -> bool {
        self.waiting.len() >= BATCH_ENTRIES || self.bytes >= BATCH_BYTES
    }
    fn answer(&mut self, outcomes: Vec<Outcome>) {
        self.bytes = 0;
        let mut outcomes = outcomes.into_iter();
        for (responder, is_command) in self.waiting.drain(..) {
            // Raft's own entries always take effect; nobody reads this outcome.
            let outcome = if is_command { outcomes.next() } else { Some(Outcome::Accepted) };
            if let (Some(responder), Some(outcome)) = (responder, outcome) {
                responder.send(outcome);
            }
        }
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = ();
    type SnapshotBuilder = NoSnapshots;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + Send,
    {
        let mut batch = Batch::default();
        while let Some((entry, responder)) = entries.try_next().await? {
            batch.push(entry, responder);
            if batch.is_full() {
                self.apply_batch(&mut batch)?;
            }
        }
        self.apply_batch(&mut batch)
    }

    async fn get_snapshot_builder(&mut self) -> NoSnapshots {
        NoSnapshots
    }

    async fn install_snapshot(&mut self, _: &SnapshotMetaOf<TypeConfig>, (): ()) -> io::Result<()> {
        Err(no_snapshots())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf<TypeConfig, ()>>> {
        Ok(None)
    }
}

/// There are none: the log is never purged, so it is the snapshot.
pub struct NoSnapshots;

impl RaftSnapshotBuilder<TypeConfig> for NoSnapshots {
    type SnapshotData = ();
    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf<TypeConfig, ()>> {
        Err(no_snapshots())
    }
}

/// Why a snapshot was refused.
pub(super) fn no_snapshots() -> io::Error {
    let reason = "there are no Raft snapshots: the log is never purged and is the snapshot itself";
    io::Error::new(io::ErrorKind::Unsupported, reason)
}
