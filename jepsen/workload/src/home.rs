//! What the clients of one region share.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anabranch_client::Client;
use anabranch_history::ledger::Ledger;
use anabranch_history::note::Note;
use rand::Rng;
use rand::rngs::SmallRng;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::dice;
use crate::plan::Plan;
use crate::sites::{Sites, Wanted};

/// A call that is that much over its deadline is taken for silent.
const GRACE: Duration = Duration::from_secs(10);

/// A region, as its clients know it.
#[derive(Clone)]
pub(crate) struct Home {
    pub(crate) sites: Arc<dyn Sites>,
    pub(crate) plan: Arc<Plan>,
    pub(crate) ledger: Arc<Ledger>,
    /// Number of the region.
    pub(crate) number: usize,
    pub(crate) stop: watch::Receiver<bool>,
}

impl Home {
    /// The region's name.
    pub(crate) fn name(&self) -> &str {
        &self.sites.regions()[self.number]
    }
    /// The generator of a client, for one purpose.
    pub(crate) fn rng(&self, purpose: &str, nth: u32) -> SmallRng {
        dice::rng(self.plan.seed, purpose, self.number, nth)
    }
    /// A client of this region. No two have the same purpose and number.
    pub(crate) fn client(&self, purpose: &str, nth: u32, roams: bool) -> Client {
        self.client_of(self.number, purpose, nth, roams)
    }
    /// A client of any region, wanted by a client of this one.
    pub(crate) fn client_of(&self, region: usize, purpose: &str, nth: u32, roams: bool) -> Client {
        let purpose = format!("{purpose}'s client of region {region}");
        let seed = dice::seed(self.plan.seed, &purpose, self.number, nth);
        self.sites.client(Wanted { home: region, roams, seed })
    }
    /// Some other region.
    pub(crate) fn elsewhere(&self, rng: &mut SmallRng) -> usize {
        let others = self.sites.regions().len() - 1;
        if others == 0 {
            self.number
        } else {
            self.sites.around(self.number, rng.random_range(1..=others))
        }
    }
    /// Whether clients are to stop.
    pub(crate) fn stopped(&self) -> bool {
        *self.stop.borrow()
    }
    /// Lets a client think. Being told to stop wakes it.
    pub(crate) async fn think(&mut self, rng: &mut SmallRng) {
        let pause = self.plan.think.mul_f64(rng.random());
        self.pause(pause).await;
    }
    /// Waits. Being told to stop ends it.
    pub(crate) async fn pause(&mut self, pause: Duration) {
        if self.stopped() {
            return;
        }
        tokio::select! {
            biased;
            _ = self.stop.changed() => {}
            () = sleep(pause) => {}
        }
    }
    /// Waits for a call that has to end by itself within `limit`; none, and noted, if it did not.
    pub(crate) async fn answer<T>(
        &self,
        writer: u32,
        limit: Duration,
        what: impl FnOnce() -> String,
        call: impl Future<Output = T>,
    ) -> Option<T> {
        let answer = timeout(limit + GRACE, call).await.ok();
        if answer.is_none() {
            let at = self.ledger.now();
            self.ledger.note(Note::Silent { writer, at, what: what() });
        }
        answer
    }
}
