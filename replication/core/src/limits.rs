//! Every limit on what a client may send, in one place. Errors name the limit they enforce.

/// Bounds on requests. The defaults are what a node enforces unless its configuration says less.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one event's payload.
    pub payload_bytes: usize,
    /// Bytes of a stream name or an event type.
    pub name_bytes: usize,
    /// Bytes of one event's metadata, keys and values together.
    pub metadata_bytes: usize,
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
        append_events: 10_000,
        append_bytes: 4 * 1024 * 1024,
        append_streams: 1_000,
    };
}

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
