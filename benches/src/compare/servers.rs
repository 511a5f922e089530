//! Server processes: started, looked at with all their children, killed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anabranch_harness::cluster::command;
use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use crate::cpu;

/// Processes that got SIGKILL and are there after this long hang in the kernel.
const GONE_WITHIN: Duration = Duration::from_secs(20);

/// Processes that were started. Dropping it kills them and what they started.
pub struct Servers {
    children: Vec<Child>,
}

impl Servers {
    /// Starts `binary` once for each list of arguments; `name` tells their log files apart.
    ///
    /// # Errors
    /// If one cannot be started.
    pub fn start(
        binary: &Path,
        folder: &Path,
        name: &str,
        set_up: impl Fn(&mut Command),
        nodes: &[Vec<String>],
    ) -> anyhow::Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        let mut servers = Self { children: Vec::new() };
        for (nth, args) in (1..).zip(nodes) {
            let mut command = command(binary, &folder.join(format!("{name}-{nth}.log")))?;
            set_up(command.args(args));
            let child = command.spawn().with_context(|| format!("start {}", binary.display()))?;
            servers.children.push(child);
        }
        Ok(servers)
    }

    /// Their numbers, in order.
    ///
    /// # Errors
    /// If one was waited for and is no more.
    pub fn pids(&self) -> anyhow::Result<Vec<u32>> {
        self.children.iter().map(|child| child.id().context("a server has ended")).collect()
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        let pids = self.children.iter().filter_map(Child::id).collect::<Vec<_>>();
        if let Ok(all) = with_children(&pids) {
            signal(&all);
        }
    }
}

fn signal(pids: &[u32]) {
    for pid in pids.iter().filter_map(|pid| Pid::from_raw(i32::try_from(*pid).ok()?)) {
        // It may have ended by itself meanwhile.
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// Kills these processes and all that they started, and returns when none of them runs.
///
/// # Errors
/// If one does not go.
pub async fn kill(pids: &[u32]) -> anyhow::Result<()> {
    let all = with_children(pids)?;
    signal(&all);
    let deadline = Instant::now() + GONE_WITHIN;
    while let Some(left) = all.iter().find(|pid| runs(**pid)) {
        ensure!(Instant::now() < deadline, "process {left} is there {GONE_WITHIN:?} after SIGKILL");
        sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

/// Whether there is such a process, and it is no zombie.
fn runs(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(')').and_then(|(_, after)| after.trim_start().chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

/// These processes and all that they started, theirs included.
///
/// # Errors
/// If `/proc` cannot be read.
pub fn with_children(pids: &[u32]) -> anyhow::Result<Vec<u32>> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").context("read /proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if let Some(parent) = parent(&stat) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut all = pids.to_vec();
    let mut at = 0;
    while let Some(pid) = all.get(at) {
        all.extend(children.remove(pid).unwrap_or_default());
        at += 1;
    }
    Ok(all)
}

fn parent(stat: &str) -> Option<u32> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// User and system time of these processes and their children so far, those that have ended included: a
/// store that starts a process for each connection ends it with the connection.
///
/// # Errors
/// If `/proc` cannot be read.
pub fn cpu(pids: &[u32]) -> anyhow::Result<Duration> {
    let used = |pid: u32| cpu::used_with_ended(&pid.to_string()).ok();
    Ok(with_children(pids)?.into_iter().filter_map(used).sum())
}

/// Bytes that these processes and their children hold in memory; what they share counts once.
///
/// # Errors
/// If `/proc` cannot be read.
pub fn resident(pids: &[u32]) -> anyhow::Result<u64> {
    let pss = |pid| {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    };
    let kib: u64 = with_children(pids)?.into_iter().filter_map(pss).sum();
    ensure!(kib > 0, "no memory is known of {pids:?}");
    Ok(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_is_killed_with_what_it_started() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let script = vec!["-c".to_owned(), "sleep 600 & sleep 600; true".to_owned()];
        let shell = Path::new("/bin/sh");
        let servers = Servers::start(shell, folder.path(), "sh", |_| {}, &[script])?;
        let pids = servers.pids()?;
        let mut all = Vec::new();
        while all.len() < 3 {
            all = with_children(&pids)?;
            sleep(Duration::from_millis(1)).await;
        }
        assert!(resident(&pids)? > resident(&all[1..2])?);
        kill(&pids).await?;
        assert!(all.iter().all(|pid| !runs(*pid)), "{all:?}");
        Ok(())
    }

    #[tokio::test]
    async fn the_time_of_children_that_have_ended_counts() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let work = "(i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done); sleep 600; true";
        let script = vec!["-c".to_owned(), work.to_owned()];
        let servers = Servers::start(Path::new("/bin/sh"), folder.path(), "sh", |_| {}, &[script])?;
        let pids = servers.pids()?;
        let sleeps = |pid: &u32| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "sleep")
        };
        while !with_children(&pids)?.iter().any(sleeps) {
            sleep(Duration::from_millis(5)).await;
        }
        assert!(cpu(&pids)? > cpu::used_by(&pids[0].to_string())?);
        kill(&pids).await
    }
}
