//! Where gossip puts what other regions sent: the leader's importer, behind a bound on its bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anabranch_core::import::{Batch, Held, Importer, Offered};
use anabranch_core::region::Region;
use anabranch_core::{Context, Digest, Group, Origin, RegionName, Seq};
use anabranch_gossip::{BoxFuture, ClockAnswer, ClockTrust, OfferError, Sink};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::clock_guard::{Judged, Reading, Times};
use super::standing::Forgetful;
use super::state::ShardState;
use crate::env::Clock;

/// Bytes of one origin's groups that may wait for their turn.
const QUEUE_BYTES: usize = 16 * 1024 * 1024;

/// The importer of the present leadership, if this node leads.
pub(super) struct Inlet {
    /// Locked inside a look at the region, or alone; never the other way round.
    importer: Mutex<Option<Importer>>,
    /// Something was offered.
    pub(super) offered: Notify,
    /// Something was taken, or the importer changed.
    taken: watch::Sender<u64>,
    /// Moves with every digest heard: who waits for other regions' receipts looks again.
    heard: watch::Sender<u64>,
    /// What others said that concerns this region itself. Kept as long as the process runs; a leaf
    /// among the locks.
    about_us: Mutex<AboutUs>,
}

/// What the other regions said that concerns this one, and what is wrong with it.
#[derive(Default)]
struct AboutUs {
    /// Their clocks.
    times: Times,
    /// What they hold of this region's own events. Only ever grows: what was held is held.
    known: BTreeMap<RegionName, Seq>,
    /// A region that holds events of another life of this region, and of which.
    other_life: Option<(RegionName, Origin, Seq)>,
    /// Regions that have said, themselves, what they hold.
    spoken: BTreeSet<RegionName>,
    /// Regions that speak, themselves, under another life than the one that is known here.
    reborn: BTreeMap<RegionName, Origin>,
    /// What the last look at this node's own clock came to.
    judged: Option<Judged>,
    /// What is wrong with this node's clock, for people.
    trouble: Option<String>,
    /// What this region's log has forgotten, for people.
    forgetful: Option<String>,
}

impl Inlet {
    pub(super) fn new() -> Self {
        Self {
            importer: Mutex::new(None),
            offered: Notify::new(),
            taken: watch::Sender::new(0),
            heard: watch::Sender::new(0),
            about_us: Mutex::default(),
        }
    }

    /// Shows what time it is in other regions, as far as that is known at `monotonic`.
    pub(super) fn with_times<T>(&self, monotonic: Duration, look: impl FnOnce(&Times) -> T) -> T {
        let times = &mut self.about_us.lock().times;
        times.expire(monotonic);
        look(times)
    }

    /// Whether `region` has said, itself, what it holds and what time it is.
    pub(super) fn has_answered(&self, region: &RegionName) -> bool {
        let about_us = self.about_us.lock();
        about_us.spoken.contains(region) && about_us.times.regions().any(|told| told == region)
    }

    /// What this region's log has forgotten, if it has: `own` events beyond `ours`, or all of another
    /// life of the region, which began anew under a name that has a history.
    pub(super) fn knows_more(&self, own: &Origin, ours: Seq) -> Option<Forgetful> {
        let about_us = self.about_us.lock();
        if let Some((knows, origin, theirs)) = about_us.other_life.clone() {
            return Some(Forgetful { origin, knows, theirs, ours: Seq(0) });
        }
        let (knows, theirs) = about_us.known.iter().max_by_key(|(_, seq)| **seq)?;
        let (origin, knows, theirs) = (own.clone(), knows.clone(), *theirs);
        (theirs > ours).then_some(Forgetful { origin, knows, theirs, ours })
    }

    /// This node's own clock was looked at.
    pub(super) fn trust_clock(&self, judged: Judged) {
        self.about_us.lock().judged = Some(judged);
    }

    /// What this node thinks of its own clock, as it shows `now`.
    pub(super) fn clock_trust(&self, now: Reading) -> ClockTrust {
        let judged = self.about_us.lock().judged;
        judged.map_or(ClockTrust::Unproven, |judged| judged.trust_at(now))
    }

    /// What is wrong with this node's clock, or nothing any more.
    pub(super) fn set_trouble(&self, trouble: Option<String>) {
        self.about_us.lock().trouble = trouble;
    }

    /// What this region's log has forgotten.
    pub(super) fn set_forgetful(&self, forgetful: Option<String>) {
        self.about_us.lock().forgetful = forgetful;
    }

    /// Begins a leadership with an empty importer, or ends it.
    pub(super) fn set(&self, importer: Option<Importer>) {
        *self.importer.lock() = importer;
        self.taken.send_modify(|count| *count += 1);
    }

    pub(super) fn take(
        &self,
        unix_ms: u64,
        frontier: &Context,
        bytes_max: usize,
        statements: bool,
    ) -> Batch {
        let batch = match &mut *self.importer.lock() {
            Some(importer) => importer.take(unix_ms, frontier, bytes_max, statements),
            None => Batch::default(),
        };
        if !batch.groups.is_empty() {
            self.taken.send_modify(|count| *count += 1);
        }
        batch
    }

    /// Whether something that others sent is not in the log yet.
    pub(super) fn waits(&self) -> bool {
        self.importer.lock().as_ref().is_some_and(|importer| importer.bytes() > 0)
    }

    pub(super) fn held(&self) -> Vec<(Origin, String)> {
        let importer = self.importer.lock();
        if importer.is_none() {
            return Vec::new();
        }
        let held = importer.iter().flat_map(Importer::held);
        let held: BTreeMap<_, _> =
            held.map(|(origin, held)| (origin.clone(), told(held))).collect();
        drop(importer);
        let reborn = self.about_us.lock().reborn.values().cloned().collect::<Vec<_>>();
        let not_member = |origin: Origin| (origin.clone(), told(&Held::NotMember { origin }));
        reborn.into_iter().map(not_member).chain(held).collect()
    }

    /// What is wrong with this region itself, if it leads and knows.
    pub(super) fn trouble(&self) -> Option<String> {
        let about_us = self.about_us.lock();
        about_us.forgetful.clone().or_else(|| about_us.trouble.clone())
    }

    pub(super) fn heard(&self, state: &ShardState) -> Vec<Digest> {
        let logged: Vec<Digest> = state.region(|region| region.peers().cloned().collect());
        match &*self.importer.lock() {
            Some(importer) => {
                let mut heard: Vec<Digest> = importer.heard().cloned().collect();
                let named = |digest: &Digest| heard.iter().any(|h| h.origin == digest.origin);
                let rest: Vec<Digest> = logged.into_iter().filter(|d| !named(d)).collect();
                heard.extend(rest);
                heard
            }
            None => logged,
        }
    }

    /// Number of regions known to hold `origin`'s events up to `seq`.
    ///
    /// The region before the importer, as everywhere: the other way round, this and an offer would
    /// wait for each other as soon as an apply waits between them.
    pub(super) fn holders(&self, state: &ShardState, origin: &Origin, seq: Seq) -> usize {
        state.region(|region| match &*self.importer.lock() {
            Some(importer) => importer.holders(region, origin, seq),
            None => Importer::new(Duration::MAX).holders(region, origin, seq),
        })
    }

    pub(super) fn heard_moved(&self) -> watch::Receiver<u64> {
        self.heard.subscribe()
    }
}

#[cfg(test)]
impl Inlet {
    /// As if `region` had said what it holds, and answered what time it is there.
    pub(super) fn hear_for_test(
        &self,
        region: &RegionName,
        answer: ClockAnswer,
        monotonic: Duration,
    ) {
        let mut about_us = self.about_us.lock();
        about_us.spoken.insert(region.clone());
        about_us.times.hear(region, answer, monotonic);
    }
}

/// Why something is held back, and where it says what to do.
fn told(held: &Held) -> String {
    let runbook = match held {
        Held::Clock { .. } => "clock",
        Held::Fork { .. } | Held::Forgetful { .. } | Held::NotMember { .. } => "region-set-back",
    };
    format!("{held} (docs/runbooks/{runbook}.md)")
}

/// The inlet as gossip sees it, for one leadership.
pub(super) struct InletSink {
    inlet: Arc<Inlet>,
    state: Arc<ShardState>,
    clock: Arc<dyn Clock>,
    /// Why origins were held when that was last said.
    said: Mutex<BTreeMap<Origin, String>>,
}

impl InletSink {
    pub(super) fn new(inlet: Arc<Inlet>, state: Arc<ShardState>, clock: Arc<dyn Clock>) -> Self {
        Self { inlet, state, clock, said: Mutex::default() }
    }

    /// Takes note of what a region holds of this one's own events.
    fn hear_about_us(&self, via: &RegionName, own: Option<&Origin>, digest: &Digest) {
        let mut about_us = self.inlet.about_us.lock();
        let region = &digest.origin.region;
        if let Some(own) = own
            && own.region != *region
        {
            let known = about_us.known.entry(region.clone()).or_default();
            *known = (*known).max(digest.frontier.seq(own));
            let of_us = |(origin, seq): &(&Origin, Seq)| {
                origin.region == own.region && *origin != own && *seq > Seq(0)
            };
            if let Some((origin, seq)) = digest.frontier.iter().find(of_us) {
                about_us.other_life = Some((region.clone(), origin.clone(), seq));
            }
        }
        if region == via && !about_us.spoken.contains(via) {
            about_us.spoken.insert(via.clone());
        }
    }

    /// Takes note of a region that speaks under another life than the one that is known here.
    fn hear_whose_life(&self, via: &RegionName, known: &Region, origin: &Origin) {
        let is_member = known.members().contains(via);
        let is_own = known.origin().is_some_and(|own| own.region == *via);
        if origin.region != *via || !is_member || is_own {
            return;
        }
        let reborn = &mut self.inlet.about_us.lock().reborn;
        if known.admits(origin) {
            reborn.remove(via);
        } else if reborn.insert(via.clone(), origin.clone()).as_ref() != Some(origin) {
            let reason = told(&Held::NotMember { origin: origin.clone() });
            tracing::error!(%origin, reason, "nothing is taken from a region");
        }
    }

    fn offer_one(&self, group: Group) -> Result<(), OfferError> {
        let origin = group.origin().clone();
        let offered = self.state.region(|region| {
            let mut importer = self.inlet.importer.lock();
            importer.as_mut().map(|importer| importer.offer(region, group))
        });
        match offered {
            None => Err(OfferError::NotLeader),
            Some(Offered::Queued | Offered::Repeated) => Ok(()),
            Some(Offered::Gap { from }) => {
                Err(OfferError::Held { origin, reason: format!("pulled past {from}") })
            }
            Some(Offered::Held(held)) => {
                let reason = told(&held);
                // It is asked for again and again; said once.
                let before = self.said.lock().insert(origin.clone(), reason.clone());
                if before.as_ref() != Some(&reason) {
                    tracing::error!(%origin, reason, "held back what another region sent");
                }
                Err(OfferError::Held { origin, reason })
            }
        }
    }

    /// Waits until `origin`'s queue has room. False if this node no longer leads.
    async fn room(&self, origin: &Origin) -> bool {
        let mut taken = self.inlet.taken.subscribe();
        loop {
            taken.borrow_and_update();
            match &*self.inlet.importer.lock() {
                None => return false,
                Some(importer) if importer.bytes_of(origin) < QUEUE_BYTES => return true,
                Some(_) => {}
            }
            if taken.changed().await.is_err() {
                return false;
            }
        }
    }
}

impl Sink for InletSink {
    fn next_wanted(&self, origin: &Origin) -> Seq {
        self.state.region(|region| match &*self.inlet.importer.lock() {
            Some(importer) => importer.next_wanted(region, origin),
            None => region.head(origin).seq.next(),
        })
    }

    fn offer(
        &self,
        _via: &RegionName,
        groups: Vec<Group>,
    ) -> BoxFuture<'_, Result<(), OfferError>> {
        Box::pin(async move {
            for group in groups {
                if !self.room(group.origin()).await {
                    return Err(OfferError::NotLeader);
                }
                self.offer_one(group)?;
                self.inlet.offered.notify_one();
            }
            Ok(())
        })
    }

    fn offer_digest(&self, via: &RegionName, digest: Digest) {
        self.state.region(|region| {
            self.hear_about_us(via, region.origin(), &digest);
            self.hear_whose_life(via, region, &digest.origin);
            if let Some(importer) = &mut *self.inlet.importer.lock() {
                importer.offer_digest(region, digest);
            }
        });
        self.inlet.heard.send_modify(|count| *count += 1);
        self.inlet.offered.notify_one();
    }

    fn hear_clock(&self, via: &RegionName, answer: ClockAnswer) {
        let monotonic = self.clock.monotonic();
        self.inlet.about_us.lock().times.hear(via, answer, monotonic);
        self.inlet.offered.notify_one();
    }
}

#[cfg(test)]
mod tests;
