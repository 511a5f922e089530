//! When the disk fails: what callers are told, and what is refused from then on.
//!
//! A failed write or sync ends the right to write, because nobody knows what is durable. A full disk
//! is no failure: the batch is taken back, and later ones may fit.

use std::io;
use std::sync::Arc;

use crate::error::LogError;
use crate::log::Done;
use crate::state::{Op, Shared};
use crate::writer::Writer;

/// A step of the disk that failed, for the error that callers get.
pub(crate) struct Failed {
    pub doing: &'static str,
    pub source: io::Error,
    /// Nothing is lost but room: the files are as they were.
    pub full: bool,
}

/// Names the step that an error comes from. It ends the right to write, also if it is a sync that
/// says the disk is full: what it should have made durable is gone.
pub(crate) fn failed(doing: &'static str) -> impl Fn(io::Error) -> Failed {
    move |source| Failed { doing, source, full: false }
}

/// As [`failed`], for steps that a full disk refuses without harm.
pub(crate) fn failed_write(doing: &'static str) -> impl Fn(io::Error) -> Failed {
    move |source| Failed { doing, full: is_full(&source), source }
}

pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// What failed, and the callers that must be told that the outcome is unknown.
pub(crate) type Outcome = Result<(), (Failed, Vec<Done>)>;

/// Why nothing more is written.
#[derive(Clone)]
pub(crate) enum Stopped {
    Closed,
    Poisoned { doing: &'static str, source: Arc<io::Error> },
}

impl Stopped {
    pub(crate) fn refusal(&self) -> LogError {
        match self {
            Self::Closed => LogError::Closed,
            Self::Poisoned { doing, source } => {
                LogError::Poisoned { doing, source: source.clone() }
            }
        }
    }
}

impl Writer {
    /// The disk is full: this append and those queued behind it are not in the log.
    pub(crate) fn give_up(&mut self, mut dones: Vec<Done>) {
        let mut state = self.shared.state.lock();
        state.hide_what_is_not_durable();
        for op in std::mem::take(&mut state.queue) {
            match op {
                Op::Append { done, .. } => dones.extend(done),
                other => state.queue.push_back(other),
            }
        }
        state.queued_bytes = state.queue.iter().map(Op::bytes).sum();
        drop(state);
        self.shared.space.notify_all();
        tracing::warn!(dir = ?self.dir(), "the disk is full, appends are refused");
        dones.into_iter().for_each(|done| done(Err(LogError::Full)));
    }

    /// Ends the right to write.
    pub(crate) fn poison(&mut self, failed: Failed, unknown: Vec<Done>) {
        let Failed { doing, source, .. } = failed;
        let source = Arc::new(source);
        tracing::error!(dir = ?self.dir(), %source, "failed to {doing}, the log takes no more writes");
        let stopped = Stopped::Poisoned { doing, source: source.clone() };
        self.shared.state.lock().stopped = Some(stopped.clone());
        // The callers in flight learn first: they were first.
        let unknown_error = LogError::Unknown { doing, source };
        unknown.into_iter().for_each(|done| done(Err(unknown_error.clone())));
        self.shared.stop(stopped);
    }
}

impl Shared {
    /// Refuses what is queued and all that comes.
    pub(crate) fn stop(&self, stopped: Stopped) {
        let mut state = self.state.lock();
        state.hide_what_is_not_durable();
        state.stopped = Some(stopped.clone());
        let queue = std::mem::take(&mut state.queue);
        state.queued_bytes = 0;
        drop(state);
        self.space.notify_all();
        queue.into_iter().filter_map(Op::into_done).for_each(|done| done(Err(stopped.refusal())));
    }
}

/// A writer that panics must not leave callers waiting for ever.
pub(crate) struct StopOnPanic(pub Arc<Shared>);

impl Drop for StopOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let source = Arc::new(io::Error::other("the writer panicked"));
            self.0.stop(Stopped::Poisoned { doing: "go on", source });
        }
    }
}
