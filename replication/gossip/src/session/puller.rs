//! The side that asks.
//!
//! Order is restored here: groups of the live tail come on the session's stream, blocks on streams
//! of their own, in any order. What may wait is bounded: the driver takes no more blocks than
//! [`BLOCKS_HELD_MAX`] until [`Action::Release`] says that they moved on, and while a live group waits
//! the session's stream is not read ([`Puller::reads_frames`]).

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use anabranch_core::{Chain, Group, Origin, RegionName, Seq};

use super::{SessionError, check_hello};
use crate::block::Block;
use crate::frame::{Frame, Hello, Report, WantId};

/// Most blocks that may wait for an earlier one. Servers keep at most half as many under way.
pub const BLOCKS_HELD_MAX: usize = 8;

/// Bytes and number of groups, from which on an offer takes no more.
const OFFER_BYTES: usize = 1024 * 1024;
const OFFER_GROUPS: usize = 256;

/// How long something may wait for what comes before it, while nothing of the origin moves on. An
/// honest server keeps so few pieces under way that only the loss of the link takes so long.
const GAP_PATIENCE: Duration = Duration::from_secs(30);

/// A fact about the world.
#[derive(Debug)]
pub enum Input {
    /// A frame came on the session's stream.
    Frame(Frame),
    /// A block came.
    Block(Block),
    /// Pull `origin` from number `from` on, starting anew if it is pulled already.
    Want {
        /// Whose events.
        origin: Origin,
        /// First number not yet received.
        from: Seq,
    },
    /// Stop pulling.
    Unwant(Origin),
    /// Bytes are coming, though no frame is whole yet; or this side was busy and did not listen.
    Heard,
    /// The deadline may have passed.
    Elapsed,
}

/// Something the driver should do.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Write the frame to the session's stream.
    Send(Frame),
    /// The other side is who it should be; wants may follow.
    Connected(Hello),
    /// Hand groups of one origin, dense and checked, to the sink.
    Offer(Vec<Group>),
    /// So many blocks are no longer held.
    Release(usize),
    /// Hand on what the other side says of itself and others.
    Report(Report),
}

/// One wanted origin.
#[derive(Debug)]
struct Inflow {
    origin: Origin,
    next: Seq,
    chain: Option<Chain>,
    /// What came early, by first number.
    early: BTreeMap<Seq, Early>,
    /// Since when something has been waiting for what comes before it.
    gap_since: Option<Instant>,
}

#[derive(Debug)]
enum Early {
    Live(Group),
    Block(Vec<Group>),
}

/// Asks one remote region, and puts what it answers in order. Lives as long as the session.
#[derive(Debug)]
pub struct Puller {
    ours: Hello,
    region: RegionName,
    silence: Duration,
    heard_at: Instant,
    theirs: Option<Hello>,
    wants: BTreeMap<WantId, Inflow>,
    ids: BTreeMap<Origin, WantId>,
    next_id: u32,
    actions: VecDeque<Action>,
}

impl Puller {
    /// Starts a session with `region`: says hello.
    pub fn new(now: Instant, ours: Hello, region: RegionName, silence: Duration) -> Self {
        let actions = VecDeque::from([Action::Send(Frame::Hello(ours.clone()))]);
        let (wants, ids) = Default::default();
        Self { ours, region, silence, heard_at: now, theirs: None, wants, ids, next_id: 1, actions }
    }

    /// Takes one fact. `now` never goes backwards.
    ///
    /// # Errors
    /// [`SessionError`], after which the session must be closed.
    pub fn handle(&mut self, now: Instant, input: Input) -> Result<(), SessionError> {
        match input {
            Input::Elapsed => return self.handle_elapsed(now),
            Input::Heard => {}
            Input::Want { origin, from } => return self.handle_want(origin, from),
            Input::Unwant(origin) => {
                self.stop(&origin);
                return Ok(());
            }
            Input::Frame(frame) => self.handle_frame(now, frame)?,
            Input::Block(block) => self.handle_block(now, block)?,
        }
        self.heard_at = now;
        Ok(())
    }

    /// Next thing the driver should do, oldest first.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to call [`handle`](Self::handle) with [`Input::Elapsed`] if nothing happens first.
    pub fn deadline(&self) -> Option<Instant> {
        let gaps = self.wants.values().filter_map(|flow| flow.gap_since);
        let patience = gaps.min().map(|since| since + GAP_PATIENCE);
        let silence = self.heard_at + self.silence;
        Some(patience.map_or(silence, |patience| patience.min(silence)))
    }

    /// False while only blocks can close a gap: the session's stream is to be left alone, so that
    /// nothing piles up here.
    pub fn reads_frames(&self) -> bool {
        let waits = |flow: &Inflow| flow.early.values().any(|e| matches!(e, Early::Live(_)));
        !self.wants.values().any(waits)
    }

    /// The origins that are pulled, in order.
    pub fn wanted(&self) -> impl Iterator<Item = &Origin> {
        self.ids.keys()
    }

    fn handle_elapsed(&mut self, now: Instant) -> Result<(), SessionError> {
        for flow in self.wants.values() {
            if flow.gap_since.is_some_and(|since| since + GAP_PATIENCE <= now) {
                let (origin, next) = (flow.origin.clone(), flow.next);
                return Err(SessionError::Gap { origin, next });
            }
        }
        let waited = now.saturating_duration_since(self.heard_at);
        if waited >= self.silence { Err(SessionError::Silent { waited }) } else { Ok(()) }
    }

    fn handle_want(&mut self, origin: Origin, from: Seq) -> Result<(), SessionError> {
        assert!(self.theirs.is_some(), "wants come after the hellos");
        self.stop(&origin);
        let id = WantId(self.next_id);
        self.next_id += 1;
        self.ids.insert(origin.clone(), id);
        let (early, chain, gap_since) = Default::default();
        let flow = Inflow { origin: origin.clone(), next: from, chain, early, gap_since };
        self.wants.insert(id, flow);
        self.actions.push_back(Action::Send(Frame::Want { id, origin, from }));
        Ok(())
    }

    fn stop(&mut self, origin: &Origin) {
        let Some(id) = self.ids.remove(origin) else { return };
        let flow = self.wants.remove(&id).expect("every id has its want");
        let blocks = flow.early.values().filter(|e| matches!(e, Early::Block(_))).count();
        let is_offer = |action: &Action| matches!(action, Action::Offer(groups) if groups[0].origin() == origin);
        self.actions.retain(|action| !is_offer(action));
        self.actions.push_back(Action::Send(Frame::Unwant { id }));
        self.release(blocks);
    }

    fn handle_frame(&mut self, now: Instant, frame: Frame) -> Result<(), SessionError> {
        match (&self.theirs, frame) {
            (None, Frame::Hello(theirs)) => {
                check_hello(&self.ours, &theirs, &self.region)?;
                self.theirs = Some(theirs.clone());
                self.actions.push_back(Action::Connected(theirs));
                Ok(())
            }
            (None, _) => Err(SessionError::OutOfPlace { frame: "a frame before the hello" }),
            (Some(_), Frame::Report(report)) => self.handle_report(report),
            (Some(_), Frame::Group { id, group }) => self.handle_group(now, id, group),
            (Some(_), Frame::Hello(_)) => Err(SessionError::OutOfPlace { frame: "second hello" }),
            (Some(_), Frame::Want { .. } | Frame::Unwant { .. }) => {
                Err(SessionError::OutOfPlace { frame: "want from the server" })
            }
        }
    }

    /// A region opens with its own digest; what it relays of others is about the same shard.
    fn handle_report(&mut self, report: Report) -> Result<(), SessionError> {
        if let Some(own) = report.digests.first()
            && own.origin.region != self.region
        {
            let (theirs, expected) = (own.origin.region.clone(), self.region.clone());
            return Err(SessionError::Region { theirs, expected });
        }
        for digest in &report.digests {
            if digest.origin.shard != self.ours.shard {
                let (theirs, ours) = (digest.origin.shard, self.ours.shard);
                return Err(SessionError::Shard { theirs, ours });
            }
        }
        self.actions.push_back(Action::Report(report));
        Ok(())
    }

    fn handle_group(
        &mut self,
        now: Instant,
        id: WantId,
        encoded: bytes::Bytes,
    ) -> Result<(), SessionError> {
        let Some(flow) = self.wants.get_mut(&id) else { return Ok(()) };
        let group = Group::decode(encoded).map_err(|source| SessionError::Group {
            origin: flow.origin.clone(),
            at: flow.next,
            source,
        })?;
        flow.check_origin(&group)?;
        if group.last() < flow.next {
            return Ok(());
        }
        flow.early.insert(group.first(), Early::Live(group));
        self.drain(now, id)
    }

    fn handle_block(&mut self, now: Instant, block: Block) -> Result<(), SessionError> {
        let Block { id, groups } = block;
        let Some(flow) = self.wants.get_mut(&id) else {
            self.release(1);
            return Ok(());
        };
        let (first, last) = (&groups[0], &groups[groups.len() - 1]);
        flow.check_origin(first)?;
        if last.last() < flow.next || flow.early.contains_key(&first.first()) {
            self.release(1);
            return Ok(());
        }
        flow.early.insert(first.first(), Early::Block(groups));
        self.drain(now, id)
    }

    /// Hands on everything that has become dense.
    fn drain(&mut self, now: Instant, id: WantId) -> Result<(), SessionError> {
        let flow = self.wants.get_mut(&id).expect("the caller found it");
        let (mut blocks, before) = (0, flow.next);
        while let Some(entry) = flow.early.first_entry()
            && *entry.key() <= flow.next
        {
            let groups = match entry.remove() {
                Early::Live(group) => vec![group],
                Early::Block(groups) => {
                    blocks += 1;
                    groups
                }
            };
            for group in &groups {
                flow.take(group)?;
            }
            push_offer(&mut self.actions, groups);
        }
        if flow.early.is_empty() {
            flow.gap_since = None;
        } else if flow.gap_since.is_none() || flow.next != before {
            flow.gap_since = Some(now);
        }
        self.release(blocks);
        Ok(())
    }

    fn release(&mut self, blocks: usize) {
        if blocks > 0 {
            self.actions.push_back(Action::Release(blocks));
        }
    }
}

/// Adds to the offer that is being gathered, if it is the same origin's and not full.
fn push_offer(actions: &mut VecDeque<Action>, mut groups: Vec<Group>) {
    if let Some(Action::Offer(offer)) = actions.back_mut() {
        let bytes: usize = offer.iter().map(|group| group.encoded().len()).sum();
        let room = bytes < OFFER_BYTES && offer.len() < OFFER_GROUPS;
        if room && offer[0].origin() == groups[0].origin() {
            offer.append(&mut groups);
            return;
        }
    }
    actions.push_back(Action::Offer(groups));
}

impl Inflow {
    fn check_origin(&self, group: &Group) -> Result<(), SessionError> {
        if *group.origin() == self.origin { Ok(()) } else { Err(self.mismatch(group)) }
    }

    /// The next group: starts where the one before ended, and follows it by its chain.
    ///
    /// The first of a want may begin earlier. Groups are atomic, so it is then of another history
    /// than what this side holds; the importer says so, and holds that origin alone.
    fn take(&mut self, group: &Group) -> Result<(), SessionError> {
        let forks = self.chain.is_none() && group.first() < self.next;
        if group.first() != self.next && !forks {
            return Err(self.mismatch(group));
        }
        if self.chain.is_some_and(|chain| chain != group.header().prev) {
            return Err(SessionError::Fork { origin: self.origin.clone(), first: group.first() });
        }
        self.next = group.last().next();
        self.chain = Some(group.chain());
        Ok(())
    }

    fn mismatch(&self, group: &Group) -> SessionError {
        SessionError::Mismatch {
            wanted: self.origin.clone(),
            next: self.next,
            found: group.origin().clone(),
            first: group.first(),
        }
    }
}

#[cfg(test)]
#[path = "puller_tests.rs"]
mod tests;
