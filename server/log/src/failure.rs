//! When the disk fails: what callers are told, and what is refused from then on.
//!
//! A failed write or sync ends the right to write, because nobody knows what is durable. A full disk
//! is no failure: see `stall`.

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
    /// Nothing is lost: the files are as they were, and the step may be tried again when there is more
    /// of this.
    pub lack: Option<Lack>,
}

/// What there can be too little of for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lack {
    /// Room on the disk.
    Space,
    /// Files that the process may have open.
    Files,
}

/// Names the step that an error comes from. It ends the right to write, also if it is a sync that
/// says the disk is full: what it should have made durable is gone.
pub(crate) fn failed(doing: &'static str) -> impl Fn(io::Error) -> Failed {
    move |source| Failed { doing, source, lack: None }
}

/// As [`failed`], for steps that a full disk refuses without harm.
pub(crate) fn failed_write(doing: &'static str) -> impl Fn(io::Error) -> Failed {
    move |source| Failed { doing, lack: is_full(&source).then_some(Lack::Space), source }
}

/// As [`failed_write`], for steps that open a file: there may be too many open already.
pub(crate) fn failed_open(doing: &'static str) -> impl Fn(io::Error) -> Failed {
    move |source| {
        // EMFILE and ENFILE, which the standard library has no kind for.
        let lack = match source.raw_os_error() {
            Some(23 | 24) => Some(Lack::Files),
            _ => is_full(&source).then_some(Lack::Space),
        };
        Failed { doing, lack, source }
    }
}

pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Why nothing more is written.
#[derive(Clone)]
pub(crate) enum Stopped {
    Closed,
    /// Closed, or about to be, with something to write for which there was no room.
    Full,
    Poisoned {
        doing: &'static str,
        source: Arc<io::Error>,
    },
}

impl Stopped {
    pub(crate) fn refusal(&self) -> LogError {
        match self {
            Self::Closed => LogError::Closed,
            Self::Full => LogError::Full,
            Self::Poisoned { doing, source } => {
                LogError::Poisoned { doing, source: source.clone() }
            }
        }
    }
}

impl Writer {
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
        self.tell_of_space(state);
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
