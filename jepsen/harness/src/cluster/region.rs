//! One region: what can be done to its nodes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anabranch_history::evidence::Death;
use anyhow::Context;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use super::config::{Papers, Role, node_id};
use super::disk::SmallDisk;
use super::operator::Operator;
use super::process::Process;
use super::sight::Sight;
use super::{Lives, NODES};

/// How a node ends that cannot go on.
const CANNOT_GO_ON: i32 = 4;
/// Pause before the members are asked to change again.
const ASK_AGAIN: Duration = Duration::from_millis(300);

/// The nodes of a region, by their places. Dropping it kills the processes.
pub struct Region {
    pub(super) number: usize,
    pub(super) nodes: Vec<Node>,
    /// Nodes that it ever had.
    pub(super) ever: u64,
    pub(super) papers: Arc<Papers>,
    pub(super) operator: Operator,
    pub(super) sight: Sight,
    pub(super) lives: Lives,
}

/// The node that has a place in the region now.
pub(super) struct Node {
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) process: Process,
    /// Where its data are, if that disk can be filled. Unmounted after the process was killed.
    pub(super) disk: Option<Arc<SmallDisk>>,
    /// Whether its disk was ever full.
    pub(super) was_full: bool,
}

impl Region {
    /// Number of the region.
    pub fn number(&self) -> usize {
        self.number
    }
    /// The name of a node, as files and reports have it.
    pub fn name(&self, node: usize) -> &str {
        &self.nodes[node].name
    }

    /// Kills a node with SIGKILL and waits until it is gone.
    ///
    /// # Errors
    /// If it cannot be killed.
    pub async fn kill(&mut self, node: usize) -> anyhow::Result<()> {
        self.lives.end((self.number, node));
        self.nodes[node].process.kill().await
    }
    /// Starts a node that was killed.
    ///
    /// # Errors
    /// If the process cannot be made.
    pub fn restart(&mut self, node: usize) -> anyhow::Result<()> {
        self.nodes[node].process.restart()
    }
    /// Stops a node with SIGSTOP.
    ///
    /// # Errors
    /// If the signal cannot be sent.
    pub async fn pause(&mut self, node: usize) -> anyhow::Result<()> {
        self.nodes[node].process.signal("STOP").await
    }
    /// Lets a stopped node go on with SIGCONT.
    ///
    /// # Errors
    /// If the signal cannot be sent.
    pub async fn resume(&mut self, node: usize) -> anyhow::Result<()> {
        self.nodes[node].process.signal("CONT").await
    }

    /// Kills a node and deletes its data folder. It forgot what it voted for and what it acknowledged:
    /// another has to [take its place](Self::replace).
    ///
    /// # Errors
    /// If it cannot be killed, or the folder not be deleted.
    pub async fn wipe(&mut self, node: usize) -> anyhow::Result<()> {
        self.kill(node).await?;
        let data = &self.nodes[node].role.data;
        let deleting = || format!("delete {}", data.display());
        tokio::fs::remove_dir_all(data).await.with_context(deleting)
    }

    /// Starts a node that was wiped under its old id, and wipes it again. True if it stopped by itself
    /// `within` that time, and said that it cannot go on.
    ///
    /// # Errors
    /// If the process cannot be made or killed, or the folder not be deleted.
    pub async fn notices(&mut self, node: usize, within: Duration) -> anyhow::Result<bool> {
        self.restart(node)?;
        let ended = self.nodes[node].process.end(within).await?;
        self.wipe(node).await?;
        Ok(ended.and_then(|status| status.code()) == Some(CANNOT_GO_ON))
    }

    /// Lets a new node take the place of one that was wiped: it starts with an empty folder under an
    /// id that was never used, and the region is asked to have it vote instead of the old one. True
    /// once it does; false if it does not `within` that time.
    ///
    /// # Errors
    /// If a file or process cannot be made.
    pub async fn replace(&mut self, node: usize, within: Duration) -> anyhow::Result<bool> {
        let id = node_id(self.number, self.ever);
        self.ever += 1;
        let role = &mut self.nodes[node].role;
        (role.id, role.joined) = (id, true);
        self.sight.set_id((self.number, node), id);
        self.write_papers()?;
        self.restart(node)?;
        let config = self.papers.file((self.number, node));
        let deadline = Instant::now() + within;
        loop {
            let voters = self.sight.ids(self.number);
            if self.operator.set_voters(&config, &voters).await? {
                return Ok(true);
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
            sleep(ASK_AGAIN).await;
        }
    }

    /// The node itself, or the next one whose disk can be filled; none if there is none.
    pub fn fillable(&self, node: usize) -> Option<usize> {
        let from = (0..NODES).map(|step| (node + step) % NODES);
        from.into_iter().find(|node| self.nodes[*node].disk.is_some())
    }
    /// Takes the space that there is on a node's disk, but for `left` bytes.
    ///
    /// # Errors
    /// If that disk cannot be filled.
    pub async fn fill(&mut self, node: usize, left: u64) -> anyhow::Result<()> {
        self.nodes[node].was_full = true;
        self.on_disk(node, move |disk| disk.fill(left)).await.context("fill a disk")
    }
    /// Gives the space back.
    ///
    /// # Errors
    /// If that disk cannot be filled.
    pub async fn empty(&mut self, node: usize) -> anyhow::Result<()> {
        self.on_disk(node, SmallDisk::empty).await.context("empty a disk")
    }

    /// Lets every node run, with space on its disk.
    ///
    /// # Errors
    /// If a process cannot be made or told to go on.
    pub async fn heal(&mut self) -> anyhow::Result<()> {
        for node in 0..NODES {
            if self.nodes[node].disk.is_some() {
                self.empty(node).await?;
            }
            self.resume(node).await?;
            self.restart(node)?;
        }
        Ok(())
    }

    /// Nodes that ended by themselves so far, and panics in the logs.
    pub fn deaths(&mut self) -> Vec<Death> {
        let mut deaths = Vec::new();
        for Node { name, process, was_full, .. } in &mut self.nodes {
            for why in process.deaths() {
                let excuse = excuse(&why, *was_full);
                deaths.push(Death { node: name.clone(), why, excuse });
            }
        }
        deaths
    }

    /// Kills all nodes and copies what is on small disks, which pass with the run, to where it stays.
    ///
    /// # Errors
    /// If a node cannot be killed, or its data not be copied.
    pub async fn keep_data(&mut self) -> anyhow::Result<()> {
        for node in 0..NODES {
            self.kill(node).await?;
            let Node { name, role, disk, .. } = &self.nodes[node];
            let (Some(disk), true) = (disk, role.data.exists()) else { continue };
            let copied = Command::new("cp").arg("-a").arg(&role.data).arg(kept(disk)).status();
            let copied = copied.await.context("run cp")?;
            anyhow::ensure!(copied.success(), "copy the data of {name}: {copied}");
        }
        Ok(())
    }

    /// Writes the configurations of the nodes that it has now.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub(super) fn write_papers(&self) -> anyhow::Result<()> {
        let roles: Vec<Role> = self.nodes.iter().map(|node| node.role.clone()).collect();
        self.papers.write(self.number, &roles)
    }

    async fn on_disk(
        &self,
        node: usize,
        work: impl FnOnce(&SmallDisk) -> std::io::Result<()> + Send + 'static,
    ) -> anyhow::Result<()> {
        let disk = self.nodes[node].disk.clone().context("it is no small disk")?;
        // Hundreds of MiB take their time.
        tokio::task::spawn_blocking(move || work(&disk)).await.context("work on a disk")??;
        Ok(())
    }
}

fn kept(disk: &SmallDisk) -> PathBuf {
    disk.folder().with_extension("kept")
}

/// What makes up for a death, if anything does: sled panics on a full disk. It is fenced off, and the
/// node goes on without it. One that ends because its disk is full has no excuse.
fn excuse(why: &str, was_full: bool) -> Option<String> {
    let of_sled = why.contains("panicked at") && why.contains("/sled-");
    (was_full && of_sled).then(|| "a full disk, in sled".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_excuses_a_panic_in_sled_and_nothing_else() {
        let in_sled = "thread 'b' panicked at /root/registry/sled-0.34.7/src/pagecache/mod.rs:1:2:";
        let in_ours = "thread 'b' panicked at server/log/src/writer.rs:1:2:";
        assert!(excuse(in_sled, true).is_some());
        assert!(excuse(in_sled, false).is_none());
        assert!(excuse(in_ours, true).is_none());
        assert!(excuse("ended by itself with exit status: 4, see eu-1.log", true).is_none());
    }
}
