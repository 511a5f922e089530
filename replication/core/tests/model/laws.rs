//! The laws (DESIGN.md section 3), checked against the plain record of each site.

use anabranch_core::command::PlacedGroup;
use anabranch_core::event::Request;
use anabranch_core::order::{Finality, Mergeable};
use anabranch_core::region::{BUCKETS, Receipt};
use anabranch_core::sequencer::{Expectation, Expected};
use anabranch_core::{Chain, Command, Group, Origin, Seq, Stamp};
use bytes::Bytes;

use crate::site::{DRIFT_MAX, OnItsWay, Record, Site};
use crate::world::World;

/// A group as it was delivered in the global order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    pub origin: Origin,
    pub first: Seq,
    pub last: Seq,
    pub stamp: Stamp,
    pub chain: Chain,
}

impl World {
    /// Checks one accepted command against the record and enters it.
    pub fn check_command(&mut self, at: usize, command: &Command, way: &OnItsWay) {
        let own = self.sites[at].origin.clone();
        self.check_expectations(at, way);
        let mut ours = command.groups().iter().map(|placed| &placed.group);
        self.check_homed(at, ours.find(|group| *group.origin() == own), way);
        for placed in command.groups() {
            let group = &placed.group;
            if *group.origin() == own {
                self.check_first_time(at, group);
                self.history.entry(own.clone()).or_default().push(group.clone());
            }
            let stable = self.sites[at].record.watermark;
            assert!(group.stamp() > stable, "law 6: a group comes in below W");
            self.check_content(group);
            self.check_cause(group);
            self.check_rights(at, group);
            self.sites[at].record.enter(placed);
        }
        let site = &self.sites[at];
        assert_eq!(*site.region.frontier(), site.record.held, "law 3: the frontier is the prefix");
        assert_eq!(site.region.position(), site.record.payloads.len() as u64, "dense positions");
        let watermark = site.region.watermark();
        assert!(watermark >= site.record.watermark, "law 6: W never goes back");
        self.sites[at].record.watermark = watermark;
        self.check_clock(at);
        for promised in &way.promised {
            self.check_receipt(at, &promised.submission.request, &promised.receipt, Mine::Yes);
        }
    }

    /// Law 7: what was expected of streams holds where the request is in the log.
    fn check_expectations(&self, at: usize, way: &OnItsWay) {
        let mut streams = self.sites[at].record.stream_events.clone();
        for promised in way.promised.iter().filter(|promised| promised.fresh) {
            for Expectation { stream, expected } in &promised.submission.expectations {
                let events = streams.get(stream).copied().unwrap_or(0);
                let holds = match *expected {
                    Expected::Any => true,
                    Expected::NoStream => events == 0,
                    Expected::Exists => events > 0,
                    Expected::Revision(revision) => events == revision + 1,
                };
                assert!(holds, "law 7: {expected:?} of {stream} with {events} events");
            }
            for event in &promised.submission.request.events {
                *streams.entry(event.stream.clone()).or_default() += 1;
            }
        }
    }

    /// Law 2: a retry is recognised wherever the first is in the log, also one just before it.
    fn check_first_time(&self, at: usize, group: &Group) {
        let record = &self.sites[at].record;
        for request in group.look() {
            if let Some(tag) = request.producer {
                let key = (tag.id.0, tag.epoch, tag.sequence);
                assert!(!record.requests.contains_key(&key), "law 2: {tag:?} appended twice");
                let epoch = record.epochs.get(&tag.id.0).copied().unwrap_or(0);
                assert!(tag.epoch >= epoch, "epoch {} came after {epoch}", tag.epoch);
            }
            for id in request.events.iter().filter_map(|event| event.id) {
                assert!(!record.ids.contains_key(&id.0), "law 2: event {id} appended twice");
            }
        }
    }

    /// Law 4: one content a dot.
    fn check_content(&self, group: &Group) {
        let known =
            self.history[group.origin()].iter().find(|known| known.first() == group.first());
        assert_eq!(known, Some(group), "law 4: what is imported was appended by its origin");
    }

    /// Law 10: an effect is stamped after its cause, and stamps rise along an origin.
    fn check_cause(&self, group: &Group) {
        let before = (group.origin(), Seq(group.first().0 - 1));
        for (origin, seq) in group.header().context.iter().chain([before]) {
            let Some(groups) = self.history.get(origin).filter(|_| seq > Seq(0)) else { continue };
            let cause = groups.iter().find(|cause| cause.last() >= seq).expect("it is in a log");
            assert!(cause.stamp() < group.stamp(), "law 10: {origin}:{seq} after its effect");
        }
    }

    /// Law 10: one bad clock drags nobody else's.
    fn check_clock(&self, at: usize) {
        let site = &self.sites[at];
        let ahead = site.region.last_stamp().ahead_of(site.latest_wall_ms);
        assert!(ahead <= DRIFT_MAX, "law 10: {} ran {ahead:?} ahead of its clock", site.origin);
    }

    /// Laws 1 and 2: a receipt names the request's own events in this region's log.
    pub fn check_receipt(&self, at: usize, request: &Request, receipt: &Receipt, mine: Mine) {
        let record = &self.sites[at].record;
        assert_eq!(receipt.events as usize, request.events.len());
        let payload = &request.events[0].payload;
        assert_eq!(&record.payloads[receipt.position as usize], payload, "position of the receipt");
        let groups = &record.groups[&receipt.origin];
        let group = groups.iter().find(|group| group.last() >= receipt.first).expect("in the log");
        let events = group.events();
        let event = events.iter().find(|event| event.seq == receipt.first).expect("in the group");
        assert_eq!((&event.payload, group.stamp()), (payload, receipt.stamp), "dot of the receipt");
        if mine == Mine::Yes {
            let stream = &request.events[request.events.len() - 1].stream;
            let last = record.stream_events[stream];
            assert!(receipt.last_revisions.iter().any(|r| *r < last), "revisions of the receipt");
        }
    }

    /// Law 6: delivers what is final here, and compares it with what others delivered there.
    pub fn deliver(&mut self, at: usize) {
        let finality = Finality::of(&self.sites[at].region);
        loop {
            let site = &mut self.sites[at];
            for (origin, from) in site.merge.needs(&finality) {
                let groups = site.record.groups[&origin].iter();
                let wanted = groups.filter(|group| group.last() >= from).take(2);
                site.merge.push(&origin, wanted.map(mergeable));
            }
            let Some(next) = site.merge.next(&finality) else { break };
            let cut = site.merge.cut().clone();
            if let Some(mark) = site.hash.add(&next, &cut) {
                site.record.marks.push((mark.position, mark.chain));
            }
            let (origin, group) = (next.origin, next.group);
            let delivered = Delivered {
                origin,
                first: next.first,
                last: group.last,
                stamp: group.stamp,
                chain: group.chain,
            };
            self.check_delivery(next.position, delivered);
        }
    }

    fn check_delivery(&mut self, position: u64, delivered: Delivered) {
        let (origin, last) = (&delivered.origin, delivered.last);
        let holders = self.sites.iter().filter(|s| s.record.held.seq(origin) >= last).count();
        assert!(holders > self.sites.len() / 2, "final, but only {holders} regions hold it");
        match self.global.get(&position) {
            Some(known) => assert_eq!(*known, delivered, "law 6: two orders at {position}"),
            None => {
                let end = self.global.last_key_value().map_or(0, |(p, d)| p + events(d));
                assert_eq!(position, end, "law 6: the global order is dense");
                self.global.insert(position, delivered);
            }
        }
    }

    /// Law 5: regions that hold the same events are the same.
    pub fn check_convergence(&self) {
        for (nth, one) in self.sites.iter().enumerate() {
            for other in &self.sites[nth + 1..] {
                if one.region.frontier() == other.region.frontier() {
                    assert_alike(one, other);
                }
            }
        }
    }
}

fn assert_alike(one: &Site, other: &Site) {
    assert_eq!(one.region.buckets(), other.region.buckets(), "law 5: buckets");
    for bucket in (0..BUCKETS).filter(|b| one.region.buckets()[*b] != Default::default()) {
        let heads = |site: &Site| -> Vec<_> {
            let streams = site.region.streams_of_bucket(bucket).into_iter();
            streams.map(|(s, h)| (s.to_owned(), h.next_revision, h.fingerprint)).collect()
        };
        assert_eq!(heads(one), heads(other), "law 5: streams");
    }
}

/// Whether a receipt is of an append in the region that gives it.
#[derive(PartialEq, Eq)]
pub enum Mine {
    Yes,
    Perhaps,
}

impl Record {
    fn enter(&mut self, placed: &PlacedGroup) {
        let group = &placed.group;
        assert_eq!(group.first(), self.held.seq(group.origin()).next(), "laws 2 and 3: dense");
        assert!(self.held.covers(&group.header().context), "law 3: causes come first");
        self.held.advance(group.origin(), group.last());
        let mut revisions = placed.revisions.iter();
        for request in group.look() {
            let first = Bytes::copy_from_slice(request.events[0].payload);
            if let Some(tag) = request.producer {
                self.requests.insert((tag.id.0, tag.epoch, tag.sequence), first.clone());
                let epoch = self.epochs.entry(tag.id.0).or_default();
                *epoch = tag.epoch.max(*epoch);
            }
            for event in request.events {
                let next = self.stream_events.entry(event.stream.to_string()).or_default();
                assert_eq!(revisions.next(), Some(&*next), "law 7: dense revisions");
                *next += 1;
                self.payloads.push(Bytes::copy_from_slice(event.payload));
                event.id.map(|id| self.ids.insert(id.0, first.clone()));
            }
        }
        self.groups.entry(group.origin().clone()).or_default().push(group.clone());
    }
}

fn mergeable(group: &Group) -> Mergeable<()> {
    let (first, last, stamp) = (group.first(), group.last(), group.stamp());
    Mergeable { first, last, stamp, chain: group.chain(), item: () }
}

fn events(delivered: &Delivered) -> u64 {
    delivered.last.0 - delivered.first.0 + 1
}
