//! PostgreSQL's protocol, version 3, as far as it is needed: questions as text, one prepared statement,
//! COPY both ways, notifications. No password: the server trusts this machine.

use anyhow::{Context as _, bail, ensure};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

const BUFFER: usize = 256 << 10;
/// Largest message that is read.
const MESSAGE_MAX: usize = 64 << 20;
const VERSION: i32 = 3 << 16;
/// The name of the prepared statement: one without a name is gone with the next question.
const STATEMENT: &[u8] = b"one\0";

/// A connection.
pub struct Connection {
    socket: BufReader<TcpStream>,
    /// Notifications that came between other answers.
    notified: bool,
}

/// A message of the server: what it is, and the rest.
type Message = (u8, Bytes);

impl Connection {
    /// Connects to a server of this machine, as `postgres` to the database of that name.
    ///
    /// # Errors
    /// If there is none, or it is not up yet.
    pub async fn open(port: u16) -> anyhow::Result<Self> {
        let socket = TcpStream::connect(("127.0.0.1", port)).await?;
        socket.set_nodelay(true)?;
        let socket = BufReader::with_capacity(BUFFER, socket);
        let mut opened = Self { socket, notified: false };
        let mut hello = BytesMut::new();
        hello.put_i32(VERSION);
        hello.put_slice(b"user\0postgres\0database\0postgres\0\0");
        let mut bytes = BytesMut::new();
        bytes.put_i32(hello.len() as i32 + 4);
        bytes.put_slice(&hello);
        opened.socket.write_all(&bytes).await?;
        opened.until_ready().await?;
        Ok(opened)
    }

    /// Runs statements whose answer does not matter.
    ///
    /// # Errors
    /// If the connection is lost or the server refuses.
    pub async fn run(&mut self, statements: &str) -> anyhow::Result<()> {
        self.rows(statements).await?;
        Ok(())
    }

    /// The rows that a question yields, fields as text; one that is null is empty.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn rows(&mut self, question: &str) -> anyhow::Result<Vec<Vec<Bytes>>> {
        self.socket.write_all(&query(question)).await?;
        let messages = self.until_ready().await?;
        let rows = messages.into_iter().filter(|(kind, _)| *kind == b'D');
        rows.map(|(_, row)| fields(row)).collect()
    }

    /// Prepares the statement that [`Self::execute`] runs.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn prepare(&mut self, statement: &str) -> anyhow::Result<()> {
        let mut bytes = BytesMut::new();
        message(&mut bytes, b'P', |to| {
            to.put_slice(STATEMENT);
            to.put_slice(statement.as_bytes());
            to.put_slice(b"\0\0\0");
        });
        message(&mut bytes, b'S', |_| {});
        self.socket.write_all(&bytes).await?;
        self.until_ready().await?;
        Ok(())
    }

    /// Runs the prepared statement with values in binary form.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn execute(&mut self, values: &[&[u8]]) -> anyhow::Result<()> {
        self.socket.write_all(&execution(values)).await?;
        let messages = self.until_ready().await?;
        ensure!(messages.iter().any(|(kind, _)| *kind == b'C'), "the statement was not completed");
        Ok(())
    }

    /// Runs a COPY from here; nothing is waited for before the data is sent.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn copy_in(&mut self, statement: &str, data: BytesMut) -> anyhow::Result<()> {
        let mut bytes = query(statement);
        message(&mut bytes, b'd', |to| to.put_slice(&data));
        message(&mut bytes, b'c', |_| {});
        self.socket.write_all(&bytes).await?;
        let messages = self.until_ready().await?;
        ensure!(messages.iter().any(|(kind, _)| *kind == b'C'), "the copy was not completed");
        Ok(())
    }

    /// Begins a COPY to here, read with [`Self::row`].
    ///
    /// # Errors
    /// If the connection is lost.
    pub async fn copy_out(&mut self, statement: &str) -> anyhow::Result<()> {
        Ok(self.socket.write_all(&query(statement)).await?)
    }

    /// The next row of a COPY; none after the last.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn row(&mut self) -> anyhow::Result<Option<Bytes>> {
        loop {
            match self.message().await? {
                (b'd', row) => return Ok(Some(row)),
                (b'Z', _) => return Ok(None),
                _ => {}
            }
        }
    }

    /// Waits until something was notified since it was asked last.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn notified(&mut self) -> anyhow::Result<()> {
        while !self.notified {
            self.message().await?;
        }
        self.notified = false;
        Ok(())
    }

    /// All that is answered, up to the word that the server is ready for more.
    async fn until_ready(&mut self) -> anyhow::Result<Vec<Message>> {
        let mut messages = Vec::new();
        loop {
            match self.message().await? {
                (b'Z', _) => return Ok(messages),
                message => messages.push(message),
            }
        }
    }

    async fn message(&mut self) -> anyhow::Result<Message> {
        let kind = self.socket.read_u8().await?;
        let len = usize::try_from(self.socket.read_i32().await?)?;
        ensure!((4..=MESSAGE_MAX).contains(&len), "a message of {len} bytes");
        let mut rest = vec![0; len - 4];
        self.socket.read_exact(&mut rest).await?;
        match kind {
            b'E' => bail!("refused: {}", refusal(&rest)),
            b'R' => ensure!(rest == [0; 4], "the server wants a password"),
            b'A' => self.notified = true,
            _ => {}
        }
        Ok((kind, rest.into()))
    }
}

/// Adds a message: what it is, its length, and what `rest` writes.
fn message(to: &mut BytesMut, kind: u8, rest: impl FnOnce(&mut BytesMut)) {
    to.put_u8(kind);
    let at = to.len();
    to.put_i32(0);
    rest(to);
    let len = (to.len() - at) as i32;
    to[at..at + 4].copy_from_slice(&len.to_be_bytes());
}

/// A question as text.
fn query(text: &str) -> BytesMut {
    let mut bytes = BytesMut::new();
    message(&mut bytes, b'Q', |to| {
        to.put_slice(text.as_bytes());
        to.put_u8(0);
    });
    bytes
}

/// Bind, execute and sync of the prepared statement.
fn execution(values: &[&[u8]]) -> BytesMut {
    let mut bytes = BytesMut::new();
    message(&mut bytes, b'B', |to| {
        // A portal without a name.
        to.put_u8(0);
        to.put_slice(STATEMENT);
        // All values are binary.
        to.put_slice(&[0, 1, 0, 1]);
        to.put_i16(values.len() as i16);
        for value in values {
            to.put_i32(value.len() as i32);
            to.put_slice(value);
        }
        to.put_i16(0);
    });
    message(&mut bytes, b'E', |to| to.put_slice(&[0; 5]));
    message(&mut bytes, b'S', |_| {});
    bytes
}

/// The fields of a row.
fn fields(mut row: Bytes) -> anyhow::Result<Vec<Bytes>> {
    let count = row.try_get_i16().context("a row without a count")?;
    let mut fields = Vec::new();
    for _ in 0..count {
        let len = row.try_get_i32().context("a row that is too short")?;
        let len = usize::try_from(len).unwrap_or(0);
        ensure!(len <= row.len(), "a field of {len} bytes in a row with {} left", row.len());
        fields.push(row.split_to(len));
    }
    Ok(fields)
}

/// What an error says: severity, code and message among fields that each end with a zero.
fn refusal(rest: &[u8]) -> String {
    let fields =
        rest.split(|byte| *byte == 0).filter(|field| matches!(field.first(), Some(b'C' | b'M')));
    let texts = fields.map(|field| String::from_utf8_lossy(&field[1..]).into_owned());
    texts.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_say_their_length() {
        assert_eq!(query("x")[..], *b"Q\0\0\0\x06x\0");
        let bytes = execution(&[b"ab"]);
        let bind = b"B\0\0\0\x17\0one\0\0\x01\0\x01\0\x01\0\0\0\x02ab\0\0";
        assert_eq!(bytes[..bind.len()], *bind);
        assert_eq!(bytes[bind.len()..], *b"E\0\0\0\x09\0\0\0\0\0S\0\0\0\x04");
    }

    #[test]
    fn rows_and_refusals_are_read() {
        let row = Bytes::from_static(b"\0\x02\0\0\0\x01a\xff\xff\xff\xff");
        assert_eq!(fields(row).unwrap(), [Bytes::from_static(b"a"), Bytes::new()]);
        assert!(fields(Bytes::from_static(b"\0\x01\0\0\0\x09a")).is_err());
        assert_eq!(refusal(b"SERROR\0C23505\0Mtwice\0\0"), "23505 twice");
    }
}
