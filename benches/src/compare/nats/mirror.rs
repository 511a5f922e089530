//! Two sites of NATS: a server that others join as leaf nodes, and one that joins it and holds a mirror
//! of its stream. Each has a JetStream domain of its own, so the first is written to while the second is
//! away.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Value, json};

use super::wire::Connection;
use super::{FIRST_PORT, Publisher, STREAM, Syncs, api, jetstream, stream};
use crate::catch_up::Sites;
use crate::compare::peer::{Pair, until};
use crate::compare::servers::{self, Servers};
use crate::writers::Writer;

/// For clients of the first site and of the second.
const PORTS: [u16; 2] = [FIRST_PORT + 6, FIRST_PORT + 7];
/// Where the first site waits for the second.
const JOIN_PORT: u16 = FIRST_PORT + 16;
/// The sites' names, of server and domain.
const NAMES: [&str; 2] = ["hub", "leaf"];
/// The second site's copy of the stream.
const MIRROR: &str = "MIRROR";

/// A stream and its mirror.
pub struct Mirror {
    pub binary: PathBuf,
    pub syncs: Syncs,
}

impl Pair for Mirror {
    fn name(&self) -> &'static str {
        match self.syncs {
            Syncs::Always => "NATS mirror",
            Syncs::Seldom => "NATS mirror, no sync",
        }
    }
    fn start(&self, folder: &Path) -> anyhow::Result<Box<dyn Sites>> {
        fs::create_dir_all(folder).context("create a folder for NATS")?;
        let start = |site: usize| {
            let path = folder.join(format!("{}.conf", NAMES[site]));
            fs::write(&path, config(site, self.syncs, folder)).context("write a configuration")?;
            Site::start(site, self.binary.clone(), path)
        };
        Ok(Box::new(Mirrored { sites: [start(0)?, start(1)?] }))
    }
}

fn config(site: usize, syncs: Syncs, folder: &Path) -> String {
    let (name, port) = (NAMES[site], PORTS[site]);
    let leafnodes = match site {
        0 => format!("listen: \"127.0.0.1:{JOIN_PORT}\""),
        _ => format!("remotes: [{{ url: \"nats://127.0.0.1:{JOIN_PORT}\" }}]"),
    };
    format!(
        "server_name: {name}\nlisten: \"127.0.0.1:{port}\"\n{}leafnodes {{ {leafnodes} }}\n",
        jetstream(&folder.join(name), syncs, Some(name))
    )
}

/// A server that runs or was killed.
struct Site {
    site: usize,
    binary: PathBuf,
    config: PathBuf,
    servers: Servers,
    /// For questions, once there was one that was answered.
    connection: Option<Connection>,
}

impl Site {
    fn start(site: usize, binary: PathBuf, config: PathBuf) -> anyhow::Result<Self> {
        let folder = config.parent().context("a configuration lies in a folder")?;
        let node = vec!["--config".to_owned(), config.display().to_string()];
        let servers = Servers::start(&binary, folder, NAMES[site], |_| {}, &[node])?;
        Ok(Self { site, binary, config, servers, connection: None })
    }

    /// Asks JetStream's own API. A connection whose question was not answered is not used again: the
    /// answer may come later.
    async fn ask(&mut self, what: &str, asks: &Value) -> anyhow::Result<Value> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(PORTS[self.site]).await?,
        };
        let answer = api(&mut connection, what, asks).await?;
        self.connection = Some(connection);
        Ok(answer)
    }

    async fn held(&mut self) -> anyhow::Result<u64> {
        let stream = [STREAM, MIRROR][self.site];
        let info = self.ask(&format!("STREAM.INFO.{stream}"), &Value::Null).await?;
        messages(&info)
    }
}

/// How many messages a stream holds: it counts one when it has written it, and synced it if it is to.
fn messages(info: &Value) -> anyhow::Result<u64> {
    let held = info["state"]["messages"].as_u64();
    held.with_context(|| format!("a stream without a count: {info}"))
}

/// The second site's stream: all that the first one's holds, through the API of its domain.
fn mirror() -> Value {
    let api = format!("$JS.{}.API", NAMES[0]);
    json!({
        "name": MIRROR, "storage": "file", "retention": "limits", "num_replicas": 1, "discard": "new",
        "mirror": { "name": STREAM, "external": { "api": api } },
    })
}

struct Mirrored {
    sites: [Site; 2],
}

#[async_trait(?Send)]
impl Sites for Mirrored {
    fn count(&self) -> usize {
        self.sites.len()
    }
    fn pids(&self) -> anyhow::Result<Vec<u32>> {
        let [first, second] = &self.sites;
        Ok([first.servers.pids()?, second.servers.pids()?].concat())
    }
    async fn ready(&mut self) -> anyhow::Result<u64> {
        let [first, second] = &mut self.sites;
        // The same again is no error.
        let create = |name| format!("STREAM.CREATE.{name}");
        until(async || first.ask(&create(STREAM), &stream(1)).await.map(drop)).await?;
        until(async || second.ask(&create(MIRROR), &mirror()).await.map(drop)).await?;
        let (_, mut writer) = self.writers(1).await?.remove(0);
        writer.append("ready-1", vec![Bytes::from_static(b"ready")]).await.context("write")?;
        until(async || {
            let held = self.sites[1].held().await?;
            ensure!(held == 1, "the mirror holds {held} messages of 1");
            Ok(())
        })
        .await?;
        Ok(1)
    }
    async fn writers(&self, count: usize) -> anyhow::Result<Vec<(String, Box<dyn Writer>)>> {
        let mut writers: Vec<(String, Box<dyn Writer>)> = Vec::new();
        for nth in 0..count {
            let connection = Connection::open(PORTS[0]).await?;
            let publisher = Publisher { connection, atomic: true, made: 0 };
            writers.push((format!("load-{nth}"), Box::new(publisher)));
        }
        Ok(writers)
    }
    async fn held(&mut self, site: usize) -> anyhow::Result<u64> {
        self.sites[site].held().await
    }
    async fn kill_last(&mut self) -> anyhow::Result<()> {
        servers::kill(&self.sites[1].servers.pids()?).await
    }
    fn start_last(&mut self) -> anyhow::Result<()> {
        let Site { site, binary, config, .. } = &self.sites[1];
        self.sites[1] = Site::start(*site, binary.clone(), config.clone())?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_site_joins_the_first_one_and_mirrors_its_stream() {
        let [hub, leaf] = [0, 1].map(|site| config(site, Syncs::Always, Path::new("/d")));
        assert!(hub.contains("domain: hub, sync_interval: always"), "{hub}");
        assert!(hub.ends_with("leafnodes { listen: \"127.0.0.1:19436\" }\n"), "{hub}");
        assert!(leaf.contains("domain: leaf, sync_interval: always"), "{leaf}");
        let joins = "leafnodes { remotes: [{ url: \"nats://127.0.0.1:19436\" }] }\n";
        assert!(leaf.ends_with(joins), "{leaf}");
        assert_eq!(mirror()["mirror"]["external"]["api"], "$JS.hub.API");
        assert_eq!(mirror()["mirror"]["name"], stream(1)["name"]);
    }

    #[test]
    fn what_does_not_sync_says_so_in_its_name() {
        let seldom = Mirror { binary: PathBuf::new(), syncs: Syncs::Seldom };
        assert_eq!(seldom.name(), "NATS mirror, no sync");
        let leaf = config(1, seldom.syncs, Path::new("/d"));
        assert!(!leaf.contains("sync_interval"), "{leaf}");
    }

    #[test]
    fn messages_are_those_that_the_stream_holds() -> anyhow::Result<()> {
        let info = json!({ "state": { "messages": 7, "last_seq": 9 }, "mirror": { "lag": 2 } });
        assert_eq!(messages(&info)?, 7);
        let error = messages(&json!({ "config": {} })).unwrap_err();
        assert!(error.to_string().starts_with("a stream without a count"), "{error}");
        Ok(())
    }
}
