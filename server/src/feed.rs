//! History files: events as newline-delimited JSON, plain or compressed with zstd.
//!
//! ```json
//! {"region":"europe","time":1312242084,"stream":"file-LICENSE","type":"FileChanged","data":{"added":202}}
//! ```
//!
//! `region` is where it happened, `time` when, in seconds since 1970. `data` is the payload, byte for
//! byte as it stands in the file. A payload that is no JSON is written as `data_hex` instead.
//! `metadata`, text pairs, may be left out.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::hex::{from_hex, to_hex};

/// One event of a history file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it happened.
    pub region: String,
    /// When, in seconds since 1970.
    pub time: u64,
    /// Its stream.
    pub stream: String,
    /// What kind of thing happened.
    pub kind: String,
    /// Its content; JSON text unless the file says `data_hex`.
    pub payload: Bytes,
    /// Text pairs beside it.
    pub metadata: BTreeMap<String, String>,
    /// Its line in the file, from 1; 0 for an entry that is to be written.
    pub line: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    region: String,
    time: u64,
    stream: String,
    r#type: String,
    #[serde(borrow, default, deserialize_with = "there")]
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data_hex: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, String>,
}

/// A value that is there, `null` as well.
fn there<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Why a history file cannot be read on, or written.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// The file cannot be opened.
    #[error("open {path}")]
    Open {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file cannot be read, or is not what zstd wrote.
    #[error("read {path} at line {line}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// The line that was being read, from 1.
        line: u64,
        /// What the system or zstd said.
        source: io::Error,
    },
    /// A line that is no event.
    #[error("{path}, line {line}: {problem}")]
    Line {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// The file cannot be written.
    #[error("write {path}")]
    Write {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Longest line taken: more than any event may have.
const LINE_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// First bytes of a zstd frame.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// zstd's level for export: history compresses once and is read often.
const ZSTD_LEVEL: i32 = 9;

/// A history file being read; iterates over its entries, in order, until the first error.
pub struct HistoryFile {
    path: PathBuf,
    reader: Box<dyn BufRead + Send>,
    line: u64,
    text: Vec<u8>,
    read: Arc<AtomicU64>,
    size: u64,
    ended: bool,
}

impl HistoryFile {
    /// Opens a file. Whether it is compressed is seen from its first bytes, not from its name.
    ///
    /// # Errors
    /// [`FeedError::Open`].
    pub fn open(path: &Path) -> Result<Self, FeedError> {
        let failed = |source| FeedError::Open { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        let read = Arc::new(AtomicU64::new(0));
        let mut plain = BufReader::new(Counted { file, read: Arc::clone(&read) });
        let compressed = plain.fill_buf().map_err(failed)?.starts_with(&ZSTD_MAGIC);
        let reader: Box<dyn BufRead + Send> = match compressed {
            true => Box::new(BufReader::new(
                zstd::stream::read::Decoder::with_buffer(plain).map_err(failed)?,
            )),
            false => Box::new(plain),
        };
        let (path, text) = (path.to_owned(), Vec::new());
        Ok(Self { path, reader, line: 0, text, read, size, ended: false })
    }

    /// Bytes of the file read so far, for showing progress.
    pub fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }
    /// Bytes of the file.
    pub fn bytes_total(&self) -> u64 {
        self.size
    }

    /// The next line that is not empty, in `text`. False at the end.
    fn read_line(&mut self) -> Result<bool, FeedError> {
        loop {
            self.text.clear();
            self.line += 1;
            let mut bounded = (&mut self.reader).take(LINE_BYTES_MAX);
            let read = bounded.read_until(b'\n', &mut self.text).map_err(|source| {
                FeedError::Read { path: self.path.clone(), line: self.line, source }
            })?;
            if read == 0 {
                return Ok(false);
            }
            if read as u64 == LINE_BYTES_MAX && !self.text.ends_with(b"\n") {
                let problem = format!("longer than {LINE_BYTES_MAX} bytes");
                return Err(self.bad_line(problem));
            }
            if !self.text.trim_ascii().is_empty() {
                return Ok(true);
            }
        }
    }

    fn entry(&self) -> Result<Entry, FeedError> {
        let line: Line<'_> =
            serde_json::from_slice(&self.text).map_err(|error| self.bad_line(plain(&error)))?;
        let payload = match (line.data, line.data_hex) {
            (Some(json), None) => Bytes::copy_from_slice(json.get().as_bytes()),
            (None, Some(hex)) => from_hex(&hex)
                .ok_or_else(|| self.bad_line("data_hex is no hexadecimal text".to_owned()))?,
            (Some(_), Some(_)) => {
                return Err(self.bad_line("has both data and data_hex".to_owned()));
            }
            (None, None) => return Err(self.bad_line("missing field `data`".to_owned())),
        };
        let Line { region, time, stream, r#type: kind, metadata, .. } = line;
        Ok(Entry { region, time, stream, kind, payload, metadata, line: self.line })
    }

    fn bad_line(&self, problem: String) -> FeedError {
        FeedError::Line { path: self.path.clone(), line: self.line, problem }
    }
}

impl Iterator for HistoryFile {
    type Item = Result<Entry, FeedError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = match self.read_line() {
            Ok(true) => self.entry(),
            Ok(false) => {
                self.ended = true;
                return None;
            }
            Err(error) => Err(error),
        };
        self.ended = next.is_err();
        Some(next)
    }
}

/// A history file being written; compressed if its name ends in `.zst`.
pub struct HistoryWriter {
    path: PathBuf,
    writer: Sealing,
}

enum Sealing {
    Plain(BufWriter<Box<dyn Write + Send>>),
    Zstd(zstd::stream::write::Encoder<'static, BufWriter<Box<dyn Write + Send>>>),
}

impl HistoryWriter {
    /// Creates a file, replacing what was there.
    ///
    /// # Errors
    /// [`FeedError::Write`].
    pub fn create(path: &Path) -> Result<Self, FeedError> {
        let failed = |source| FeedError::Write { path: path.to_owned(), source };
        let file = File::create(path).map_err(failed)?;
        let plain = BufWriter::new(Box::new(file) as Box<dyn Write + Send>);
        let writer = match path.extension().is_some_and(|ending| ending == "zst") {
            true => {
                Sealing::Zstd(zstd::stream::write::Encoder::new(plain, ZSTD_LEVEL).map_err(failed)?)
            }
            false => Sealing::Plain(plain),
        };
        Ok(Self { path: path.to_owned(), writer })
    }

    /// Writes plain lines to standard output.
    pub fn stdout() -> Self {
        let stdout = BufWriter::new(Box::new(io::stdout()) as Box<dyn Write + Send>);
        Self { path: "standard output".into(), writer: Sealing::Plain(stdout) }
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// [`FeedError::Write`].
    pub fn write(&mut self, entry: &Entry) -> Result<(), FeedError> {
        let mut text = render(entry);
        text.push(b'\n');
        let written = match &mut self.writer {
            Sealing::Plain(plain) => plain.write_all(&text),
            Sealing::Zstd(zstd) => zstd.write_all(&text),
        };
        written.map_err(|source| FeedError::Write { path: self.path.clone(), source })
    }

    /// Ends the file. Without this a compressed file is not whole.
    ///
    /// # Errors
    /// [`FeedError::Write`].
    pub fn finish(self) -> Result<(), FeedError> {
        let finish = match self.writer {
            Sealing::Plain(mut plain) => plain.flush(),
            Sealing::Zstd(zstd) => zstd.finish().and_then(|mut plain| plain.flush()),
        };
        finish.map_err(|source| FeedError::Write { path: self.path, source })
    }
}

/// The entry's line, without its end.
fn render(entry: &Entry) -> Vec<u8> {
    // A payload that spans lines would break the format, however valid its JSON.
    let one_line = !entry.payload.contains(&b'\n');
    let data = serde_json::from_slice::<&RawValue>(&entry.payload).ok();
    // Raw values are read without the space around them; what has any is kept byte for byte in hex.
    let data = data.filter(|raw| one_line && raw.get().len() == entry.payload.len());
    let line = Line {
        region: entry.region.clone(),
        time: entry.time,
        stream: entry.stream.clone(),
        r#type: entry.kind.clone(),
        data,
        data_hex: data.is_none().then(|| to_hex(&entry.payload)),
        metadata: entry.metadata.clone(),
    };
    serde_json::to_vec(&line).expect("texts and numbers have a JSON form")
}

/// serde_json's message without its own line number, which is always 1 here.
fn plain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" at line ") {
        Some((problem, _)) => format!("{problem} (column {})", error.column()),
        None => text,
    }
}

struct Counted {
    file: File,
    read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buf)?;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"region":"europe","time":1312242084,"stream":"file-A","type":"FileChanged","data":{"added": 10}}"#;

    fn written(name: &str, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        (dir, path)
    }
    fn read(path: &Path) -> Vec<Result<Entry, FeedError>> {
        HistoryFile::open(path).unwrap().collect()
    }
    fn entry(payload: &'static [u8]) -> Entry {
        Entry {
            region: "eu".into(),
            time: 5,
            stream: "s-1".into(),
            kind: "K".into(),
            payload: Bytes::from_static(payload),
            metadata: BTreeMap::from([("trace".into(), "\"x\"".into())]),
            line: 0,
        }
    }

    #[test]
    fn plain_and_compressed_files_read_the_same_whatever_their_name() {
        let text = format!("{LINE}\n\n{LINE}");
        let packed = zstd::encode_all(text.as_bytes(), 3).unwrap();
        let (_a, plain) = written("history.zst", text.as_bytes());
        let (_b, packed) = written("history.ndjson", &packed);
        for path in [plain, packed] {
            let entries: Vec<_> = read(&path).into_iter().map(Result::unwrap).collect();
            assert_eq!(entries.iter().map(|entry| entry.line).collect::<Vec<_>>(), [1, 3]);
            assert_eq!(entries[0].payload, r#"{"added": 10}"#, "byte for byte");
            assert_eq!((entries[0].region.as_str(), entries[0].time), ("europe", 1_312_242_084));
            assert_eq!(
                (entries[0].stream.as_str(), entries[0].kind.as_str()),
                ("file-A", "FileChanged")
            );
        }
    }

    #[test]
    fn a_bad_line_is_named_and_ends_the_reading() {
        for (bad, says) in [
            ("{", "EOF while parsing an object"),
            (r#"{"region":"eu"}"#, "missing field `time`"),
            (r#"{"region":"eu","time":1,"stream":"s","type":"t"}"#, "missing field `data`"),
            (
                r#"{"region":"eu","time":1,"stream":"s","type":"t","data":1,"x":1}"#,
                "unknown field `x`",
            ),
            (
                r#"{"region":"eu","time":1,"stream":"s","type":"t","data_hex":"0g"}"#,
                "no hexadecimal",
            ),
        ] {
            let (_dir, path) = written("history", format!("{LINE}\n{bad}\n{LINE}\n").as_bytes());
            let entries = read(&path);
            assert_eq!(entries.len(), 2, "one good, one bad, and no more");
            match entries[1].as_ref().unwrap_err() {
                FeedError::Line { line: 2, problem, .. } => {
                    assert!(problem.contains(says), "{problem} should say {says}");
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn null_is_a_payload_in_either_form() {
        let line =
            |data: &str| format!(r#"{{"region":"eu","time":1,"stream":"s","type":"t",{data}}}"#);
        let text = format!("{}\n{}\n", line(r#""data":null"#), line(r#""data_hex":"6e756c6c""#));
        let (_dir, path) = written("history", text.as_bytes());
        let entries: Vec<_> = read(&path).into_iter().map(Result::unwrap).collect();
        assert_eq!(
            entries.iter().map(|entry| &entry.payload[..]).collect::<Vec<_>>(),
            [b"null"; 2]
        );
        assert!(text_of(&render(&entries[0])).contains(r#""data":null"#));
    }

    fn text_of(bytes: &[u8]) -> &str {
        std::str::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_compressed_file_that_was_cut_is_an_error_not_an_end() {
        let packed =
            zstd::encode_all(LINE.repeat(1000).replace("}}{", "}}\n{").as_bytes(), 3).unwrap();
        let (_dir, path) = written("history", &packed[..packed.len() - 5]);
        assert!(matches!(read(&path).last(), Some(Err(FeedError::Read { .. }))));
    }

    #[test]
    fn what_is_written_reads_back_byte_for_byte() {
        let dir = tempfile::tempdir().unwrap();
        let payloads: [&[u8]; 6] =
            [b"{\"a\": 1}", b"", b"\xff\x00", b"{\"a\":\n1}", b" 1", b"null"];
        for name in ["out.ndjson", "out.ndjson.zst"] {
            let path = dir.path().join(name);
            let mut writer = HistoryWriter::create(&path).unwrap();
            for payload in payloads {
                writer.write(&entry(payload)).unwrap();
            }
            writer.finish().unwrap();
            let back: Vec<_> = read(&path).into_iter().map(Result::unwrap).collect();
            assert_eq!(back.len(), payloads.len());
            for (nth, payload) in payloads.into_iter().enumerate() {
                let line = nth as u64 + 1;
                assert_eq!(back[nth], Entry { line, ..entry(payload) }, "{name}");
            }
        }
        let packed = std::fs::read(dir.path().join("out.ndjson.zst")).unwrap();
        assert!(packed.starts_with(&ZSTD_MAGIC));
    }
}
