//! What can be set about a log.

use std::ops::Range;

use crate::error::OpenError;
use crate::record::{PAYLOAD_MAX, RECORD_OVERHEAD};

/// Settings of a log. Only [`log_id`](Self::log_id) must stay the same from open to open.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// Whose log it is: part of every checksum, so that no file of another log passes for one of
    /// this.
    pub log_id: [u8; 16],
    /// A segment is sealed before it grows beyond this many bytes; one record always fits.
    pub segment_bytes: u64,
    /// Durable records up to this many bytes stay in memory for those who read the tail.
    pub cache_bytes: usize,
    /// Bound on the bytes that wait to be written.
    pub queue_bytes: usize,
    /// Bytes kept aside for when the disk is full, see [`Room`](crate::log::Room). 0 for none.
    pub reserve_bytes: u64,
    /// The largest payload of a record.
    pub max_record_bytes: usize,
}

impl LogOptions {
    /// The defaults, for the log with this id.
    pub fn new(log_id: [u8; 16]) -> Self {
        Self {
            log_id,
            segment_bytes: 64 * 1024 * 1024,
            cache_bytes: 64 * 1024 * 1024,
            queue_bytes: 64 * 1024 * 1024,
            reserve_bytes: 8 * 1024 * 1024,
            max_record_bytes: 32 * 1024 * 1024,
        }
    }

    /// Checks the values against what the file format can hold.
    ///
    /// # Errors
    /// [`OpenError::Options`] names the first that is out of bounds.
    pub fn check(&self) -> Result<(), OpenError> {
        // Offsets in a segment are 32 bits, and one record may go beyond the segment's bound.
        within("segment_bytes", self.segment_bytes, 256..1024 * 1024 * 1024)?;
        within("max_record_bytes", self.max_record_bytes as u64, 1..PAYLOAD_MAX as u64 + 1)
    }
}

const _: () = assert!(1024 * 1024 * 1024 + PAYLOAD_MAX + RECORD_OVERHEAD < u32::MAX as usize);

fn within(option: &'static str, value: u64, allowed: Range<u64>) -> Result<(), OpenError> {
    if allowed.contains(&value) {
        Ok(())
    } else {
        Err(OpenError::Options { option, value, allowed })
    }
}
