//! How fast a site takes in what it missed while it was away, of any store whose sites pass on to each
//! other what is written to one.
//!
//! The last site is killed, the events are written at the first, and the last is started again. It is
//! measured from its first answer until it holds everything.
//!
//! ```text
//!  last site ──✗ kill -9                start ─ answers ═══ measured ═══ holds all
//!  first site      ─ writes `events` ─ holds them ─┘
//! ```

use std::path::Path;
use std::time::Duration;

use anabranch_client::Client;
use anyhow::{Context as _, ensure};
use async_trait::async_trait;
use tokio::time::{Instant, sleep, timeout};

use crate::cpu;
use crate::processes::Place;
use crate::target::Target;
use crate::writers::{Load, Writer, write_by};

/// Events that are missed, if no other number is asked for.
pub const EVENTS: u64 = 200_000;
/// Bytes of an event's payload.
pub const PAYLOAD: usize = 256;
/// Events in one append.
const BATCH: usize = 1_000;
const CLIENTS: usize = 8;
/// Events that are not written by then are taken for never to be.
const WRITTEN_WITHIN: Duration = Duration::from_secs(600);
/// A site that was started and gives no answer for this long is taken for broken,
const ANSWERS_WITHIN: Duration = Duration::from_secs(60);
/// and so is one that takes in nothing for this long: a machine that is shared may hold it up for minutes.
const MOVES_WITHIN: Duration = Duration::from_secs(600);
/// One try of a question while waiting for the first answer.
const TRY_WITHIN: Duration = Duration::from_secs(2);
const TRY_EVERY: Duration = Duration::from_millis(5);

/// Sites of a store that run, the last of which can be killed. Dropping it kills all.
#[async_trait(?Send)]
pub trait Sites {
    /// How many there are.
    fn count(&self) -> usize;
    /// The processes of all sites.
    ///
    /// # Errors
    /// If one is known to have ended.
    fn pids(&self) -> anyhow::Result<Vec<u32>>;
    /// Waits until what is written at the first site comes to all; returns how many events they hold.
    ///
    /// # Errors
    /// If it does not in time.
    async fn ready(&mut self) -> anyhow::Result<u64>;
    /// Writers at the first site, each with a connection of its own and a name.
    ///
    /// # Errors
    /// If the site does not answer.
    async fn writers(&self, count: usize) -> anyhow::Result<Vec<(String, Box<dyn Writer>)>>;
    /// Events that a site, by its place, holds as durably as the store is set to hold them.
    ///
    /// # Errors
    /// If the site does not answer.
    async fn held(&mut self, site: usize) -> anyhow::Result<u64>;
    /// Kills the last site with signal 9; it has ended when this returns.
    ///
    /// # Errors
    /// If it had ended by itself.
    async fn kill_last(&mut self) -> anyhow::Result<()>;
    /// Starts the last site from what it has on its disk, and returns before it answers.
    ///
    /// # Errors
    /// If no process can be made.
    fn start_last(&mut self) -> anyhow::Result<()>;
}

/// What catching up took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CaughtUp {
    /// Events that the site did not hold when it gave its first answer.
    pub missed: u64,
    /// From that answer until it held them.
    pub took: Duration,
    /// Processor time of all sites meanwhile.
    pub servers: Duration,
}

impl CaughtUp {
    /// Events a second.
    pub fn rate(&self) -> f64 {
        self.missed as f64 / self.took.as_secs_f64()
    }
    /// Processor microseconds of all sites an event.
    pub fn servers_us(&self) -> f64 {
        self.servers.as_secs_f64() * 1e6 / self.missed as f64
    }
}

/// Lets the last of some sites that are new miss `events` events, which are rounded up to whole appends.
///
/// # Errors
/// If a site fails, or held most of the events when it gave its first answer: that were no measurement.
pub async fn measure(sites: &mut dyn Sites, events: u64) -> anyhow::Result<CaughtUp> {
    let there = sites.ready().await.context("wait for the sites")?;
    let writers = sites.writers(CLIENTS).await?;
    let last = sites.count() - 1;
    sites.kill_last().await?;
    let at_most = events.div_ceil(BATCH as u64);
    let within = Duration::MAX;
    let load = Load { batch: BATCH, clients: CLIENTS, payload: PAYLOAD, within, at_most };
    let written = timeout(WRITTEN_WITHIN, write_by(writers, load)).await;
    let written = written.with_context(|| format!("not written within {WRITTEN_WITHIN:?}"))??;
    let expected = there + written.events;
    for site in 0..last {
        reaches(sites, site, expected).await?;
    }
    sites.start_last()?;
    let held = answers(sites, last).await?;
    let (began, before) = (Instant::now(), used(sites)?);
    let missed = expected.saturating_sub(held);
    ensure!(missed > events / 2, "the site held most before it answered: {missed} were missing");
    reaches(sites, last, expected).await?;
    Ok(CaughtUp { missed, took: began.elapsed(), servers: used(sites)? - before })
}

fn used(sites: &dyn Sites) -> anyhow::Result<Duration> {
    sites.pids()?.iter().map(|pid| cpu::used_by(&pid.to_string())).sum()
}

/// Waits until a site that was just started answers; returns how many events it holds.
async fn answers(sites: &mut dyn Sites, site: usize) -> anyhow::Result<u64> {
    let give_up = Instant::now() + ANSWERS_WITHIN;
    loop {
        let failed = match timeout(TRY_WITHIN, sites.held(site)).await {
            Ok(Ok(held)) => return Ok(held),
            Ok(Err(failed)) => failed,
            Err(_) => anyhow::anyhow!("no answer within {TRY_WITHIN:?}"),
        };
        if Instant::now() > give_up {
            return Err(failed.context(format!("site {site} gave none within {ANSWERS_WITHIN:?}")));
        }
        sleep(TRY_EVERY).await;
    }
}

/// Waits until a site holds so many events.
async fn reaches(sites: &mut dyn Sites, site: usize, events: u64) -> anyhow::Result<()> {
    let began = Instant::now();
    let (mut most, mut moved) = (0, began);
    loop {
        let held = timeout(MOVES_WITHIN, sites.held(site)).await;
        let held = held.with_context(|| format!("site {site} fell silent at {most} events"))??;
        ensure!(held <= events, "site {site} holds {held} events, {events} were written");
        if held == events {
            return Ok(());
        }
        if held > most {
            (most, moved) = (held, Instant::now());
        }
        ensure!(moved.elapsed() < MOVES_WITHIN, "site {site} stays at {held} of {events} events");
        sleep(pause(began.elapsed())).await;
    }
}

/// Between two questions, after waiting for so long: it makes the figure wrong by a hundredth, and
/// answers take a slow site no time to speak of.
fn pause(waited: Duration) -> Duration {
    const BOUNDS: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(500));
    (waited / 100).clamp(BOUNDS.0, BOUNDS.1)
}

/// Regions of Anabranch, each of one node. What a node shows is on its disk.
pub struct Regions {
    target: Target,
    /// Of each region.
    clients: Vec<Client>,
}

impl Regions {
    /// Starts so many regions below `folder`, with ports from `first_port` on.
    ///
    /// # Errors
    /// If they do not start.
    pub fn start(count: usize, folder: &Path, first_port: u16) -> anyhow::Result<Self> {
        let target = Target::start_at(count, 1, folder, first_port)?;
        let clients = (0..count).map(|region| target.client(region)).collect::<Result<_, _>>()?;
        Ok(Self { target, clients })
    }

    fn last(&self) -> Place {
        Place { region: self.clients.len() - 1, node: 0 }
    }
}

#[async_trait(?Send)]
impl Sites for Regions {
    fn count(&self) -> usize {
        self.clients.len()
    }
    fn pids(&self) -> anyhow::Result<Vec<u32>> {
        self.target.pids()
    }
    async fn ready(&mut self) -> anyhow::Result<u64> {
        self.target.ready().await
    }
    async fn writers(&self, count: usize) -> anyhow::Result<Vec<(String, Box<dyn Writer>)>> {
        let writer = |nth| -> anyhow::Result<(String, Box<dyn Writer>)> {
            Ok((format!("load-{nth}"), Box::new(self.target.client(0)?)))
        };
        (0..count).map(writer).collect()
    }
    async fn held(&mut self, site: usize) -> anyhow::Result<u64> {
        Ok(self.clients[site].status().await?.position)
    }
    async fn kill_last(&mut self) -> anyhow::Result<()> {
        let last = self.last();
        self.target.processes()?.kill(last).await
    }
    fn start_last(&mut self) -> anyhow::Result<()> {
        let last = self.last();
        self.target.processes()?.start_again(last)?;
        // The client from before may be waiting until it tries to connect again.
        self.clients[last.region] = self.target.client(last.region)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use bytes::Bytes;

    use super::*;

    /// Two sites in memory. The last takes in `step` events for each question that it answers.
    #[derive(Default)]
    struct Model {
        written: Arc<AtomicU64>,
        held: u64,
        step: u64,
        away: bool,
        /// Questions that it leaves unanswered after its start.
        silent: u32,
    }

    struct Counts(Arc<AtomicU64>);

    #[async_trait]
    impl Writer for Counts {
        async fn append(&mut self, _: &str, payloads: Vec<Bytes>) -> anyhow::Result<()> {
            let count = payloads.len() as u64;
            self.0.fetch_add(count, Ordering::Relaxed);
            Ok(())
        }
    }

    #[async_trait(?Send)]
    impl Sites for Model {
        fn count(&self) -> usize {
            2
        }
        fn pids(&self) -> anyhow::Result<Vec<u32>> {
            Ok(vec![std::process::id()])
        }
        async fn ready(&mut self) -> anyhow::Result<u64> {
            Ok(0)
        }
        async fn writers(&self, count: usize) -> anyhow::Result<Vec<(String, Box<dyn Writer>)>> {
            let writer = |nth: usize| -> (String, Box<dyn Writer>) {
                (nth.to_string(), Box::new(Counts(self.written.clone())))
            };
            Ok((0..count).map(writer).collect())
        }
        async fn held(&mut self, site: usize) -> anyhow::Result<u64> {
            let written = self.written.load(Ordering::Relaxed);
            if site == 0 {
                return Ok(written);
            }
            ensure!(!self.away, "site 1 was asked while it was away");
            if self.silent > 0 {
                self.silent -= 1;
                anyhow::bail!("not yet");
            }
            let held = self.held;
            self.held = written.min(held + self.step);
            Ok(held)
        }
        async fn kill_last(&mut self) -> anyhow::Result<()> {
            self.away = true;
            Ok(())
        }
        fn start_last(&mut self) -> anyhow::Result<()> {
            ensure!(self.away, "site 1 was not killed");
            self.away = false;
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_measured_from_the_first_answer_to_the_last_event() -> anyhow::Result<()> {
        let mut model = Model { step: 1_000, silent: 3, ..Model::default() };
        let caught = measure(&mut model, 4_500).await?;
        assert_eq!((caught.missed, model.held), (5_000, 5_000));
        // Four pauses lie between the five answers that say less and the one that says all.
        assert_eq!(caught.took, TRY_EVERY * 4);
        assert!((caught.rate() - 250_000.0).abs() < 1.0, "{caught:?}");
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn a_site_that_takes_in_nothing_is_given_up() {
        let mut model = Model::default();
        let error = measure(&mut model, 1_000).await.unwrap_err();
        assert_eq!(error.to_string(), "site 1 stays at 0 of 1000 events");
        model = Model { silent: u32::MAX, ..Model::default() };
        let error = measure(&mut model, 1_000).await.unwrap_err();
        assert_eq!(error.to_string(), "site 1 gave none within 60s");
    }

    #[tokio::test(start_paused = true)]
    async fn a_site_that_held_most_already_is_no_measurement() {
        let mut model = Model { held: 600, ..Model::default() };
        let error = measure(&mut model, 1_000).await.unwrap_err();
        assert!(error.to_string().ends_with("400 were missing"), "{error}");
    }

    #[test]
    fn a_slow_site_is_asked_less_often() {
        let ms = Duration::from_millis;
        let pauses = [0, 1_000, 10_000, 300_000].map(|waited| pause(ms(waited)));
        assert_eq!(pauses, [5, 10, 100, 500].map(ms));
    }
}
