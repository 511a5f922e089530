//! Opening a shard: log, checkpoint, store, Raft, tasks, in this order.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anabranch_core::region::Region;
use anabranch_core::{RegionName, ShardId};
use anabranch_gossip::Gossip;
use anabranch_log::derived::Checkpoints;
use anabranch_log::disk::Disk;
use anabranch_log::store::{Store, StoreError, StoreOptions};
use anabranch_log::{Log, LogOptions};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use super::inlet::Inlet;
use super::lead::Lead;
use super::machine::{Checkpointer, Loaded, RegionMachine, load};
use super::standing::Watch;
use super::state::ShardState;
use super::{Inner, Shard, absent, order, room};
use crate::aggregates::Aggregates;
use crate::conflicts::Conflicts;
use crate::env::{Clock, Net, Seeds, Storage};
use crate::raft::{GroupConfig, Identity, RaftGroup, RaftTls, StartError, Timings};
use crate::states::SharedStates;

/// Appends that may wait for the sequencer.
const JOBS_WAITING: usize = 4096;
/// Bytes of the appends that may wait for the sequencer.
const JOBS_BYTES: usize = 64 * 1024 * 1024;

/// What a shard needs to know.
#[derive(Debug, Clone)]
pub struct ShardConfig {
    /// Which shard.
    pub shard: ShardId,
    /// Folder of the shard on the disk.
    pub dir: PathBuf,
    /// All member regions, this one included.
    pub members: Vec<RegionName>,
    /// When to beat and when to elect.
    pub timings: Timings,
    /// How far clocks may be apart.
    pub drift_max: Duration,
    /// Settings of the log.
    pub log: LogOptions,
}

/// What a shard works with.
#[derive(Clone)]
pub struct ShardParts {
    /// Who this node is.
    pub identity: Arc<Identity>,
    /// Where the log is.
    pub disk: Arc<dyn Disk>,
    /// Where checkpoints are.
    pub checkpoints: Arc<dyn Checkpoints>,
    /// Who drives the log's writer.
    pub storage: Arc<dyn Storage>,
    /// How nodes reach each other.
    pub net: Arc<dyn Net>,
    /// Certificates between the nodes.
    pub tls: Option<RaftTls>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub seeds: Arc<dyn Seeds>,
    /// The node's gossip, once it runs: it needs the shards first.
    pub gossip: watch::Receiver<Option<Gossip>>,
}

/// Why a shard does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The log.
    #[error("open the log of shard {shard}")]
    Log {
        /// Which shard.
        shard: ShardId,
        /// What the log said.
        source: anabranch_log::OpenError,
    },
    /// What drives the log's writer.
    #[error("start the writer of the log of shard {shard}")]
    Writer {
        /// Which shard.
        shard: ShardId,
        /// What the system said.
        source: std::io::Error,
    },
    /// The index, or the log below it.
    #[error("open the events of shard {shard}")]
    Store {
        /// Which shard.
        shard: ShardId,
        /// What the store said.
        source: StoreError,
    },
    /// The log was born into another set of regions than the configuration names.
    #[error(
        "the log of shard {shard} was born with member regions {born:?}, the configuration names \
         {configured:?}; members cannot be changed by configuration"
    )]
    Members {
        /// Which shard.
        shard: ShardId,
        /// What the log says.
        born: Vec<RegionName>,
        /// What the configuration says.
        configured: Vec<RegionName>,
    },
    /// The log is another region's.
    #[error("the log of shard {shard} belongs to region {born}, this node is of {configured}")]
    Region {
        /// Which shard.
        shard: ShardId,
        /// What the log says.
        born: RegionName,
        /// What the configuration says.
        configured: RegionName,
    },
    /// Raft.
    #[error("start shard {shard}")]
    Raft {
        /// Which shard.
        shard: ShardId,
        /// What failed.
        source: StartError,
    },
}

impl Shard {
    /// Opens the shard and starts its tasks. Applies what is committed beyond the checkpoint first.
    ///
    /// # Errors
    /// [`OpenError`]; nothing runs then.
    pub async fn open(config: ShardConfig, parts: ShardParts) -> Result<Self, OpenError> {
        let shard = config.shard;
        let log_dir = config.dir.join("log");
        let (log, writer, opened) =
            Log::open(Arc::clone(&parts.disk), &log_dir, config.log.clone())
                .map_err(|source| OpenError::Log { shard, source })?;
        if let Some(torn) = &opened.torn {
            let bytes = torn.bytes;
            tracing::info!(%shard, bytes, "cut an unacknowledged end that a crash had left");
        }
        let drive = parts.storage.drive(writer);
        drive.map_err(|source| OpenError::Writer { shard, source })?;
        let loaded = load(shard, &*parts.checkpoints);
        let loaded = loaded.filter(|loaded| loaded.index < opened.range.end);
        let (state, resume) = open_state(&config, &parts, &log, loaded)
            .map_err(|source| OpenError::Store { shard, source })?;
        let state = Arc::new(state);
        let checkpoints = Arc::clone(&parts.checkpoints);
        let machine = Arc::new(Checkpointer::new(shard, Arc::clone(&state), checkpoints));
        let group = GroupConfig {
            identity: Arc::clone(&parts.identity),
            shard,
            timings: config.timings,
            seed: parts.seeds.next_u64(),
        };
        let region_machine = RegionMachine::new(
            Arc::clone(&state),
            Arc::clone(&parts.identity),
            Arc::clone(&machine),
            resume,
        );
        let (net, tls) = (Arc::clone(&parts.net), parts.tls.clone());
        let raft = RaftGroup::start(group, log.clone(), Box::new(region_machine), net, tls)
            .await
            .map_err(|source| OpenError::Raft { shard, source })?;
        let inner = Self::assemble(&config, parts, state, raft, log, machine);
        if let Err(error) = inner.check_members(&config) {
            inner.shutdown().await;
            return Err(error);
        }
        Ok(inner)
    }

    fn assemble(
        config: &ShardConfig,
        parts: ShardParts,
        state: Arc<ShardState>,
        raft: RaftGroup,
        log: Log,
        machine: Arc<Checkpointer>,
    ) -> Self {
        let (jobs, queue) = mpsc::channel(JOBS_WAITING);
        let jobs_room = Arc::new(Semaphore::new(JOBS_BYTES));
        let stop = watch::Sender::new(false);
        let inlet = Arc::new(Inlet::new());
        let watch = Watch::new(
            Arc::clone(&parts.clock),
            Arc::clone(&inlet),
            parts.identity.region().clone(),
            &config.members,
            config.drift_max,
        );
        let lead = Lead {
            watch,
            region: parts.identity.region().clone(),
            members: config.members.clone(),
            state: Arc::clone(&state),
            raft: raft.clone(),
            log: log.clone(),
            inlet: Arc::clone(&inlet),
            gossip: parts.gossip,
            clock: Arc::clone(&parts.clock),
            seeds: parts.seeds,
            drift_max: config.drift_max,
            jobs: queue,
            stop: stop.subscribe(),
        };
        let states = Arc::new(SharedStates::over(parts.checkpoints.beside()));
        let (aggregates, folding) = Aggregates::open(
            Arc::clone(&state),
            config.shard,
            Arc::clone(&states) as _,
            stop.subscribe(),
        );
        let (conflicts, finding) =
            Conflicts::open(Arc::clone(&state), config.shard, &states, &stop.subscribe());
        let mut tasks = JoinSet::new();
        tasks.spawn(finding);
        tasks.spawn(folding);
        tasks.spawn(lead.run());
        tasks.spawn(order::follow(Arc::clone(&state), stop.subscribe()));
        tasks.spawn(room::keep(log.clone(), stop.subscribe()));
        let region = parts.identity.region().clone();
        tasks.spawn(absent::keep(region, raft.clone(), stop.subscribe()));
        let tasks = Mutex::new(tasks);
        let inner = Inner {
            id: config.shard,
            state,
            raft,
            log,
            machine,
            inlet,
            clock: parts.clock,
            jobs,
            room: jobs_room,
            stop,
            tasks,
            aggregates,
            conflicts,
        };
        Self { inner: Arc::new(inner) }
    }

    fn check_members(&self, config: &ShardConfig) -> Result<(), OpenError> {
        let shard = config.shard;
        let configured_region = self.inner.raft.identity().region().clone();
        let (born_region, born) = self.inner.state.region(|region| {
            (region.origin().map(|origin| origin.region.clone()), region.members().to_vec())
        });
        let Some(born_region) = born_region else { return Ok(()) };
        if born_region != configured_region {
            let (born, configured) = (born_region, configured_region);
            return Err(OpenError::Region { shard, born, configured });
        }
        let mut configured = config.members.clone();
        configured.sort();
        match born == configured {
            true => Ok(()),
            false => Err(OpenError::Members { shard, born, configured }),
        }
    }
}

/// The state at the checkpoint, or at the beginning, over a store that fits it.
fn open_state(
    config: &ShardConfig,
    parts: &ShardParts,
    log: &Log,
    loaded: Option<Loaded>,
) -> Result<(ShardState, Option<bytes::Bytes>), StoreError> {
    let dir = config.dir.join("index");
    let options = StoreOptions::new(config.log.log_id);
    let open = |applied: Option<u64>, dir: &Path| {
        Store::open(Arc::clone(&parts.disk), dir, log.clone(), &options, applied)
    };
    if let Some(loaded) = loaded {
        let (store, recovery) = open(Some(loaded.index), &dir)?;
        tracing::debug!(?recovery, "opened the events");
        // Index files may reach beyond the checkpoint, never the other way.
        if store.frontier().next_position >= loaded.region.position() {
            let state = ShardState::new(loaded.region, loaded.index, store, loaded.marks);
            return Ok((state, Some(loaded.resume)));
        }
        tracing::warn!(
            "checkpoint and index do not fit together; applying the log from its beginning"
        );
    }
    let (store, _) = open(None, &dir)?;
    Ok((ShardState::new(Region::new(), 0, store, Vec::new()), None))
}
