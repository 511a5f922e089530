//! A pause of a whole node, as far as its neighbours can tell: nothing comes in and nothing goes out.
//!
//! The simulator runs every host's timers on time, so a paused node's own timers go on; what it does
//! because of them leaves it only when the pause ends, as stale as after a long stop.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

/// Open unless the node is paused. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    closed: bool,
    waiting: Vec<Waker>,
}

impl Gate {
    /// An open gate.
    pub fn new() -> Self {
        Self::default()
    }
    /// Begins a pause.
    pub fn close(&self) {
        self.0.lock().closed = true;
    }
    /// Ends the pause; everybody who waited goes on, in the order in which they came.
    pub fn open(&self) {
        let waiting = {
            let mut state = self.0.lock();
            state.closed = false;
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }
    /// Whether the node is paused.
    pub fn is_closed(&self) -> bool {
        self.0.lock().closed
    }
    /// Ready while the gate is open.
    pub fn poll_open(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.0.lock();
        if !state.closed {
            return Poll::Ready(());
        }
        if !state.waiting.iter().any(|waiting| waiting.will_wake(cx.waker())) {
            state.waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }
    /// Waits until the gate is open.
    pub async fn passed(&self) {
        std::future::poll_fn(|cx| self.poll_open(cx)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn nobody_passes_a_closed_gate_and_everybody_an_open_one() {
        let gate = Gate::new();
        gate.passed().await;
        gate.close();
        let (shared, waiting) = (gate.clone(), Duration::from_secs(1));
        assert!(timeout(waiting, shared.passed()).await.is_err());
        let passing = tokio::spawn(async move { shared.passed().await });
        tokio::task::yield_now().await;
        gate.open();
        timeout(waiting, passing).await.unwrap().unwrap();
    }
}
