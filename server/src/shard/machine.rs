//! The state machine that Raft applies committed commands to, and its checkpoints.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anabranch_core::codec::{DecodeError, Put, Reader};
use anabranch_core::order::Mark;
use anabranch_core::region::{Outcome, Refused, Region, Snapshot};
use anabranch_core::{Command, ShardId};
use anabranch_log::derived::Checkpoints;
use anabranch_log::store::Sealing;
use bytes::Bytes;
use parking_lot::Mutex;

use super::order::{decode_marks, encode_marks};
use super::state::ShardState;
use crate::raft::{Identity, Machine, MachineFailed, Resume};

/// Applied bytes between two checkpoints, if the state is small: what a start has to apply again at most.
const CHECKPOINT_BYTES: usize = 64 * 1024 * 1024;
/// So many times the bytes of the last checkpoint are added to that: however large the state, writing it
/// stays a small part of the work.
const CHECKPOINT_SHARE: usize = 2;

/// Applies commands to the shared state.
pub(super) struct RegionMachine {
    state: Arc<ShardState>,
    identity: Arc<Identity>,
    checkpointer: Arc<Checkpointer>,
    resume: Option<Bytes>,
    unsaved_bytes: usize,
}

impl RegionMachine {
    pub(super) fn new(
        state: Arc<ShardState>,
        identity: Arc<Identity>,
        checkpointer: Arc<Checkpointer>,
        resume: Option<Bytes>,
    ) -> Self {
        Self { state, identity, checkpointer, resume, unsaved_bytes: 0 }
    }

    /// Follow-up work that may wait for the disk.
    fn after(&mut self, bytes: usize, sealing: Sealing) {
        if let Some(origin) = self.state.region(|region| region.origin().cloned()) {
            self.identity.learn(origin.incarnation);
        }
        if sealing == Sealing::Due {
            let store = self.state.store().clone();
            crate::env::in_background(move || {
                if let Err(error) = store.seal_applied() {
                    tracing::warn!(%error, "an index file was not written; it will be tried again");
                }
            });
        }
        self.unsaved_bytes += bytes;
        let written = self.checkpointer.bytes.load(Ordering::Relaxed);
        if self.unsaved_bytes >= CHECKPOINT_BYTES + CHECKPOINT_SHARE * written {
            self.unsaved_bytes = 0;
            self.checkpointer.write_in_background();
        }
    }
}

impl Machine for RegionMachine {
    fn resume(&self) -> Option<Bytes> {
        self.resume.clone()
    }

    fn apply(
        &mut self,
        commands: Vec<(u64, Bytes)>,
        resume: &Resume,
    ) -> Result<Vec<Outcome>, MachineFailed> {
        let bytes = commands.iter().map(|(_, bytes)| bytes.len()).sum();
        let decoded: Vec<_> = commands
            .into_iter()
            .map(|(entry, bytes)| (entry, Command::decode(bytes).map(Arc::new)))
            .collect();
        let sound: Vec<_> = decoded
            .iter()
            .filter_map(|(entry, command)| Some((*entry, Arc::clone(command.as_ref().ok()?))))
            .collect();
        let (outcomes, sealing) = self
            .checkpointer
            .between_checkpoints(resume, || self.state.apply(&sound, resume.index));
        self.after(bytes, sealing);
        let mut outcomes = outcomes.into_iter();
        let answer = |(_, command): (u64, Result<_, DecodeError>)| match command {
            Ok(_) => outcomes.next().expect("one outcome a command"),
            Err(error) => Outcome::Refused(Refused::Undecodable(error)),
        };
        Ok(decoded.into_iter().map(answer).collect())
    }
}

/// Writes checkpoints of the applied state, one at a time.
pub(super) struct Checkpointer {
    name: String,
    state: Arc<ShardState>,
    checkpoints: Arc<dyn Checkpoints>,
    /// Where the state stands. Held while a batch goes in, and while the state is taken.
    applying: Mutex<Option<Resume>>,
    writing: AtomicBool,
    /// Of the last one that this process wrote.
    bytes: AtomicUsize,
}

impl Checkpointer {
    pub(super) fn new(
        shard: ShardId,
        state: Arc<ShardState>,
        checkpoints: Arc<dyn Checkpoints>,
    ) -> Self {
        Self {
            name: name_of(shard),
            state,
            checkpoints,
            applying: Mutex::new(None),
            writing: AtomicBool::new(false),
            bytes: AtomicUsize::new(0),
        }
    }

    /// Applies a batch that ends at `resume`; a checkpoint has all of it or nothing.
    fn between_checkpoints<T>(&self, resume: &Resume, apply: impl FnOnce() -> T) -> T {
        let mut at = self.applying.lock();
        let applied = apply();
        *at = Some(resume.clone());
        applied
    }

    fn write_in_background(self: &Arc<Self>) {
        if !self.writing.swap(true, Ordering::AcqRel) {
            let checkpointer = Arc::clone(self);
            crate::env::in_background(move || {
                checkpointer.write_now();
                checkpointer.writing.store(false, Ordering::Release);
            });
        }
    }

    /// Writes a checkpoint before returning. Batches go in while it is encoded and written.
    pub(super) fn write_now(&self) {
        let at = self.applying.lock();
        let taken = at.as_ref().map(|resume| self.take(resume));
        drop(at);
        if let Some((at, head, region)) = taken {
            let mut parts = vec![head];
            parts.extend(region.encode());
            self.bytes.store(parts.iter().map(Bytes::len).sum(), Ordering::Relaxed);
            self.put(at, &parts);
        }
    }

    fn take(&self, resume: &Resume) -> (u64, Bytes, Snapshot) {
        let marks = self.state.marks();
        let region = self.state.region(Region::snapshot);
        let mut head = Vec::with_capacity(1024);
        head.put_slice_with_len(&resume.bytes);
        head.put(&encode_marks(&marks));
        (resume.index, head.into(), region)
    }

    fn put(&self, at: u64, parts: &[Bytes]) {
        match self.checkpoints.put(&self.name, at, parts) {
            Ok(()) => tracing::debug!(checkpoint = self.name, at, "wrote a checkpoint"),
            Err(error) => {
                tracing::warn!(%error, "a checkpoint was not written; the next start takes longer");
            }
        }
    }
}

/// What a checkpoint holds.
pub(super) struct Loaded {
    pub(super) region: Region,
    pub(super) index: u64,
    pub(super) resume: Bytes,
    pub(super) marks: Vec<Mark>,
}

/// The newest checkpoint that can be read, if there is one.
pub(super) fn load(shard: ShardId, checkpoints: &dyn Checkpoints) -> Option<Loaded> {
    let checkpoint = checkpoints.latest(&name_of(shard))?;
    let decode = |bytes: Bytes| {
        let mut reader = Reader::new(bytes);
        let resume = reader.slice("resume mark")?;
        let marks = decode_marks(&mut reader)?;
        let region = Region::decode_checkpoint(reader.rest())?;
        Ok::<_, DecodeError>(Loaded { region, index: checkpoint.at, resume, marks })
    };
    match decode(checkpoint.bytes.clone()) {
        Ok(loaded) => Some(loaded),
        Err(error) => {
            tracing::warn!(%shard, %error, "the checkpoint cannot be read; applying the log from its beginning");
            None
        }
    }
}

fn name_of(shard: ShardId) -> String {
    format!("region-{shard}")
}
