//! Through whom to pull what.
//!
//! Normally a region's origins are pulled from that region. If it is out of reach, or a neighbour
//! holds more of an origin than its own region gives us, the neighbour that holds most is asked:
//! gossip. Pure: facts and `now` come in, an assignment comes out, the same for the same facts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anabranch_core::{Context, Digest, Origin, RegionName, Seq};

/// Which region each origin is pulled through.
pub type Assignment = BTreeMap<Origin, RegionName>;

/// Most origins that are remembered. Each takes a region being rebuilt, so it is never near; the
/// bound is against a neighbour that makes origins up.
const ORIGINS_MAX: usize = 4_096;

/// What is known about one neighbour's session.
#[derive(Debug, Clone)]
struct Link {
    up: bool,
    /// When it went up or down.
    since: Instant,
    /// What the neighbour said it holds. Kept while down, until it speaks again.
    holds: Context,
    /// It has not said yet, on this session, what it holds. It may be less than before: its disks may
    /// have been set back, or it began anew.
    silent: bool,
}

/// What is known about one origin.
#[derive(Debug, Clone)]
struct Course {
    via: Option<RegionName>,
    /// When events of it last arrived, or it was last given to another neighbour.
    moved_at: Instant,
    /// Since when a neighbour has held more than has arrived here.
    behind_since: Option<Instant>,
    /// It rests until then, because the importer held it.
    held_until: Option<Instant>,
}

/// Decides through whom each origin is pulled.
#[derive(Debug, Clone)]
pub struct Plan {
    relay_after: Duration,
    hold: Duration,
    /// The log's own origin: never pulled.
    own: Option<Origin>,
    links: BTreeMap<RegionName, Link>,
    courses: BTreeMap<Origin, Course>,
}

impl Plan {
    /// A plan for pulling from `peers`, all of them down at `now`.
    pub fn new(
        now: Instant,
        peers: impl IntoIterator<Item = RegionName>,
        relay_after: Duration,
        hold: Duration,
    ) -> Self {
        let down = Link { up: false, since: now, holds: Context::new(), silent: true };
        let links = peers.into_iter().map(|peer| (peer, down.clone())).collect();
        Self { relay_after, hold, own: None, links, courses: BTreeMap::new() }
    }

    /// Names the origin of the own log.
    pub fn own(&mut self, own: Option<Origin>) {
        self.own = own;
    }

    /// A session with `region` is up, and the log there is `origin`.
    pub fn up(&mut self, now: Instant, region: &RegionName, origin: Option<Origin>) {
        self.set_up(now, region, true);
        if let Some(origin) = origin {
            self.hear_of(now, &origin);
        }
    }

    /// The session with `region` is down.
    pub fn down(&mut self, now: Instant, region: &RegionName) {
        self.set_up(now, region, false);
    }

    /// `region` spoke of itself on its own session.
    pub fn digest(&mut self, now: Instant, via: &RegionName, digest: &Digest) {
        self.hear_of(now, &digest.origin);
        if digest.origin.region != *via {
            return;
        }
        for (origin, _) in digest.frontier.iter() {
            self.hear_of(now, origin);
        }
        if let Some(link) = self.links.get_mut(via) {
            if std::mem::take(&mut link.silent) {
                link.holds = Context::new();
            }
            link.holds.merge(&digest.frontier);
        }
    }

    /// Events of `origin` arrived and were taken.
    pub fn arrived(&mut self, now: Instant, origin: &Origin) {
        if let Some(course) = self.courses.get_mut(origin) {
            course.moved_at = now;
        }
    }

    /// The importer refuses `origin` for now.
    pub fn held(&mut self, now: Instant, origin: &Origin) {
        if let Some(course) = self.courses.get_mut(origin) {
            course.held_until = Some(now + self.hold);
        }
    }

    /// Through whom to pull each known origin now. `next` is the first number not yet received.
    ///
    /// Origins that nobody within reach can give are absent.
    pub fn assign(&mut self, now: Instant, next: impl Fn(&Origin) -> Seq) -> Assignment {
        let mut courses = std::mem::take(&mut self.courses);
        let mut assignment = Assignment::new();
        for (origin, course) in &mut courses {
            if Some(origin) == self.own.as_ref() {
                continue;
            }
            let have = Seq(next(origin).0.saturating_sub(1));
            let via = self.choose(now, origin, have, course);
            if via != course.via {
                course.via = via;
                course.moved_at = now;
            }
            if let Some(via) = &course.via {
                assignment.insert(origin.clone(), via.clone());
            }
        }
        self.courses = courses;
        assignment
    }

    /// What `region` says it holds, and whether its session is up.
    pub fn holds(&self, region: &RegionName) -> Option<(&Context, bool)> {
        self.links.get(region).map(|link| (&link.holds, link.up))
    }

    /// Origins heard of, the own one included, in order.
    pub fn origins(&self) -> BTreeSet<&Origin> {
        self.courses.keys().chain(&self.own).collect()
    }

    fn choose(
        &self,
        now: Instant,
        origin: &Origin,
        have: Seq,
        course: &mut Course,
    ) -> Option<RegionName> {
        if course.held_until.is_some_and(|until| now < until) {
            return None;
        }
        course.held_until = None;
        let best = self.best_neighbour(origin, course.via.as_ref());
        let ahead = best.as_ref().is_some_and(|(_, held)| *held > have);
        course.behind_since = ahead.then(|| course.behind_since.unwrap_or(now));
        let stuck_since = course.behind_since.map(|since| since.max(course.moved_at));
        let stuck = stuck_since.is_some_and(|since| since + self.relay_after <= now);
        let relay = best.map(|(neighbour, _)| neighbour);
        let direct = self.links.get(&origin.region);
        match direct {
            Some(link) if link.up => self.choose_with_direct(origin, course, relay, stuck),
            Some(link) if now < link.since + self.relay_after => None,
            _ => self.choose_relay(origin, course, relay, stuck),
        }
    }

    /// Its own region is up: that one, unless it keeps less from us than a neighbour holds.
    fn choose_with_direct(
        &self,
        origin: &Origin,
        course: &Course,
        relay: Option<RegionName>,
        stuck: bool,
    ) -> Option<RegionName> {
        let own_region = Some(origin.region.clone());
        let serves = match &relay {
            Some(relay) => self.held_by(&origin.region, origin) >= self.held_by(relay, origin),
            None => true,
        };
        match course.via == own_region || course.via.is_none() {
            true if stuck && !serves => relay,
            true => own_region,
            false if serves => own_region,
            false if stuck || !self.is_up(course.via.as_ref()) => relay,
            false => course.via.clone(),
        }
    }

    /// Its own region is out of reach: whoever holds most, staying with whom it is unless stuck.
    fn choose_relay(
        &self,
        origin: &Origin,
        course: &Course,
        relay: Option<RegionName>,
        stuck: bool,
    ) -> Option<RegionName> {
        let stays = self.is_up(course.via.as_ref()) && course.via.as_ref() != Some(&origin.region);
        if stays && !stuck { course.via.clone() } else { relay }
    }

    /// The neighbour within reach, other than its own region, that holds most of `origin`. Of equals
    /// the one in use, then the first by name.
    fn best_neighbour(
        &self,
        origin: &Origin,
        in_use: Option<&RegionName>,
    ) -> Option<(RegionName, Seq)> {
        let neighbours =
            self.links.iter().filter(|(name, link)| link.up && **name != origin.region);
        let holders = neighbours.map(|(name, link)| (name, link.holds.seq(origin)));
        holders
            .filter(|(_, held)| *held > Seq(0))
            .rev()
            .max_by_key(|(name, held)| (*held, in_use == Some(*name)))
            .map(|(name, held)| (name.clone(), held))
    }

    fn held_by(&self, region: &RegionName, origin: &Origin) -> Seq {
        self.links.get(region).map_or(Seq(0), |link| link.holds.seq(origin))
    }

    fn is_up(&self, region: Option<&RegionName>) -> bool {
        region.and_then(|region| self.links.get(region)).is_some_and(|link| link.up)
    }

    fn set_up(&mut self, now: Instant, region: &RegionName, up: bool) {
        let Some(link) = self.links.get_mut(region) else { return };
        // A failed attempt to connect does not make it down for a shorter time.
        if link.up != up {
            link.up = up;
            link.since = now;
            link.silent |= up;
        }
    }

    fn hear_of(&mut self, now: Instant, origin: &Origin) {
        if !self.courses.contains_key(origin) && self.courses.len() < ORIGINS_MAX {
            let new = Course { via: None, moved_at: now, behind_since: None, held_until: None };
            self.courses.insert(origin.clone(), new);
        }
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
