//! Redis' protocol, second version: commands as lists of words, answers of five kinds.

use std::pin::Pin;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, BufWriter};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

const BUFFER: usize = 256 << 10;
/// Longest text and list that is read.
const LEN_MAX: usize = 64 << 20;
const LINE_MAX: u64 = 64 << 10;
/// Lists in lists, as deep as the answer to XREAD.
const DEPTH_MAX: usize = 6;

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Value {
    /// No text, or no list.
    Nothing,
    /// A number.
    Number(i64),
    /// A text, short or long.
    Text(Bytes),
    /// A list of answers.
    List(Vec<Value>),
}

/// What the first line of an answer says.
enum Begin {
    Whole(Value),
    Text(usize),
    List(usize),
}

impl Begin {
    fn parse(line: &str) -> anyhow::Result<Self> {
        let said = || format!("the server said {line:?}");
        let (kind, rest) = line.split_at_checked(1).with_context(said)?;
        if kind == "-" {
            bail!("refused: {rest}");
        }
        if kind == "+" {
            return Ok(Self::Whole(Value::Text(Bytes::copy_from_slice(rest.as_bytes()))));
        }
        let number: i64 = rest.parse().with_context(said)?;
        if kind == ":" {
            return Ok(Self::Whole(Value::Number(number)));
        }
        ensure!(matches!(kind, "$" | "*"), said());
        if number == -1 {
            return Ok(Self::Whole(Value::Nothing));
        }
        let len = usize::try_from(number).ok().filter(|len| *len <= LEN_MAX).with_context(said)?;
        Ok(if kind == "$" { Self::Text(len) } else { Self::List(len) })
    }
}

/// A connection.
pub struct Connection {
    from: BufReader<OwnedReadHalf>,
    to: BufWriter<OwnedWriteHalf>,
}

impl Connection {
    /// Connects to a server of this machine.
    ///
    /// # Errors
    /// If there is none.
    pub async fn open(port: u16) -> anyhow::Result<Self> {
        let socket = TcpStream::connect(("127.0.0.1", port)).await?;
        socket.set_nodelay(true)?;
        let (from, to) = socket.into_split();
        Ok(Self {
            from: BufReader::with_capacity(BUFFER, from),
            to: BufWriter::with_capacity(BUFFER, to),
        })
    }

    /// Sends a command and reads one answer.
    ///
    /// # Errors
    /// If the connection is lost or the server refuses.
    pub async fn call(&mut self, words: &[&[u8]]) -> anyhow::Result<Value> {
        self.ask(words).await?;
        self.to.flush().await?;
        self.answer().await
    }

    /// Writes a command, to be sent with the next [`Self::call`].
    ///
    /// # Errors
    /// If the connection is lost.
    pub async fn ask(&mut self, words: &[&[u8]]) -> anyhow::Result<()> {
        Ok(self.to.write_all(&command(words)).await?)
    }

    /// Reads an answer.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub async fn answer(&mut self) -> anyhow::Result<Value> {
        match self.begin().await? {
            Begin::Whole(value) => Ok(value),
            Begin::Text(len) => self.text(len).await,
            Begin::List(len) => self.list(len, 1).await,
        }
    }

    /// The rest of a list. Boxed since lists are in lists; texts, of which there are many, are not.
    fn list(&mut self, len: usize, depth: usize) -> Listed<'_> {
        Box::pin(async move {
            ensure!(depth <= DEPTH_MAX, "lists in lists, more than {DEPTH_MAX} deep");
            let mut list = Vec::new();
            for _ in 0..len {
                list.push(match self.begin().await? {
                    Begin::Whole(value) => value,
                    Begin::Text(len) => self.text(len).await?,
                    Begin::List(len) => self.list(len, depth + 1).await?,
                });
            }
            Ok(Value::List(list))
        })
    }

    async fn begin(&mut self) -> anyhow::Result<Begin> {
        let mut line = Vec::new();
        (&mut self.from).take(LINE_MAX).read_until(b'\n', &mut line).await?;
        let line = std::str::from_utf8(&line)?;
        Begin::parse(line.strip_suffix("\r\n").context("the connection was closed")?)
    }

    async fn text(&mut self, len: usize) -> anyhow::Result<Value> {
        let mut text = vec![0; len + 2];
        self.from.read_exact(&mut text).await?;
        text.truncate(len);
        Ok(Value::Text(text.into()))
    }
}

type Listed<'a> = Pin<Box<dyn Future<Output = anyhow::Result<Value>> + Send + 'a>>;

/// A command as it is sent.
fn command(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn a_command_is_a_list_of_words() {
        assert_eq!(
            command(&[b"GET", b"", b"a\r\n"]),
            b"*3\r\n$3\r\nGET\r\n$0\r\n\r\n$3\r\na\r\n\r\n"
        );
    }

    async fn answer_to(said: &'static [u8]) -> anyhow::Result<Value> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let mut connection = Connection::open(port).await?;
        let (mut server, _) = listener.accept().await?;
        server.write_all(said).await?;
        drop(server);
        connection.answer().await
    }

    #[tokio::test]
    async fn answers_are_read() -> anyhow::Result<()> {
        let text = |text: &'static str| Value::Text(text.into());
        assert_eq!(answer_to(b"+OK\r\n").await?, text("OK"));
        assert_eq!(answer_to(b":-7\r\n").await?, Value::Number(-7));
        assert_eq!(answer_to(b"*-1\r\n").await?, Value::Nothing);
        let wanted = Value::List(vec![text("a\r"), Value::List(Vec::new()), Value::Nothing]);
        assert_eq!(answer_to(b"*3\r\n$2\r\na\r\r\n*0\r\n$-1\r\n").await?, wanted);
        let bad: [&'static [u8]; 6] = [
            b"-ERR no\r\n",
            b"",
            b"?1\r\n",
            b"$99999999999\r\n",
            b"$5\r\nab",
            b"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n",
        ];
        for said in bad {
            assert!(answer_to(said).await.is_err(), "{:?}", String::from_utf8_lossy(said));
        }
        Ok(())
    }
}
