//! Many runs: one process a seed, several at once.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;

use crate::corpus::Job;
use crate::coverage::Coverage;
use crate::outcome::Outcome;
use crate::still;

/// One seed in so many is run twice, and both runs compared.
const TWICE_EVERY: usize = 10;

/// How many runs are made.
#[derive(Debug, Clone)]
pub struct Campaign {
    /// Runs that are made first.
    pub first: Vec<Job>,
    /// Then these, one after the other.
    pub then: std::ops::Range<u64>,
    /// What the later runs have in common: everything but the seed.
    pub like: Job,
    /// Runs at once.
    pub jobs: usize,
    /// No run begins after this time.
    pub until: Option<Duration>,
    /// Bugs that are put back.
    pub planted: Vec<String>,
    /// Where pages of failed runs go.
    pub pages: PathBuf,
    /// Ends at the first run that breaks a law.
    pub first_only: bool,
    /// Shows a progress bar.
    pub bar: bool,
}

/// A run that went wrong.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The run.
    pub job: Job,
    /// What went wrong, in words.
    pub words: String,
    /// The laws that were broken, if it came to judgement.
    pub laws: Vec<String>,
    /// The smallest parts of the history that show it, in lines.
    pub excerpt: String,
}

/// What came of all runs.
#[derive(Debug, Default)]
pub struct Tally {
    /// What was reached.
    pub coverage: Coverage,
    /// Runs that went wrong, by seed.
    pub failures: Vec<Failure>,
    /// Real time.
    pub took: Duration,
}

struct Queue {
    waiting: VecDeque<(Job, bool)>,
    then: std::ops::Range<u64>,
    made: usize,
}

struct Shared {
    campaign: Campaign,
    began: Instant,
    queue: Mutex<Queue>,
    tally: Mutex<Tally>,
    bar: ProgressBar,
}

impl Campaign {
    /// Makes all runs.
    ///
    /// # Errors
    /// A process could not be started.
    pub fn run(self) -> anyhow::Result<Tally> {
        let count = self.first.len() as u64 + (self.then.end - self.then.start);
        let bar = match (self.bar, self.until) {
            (false, _) => ProgressBar::hidden(),
            (true, Some(_)) => ProgressBar::new_spinner(),
            (true, None) => ProgressBar::new(count),
        };
        let style = "{elapsed_precise} {wide_bar} {pos}/{len} {msg}";
        bar.set_style(ProgressStyle::with_template(style).context("the bar's template")?);
        let waiting = self.first.iter().map(|job| (job.clone(), true)).collect();
        let queue = Queue { waiting, then: self.then.clone(), made: 0 };
        let jobs = self.jobs.max(1);
        let shared = Arc::new(Shared {
            campaign: self,
            began: Instant::now(),
            queue: Mutex::new(queue),
            tally: Mutex::default(),
            bar,
        });
        let workers: Vec<_> = (0..jobs)
            .map(|_| {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || shared.work())
            })
            .collect();
        for worker in workers {
            worker.join().expect("workers do not panic")?;
        }
        shared.bar.finish_and_clear();
        let mut tally = std::mem::take(&mut *shared.tally.lock());
        tally.failures.sort_by_key(|failure| failure.job.seed);
        tally.took = shared.began.elapsed();
        Ok(tally)
    }
}

impl Shared {
    fn work(&self) -> anyhow::Result<()> {
        while let Some((job, twice)) = self.next() {
            let (outcome, words) = self.child(&job)?;
            let again = match (&outcome, twice) {
                (Some(_), true) => self.child(&job)?.0,
                _ => None,
            };
            self.count(&job, outcome, again, words);
        }
        Ok(())
    }

    fn next(&self) -> Option<(Job, bool)> {
        let Campaign { until, first_only, like, .. } = &self.campaign;
        if until.is_some_and(|until| self.began.elapsed() >= until)
            || (*first_only && !self.tally.lock().failures.is_empty())
        {
            return None;
        }
        let mut queue = self.queue.lock();
        if let Some(next) = queue.waiting.pop_front() {
            return Some(next);
        }
        let seed = queue.then.next()?;
        queue.made += 1;
        let twice = queue.made % TWICE_EVERY == 1 && !first_only;
        Some((Job { seed, ..like.clone() }, twice))
    }

    /// One run in a process of its own. Without an outcome, what it said last.
    fn child(&self, job: &Job) -> anyhow::Result<(Option<Outcome>, String)> {
        let mut command = still::this_program(job.seed)?;
        command.args(["--json", "--seed", &job.seed.to_string()]);
        command.args(["--seconds", &job.seconds.to_string()]);
        for kind in &job.choice.only {
            command.args(["--only", &kind.slug()]);
        }
        if job.choice.plain {
            command.arg("--plain");
        }
        for bug in &self.campaign.planted {
            command.args(["--plant", bug]);
        }
        command.arg("--pages").arg(&self.campaign.pages);
        let child = command.stdin(Stdio::null()).output().context("start a simulation")?;
        let said = String::from_utf8_lossy(&child.stdout);
        let outcome = said.lines().last().and_then(|line| serde_json::from_str(line).ok());
        if still::went_round(child.status) {
            return Ok((None, "it does not end: something goes round without a pause".to_owned()));
        }
        let error = String::from_utf8_lossy(&child.stderr);
        let last: Vec<&str> = error.lines().rev().take(3).collect();
        let words = last.into_iter().rev().collect::<Vec<_>>().join(" / ");
        Ok((outcome, format!("{words} ({})", child.status)))
    }

    /// Takes note of a run; `again` is a second one.
    fn count(&self, job: &Job, outcome: Option<Outcome>, again: Option<Outcome>, words: String) {
        let mut tally = self.tally.lock();
        let mut failure = None;
        match &outcome {
            Some(outcome) => {
                tally.coverage.add(outcome);
                if let Some(first) = outcome.broken.first() {
                    let laws = outcome.broken.iter().map(|broken| broken.law.clone()).collect();
                    failure = Some((format!("{}: {}", first.law, first.words), laws));
                }
            }
            None => failure = Some((format!("the simulation failed: {words}"), Vec::new())),
        }
        if let (Some(one), Some(other)) = (&outcome, &again) {
            tally.coverage.twice += 1;
            if one != other {
                let (one, other) = (&one.fingerprint, &other.fingerprint);
                let words = format!("runs of one seed differ: {one} and {other}");
                failure = Some((words, vec!["determinism".to_owned()]));
            }
        }
        if let Some((words, laws)) = failure {
            let seed = job.seed;
            self.bar.suspend(|| eprintln!("seed {seed}: {words}"));
            let excerpt = outcome.map(|outcome| outcome.excerpt).unwrap_or_default();
            tally.failures.push(Failure { job: job.clone(), words, laws, excerpt });
        }
        let failures = tally.failures.len();
        let simulated = tally.coverage.simulated.as_secs();
        self.bar.set_message(format!("{simulated} s simulated, {failures} failed"));
        self.bar.inc(1);
    }
}

impl Tally {
    /// How often each law was broken.
    pub fn laws(&self) -> BTreeMap<&str, usize> {
        let mut laws = BTreeMap::new();
        for law in self.failures.iter().flat_map(|failure| &failure.laws) {
            *laws.entry(law.as_str()).or_default() += 1;
        }
        laws
    }
}
