//! Redis Streams, one node, `appendonly yes` and `appendfsync always`. All events are entries of one
//! key, since that is the one order they are read in; stream and type are fields. A batch is a
//! MULTI/EXEC of as many XADD, sent at once: it is in the file as a whole or not at all.

mod resp;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use async_trait::async_trait;
use bytes::Bytes;

use self::resp::{Connection, Value};
use super::peer::{LAG_STREAM, Peer, Running, Subscriber, fetched};
use super::servers::Servers;
use crate::writers::Writer;

const PORT: u16 = 19_410;
const KEY: &[u8] = b"events";
/// Entries in one answer of a replay.
const PAGE: &[u8] = b"10000";

/// One node.
pub struct Redis {
    binary: PathBuf,
    libraries: PathBuf,
}

impl Redis {
    /// Below the peers' folder.
    pub fn below(peers: &Path) -> Self {
        let root = peers.join("root/usr");
        Self { binary: root.join("bin/redis-server"), libraries: root.join("lib/x86_64-linux-gnu") }
    }
}

#[async_trait]
impl Peer for Redis {
    fn name(&self) -> &'static str {
        "Redis"
    }
    fn missing(&self) -> Option<String> {
        fetched(&self.binary)
    }
    async fn start(&self, folder: &Path) -> anyhow::Result<Box<dyn Running>> {
        let (port, data) = (PORT.to_string(), folder.display().to_string());
        let options = [
            ("--port", port.as_str()),
            ("--bind", "127.0.0.1"),
            ("--dir", data.as_str()),
            ("--appendonly", "yes"),
            ("--appendfsync", "always"),
            // The file that is appended to is all that is kept.
            ("--save", ""),
        ];
        let args = options.into_iter().flat_map(|(name, value)| [name.into(), value.into()]);
        let set_up = |command: &mut tokio::process::Command| {
            command.env("LD_LIBRARY_PATH", &self.libraries);
        };
        let servers = Servers::start(&self.binary, folder, "redis", set_up, &[args.collect()])?;
        Ok(Box::new(Started(servers)))
    }
}

struct Started(Servers);

#[async_trait]
impl Running for Started {
    fn pids(&self) -> anyhow::Result<Vec<u32>> {
        self.0.pids()
    }
    async fn prepare(&self) -> anyhow::Result<()> {
        let mut connection = Connection::open(PORT).await?;
        let said = connection.call(&[b"PING"]).await?;
        ensure!(said == Value::Text(Bytes::from_static(b"PONG")), "PING was answered by {said:?}");
        Ok(())
    }
    async fn writer(&self) -> anyhow::Result<Box<dyn Writer>> {
        Ok(Box::new(Adder(Connection::open(PORT).await?)))
    }
    async fn replay(&self) -> anyhow::Result<u64> {
        let mut connection = Connection::open(PORT).await?;
        let mut after = Bytes::from_static(b"0-0");
        let mut read = 0;
        loop {
            let words: [&[u8]; 6] = [b"XREAD", b"COUNT", PAGE, b"STREAMS", KEY, &after];
            let entries = entries(connection.call(&words).await?)?;
            let Some(last) = entries.last() else { return Ok(read) };
            after = last.0.clone();
            read += entries.len() as u64;
        }
    }
    async fn subscriber(&self) -> anyhow::Result<Box<dyn Subscriber>> {
        let mut connection = Connection::open(PORT).await?;
        let last = connection.call(&[b"XREVRANGE", KEY, b"+", b"-", b"COUNT", b"1"]).await?;
        let after = match last {
            Value::List(mut one) => one.pop().map(entry).transpose()?.map(|(id, _)| id),
            other => bail!("XREVRANGE was answered by {other:?}"),
        };
        let after = after.unwrap_or(Bytes::from_static(b"0-0"));
        Ok(Box::new(Blocked { connection, after, come: Vec::new().into_iter() }))
    }
}

/// An entry: its id, and its fields and values by turns.
type Entry = (Bytes, Vec<Value>);

/// What XREAD of one key answers: nothing, or the key with its entries.
fn entries(answer: Value) -> anyhow::Result<Vec<Entry>> {
    let mut keys = match answer {
        Value::Nothing => return Ok(Vec::new()),
        Value::List(keys) => keys,
        other => bail!("XREAD was answered by {other:?}"),
    };
    let Some(Value::List(mut key)) = keys.pop() else { bail!("XREAD found no key") };
    let Some(Value::List(entries)) = key.pop() else { bail!("XREAD found no entries") };
    entries.into_iter().map(entry).collect()
}

fn entry(value: Value) -> anyhow::Result<Entry> {
    let Value::List(parts) = value else { bail!("{value:?} is no entry") };
    match <[Value; 2]>::try_from(parts) {
        Ok([Value::Text(id), Value::List(fields)]) => Ok((id, fields)),
        other => bail!("{other:?} is no entry"),
    }
}

struct Adder(Connection);

#[async_trait]
impl Writer for Adder {
    async fn append(&mut self, stream: &str, payloads: Vec<Bytes>) -> anyhow::Result<()> {
        let add = |payload| -> [&[u8]; 9] {
            [b"XADD", KEY, b"*", b"s", stream.as_bytes(), b"t", b"Measured", b"p", payload]
        };
        if let [one] = &payloads[..] {
            let id = self.0.call(&add(one)).await?;
            ensure!(matches!(id, Value::Text(_)), "XADD was answered by {id:?}");
            return Ok(());
        }
        self.0.ask(&[b"MULTI"]).await?;
        for payload in &payloads {
            self.0.ask(&add(payload)).await?;
        }
        let done = self.0.call(&[b"EXEC"]).await;
        // MULTI and every XADD are answered as well, before EXEC.
        let mut answer = done?;
        for _ in 0..=payloads.len() {
            answer = self.0.answer().await?;
        }
        let Value::List(ids) = answer else { bail!("EXEC was answered by {answer:?}") };
        ensure!(ids.len() == payloads.len(), "{} of {} were added", ids.len(), payloads.len());
        Ok(())
    }
}

struct Blocked {
    connection: Connection,
    after: Bytes,
    come: std::vec::IntoIter<Entry>,
}

#[async_trait]
impl Subscriber for Blocked {
    async fn next(&mut self) -> anyhow::Result<Bytes> {
        loop {
            for (id, fields) in self.come.by_ref() {
                self.after = id;
                if fields.get(1) == Some(&Value::Text(LAG_STREAM.into())) {
                    let Some(Value::Text(payload)) = fields.into_iter().nth(5) else {
                        bail!("an entry without a payload");
                    };
                    return Ok(payload);
                }
            }
            let words: [&[u8]; 6] = [b"XREAD", b"BLOCK", b"0", b"STREAMS", KEY, &self.after];
            let answer = self.connection.call(&words).await.context("wait for entries")?;
            self.come = entries(answer)?.into_iter();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_found_in_what_xread_answers() {
        let text = |text: &'static str| Value::Text(text.into());
        let entry = Value::List(vec![text("1-0"), Value::List(vec![text("s"), text("a")])]);
        let answer = Value::List(vec![Value::List(vec![text("events"), Value::List(vec![entry])])]);
        let found = entries(answer).unwrap();
        assert_eq!(found, [("1-0".into(), vec![text("s"), text("a")])]);
        assert_eq!(entries(Value::Nothing).unwrap(), []);
        assert!(entries(Value::List(Vec::new())).is_err());
        assert!(entries(text("OK")).is_err());
    }
}
