//! What clients ask for, and what they are told.

use super::*;

impl Store {
    /// Six writers, each does one thing after the other; imports and observations in between.
    pub(super) fn plan(&mut self) -> BTreeMap<(u64, usize), Job> {
        let mut jobs = BTreeMap::new();
        let mut number = 0;
        let mut put = |at: u64, job: Job| {
            number += 1;
            jobs.insert((at, number), job);
        };
        let mut end = 0;
        for writer in 0..6_u32 {
            let mut at = self.rng.random_range(0..50);
            for nth in 0..self.settings.ops / 6 {
                let called = at + self.rng.random_range(0..40);
                let effect = called + self.rng.random_range(0..60);
                let returned = effect + self.rng.random_range(0..60);
                let op = self.draw(writer, nth, called, returned);
                self.evidence.history.ops.push(op);
                let op = self.evidence.history.ops.len() - 1;
                put(effect, Job::Effect(op));
                if self.rng.random_bool(0.15) {
                    // What expects something is sent nowhere else.
                    let plain = self.evidence.history.ops[op].expects.is_empty();
                    let elsewhere = self.rng.random_range(0..3);
                    let region = if plain { elsewhere } else { writer as usize % 3 };
                    put(returned + 1, Job::Repeat(op, region));
                }
                if self.rng.random_bool(if self.settings.ops > 1_000 { 0.002 } else { 0.2 }) {
                    put(returned + 2, Job::Read(writer, self.rng.random_range(0..3)));
                }
                at = returned + 3;
            }
            end = end.max(at);
        }
        for at in (0..end).step_by(7) {
            let (to, from) = (self.rng.random_range(0..3), self.rng.random_range(0..3));
            if to != from {
                put(at, Job::Import(to, from));
            }
            if at % 5 == 0 {
                put(at, Job::Observe(self.rng.random_range(0..3)));
            }
        }
        jobs
    }

    pub(super) fn draw(&mut self, writer: u32, nth: u32, called: u64, returned: u64) -> Op {
        let region = writer as usize % 3;
        let streams = self.settings.streams;
        let stream = |rng: &mut SmallRng| match rng.random_range(0..3) {
            0 => format!("own-{}-{}", NAMES[region], rng.random_range(0..streams)),
            1 => format!("session-{writer}"),
            _ => format!("shared-{}", rng.random_range(0..streams)),
        };
        let (one, other) = (stream(&mut self.rng), stream(&mut self.rng));
        let count = self.rng.random_range(1..4_u32);
        let money = self.rng.random_range(0..9);
        let asked = |nth_event: u32| Asked {
            id: Name { run: 1, writer, op: nth, nth: nth_event }.id(),
            stream: if nth_event == 0 { one.clone() } else { other.clone() },
            amount: match (count, nth_event) {
                (2, 0) => -money,
                (2, _) => money,
                _ => 0,
            },
            size: 20,
            says: None,
        };
        let events: Vec<Asked> = (0..count).map(asked).collect();
        let expects = match self.rng.random_range(0..4) {
            0 => vec![(one, Expect::Revision(self.rng.random_range(0..6)))],
            1 => vec![(one, Expect::NoStream), (other, Expect::Exists)],
            2 => vec![(one, Expect::Exists)],
            _ => vec![],
        };
        let expects =
            expects.into_iter().map(|(stream, expected)| Expectation { stream, expected });
        let id = ProducerId([writer as u8; 16]);
        Op {
            writer,
            region: NAMES[region].into(),
            roams: false,
            tag: ProducerTag { id, epoch: 1, sequence: nth.into() },
            events,
            expects: expects.collect(),
            regions: 1,
            called: Duration::from_millis(called),
            returned: Duration::from_millis(returned),
            outcome: Outcome::Unknown { why: "the model never got to it".into() },
        }
    }

    pub(super) fn effect(&mut self, now: Duration, at: usize) {
        let op = self.evidence.history.ops[at].clone();
        let region = op_region(&op);
        let (silent, unheard) = (self.chance(0.1), self.chance(0.3));
        if silent && unheard {
            self.evidence.history.ops[at].returned = Duration::MAX;
            return;
        }
        let conflicts = self.conflicts(region, &op);
        let mut outcome = if conflicts.is_empty() {
            let ack = self.append(now, region, op.tag, &op.events);
            Outcome::Acknowledged(ack)
        } else {
            Outcome::Conflict { conflicts }
        };
        if self.has(Bug::RefusedAndWritten)
            && matches!(outcome, Outcome::Conflict { .. })
            && self.chance(0.1)
        {
            self.append(now, region, op.tag, &op.events);
        }
        if self.has(Bug::AcknowledgedEarly) && self.chance(0.2) {
            let op = &mut self.evidence.history.ops[at];
            op.returned = op.called.saturating_sub(Duration::from_millis(200));
            op.called = op.returned;
        }
        if silent {
            outcome = Outcome::Unknown { why: "silence".into() };
            self.evidence.history.ops[at].returned = Duration::MAX;
        } else {
            self.saw(op.writer, region);
        }
        self.evidence.history.ops[at].outcome = outcome;
    }

    pub(super) fn conflicts(&mut self, region: usize, op: &Op) -> Vec<Conflict> {
        let stale = self.has(Bug::StaleExpectations) && self.chance(0.3);
        let lie = self.has(Bug::StaleConflict) && self.chance(0.3);
        let state = &self.regions[region];
        let events = |old: bool, stream: &str| {
            let streams = if old { &state.before } else { &state.streams };
            streams.get(stream).copied().unwrap_or_default()
        };
        let fails = |old: bool, expectation: &&Expectation| {
            let events = events(old, &expectation.stream);
            match expectation.expected {
                Expect::Any => false,
                Expect::NoStream => events > 0,
                Expect::Exists => events == 0,
                Expect::Revision(revision) => revision + 1 != events,
            }
        };
        let conflict = |expectation: &Expectation| Conflict {
            expectation: expectation.clone(),
            actual: events(stale || lie, &expectation.stream).checked_sub(1),
        };
        op.expects.iter().filter(|e| fails(stale, e)).map(conflict).collect()
    }

    pub(super) fn repeat(&mut self, now: Duration, at: usize, region: usize) {
        let op = self.evidence.history.ops[at].clone();
        let Some(first) = op.ack().cloned() else { return };
        let said_so = self.regions[region].done.contains_key(&(op.tag.id, op.tag.sequence));
        let again = self.append(now, region, op.tag, &op.events);
        self.evidence.history.repeats.push(Repeat {
            first,
            by: By::Sequence,
            region: NAMES[region].into(),
            again,
            said_so: said_so && !self.has(Bug::RetriesForgotten),
        });
    }

    pub(super) fn read(&mut self, now: Duration, writer: u32, region: usize) {
        let session = self.sessions.get(&writer).copied().unwrap_or_default();
        let ready = (0..3).all(|at| session[at] <= self.regions[region].held[at]);
        if !ready && !self.has(Bug::SessionIgnored) {
            self.evidence.history.session_gave_up += 1;
            return;
        }
        let stream = format!("session-{writer}");
        let shown = self.regions[region].events.get(&stream).cloned().unwrap_or_default();
        self.saw(writer, region);
        self.evidence.history.session_reads.push(SessionRead {
            writer,
            region: NAMES[region].into(),
            stream,
            whole: true,
            shown,
            called: now,
            returned: now + Duration::from_micros(500),
        });
    }
}
