//! How long nothing is acknowledged after the leader was killed.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anabranch_client::{Client, event};
use anyhow::{Context as _, ensure};
use bytes::Bytes;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::append::PAYLOAD;
use super::{Figure, FloorsArgs};
use crate::load::SETTLES_WITHIN;
use crate::processes::Place;
use crate::target::{Target, scratch};

pub(super) const ROW: &str = "leader-kill";
const WRITERS: usize = 8;
/// Acknowledged before the leader is killed, so that all writers know it.
const WARM: u64 = 400;
const LOOK: Duration = Duration::from_millis(2);
const GIVE_UP_AFTER: Duration = Duration::from_secs(60);

/// All rounds, in one region.
pub(super) async fn measure(args: &FloorsArgs) -> anyhow::Result<Vec<Figure>> {
    let folder = scratch(args.data.as_deref())?;
    let mut target = Target::start(1, 3, &folder.path().join("nodes"))?;
    target.ready().await?;
    let mut figures = Vec::new();
    for _ in 0..args.rounds {
        figures.push(Figure::new(ROW, round(&mut target).await?.as_secs_f64()));
        target.settled(0, SETTLES_WITHIN).await?;
    }
    Ok(figures)
}

/// What the writers and the one who kills tell each other.
#[derive(Default)]
struct Shared {
    acknowledged: AtomicU64,
    /// Since when the leader is dead.
    dead: OnceLock<Instant>,
}

/// Kills the leader under load, and starts it again in the end.
async fn round(target: &mut Target) -> anyhow::Result<Duration> {
    let leader = target.client(0)?.status().await?.leader;
    let node = leader.checked_sub(1).context("nobody leads")? as usize;
    let (place, shared) = (Place { region: 0, node }, Arc::<Shared>::default());
    let mut writers = JoinSet::new();
    for nth in 0..WRITERS {
        writers.spawn(writer(target.client(0)?, format!("kill-{nth}"), Arc::clone(&shared)));
    }
    let give_up = Instant::now() + GIVE_UP_AFTER;
    while shared.acknowledged.load(Ordering::Relaxed) < WARM {
        ensure!(Instant::now() < give_up, "the writers are not answered");
        sleep(LOOK).await;
    }
    let began = Instant::now();
    target.processes()?.kill(place).await?;
    shared.dead.get_or_init(Instant::now);
    let first = writers.join_next().await.context("there are writers")??;
    writers.shutdown().await;
    target.processes()?.start_again(place)?;
    Ok(first? - began)
}

/// Writes on, whatever fails. Returns when the first append was acknowledged that was sent after the
/// leader was dead: one sent before may have been acknowledged by it.
async fn writer(client: Client, stream: String, shared: Arc<Shared>) -> anyhow::Result<Instant> {
    let payload = Bytes::from(vec![7; PAYLOAD]);
    let give_up = Instant::now() + GIVE_UP_AFTER;
    loop {
        let sent = Instant::now();
        let appended = client.append(&stream, event("Measured").payload(payload.clone())).await;
        let now = Instant::now();
        ensure!(now < give_up, "nothing was acknowledged for {GIVE_UP_AFTER:?}: {appended:?}");
        if appended.is_ok() {
            shared.acknowledged.fetch_add(1, Ordering::Relaxed);
            if shared.dead.get().is_some_and(|dead| *dead <= sent) {
                return Ok(now);
            }
        }
    }
}
