//! Clients at work while the cluster is tortured, one file a kind; and what is read of every region
//! when the faults are over.
//!
//! ```text
//!  Plan::draw(seed) ─► Workload::start(.., home) ─► registers, transactors, collectors, hoppers,
//!  Sites (whose sockets?) ─┘    one a region        producers, tellers, probers, definers,
//!                                                   residents, spenders, changers,
//!                                                   subscribers, surge
//!                                                              │
//!                                              ledger ◄────────┘      harvest: converge, read, prints
//! ```
//!
//! Time passes through tokio only and randomness comes from seeds only, so that all of it runs in a
//! simulation as on real processes.

mod changer;
mod collector;
mod definer;
mod dice;
mod everywhere;
pub mod harvest;
mod home;
mod hopper;
mod plan;
mod prober;
mod producer;
mod reads;
mod register;
mod resident;
mod revisions;
mod scribe;
mod sites;
mod spender;
mod subscriber;
mod surge;
mod teller;
mod transactor;

use std::sync::Arc;
use std::time::Duration;

use anabranch_history::evidence::Subscribed;
use anabranch_history::ledger::Ledger;
use tokio::sync::watch;
use tokio::task::JoinSet;

use home::Home;
pub use plan::{Following, Mix, Plan, Reach, Surge};
use revisions::Revisions;
pub use sites::{Sites, Wanted};
use subscriber::Goal;

/// The clients of one region, under way.
pub struct Workload {
    writers: JoinSet<()>,
    subscribers: JoinSet<Subscribed>,
    control: Control,
}

/// What a driver tells the clients of one region, from wherever it runs.
#[derive(Debug, Clone)]
pub struct Control {
    stop: watch::Sender<bool>,
    surge: watch::Sender<bool>,
    goal: watch::Sender<Option<Goal>>,
}

impl Control {
    /// Sends in ten times as many clients, or calls them back.
    pub fn surge(&self, on: bool) {
        self.surge.send_replace(on);
    }
    /// Tells writers to finish what they are at.
    pub fn stop_writing(&self) {
        self.stop.send_replace(true);
    }
    /// Tells subscribers how many events there are in either order. They end when they were given all
    /// that is for them, or when `within` has passed. At once, if there are 0 in regional order.
    ///
    /// `regions` are the numbers of those that hold all of it; at least one.
    pub fn finish_reading(
        &self,
        regional: u64,
        global: u64,
        regions: Vec<usize>,
        within: Duration,
    ) {
        self.goal.send_replace(Some(Goal { regional, global, regions, within }));
    }
}

impl Workload {
    /// Sets the clients of region number `home` to work.
    ///
    /// Must be called on the runtime that they are to run on.
    pub fn start(sites: &Arc<dyn Sites>, plan: &Plan, ledger: &Arc<Ledger>, home: usize) -> Self {
        let (stop, stopped) = watch::channel(false);
        let (surge, surging) = watch::channel(false);
        let (goal, aim) = watch::channel(None);
        let home = Home {
            sites: sites.clone(),
            plan: Arc::new(plan.clone()),
            ledger: ledger.clone(),
            number: home,
            stop: stopped,
        };
        let writers = writers(&home, surging);
        let mut subscribers = JoinSet::new();
        for nth in 0..plan.subscribers_of(home.number) {
            subscribers.spawn(subscriber::run(home.clone(), nth, aim.clone()));
        }
        Self { writers, subscribers, control: Control { stop, surge, goal } }
    }

    /// For whoever drives the run.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Lets the writers finish what they are at, and waits for them. They give up by themselves at
    /// their deadlines.
    ///
    /// # Panics
    /// If one of them did.
    pub async fn stop_writing(&mut self) {
        self.control.stop_writing();
        self.writers_ended().await;
    }

    /// Waits until all writers have ended: until [`Control::stop_writing`] at least.
    ///
    /// # Panics
    /// If one of them did.
    pub async fn writers_ended(&mut self) {
        while let Some(ended) = self.writers.join_next().await {
            if let Err(error) = ended {
                std::panic::resume_unwind(error.into_panic());
            }
        }
    }

    /// Waits until every subscriber was given all that is for it, or `within` has passed; see
    /// [`Control::finish_reading`]. What they were given so far counts, also if it is not all.
    ///
    /// # Panics
    /// If one of them did.
    pub async fn finish_reading(
        self,
        regional: u64,
        global: u64,
        regions: Vec<usize>,
        within: Duration,
    ) -> Vec<Subscribed> {
        self.control.finish_reading(regional, global, regions, within);
        self.subscribers_ended().await
    }

    /// Waits until all subscribers have ended: until [`Control::finish_reading`] at least.
    ///
    /// # Panics
    /// If one of them did.
    pub async fn subscribers_ended(self) -> Vec<Subscribed> {
        let mut given = self.subscribers.join_all().await;
        given.sort_by(|one, other| one.name.cmp(&other.name));
        given
    }
}

fn writers(home: &Home, surging: watch::Receiver<bool>) -> JoinSet<()> {
    let mut writers = JoinSet::new();
    let (hot, transacted) = (Arc::new(Revisions::default()), Arc::new(Revisions::default()));
    let mix = home.plan.mix;
    for nth in 0..mix.registers {
        writers.spawn(register::run(home.clone(), nth, hot.clone()));
    }
    for nth in 0..mix.transactors {
        writers.spawn(transactor::run(home.clone(), nth, transacted.clone()));
    }
    for nth in 0..mix.collectors {
        writers.spawn(collector::run(home.clone(), nth));
    }
    for nth in 0..mix.hoppers {
        writers.spawn(hopper::run(home.clone(), nth));
    }
    for nth in 0..mix.producers {
        writers.spawn(producer::run(home.clone(), nth));
    }
    for nth in 0..mix.tellers {
        writers.spawn(teller::run(home.clone(), nth));
    }
    for nth in 0..mix.probers {
        writers.spawn(prober::run(home.clone(), nth));
    }
    for nth in 0..mix.definers {
        writers.spawn(definer::run(home.clone(), nth));
    }
    let homed = Arc::new(Revisions::default());
    for nth in 0..mix.residents {
        writers.spawn(resident::run(home.clone(), nth, homed.clone()));
    }
    for nth in 0..mix.spenders {
        writers.spawn(spender::run(home.clone(), nth));
    }
    for nth in 0..mix.changers {
        writers.spawn(changer::run(home.clone(), nth));
    }
    writers.spawn(surge::run(home.clone(), surging));
    writers
}
