//! How the links are doing: what the tasks of a shard know together, and what status pages show.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anabranch_core::{Context, Digest, NodeId, Origin, RegionName, Seq};
use tokio::sync::Notify;

use super::now;
use crate::config::GossipConfig;
use crate::frame::{Hello, Report};
use crate::plan::{Assignment, Plan};

/// How a region's own origin reaches this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkState {
    /// This node does not lead the shard, so it pulls nothing.
    Idle,
    /// Pulled from the region itself.
    Direct,
    /// Pulled from a neighbour.
    Relayed {
        /// Which.
        via: RegionName,
    },
    /// Not pulled at all.
    Down {
        /// Since when.
        since: Instant,
        /// Why the last attempt failed; empty before the first one did.
        last_error: String,
    },
}

/// How one peer region is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkStatus {
    /// Which region.
    pub region: RegionName,
    /// How its own origin reaches this node.
    pub state: LinkState,
    /// Whether there is a session with it.
    pub connected: bool,
    /// The node of it that the session is with.
    pub node: Option<NodeId>,
    /// Where that node is.
    pub address: Option<SocketAddr>,
    /// What the region last said it holds.
    pub holds: Context,
    /// Its newest digest, heard directly or from a neighbour.
    pub digest: Option<Digest>,
    /// Round trip.
    pub rtt: Option<Duration>,
    /// How far its wall clock is ahead of this node's, in milliseconds, as estimated.
    pub clock_offset_ms: Option<i64>,
    /// Bytes of UDP payload received from it on sessions that this node opened.
    pub bytes_in: u64,
    /// Groups received from it and taken.
    pub groups_in: u64,
    /// Blocks received from it.
    pub blocks_in: u64,
    /// Sessions opened.
    pub sessions: u64,
}

#[derive(Debug, Default)]
struct Info {
    connected: bool,
    changed_at: Option<Instant>,
    last_error: String,
    node: Option<NodeId>,
    address: Option<SocketAddr>,
    digest: Option<Digest>,
    rtt: Option<Duration>,
    clock_offset_ms: Option<i64>,
    bytes_before: u64,
    bytes_session: u64,
    groups_in: u64,
    blocks_in: u64,
    sessions: u64,
}

#[derive(Debug)]
struct State {
    pulling: bool,
    plan: Plan,
    assignment: Assignment,
    infos: BTreeMap<RegionName, Info>,
}

/// What a session measured.
pub(super) struct Measured {
    pub(super) rtt: Duration,
    pub(super) bytes: u64,
    pub(super) local_unix_ms: u64,
}

/// What the links of one shard know together. Locked briefly, never across an await.
#[derive(Debug)]
pub(super) struct Board {
    state: Mutex<State>,
    peers: Vec<RegionName>,
    relay_after: Duration,
    hold: Duration,
    /// Something happened that may change the assignment.
    pub(super) stirred: Notify,
}

impl Board {
    pub(super) fn new(config: &GossipConfig) -> Self {
        let peers: Vec<_> = config.peers.iter().map(|peer| peer.region.clone()).collect();
        let (relay_after, hold) = (config.tuning.relay_after, config.tuning.hold);
        let state = State {
            pulling: false,
            plan: Plan::new(now(), peers.clone(), relay_after, hold),
            assignment: Assignment::new(),
            infos: peers.iter().map(|peer| (peer.clone(), Info::default())).collect(),
        };
        Self { state: Mutex::new(state), peers, relay_after, hold, stirred: Notify::new() }
    }

    /// Pulling starts or stops: all links are down. Counters and what was heard last are kept.
    pub(super) fn reset(&self, pulling: bool) {
        let mut state = self.lock();
        state.pulling = pulling;
        state.plan = Plan::new(now(), self.peers.clone(), self.relay_after, self.hold);
        state.assignment.clear();
        for info in state.infos.values_mut() {
            info.end(String::new());
        }
    }

    pub(super) fn assign(&self, own: Option<Origin>, next: impl Fn(&Origin) -> Seq) -> Assignment {
        let mut state = self.lock();
        state.plan.own(own);
        state.assignment = state.plan.assign(now(), next);
        state.assignment.clone()
    }

    pub(super) fn up(&self, region: &RegionName, hello: &Hello, address: SocketAddr) {
        self.with(region, |plan, info| {
            plan.up(now(), region, hello.origin.clone());
            info.connected = true;
            info.changed_at = Some(now());
            info.node = Some(hello.node);
            info.address = Some(address);
            info.sessions += 1;
        });
        self.stirred.notify_one();
    }

    pub(super) fn down(&self, region: &RegionName, error: String) {
        self.with(region, |plan, info| {
            plan.down(now(), region);
            info.end(error);
        });
        self.stirred.notify_one();
    }

    pub(super) fn report(&self, via: &RegionName, report: &Report, measured: &Measured) {
        let mut state = self.lock();
        for digest in &report.digests {
            state.plan.digest(now(), via, digest);
            if let Some(info) = state.infos.get_mut(&digest.origin.region) {
                info.hear(digest);
            }
        }
        if let Some(info) = state.infos.get_mut(via) {
            info.measure(report.clock_unix_ms, measured);
        }
        drop(state);
        self.stirred.notify_one();
    }

    pub(super) fn arrived(&self, via: &RegionName, origin: &Origin, groups: u64) {
        self.with(via, |plan, info| {
            plan.arrived(now(), origin);
            info.groups_in += groups;
        });
    }

    pub(super) fn held(&self, origin: &Origin) {
        self.lock().plan.held(now(), origin);
        self.stirred.notify_one();
    }

    pub(super) fn block_arrived(&self, via: &RegionName) {
        self.with(via, |_, info| info.blocks_in += 1);
    }

    pub(super) fn statuses(&self) -> Vec<LinkStatus> {
        let state = self.lock();
        state.infos.iter().map(|(region, info)| state.status(region, info)).collect()
    }

    fn with(&self, region: &RegionName, change: impl FnOnce(&mut Plan, &mut Info)) {
        let state = &mut *self.lock();
        if let Some(info) = state.infos.get_mut(region) {
            change(&mut state.plan, info);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("a panic under this lock is our own bug and ends the process")
    }
}

impl State {
    fn status(&self, region: &RegionName, info: &Info) -> LinkStatus {
        let holds = self.plan.holds(region).map(|(holds, _)| holds.clone()).unwrap_or_default();
        LinkStatus {
            region: region.clone(),
            state: self.link_state(region, info),
            connected: info.connected,
            node: info.node,
            address: info.address,
            holds,
            digest: info.digest.clone(),
            rtt: info.rtt,
            clock_offset_ms: info.clock_offset_ms,
            bytes_in: info.bytes_before + info.bytes_session,
            groups_in: info.groups_in,
            blocks_in: info.blocks_in,
            sessions: info.sessions,
        }
    }

    fn link_state(&self, region: &RegionName, info: &Info) -> LinkState {
        if !self.pulling {
            return LinkState::Idle;
        }
        let own = self.assignment.iter().filter(|(origin, _)| origin.region == *region);
        let relay = own.map(|(_, via)| via).find(|via| *via != region);
        match (relay, info.connected) {
            (Some(via), _) => LinkState::Relayed { via: via.clone() },
            (None, true) => LinkState::Direct,
            (None, false) => LinkState::Down {
                since: info.changed_at.unwrap_or_else(now),
                last_error: info.last_error.clone(),
            },
        }
    }
}

impl Info {
    fn end(&mut self, error: String) {
        if self.connected || self.changed_at.is_none() {
            self.changed_at = Some(now());
        }
        self.connected = false;
        self.last_error = error;
        self.bytes_before += std::mem::take(&mut self.bytes_session);
        (self.node, self.rtt, self.clock_offset_ms) = (None, None, None);
    }

    fn hear(&mut self, digest: &Digest) {
        if self.digest.as_ref().is_none_or(|known| known.stamp <= digest.stamp) {
            self.digest = Some(digest.clone());
        }
    }

    /// The offset is smoothed, because a round trip is seldom the same both ways.
    fn measure(&mut self, remote_unix_ms: u64, measured: &Measured) {
        self.rtt = Some(measured.rtt);
        self.bytes_session = measured.bytes;
        let one_way = (measured.rtt / 2).as_millis() as i64;
        let raw = remote_unix_ms as i64 + one_way - measured.local_unix_ms as i64;
        self.clock_offset_ms = Some(match self.clock_offset_ms {
            Some(before) => before + (raw - before) / 4,
            None => raw,
        });
    }
}
