//! Leading a shard: the only task that proposes.
//!
//! It runs all the time and works while this node leads. Each leadership has its own
//! [`Sequencer`], which starts from the applied state once everything of earlier terms is applied.
//! Submissions and imports that wait become one command each; a few commands may be on their way
//! through Raft at once, and while they are, the next ones form.
//!
//! A command that comes back refused, or not at all, ends the sequencer's life: what it predicted is
//! no longer so. The ones behind it are refused by apply too, so nobody is told a lie: their waiters
//! hear what became of each.

mod may_write;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anabranch_core::import::Importer;
use anabranch_core::limits::{GROUP_BYTES, IMPORT_BYTES};
use anabranch_core::planted::{self, Bug};
use anabranch_core::region::{Outcome, Receipt, Region};
use anabranch_core::sequencer::{Sequencer, Submission, Ticket, Ticketed, Verdict};
use anabranch_core::{Command, Incarnation, Origin, RegionName, Stamp};
use anabranch_gossip::{Gossip, Sink};
use anabranch_log::{Log, Room};
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesOrdered, FuturesUnordered};
use futures_util::{FutureExt, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio::time::Instant;

use self::may_write::{Aside, Memory};
use super::append::{AppendError, weight};
use super::inlet::{Inlet, InletSink};
use super::standing::{Standing, Watch};
use super::state::ShardState;
use crate::env::{Clock, Seeds};
use crate::raft::{Leadership, ProposeError, Proposed, RaftGroup, ReadIndexError};

/// Commands that may be on their way through Raft at once.
const ON_THEIR_WAY: usize = 4;
/// While a small command is on its way the next one waits for it, and grows, but no longer than this: many
/// who append little share a command and a sync then, and on a slow disk several go at once all the same.
const GATHER: Duration = Duration::from_millis(2);
/// A command of so many bytes is worth a sync of its own: nobody waits behind it.
const WORTH_A_SYNC: usize = 64 * 1024;
/// Least time between two imports that carry statements only.
const STATEMENT_GAP: Duration = Duration::from_millis(10);
/// A region that has nothing to append promises its time this often, while events flow.
const CLOSE_EVERY: Duration = Duration::from_millis(50);
/// And this often while its disk is full: the reserve lasts for hours of it.
const CLOSE_EVERY_WHEN_FULL: Duration = Duration::from_secs(1);
/// Events flow until this long after the last one. Then every region's word is at or above every
/// stamp it has seen, so more promises would help nobody: the log rests, also while a region is cut
/// off and the global order waits for it.
const FLOW: Duration = Duration::from_secs(1);
/// How long a quorum may take to confirm a refusal.
const CONFIRM: Duration = Duration::from_secs(2);
/// How often a leader that may not write looks whether it may.
const LOOK_UNFIT: Duration = Duration::from_millis(100);
/// How often a node that does not lead looks at its clocks.
const LOOK_IDLE: Duration = Duration::from_millis(500);
/// Pause before a leadership that ended by a refusal starts over.
const RESTART_PAUSE: Duration = Duration::from_millis(20);

/// An append that waits for its verdict.
pub(super) struct Job {
    pub(super) submission: Submission,
    pub(super) reply: Reply,
    /// Room in the queue, in bytes; given back when the job leaves it, whoever still waits.
    pub(super) _room: OwnedSemaphorePermit,
}

/// Where the answer goes.
pub(super) type Reply = oneshot::Sender<Result<Done, AppendError>>;

/// An append that is durable in this region.
#[derive(Debug, Clone)]
pub(super) struct Done {
    pub(super) receipt: Arc<Receipt>,
    pub(super) repeated: bool,
}

/// What the task works with.
pub(super) struct Lead {
    pub(super) region: RegionName,
    pub(super) members: Vec<RegionName>,
    pub(super) state: Arc<ShardState>,
    pub(super) raft: RaftGroup,
    /// For whether there is room on this node's disk.
    pub(super) log: Log,
    pub(super) inlet: Arc<Inlet>,
    pub(super) gossip: watch::Receiver<Option<Gossip>>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) seeds: Arc<dyn Seeds>,
    pub(super) drift_max: Duration,
    pub(super) watch: Watch,
    pub(super) jobs: mpsc::Receiver<Job>,
    pub(super) stop: watch::Receiver<bool>,
}

type Proposal = BoxFuture<'static, (Ticket, Result<Proposed, ProposeError>)>;

impl Lead {
    /// Runs until stopped. Every job is answered or dropped with the task.
    pub(super) async fn run(mut self) {
        let mut leadership = self.raft.leadership();
        let mut stop = self.stop.clone();
        loop {
            let now = leadership.borrow_and_update().clone();
            if now.ready {
                self.lead(now.term, &mut leadership).await;
                if !*self.stop.borrow() && leadership.borrow().ready {
                    tokio::time::sleep(RESTART_PAUSE).await;
                }
            }
            if *self.stop.borrow() {
                return;
            }
            if leadership.borrow().ready {
                continue;
            }
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                moved = leadership.changed() => if moved.is_err() { return },
                Some(job) = self.jobs.recv() => turn_away(job, &leadership),
                () = tokio::time::sleep(LOOK_IDLE) => {
                    self.watch.look(self.state.region(Region::last_stamp));
                }
            }
        }
    }

    async fn lead(&mut self, term: u64, leadership: &mut watch::Receiver<Leadership>) {
        if self.state.region(|region| region.origin().is_none())
            && !self.found(term, leadership).await
        {
            return;
        }
        let sequencer = self.state.region(|region| Sequencer::new(region, self.drift_max));
        let own = self.state.region(|region| region.origin().cloned());
        let (Some(sequencer), Some(own)) = (sequencer, own) else { return };
        tracing::info!(region = %self.region, shard = %self.raft.shard(), term, "leading the shard");
        self.inlet.set(Some(Importer::new(self.drift_max)));
        self.pull(true);
        self.watch.begin();
        let mut reign = Reign {
            term,
            own,
            sequencer,
            memory: Memory::Whole,
            on_their_way: FuturesOrdered::new(),
            waiting: BTreeMap::new(),
            aside: FuturesUnordered::new(),
            next_statement: Instant::now(),
            next_close: Instant::now(),
            last_ticket: Ticket::default(),
            gather_until: Instant::now(),
            flow: Flow { position: 0, until: Instant::now() },
            appends_first: false,
            over: false,
        };
        reign.run(self, leadership).await;
        self.pull(false);
        self.inlet.set(None);
        self.watch.end();
        reign.settle().await;
        tracing::info!(region = %self.region, shard = %self.raft.shard(), term, "no longer leading");
    }

    fn pull(&self, on: bool) {
        if let Some(gossip) = &*self.gossip.borrow() {
            let sink = || -> Arc<dyn Sink> {
                let (inlet, state) = (Arc::clone(&self.inlet), Arc::clone(&self.state));
                Arc::new(InletSink::new(inlet, state, Arc::clone(&self.clock)))
            };
            gossip.pull(self.raft.shard(), on.then(sink));
        }
    }

    /// Gives a new log its first command, when all first members are there. True once it has one.
    ///
    /// Without them that may take for ever; a stop, or the end of the leadership, comes first.
    async fn found(&self, term: u64, leadership: &mut watch::Receiver<Leadership>) -> bool {
        let origin = Origin {
            region: self.region.clone(),
            incarnation: Incarnation(self.seeds.next_u128()),
            shard: self.raft.shard(),
        };
        let genesis = Command::Genesis { origin, members: self.members.clone() };
        let mut stop = self.stop.clone();
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => false,
            _ = leadership.wait_for(|now| !now.ready || now.term != term) => false,
            born = self.bear(term, &genesis) => born,
        }
    }

    async fn bear(&self, term: u64, genesis: &Command) -> bool {
        // From its birth on, an empty log under a voter's id is a lost one.
        let waits_for = |nodes: &[u64]| {
            tracing::info!(region = %self.region, ?nodes, "the region is not born: it waits for nodes");
        };
        self.raft.voters_are_there(waits_for).await;
        let proposed = self.raft.propose_in(term, genesis.encode()).await;
        let born = matches!(proposed, Ok(Proposed { outcome: Outcome::Accepted, .. }));
        if born && let Command::Genesis { origin, members } = genesis {
            tracing::info!(%origin, ?members, "the log is born");
        }
        born
    }
}

/// Answers a job while this node does not lead.
fn turn_away(job: Job, leadership: &watch::Receiver<Leadership>) {
    let leader = leadership.borrow().leader.clone();
    let _ = job.reply.send(Err(AppendError::NotLeader { leader }));
}

/// One leadership.
struct Reign {
    term: u64,
    own: Origin,
    sequencer: Sequencer,
    memory: Memory,
    on_their_way: FuturesOrdered<Proposal>,
    waiting: BTreeMap<Ticket, Vec<Waiter>>,
    /// What goes on beside the commands.
    aside: FuturesUnordered<BoxFuture<'static, Aside>>,
    next_statement: Instant,
    next_close: Instant,
    /// The newest command on its way.
    last_ticket: Ticket,
    /// Until when the next command waits for the one before it.
    gather_until: Instant,
    flow: Flow,
    /// Whose turn it is when a place becomes free: appends' after an import, imports' otherwise.
    appends_first: bool,
    over: bool,
}

/// Whether events are being appended anywhere, as far as they have arrived.
struct Flow {
    position: u64,
    until: Instant,
}

/// Who waits for a command, and what to answer once it is accepted.
struct Waiter {
    reply: Reply,
    answer: Result<Done, AppendError>,
}

impl Waiter {
    /// The command is not known to be committed. What was to be refused was not in it: it is refused
    /// still, only not for the reason that was found.
    fn fail(self, error: AppendError) {
        let answer = match self.answer {
            Ok(_) => error,
            Err(_) => AppendError::NotLeader { leader: None },
        };
        let _ = self.reply.send(Err(answer));
    }
}

impl Reign {
    async fn run(&mut self, lead: &mut Lead, leadership: &mut watch::Receiver<Leadership>) {
        let mut applied = lead.state.applied();
        let mut stop = lead.stop.clone();
        let mut gossip = lead.gossip.clone();
        let inlet = Arc::clone(&lead.inlet);
        while !self.over {
            let standing = self.fill(lead);
            let (gathers, busy) = (self.gathers(), self.is_busy());
            let waits = standing == Standing::Waits;
            let tick = match standing {
                Standing::Fit => self.tick(lead),
                _ => Instant::now() + LOOK_UNFIT,
            };
            self.hand_over(lead, &standing);
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                moved = leadership.changed() => {
                    let now = leadership.borrow_and_update();
                    if moved.is_err() || !now.ready || now.term != self.term {
                        return;
                    }
                }
                // The node starts its gossip after its shards.
                Ok(()) = gossip.changed() => lead.pull(true),
                Some((ticket, result)) = self.on_their_way.next() => self.landed(ticket, result),
                Some(aside) = self.aside.next() => self.went_aside(lead, aside),
                () = tokio::time::sleep_until(self.gather_until), if gathers => {}
                () = inlet.offered.notified(), if !busy => {}
                job = lead.jobs.recv(), if !busy && !waits => match job {
                    Some(job) => self.sequence(lead, job),
                    None => return,
                },
                // Applied imports may have made events wait for others' statements.
                moved = applied.changed() => if moved.is_err() { return },
                () = tokio::time::sleep_until(tick), if !busy => self.close(lead),
            }
        }
    }

    /// When to look at statements or promises next.
    fn tick(&self, lead: &Lead) -> Instant {
        let now = Instant::now();
        match self.wants_words(lead) {
            false => now + FLOW,
            true if now < self.next_statement => self.next_statement,
            true => self.next_close,
        }
    }

    /// Whether somebody may wait for the global order: it lags behind what is applied.
    fn unfinal(&self, lead: &Lead) -> bool {
        let events = lead.state.region(Region::position);
        lead.state.order_position() < events
    }

    /// Whether somebody may wait for what other regions say of themselves.
    fn wants_words(&self, lead: &Lead) -> bool {
        self.unfinal(lead) || lead.state.region(Region::awaits_confirmation)
    }

    /// Fills the free places on the way through Raft, appends and imports by turns: a region that
    /// catches up on hours of others' events goes on taking its own, and the other way round. Says
    /// what this leader may do.
    fn fill(&mut self, lead: &mut Lead) -> Standing {
        for _ in 0..ON_THEIR_WAY {
            let (standing, time_ms) = self.standing(lead);
            if standing == Standing::Waits || self.is_busy() {
                return standing;
            }
            let imports = !matches!(standing, Standing::Forgetful(_));
            let took = match self.appends_first {
                true => self.take_append(lead) || (imports && self.import(lead, time_ms)),
                false => (imports && self.import(lead, time_ms)) || self.take_append(lead),
            };
            if !took {
                return standing;
            }
        }
        self.standing(lead).0
    }

    /// Whether what waits goes on waiting, for more to come with it.
    fn gathers(&self) -> bool {
        !self.on_their_way.is_empty() && Instant::now() < self.gather_until
    }

    /// Whether no command may set out now.
    fn is_busy(&self) -> bool {
        self.gathers() || self.on_their_way.len() >= ON_THEIR_WAY
    }

    /// Sequences what waits, if anything does.
    fn take_append(&mut self, lead: &mut Lead) -> bool {
        let Ok(job) = lead.jobs.try_recv() else { return false };
        self.sequence(lead, job);
        true
    }

    /// Makes one command of everything that waits.
    fn sequence(&mut self, lead: &mut Lead, first: Job) {
        self.appends_first = false;
        let mut bytes = weight(&first.submission);
        let mut jobs = vec![first];
        while bytes < GROUP_BYTES
            && let Ok(job) = lead.jobs.try_recv()
        {
            bytes += weight(&job.submission);
            jobs.push(job);
        }
        // Callers that gave up meanwhile need not be written.
        jobs.retain(|job| !job.reply.is_closed());
        if lead.log.room() != Room::Ok {
            return refuse_all(jobs, &AppendError::DiskFull);
        }
        let (standing, unix_ms) = self.standing(lead);
        if standing != Standing::Fit {
            // What was not taken up yet may be asked of this leader again.
            let refusal = standing.refusal().unwrap_or(AppendError::NotLeader { leader: None });
            return refuse_all(jobs, &refusal);
        }
        let unix_ms = lead.watch.stamping_ms(unix_ms, self.sequencer.last_stamp());
        let (submissions, replies): (Vec<_>, Vec<_>) =
            jobs.into_iter().map(|job| (job.submission, job.reply)).unzip();
        let state = Arc::clone(&lead.state);
        let sequenced =
            state.region(|region| self.sequencer.sequence(unix_ms, region, submissions));
        match sequenced {
            Ok((command, verdicts)) => {
                if let Some(command) = command {
                    self.propose(lead, command);
                }
                for (verdict, reply) in verdicts.into_iter().zip(replies) {
                    self.hear(lead, verdict, reply);
                }
            }
            Err(behind) => {
                tracing::error!(region = %lead.region, %behind, "not proposing");
                let error = AppendError::ClockBehind(behind);
                replies.into_iter().for_each(|reply| drop(reply.send(Err(error.clone()))));
            }
        }
    }

    fn hear(&mut self, lead: &Lead, verdict: Verdict, reply: Reply) {
        let refused = match verdict {
            Verdict::Sequenced { ticket, receipt } => {
                let answer = Ok(Done { receipt, repeated: false });
                return self.wait(ticket, Waiter { reply, answer });
            }
            Verdict::Joined { ticket, receipt } => {
                let answer = Ok(Done { receipt, repeated: true });
                return self.wait(ticket, Waiter { reply, answer });
            }
            Verdict::Repeated(receipt) => {
                let _ = reply.send(Ok(Done { receipt, repeated: true }));
                return;
            }
            Verdict::Conflicts(conflicts) => AppendError::Conflicts(conflicts),
            Verdict::Fenced { epoch } => AppendError::Fenced { epoch },
            Verdict::Forgotten { oldest } => AppendError::Forgotten { oldest },
            Verdict::IdReused { id } => AppendError::IdReused { id },
            Verdict::SequenceReused { sequence } => AppendError::SequenceReused { sequence },
            Verdict::NotHome { stream, home } => {
                // Where to go is not what is: the home decides for itself.
                let _ = reply.send(Err(AppendError::NotHome { stream, home }));
                return;
            }
            Verdict::HomesDiffer { first, second } => AppendError::HomesDiffer { first, second },
            Verdict::HomeUnconfirmed { category, waits_for } => {
                AppendError::HomeUnconfirmed { category, waits_for }
            }
            Verdict::Class(refused) => AppendError::Class(refused),
            Verdict::Short { counter, wanted, held } => {
                AppendError::RightsShort { counter, wanted, held }
            }
            Verdict::BadRights(bad) => AppendError::BadRights(bad),
        };
        self.refuse(lead, refused, reply);
    }

    fn wait(&mut self, ticket: Ticket, waiter: Waiter) {
        if planted::is(Bug::AcknowledgedWhenProposed) {
            let _ = waiter.reply.send(waiter.answer);
            return;
        }
        self.waiting.entry(ticket).or_default().push(waiter);
    }

    /// Says no, once it is certain that the state it rests on is history: with the last command on
    /// its way, or, if none is, when a quorum confirms that nobody else leads. Else a failed
    /// expectation could report a revision that never comes to be, or that is long past.
    fn refuse(&mut self, lead: &Lead, refused: AppendError, reply: Reply) {
        if planted::is(Bug::ConflictUnconfirmed) {
            let _ = reply.send(Err(refused));
            return;
        }
        if !self.on_their_way.is_empty() {
            return self.wait(self.last_ticket, Waiter { reply, answer: Err(refused) });
        }
        let raft = lead.raft.clone();
        self.aside.push(
            async move {
                let answer = match raft.read_index(CONFIRM).await {
                    Ok(_) => refused,
                    Err(ReadIndexError::NotLeader { leader }) => AppendError::NotLeader { leader },
                    Err(ReadIndexError::NoQuorum { .. }) => AppendError::NoQuorum,
                    Err(ReadIndexError::Stopped { reason }) => AppendError::Stopped { reason },
                };
                let _ = reply.send(Err(answer));
                Aside::Done
            }
            .boxed(),
        );
    }

    /// Puts what other regions sent into the log, as far as it may go in: one command of it. False
    /// if there is nothing, or no room: then it waits, and in the end its senders do.
    fn import(&mut self, lead: &Lead, time_ms: u64) -> bool {
        if lead.log.room() != Room::Ok {
            return false;
        }
        let now = Instant::now();
        let statements = now >= self.next_statement && self.wants_words(lead);
        let frontier = self.sequencer.frontier();
        let batch = lead.inlet.take(time_ms, frontier, IMPORT_BYTES, statements);
        if batch.is_empty() {
            return false;
        }
        self.appends_first = true;
        self.next_statement = now + STATEMENT_GAP;
        let state = &lead.state;
        let command =
            state.region(|region| self.sequencer.import(region, batch.groups, batch.digests));
        self.propose(lead, command);
        true
    }

    /// Promises this region's time while others may wait for it. On a full disk this region imports
    /// nothing, so what others sent is all that shows that they do.
    fn close(&mut self, lead: &mut Lead) {
        let now = Instant::now();
        let position = lead.state.region(Region::position);
        if position != self.flow.position {
            self.flow = Flow { position, until: now + FLOW };
        }
        if now < self.next_close {
            return;
        }
        let room = lead.log.room();
        let every = if room == Room::Ok { CLOSE_EVERY } else { CLOSE_EVERY_WHEN_FULL };
        self.next_close = now + every;
        let wanted = match room {
            Room::Ok => now < self.flow.until && self.unfinal(lead),
            Room::Low => lead.inlet.waits(),
            Room::None => false,
        };
        if !wanted {
            return;
        }
        let (standing, unix_ms) = self.standing(lead);
        let stale = Stamp::from_unix_ms(unix_ms).0.saturating_sub(self.sequencer.last_stamp().0);
        let before = unix_ms.saturating_sub(CLOSE_EVERY.as_millis() as u64);
        let recent = Stamp::from_unix_ms(unix_ms).0 - Stamp::from_unix_ms(before).0;
        // If the clock is behind the log there is nothing to promise.
        if stale < recent || standing != Standing::Fit {
            return;
        }
        if let Ok(command) = self.sequencer.close(unix_ms) {
            self.propose(lead, command);
        }
    }

    fn propose(&mut self, lead: &Lead, Ticketed { ticket, encoded, .. }: Ticketed) {
        self.last_ticket = ticket;
        let now = Instant::now();
        self.gather_until = if encoded.len() < WORTH_A_SYNC { now + GATHER } else { now };
        let proposed = lead.raft.propose_in(self.term, encoded);
        self.on_their_way.push_back(async move { (ticket, proposed.await) }.boxed());
    }

    fn landed(&mut self, ticket: Ticket, result: Result<Proposed, ProposeError>) {
        let waiters = self.waiting.remove(&ticket).unwrap_or_default();
        let error = match result {
            Ok(Proposed { outcome: Outcome::Accepted, .. }) => {
                self.sequencer.applied(ticket);
                for waiter in waiters {
                    let _ = waiter.reply.send(waiter.answer);
                }
                return;
            }
            Ok(Proposed { outcome: Outcome::Refused(refused), index, .. }) => {
                tracing::warn!(index, %refused, "the prediction no longer holds; starting over");
                AppendError::NotLeader { leader: None }
            }
            Err(error) => {
                tracing::debug!(%error, "a command is not known to be committed");
                refusal(error)
            }
        };
        self.over = true;
        waiters.into_iter().for_each(|waiter| waiter.fail(error.clone()));
    }

    /// After the leadership: tells everybody who waits what became of their command.
    ///
    /// A leader that was cut off may not know for long; after a while it is unknown, and said so.
    async fn settle(mut self) {
        let deadline = Instant::now() + SETTLE;
        while let Ok(Some((ticket, result))) =
            tokio::time::timeout_at(deadline, self.on_their_way.next()).await
        {
            self.landed(ticket, result);
        }
        while let Ok(Some(_)) = tokio::time::timeout_at(deadline, self.aside.next()).await {}
        let reason = "leadership was lost while the append was on its way".to_owned();
        let unknown = AppendError::Unknown { reason };
        let waiters = self.waiting.into_values().flatten();
        waiters.for_each(|waiter| waiter.fail(unknown.clone()));
    }
}

/// How long a lost leadership waits to learn what became of its last commands.
const SETTLE: Duration = Duration::from_millis(500);

fn refusal(error: ProposeError) -> AppendError {
    match error {
        ProposeError::NotLeader { leader } => AppendError::NotLeader { leader },
        ProposeError::NoQuorum => AppendError::NoQuorum,
        ProposeError::Busy => AppendError::Overload {
            what: "commands waiting",
            retry_after: Duration::from_millis(100),
        },
        ProposeError::Stopped { reason } => AppendError::Stopped { reason },
        ProposeError::Unknown { reason } => AppendError::Unknown { reason },
    }
}

fn refuse_all(jobs: Vec<Job>, error: &AppendError) {
    jobs.into_iter().for_each(|job| drop(job.reply.send(Err(error.clone()))));
}
