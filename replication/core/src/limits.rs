//! Every limit on what a client may send, in one place. Errors name the limit they enforce.
//!
//! What a region remembers of requests, for those who repeat them, is bounded in
//! `region::producers`: the last 1,024 of a producer, 500,000 over all, 100,000 events with an id.

use std::time::Duration;

/// Bounds on requests. The defaults are what a node enforces unless its configuration says less.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one event's payload.
    pub payload_bytes: usize,
    /// Bytes of a stream name or an event type.
    pub name_bytes: usize,
    /// Bytes of one event's metadata, keys and values together.
    pub metadata_bytes: usize,
    /// Pairs of key and value in one event's metadata.
    pub metadata_entries: usize,
    /// Events in one append.
    pub append_events: usize,
    /// Bytes of one append, all events together.
    pub append_bytes: usize,
    /// Streams that one append may check or write.
    pub append_streams: usize,
}

impl Limits {
    /// The largest values any node accepts.
    pub const DEFAULT: Self = Self {
        payload_bytes: 1024 * 1024,
        name_bytes: 512,
        metadata_bytes: 16 * 1024,
        metadata_entries: 64,
        append_events: 10_000,
        append_bytes: 4 * 1024 * 1024,
        append_streams: 1_000,
    };

    /// Bytes of the largest message that an append within these limits can be.
    ///
    /// So an append that keeps the others never meets this one.
    pub fn message_bytes(&self) -> usize {
        let event = EVENT_FRAMING + self.metadata_entries * ENTRY_FRAMING;
        let expectations = self.append_streams * (self.name_bytes + EXPECTATION_FRAMING);
        // A length takes a second byte from 128 on, and is followed by as much.
        let long_lengths = self.append_bytes / 32;
        self.append_bytes + long_lengths + self.append_events * event + expectations + HEAD_BYTES
    }
}

/// Bytes of an event in a message beside its texts and payload: its id, tags and short lengths.
const EVENT_FRAMING: usize = 32;
/// Tags and short lengths of a pair of metadata.
const ENTRY_FRAMING: usize = 6;
/// Tags, lengths and the number of an expectation.
const EXPECTATION_FRAMING: usize = 32;
/// Everything else in an append: its producer, numbers, and fields that later releases may add.
const HEAD_BYTES: usize = 4 * 1024;

/// Entries of each list of a read's filter.
pub const FILTER_ENTRIES: usize = 256;
/// Reads that a node serves at the same time, subscriptions included.
pub const READS: usize = 4096;
/// The longest that a read may ask a node to wait for its session or cursor.
pub const SESSION_WAIT_MAX: Duration = Duration::from_secs(60);
/// How long a read waits for its session or cursor unless it says.
pub const SESSION_WAIT_DEFAULT: Duration = Duration::from_secs(1);
/// The shortest pause between heartbeats of a followed read. Less is taken for this.
pub const HEARTBEAT_MIN: Duration = Duration::from_millis(10);
/// The pause between heartbeats of a followed read unless it says.
pub const HEARTBEAT_DEFAULT: Duration = Duration::from_secs(1);

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Bytes of events in one group of the log, beyond which the sequencer starts the next one.
///
/// One append always fits whole, so a group may be larger by up to [`Limits::append_bytes`].
pub const GROUP_BYTES: usize = 1024 * 1024;

/// Bytes of groups in one import entry.
pub const IMPORT_BYTES: usize = 2 * 1024 * 1024;
