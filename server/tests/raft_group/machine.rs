//! A machine that writes down what it is given, and keeps a checkpoint when told to.

use std::sync::Arc;

use anabranch_core::DecodeError;
use anabranch_core::region::{Outcome, Refused};
use anabranch_server::raft::{Machine, MachineFailed, Resume};
use bytes::Bytes;
use parking_lot::Mutex;

/// A command with this payload is refused.
pub const REFUSED: &[u8] = b"refuse me";
/// A command with this payload breaks the machine.
pub const POISON: &[u8] = b"poison";

/// What survives a restart, and what a test looks at.
#[derive(Debug, Default)]
pub struct Tally {
    /// Every command applied, in order, since the beginning of the log.
    pub applied: Vec<(u64, Bytes)>,
    /// Indexes that this life of the machine applied.
    pub applied_now: Vec<u64>,
    /// Last entry applied, of whatever kind.
    pub index: u64,
    resume: Option<Bytes>,
    checkpoint: Option<(Bytes, usize)>,
}

impl Tally {
    /// Keeps the present state over the next restart.
    pub fn checkpoint(&mut self) {
        self.checkpoint = self.resume.clone().map(|resume| (resume, self.applied.len()));
    }
    /// The payloads applied, in order.
    pub fn payloads(&self) -> Vec<Bytes> {
        self.applied.iter().map(|(_, payload)| payload.clone()).collect()
    }
}

/// The machine over a [`Tally`].
pub struct Tallying(Arc<Mutex<Tally>>);

impl Tallying {
    /// Opens it at the checkpoint, or at the beginning.
    pub fn open(tally: &Arc<Mutex<Tally>>) -> Box<dyn Machine> {
        let mut held = tally.lock();
        let kept = held.checkpoint.as_ref().map_or(0, |(_, count)| *count);
        held.applied.truncate(kept);
        held.applied_now.clear();
        held.index = 0;
        held.resume = None;
        Box::new(Self(Arc::clone(tally)))
    }
}

impl Machine for Tallying {
    fn resume(&self) -> Option<Bytes> {
        self.0.lock().checkpoint.as_ref().map(|(resume, _)| resume.clone())
    }

    fn apply(
        &mut self,
        commands: Vec<(u64, Bytes)>,
        resume: &Resume,
    ) -> Result<Vec<Outcome>, MachineFailed> {
        let mut tally = self.0.lock();
        let mut outcomes = Vec::new();
        for (index, command) in commands {
            if command == POISON {
                return Err(MachineFailed { reason: "poisoned".to_owned(), source: None });
            }
            outcomes.push(outcome(&command));
            tally.applied_now.push(index);
            tally.applied.push((index, command));
        }
        tally.index = resume.index;
        tally.resume = Some(resume.bytes.clone());
        Ok(outcomes)
    }
}

fn outcome(command: &[u8]) -> Outcome {
    match command {
        REFUSED => Outcome::Refused(Refused::Undecodable(DecodeError::Text { what: "test" })),
        _ => Outcome::Accepted,
    }
}
