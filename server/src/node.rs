//! A node: one process's part of a region, put together and taken apart.
//!
//! Starting goes from the inside out, so that nobody is let in before what they want is there: data
//! folder, log and applied state, Raft, gossip, API. Draining goes the other way. Everything a node
//! touches of the world comes in through [`Environment`].

mod certificates;
mod drain;
mod error;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anabranch_core::{Incarnation, ShardId};
use anabranch_gossip::{Gossip, GossipConfig, ReadOn, Served, Tuning, WallClock};
use anabranch_log::LogOptions;
use anabranch_log::derived::Opened;
use parking_lot::Mutex;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

pub use certificates::Certificates;
pub use error::StartError;

use crate::api::{self, Api, ApiParts, ApiSettings, ApiTls};
use crate::config::ValidConfig;
use crate::env::{
    Clock, Listener, Net, OsSeeds, RealStorage, Routed, Seeds, Storage, SystemClock, TokioNet,
    blocking,
};
use crate::identity::{DataFolder, FolderError, Owner};
use crate::raft::{self, Identity, RaftService, RaftTls};
use crate::shard::{Shard, ShardConfig, ShardParts};

/// How long a former socket may take to let go of the gossip address, and how often it is looked at.
const LET_GO: Duration = Duration::from_secs(2);
const LET_GO_LOOK: Duration = Duration::from_millis(20);

/// The shards of a node of this version.
const SHARDS: [ShardId; 1] = [ShardId(0)];

/// Opens the socket of gossip, listening at an address.
pub type GossipSocket =
    Arc<dyn Fn(SocketAddr, WallClock) -> io::Result<anabranch_gossip::Environment> + Send + Sync>;

/// The world of a node.
#[derive(Clone)]
pub struct Environment {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Connections between nodes, and from clients.
    pub net: Arc<dyn Net>,
    /// Randomness.
    pub seeds: Arc<dyn Seeds>,
    /// Where log, identity and checkpoints are.
    pub storage: Arc<dyn Storage>,
    /// Packets between regions.
    pub gossip: GossipSocket,
}

impl Environment {
    /// The operating system's.
    pub fn system() -> Self {
        Self {
            clock: Arc::new(SystemClock::new()),
            net: Arc::new(TokioNet),
            seeds: Arc::new(OsSeeds),
            storage: Arc::new(RealStorage),
            gossip: Arc::new(anabranch_gossip::Environment::udp),
        }
    }
}

/// A running node. Clones share it.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

struct Inner {
    config: ValidConfig,
    folder: Arc<DataFolder>,
    shards: BTreeMap<ShardId, Shard>,
    gossip: Gossip,
    service: RaftService,
    failed: watch::Sender<Option<String>>,
    /// Ends what watches over the node.
    ended: CancellationToken,
    api: Serving,
    raft: Serving,
}

/// A listener's task, and how to end it.
struct Serving {
    stop: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Node {
    /// Starts a node. It serves when this returns, as far as it can: a leader may not be elected
    /// yet, and a node of a new region waits for a majority of the first members.
    ///
    /// Call within a tokio runtime.
    /// # Errors
    /// [`StartError`]; nothing runs then, and the data folder is free again.
    pub async fn start(
        config: ValidConfig,
        mut environment: Environment,
    ) -> Result<Self, StartError> {
        environment.net = Routed::over(environment.net, &config.routes);
        let (raft_listener, api_listener) = listen(&config, &*environment.net).await?;
        let folder = open_folder(&config, &environment).await?;
        let certificates = Certificates::read(&config)?;
        certificates.watch_their_end(&config)?;
        let gossip_world = open_gossip(&config, &environment).await?;
        let (publish, gossip_known) = watch::channel(None);
        let identity = Arc::new(Identity::new(config.region.clone(), config.node));
        let known = gossip_known.clone();
        let parts = parts(&config, &environment, &identity, &certificates, known).await?;
        let shards = open_shards(&config, &folder, parts).await?;
        let api = Api::new(ApiParts {
            identity: Arc::clone(&identity),
            shards: shards.clone(),
            gossip: gossip_known,
            net: Arc::clone(&environment.net),
            clock: Arc::clone(&environment.clock),
            tls: config.tls.api.then(|| api_tls(&config, &certificates.raft)),
            settings: api_settings(&config),
        });
        let served = |(id, shard): (&ShardId, &Shard)| {
            (*id, Served { source: shard.source(), answer: Some(api.answerer()) })
        };
        let served = shards.iter().map(served).collect();
        let gossip =
            start_gossip(&config, &folder, &environment, &certificates, gossip_world, served);
        let gossip = match gossip {
            Ok(gossip) => gossip,
            Err(error) => {
                close_all(&shards).await;
                return Err(error);
            }
        };
        publish.send_replace(Some(gossip.clone()));

        let service = RaftService::new(Arc::clone(&identity));
        shards.values().for_each(|shard| service.mount(shard.raft()));
        let failed = watch::Sender::new(None);
        let served = (service.clone(), api.operator());
        let raft = serve_raft(raft_listener, served, certificates.raft, &failed);
        let api = serve_api(api_listener, api, &failed);
        let ended = CancellationToken::new();
        let inner = Inner { config, folder, shards, gossip, service, failed, ended, api, raft };
        let node = Self { inner: Arc::new(inner) };
        node.watch_over();
        if let Err(error) = node.bootstrap().await {
            node.drain().await;
            return Err(error);
        }
        let (region, id) = (node.inner.config.region(), node.inner.config.node());
        tracing::info!(%region, node = %id, "the node serves");
        Ok(node)
    }

    /// What it was started with.
    pub fn config(&self) -> &ValidConfig {
        &self.inner.config
    }
    /// Its shards.
    pub fn shards(&self) -> &BTreeMap<ShardId, Shard> {
        &self.inner.shards
    }
    /// Its sessions with other regions.
    pub fn gossip(&self) -> &Gossip {
        &self.inner.gossip
    }
    /// Waits until the node cannot go on by itself, and says why. It should then be drained; what it
    /// acknowledged is on the disks of a quorum.
    pub async fn failed(&self) -> String {
        let mut failed = self.inner.failed.subscribe();
        let reason = failed.wait_for(Option::is_some).await.map(|reason| reason.clone());
        match reason {
            Ok(Some(reason)) => reason,
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// Gives a new region its members. Of the first members, the one with the lowest id does it; the
    /// others, and every node that joins, wait to hear from a leader.
    async fn bootstrap(&self) -> Result<(), StartError> {
        let config = &self.inner.config;
        let first = config.voters.first_key_value().map(|(id, _)| *id);
        if config.join || first != Some(config.node.0) {
            return Ok(());
        }
        for shard in self.inner.shards.values() {
            if shard.last_index() > 0 {
                continue;
            }
            let members: Vec<_> = config.voters.keys().collect();
            tracing::info!(region = %config.region, ?members, "giving the region its first members");
            let voters = config.voters.clone();
            shard.raft().initialize(voters).await.map_err(StartError::Bootstrap)?;
        }
        Ok(())
    }

    /// Starts the tasks that wait for a shard's log to be born, and for its end.
    fn watch_over(&self) {
        for shard in self.inner.shards.values() {
            let born = record_birth(
                Arc::clone(&self.inner.folder),
                shard.clone(),
                self.inner.failed.clone(),
            );
            let fatal = report_fatal(shard.clone(), self.inner.failed.clone());
            let ended = self.inner.ended.clone();
            tokio::spawn(async move {
                ended.run_until_cancelled(async { tokio::join!(born, fatal) }).await;
            });
        }
    }
}

async fn listen(
    config: &ValidConfig,
    net: &dyn Net,
) -> Result<(Box<dyn Listener>, Box<dyn Listener>), StartError> {
    let listen = |what, address: SocketAddr| async move {
        let listening = net.listen(&address.to_string()).await;
        listening.map_err(|source| StartError::Listen { what, address, source })
    };
    let raft = listen("raft", config.listen.raft).await?;
    Ok((raft, listen("api", config.listen.api).await?))
}

/// Opens the gossip socket. QUIC lets go of a former one in the background, a moment after the node
/// that had it is gone; so an address in use is tried again for a while.
async fn open_gossip(
    config: &ValidConfig,
    environment: &Environment,
) -> Result<anabranch_gossip::Environment, StartError> {
    let address = config.listen.gossip;
    let until = Instant::now() + LET_GO;
    loop {
        let clock = Arc::clone(&environment.clock);
        match (environment.gossip)(address, Arc::new(move || clock.unix_ms())) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < until => {
                sleep(LET_GO_LOOK).await;
            }
            opened => {
                let failed = |source| StartError::Listen { what: "gossip", address, source };
                return opened.map_err(failed);
            }
        }
    }
}

async fn open_folder(
    config: &ValidConfig,
    environment: &Environment,
) -> Result<Arc<DataFolder>, StartError> {
    let owner =
        Owner { cluster: config.cluster.clone(), region: config.region.clone(), node: config.node };
    let (path, seeds) = (config.data_dir.clone(), Arc::clone(&environment.seeds));
    let disk = environment.storage.disk(&path);
    let opened = blocking(move || DataFolder::open(&path, disk, &owner, &*seeds)).await;
    Ok(Arc::new(opened?))
}

async fn parts(
    config: &ValidConfig,
    environment: &Environment,
    identity: &Arc<Identity>,
    certificates: &Certificates,
    gossip: watch::Receiver<Option<Gossip>>,
) -> Result<ShardParts, StartError> {
    let (data_dir, storage) = (config.data_dir.clone(), Arc::clone(&environment.storage));
    let (checkpoints, opened) = blocking(move || storage.checkpoints(&data_dir)).await?;
    if let Opened::MovedAside { to, reason } = opened {
        let to = to.display();
        tracing::warn!(%to, reason, "states were damaged; they are made again from the log");
    }
    Ok(ShardParts {
        identity: Arc::clone(identity),
        disk: environment.storage.disk(&config.data_dir),
        checkpoints,
        storage: Arc::clone(&environment.storage),
        net: Arc::clone(&environment.net),
        tls: Some(certificates.raft.clone()),
        clock: Arc::clone(&environment.clock),
        seeds: Arc::clone(&environment.seeds),
        gossip,
    })
}

async fn open_shards(
    config: &ValidConfig,
    folder: &DataFolder,
    parts: ShardParts,
) -> Result<BTreeMap<ShardId, Shard>, StartError> {
    let mut shards = BTreeMap::new();
    for id in SHARDS {
        let opened = Shard::open(shard_config(config, id), parts.clone()).await;
        let checked = match opened {
            Ok(shard) => {
                let checked = check_life(folder, &shard, &parts.identity);
                shards.insert(id, shard);
                checked.map_err(StartError::from)
            }
            Err(error) => Err(error.into()),
        };
        if let Err(error) = checked {
            close_all(&shards).await;
            return Err(error);
        }
    }
    Ok(shards)
}

/// Compares the log with what the folder remembers of it, as far as the log says already.
fn check_life(folder: &DataFolder, shard: &Shard, identity: &Identity) -> Result<(), FolderError> {
    folder.check_not_lost(shard.id(), shard.last_index())?;
    // What is not recorded yet is written later, where that holds up nobody.
    match (incarnation(shard), folder.incarnation(shard.id())?) {
        (Some(found), Some(recorded)) if found != recorded => {
            return Err(FolderError::Incarnation { shard: shard.id(), found, recorded });
        }
        // Its log may not be applied that far before it hears from a leader. What it sends until then
        // must say already that the region is born (`raft::memory`).
        (None, Some(recorded)) => identity.learn(recorded),
        _ => {}
    }
    Ok(())
}

fn incarnation(shard: &Shard) -> Option<Incarnation> {
    shard.state().region(|region| region.origin().map(|origin| origin.incarnation))
}

async fn close_all(shards: &BTreeMap<ShardId, Shard>) {
    for shard in shards.values() {
        shard.shutdown().await;
    }
}

fn shard_config(config: &ValidConfig, shard: ShardId) -> ShardConfig {
    let log = LogOptions {
        segment_bytes: config.log.segment_size.0,
        cache_bytes: config.log.cache_size.bytes(),
        queue_bytes: config.log.queue_size.bytes(),
        reserve_bytes: config.log.reserve_size.0,
        ..LogOptions::new(log_id(config, shard))
    };
    ShardConfig {
        shard,
        dir: format!("shard-{shard}").into(),
        members: config.members(),
        timings: config.timings,
        drift_max: config.drift_max,
        log,
    }
}

/// Id of a shard's log on this node: the same at every start, another on every other node, so that
/// no file of another node passes for one of this.
fn log_id(config: &ValidConfig, shard: ShardId) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new_derive_key("anabranch log of one shard on one node");
    for part in [config.cluster.as_bytes(), config.region.as_str().as_bytes()] {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    hasher.update(&config.node.0.to_le_bytes()).update(&shard.0.to_le_bytes());
    let hash = hasher.finalize();
    hash.as_bytes()[..16].try_into().expect("a hash has 32 bytes")
}

fn start_gossip(
    config: &ValidConfig,
    folder: &DataFolder,
    environment: &Environment,
    certificates: &Certificates,
    world: anabranch_gossip::Environment,
    served: BTreeMap<ShardId, Served>,
) -> Result<Gossip, StartError> {
    let mut seed = [0; 32];
    seed[..16].copy_from_slice(&environment.seeds.next_u128().to_le_bytes());
    seed[16..].copy_from_slice(&environment.seeds.next_u128().to_le_bytes());
    let gossip = GossipConfig {
        cluster: config.cluster.clone(),
        region: config.region.clone(),
        node: config.node,
        peers: config.peers.clone(),
        seed,
        reset_key: folder.reset_key(),
        tuning: Tuning { read_on: read_on(), ..Tuning::DEFAULT },
    };
    Ok(Gossip::start(gossip, &certificates.gossip, world, served)?)
}

/// A single-threaded runtime is a simulation: everything happens in its one order.
fn read_on() -> ReadOn {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::CurrentThread => ReadOn::Session,
        _ => ReadOn::BlockingPool,
    }
}

fn serve_raft(
    listener: Box<dyn Listener>,
    (service, operator): (RaftService, Routes),
    tls: RaftTls,
    failed: &watch::Sender<Option<String>>,
) -> Serving {
    let (stop, failed) = (CancellationToken::new(), failed.clone());
    let stopped = stop.clone().cancelled_owned();
    let task = tokio::spawn(async move {
        let serving = raft::serve_beside(listener, service, operator, Some(&tls), stopped);
        if let Err(error) = serving.await {
            fail(&failed, format!("the Raft listener failed: {error}"));
        }
    });
    Serving { stop, task: Mutex::new(Some(task)) }
}

fn serve_api(
    listener: Box<dyn Listener>,
    api: Api,
    failed: &watch::Sender<Option<String>>,
) -> Serving {
    let (stop, failed) = (CancellationToken::new(), failed.clone());
    let stopped = stop.clone().cancelled_owned();
    let task = tokio::spawn(async move {
        if let Err(error) = api::serve(listener, api, stopped).await {
            fail(&failed, format!("the API failed: {error}"));
        }
    });
    Serving { stop, task: Mutex::new(Some(task)) }
}

fn api_settings(config: &ValidConfig) -> ApiSettings {
    ApiSettings {
        limits: config.limits.clone(),
        append_bytes_in_flight: config.admission_bytes,
        membership_on_api: config.membership_on_api,
        ..ApiSettings::default()
    }
}

fn api_tls(config: &ValidConfig, raft: &RaftTls) -> ApiTls {
    ApiTls {
        ca: raft.ca.clone(),
        certificate: raft.certificate.clone(),
        key: raft.key.clone(),
        server_name: raft.server_name.clone(),
        clients_need_certificate: config.tls.client_certificates,
    }
}

/// The first reason counts.
fn fail(failed: &watch::Sender<Option<String>>, reason: String) {
    failed.send_if_modified(|held| {
        let first = held.is_none();
        held.get_or_insert(reason);
        first
    });
}

/// Pause before the life of a log is recorded again, for which there was no room.
const RECORD_AGAIN: Duration = Duration::from_secs(1);

/// Records which life of the region the log belongs to, as soon as the log says so.
async fn record_birth(
    folder: Arc<DataFolder>,
    shard: Shard,
    failed: watch::Sender<Option<String>>,
) {
    let mut applied = shard.state().applied();
    let incarnation = loop {
        applied.borrow_and_update();
        if let Some(found) = incarnation(&shard) {
            break found;
        }
        if applied.changed().await.is_err() {
            return;
        }
    };
    loop {
        let (folder, id) = (Arc::clone(&folder), shard.id());
        match blocking(move || folder.record(id, incarnation)).await {
            Ok(()) => return,
            // The log knows it meanwhile.
            Err(error) if error.is_full() => tokio::time::sleep(RECORD_AGAIN).await,
            Err(error) => return fail(&failed, error.to_string()),
        }
    }
}

async fn report_fatal(shard: Shard, failed: watch::Sender<Option<String>>) {
    let mut fatal = shard.raft().fatal();
    let reason = fatal.wait_for(Option::is_some).await.map(|reason| reason.clone());
    if let Ok(Some(reason)) = reason {
        fail(&failed, format!("shard {} stopped: {reason}", shard.id()));
    }
}
