//! NATS' text protocol, as far as it is needed: publish with and without headers, one inbox.

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, BufWriter};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

const BUFFER: usize = 256 << 10;
/// Longest line, and largest message, that is read.
const LINE_MAX: usize = 64 << 10;
const MESSAGE_MAX: usize = 64 << 20;

/// A connection with an inbox to which all answers come.
pub struct Connection {
    from: BufReader<OwnedReadHalf>,
    to: BufWriter<OwnedWriteHalf>,
    /// Given by the server, different for each connection to a node.
    id: String,
    line: Vec<u8>,
}

/// A message that came.
#[derive(Debug)]
pub struct Message {
    /// Where an answer goes.
    pub reply: Option<String>,
    /// With their first line; empty if there are none.
    pub headers: String,
    /// The rest.
    pub payload: Bytes,
}

impl Message {
    /// The place in its stream, of a message that a consumer delivered. It is in the subject for
    /// acknowledgements: `$JS.ACK.stream.consumer.times.place.…`.
    pub fn sequence(&self) -> Option<u64> {
        let reply = self.reply.as_deref()?.strip_prefix("$JS.ACK.")?;
        reply.split('.').rev().nth(3)?.parse().ok()
    }
}

/// What a line of the server says.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Info { id: String },
    Message { reply: Option<String>, headers: usize, total: usize },
    Ping,
    Pong,
    Fine,
}

impl Line {
    fn parse(line: &str) -> anyhow::Result<Self> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let said = || format!("the server said {line:?}");
        match word {
            "INFO" => {
                let info: serde_json::Value = serde_json::from_str(rest).with_context(said)?;
                let (server, client) = (&info["server_id"], &info["client_id"]);
                let server = server.as_str().with_context(said)?;
                Ok(Self::Info { id: format!("{server}{client}") })
            }
            "MSG" | "HMSG" => {
                let parts: Vec<&str> = rest.split_ascii_whitespace().collect();
                let sizes = if word == "MSG" { 1 } else { 2 };
                ensure!((2 + sizes..=3 + sizes).contains(&parts.len()), said());
                let reply = (parts.len() == 3 + sizes).then(|| parts[2].to_owned());
                let total = parts[parts.len() - 1].parse().with_context(said)?;
                let headers = parts[parts.len() - sizes].parse().with_context(said)?;
                let headers = if sizes == 1 { 0 } else { headers };
                ensure!(headers <= total && total <= MESSAGE_MAX, said());
                Ok(Self::Message { reply, headers, total })
            }
            "PING" => Ok(Self::Ping),
            "PONG" => Ok(Self::Pong),
            "+OK" => Ok(Self::Fine),
            _ => bail!(said()),
        }
    }
}

impl Connection {
    /// Connects to a node of this machine.
    ///
    /// # Errors
    /// If it does not answer as a NATS server does.
    pub async fn open(port: u16) -> anyhow::Result<Self> {
        let socket = TcpStream::connect(("127.0.0.1", port)).await?;
        socket.set_nodelay(true)?;
        let (from, to) = socket.into_split();
        let from = BufReader::with_capacity(BUFFER, from);
        let to = BufWriter::with_capacity(BUFFER, to);
        let mut opened = Self { from, to, id: String::new(), line: Vec::new() };
        let Line::Info { id } = opened.line().await? else {
            bail!("the server does not say hello")
        };
        opened.id = id;
        let hello = concat!(
            r#"CONNECT {"verbose":false,"pedantic":false,"headers":true,"no_responders":true,"#,
            r#""lang":"bench","version":"1","protocol":1}"#
        );
        let inbox = opened.inbox(">");
        opened.to.write_all(format!("{hello}\r\nSUB {inbox} 1\r\nPING\r\n").as_bytes()).await?;
        opened.flush().await?;
        while opened.line().await? != Line::Pong {}
        Ok(opened)
    }

    /// Tells this connection from others.
    pub fn id(&self) -> &str {
        &self.id
    }
    /// The subject to which answers of a kind come.
    pub fn inbox(&self, kind: &str) -> String {
        format!("_INBOX.{}.{kind}", self.id)
    }

    /// Publishes; sent by [`Self::flush`] at the latest. `reply` is a kind of answer.
    ///
    /// # Errors
    /// If the connection is lost.
    pub async fn publish(
        &mut self,
        subject: &str,
        reply: Option<&str>,
        headers: Option<&str>,
        payload: &[u8],
    ) -> anyhow::Result<()> {
        let reply = reply.map(|kind| self.inbox(kind));
        let head = head(subject, reply.as_deref(), headers.map(str::len), payload.len());
        self.to.write_all(head.as_bytes()).await?;
        self.to.write_all(headers.unwrap_or_default().as_bytes()).await?;
        self.to.write_all(payload).await?;
        self.to.write_all(b"\r\n").await?;
        Ok(())
    }

    /// Sends what was published.
    ///
    /// # Errors
    /// If the connection is lost.
    pub async fn flush(&mut self) -> anyhow::Result<()> {
        Ok(self.to.flush().await?)
    }

    /// The next message that comes.
    ///
    /// # Errors
    /// If the connection is lost, or the server says that something was wrong.
    pub async fn next(&mut self) -> anyhow::Result<Message> {
        loop {
            match self.line().await? {
                Line::Message { reply, headers, total } => {
                    let mut bytes = vec![0; total + 2];
                    self.from.read_exact(&mut bytes).await?;
                    bytes.truncate(total);
                    let mut bytes = Bytes::from(bytes);
                    let headers = String::from_utf8(bytes.split_to(headers).into())?;
                    return Ok(Message { reply, headers, payload: bytes });
                }
                Line::Ping => {
                    self.to.write_all(b"PONG\r\n").await?;
                    self.flush().await?;
                }
                Line::Info { .. } | Line::Pong | Line::Fine => {}
            }
        }
    }

    async fn line(&mut self) -> anyhow::Result<Line> {
        self.line.clear();
        let mut limited = (&mut self.from).take(LINE_MAX as u64);
        limited.read_until(b'\n', &mut self.line).await?;
        let line = std::str::from_utf8(&self.line)?;
        Line::parse(line.strip_suffix("\r\n").context("the connection was closed")?.trim_end())
    }
}

/// The first line of a publish.
fn head(subject: &str, reply: Option<&str>, headers: Option<usize>, payload: usize) -> String {
    let reply = reply.map(|reply| format!("{reply} ")).unwrap_or_default();
    match headers {
        None => format!("PUB {subject} {reply}{payload}\r\n"),
        Some(headers) => format!("HPUB {subject} {reply}{headers} {}\r\n", headers + payload),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publish_says_its_sizes() {
        assert_eq!(head("a.b", None, None, 3), "PUB a.b 3\r\n");
        assert_eq!(head("a.b", Some("in"), None, 3), "PUB a.b in 3\r\n");
        assert_eq!(head("a.b", Some("in"), Some(12), 3), "HPUB a.b in 12 15\r\n");
    }

    #[test]
    fn lines_of_the_server_are_read() -> anyhow::Result<()> {
        let message = |reply: Option<&str>, headers, total| Line::Message {
            reply: reply.map(str::to_owned),
            headers,
            total,
        };
        assert_eq!(Line::parse("MSG in.ack 1 5")?, message(None, 0, 5));
        assert_eq!(Line::parse("MSG in.ack 1 $JS.ACK.x 5")?, message(Some("$JS.ACK.x"), 0, 5));
        assert_eq!(Line::parse("HMSG in.ack 1 12 15")?, message(None, 12, 15));
        assert_eq!(Line::parse("HMSG in.ack 1 r 12 15")?, message(Some("r"), 12, 15));
        assert_eq!(Line::parse("PING")?, Line::Ping);
        let info = r#"INFO {"server_id":"NA","client_id":7}"#;
        assert_eq!(Line::parse(info)?, Line::Info { id: "NA7".into() });
        for bad in ["-ERR 'no'", "MSG in", "HMSG in 1 9 5", "MSG in 1 99999999999", ""] {
            assert!(Line::parse(bad).is_err(), "{bad:?}");
        }
        Ok(())
    }

    #[test]
    fn the_place_in_the_stream_is_in_the_reply() {
        let delivered = |reply: &str| Message {
            reply: Some(reply.to_owned()),
            headers: String::new(),
            payload: Bytes::new(),
        };
        let reply = "$JS.ACK.EVENTS.c.1.42.40.1700000000.7";
        assert_eq!(delivered(reply).sequence(), Some(42));
        assert_eq!(delivered("$JS.ACK.7").sequence(), None);
    }
}
