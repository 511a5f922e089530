//! The nodes of a small region, with their interface.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anabranch_core::{NodeId, RegionName, ShardId};
use anabranch_gossip::Gossip;
use anabranch_log::LogOptions;
use anabranch_log::derived::FileCheckpoints;
use anabranch_log::derived::states::MemoryStates;
use anabranch_log::disk::MemoryDisk;
use anabranch_proto::v1::events_client::EventsClient;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tonic::transport::Channel;

use crate::api::{Api, ApiParts, ApiSettings, serve};
use crate::env::{CHECKPOINTS, Listener, Net, OsSeeds, RealStorage, SystemClock, TokioNet};
use crate::raft::{self, Identity, Node, RaftService, Timings};
use crate::shard::{Shard, ShardConfig, ShardParts};

/// How long a test waits for something that should happen soon, on a busy machine.
pub(super) const SOON: Duration = Duration::from_secs(30);

pub(super) const SHARD: ShardId = ShardId(0);

/// Nodes of one region over loopback, with their API.
pub(super) struct Cluster {
    pub(super) addresses: Vec<String>,
    pub(super) shards: Vec<Shard>,
    pub(super) apis: Vec<Api>,
    /// Where each node learns of its gossip, if a test gives it one.
    pub(super) gossip: Vec<watch::Sender<Option<Gossip>>>,
    tasks: JoinSet<()>,
}

/// A node's listeners: Raft's and the interface's.
type Listeners = (Box<dyn Listener>, Box<dyn Listener>);

impl Cluster {
    /// A region without others.
    pub(super) async fn start(nodes: u64) -> Self {
        Self::start_with(nodes, ApiSettings::default()).await
    }

    pub(super) async fn start_with(nodes: u64, settings: ApiSettings) -> Self {
        Self::start_region("eu", &["eu"], nodes, settings).await
    }

    /// Region `name` of several.
    pub(super) async fn start_region(
        name: &str,
        regions: &[&str],
        nodes: u64,
        settings: ApiSettings,
    ) -> Self {
        let mut members = BTreeMap::new();
        let mut listeners = Vec::new();
        for node in 1..=nodes {
            let raft = TokioNet.listen("127.0.0.1:0").await.unwrap();
            let api = TokioNet.listen("127.0.0.1:0").await.unwrap();
            let raft_address = raft.local_addr().unwrap().to_string();
            let api_address = api.local_addr().unwrap().to_string();
            members.insert(node, Node { raft_address, api_address });
            listeners.push((raft, api));
        }
        let mut cluster = Self {
            addresses: members.values().map(|node| node.api_address.clone()).collect(),
            shards: Vec::new(),
            apis: Vec::new(),
            gossip: Vec::new(),
            tasks: JoinSet::new(),
        };
        let regions: Vec<_> = regions.iter().map(|name| RegionName::new(name).unwrap()).collect();
        for (node, listeners) in (1..).zip(listeners) {
            let identity = Identity::new(RegionName::new(name).unwrap(), NodeId(node));
            cluster.open(identity, regions.clone(), listeners, settings.clone()).await;
        }
        cluster.shards[0].raft().initialize(members).await.unwrap();
        let born = |shard: &Shard| shard.state().region(|region| region.origin().is_some());
        let until = Instant::now() + SOON;
        while !cluster.shards.iter().all(born) {
            assert!(Instant::now() < until, "the log is born");
            sleep(Duration::from_millis(20)).await;
        }
        cluster
    }

    async fn open(
        &mut self,
        identity: Identity,
        members: Vec<RegionName>,
        (raft, api): Listeners,
        settings: ApiSettings,
    ) {
        let (net, clock): (Arc<dyn Net>, _) = (Arc::new(TokioNet), Arc::new(SystemClock::new()));
        let identity = Arc::new(identity);
        let (publish, gossip) = watch::channel(None);
        let config = ShardConfig {
            shard: SHARD,
            dir: PathBuf::from("shard-0"),
            members,
            timings: Timings::default(),
            drift_max: Duration::from_secs(10),
            log: LogOptions::new([7; 16]),
        };
        let disk = Arc::new(MemoryDisk::new(identity.node().0));
        let states = Arc::new(MemoryStates::new());
        let parts = ShardParts {
            identity: Arc::clone(&identity),
            disk: disk.clone(),
            checkpoints: Arc::new(FileCheckpoints::new(disk, CHECKPOINTS, states)),
            storage: Arc::new(RealStorage),
            net: Arc::clone(&net),
            tls: None,
            clock: clock.clone(),
            seeds: Arc::new(OsSeeds),
            gossip: gossip.clone(),
        };
        let shard = Shard::open(config, parts).await.unwrap();
        let service = RaftService::new(Arc::clone(&identity));
        service.mount(shard.raft());
        self.tasks.spawn(async move {
            raft::serve(raft, service, None, std::future::pending()).await.unwrap();
        });
        let shards = BTreeMap::from([(SHARD, shard.clone())]);
        let parts = ApiParts { identity, shards, gossip, net, clock, tls: None, settings };
        let served = Api::new(parts);
        self.apis.push(served.clone());
        self.tasks.spawn(async move { serve(api, served, std::future::pending()).await.unwrap() });
        self.shards.push(shard);
        self.gossip.push(publish);
    }

    pub(super) fn leads(&self, node: usize) -> bool {
        self.shards[node].raft().leadership().borrow().mine
    }
    /// The node that leads.
    pub(super) fn leader(&self) -> usize {
        (0..self.shards.len()).find(|node| self.leads(*node)).expect("one leads")
    }
    pub(super) async fn channel(&self, node: usize) -> Channel {
        let address = format!("http://{}", self.addresses[node]);
        Channel::from_shared(address).unwrap().connect().await.unwrap()
    }
    pub(super) async fn events(&self, node: usize) -> EventsClient<Channel> {
        EventsClient::new(self.channel(node).await)
    }
}
