//! Appends that are carried to another region: three regions over real QUIC, one of two nodes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anabranch_core::class::Home;
use anabranch_core::event::ProducerTag;
use anabranch_core::{Context, NodeId, ProducerId, RegionName, SessionToken};
use anabranch_gossip::{
    Cut, DevCa, Environment, Gossip, GossipConfig, LinkRules, PeerRegion, Served, ShapedUdp,
    SystemResolver, Tuning,
};
use anabranch_proto::carried::CarriedAppend;
use anabranch_proto::v1::refusal::Reason;
use anabranch_proto::v1::{self, expectation};
use bytes::Bytes;
use tokio::time::{Instant, sleep};
use tonic::metadata::MetadataMap;
use tonic::{Code, Response, Status};

use super::cluster::{Cluster, SHARD, SOON};
use super::{append_of, event, expect, reason};
use crate::api::ApiSettings;
use crate::api::carry::{Away, HOPS_MAX};
use crate::api::forward::{hops, set_hops};

pub(super) const NAMES: [&str; 3] = ["asia", "eu", "us"];
pub(super) const ASIA: usize = 0;
pub(super) const EU: usize = 1;
pub(super) const US: usize = 2;

pub(super) fn region(name: &str) -> RegionName {
    RegionName::new(name).unwrap()
}

/// A node's socket, before there is gossip on it.
struct Socket {
    rules: LinkRules,
    socket: ShapedUdp,
    address: SocketAddr,
}

impl Socket {
    fn bind() -> Self {
        let rules = LinkRules::new();
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let socket = ShapedUdp::bind(anywhere, rules.clone()).unwrap();
        let address = quinn::AsyncUdpSocket::local_addr(&socket).unwrap();
        Self { rules, socket, address }
    }
}

/// `us` has two nodes, and the others know only the one of them that does not lead.
pub(super) struct World {
    pub(super) regions: Vec<Cluster>,
    /// Of each region's node that others know.
    addresses: Vec<SocketAddr>,
    rules: Vec<LinkRules>,
    /// The node of `us` that others know.
    follower: usize,
}

impl World {
    pub(super) async fn start() -> Self {
        let mut regions = Vec::new();
        for name in NAMES {
            let nodes = if name == "us" { 2 } else { 1 };
            let settings = ApiSettings::default();
            regions.push(Cluster::start_region(name, &NAMES, nodes, settings).await);
        }
        let ca = DevCa::generate().unwrap();
        let follower = 1 - regions[US].leader();
        let sockets: Vec<_> = NAMES.iter().map(|_| Socket::bind()).collect();
        let addresses: Vec<_> = sockets.iter().map(|socket| socket.address).collect();
        let rules = sockets.iter().map(|socket| socket.rules.clone()).collect();
        let world = Self { regions, addresses, rules, follower };
        for (nth, socket) in sockets.into_iter().enumerate() {
            let known = if nth == US { follower } else { 0 };
            world.gossip(&ca, nth, known, socket);
        }
        // The leader of us speaks to others, too, but nobody to it.
        world.gossip(&ca, US, 1 - follower, Socket::bind());
        let until = Instant::now() + SOON;
        while !world.is_connected(EU) {
            assert!(Instant::now() < until, "eu has sessions");
            sleep(Duration::from_millis(20)).await;
        }
        world
    }

    fn gossip(&self, ca: &DevCa, nth: usize, node: usize, socket: Socket) {
        let (cluster, name) = (&self.regions[nth], region(NAMES[nth]));
        let others = (0..NAMES.len()).filter(|other| *other != nth);
        let peers = others.map(|other| PeerRegion {
            region: region(NAMES[other]),
            addresses: vec![self.addresses[other].to_string()],
        });
        let seed = [(10 * nth + node) as u8; 32];
        let config = GossipConfig {
            cluster: "test".into(),
            region: name.clone(),
            node: NodeId(node as u64 + 1),
            peers: peers.collect(),
            seed,
            reset_key: seed,
            tuning: Tuning::DEFAULT,
        };
        let environment = Environment {
            socket: Arc::new(socket.socket),
            runtime: Arc::new(quinn::TokioRuntime),
            resolver: Arc::new(SystemResolver),
            clock: Arc::new(|| 1_800_000_000_000),
        };
        let tls = ca.identity(&name, &[]).unwrap();
        let source = cluster.shards[node].source();
        let answer = Some(cluster.apis[node].answerer());
        let served = BTreeMap::from([(SHARD, Served { source, answer })]);
        let gossip = Gossip::start(config, &tls, environment, served).unwrap();
        cluster.gossip[node].send_replace(Some(gossip));
    }

    /// Whether the leader of a region has sessions with all others.
    pub(super) fn is_connected(&self, nth: usize) -> bool {
        self.links(nth).iter().all(|connected| *connected)
    }
    /// Whether it has given up all of them.
    pub(super) fn is_alone(&self, nth: usize) -> bool {
        self.links(nth).iter().all(|connected| !connected)
    }
    fn links(&self, nth: usize) -> Vec<bool> {
        let gossip = self.regions[nth].gossip[self.regions[nth].leader()].borrow();
        let links = gossip.as_ref().unwrap().links(SHARD);
        links.iter().map(|link| link.connected).collect()
    }

    /// Cuts the cable between two regions.
    pub(super) fn cut(&self, one: usize, other: usize) {
        self.rules[one].cut(self.addresses[other], Cut::Both);
        self.rules[other].cut(self.addresses[one], Cut::Both);
    }

    /// Mends it.
    pub(super) fn heal(&self, one: usize, other: usize) {
        self.rules[one].heal(self.addresses[other]);
        self.rules[other].heal(self.addresses[one]);
    }

    /// Carries an append from eu to a home, as one that was carried to `hops` regions before.
    async fn carry(
        &self,
        home: &str,
        message: v1::AppendRequest,
        hops: u32,
    ) -> Result<Response<v1::AppendResponse>, Status> {
        let eu = &self.regions[EU];
        let deadline = Instant::now() + SOON;
        let home = Home { region: region(home), epoch: 1 };
        let away = Away { stream: "bed-1".into(), home };
        eu.apis[0].append_in_region(&eu.shards[0], &away, message, hops, deadline).await
    }

    pub(super) fn events(&self, nth: usize) -> u64 {
        self.regions[nth].shards[0].state().region(|region| region.position())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_is_carried_to_its_home_and_what_comes_of_it_back() {
    let world = World::start().await;
    let producer = ProducerTag { id: ProducerId([9; 16]), epoch: 1, sequence: 1 };
    let message = v1::AppendRequest {
        producer: Some(producer.into()),
        expectations: vec![expect(
            "bed-1",
            Some(expectation::Expected::NoStream(expectation::NoStream {})),
        )],
        ..append_of(vec![event("bed-1"), event("bed-2")])
    };
    let appended = world.carry("us", message.clone(), 0).await.unwrap().into_inner();
    let first = appended.first.clone().unwrap();
    assert_eq!((first.origin.unwrap().region, first.seq), ("us".to_owned(), 1));
    assert_eq!((appended.events, appended.repeated), (2, false));
    let revisions: Vec<_> =
        appended.revisions.iter().map(|r| (&*r.stream, r.last_revision)).collect();
    assert_eq!(revisions, [("bed-1", 0), ("bed-2", 0)]);
    assert_eq!(appended.leader, world.regions[EU].addresses[0], "where eu's clients go");
    // Its token means the same here.
    let token = SessionToken::decode(appended.session_token.clone()).unwrap();
    let (eu, deadline) = (&world.regions[EU].shards[0], Instant::now() + SOON);
    eu.await_context(&token.context, deadline).await.expect("it comes back as an event of us");

    let again = world.carry("us", message.clone(), 1).await.unwrap().into_inner();
    assert_eq!(again, v1::AppendResponse { repeated: true, ..appended });
    let stale = v1::AppendRequest { producer: None, ..message };
    let refused = world.carry("us", stale, 0).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    let Reason::Conflicts(conflicts) = reason(&refused) else { panic!("{refused:?}") };
    assert_eq!(conflicts.conflicts[0].actual, Some(0));
    let empty = world.carry("us", append_of(vec![]), 0).await.unwrap_err();
    assert!(matches!(reason(&empty), Reason::Invalid(invalid) if invalid.field == "events"));
    assert_eq!(world.events(US), 2, "and nothing else was written");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_is_carried_to_two_regions_and_not_further() {
    let world = World::start().await;
    let carry = |hops| world.carry("us", append_of(vec![event("bed-1")]), hops);
    assert!(carry(HOPS_MAX - 1).await.is_ok());
    let refused = carry(HOPS_MAX).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    assert!(matches!(reason(&refused), Reason::NotLeader(known) if known.leader.is_empty()));
    assert!(refused.message().contains("the home of the stream moves"), "{refused:?}");
    let (after, request) = (Context::new(), append_of(vec![event("bed-1")]));
    let far = CarriedAppend { hops: HOPS_MAX + 1, after, request }.encode();
    let gossip = world.regions[EU].gossip[0].borrow().clone().unwrap();
    let answer = gossip.ask(&region("us"), SHARD, far, SOON).await.unwrap();
    let refused = anabranch_proto::carried::read_appended(answer).unwrap().unwrap_err();
    assert!(matches!(reason(&refused), Reason::NotLeader(_)), "{refused:?}");
    assert_eq!(world.events(US), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_the_other_regions_fault_and_says_what_is_wrong() {
    let world = World::start().await;
    let gossip = world.regions[EU].gossip[0].borrow().clone().unwrap();
    for garbage in [&b"\xff\xff\xff"[..], b""] {
        let answer = gossip.ask(&region("us"), SHARD, garbage.into(), SOON).await.unwrap();
        let refused = anabranch_proto::carried::read_appended(answer).unwrap().unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
        assert!(matches!(reason(&refused), Reason::Invalid(invalid) if invalid.field == "request"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_home_that_cannot_be_asked_has_not_written_and_one_that_is_lost_may_have() {
    let world = World::start().await;
    let append = || append_of(vec![event("bed-1")]);
    // Us writes it, and waits for asia to hold it, too: so it stays under way.
    world.cut(US, ASIA);
    let all_regions = v1::AppendRequest { regions: 3, ..append() };
    let carrying = world.carry("us", all_regions, 0);
    let cutting = async {
        let until = Instant::now() + SOON;
        while world.events(US) == 0 {
            assert!(Instant::now() < until, "us has it");
            sleep(Duration::from_millis(5)).await;
        }
        world.cut(US, EU);
    };
    let (lost, ()) = tokio::join!(carrying, cutting);
    let lost = lost.unwrap_err();
    assert!(matches!(reason(&lost), Reason::Unknown(_)), "{lost:?}");

    let until = Instant::now() + SOON;
    while world.is_connected(EU) {
        assert!(Instant::now() < until, "the session is given up");
        sleep(Duration::from_millis(20)).await;
    }
    let refused = world.carry("us", append(), 0).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    assert!(matches!(reason(&refused), Reason::HomeUnreachable(of) if of.home == "us"));
    assert!(refused.message().contains("there is no session with region us"), "{refused:?}");
    // Others are not concerned.
    let asia = world.carry("asia", append(), 0).await.unwrap().into_inner();
    assert_eq!(asia.first.unwrap().origin.unwrap().region, "asia");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interface_that_ends_is_not_ready() {
    let world = World::start().await;
    world.regions[US].apis[world.follower].inner.stopping.cancel();
    let refused = world.carry("us", append_of(vec![event("bed-1")]), 0).await.unwrap_err();
    assert!(matches!(reason(&refused), Reason::HomeUnreachable(_)), "{refused:?}");
    assert!(refused.message().contains("it is not ready"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_answers_for_an_interface_does_not_keep_it() {
    let cluster = Cluster::start(1).await;
    let (answerer, eu) = (cluster.apis[0].answerer(), region("us"));
    let asked = || answerer.answer(&eu, SHARD, Bytes::new(), SOON);
    assert!(asked().await.is_ok());
    drop(cluster);
    let until = Instant::now() + SOON;
    while asked().await.is_ok() {
        assert!(Instant::now() < until, "the interface is gone");
        sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn hops_are_counted_in_metadata_and_what_is_no_count_is_too_far() {
    let mut metadata = MetadataMap::new();
    assert_eq!(hops(&metadata), 0);
    set_hops(&mut metadata, 2);
    assert_eq!(hops(&metadata), 2);
    metadata.insert("anabranch-hops", "two".parse().unwrap());
    assert!(hops(&metadata) > HOPS_MAX);
}
