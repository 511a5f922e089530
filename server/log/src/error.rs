//! What can go wrong with a log, and what is then known.

use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// Why a change of the log was not made durable.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LogError {
    /// Refused: an earlier write or sync failed, so nothing more may be written until the log is
    /// opened again. Reads go on.
    #[error("the log takes no writes since it failed to {doing}: {source}")]
    Poisoned {
        /// What failed first.
        doing: &'static str,
        /// How it failed.
        source: Arc<io::Error>,
    },
    /// Unknown: it was being written when the disk failed. It may be there after the log is opened
    /// again. From here on the log is poisoned.
    #[error("failed to {doing}, the outcome is unknown: {source}")]
    Unknown {
        /// What failed.
        doing: &'static str,
        /// How it failed.
        source: Arc<io::Error>,
    },
    /// Refused: the disk was full when the log was closed. Of an append so large that it went to
    /// several segments, the records before the last segment may be in the log:
    /// [`Log::range`](crate::log::Log::range) says where it ends.
    #[error("the disk is full")]
    Full,
    /// Refused: the log was closed.
    #[error("the log is closed")]
    Closed,
    /// Refused: too much waits to be written. Only where nobody waits: see
    /// [`Writer`](crate::writer::Writer).
    #[error("{queued} bytes wait to be written, the bound is {bound}")]
    Busy {
        /// Bytes that wait.
        queued: usize,
        /// Bound on them.
        bound: usize,
    },
    /// Refused: a record, vote or commit mark is larger than the log takes.
    #[error("{what} of {bytes} bytes, the limit is {max}")]
    TooLarge {
        /// What it is.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// Refused: records must follow the last one without a gap, in terms that never fall.
    #[error(
        "record {index} of term {term} cannot follow: expected {expected} of at least {last_term}"
    )]
    OutOfOrder {
        /// Index of the record.
        index: u64,
        /// Term of the record.
        term: u64,
        /// Index that would follow.
        expected: u64,
        /// Term of the last record.
        last_term: u64,
    },
    /// Refused: the last record to keep is not in the log, or cannot be read.
    #[error("cannot cut after record {last_kept}")]
    Cut {
        /// What should have become the last record.
        last_kept: u64,
        /// Why it cannot.
        source: ReadError,
    },
}

/// Why records could not be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// The log begins later.
    #[error("record {index} is before the log's first, {first}")]
    BeforeFirst {
        /// The record asked for.
        index: u64,
        /// The first one there is.
        first: u64,
    },
    /// The log ends earlier.
    #[error("record {index} is beyond the log's end, {end}")]
    BeyondEnd {
        /// The record asked for.
        index: u64,
        /// One after the last one there is.
        end: u64,
    },
    /// What is stored is not what was written.
    #[error("record {index} is damaged, at byte {offset} of segment {segment}")]
    Corrupt {
        /// First index of the segment.
        segment: u64,
        /// Where in its file.
        offset: u64,
        /// The record that should be there.
        index: u64,
    },
    /// The disk failed.
    #[error("failed to read segment {segment}: {source}")]
    Io {
        /// First index of the segment.
        segment: u64,
        /// How.
        source: Arc<io::Error>,
    },
}

/// Why a log was not opened. Nothing was cut, renamed or deleted. The caller must not vote with this
/// log, because it may have acknowledged more than can be read.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The disk failed.
    #[error("failed to {doing} {path:?}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// How it failed.
        source: io::Error,
    },
    /// Records that were once acknowledged are damaged.
    #[error("segment {segment} is damaged at byte {offset}: records {records:?} cannot be read")]
    Corrupt {
        /// First index of the segment.
        segment: u64,
        /// Where in its file.
        offset: u64,
        /// The records concerned; the end is the last that is known to have been acknowledged, plus
        /// one.
        records: Range<u64>,
    },
    /// Records are missing between two segments, or before the first.
    #[error("records {records:?} are missing")]
    Hole {
        /// The records.
        records: Range<u64>,
    },
    /// The log ends before a record it once acknowledged.
    #[error("the log ends at {end}, but has acknowledged everything before {acknowledged_end}")]
    Short {
        /// One after the last record found.
        end: u64,
        /// One after the last record known to have been acknowledged.
        acknowledged_end: u64,
    },
    /// The vote and commit mark are gone though there are records.
    #[error("{path:?} is missing beside records: the vote is unknown")]
    HardStateMissing {
        /// The file.
        path: PathBuf,
    },
    /// Neither copy of the vote and commit mark can be read.
    #[error("no copy in {path:?} is whole: the vote is unknown")]
    HardStateDamaged {
        /// The file.
        path: PathBuf,
    },
    /// The folder holds another log.
    #[error("{path:?} belongs to another log, or was written by a version that is not understood")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The options contradict each other.
    #[error("option {option} is {value}, which is outside {allowed:?}")]
    Options {
        /// Which one.
        option: &'static str,
        /// What it was.
        value: u64,
        /// What it may be.
        allowed: Range<u64>,
    },
}
