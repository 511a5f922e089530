//! Getting commands: from the cache, else from the log in few reads.

use std::sync::Arc;

use anabranch_core::Command;
use bytes::Bytes;

use super::{Store, StoreError, command_bytes};
use crate::record::{Record, RecordKind};

/// Bytes read from the log at a time.
pub(super) const READ_BYTES: usize = 1024 * 1024;
/// Entries that are read though nobody asked for them, rather than reading twice.
const GAP: u64 = 16;
/// Entries of a run when reading to older ones, where a cut answer holds the wrong end.
const BACKWARD_RUN: usize = 8;

impl Store {
    /// The commands of `entries`, which rise or fall: of a first part of them, at least one. An entry
    /// may come several times in a row.
    pub(super) fn fetch(&self, entries: &[u64]) -> Result<Vec<Arc<Command>>, StoreError> {
        let mut commands: Vec<Arc<Command>> = Vec::with_capacity(entries.len());
        let mut bytes = 0;
        while commands.len() < entries.len() && bytes < READ_BYTES {
            let at = commands.len();
            let again = at.checked_sub(1).filter(|last| entries[*last] == entries[at]);
            if let Some(last) = again {
                commands.push(commands[last].clone());
                continue;
            }
            if let Some(command) = self.shared.commands.find(&entries[at]) {
                bytes += command_bytes(&command);
                commands.push(command);
                continue;
            }
            let read = self.read_run(&entries[at..], READ_BYTES - bytes)?;
            bytes += read.iter().map(|command| command_bytes(command)).sum::<usize>();
            commands.extend(read);
        }
        Ok(commands)
    }

    /// Reads the first of `entries` and those after it that lie close by and are not at hand.
    fn read_run(&self, entries: &[u64], max_bytes: usize) -> Result<Vec<Arc<Command>>, StoreError> {
        let run = &entries[..self.run_len(entries)];
        let (first, last) = (run[0], run[run.len() - 1]);
        let range = first.min(last)..first.max(last) + 1;
        let mut records = self.shared.log.read(range, max_bytes)?;
        if last < first && records.last().is_none_or(|record| record.index < first) {
            // Cut short at the end where reading was to begin.
            records = self.shared.log.read(first..first + 1, max_bytes)?;
        }
        let mut commands = Vec::with_capacity(run.len());
        for entry in run {
            let Ok(nth) = records.binary_search_by_key(entry, |record| record.index) else { break };
            commands.push(self.decode(&records[nth])?);
        }
        match commands.is_empty() {
            true => Err(StoreError::NoCommand { entry: first }),
            false => Ok(commands),
        }
    }

    fn run_len(&self, entries: &[u64]) -> usize {
        let falls = entries.len() > 1 && entries[1] < entries[0];
        let near = |pair: &&[u64]| {
            (1..=GAP).contains(&pair[0].abs_diff(pair[1]))
                && self.shared.commands.find(&pair[1]).is_none()
        };
        let run = 1 + entries.windows(2).take_while(near).count();
        if falls { run.min(BACKWARD_RUN) } else { run }
    }

    fn decode(&self, record: &Record) -> Result<Arc<Command>, StoreError> {
        let entry = record.index;
        if record.kind != RecordKind::Command {
            return Err(StoreError::NoCommand { entry });
        }
        // Copied, because the payload shares the buffer of the whole read: keeping one command would
        // keep them all.
        let payload = Bytes::copy_from_slice(&record.payload);
        let command =
            Command::decode(payload).map_err(|source| StoreError::Undecodable { entry, source })?;
        let command = Arc::new(command);
        self.shared.commands.keep(entry, command.clone(), command_bytes(&command));
        Ok(command)
    }
}
