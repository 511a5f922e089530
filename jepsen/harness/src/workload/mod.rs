//! Clients at work while the cluster is tortured: writers, readers with sessions, subscribers.

mod requests;
mod session;
mod subscriber;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use anabranch_client::{Client, Order};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::cluster::REGIONS;
use crate::evidence::Subscribed;
use crate::history::Ledger;
use requests::Revisions;
use writer::Writer;

/// gRPC addresses of each region's nodes.
pub type Addresses = [Vec<String>; REGIONS.len()];

/// Who writes, and how busily.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Draws what is written.
    pub seed: u64,
    /// Marks every event of this run.
    pub run: u32,
    /// Writers of each region.
    pub writers: u32,
    /// Longest pause of a writer between two appends.
    pub think: Duration,
}

/// What subscribers wait for in the end.
#[derive(Debug, Clone, Copy)]
struct Target {
    events: u64,
    deadline: Instant,
}

/// The clients under way.
pub struct Workload {
    writers: JoinSet<()>,
    subscribers: JoinSet<Subscribed>,
    stop: watch::Sender<bool>,
    target: watch::Sender<Option<Target>>,
}

impl Workload {
    /// Sets all clients to work.
    ///
    /// # Errors
    /// If a client cannot be made.
    pub fn start(addresses: &Addresses, load: Load, ledger: &Arc<Ledger>) -> anyhow::Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let (target, targeted) = watch::channel(None);
        let (mut writers, mut subscribers) = (JoinSet::new(), JoinSet::new());
        for (home, name) in REGIONS.iter().enumerate() {
            let revisions = Arc::new(Revisions::default());
            for nth in 0..load.writers {
                let number = home as u32 * load.writers + nth;
                // The last writer of each region may go to another one when its own is gone.
                let roams = nth > 0 && nth + 1 == load.writers;
                let client = client(addresses, home, roams)?;
                let (ledger, stop) = (ledger.clone(), stopped.clone());
                let writer =
                    Writer::new(number, name, load, client, roams, revisions.clone(), ledger, stop);
                writers.spawn(writer.run());
            }
            let rng = rng(load.seed, 10_000 + home as u64);
            let both = client(addresses, home, true)?;
            writers.spawn(session::run(home, both, load, rng, ledger.clone(), stopped.clone()));
            for order in [Order::Global, Order::Regional] {
                let line = 20_000 + home as u64 * 2 + u64::from(order == Order::Global);
                let start = subscriber::Start { order, home, rng: self::rng(load.seed, line) };
                let addresses = addresses.clone();
                subscribers.spawn(subscriber::run(start, addresses, targeted.clone()));
            }
        }
        Ok(Self { writers, subscribers, stop, target })
    }

    /// Lets the writers finish what they are at. They give up by themselves at their deadlines.
    pub async fn stop_writing(&mut self) {
        self.stop.send_replace(true);
        while let Some(ended) = self.writers.join_next().await {
            if let Err(error) = ended {
                std::panic::resume_unwind(error.into_panic());
            }
        }
    }

    /// Waits until every subscriber was given `events`, or `within` has passed. What they were given
    /// so far counts, also if it is not all.
    ///
    /// # Panics
    /// If a subscriber did.
    pub async fn finish_reading(self, events: u64, within: Duration) -> Vec<Subscribed> {
        let deadline = Instant::now() + within;
        self.target.send_replace(Some(Target { events, deadline }));
        self.subscribers.join_all().await
    }
}

fn rng(seed: u64, line: u64) -> SmallRng {
    SmallRng::seed_from_u64(seed.rotate_left(17) ^ line.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// A client at home in one region; with the others to fall back on, if it `roams`.
fn client(addresses: &Addresses, home: usize, roams: bool) -> anyhow::Result<Client> {
    let mut builder = Client::builder()
        .region(REGIONS[home], addresses[home].clone())
        .timeout(Duration::from_secs(5))
        .attempt_timeout(Duration::from_secs(2))
        .connect_timeout(Duration::from_millis(500));
    if roams {
        for step in 1..REGIONS.len() {
            let other = (home + step) % REGIONS.len();
            builder = builder.fallback_region(REGIONS[other], addresses[other].clone());
        }
    }
    Ok(builder.build()?)
}
