//! Producers: who retries, so that nothing is written twice.
//!
//! The server remembers the last 1,024 sequences of a producer, in any order. An append that is still
//! being retried must not fall out of that window, so a producer bounds not only how many appends are
//! in flight but how far apart their sequences are.

use std::collections::BTreeSet;
use std::sync::Arc;

use anabranch_core::ProducerId;
use anabranch_core::event::ProducerTag;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::append::{Append, Ticket};
use crate::client::Client;
use crate::event::IntoEvents;

/// Appends of one producer that may be in flight; the next one waits.
const IN_FLIGHT_MAX: usize = 256;
/// Sequences that the server remembers.
const REMEMBERED: u64 = 1024;
/// How far apart the oldest and the newest sequence in flight may be.
const SPAN_MAX: u64 = 1000;
const _: () = assert!(IN_FLIGHT_MAX as u64 <= SPAN_MAX && SPAN_MAX < REMEMBERED);

/// The sequences of one producer. Gives each append the next one, when there is room.
pub(crate) struct Line {
    id: ProducerId,
    epoch: u32,
    permits: Arc<Semaphore>,
    window: Mutex<Window>,
    freed: Notify,
}

struct Window {
    next: u64,
    in_flight: BTreeSet<u64>,
}

impl Window {
    fn take(&mut self) -> Option<u64> {
        let oldest = self.in_flight.first().copied().unwrap_or(self.next);
        if self.next - oldest >= SPAN_MAX {
            return None;
        }
        let sequence = self.next;
        self.next += 1;
        self.in_flight.insert(sequence);
        Some(sequence)
    }
}

/// A sequence in use. Dropping it makes room.
pub(crate) struct Slot {
    line: Arc<Line>,
    pub(crate) tag: ProducerTag,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.line.window.lock().in_flight.remove(&self.tag.sequence);
        self.line.freed.notify_waiters();
    }
}

impl Line {
    pub(crate) fn new(id: ProducerId, epoch: u32, next: u64) -> Arc<Self> {
        let permits = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
        let window = Mutex::new(Window { next: next.max(1), in_flight: BTreeSet::new() });
        Arc::new(Self { id, epoch, permits, window, freed: Notify::new() })
    }

    /// The next sequence, as soon as there is room.
    ///
    /// Dropped while it waits, it has taken nothing.
    pub(crate) async fn take(self: &Arc<Self>) -> Slot {
        let permit = self.permits.clone().acquire_owned().await;
        let permit = permit.expect("the semaphore is never closed");
        loop {
            // Listening begins before looking: room made in between is not missed.
            let freed = self.freed.notified();
            let taken = self.window.lock().take();
            if let Some(sequence) = taken {
                return Slot { line: self.clone(), tag: self.tag(sequence), _permit: permit };
            }
            freed.await;
        }
    }

    fn tag(&self, sequence: u64) -> ProducerTag {
        ProducerTag { id: self.id, epoch: self.epoch, sequence }
    }
    fn next(&self) -> ProducerTag {
        self.tag(self.window.lock().next)
    }
}

/// A producer of your own, whose identity outlives the process.
///
/// Every client has producers of its own, so a retry *inside* a client never writes twice. For
/// retries across restarts keep [`next`](Self::next) where the work is kept, and come back with
/// [`Client::producer_with`] and a higher epoch, which stops whoever still uses the lower one.
#[derive(Clone)]
pub struct Producer {
    client: Client,
    line: Arc<Line>,
}

impl Producer {
    pub(crate) fn new(client: Client, line: Arc<Line>) -> Self {
        Self { client, line }
    }
    /// Its id.
    pub fn id(&self) -> ProducerId {
        self.line.id
    }
    /// Its epoch.
    pub fn epoch(&self) -> u32 {
        self.line.epoch
    }
    /// The triple that the next append gets.
    pub fn next(&self) -> ProducerTag {
        self.line.next()
    }
    /// Appends under this producer's next sequence.
    pub fn append(&self, stream: impl Into<String>, events: impl IntoEvents) -> Append {
        Append::new(self.client.clone(), stream.into(), events.into_events())
            .of_line(self.line.clone())
    }
    /// Appends under a sequence that may have been used before: the same request as then, please.
    ///
    /// If it was written then, this yields the first result. It is sent to the client's own region
    /// only, where the first was sent.
    pub fn append_again(
        &self,
        sequence: u64,
        stream: impl Into<String>,
        events: impl IntoEvents,
    ) -> Append {
        let region = self.client.home().name.clone();
        let ticket = Ticket { region, tag: self.line.tag(sequence) };
        Append::new(self.client.clone(), stream.into(), events.into_events()).retry_of(ticket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn line() -> Arc<Line> {
        Line::new(ProducerId([1; 16]), 1, 1)
    }

    /// A slot if there is room now. Tokio's task budget is set aside, else it would say "wait" too.
    fn at_once(line: &Arc<Line>) -> Option<Slot> {
        tokio::task::unconstrained(line.take()).now_or_never()
    }

    #[tokio::test]
    async fn the_next_append_waits_when_the_window_is_full() {
        let line = line();
        let mut slots = Vec::new();
        for _ in 0..IN_FLIGHT_MAX {
            slots.push(line.take().await);
        }
        assert!(at_once(&line).is_none(), "no room");
        slots.pop();
        let slot = at_once(&line).expect("room for one");
        assert_eq!(slot.tag.sequence, IN_FLIGHT_MAX as u64 + 1, "a sequence is never used twice");
    }

    #[tokio::test]
    async fn a_slow_append_never_falls_out_of_what_the_server_remembers() {
        let line = line();
        let slow = line.take().await;
        let mut newest = slow.tag.sequence;
        while let Some(slot) = at_once(&line) {
            newest = slot.tag.sequence;
        }
        assert_eq!(newest - slow.tag.sequence, SPAN_MAX - 1);
        let waiting = tokio::spawn({
            let line = line.clone();
            async move { line.take().await.tag.sequence }
        });
        tokio::task::yield_now().await;
        drop(slow);
        assert_eq!(waiting.await.unwrap(), newest + 1, "goes on when the slow one is done");
    }
}
