//! The deterministic apply: the authority over one shard's log in one region.
//!
//! [`Region`] is a pure function of the log. Every node of the region applies the same commands and
//! so holds the same state; the leader's sequencer, which proposes them, is only a prediction of it.
//!
//! # Why a command is accepted or refused whole
//!
//! A [`Command`] carries every number that applying it assigns. Before anything
//! changes, apply compares them with what the state gives: the group's first seq and previous chain
//! with the origin's head, its context with the frontier, the position, each revision. The context
//! and the chain pin down the *set* of events that the proposer saw; equal sets mean equal stream
//! heads and equal producers, so the proposer's checks of expected revisions and of retries still
//! hold and need not be repeated. It is compare-and-swap on the whole history. A refused command
//! leaves no trace, and its proposer reports *refused*, never *unknown*.
//!
//! So do its checks of homes and of rights: both follow from the set of events. That every region has
//! confirmed a home follows from their words, which are no part of the comparison; but words only grow.
//!
//! Imports are gated by their context, so any prefix of the log is a context (law 3).

mod checkpoint;
mod fingerprint;
mod producers;
mod streams;

pub use checkpoint::Snapshot;
pub use fingerprint::{BUCKETS, Fingerprint, bucket_of};
pub use producers::{Known, Receipt, RequestKey};
pub use streams::Head;
pub(crate) use streams::LastRevisions;

use std::collections::BTreeMap;

use crate::class::{Change, Declared, Homes, Lookup, is_of_classes};
use crate::codec::DecodeError;
use crate::command::{Command, PlacedGroup};
use crate::context::Context;
use crate::digest::Digest;
use crate::event::{EventRef, RequestRef};
use crate::group::{Chain, Group};
use crate::id::{Dot, Origin, RegionName, Seq};
use crate::planted::{self, Bug};
use crate::rights::{self, Rights};
use crate::stamp::Stamp;
use fingerprint::Buckets;
use producers::Producers;
use streams::{Place, Streams};

/// What applying one command came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Every number was what applying gives; the command is part of history.
    Accepted,
    /// Nothing happened. The proposer's view of the log was out of date, or the command is unsound.
    Refused(Refused),
}

/// Why a command was refused. The same on every node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The bytes are no command.
    #[error("entry is no command: {0}")]
    Undecodable(#[from] DecodeError),
    /// The log has no genesis yet.
    #[error("the log has no genesis yet")]
    NoGenesis,
    /// The log has its genesis already.
    #[error("the log was born as {origin} already")]
    SecondGenesis {
        /// What it was born as.
        origin: Origin,
    },
    /// A group of another origin in a local command, or of this one in an import.
    #[error("group of {origin} does not belong in this command")]
    WrongOrigin {
        /// The group's origin.
        origin: Origin,
    },
    /// A region that is not a member, or another life of one that is known.
    #[error("{origin} is not the member of that name that this region knows")]
    NotMember {
        /// The group's or digest's origin.
        origin: Origin,
    },
    /// Events are missing before the group, or it is held already.
    #[error("group of {origin} begins at {first}, expected {expected}")]
    Gap {
        /// The group's origin.
        origin: Origin,
        /// Its first seq.
        first: Seq,
        /// The seq that comes next here.
        expected: Seq,
    },
    /// The group continues another history than the one held here.
    #[error("group of {origin} at {first} continues another history: its origin has forked")]
    Fork {
        /// The group's origin.
        origin: Origin,
        /// Its first seq.
        first: Seq,
    },
    /// The group's context is not what this log holds.
    #[error("context of the group of {origin} at {first} does not fit the frontier")]
    Context {
        /// The group's origin.
        origin: Origin,
        /// Its first seq.
        first: Seq,
    },
    /// The stamp does not rise.
    #[error("stamp {stamp} does not come after {last}")]
    Stamp {
        /// The group's or promise's stamp.
        stamp: Stamp,
        /// The stamp it has to exceed.
        last: Stamp,
    },
    /// The positions or revisions are not those that come next.
    #[error("numbers do not fit: {what} is {found}, expected {expected}")]
    Numbers {
        /// Which number.
        what: &'static str,
        /// What the command says.
        found: u64,
        /// What applying gives.
        expected: u64,
    },
    /// A statement about events that are not held here.
    #[error("digest of {origin} speaks of {seq}, only {held} is held")]
    DigestAhead {
        /// Who speaks.
        origin: Origin,
        /// The statement's seq.
        seq: Seq,
        /// What is held.
        held: Seq,
    },
}

/// Where one origin's history stands in this log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OriginHead {
    /// Number of its last event held.
    pub seq: Seq,
    /// Chain hash after that event's group.
    pub chain: Chain,
    /// Stamp of that group.
    pub stamp: Stamp,
}

impl OriginHead {
    const START: Self = Self { seq: Seq(0), chain: Chain::START, stamp: Stamp::ZERO };
}

/// The state that applying a log gives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Region {
    identity: Option<Identity>,
    /// Next regional position; the number of events held.
    position: u64,
    /// Own events to come are stamped above this. Raised by every group, own or imported.
    last_stamp: Stamp,
    frontier: Context,
    origins: BTreeMap<Origin, OriginHead>,
    /// Of every other origin: its newest statement and receipt, as far as this log vouches for them.
    peers: BTreeMap<Origin, Digest>,
    streams: Streams,
    producers: Producers,
    buckets: Buckets,
    homes: Homes,
    rights: Rights,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Identity {
    origin: Origin,
    members: Vec<RegionName>,
}

impl Region {
    /// The state of an empty log.
    pub fn new() -> Self {
        Self::default()
    }

    /// Applies one command, or refuses it and changes nothing.
    pub fn apply(&mut self, command: &Command) -> Outcome {
        let result = match command {
            Command::Genesis { origin, members } => self.genesis(origin, members),
            Command::Local { position, placed } => self.local(*position, placed),
            Command::Import { position, groups, digests } => {
                self.import(*position, groups, digests)
            }
            Command::Close { stamp } => self.close(*stamp),
        };
        match result {
            Ok(()) => Outcome::Accepted,
            Err(refused) => Outcome::Refused(refused),
        }
    }

    fn genesis(&mut self, origin: &Origin, members: &[RegionName]) -> Result<(), Refused> {
        if let Some(identity) = &self.identity {
            return Err(Refused::SecondGenesis { origin: identity.origin.clone() });
        }
        if !members.contains(&origin.region) {
            return Err(Refused::NotMember { origin: origin.clone() });
        }
        let mut members = members.to_vec();
        members.sort();
        members.dedup();
        self.identity = Some(Identity { origin: origin.clone(), members });
        Ok(())
    }

    fn local(&mut self, position: u64, placed: &PlacedGroup) -> Result<(), Refused> {
        let own = self.identity()?.origin.clone();
        let group = &placed.group;
        if *group.origin() != own {
            return Err(Refused::WrongOrigin { origin: group.origin().clone() });
        }
        self.check_follows(group, self.head(&own))?;
        if group.stamp() <= self.last_stamp && !planted::is(Bug::NewLeaderForgetsStamps) {
            return Err(Refused::Stamp { stamp: group.stamp(), last: self.last_stamp });
        }
        // The compare-and-swap: the proposer saw exactly this frontier.
        if group.header().context != self.frontier.without(&own) {
            return Err(Refused::Context { origin: own, first: group.first() });
        }
        self.check_position(position)?;
        self.take_in(std::slice::from_ref(placed))
    }

    fn import(
        &mut self,
        position: u64,
        groups: &[PlacedGroup],
        digests: &[Digest],
    ) -> Result<(), Refused> {
        self.identity()?;
        // Heads as they will be while the groups go in, so that nothing changes if one is refused.
        let mut heads: BTreeMap<&Origin, OriginHead> = BTreeMap::new();
        let mut lives: BTreeMap<&RegionName, &Origin> = BTreeMap::new();
        let mut frontier = self.frontier.clone();
        for placed in groups {
            let group = &placed.group;
            self.check_member(group.origin(), &mut lives)?;
            let head = heads.get(group.origin()).copied();
            self.check_follows(group, head.unwrap_or_else(|| self.head(group.origin())))?;
            if !frontier.covers(&group.header().context) && !planted::is(Bug::ContextIgnored) {
                let (origin, first) = (group.origin().clone(), group.first());
                return Err(Refused::Context { origin, first });
            }
            frontier.advance(group.origin(), group.last());
            heads.insert(group.origin(), head_after(group));
        }
        for digest in digests {
            self.check_member(&digest.origin, &mut lives)?;
            let (seq, held) = (digest.seq(), frontier.seq(&digest.origin));
            if seq > held && !planted::is(Bug::StatementWithoutSeq) {
                return Err(Refused::DigestAhead { origin: digest.origin.clone(), seq, held });
            }
        }
        self.check_position(position)?;
        self.take_in(groups)?;
        digests.iter().for_each(|digest| self.hear(digest.clone()));
        Ok(())
    }

    fn close(&mut self, stamp: Stamp) -> Result<(), Refused> {
        self.identity()?;
        if stamp <= self.last_stamp && !planted::is(Bug::NewLeaderForgetsStamps) {
            return Err(Refused::Stamp { stamp, last: self.last_stamp });
        }
        self.last_stamp = stamp;
        Ok(())
    }

    fn identity(&self) -> Result<&Identity, Refused> {
        self.identity.as_ref().ok_or(Refused::NoGenesis)
    }

    /// `lives` holds what the command named before: two lives of one region may not come in at once
    /// either.
    fn check_member<'a>(
        &self,
        origin: &'a Origin,
        lives: &mut BTreeMap<&'a RegionName, &'a Origin>,
    ) -> Result<(), Refused> {
        if self.origin() == Some(origin) {
            return Err(Refused::WrongOrigin { origin: origin.clone() });
        }
        let life = *lives.entry(&origin.region).or_insert(origin);
        match life == origin && self.admits(origin) {
            true => Ok(()),
            false => Err(Refused::NotMember { origin: origin.clone() }),
        }
    }

    fn check_follows(&self, group: &Group, head: OriginHead) -> Result<(), Refused> {
        let (origin, first) = (group.origin(), group.first());
        if first != head.seq.next() {
            let expected = head.seq.next();
            return Err(Refused::Gap { origin: origin.clone(), first, expected });
        }
        if group.header().prev != head.chain {
            return Err(Refused::Fork { origin: origin.clone(), first });
        }
        let last = head.stamp.max(self.promised(origin));
        if group.stamp() <= last && !planted::is(Bug::NewLeaderForgetsStamps) {
            return Err(Refused::Stamp { stamp: group.stamp(), last });
        }
        Ok(())
    }

    fn check_position(&self, position: u64) -> Result<(), Refused> {
        let expected = self.position;
        match position == expected {
            true => Ok(()),
            false => Err(Refused::Numbers { what: "position", found: position, expected }),
        }
    }

    /// Takes groups whose headers were checked. Refuses, with nothing changed, if a revision is off.
    fn take_in(&mut self, groups: &[PlacedGroup]) -> Result<(), Refused> {
        let bodies: Vec<_> = groups.iter().map(|placed| placed.group.look()).collect();
        let named = groups.iter().zip(&bodies).flat_map(|(placed, requests)| {
            let events = requests.iter().flat_map(|request| &request.events);
            events.zip(&placed.revisions).map(|(event, revision)| (event.stream, *revision))
        });
        let mut places = self.streams.claim(named)?.into_iter();
        for (placed, requests) in groups.iter().zip(&bodies) {
            let claimed = placed.revisions.iter().copied().zip(&mut places);
            self.take_in_group(&placed.group, requests, claimed);
        }
        Ok(())
    }

    /// `claimed` has of each event its revision, and where its stream is.
    fn take_in_group(
        &mut self,
        group: &Group,
        requests: &[RequestRef<'_>],
        mut claimed: impl Iterator<Item = (u64, Place)>,
    ) {
        let seed = fingerprint::origin_seed(group.origin());
        for request in requests {
            let first = self.position;
            let mut last_revisions = LastRevisions::new();
            for event in &request.events {
                let (revision, stream) = claimed.next().expect("claimed one revision an event");
                let print = fingerprint::of_event(seed, event.seq, event.encoded);
                self.streams.record(stream, self.position, print);
                self.buckets.add(event.stream, print);
                if event.is_of_the_store() {
                    self.take_in_of_the_store(group, event);
                }
                last_revisions.note(stream, revision);
                self.position += 1;
            }
            let receipt = Receipt {
                origin: group.origin().clone(),
                first: request.events[0].seq,
                events: request.events.len() as u32,
                content: request.content_hash(),
                position: first,
                stamp: group.stamp(),
                last_revisions: last_revisions.into_boxed(),
            };
            let ids = request.events.iter().filter_map(|event| event.id);
            let ids = ids.filter(|_| !planted::is(Bug::EventIdsForgotten));
            let own = self.identity.as_ref().is_some_and(|id| id.origin == *group.origin());
            if own || !planted::is(Bug::ImportsNotRemembered) {
                self.producers.record(request.producer, ids, receipt);
            }
        }
        self.frontier.advance(group.origin(), group.last());
        self.origins.insert(group.origin().clone(), head_after(group));
        let own = self.identity.as_ref().is_some_and(|id| id.origin == *group.origin());
        if own || !planted::is(Bug::ImportDoesNotRaiseClock) {
            self.last_stamp = self.last_stamp.max(group.stamp());
        }
        if self.identity.as_ref().is_some_and(|identity| identity.origin != *group.origin()) {
            // A group is a statement about its origin and a receipt for its context.
            let mut frontier = group.header().context.clone();
            frontier.advance(group.origin(), group.last());
            let (origin, stamp) = (group.origin().clone(), group.stamp());
            self.hear(Digest { origin, stamp, frontier });
        }
    }

    /// Homes and rights change by events like all others.
    fn take_in_of_the_store(&mut self, group: &Group, event: &EventRef<'_>) {
        if is_of_classes(event.stream) {
            let dot = Dot { origin: group.origin().clone(), seq: event.seq };
            let change = Change::read(event.stream, event.kind, event.payload).ok();
            let entry = change.and_then(|change| self.homes.effect(&change, &dot, group.stamp()));
            entry.into_iter().for_each(|entry| self.homes.put(entry));
        } else if *event.kind == *rights::EVENT_TYPE
            && let Some(Identity { origin: own, .. }) = &self.identity
        {
            self.rights.take(&own.region, &group.origin().region, event.stream, event.payload);
        }
    }

    fn hear(&mut self, digest: Digest) {
        match self.peers.get_mut(&digest.origin) {
            Some(known) => {
                known.stamp = known.stamp.max(digest.stamp);
                known.frontier.merge(&digest.frontier);
            }
            None => {
                self.peers.insert(digest.origin.clone(), digest);
            }
        }
    }

    /// Origin of this log, once it has its genesis.
    pub fn origin(&self) -> Option<&Origin> {
        self.identity.as_ref().map(|identity| &identity.origin)
    }
    /// All member regions, sorted; empty before genesis.
    pub fn members(&self) -> &[RegionName] {
        self.identity.as_ref().map_or(&[], |identity| &identity.members)
    }
    /// Whether groups and digests of `origin` may be imported: another member region, in the life
    /// in which it is known here, if it is.
    pub fn admits(&self, origin: &Origin) -> bool {
        let Some(identity) = &self.identity else { return false };
        let other_life = |known: &Origin| {
            known.region == origin.region
                && known.shard == origin.shard
                && known.incarnation != origin.incarnation
        };
        origin.region != identity.origin.region
            && origin.shard == identity.origin.shard
            && identity.members.contains(&origin.region)
            && !self.peers.keys().any(other_life)
    }
    /// Everything this log holds.
    pub fn frontier(&self) -> &Context {
        &self.frontier
    }
    /// Next regional position; the number of events held.
    pub fn position(&self) -> u64 {
        self.position
    }
    /// The greatest stamp that the log holds or has promised.
    pub fn last_stamp(&self) -> Stamp {
        self.last_stamp
    }
    /// Where `origin`'s history stands.
    pub fn head(&self, origin: &Origin) -> OriginHead {
        self.origins.get(origin).copied().unwrap_or(OriginHead::START)
    }
    /// Every origin with events here, and where it stands.
    pub fn heads(&self) -> impl Iterator<Item = (&Origin, &OriginHead)> {
        self.origins.iter()
    }
    /// What this region may say of itself now.
    pub fn digest(&self) -> Option<Digest> {
        let origin = self.origin()?.clone();
        let mut stamp = self.last_stamp;
        if planted::is(Bug::PromisesAhead) {
            stamp = Stamp::from_unix_ms(stamp.unix_ms() + 1_000);
        }
        Some(Digest { origin, stamp, frontier: self.frontier.clone() })
    }
    /// What other regions said of themselves, as far as this log vouches for it.
    pub fn peers(&self) -> impl Iterator<Item = &Digest> {
        self.peers.values()
    }
    /// T of the newest statement of another region's origin that this log holds: its later events
    /// are stamped above that.
    pub fn promised(&self, origin: &Origin) -> Stamp {
        self.peers.get(origin).map_or(Stamp::ZERO, |digest| digest.stamp)
    }
    /// T(o) of a member region: [`Stamp::ZERO`] while nothing is known of it.
    pub fn watermark_of(&self, region: &RegionName) -> Stamp {
        if self.origin().is_some_and(|own| own.region == *region) {
            return self.last_stamp;
        }
        let known = self.peers.values().find(|digest| digest.origin.region == *region);
        known.map_or(Stamp::ZERO, |digest| digest.stamp)
    }
    /// W: the least watermark over all members. Events stamped at or below it are *stable*.
    pub fn watermark(&self) -> Stamp {
        let promised = self.members().iter().map(|member| self.watermark_of(member));
        if planted::is(Bug::StableByMajority) {
            let mut promised: Vec<Stamp> = promised.collect();
            promised.sort_unstable();
            return promised.get(promised.len() / 2).copied().unwrap_or_default();
        }
        promised.min().unwrap_or_default()
    }
    /// The last event of a stream, if it has any.
    pub fn stream(&self, stream: &str) -> Option<Head> {
        self.streams.head(stream)
    }
    /// Number of streams.
    pub fn stream_count(&self) -> u64 {
        self.streams.len() as u64
    }
    /// Which region is home to which streams.
    pub fn homes(&self) -> &Homes {
        &self.homes
    }
    /// Member regions that are not known to hold the declaration of a home. Once there are none, every
    /// other region has stopped appending to the category, and this one holds what they appended before.
    pub fn unconfirmed(&self, declared: &Declared) -> Vec<RegionName> {
        let holds = |member: &&RegionName| {
            let mut words = self.peers.values().filter(|word| word.origin.region == **member);
            self.origin().is_some_and(|own| own.region == **member)
                || words.any(|word| word.frontier.covers_dot(&declared.by))
        };
        self.members().iter().filter(|member| !holds(member)).cloned().collect()
    }
    /// Whether this region is the first home of a category and does not know yet that all know.
    pub fn awaits_confirmation(&self) -> bool {
        let Some(own) = self.origin() else { return false };
        self.homes.categories().any(|(_, declared)| {
            let first = declared.home.epoch == declared.since && declared.home.region == own.region;
            first && !self.unconfirmed(declared).is_empty()
        })
    }
    /// What this region may take away from bounded counters.
    pub fn rights(&self) -> &Rights {
        &self.rights
    }
    /// What is known of a request: new, done before, or too old to tell.
    pub fn known(&self, key: &RequestKey<'_>) -> Known {
        self.producers.known(key)
    }
    /// Requests that arrived from two regions under one producer sequence.
    pub fn duplicate_requests(&self) -> u64 {
        self.producers.duplicates()
    }
    /// Per bucket of streams, the sum of its events' fingerprints.
    pub fn buckets(&self) -> &[Fingerprint; BUCKETS] {
        self.buckets.sums()
    }
    /// The streams of one bucket, sorted, with their heads.
    pub fn streams_of_bucket(&self, bucket: usize) -> Vec<(&str, Head)> {
        self.streams.of_bucket(bucket)
    }
}

fn head_after(group: &Group) -> OriginHead {
    OriginHead { seq: group.last(), chain: group.chain(), stamp: group.stamp() }
}

#[cfg(test)]
mod tests;
