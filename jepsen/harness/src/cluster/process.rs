//! One node as a process: started, killed, paused, and watched.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// A process that is killed when it is dropped.
#[derive(Debug)]
pub(super) struct Process {
    binary: PathBuf,
    config: PathBuf,
    clock: PathBuf,
    log: PathBuf,
    child: Option<Child>,
    /// How it ended without being killed.
    ended: Vec<String>,
}

impl Process {
    /// A process that does not run yet. It is configured by the file `config`, its wall clock follows
    /// the file `clock`, and what it says goes to the file `log`.
    pub(super) fn new(binary: &Path, config: &Path, clock: &Path, log: &Path) -> Self {
        let [binary, config, clock, log] = [binary, config, clock, log].map(Path::to_owned);
        Self { binary, config, clock, log, child: None, ended: Vec::new() }
    }

    /// Starts it, unless it runs.
    pub(super) fn restart(&mut self) -> anyhow::Result<()> {
        self.notice_end();
        if self.child.is_some() {
            return Ok(());
        }
        let child = command(&self.binary, &self.log)?
            .arg("serve")
            .arg("--config")
            .arg(&self.config)
            .arg("--test-clock-offset")
            .arg(&self.clock)
            .env("RUST_BACKTRACE", "1")
            .spawn()
            .with_context(|| format!("start {}", self.binary.display()))?;
        self.child = Some(child);
        Ok(())
    }

    pub(super) async fn kill(&mut self) -> anyhow::Result<()> {
        self.notice_end();
        if let Some(mut child) = self.child.take() {
            child.kill().await.context("kill a node")?;
        }
        Ok(())
    }

    /// Waits until it ends by itself, as it should now, and says how; none if it has not `within` that
    /// time.
    pub(super) async fn end(&mut self, within: Duration) -> anyhow::Result<Option<ExitStatus>> {
        let Some(child) = &mut self.child else { return Ok(None) };
        let Ok(ended) = timeout(within, child.wait()).await else { return Ok(None) };
        self.child = None;
        ended.map(Some).context("wait for a node")
    }

    /// Sends a signal by name. A process that is not there needs none.
    pub(super) async fn signal(&mut self, name: &str) -> anyhow::Result<()> {
        self.notice_end();
        // Not yet waited for, the process still owns its number: the signal cannot hit another.
        let Some(pid) = self.child.as_ref().and_then(Child::id) else { return Ok(()) };
        let sent = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status().await;
        let sent = sent.context("run kill")?;
        ensure!(sent.success(), "kill -{name} {pid} failed with {sent}");
        Ok(())
    }

    /// How it ended without being killed, and panics in its log.
    pub(super) fn deaths(&mut self) -> Vec<String> {
        self.notice_end();
        let mut deaths = self.ended.clone();
        if let Ok(file) = File::open(&self.log) {
            let lines = BufReader::new(file).lines().map_while(Result::ok);
            deaths.extend(lines.filter(|line| line.contains("panicked at")).take(5));
        }
        deaths
    }

    fn notice_end(&mut self) {
        if let Some(Ok(Some(status))) = self.child.as_mut().map(Child::try_wait) {
            self.ended.push(format!("ended by itself with {status}, see {}", self.log.display()));
            self.child = None;
        }
    }
}

/// A run of the binary that adds to a log what it prints, and is killed when it is dropped.
///
/// # Errors
/// If the log cannot be opened.
pub fn command(binary: &Path, log: &Path) -> anyhow::Result<Command> {
    let open = || OpenOptions::new().create(true).append(true).open(log).context("open a log");
    let mut command = Command::new(binary);
    clean(&mut command);
    command.stdin(Stdio::null()).stdout(open()?).stderr(open()?).kill_on_drop(true);
    Ok(command)
}

/// Files and flags alone say how a process is, not the environment that the harness was started in.
fn clean(command: &mut Command) {
    let inherited = std::env::vars_os().map(|(name, _)| name);
    for name in inherited.filter(|name| name.to_string_lossy().starts_with("ANABRANCH_")) {
        command.env_remove(name);
    }
}
