//! How a shard and its regions are doing, as this node sees it.

use std::collections::BTreeMap;

use anabranch_core::order::Mark;
use anabranch_core::region::{BUCKETS, Region};
use anabranch_core::{Digest, Origin, ReadOrder, RegionName, Seq};
use anabranch_gossip::{LinkState, LinkStatus};
use anabranch_log::Room;
use anabranch_proto::convert::{incarnation_bytes, invalid};
use anabranch_proto::v1;
use bytes::Bytes;
use tonic::Status;

use super::Api;
use crate::raft::{GroupStatus, Node};
use crate::shard::{Shard, ShardState};

/// Marks of the global order in a fingerprint.
const MARKS_MAX: usize = 64;

impl Api {
    pub(super) fn status_of(&self, shard: &Shard) -> v1::StatusResponse {
        let (group, state) = (shard.raft().status(), shard.state());
        let order = state.order();
        let leader = group.leader.unwrap_or_default();
        let address = group.voters.get(&leader).map(|node| node.api_address.clone());
        let mut status = v1::StatusResponse {
            region: self.inner.identity.region().to_string(),
            node: self.inner.identity.node().0,
            shard: shard.id().0.into(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            leader,
            leader_address: address.unwrap_or_default(),
            term: group.term,
            last_index: group.last_index,
            applied_index: group.applied,
            global_position: order.position,
            nodes: nodes(&group),
            regions: self.regions(shard),
            log_bytes: shard.log_bytes(),
            log_syncs: shard.log_syncs(),
            ..Default::default()
        };
        for count in shard.conflicts().overview(ReadOrder::Regional).counts.values() {
            status.conflicts += count.conflicts;
            status.concurrent_pairs = status.concurrent_pairs.saturating_add(count.pairs);
        }
        state.region(|region| {
            let origin = region.origin();
            let incarnation = origin.map(|origin| incarnation_bytes(origin.incarnation));
            status.incarnation = incarnation.unwrap_or_default();
            status.position = region.position();
            status.stamp = region.last_stamp().0;
            status.frontier = Some(region.frontier().into());
            status.streams = region.stream_count();
        });
        // Once all is final the order waits for nobody, whoever's watermark happens to be least.
        if status.global_position < status.position {
            let blocked_by = state.finality().blocked_by.iter().map(ToString::to_string).collect();
            status.blocked_by = blocked_by;
        }
        status
    }

    fn regions(&self, shard: &Shard) -> Vec<v1::RegionStatus> {
        let heard = shard.heard();
        let links = self.inner.gossip.borrow().as_ref().map(|gossip| gossip.links(shard.id()));
        let links = links.unwrap_or_default();
        let held: BTreeMap<Origin, String> = shard.held().into_iter().collect();
        let mut statuses = shard.state().region(|region| regions(region, &heard, &links, &held));
        let own = self.inner.identity.region().as_str();
        if let Some(problem) = self.own_problem(shard)
            && let Some(status) = statuses.iter_mut().find(|status| status.region == own)
        {
            (status.held, status.problem) = problem;
        }
        for status in &mut statuses {
            status.lag_ms = self.lag_ms(shard.state(), &heard, &status.region);
            let carried = self.inner.carried.of(&status.region);
            (status.carried_to, status.carried_failed) = (carried.to, carried.failed);
            status.carried_from = carried.from;
        }
        statuses
    }

    /// What is wrong with this region or this node, and whether the region writes nothing for it.
    fn own_problem(&self, shard: &Shard) -> Option<(bool, String)> {
        if let Some(trouble) = shard.trouble() {
            return Some((true, trouble));
        }
        let leads = shard.raft().leadership().borrow().mine;
        let node = self.inner.identity.node();
        (shard.room() != Room::Ok).then(|| {
            let problem = format!(
                "the disk of node {node} is full: while it leads, appends are refused \
                 (docs/runbooks/disk-full.md)"
            );
            (leads, problem)
        })
    }

    /// Age of the oldest event of ours that `region` is not known to hold.
    fn lag_ms(&self, state: &ShardState, heard: &[Digest], region: &str) -> u64 {
        let Some(own) = state.region(|region| region.origin().cloned()) else { return 0 };
        if own.region.as_str() == region {
            return 0;
        }
        let of_region = heard.iter().filter(|digest| digest.origin.region.as_str() == region);
        let seen = of_region.map(|digest| digest.frontier.seq(&own)).max().unwrap_or_default();
        // An index that cannot be read here is noticed, and repaired, by those who read events.
        let group = state.store().index().groups_of(&own, seen.next(), 1).unwrap_or_default();
        let age = |stamp: anabranch_core::Stamp| {
            self.inner.clock.unix_ms().saturating_sub(stamp.unix_ms())
        };
        group.first().map_or(0, |place| age(place.stamp))
    }

    pub(super) fn fingerprint_of(
        &self,
        shard: &Shard,
        buckets: &[u32],
    ) -> Result<v1::FingerprintResponse, Status> {
        let asked = buckets.iter().map(|bucket| match usize::try_from(*bucket) {
            Ok(bucket) if bucket < BUCKETS => Ok(bucket),
            _ => {
                let (limit, actual) = (BUCKETS as u64 - 1, u64::from(*bucket));
                let problem = format!("is {actual}, the last bucket is {limit}");
                Err(invalid("buckets", &problem, limit, actual))
            }
        });
        // Sorted and each once: a bucket costs a pass over all streams.
        let asked: std::collections::BTreeSet<usize> = asked.collect::<Result<_, _>>()?;
        let state = shard.state();
        let order = state.order();
        let mut made = v1::FingerprintResponse {
            region: self.inner.identity.region().to_string(),
            global_position: order.position,
            global_chain: chain_bytes(order.chain.0),
            marks: marks(state),
            ..Default::default()
        };
        state.region(|region| {
            made.frontier = Some(region.frontier().into());
            made.streams = region.stream_count();
            made.events = region.position();
            made.buckets =
                region.buckets().iter().map(|sum| chain_bytes(sum.0.to_be_bytes())).collect();
            made.named = asked.iter().flat_map(|bucket| named(region, *bucket)).collect();
            made.chains = chains(region);
        });
        Ok(made)
    }
}

fn chain_bytes(bytes: [u8; 16]) -> Bytes {
    Bytes::copy_from_slice(&bytes)
}

fn named(region: &Region, bucket: usize) -> Vec<v1::StreamFingerprint> {
    let of_stream = |(stream, head): (&str, anabranch_core::region::Head)| v1::StreamFingerprint {
        stream: stream.to_owned(),
        events: head.next_revision,
        hash: chain_bytes(head.fingerprint.0.to_be_bytes()),
    };
    region.streams_of_bucket(bucket).into_iter().map(of_stream).collect()
}

fn chains(region: &Region) -> Vec<v1::ChainAt> {
    let chain_at = |(origin, head): (&Origin, &anabranch_core::region::OriginHead)| v1::ChainAt {
        origin: Some(origin.into()),
        seq: head.seq.0,
        chain: chain_bytes(head.chain.0),
    };
    region.heads().map(chain_at).collect()
}

/// The newest marks of the global order, newest first.
fn marks(state: &ShardState) -> Vec<v1::GlobalMark> {
    let before = |mark: &Mark| state.seek_global(mark.position.checked_sub(1)?);
    let newest_first = std::iter::successors(state.seek_global(u64::MAX), before);
    let wire =
        |mark: Mark| v1::GlobalMark { position: mark.position, chain: chain_bytes(mark.chain.0) };
    newest_first.take(MARKS_MAX).map(wire).collect()
}

fn nodes(group: &GroupStatus) -> Vec<v1::NodeStatus> {
    let node = |voter: bool| {
        move |(id, node): (&u64, &Node)| {
            let follower = group.followers.get(id);
            v1::NodeStatus {
                node: *id,
                address: node.api_address.clone(),
                voter,
                matched_index: follower.map(|follower| follower.matched),
                lag_entries: follower.map(|follower| follower.lag),
            }
        }
    };
    group.voters.iter().map(node(true)).chain(group.learners.iter().map(node(false))).collect()
}

fn regions(
    region: &Region,
    heard: &[Digest],
    links: &[LinkStatus],
    held: &BTreeMap<Origin, String>,
) -> Vec<v1::RegionStatus> {
    let own = region.origin().map(|origin| &origin.region);
    let status = |member: &RegionName| {
        let link = links.iter().find(|link| link.region == *member);
        let mut status = match own == Some(member) {
            true => own_status(region),
            false => peer_status(region, heard, member),
        };
        let problem = held.iter().find(|(origin, _)| origin.region == *member);
        status.held = problem.is_some();
        status.link = link_name(own == Some(member), link).to_owned();
        status.problem = match (problem, link.map(|link| &link.state)) {
            (Some((_, problem)), _) => problem.clone(),
            (None, Some(LinkState::Down { last_error, .. })) => last_error.clone(),
            _ => String::new(),
        };
        status.region = member.to_string();
        status.watermark = region.watermark_of(member).0;
        status
    };
    region.members().iter().map(status).collect()
}

fn own_status(region: &Region) -> v1::RegionStatus {
    let Some(origin) = region.origin() else { return v1::RegionStatus::default() };
    let seq = region.head(origin).seq.0;
    v1::RegionStatus {
        incarnation: incarnation_bytes(origin.incarnation),
        seq,
        known_seq: seq,
        receipt_events: region.frontier().events(),
        ..Default::default()
    }
}

fn peer_status(region: &Region, heard: &[Digest], member: &RegionName) -> v1::RegionStatus {
    let Some(digest) = heard.iter().find(|digest| digest.origin.region == *member) else {
        return v1::RegionStatus::default();
    };
    let seq = region.head(&digest.origin).seq;
    let said = heard.iter().map(|other| other.frontier.seq(&digest.origin));
    let known: Seq = said.fold(seq, Seq::max);
    v1::RegionStatus {
        incarnation: incarnation_bytes(digest.origin.incarnation),
        seq: seq.0,
        known_seq: known.0,
        receipt_events: digest.frontier.events(),
        ..Default::default()
    }
}

fn link_name(own: bool, link: Option<&LinkStatus>) -> &'static str {
    match link.map(|link| &link.state) {
        _ if own => "own",
        Some(LinkState::Direct) => "direct",
        Some(LinkState::Relayed { .. }) => "relayed",
        Some(LinkState::Idle) => "idle",
        Some(LinkState::Down { .. }) | None => "down",
    }
}
