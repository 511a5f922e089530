//! One demonstration from the first write to the report, on regions that run.

use std::sync::Arc;
use std::time::Duration;

use anabranch_client::ReadError;
use anabranch_core::RegionName;
use anyhow::{Context as _, anyhow};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::arrivals::{self, Arrivals, Outage};
use super::cluster::{Cluster, Endpoints};
use super::folds;
use super::gather::{Nodes, read_back};
use super::ledger::{Ids, Ledger};
use super::proof::{Evidence, FileCounts, Proof};
use super::reading::Faults;
use super::replay::{History, write_lane};
use super::report::{LagReport, RegionReport, Report, as_millis, per_second};
use super::rift;
use super::scenes::{Stage, Story};
use super::sight::{self, Sights};
use super::view::{self, Scenery};
use super::workload::{Refused, WRITERS, Writer, write_carts};
use crate::hex::to_hex;

/// How long regions may take to elect and to find each other.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long writers may take to learn what became of their last append.
const KNOWN_WITHIN: Duration = Duration::from_secs(30);
/// How long the regions may take to agree when nobody writes any more.
const CONVERGE_WITHIN: Duration = Duration::from_secs(60);

type Writers = JoinSet<Result<(), Refused>>;

/// Everything that is shared while it is played.
pub struct Act {
    regions: Vec<RegionName>,
    endpoints: Vec<Endpoints>,
    ledger: Arc<Mutex<Ledger>>,
    arrivals: Arc<Mutex<Arrivals>>,
    sights: Sights,
    phase: watch::Sender<String>,
    seed: u64,
    seconds: Duration,
    /// Ends subscribers, questions and view.
    done: CancellationToken,
    /// Ends the writers' insistence on an answer.
    give_up: CancellationToken,
}

/// Whoever leaves early leaves nobody watching behind.
impl Drop for Act {
    fn drop(&mut self) {
        self.done.cancel();
        self.give_up.cancel();
    }
}

/// What the writing came to.
struct Written {
    story: Story,
    began: Instant,
    ended: Instant,
    file: Option<FileCounts>,
}

impl Act {
    /// An act of `seconds` on the cluster's regions.
    pub fn new(cluster: &Cluster, seed: u64, seconds: Duration) -> Self {
        let endpoints = cluster.endpoints();
        Self {
            regions: endpoints.iter().map(|endpoints| endpoints.region.clone()).collect(),
            endpoints,
            ledger: Arc::default(),
            arrivals: Arc::default(),
            sights: Sights::default(),
            phase: watch::Sender::new("the regions find each other".to_owned()),
            seed,
            seconds,
            done: CancellationToken::new(),
            give_up: CancellationToken::new(),
        }
    }

    /// Plays it, and reports.
    ///
    /// # Errors
    /// If the regions are not ready in time, an append is refused for good, or a region cannot be
    /// read.
    pub async fn play(
        &self,
        cluster: &mut Cluster,
        history: Option<History>,
    ) -> anyhow::Result<Report> {
        let mut watchers = self.watchers()?;
        let ready = sight::ready(&self.sights, &self.regions, READY_WITHIN).await;
        ready.map_err(|late| anyhow!("not ready within {READY_WITHIN:?}: {late:?}"))?;
        let mut subscribers = self.subscribers()?;
        let written = self.write(cluster, history).await?;
        let mut report = self.prove(&written).await?;
        if written.ended > written.began {
            self.phase.send_replace("two regions, cut off from each other, change the same".into());
            let played = rift::play(cluster, &self.endpoints).await.context("the rift")?;
            played.into_iter().for_each(|(rift, faults)| report.tell(rift, faults));
        }
        self.done.cancel();
        while let Some(ended) = subscribers.join_next().await {
            ended?.context("subscribe")?;
        }
        while let Some(ended) = watchers.join_next().await {
            ended?;
        }
        Ok(report)
    }

    fn watchers(&self) -> anyhow::Result<JoinSet<()>> {
        let mut watchers = JoinSet::new();
        for endpoints in &self.endpoints {
            let (nodes, region) = (endpoints.clients_of_nodes()?, endpoints.region.clone());
            watchers.spawn(sight::watch(nodes, region, self.sights.clone(), self.done.clone()));
        }
        let scenery = Scenery {
            regions: self.regions.clone(),
            ledger: Arc::clone(&self.ledger),
            arrivals: Arc::clone(&self.arrivals),
            sights: self.sights.clone(),
            phase: self.phase.subscribe(),
        };
        watchers.spawn(view::show(scenery, self.done.clone()));
        Ok(watchers)
    }

    fn subscribers(&self) -> anyhow::Result<JoinSet<Result<(), ReadError>>> {
        let mut subscribers = JoinSet::new();
        for endpoints in &self.endpoints {
            let (client, region) = (endpoints.client()?, endpoints.region.clone());
            let arrivals = Arc::clone(&self.arrivals);
            subscribers.spawn(arrivals::follow(client, region, arrivals, self.done.clone()));
        }
        Ok(subscribers)
    }

    async fn write(
        &self,
        cluster: &mut Cluster,
        history: Option<History>,
    ) -> anyhow::Result<Written> {
        let (began, stop) = (Instant::now(), CancellationToken::new());
        let file = history.as_ref().map(|history| history.counts.clone());
        if history.is_none() && self.seconds.is_zero() {
            let story = Story::default();
            return Ok(Written { story, began, ended: began, file });
        }
        let events = history.as_ref().map(|history| history.events);
        let mut writers = match history {
            Some(history) => self.replayers(history, &stop)?,
            None => self.cart_writers(&stop)?,
        };
        let mut stage = Stage {
            cluster,
            regions: &self.regions,
            sights: &self.sights,
            ledger: &self.ledger,
            phase: &self.phase,
        };
        let ledger = Arc::clone(&self.ledger);
        let seconds = self.seconds.as_secs_f64();
        let story = match events {
            Some(events) => {
                let progress = move || ledger.lock().events() as f64 / events as f64;
                play_while_written(&mut writers, stage.play(progress)).await?
            }
            None => {
                let progress = move || began.elapsed().as_secs_f64() / seconds;
                play_while_written(&mut writers, stage.play(progress)).await?
            }
        };
        stop.cancel();
        self.finish(&mut writers).await?;
        Ok(Written { story, began, ended: Instant::now(), file })
    }

    /// Waits until every writer knows what became of its last append, or a bounded time.
    async fn finish(&self, writers: &mut Writers) -> anyhow::Result<()> {
        let finish = async |writers: &mut Writers| {
            while let Some(ended) = writers.join_next().await {
                ended??;
            }
            anyhow::Ok(())
        };
        match timeout(KNOWN_WITHIN, finish(writers)).await {
            Ok(finished) => finished,
            Err(_) => {
                // What is open now stays open: the proof allows for it, and the report says so.
                self.give_up.cancel();
                finish(writers).await
            }
        }
    }

    fn writer(&self, endpoints: &Endpoints) -> anyhow::Result<Writer> {
        let (client, region) = (endpoints.client()?, endpoints.region.clone());
        Ok(Writer::new(client, region, Arc::clone(&self.ledger), self.give_up.clone()))
    }

    fn cart_writers(&self, stop: &CancellationToken) -> anyhow::Result<Writers> {
        let (mut writers, mut number) = (Writers::new(), 0);
        for endpoints in &self.endpoints {
            for _ in 0..WRITERS {
                number += 1;
                let (writer, ids) = (self.writer(endpoints)?, Ids::new(self.seed, number));
                let seed = self.seed.wrapping_add(u64::from(number));
                writers.spawn(write_carts(writer, ids, seed, stop.clone()));
            }
        }
        Ok(writers)
    }

    fn replayers(&self, history: History, stop: &CancellationToken) -> anyhow::Result<Writers> {
        let mut writers = Writers::new();
        for (number, (region, entries)) in (1..).zip(history.into_lanes()) {
            let found = self.endpoints.iter().find(|endpoints| endpoints.region == region);
            let endpoints = found.with_context(|| format!("there is no region {region}"))?;
            let (writer, ids) = (self.writer(endpoints)?, Ids::new(self.seed, number));
            writers.spawn(write_lane(writer, ids, entries, self.seconds, stop.clone()));
        }
        Ok(writers)
    }

    async fn prove(&self, written: &Written) -> anyhow::Result<Report> {
        self.phase.send_replace("waiting until all nodes agree".to_owned());
        let heads = self.ledger.lock().heads();
        let nodes = Nodes::new(&self.endpoints)?;
        let converged = nodes.converge(&heads, CONVERGE_WITHIN).await;
        let settled = written.ended.elapsed();
        self.phase.send_replace("reading everything back".to_owned());
        self.subscribers_caught_up(&heads).await;
        let (regions, globals) = read_back(&self.endpoints).await?;
        self.phase.send_replace("folding aggregates in every region".to_owned());
        let plain = written.file.as_ref().map(|file| &file.folds);
        let plain = plain.or(regions.first().map(|region| &region.folds));
        let aggregates = match plain.filter(|plain| !plain.is_empty()) {
            Some(plain) => folds::compare(&self.endpoints, plain, CONVERGE_WITHIN).await?,
            None => Faults::default(),
        };
        let (ledger, arrivals) = (self.ledger.lock(), self.arrivals.lock());
        let proof = Proof::of(&Evidence {
            ledger: &ledger,
            regions: &regions,
            globals: &globals,
            prints: &converged.prints,
            file: written.file.as_ref(),
            out_of_turn: &arrivals.out_of_turn,
            not_converged: converged.lacking.as_deref(),
            aggregates: &aggregates,
        });
        let print = converged.prints.first();
        let chain = print.map_or(&[][..], |print| &print.global_chain);
        let wrote = written.ended - written.began;
        let outage = self.outage(&written.story, &arrivals);
        let reunited = outage.as_ref().zip(written.story.healed.as_ref());
        let lags = arrivals.lags(&ledger, &self.regions, outage.as_slice());
        Ok(Report {
            holds: proof.holds(),
            acknowledged: ledger.events(),
            missing: proof.missing,
            duplicated: proof.twice,
            unknown: ledger.doubted,
            unknown_resolved: ledger.resolved,
            unknown_events_left: ledger.open() as u64,
            repeated: ledger.repeated,
            refused: ledger.refused,
            seconds: as_millis(wrote) / 1_000.0,
            events_per_second: per_second(ledger.events(), wrote),
            converged_after_healing_ms: reunited.map(|(outage, (healed, _))| {
                as_millis(outage.until.saturating_duration_since(*healed))
            }),
            settled_ms: as_millis(settled),
            global_position: print.map_or(0, |print| print.global_position),
            global_chain: to_hex(chain),
            regions: self.region_reports(&ledger, wrote),
            lags: lags.iter().map(LagReport::of).collect(),
            proof,
            rift: None,
        })
    }

    /// The subscribers get as long as the nodes to be told of everything; what they lack then has no
    /// arrival, and the proof rests on what is read back.
    async fn subscribers_caught_up(&self, heads: &std::collections::BTreeMap<RegionName, u64>) {
        let all = async {
            let reached = |region: &RegionName| {
                let arrivals = self.arrivals.lock();
                heads.iter().all(|(origin, head)| *head <= arrivals.held(region, origin))
            };
            while !self.regions.iter().all(reached) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        if timeout(CONVERGE_WITHIN, all).await.is_err() {
            tracing::warn!("a subscriber was not told of everything in time");
        }
    }

    /// The cut, until every region could read what all had acknowledged when it was mended.
    fn outage(&self, story: &Story, arrivals: &Arrivals) -> Option<Outage> {
        let ((region, from), (healed, heads)) = (story.cut.as_ref()?, story.healed.as_ref()?);
        let reached = self.regions.iter().map(|reader| arrivals.reached(reader, heads));
        let reached: Option<Vec<Instant>> = reached.collect();
        let until = reached?.into_iter().max()?.max(*healed);
        Some(Outage { region: region.clone(), from: *from, until })
    }

    fn region_reports(&self, ledger: &Ledger, wrote: Duration) -> Vec<RegionReport> {
        let sights = self.sights.lock();
        let report = |endpoints: &Endpoints| {
            let sight = sights.get(&endpoints.region).cloned().unwrap_or_default();
            let (region, nodes) = (&endpoints.region, endpoints.nodes.clone());
            RegionReport::of(region, nodes, ledger, &sight, wrote)
        };
        self.endpoints.iter().map(report).collect()
    }
}

/// Plays the scenes to their end; a writer that fails ends the act.
async fn play_while_written(
    writers: &mut Writers,
    scenes: impl Future<Output = anyhow::Result<Story>>,
) -> anyhow::Result<Story> {
    let mut scenes = std::pin::pin!(scenes);
    loop {
        tokio::select! {
            biased;
            story = &mut scenes => return story,
            Some(ended) = writers.join_next() => ended??,
        }
    }
}
