//! One node that can die in the middle of what it does, as a process can.
//!
//! Each node has a runtime of its own. Ending that ends every task, connection and socket of the node
//! wherever it stands: nobody is told, nothing is handed over, no checkpoint is written.

use std::time::Duration;

use anyhow::Context as _;
use tokio::runtime::{Builder, Runtime};

use crate::config::ValidConfig;
use crate::node::{Environment, Node};

/// Threads that drive a node's tasks.
const WORKERS: usize = 2;
/// Work on the disk that is under way when a node dies is waited for this long.
const DISK_WAIT: Duration = Duration::from_secs(10);

/// A node on its own runtime.
pub struct Running {
    node: Option<Node>,
    runtime: Option<Runtime>,
}

impl Running {
    /// Starts the node.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn start(config: ValidConfig, environment: Environment) -> anyhow::Result<Self> {
        let name = format!("{}-{}", config.region(), config.node());
        let mut builder = Builder::new_multi_thread();
        let runtime = builder.worker_threads(WORKERS).thread_name(name).enable_all().build();
        let runtime = runtime.context("start a runtime")?;
        let mut running = Self { node: None, runtime: Some(runtime) };
        let start = async move { Node::start(config, environment).await };
        running.node = Some(running.runtime().spawn(start).await??);
        Ok(running)
    }

    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("it is taken only when the node ends")
    }

    /// Stops the node in good order.
    pub async fn drain(mut self) {
        let node = self.node.take().expect("it is taken only when the node ends");
        let drained = self.runtime().spawn(async move { node.drain().await }).await;
        if let Err(error) = drained {
            tracing::error!(%error, "a node did not stop in good order");
        }
        self.end_runtime().await;
    }

    /// Ends the node where it stands. When this returns, its folder and ports are free again.
    pub async fn kill(mut self) {
        let node = self.node.take().expect("it is taken only when the node ends");
        let shards: Vec<_> = node.shards().values().cloned().collect();
        drop(node);
        self.end_runtime().await;
        // The log's writer is a thread, not a task. It must be gone before another opens the files.
        let close = move || shards.into_iter().for_each(|shard| shard.abandon());
        if let Err(error) = tokio::task::spawn_blocking(close).await {
            tracing::error!(%error, "the log of a killed node was not closed");
        }
    }

    async fn end_runtime(&mut self) {
        let runtime = self.runtime.take().expect("it is taken only when the node ends");
        let end = move || runtime.shutdown_timeout(DISK_WAIT);
        if let Err(error) = tokio::task::spawn_blocking(end).await {
            tracing::error!(%error, "a node's runtime did not end");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Waiting for its threads is forbidden where other tasks are driven.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
