//! One node as a process: started, killed, paused, and watched.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, ensure};
use tokio::process::{Child, Command};

/// A process that is killed when it is dropped.
#[derive(Debug)]
pub(super) struct Process {
    binary: PathBuf,
    config: PathBuf,
    log: PathBuf,
    child: Option<Child>,
    /// How it ended without being killed.
    ended: Vec<String>,
}

impl Process {
    pub(super) fn start(binary: &Path, config: &Path, log: &Path) -> anyhow::Result<Self> {
        let (binary, config, log) = (binary.to_owned(), config.to_owned(), log.to_owned());
        let mut process = Self { binary, config, log, child: None, ended: Vec::new() };
        process.restart()?;
        Ok(process)
    }

    /// Starts it, unless it runs.
    pub(super) fn restart(&mut self) -> anyhow::Result<()> {
        self.notice_end();
        if self.child.is_some() {
            return Ok(());
        }
        let open = || OpenOptions::new().create(true).append(true).open(&self.log);
        let (out, err) = (open().context("open a log")?, open().context("open a log")?);
        let mut command = Command::new(&self.binary);
        // The file alone says how a node is, not the environment that the harness was started in.
        let inherited = std::env::vars_os().map(|(name, _)| name);
        for name in inherited.filter(|name| name.to_string_lossy().starts_with("ANABRANCH_")) {
            command.env_remove(name);
        }
        let child = command
            .arg("serve")
            .arg("--config")
            .arg(&self.config)
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .kill_on_drop(true)
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
