//! One run of one seed: work and faults, healing, convergence, judgement.

mod hosts;
mod observe;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anabranch_history::Ledger;
use anabranch_history::checks::{self, Verdict};
use anabranch_history::evidence::{Death, Evidence, Expectations, Recovery, RightClocks};
use anabranch_workload::{Plan as Work, Sites};
use anyhow::bail;
use tokio::sync::watch;

use crate::cluster::{Cluster, NodeAt, Shape, region_name};
use crate::journal::Journal;
use crate::nemesis::{Choice, Kind, Nemesis, Plan, What};
use crate::panics;
use crate::world::EPOCH_MS;
use hosts::{Judging, Shared, Stage};

/// How often nodes are looked at.
const OBSERVE_EVERY: Duration = Duration::from_millis(1_000);
/// How often it is looked whether regions serve again.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long subscribers may take to be given everything, and the judge to read it.
const READING: Duration = Duration::from_secs(60);

/// How a run is set up.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Draws everything.
    pub seed: u64,
    /// How long clients work and faults happen, in simulated time.
    pub lasts: Duration,
    /// How long the cluster may take to serve and agree after the faults, in simulated time.
    pub patience: Duration,
    /// What faults are drawn from.
    pub choice: Choice,
    /// Faults of the plan, by their number, that are left out.
    pub without: BTreeSet<usize>,
    /// Prints the journal as it is written.
    pub echo: bool,
}

/// What came of a run.
#[derive(Debug)]
pub struct Findings {
    /// What the cluster was made of.
    pub shape: Shape,
    /// What was to go wrong.
    pub plan: Plan,

    /// How often each kind of fault really struck.
    pub struck: BTreeMap<Kind, u32>,
    /// What was found.
    pub evidence: Evidence,
    /// When the faults were over.
    pub healed: Duration,
    /// What the checks say of it.
    pub verdicts: Vec<Verdict>,
    /// What happened.
    pub journal: Journal,
    /// Simulated time altogether.
    pub simulated: Duration,
}

impl Findings {
    /// Whether no law is broken. Laws that were not tested do not count against a single run.
    pub fn is_clean(&self) -> bool {
        self.verdicts.iter().all(|verdict| verdict.broken == 0)
    }

    /// Everything that happened and was found, as one hash: two runs of a seed have the same.
    pub fn fingerprint(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.journal.text().as_bytes());
        hasher.update(self.evidence.hash().as_bytes());
        hasher.finalize().to_hex()[..32].to_owned()
    }
}

/// A task of a node or a client panicked, which ends the simulation.
#[derive(Debug)]
pub struct Panicked {
    /// What the first panic said.
    pub words: String,
}

impl std::fmt::Display for Panicked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.words)
    }
}
impl std::error::Error for Panicked {}

/// Runs a seed.
///
/// # Errors
/// [`Panicked`]; or the simulation itself failed, and nothing is known of the laws.
pub fn run(settings: &Settings) -> anyhow::Result<Findings> {
    panics::watch();
    let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run_to_the_end(settings)));
    ran.unwrap_or_else(|_| {
        let words = panics::take().into_iter().next().unwrap_or_default();
        Err(Panicked { words }.into())
    })
}

fn run_to_the_end(settings: &Settings) -> anyhow::Result<Findings> {
    let shape = Shape::draw(settings.seed);
    let mut plan = Plan::draw(settings.seed, &shape, settings.lasts, &settings.choice);
    plan.left_out = settings.without.clone();
    let journal = Journal::new(settings.echo);
    journal.note(format!("seed {}: {shape}", settings.seed));
    let cluster = Cluster::new(settings.seed, shape, plan.needs_spare(), journal.clone())?;
    let mut run = Run::new(settings, cluster, plan);
    run.work()?;
    let healed = run.heal();
    let served = run.serve(healed)?;
    let recovery = run.agree(served)?;
    run.read()?;
    Ok(run.judge(recovery))
}

struct Run {
    settings: Settings,
    cluster: Cluster,
    nemesis: Nemesis,
    ledger: Arc<Ledger>,
    stage: watch::Sender<Stage>,
    shared: Shared,
    observed: Duration,
    healed: Duration,
}

impl Run {
    fn new(settings: &Settings, mut cluster: Cluster, plan: Plan) -> Self {
        let journal = cluster.journal().clone();
        let ledger = Arc::new(Ledger::new(Arc::new(move || {
            turmoil::sim_elapsed().unwrap_or_else(|| journal.now())
        })));
        let (stage, stages) = watch::channel(Stage::Work);
        let (overload, pressed) = watch::channel(false);
        let shared = Shared::default();
        let sites: Arc<dyn Sites> = Arc::new(cluster.sites(&BTreeSet::new()));
        let work = Work::draw(settings.seed, cluster.shape().regions());
        for home in 0..cluster.shape().regions() {
            let (sites, ledger, shared) = (sites.clone(), ledger.clone(), shared.clone());
            let (stages, pressed) = (stages.clone(), pressed.clone());
            let clients = hosts::Clients { sites, work: work.clone(), ledger, home, shared };
            cluster.client_host(home, clients.run(stages, pressed));
        }
        let judge = hosts::judge(settings.seed, settings.patience, stages, shared.clone());
        cluster.judge_host(judge);
        Self {
            settings: settings.clone(),
            cluster,
            nemesis: Nemesis::new(plan, overload),
            ledger,
            stage,
            shared,
            observed: Duration::ZERO,
            healed: Duration::ZERO,
        }
    }

    fn step(&mut self) -> anyhow::Result<bool> {
        let ended = self.cluster.step()?;
        self.nemesis.turn(&mut self.cluster);
        if self.cluster.elapsed() >= self.observed + OBSERVE_EVERY {
            self.observed = self.cluster.elapsed();
            observe::all(&self.cluster, &self.ledger);
        }
        Ok(ended)
    }

    fn until(
        &mut self,
        limit: Duration,
        what: &str,
        happened: impl Fn(&Self) -> bool,
    ) -> anyhow::Result<()> {
        while !happened(self) {
            if self.cluster.elapsed() > limit {
                bail!("waited in vain until {what}, up to {limit:?} of simulated time");
            }
            if self.step()? {
                bail!("everybody ended before {what}");
            }
        }
        Ok(())
    }

    /// Clients work, faults happen.
    fn work(&mut self) -> anyhow::Result<()> {
        while self.cluster.elapsed() < self.settings.lasts {
            self.step()?;
        }
        Ok(())
    }

    /// Ends the faults; says when.
    fn heal(&mut self) -> Duration {
        self.nemesis.heal(&mut self.cluster);
        self.cluster.journal().note("healed");
        self.healed = self.cluster.elapsed();
        self.healed
    }

    /// Lets clients go on until every region has taken an append, or the time is up. Says when each
    /// did.
    fn serve(&mut self, healed: Duration) -> anyhow::Result<BTreeMap<String, Option<Duration>>> {
        let lost = self.expectations().lost;
        let regions = (0..self.cluster.shape().regions()).map(region_name);
        let mut served: BTreeMap<String, Option<Duration>> =
            regions.filter(|region| !lost.contains(region)).map(|region| (region, None)).collect();
        let limit = healed + self.settings.patience;
        let mut looked = healed;
        while served.values().any(Option::is_none) && self.cluster.elapsed() < limit {
            self.step()?;
            if self.cluster.elapsed() < looked + LOOK_EVERY {
                continue;
            }
            looked = self.cluster.elapsed();
            for op in self.ledger.history().ops.iter().filter(|op| op.called >= healed) {
                let Some(ack) = op.ack() else { continue };
                let region = ack.first.origin.region.to_string();
                if let Some(when) = served.get_mut(&region) {
                    when.get_or_insert(op.returned.saturating_sub(healed));
                }
            }
        }
        Ok(served)
    }

    /// Clients finish; then all that is left must come to agree.
    fn agree(&mut self, served: BTreeMap<String, Option<Duration>>) -> anyhow::Result<Recovery> {
        let clients = self.cluster.shape().regions();
        let rest = self.cluster.elapsed() + READING;
        self.stage.send_replace(Stage::Rest);
        self.until(rest, "clients rest", |run| run.shared.lock().rested == clients)?;
        let rested = self.cluster.elapsed();
        let settle = rested + self.settings.patience;
        while !self.nemesis.is_settled(&self.cluster) && self.cluster.elapsed() < settle {
            self.step()?;
        }
        self.nemesis.leave_behind(&mut self.cluster);
        let given_up = self.nemesis.given_up();
        let gone = self.nemesis.gone().clone();
        let sites: Arc<dyn Sites> = Arc::new(self.cluster.sites(&gone));
        let regions = 0..self.cluster.shape().regions();
        self.shared.lock().left = regions.filter(|region| !given_up.contains(region)).collect();
        self.shared.lock().judging = Some(Judging { sites, lost: self.expectations().lost });
        self.stage.send_replace(Stage::Agree);
        let limit = self.cluster.elapsed() + self.settings.patience * 2;
        self.until(limit, "regions agree", |run| run.shared.lock().agreed.is_some())?;
        let agreed = self.shared.lock().agreed.clone().expect("waited for");
        // What clients still did after the healing is not the cluster's time.
        let took = self.cluster.elapsed() - rested;
        self.cluster.journal().note(match &agreed {
            Ok(agreed) => format!("all agree on {} events, {} final", agreed.events, agreed.global),
            Err(_) => "not all agree".to_owned(),
        });
        Ok(Recovery {
            within: self.settings.patience,
            served,
            agreed: agreed.is_ok().then_some(took),
            not_converged: agreed.err().unwrap_or_default(),
        })
    }

    /// Subscribers get what they still lack, and everything is read.
    fn read(&mut self) -> anyhow::Result<()> {
        self.stage.send_replace(Stage::Read);
        let limit = self.cluster.elapsed() + READING * 3;
        while !self.step()? {
            if self.cluster.elapsed() > limit {
                bail!("reading everything took more than {limit:?} of simulated time");
            }
        }
        Ok(())
    }

    fn judge(self, recovery: Recovery) -> Findings {
        let mut gathered = std::mem::take(&mut *self.shared.lock());
        let mut recovery = recovery;
        recovery.not_converged.append(&mut gathered.unread);
        let evidence = Evidence {
            history: self.ledger.history(),
            regions: gathered.regions,
            selections: gathered.selections,
            served: gathered.served,
            listed: gathered.listed,
            prints: gathered.prints,
            blames: gathered.blames,
            subscribed: gathered.subscribed,
            deaths: self.deaths(),
            recovery: Some(recovery),
            expectations: self.expectations(),
            ..Evidence::default()
        };
        let verdicts = checks::all(&evidence);
        Findings {
            shape: self.cluster.shape().clone(),
            plan: self.nemesis.plan().clone(),
            struck: self.nemesis.struck().clone(),
            evidence,
            healed: self.healed,
            verdicts,
            journal: self.cluster.journal().clone(),
            simulated: self.cluster.elapsed(),
        }
    }

    /// What is promised after what was done for good.
    fn expectations(&self) -> Expectations {
        // A region that came back as somebody else than it was is lost to the others: they hold what
        // they hold of it, and take nothing from its new life.
        let lost: BTreeSet<String> = self.nemesis.given_up().into_iter().map(region_name).collect();
        let rebuilt = self.nemesis.plan().active().filter_map(|(_, fault)| match fault.what {
            What::RebuiltRegion(region) => Some(region_name(region)),
            _ => None,
        });
        Expectations { rebuilt: rebuilt.collect(), lost, right_clocks: self.right_clocks() }
    }

    fn right_clocks(&self) -> Option<RightClocks> {
        let wrong: BTreeSet<usize> = self
            .nemesis
            .plan()
            .active()
            .filter(|(_, fault)| matches!(fault.what, What::Jump { .. } | What::Drift(..)))
            .flat_map(|(_, fault)| fault.what.nodes())
            .map(|at| at.0)
            .collect();
        let all = self.cluster.shape().regions();
        let right = (0..all).filter(|region| !wrong.contains(region)).map(region_name);
        let regions: BTreeSet<String> = right.collect();
        // If most were wrong alike, those that were right could not know.
        let most = regions.len() * 2 > all;
        most.then_some(RightClocks { began_unix_ms: EPOCH_MS, regions })
    }

    fn deaths(&self) -> Vec<Death> {
        let excuse = |at: NodeAt, why: &str| {
            let mut faults = self.nemesis.plan().active();
            faults.find_map(|(_, fault)| match fault.what {
                What::FailedSync(node) if node == at && why.contains("injected sync failure") => {
                    Some("a failed fsync".to_owned())
                }
                What::RottenBit(node, _) if node == at && why.contains("damaged") => {
                    Some("a flipped bit".to_owned())
                }
                What::LostDisk(node) if node == at && why.contains("its disk was lost") => {
                    Some("a lost disk".to_owned())
                }
                _ => None,
            })
        };
        let ended = self.cluster.seats().flat_map(|seat| {
            let at = seat.at;
            seat.deaths().into_iter().map(move |why| (at, why))
        });
        let mut deaths: Vec<Death> = ended
            .map(|(at, why)| Death { excuse: excuse(at, &why), node: at.to_string(), why })
            .collect();
        let panics = panics::take().into_iter();
        deaths.extend(panics.map(|why| Death { node: "somebody".into(), why, excuse: None }));
        deaths
    }
}
