//! Making the index whole from the log: when opening, and when a file turns out damaged.

use std::ops::Range;

use anabranch_core::Command;

use super::fetch::READ_BYTES;
use super::{Store, StoreError};
use crate::index::{EventIndex, IndexError, Scan};
use crate::record::RecordKind;

/// What opening a store had to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Index files that were as they should be.
    pub loaded: usize,
    /// Index files that were missing or damaged and were made again.
    pub rebuilt: usize,
    /// Entries read to index what is not sealed yet.
    pub scanned: u64,
}

/// Damaged files that one look-up repairs before it gives up.
const REPAIRS: usize = 8;

impl Store {
    pub(super) fn recover(&self, applied: Option<u64>) -> Result<Recovery, StoreError> {
        let mut recovery = Recovery::default();
        let (index, log) = (&self.shared.index, &self.shared.log);
        let applied_end = applied.map_or(0, |entry| entry + 1);
        for segment in log.segments() {
            let (first, end) = (segment.first_index, segment.end_index);
            if !segment.sealed || !index.is_next(first) {
                break;
            }
            // A file may reach beyond the checkpoint: what it holds was applied once, so it will be
            // again, and the same.
            if index.load(first, end) {
                recovery.loaded += 1;
            } else if end <= applied_end {
                self.rebuild(first, end)?;
                recovery.rebuilt += 1;
            } else {
                break;
            }
        }
        let tail = index.sealed_end().max(log.range().start)..applied_end;
        if !tail.is_empty() {
            recovery.scanned = tail.end - tail.start;
            let mut scan = index.scan(tail.start).expect("the tail can be scanned");
            self.scan(tail.clone(), &mut scan)?;
            index.install_tail(scan, tail.end);
        }
        Ok(recovery)
    }

    /// Looks something up; rebuilds index files that turn out to be damaged.
    pub(super) fn look_up<T>(
        &self,
        look: impl Fn(&EventIndex) -> Result<T, IndexError>,
    ) -> Result<T, StoreError> {
        let index = &self.shared.index;
        for _ in 0..REPAIRS {
            match look(index) {
                Err(IndexError::Damaged { .. }) => {}
                done => return Ok(done?),
            }
            let _repairing = self.shared.repairing.lock();
            // Another reader may have repaired it while this one waited.
            match look(index) {
                Err(IndexError::Damaged { segment, what }) => {
                    tracing::warn!(segment, what, "index file is damaged, rebuilding it");
                    let end = index.segment_end(segment);
                    self.rebuild(segment, end.expect("only an indexed segment can be damaged"))?;
                }
                done => return Ok(done?),
            }
        }
        Ok(look(index)?)
    }

    fn rebuild(&self, first_entry: u64, end_entry: u64) -> Result<(), StoreError> {
        let index = &self.shared.index;
        let mut scan = index.scan(first_entry).expect("segments are rebuilt in order");
        self.scan(first_entry..end_entry, &mut scan)?;
        index.install(scan, end_entry);
        Ok(())
    }

    /// Offers every command of `entries` to `scan`.
    fn scan(&self, entries: Range<u64>, scan: &mut Scan) -> Result<(), StoreError> {
        let mut next = entries.start;
        while next < entries.end {
            let records = self.shared.log.read(next..entries.end, READ_BYTES)?;
            let Some(last) = records.last() else {
                return Err(StoreError::NoCommand { entry: next });
            };
            next = last.index + 1;
            for record in records.iter().filter(|record| record.kind == RecordKind::Command) {
                // What cannot be decoded was refused when it was applied.
                match Command::decode(record.payload.clone()) {
                    Ok(command) if scan.offer(record.index, &command) => {}
                    Ok(_) => tracing::debug!(entry = record.index, "passed over a refused command"),
                    Err(_) => tracing::warn!(entry = record.index, "entry is no command"),
                }
            }
        }
        Ok(())
    }
}
