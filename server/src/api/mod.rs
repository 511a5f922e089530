//! The public interface: gRPC services `anabranch.v1.Events`, `anabranch.v1.Aggregates`,
//! `anabranch.v1.Conflicts` and `anabranch.v1.Cluster`.
//!
//! Every node serves everything. Reads are answered from this node's own applied state
//! ([`crate::read`]); appends are checked here ([`validate`]) and sequenced by the shard's leader: if
//! that is another node, the request is passed on to it once ([`forward`]), so a caller need not know.
//!
//! An append to a stream whose home is another region is carried there, and what comes of it back
//! ([`carry`]).
//!
//! What is refused is refused before anything is written, with a reason that a program can read
//! ([`refusal`]); what may have been written is never called refused.

mod admission;
mod aggregates;
mod append;
mod append_many;
mod carry;
mod classes;
mod cluster;
mod concurrency;
mod conditions;
mod conflicts;
mod declare;
mod events;
mod forward;
mod malformed;
mod operator;
mod page;
mod read;
mod refusal;
mod rights;
mod serve;
mod settings;
mod status;
#[cfg(test)]
mod tests;
mod validate;

pub use serve::{ServeError, serve};
pub use settings::{ApiSettings, ApiTls};

use std::collections::BTreeMap;
use std::sync::Arc;

use anabranch_core::event::shard_of;
use anabranch_core::{Context, ShardId};
use anabranch_gossip::Gossip;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::env::{Clock, Net};
use crate::raft::Identity;
use crate::shard::Shard;
use admission::Admission;
use forward::Leaders;

/// What the services are made of.
pub struct ApiParts {
    /// Who this node is.
    pub identity: Arc<Identity>,
    /// The shards of the region, all of which this node holds.
    pub shards: BTreeMap<ShardId, Shard>,
    /// The node's gossip, once it runs.
    pub gossip: watch::Receiver<Option<Gossip>>,
    /// Reaches the other nodes of the region.
    pub net: Arc<dyn Net>,
    /// Tells how old things are.
    pub clock: Arc<dyn Clock>,
    /// TLS towards callers and towards the region's leader.
    pub tls: Option<ApiTls>,
    /// Limits and bounds.
    pub settings: ApiSettings,
}

/// The services. Clones share everything.
#[derive(Clone)]
pub struct Api {
    inner: Arc<Inner>,
}

struct Inner {
    identity: Arc<Identity>,
    shards: BTreeMap<ShardId, Shard>,
    gossip: watch::Receiver<Option<Gossip>>,
    clock: Arc<dyn Clock>,
    tls: Option<ApiTls>,
    settings: ApiSettings,
    leaders: Leaders,
    appends: Admission,
    reads: Admission,
    carried: carry::Tally,
    stopping: CancellationToken,
}

impl Api {
    /// Puts the services together. Serves nothing before [`serve()`] is called.
    ///
    /// # Panics
    /// If there is no shard.
    pub fn new(parts: ApiParts) -> Self {
        let ApiParts { identity, shards, gossip, net, clock, tls, settings } = parts;
        assert!(!shards.is_empty(), "a node has at least one shard");
        let inner = Inner {
            leaders: Leaders::new(net, tls.clone(), settings.connect_within),
            appends: Admission::new("bytes of appends in flight", settings.append_bytes_in_flight),
            reads: Admission::new("reads", settings.reads_max),
            carried: carry::Tally::default(),
            stopping: CancellationToken::new(),
            identity,
            shards,
            gossip,
            clock,
            tls,
            settings,
        };
        Self { inner: Arc::new(inner) }
    }

    fn shard_count(&self) -> u16 {
        u16::try_from(self.inner.shards.len()).unwrap_or(u16::MAX)
    }
    /// The shard of a stream.
    fn shard_for(&self, stream: &str) -> Option<&Shard> {
        self.inner.shards.get(&shard_of(stream, self.shard_count()))
    }
}

/// The part of a context that is about one shard: a client's may speak of several.
fn of_shard(context: &Context, shard: ShardId) -> Context {
    let ours = context.iter().filter(|(origin, _)| origin.shard == shard);
    ours.map(|(origin, seq)| (origin.clone(), seq)).collect()
}
