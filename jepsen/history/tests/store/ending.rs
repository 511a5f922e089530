//! How a run ends: everybody imports everything, and all is read.

use super::*;

impl Store {
    /// Everybody imports everything.
    pub(super) fn settle(&mut self) {
        if self.has(Bug::AcknowledgedBeforeSync) {
            // The last group of eu was not exported yet, nor synced.
            let lost = self.origins[1].pop().expect("eu wrote something");
            let same = |group: &Group| group.region == 1 && group.first == lost.first;
            for region in &mut self.regions {
                region.log.retain(|group| !same(group));
                region.held[1] = region.held[1].min(lost.first - 1);
                region.groups[1].0 = region.groups[1].0.min(self.origins[1].len());
            }
        }
        loop {
            let before: u64 = self.regions.iter().map(|region| region.position).sum();
            for (to, from) in [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)] {
                self.work(Duration::MAX, Job::Import(to, from));
            }
            if before == self.regions.iter().map(|region| region.position).sum::<u64>() {
                return;
            }
        }
    }

    pub(super) fn finish(&mut self) {
        let lost = self.settings.lost_at.is_some();
        for (at, name) in NAMES.into_iter().enumerate() {
            let regional = shown(&self.regions[at].log);
            let finals = if lost { self.finals(at) } else { order(&self.regions[at].log) };
            let mut global: Vec<Seen> = regional.clone();
            match self.has(Bug::TiesByArrival) {
                // Not by the stamp alone: those of one region's clock and another's hardly tie.
                true => global.sort_by_key(|seen| seen.stamp.0 >> 12),
                false => global.sort_by_key(|seen| (seen.stamp, seen.dot.clone())),
            }
            (0..).zip(&mut global).for_each(|(place, seen)| seen.place = place);
            global.truncate(finals.len());
            if lost && at == LOST {
                self.lose(regional, global);
                continue;
            }
            self.subscribe(at, &regional, &global);
            self.select(name, &regional, &global);
            let read = RegionRead { own: Some(origin(at)), regional, global };
            self.evidence.regions.insert(name.into(), read);
            let region = &self.regions[at];
            let node = format!("{name}-1");
            let events: usize = region.log.iter().map(|group| group.events.len()).sum();
            let waits = finals.len() < events;
            let blame = Blame {
                events: events as u64,
                ordered: finals.len() as u64,
                blocked_by: waits.then(|| NAMES[LOST].to_owned()).into_iter().collect(),
            };
            self.evidence.blames.insert(node.clone(), blame);
            self.evidence.prints.insert(
                node,
                Print {
                    frontier: frontier(region),
                    streams: region.streams.len() as u64,
                    events: region.position,
                    buckets: vec![chain(&finals)],
                    chains: BTreeMap::new(),
                    global_position: finals.len() as u64,
                    global_chain: chain(&finals),
                },
            );
        }
        let second = Duration::from_secs(1);
        self.evidence.recovery = Some(Recovery {
            within: second * 60,
            served: NAMES.map(|name| (name.to_owned(), Some(second))).into(),
            agreed: Some(second * 2),
            not_converged: Vec::new(),
        });
    }

    /// Asks for every stream by itself, by turns in each order and direction.
    fn select(&mut self, region: &str, regional: &[Seen], global: &[Seen]) {
        let streams: BTreeSet<&String> = regional.iter().map(|seen| &seen.stream).collect();
        for (nth, stream) in streams.into_iter().enumerate() {
            let (order, whole) = match nth % 2 {
                0 => (Order::Regional, regional),
                _ => (Order::Global, global),
            };
            let of_it = whole.iter().filter(|seen| seen.stream == *stream);
            let mut shown: Vec<Dot> = of_it.map(|seen| seen.dot.clone()).collect();
            let backwards = nth % 3 == 0;
            if backwards {
                shown.reverse();
            }
            let (region, part) = (region.to_owned(), Part::Stream(stream.clone()));
            self.evidence.selections.push(Selection { region, part, order, backwards, shown });
        }
    }

    /// Keeps what somebody had seen of the region before.
    pub(super) fn lose(&mut self, regional: Vec<Seen>, global: Vec<Seen>) {
        let region = NAMES[LOST].to_owned();
        let given = |events: &[Seen]| events.iter().map(|e| (e.place, e.dot.clone())).collect();
        for (order, events) in
            [(Order::Regional, given(&regional)), (Order::Global, given(&global))]
        {
            let name = format!("the {order:?} subscriber that stayed there");
            self.evidence
                .subscribed
                .push(Subscribed { complete: false, ..subscribed(name, order, events) });
        }
        let read = RegionRead { own: Some(origin(LOST)), regional, global };
        self.evidence.before_loss.insert(region.clone(), read);
        self.evidence.expectations.lost.insert(region);
    }

    pub(super) fn subscribe(&mut self, at: usize, regional: &[Seen], global: &[Seen]) {
        let left = if self.settings.lost_at.is_some() { LOST } else { 3 };
        let logs: Vec<Vec<Seen>> = (0..left).map(|of| shown(&self.regions[of].log)).collect();
        let mut held: BTreeSet<&Dot> = BTreeSet::new();
        let mut given: Vec<(u64, Dot)> = Vec::new();
        let mut here = at;
        for _ in 0..40 {
            let many = self.rng.random_range(1..regional.len().max(2));
            let begin = given.len();
            let log = &logs[here];
            let wanted: Vec<&Seen> = match self.bug {
                Some(Bug::CursorByPosition) => log.iter().skip(begin).take(many).collect(),
                _ => log.iter().filter(|seen| !held.contains(&seen.dot)).take(many).collect(),
            };
            for seen in wanted {
                held.insert(&seen.dot);
                given.push((seen.place, seen.dot.clone()));
            }
            here = (here + 1) % left;
        }
        let whole = global.iter().map(|seen| (seen.place, seen.dot.clone())).collect();
        for (order, events) in [(Order::Regional, given), (Order::Global, whole)] {
            let name = format!("the {order:?} subscriber of {}", NAMES[at]);
            self.evidence.subscribed.push(subscribed(name, order, events));
        }
    }
}

fn subscribed(name: String, order: Order, events: Vec<(u64, Dot)>) -> Subscribed {
    Subscribed {
        name,
        order,
        category: None,
        complete: true,
        events,
        forgotten: Vec::new(),
        moves: 40,
        problems: Vec::new(),
    }
}

fn shown(log: &[Group]) -> Vec<Seen> {
    let mut next: BTreeMap<&str, u64> = BTreeMap::new();
    let mut seen = Vec::new();
    for group in log {
        for ((nth, asked), mark) in
            (0..).zip(&group.events).zip(Mark::all(group.tag, &group.events))
        {
            let revision = next.entry(&asked.stream).or_default();
            let id: EventId = asked.id;
            seen.push(Seen {
                dot: dot(group.region, group.first + nth),
                id,
                stream: asked.stream.clone(),
                revision: *revision,
                stamp: Stamp(group.stamp),
                place: seen.len() as u64,
                mark: Some(Mark { of: group.of, ..mark }),
                intact: true,
                says: None,
            });
            *revision += 1;
        }
    }
    seen
}
