//! PostgreSQL 15, one node, as it comes (fsync and synchronous commit are on), with one table of
//! events: a position over all, and each revision of a stream once. One event is a prepared INSERT, a
//! batch is one COPY in binary form, the cheapest way there is; each is a transaction of its own.
//!
//! A subscriber listens to a channel that a trigger notifies, and selects what is behind its position.
//! The trigger is made with the subscriber, so appends are measured without it.

mod wire;

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use async_trait::async_trait;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::process::Command;

use self::wire::Connection;
use super::peer::{LAG_STREAM, Peer, Running, Subscriber};
use super::servers::Servers;
use crate::writers::Writer;

const PORT: u16 = 19_430;
/// Where Debian's package puts the programs.
const BIN: &str = "/usr/lib/postgresql/15/bin";
/// The server refuses to run as root; it is run as this user then, who comes with the package.
const USER: &str = "postgres";

const TABLE: &str = "CREATE TABLE IF NOT EXISTS events (
    position bigserial PRIMARY KEY, stream text NOT NULL, revision bigint NOT NULL,
    type text NOT NULL, payload bytea NOT NULL, UNIQUE (stream, revision))";
const INSERT: &str = "INSERT INTO events (stream, revision, type, payload) VALUES ($1, $2, $3, $4)";
const COPY: &str = "COPY events (stream, revision, type, payload) FROM STDIN (FORMAT binary)";
const REPLAY: &str = "COPY (SELECT position, stream, revision, type, payload FROM events \
                      ORDER BY position) TO STDOUT (FORMAT binary)";
const TRIGGER: &str = "CREATE OR REPLACE FUNCTION told() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN NOTIFY events; RETURN NULL; END $$;
    CREATE OR REPLACE TRIGGER told AFTER INSERT ON events FOR EACH STATEMENT EXECUTE FUNCTION told()";

/// Before the rows of a COPY in binary form: signature, flags, length of what else there is.
const COPY_HEAD: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// In place of the number of fields: no more rows.
const COPY_END: i16 = -1;

/// One node.
pub struct Postgres {
    bin: PathBuf,
}

impl Postgres {
    /// Where Debian's package puts it.
    pub fn usual() -> Self {
        Self { bin: BIN.into() }
    }

    /// A new database below `folder`, unless it is there.
    async fn make(&self, folder: &Path, data: &Path) -> anyhow::Result<()> {
        fs::create_dir_all(folder).context("create a folder for PostgreSQL")?;
        if data.is_dir() {
            return Ok(());
        }
        if let Some((user, group)) = other_user()? {
            chown(folder, Some(user), Some(group)).context("give a folder away")?;
            // Its user must reach the folder; the parent is ours and new.
            let parent = folder.parent().context("a folder below nothing")?;
            let mode = fs::Permissions::from_mode(0o755);
            fs::set_permissions(parent, mode).context("open the way to a folder")?;
        }
        let (binary, args) = as_user(&self.bin.join("initdb"))?;
        let mut command = Command::new(binary);
        command.args(args).args(["--auth=trust", "--username=postgres", "--no-sync", "--pgdata"]);
        let made = command.arg(data).current_dir("/").output().await.context("run initdb")?;
        ensure!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        Ok(())
    }
}

/// The user and group to run as, if this is root.
fn other_user() -> anyhow::Result<Option<(u32, u32)>> {
    if fs::metadata("/proc/self").context("look at this process")?.uid() != 0 {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd").context("read the users")?;
    let line = users.lines().find(|line| line.starts_with(&format!("{USER}:")));
    let mut ids = line.with_context(|| format!("no user {USER}"))?.split(':').skip(2);
    let mut id = || anyhow::Ok(ids.next().context("a user without numbers")?.parse::<u32>()?);
    Ok(Some((id()?, id()?)))
}

/// How to run a program as a user that PostgreSQL runs as.
fn as_user(binary: &Path) -> anyhow::Result<(PathBuf, Vec<String>)> {
    let Some((user, group)) = other_user()? else { return Ok((binary.to_owned(), Vec::new())) };
    let (user, group) = (format!("--reuid={user}"), format!("--regid={group}"));
    let args = vec![user, group, "--clear-groups".to_owned(), binary.display().to_string()];
    Ok(("setpriv".into(), args))
}

#[async_trait]
impl Peer for Postgres {
    fn name(&self) -> &'static str {
        "PostgreSQL"
    }
    fn missing(&self) -> Option<String> {
        let there = self.bin.join("postgres").is_file();
        (!there).then(|| format!("{BIN} is not there: apt-get install postgresql-15"))
    }
    async fn start(&self, folder: &Path) -> anyhow::Result<Box<dyn Running>> {
        let data = folder.join("data");
        self.make(folder, &data).await?;
        let (binary, mut args) = as_user(&self.bin.join("postgres"))?;
        let options = [
            format!("--port={PORT}"),
            "--listen_addresses=127.0.0.1".into(),
            "--unix_socket_directories=".into(),
            "-D".into(),
            data.display().to_string(),
        ];
        args.extend(options);
        // Servers killed a moment ago leave this behind, and its number may be anybody's by now.
        let _ = fs::remove_file(data.join("postmaster.pid"));
        let servers = Servers::start(&binary, folder, "postgres", |_| {}, &[args])?;
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
        Connection::open(PORT).await?.run(TABLE).await
    }
    async fn writer(&self) -> anyhow::Result<Box<dyn Writer>> {
        let mut connection = Connection::open(PORT).await?;
        connection.prepare(INSERT).await?;
        Ok(Box::new(Inserter { connection, revisions: HashMap::new() }))
    }
    async fn replay(&self) -> anyhow::Result<u64> {
        let mut connection = Connection::open(PORT).await?;
        connection.copy_out(REPLAY).await?;
        let (mut read, mut last) = (0, 0);
        while let Some(mut row) = connection.row().await? {
            // The first message has the head before its row; the last one is the end and no row.
            if row.starts_with(COPY_HEAD) {
                row.advance(COPY_HEAD.len());
            }
            if row.try_get_i16().context("an empty row")? == COPY_END {
                continue;
            }
            let position = field(&mut row)?.try_get_i64().context("a position")?;
            ensure!(position > last, "position {position} came after {last}");
            let rest = (field(&mut row)?, field(&mut row)?, field(&mut row)?, field(&mut row)?);
            std::hint::black_box(rest);
            (read, last) = (read + 1, position);
        }
        Ok(read)
    }
    async fn subscriber(&self) -> anyhow::Result<Box<dyn Subscriber>> {
        let mut connection = Connection::open(PORT).await?;
        connection.run(TRIGGER).await?;
        connection.run("LISTEN events").await?;
        let rows = connection.rows("SELECT coalesce(max(position), 0) FROM events").await?;
        let position = number(rows.first().and_then(|row| row.first()).context("no row")?)?;
        Ok(Box::new(Listener { connection, position, come: Vec::new().into_iter() }))
    }
}

/// A field of a row in binary form.
fn field(row: &mut Bytes) -> anyhow::Result<Bytes> {
    let len = usize::try_from(row.try_get_i32().context("a row without a field")?)?;
    ensure!(len <= row.len(), "a field of {len} bytes in a row with {} left", row.len());
    Ok(row.split_to(len))
}

fn number(text: &Bytes) -> anyhow::Result<i64> {
    Ok(std::str::from_utf8(text)?.parse()?)
}

struct Inserter {
    connection: Connection,
    /// Next revision of each stream; only this writer writes to its streams.
    revisions: HashMap<String, i64>,
}

#[async_trait]
impl Writer for Inserter {
    async fn append(&mut self, stream: &str, payloads: Vec<Bytes>) -> anyhow::Result<()> {
        let next = match self.revisions.get_mut(stream) {
            Some(next) => next,
            None => {
                let quoted = stream.replace('\'', "''");
                let ask = "SELECT coalesce(max(revision) + 1, 0) FROM events WHERE stream = ";
                let rows = self.connection.rows(&format!("{ask}'{quoted}'")).await?;
                let found = number(rows.first().and_then(|row| row.first()).context("no row")?)?;
                self.revisions.entry(stream.to_owned()).or_insert(found)
            }
        };
        let first = *next;
        *next += payloads.len() as i64;
        if let [one] = &payloads[..] {
            let revision = first.to_be_bytes();
            let values: [&[u8]; 4] = [stream.as_bytes(), &revision, b"Measured", one];
            return self.connection.execute(&values).await;
        }
        self.connection.copy_in(COPY, copied(stream, first, &payloads)).await
    }
}

/// Rows as COPY takes them in binary form.
fn copied(stream: &str, first: i64, payloads: &[Bytes]) -> BytesMut {
    let mut rows = BytesMut::from(COPY_HEAD);
    for (revision, payload) in (first..).zip(payloads) {
        rows.put_i16(4);
        let revision = revision.to_be_bytes();
        for value in [stream.as_bytes(), &revision, b"Measured", payload] {
            rows.put_i32(value.len() as i32);
            rows.put_slice(value);
        }
    }
    rows.put_i16(COPY_END);
    rows
}

struct Listener {
    connection: Connection,
    position: i64,
    come: std::vec::IntoIter<Vec<Bytes>>,
}

#[async_trait]
impl Subscriber for Listener {
    async fn next(&mut self) -> anyhow::Result<Bytes> {
        loop {
            if let Some(row) = self.come.next() {
                let [position, payload] = &row[..] else { anyhow::bail!("a row of {}", row.len()) };
                self.position = number(position)?;
                return hex(payload);
            }
            self.connection.notified().await?;
            let select = "SELECT position, payload FROM events WHERE stream = ";
            let rest = format!("'{LAG_STREAM}' AND position > {} ORDER BY position", self.position);
            self.come = self.connection.rows(&format!("{select}{rest}")).await?.into_iter();
        }
    }
}

/// Bytes, from the text that PostgreSQL makes of them: `\x07ff`.
fn hex(text: &[u8]) -> anyhow::Result<Bytes> {
    let digits = text.strip_prefix(b"\\x").context("no bytes")?;
    let byte = |pair: &[u8]| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?);
    digits.chunks(2).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_written_and_read_alike() {
        let payloads = [Bytes::from_static(b"a"), Bytes::new()];
        let mut rows = copied("s", 7, &payloads).freeze();
        assert!(rows.starts_with(COPY_HEAD));
        rows.advance(COPY_HEAD.len());
        for (revision, payload) in (7_i64..).zip(payloads) {
            assert_eq!(rows.get_i16(), 4);
            assert_eq!(field(&mut rows).unwrap(), "s");
            assert_eq!(field(&mut rows).unwrap().get_i64(), revision);
            assert_eq!(field(&mut rows).unwrap(), "Measured");
            assert_eq!(field(&mut rows).unwrap(), payload);
        }
        assert_eq!((rows.get_i16(), rows.len()), (COPY_END, 0));
        assert!(field(&mut Bytes::from_static(&[0, 0, 0, 9, 1])).is_err());
    }

    #[test]
    fn bytes_are_read_from_their_text() {
        assert_eq!(hex(b"\\x07ff").unwrap(), &[7, 255][..]);
        assert!(hex(b"07").is_err() && hex(b"\\xzz").is_err());
    }
}
