//! One file of the disk in memory: what reads see, and what a crash would leave.

use std::io;

/// Bytes that reach a medium together or not at all.
const SECTOR: usize = 512;

/// A small seeded generator (SplitMix64), so that simulated faults repeat.
#[derive(Clone)]
pub(super) struct SplitMix(pub(super) u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which must not be 0.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

#[derive(Clone)]
pub(super) enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    SetLen { len: u64 },
}

#[derive(Clone, Default)]
pub(super) struct Image {
    live: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
}

impl Image {
    pub(super) fn durable(content: Vec<u8>) -> Self {
        Self { live: content.clone(), durable: content, unsynced: Vec::new() }
    }

    pub(super) fn live(&self) -> &[u8] {
        &self.live
    }

    pub(super) fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = start.saturating_add(buf.len());
        let found = self.live.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(found);
        Ok(())
    }

    pub(super) fn change(&mut self, change: Change) {
        apply(&mut self.live, &change);
        self.unsynced.push(change);
    }

    pub(super) fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            apply(&mut self.durable, &change);
        }
    }

    /// After a failed sync the kernel may mark the pages clean: no later sync writes them.
    pub(super) fn forget_unsynced(&mut self) {
        self.unsynced.clear();
    }

    pub(super) fn crash(&mut self, random: &mut SplitMix) {
        for change in std::mem::take(&mut self.unsynced) {
            if let Some(survivor) = tear(change, random) {
                apply(&mut self.durable, &survivor);
            }
        }
        self.live = self.durable.clone();
    }

    pub(super) fn flip_bit(&mut self, bit: u64) {
        let (byte, mask) = ((bit / 8) as usize, 1u8 << (bit % 8));
        self.live[byte] ^= mask;
        if let Some(durable) = self.durable.get_mut(byte) {
            *durable ^= mask;
        }
    }
}

/// What a power failure leaves of one unsynced change: all, nothing, or whole sectors of its start.
fn tear(change: Change, random: &mut SplitMix) -> Option<Change> {
    match change {
        Change::SetLen { .. } => (random.below(2) == 0).then_some(change),
        Change::Write { offset, mut bytes } => {
            let head = SECTOR - (offset % SECTOR as u64) as usize;
            let sectors = 1 + bytes.len().saturating_sub(head).div_ceil(SECTOR);
            match random.below(sectors as u64 + 1) as usize {
                0 => return None,
                kept => bytes.truncate(head + (kept - 1) * SECTOR),
            }
            Some(Change::Write { offset, bytes })
        }
    }
}

fn apply(image: &mut Vec<u8>, change: &Change) {
    match change {
        Change::SetLen { len } => image.resize(*len as usize, 0),
        Change::Write { offset, bytes } => {
            let start = *offset as usize;
            let end = start + bytes.len();
            if image.len() < end {
                image.resize(end, 0);
            }
            image[start..end].copy_from_slice(bytes);
        }
    }
}
