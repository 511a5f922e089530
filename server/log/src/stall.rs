//! A full disk, or too many open files: what the writer does meanwhile, and how it goes on.
//!
//! On a full disk, first the reserve is given up, and room is low. Once that is used up, too, there is none: the turn
//! that found no room is kept, and tried again when asked. Nothing is reported as failed, so Raft only
//! sees a disk that takes its time; that it takes too long is for who closes the log to say.

use crate::error::LogError;
use crate::failure::{Lack, Stopped};
use crate::log::Room;
use crate::reserve;
use crate::writer::{Turn, Writer};

impl Writer {
    /// Keeps a turn for which there was no room. Refuses it, and everything behind it, if the log is
    /// being closed: nobody asks again then.
    pub(crate) fn stall(&mut self, turn: Turn, lack: Lack) {
        let mut state = self.shared.state.lock();
        state.room = Room::None;
        if !state.closing && !state.impatient {
            drop(state);
            if !std::mem::replace(&mut self.said_none, true) {
                let why = match lack {
                    Lack::Space => "the disk is full and the reserve is used up",
                    Lack::Files => "the process has too many files and connections open",
                };
                tracing::error!(dir = ?self.dir(), why, "the log cannot grow, and waits until it can");
            }
            self.stalled = Some(turn);
            return;
        }
        self.finished = state.closing;
        state.stopped = Some(Stopped::Full);
        drop(state);
        tracing::warn!(dir = ?self.dir(), "the disk is full, the log is closed without what waited");
        // The first to wait learns first.
        turn.into_dones().into_iter().for_each(|done| done(Err(LogError::Full)));
        self.shared.stop(Stopped::Full);
    }

    /// A turn found room.
    pub(crate) fn went_on(&self) {
        if self.said_none {
            self.shared.state.lock().room = Room::Low;
        }
    }

    /// Gives the reserve back to the disk; false if there was none.
    pub(crate) fn release_reserve(&mut self) -> bool {
        let mut state = self.shared.state.lock();
        if state.room == Room::Ok {
            state.room = Room::Low;
            tracing::warn!(dir = ?self.dir(), "the disk is full, events are refused");
        }
        drop(state);
        if !std::mem::take(&mut self.reserve) {
            return false;
        }
        reserve::release(&*self.shared.disk, self.dir()).is_ok()
    }

    pub(crate) fn restore_reserve(&mut self) {
        let bytes = self.shared.options.reserve_bytes;
        if reserve::take(&*self.shared.disk, self.dir(), bytes).is_err() {
            return;
        }
        self.reserve = 0 < bytes;
        self.said_none = false;
        self.shared.state.lock().room = Room::Ok;
        tracing::warn!(dir = ?self.dir(), "there is space on the disk again, events are taken");
    }
}
