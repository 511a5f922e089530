//! What an operator does with the command line.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use tokio::time::timeout;

use super::process::command;

/// How long new nodes may take to catch up, before it is tried again.
const CATCH_UP_SECONDS: u64 = 10;
/// How long the command may take; it should come to its end before.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs commands, and keeps what they print.
#[derive(Debug, Clone)]
pub(super) struct Operator {
    binary: PathBuf,
    log: PathBuf,
}

impl Operator {
    pub(super) fn new(binary: &Path, folder: &Path) -> Self {
        Self { binary: binary.to_owned(), log: folder.join("operator.log") }
    }

    /// Has these nodes vote in the region of a configuration from now on: new ones first catch up,
    /// those that are not named leave. True if that is done; else it may be, or may yet.
    ///
    /// # Errors
    /// If the command cannot be run.
    pub(super) async fn set_voters(
        &self,
        config: &Path,
        voters: &BTreeSet<u64>,
    ) -> anyhow::Result<bool> {
        let voters: Vec<String> = voters.iter().map(u64::to_string).collect();
        let mut child = command(&self.binary, &self.log)?
            .args(["members", "--voters", &voters.join(",")])
            .args(["--within", &CATCH_UP_SECONDS.to_string()])
            .arg("--config")
            .arg(config)
            .spawn()
            .context("run `anabranch members`")?;
        match timeout(PATIENCE, child.wait()).await {
            Ok(status) => Ok(status.context("wait for `anabranch members`")?.success()),
            Err(_) => {
                child.kill().await.context("kill `anabranch members`")?;
                Ok(false)
            }
        }
    }
}
