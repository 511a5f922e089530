//! All regions, what goes on between them, and the random things that happen.

use std::collections::{BTreeMap, BTreeSet};

use anabranch_core::event::{Event, EventId, ProducerTag, Request};
use anabranch_core::import::{Held, Offered};
use anabranch_core::region::Outcome;
use anabranch_core::sequencer::{Expectation, Expected, Submission, Verdict};
use anabranch_core::{
    Command, Digest, Group, Incarnation, Origin, ProducerId, RegionName, ShardId, Stamp,
};
use bytes::Bytes;

use crate::classes::Everywhere;
use crate::laws::{Delivered, Mine};
use crate::rng::Rng;
use crate::site::{Promised, Site};

const NAMES: [&str; 5] = ["asia", "b", "eu", "us-east", "us-west"];
const START_MS: u64 = 1_800_000_000_000;

pub struct World {
    pub rng: Rng,
    pub now_ms: u64,
    /// How fast time goes; clocks that disagree matter only when it goes slowly.
    pace_ms: usize,
    pub sites: Vec<Site>,
    /// Links that are cut, one way: (from, to).
    cut: BTreeSet<(usize, usize)>,
    /// Digests under way: (to, digest).
    mail: Vec<(usize, Digest)>,
    producers: Vec<ProducerTag>,
    /// Every submission that may be retried.
    sent: Vec<Submission>,
    next_payload: u64,
    /// What each origin has appended, in order.
    pub history: BTreeMap<Origin, Vec<Group>>,
    /// What was delivered at each global position, by whoever came first.
    pub global: BTreeMap<u64, Delivered>,
    pub everywhere: Everywhere,
    /// Of a hundred submissions, how many are about homes and rights.
    pub special: usize,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng(seed);
        let regions = 2 + rng.below(4);
        let pace_ms = [2, 8, 40][rng.below(3)];
        let members: Vec<_> =
            NAMES[..regions].iter().map(|name| RegionName::new(name).unwrap()).collect();
        let origin = |region: &RegionName| {
            let incarnation = Incarnation(7);
            Origin { region: region.clone(), incarnation, shard: ShardId(0) }
        };
        let mut sites: Vec<_> =
            members.iter().map(|name| Site::new(origin(name), members.clone())).collect();
        sites.iter_mut().for_each(|site| site.skew_ms = rng.below(401) as i64 - 200);
        let tag = |id| ProducerTag { id: ProducerId([id; 16]), epoch: 1, sequence: 0 };
        Self {
            rng,
            now_ms: START_MS,
            pace_ms,
            sites,
            cut: BTreeSet::new(),
            mail: Vec::new(),
            producers: (1..=3).map(tag).collect(),
            sent: Vec::new(),
            next_payload: 0,
            history: BTreeMap::new(),
            global: BTreeMap::new(),
            everywhere: Everywhere::default(),
            special: 30,
        }
    }

    pub fn step(&mut self) {
        self.now_ms += self.rng.below(self.pace_ms) as u64;
        let at = self.rng.below(self.sites.len());
        let other = self.rng.below(self.sites.len());
        match self.rng.below(100) {
            0..24 => self.append(at),
            24..44 => self.commit_some(at),
            44..58 => self.pull(at, other),
            58..68 => self.import(at),
            68..74 => self.close(at),
            74..84 => self.send_digests(at, other),
            84..90 => self.receive_digest(),
            90..94 => self.flip_link(at, other),
            94..96 => self.sites[at].change_leader(),
            96..97 => self.sites[at].restart(),
            97..98 => self.change_clock(at),
            _ => self.try_stale(at),
        }
        if self.rng.chance(30) {
            self.sites[at].leader.tell_all();
        }
        self.check_convergence();
    }

    fn append(&mut self, at: usize) {
        let count = 1 + self.rng.below(3);
        let submissions: Vec<_> = (0..count).map(|_| self.submission(at)).collect();
        let site = &mut self.sites[at];
        let wall = site.wall_ms(self.now_ms);
        let Ok((ticketed, verdicts)) =
            site.leader.sequencer.sequence(wall, &site.region, submissions.clone())
        else {
            return;
        };
        let mut fresh = Vec::new();
        for (submission, verdict) in submissions.into_iter().zip(verdicts) {
            match verdict {
                Verdict::Sequenced { receipt, .. } => {
                    fresh.push(Promised { submission, receipt, fresh: true });
                }
                Verdict::Joined { ticket, receipt } => {
                    let promised = Promised { submission, receipt, fresh: false };
                    let ways = &mut self.sites[at].leader.on_their_way;
                    match ways.iter_mut().find(|way| way.ticket == ticket) {
                        Some(way) => way.promised.push(promised),
                        None if ticketed.as_ref().is_some_and(|new| new.ticket == ticket) => {
                            fresh.push(promised);
                        }
                        // Applied already, the sequencer was only not told yet.
                        None => {
                            let request = &promised.submission.request;
                            self.check_receipt(at, request, &promised.receipt, Mine::Perhaps);
                        }
                    }
                }
                Verdict::Repeated(receipt) => {
                    self.check_receipt(at, &submission.request, &receipt, Mine::Perhaps);
                }
                Verdict::Conflicts(conflicts) => assert!(!conflicts.is_empty()),
                Verdict::Fenced { .. }
                | Verdict::NotHome { .. }
                | Verdict::HomesDiffer { .. }
                | Verdict::HomeUnconfirmed { .. }
                | Verdict::Class(_)
                | Verdict::Short { .. } => {}
                Verdict::Forgotten { .. }
                | Verdict::IdReused { .. }
                | Verdict::SequenceReused { .. }
                | Verdict::BadRights(_) => panic!("{verdict:?}"),
            }
        }
        match ticketed {
            Some(ticketed) => self.sites[at].leader.propose(ticketed, fresh),
            None => assert!(fresh.is_empty(), "sequenced, but in no command"),
        }
    }

    fn submission(&mut self, at: usize) -> Submission {
        if self.rng.chance(self.special) {
            return self.special(at);
        }
        if !self.sent.is_empty() && self.rng.chance(35) {
            // Mostly a recent one: that is when retries meet their first on its way.
            let back = self.rng.below(self.sent.len().min(6));
            return self.sent[self.sent.len() - 1 - back].clone();
        }
        let by_sequence = self.rng.chance(50);
        let by_id = self.rng.chance(40);
        let events = (0..1 + self.rng.below(3)).map(|_| self.event(by_id)).collect();
        let producer = by_sequence.then(|| self.next_tag());
        let expectations = (0..self.rng.below(3)).map(|_| self.expectation()).collect();
        let submission = Submission { request: Request { producer, events }, expectations };
        if by_sequence || by_id {
            self.sent.push(submission.clone());
        }
        submission
    }

    pub fn event(&mut self, by_id: bool) -> Event {
        self.next_payload += 1;
        let number = self.next_payload;
        Event {
            stream: self.stream(),
            id: by_id.then(|| EventId(u128::from(number).to_be_bytes())),
            kind: "Happened".into(),
            metadata: BTreeMap::new(),
            payload: Bytes::from(number.to_string()),
        }
    }

    fn stream(&mut self) -> String {
        format!("cart-{}", self.rng.below(6))
    }

    fn next_tag(&mut self) -> ProducerTag {
        let which = self.rng.below(self.producers.len());
        let raise = self.rng.chance(4);
        let tag = &mut self.producers[which];
        match raise {
            true => *tag = ProducerTag { epoch: tag.epoch + 1, sequence: 1, ..*tag },
            false => tag.sequence += 1,
        }
        *tag
    }

    fn expectation(&mut self) -> Expectation {
        let expected = match self.rng.below(8) {
            0 => Expected::NoStream,
            1 => Expected::Exists,
            2..5 => Expected::Revision(self.rng.below(12) as u64),
            _ => Expected::Any,
        };
        Expectation { stream: self.stream(), expected }
    }

    fn commit_some(&mut self, at: usize) {
        for _ in 0..1 + self.rng.below(3) {
            self.commit(at);
        }
        self.deliver(at);
    }

    fn commit(&mut self, at: usize) {
        let site = &mut self.sites[at];
        let Some(way) = site.leader.on_their_way.pop_front() else { return };
        let command = Command::decode(way.bytes.clone()).expect("a command of our own");
        let outcome = site.region.apply(&command);
        assert_eq!(outcome, Outcome::Accepted, "{} leads alone", site.origin);
        site.log.push(way.bytes.clone());
        site.leader.untold.push_back(way.ticket);
        self.check_command(at, &command, &way);
    }

    /// `at` asks `from` for everything it lacks, a few groups of each origin.
    fn pull(&mut self, at: usize, from: usize) {
        if at == from || self.cut.contains(&(from, at)) {
            return;
        }
        let mut served: Vec<_> = self.sites[from].record.groups.keys().cloned().collect();
        served.retain(|origin| self.sites[at].origin != *origin);
        for origin in served {
            let wanted =
                self.sites[at].leader.importer.next_wanted(&self.sites[at].region, &origin);
            let groups = &self.sites[from].record.groups[&origin];
            let begin = groups.partition_point(|group| group.last() < wanted);
            // Sometimes too early (repeated) and sometimes too late (a gap).
            let begin = match self.rng.below(10) {
                0 => begin.saturating_sub(1),
                1 => begin + 1,
                _ => begin,
            };
            let count = 1 + self.rng.below(4);
            let some: Vec<_> = groups.iter().skip(begin).take(count).cloned().collect();
            for group in some {
                self.offer(at, group);
            }
        }
    }

    fn offer(&mut self, at: usize, group: Group) {
        let shipped = Group::decode(group.encoded().clone()).expect("shipped verbatim");
        let site = &mut self.sites[at];
        let wanted = site.leader.importer.next_wanted(&site.region, group.origin());
        let (first, last) = (group.first(), group.last());
        match site.leader.importer.offer(&site.region, shipped) {
            Offered::Queued => assert_eq!(first, wanted),
            Offered::Repeated => assert!(last < wanted),
            Offered::Gap { from } => assert!(from == wanted && first > wanted),
            Offered::Held(held) => panic!("nobody forks here: {held}"),
        }
    }

    fn import(&mut self, at: usize) {
        let bytes_max = [1, 300, 1 << 20][self.rng.below(3)];
        let statements = self.rng.chance(60);
        let site = &mut self.sites[at];
        let wall = site.wall_ms(self.now_ms);
        let leader = &mut site.leader;
        let frontier = leader.sequencer.frontier();
        let batch = leader.importer.take(wall, frontier, bytes_max, statements);
        for (_, held) in leader.importer.held() {
            assert!(matches!(held, Held::Clock { .. }), "{held}");
        }
        if !batch.is_empty() {
            let command = leader.sequencer.import(&site.region, batch.groups, batch.digests);
            leader.propose(command, Vec::new());
        }
    }

    fn close(&mut self, at: usize) {
        let site = &mut self.sites[at];
        let wall = site.wall_ms(self.now_ms);
        if let Ok(ticketed) = site.leader.sequencer.close(wall) {
            site.leader.propose(ticketed, Vec::new());
        }
    }

    /// `from` speaks, of itself and of what it heard; `to` may hear it much later, or twice.
    fn send_digests(&mut self, from: usize, to: usize) {
        if from == to || self.cut.contains(&(from, to)) {
            return;
        }
        let site = &self.sites[from];
        let heard = site.leader.importer.heard().chain(site.region.peers()).cloned();
        let words: Vec<_> = site.region.digest().into_iter().chain(heard).collect();
        for word in words {
            if self.rng.chance(15) {
                self.mail.push((to, word.clone()));
            }
            self.mail.push((to, word));
        }
    }

    fn receive_digest(&mut self) {
        for _ in 0..4 {
            if self.mail.is_empty() {
                return;
            }
            let which = self.rng.below(self.mail.len());
            let (to, digest) = self.mail.swap_remove(which);
            self.hear(to, digest);
        }
    }

    fn hear(&mut self, to: usize, digest: Digest) {
        let site = &mut self.sites[to];
        site.leader.importer.offer_digest(&site.region, digest);
    }

    fn flip_link(&mut self, from: usize, to: usize) {
        if !self.cut.remove(&(from, to)) {
            self.cut.insert((from, to));
        }
    }

    /// Mostly within what is allowed; sometimes so far that others hold its groups back.
    fn change_clock(&mut self, at: usize) {
        let leap = if self.rng.chance(20) { 900 } else { 0 };
        self.sites[at].skew_ms = self.rng.below(401) as i64 - 200 + leap;
    }

    /// What a lost leader proposed is refused once the log went on without it, and leaves no trace.
    fn try_stale(&mut self, at: usize) {
        let site = &self.sites[at];
        for bytes in &site.stale {
            let command = Command::decode(bytes.clone()).expect("a command of our own");
            let Some(position) = command.position() else { continue };
            if position < site.region.position() {
                let mut copy = site.region.clone();
                let outcome = copy.apply(&command);
                assert!(matches!(outcome, Outcome::Refused(_)), "stale, but {outcome:?}");
                assert!(copy == site.region, "a refused command leaves no trace");
            }
        }
    }

    /// Links up, clocks right, everything delivered.
    pub fn heal(&mut self) {
        self.cut.clear();
        self.sites.iter_mut().for_each(|site| site.skew_ms = 0);
        for _ in 0..60 {
            self.now_ms += 200;
            for at in 0..self.sites.len() {
                self.close(at);
                for other in 0..self.sites.len() {
                    self.pull(at, other);
                    self.send_digests(at, other);
                }
                while !self.mail.is_empty() {
                    self.receive_digest();
                }
                self.import(at);
                while !self.sites[at].leader.on_their_way.is_empty() {
                    self.commit(at);
                }
                self.sites[at].leader.tell_all();
                self.deliver(at);
            }
            if self.is_settled() {
                return;
            }
        }
    }

    /// All hold the same, and all of it is delivered in the global order.
    fn is_settled(&self) -> bool {
        let frontier = self.sites[0].region.frontier();
        let settled = |site: &Site| {
            site.region.frontier() == frontier && site.merge.position() == frontier.events()
        };
        self.sites.iter().all(settled)
    }

    pub fn check_the_end(&mut self) {
        self.check_convergence();
        self.check_classes_agree();
        let frontier = self.sites[0].region.frontier().clone();
        for site in &mut self.sites {
            assert_eq!(*site.region.frontier(), frontier, "law 5: healed, but not the same");
            assert_eq!(site.leader.importer.bytes(), 0, "something still waits");
            assert_eq!(site.merge.position(), frontier.events(), "every event becomes final");
            assert!(site.region.watermark() > Stamp::ZERO);
            site.restart();
        }
        for pair in self.sites.windows(2) {
            assert_eq!(pair[0].hash, pair[1].hash, "law 6: one order");
            assert_eq!(pair[0].record.marks, pair[1].record.marks, "law 6: the same marks");
        }
    }
}
