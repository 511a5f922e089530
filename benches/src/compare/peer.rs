//! What every store is measured through.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout};

use crate::catch_up::Sites;
use crate::writers::Writer;

/// A store that takes no write for this long is taken for broken.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// One try of a write while waiting for the first that is taken.
const TRY_WITHIN: Duration = Duration::from_millis(500);
const TRY_EVERY: Duration = Duration::from_millis(5);

/// A store that can be started.
#[async_trait]
pub trait Peer: Send + Sync {
    /// As the tables call it.
    fn name(&self) -> &'static str;
    /// Server nodes, each holding all events.
    fn nodes(&self) -> u16 {
        1
    }
    /// How to get it, if it is not there.
    fn missing(&self) -> Option<String>;
    /// Starts its servers on what `folder` holds, and returns before they answer.
    ///
    /// # Errors
    /// If a process cannot be started.
    async fn start(&self, folder: &Path) -> anyhow::Result<Box<dyn Running>>;
    /// Two sites, the second of which takes in what is written at the first, and the first goes on without
    /// it: each way that is measured, of most stores none.
    fn pairs(&self) -> Vec<Box<dyn Pair>> {
        Vec::new()
    }
}

/// Two sites of a store that can be started.
pub trait Pair: Send + Sync {
    /// As the tables call it.
    fn name(&self) -> &'static str;
    /// Starts both on a new folder, and returns before they answer.
    ///
    /// # Errors
    /// If a process cannot be started.
    fn start(&self, folder: &Path) -> anyhow::Result<Box<dyn Sites>>;
}

/// A store whose servers run. Dropping it kills them.
#[async_trait]
pub trait Running: Send + Sync {
    /// The processes that were started, one a node, in order.
    ///
    /// # Errors
    /// If one has ended.
    fn pids(&self) -> anyhow::Result<Vec<u32>>;
    /// Makes the table or the stream that events go to, unless it is there.
    ///
    /// # Errors
    /// If the store does not answer yet, or refuses.
    async fn prepare(&self) -> anyhow::Result<()> {
        Ok(())
    }
    /// A writer with a connection of its own.
    ///
    /// # Errors
    /// If no node answers.
    async fn writer(&self) -> anyhow::Result<Box<dyn Writer>>;
    /// Reads every event with its payload, by one reader; returns how many there are.
    ///
    /// # Errors
    /// If reading fails, or the store's own numbers say that one was skipped or repeated.
    async fn replay(&self) -> anyhow::Result<u64>;
    /// A subscriber from the end on, which is there when this returns. What it is to see is written to a
    /// stream [`LAG_STREAM`].
    ///
    /// # Errors
    /// If no node answers.
    async fn subscriber(&self) -> anyhow::Result<Box<dyn Subscriber>>;
    /// The place among [`Running::pids`] of the node that leads; of one node, it.
    ///
    /// # Errors
    /// If none does, or the store has no such thing.
    async fn leader(&self) -> anyhow::Result<usize> {
        Ok(0)
    }
}

/// The stream that [`Subscriber`]s see.
pub const LAG_STREAM: &str = "lag-1";

/// What is told of new events.
#[async_trait]
pub trait Subscriber: Send {
    /// The payload of the next one.
    ///
    /// # Errors
    /// If the connection ends.
    async fn next(&mut self) -> anyhow::Result<Bytes>;
}

/// Waits until a new store takes a write.
///
/// # Errors
/// The last failure, if it does not in time.
pub async fn ready(peer: &dyn Running) -> anyhow::Result<()> {
    until(async || peer.prepare().await.context("prepare")).await?;
    takes_a_write(peer).await?;
    Ok(())
}

/// Waits until a store that was there before takes a write, and returns how long that took.
///
/// # Errors
/// The last failure, if it does not in time.
pub async fn takes_a_write(peer: &dyn Running) -> anyhow::Result<Duration> {
    until(async || {
        let mut writer = peer.writer().await.context("connect")?;
        writer.append("ready-1", vec![Bytes::from_static(b"ready")]).await.context("write")
    })
    .await
}

/// Tries until it works, and returns how long that took.
///
/// # Errors
/// The last failure, if it does not in time.
pub async fn until(mut tries: impl AsyncFnMut() -> anyhow::Result<()>) -> anyhow::Result<Duration> {
    let began = Instant::now();
    loop {
        let failed = match timeout(TRY_WITHIN, tries()).await {
            Ok(Ok(())) => return Ok(began.elapsed()),
            Ok(Err(failed)) => failed,
            Err(_) => anyhow::anyhow!("no answer within {TRY_WITHIN:?}"),
        };
        if began.elapsed() > READY_WITHIN {
            return Err(failed.context(format!("did not work within {READY_WITHIN:?}")));
        }
        sleep(TRY_EVERY).await;
    }
}

/// The executable at `path` below the peers' folder, or how to get it.
pub fn fetched(path: &Path) -> Option<String> {
    let there = path.is_file();
    (!there).then(|| format!("{} is not there: run benches/peers.sh", path.display()))
}

/// Where `benches/peers.sh` puts them.
pub fn peers_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/peers")
}
