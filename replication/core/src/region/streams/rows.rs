//! A table whose copy costs next to nothing, so that a state can be written out while it changes.
//!
//! Rows stand in chunks. A copy shares them; whoever changes a chunk first makes it its own. A row is one line of
//! a processor's cache, with the name in it if it is short: with very many streams, what an append costs
//! is how often it waits for memory.

use std::sync::Arc;

use super::{Fingerprint, Head};

const CHUNK_ROWS: usize = 512;
/// The longest name that fits in its row.
const SHORT: usize = 26;
/// Bytes of longer names that stand together. One that is longer still stands alone.
const LONG_NAMES_BYTES: usize = 64 * 1024;

/// Rows by number, in the order in which they were added. At most `u32::MAX`.
#[derive(Debug, Clone, Default)]
pub(in crate::region) struct Rows {
    chunks: Vec<Arc<[Row]>>,
    long_names: Vec<Arc<Vec<u8>>>,
    len: usize,
}

#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Row {
    head: Head,
    /// Whatever the caller finds rows by.
    hash: u32,
    name: Name,
}

const _: () = assert!(size_of::<Row>() == 64);

/// The bytes of a text, here or where the long ones are.
#[derive(Debug, Clone, Copy)]
enum Name {
    Short { bytes: u8, text: [u8; SHORT] },
    Long { nth: u32, start: u32, bytes: u32 },
}

impl Row {
    const EMPTY: Self = Self {
        head: Head { next_revision: 0, last_position: 0, fingerprint: Fingerprint(0) },
        hash: 0,
        name: Name::Short { bytes: 0, text: [0; SHORT] },
    };
}

impl Rows {
    pub(in crate::region) fn len(&self) -> usize {
        self.len
    }

    /// Whether a row has this name.
    pub(super) fn is_of(&self, nth: u32, name: &str, hash: u32) -> bool {
        let row = self.row(nth);
        row.hash == hash && self.name_of(row) == name.as_bytes()
    }

    pub(super) fn hash(&self, nth: u32) -> u32 {
        self.row(nth).hash
    }

    pub(super) fn head(&self, nth: u32) -> &Head {
        &self.row(nth).head
    }

    pub(super) fn head_mut(&mut self, nth: u32) -> &mut Head {
        &mut self.row_mut(nth as usize).head
    }

    /// All names and heads, in the order of their numbers.
    pub(in crate::region) fn iter(&self) -> impl Iterator<Item = (&str, &Head)> {
        let rows = self.chunks.iter().flat_map(|chunk| chunk.iter()).take(self.len);
        rows.map(|row| {
            let name = str::from_utf8(self.name_of(row)).expect("it was a text when it came");
            (name, &row.head)
        })
    }

    /// Adds a row and returns its number.
    pub(super) fn push(&mut self, name: &str, hash: u32, head: Head) -> u32 {
        let nth = u32::try_from(self.len).expect("memory ends before 32 bits of streams do");
        let name = self.keep(name.as_bytes());
        if self.len == self.chunks.len() * CHUNK_ROWS {
            self.chunks.push(std::iter::repeat_n(Row::EMPTY, CHUNK_ROWS).collect());
        }
        *self.row_mut(self.len) = Row { head, hash, name };
        self.len += 1;
        nth
    }

    /// Takes the last row away again.
    pub(super) fn pop(&mut self) {
        let Some(last) = self.len.checked_sub(1) else { return };
        if let Name::Long { nth, start, .. } = self.row(last as u32).name {
            Arc::make_mut(&mut self.long_names[nth as usize]).truncate(start as usize);
        }
        self.len = last;
    }

    fn row(&self, nth: u32) -> &Row {
        let nth = nth as usize;
        &self.chunks[nth / CHUNK_ROWS][nth % CHUNK_ROWS]
    }

    fn row_mut(&mut self, nth: usize) -> &mut Row {
        &mut Arc::make_mut(&mut self.chunks[nth / CHUNK_ROWS])[nth % CHUNK_ROWS]
    }

    fn name_of<'a>(&'a self, row: &'a Row) -> &'a [u8] {
        match &row.name {
            Name::Short { bytes, text } => &text[..usize::from(*bytes)],
            Name::Long { nth, start, bytes } => {
                &self.long_names[*nth as usize][*start as usize..][..*bytes as usize]
            }
        }
    }

    fn keep(&mut self, name: &[u8]) -> Name {
        if name.len() <= SHORT {
            let mut text = [0; SHORT];
            text[..name.len()].copy_from_slice(name);
            return Name::Short { bytes: name.len() as u8, text };
        }
        let fits = |names: &Arc<Vec<u8>>| names.len() + name.len() <= LONG_NAMES_BYTES;
        if !self.long_names.last().is_some_and(fits) {
            self.long_names.push(Arc::default());
        }
        let nth = self.long_names.len() - 1;
        let names = Arc::make_mut(&mut self.long_names[nth]);
        let start = names.len();
        names.extend_from_slice(name);
        Name::Long { nth: nth as u32, start: start as u32, bytes: name.len() as u32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(next_revision: u64) -> Head {
        Head { next_revision, ..Head::default() }
    }

    fn held(rows: &Rows) -> Vec<(String, u64)> {
        rows.iter().map(|(name, head)| (name.to_owned(), head.next_revision)).collect()
    }

    #[test]
    fn a_copy_stays_as_it_was_whatever_becomes_of_the_table() {
        let mut rows = Rows::default();
        let count = 2 * CHUNK_ROWS as u64 + 3;
        for nth in 0..count {
            assert_eq!(u64::from(rows.push(&format!("stream-{nth}"), nth as u32, head(nth))), nth);
        }
        let (copy, before) = (rows.clone(), held(&rows));
        rows.head_mut(5).next_revision = 1_000_000;
        rows.head_mut(count as u32 - 1).next_revision = 1_000_001;
        rows.pop();
        rows.push("another", 0, head(7));
        rows.push("one more", 0, head(8));
        assert_eq!(held(&copy), before);
        let after = held(&rows);
        assert_eq!(after.len() as u64, count + 1);
        assert_eq!(after[5], ("stream-5".to_owned(), 1_000_000));
        assert_eq!(
            after[count as usize - 1..],
            [("another".to_owned(), 7), ("one more".to_owned(), 8)]
        );
        assert_eq!(rows.hash(17), 17);
    }

    #[test]
    fn names_of_any_length_are_kept_apart() {
        let long = |letter: &str, bytes| letter.repeat(bytes);
        let names = [
            String::new(),
            "ü".to_owned(),
            long("a", SHORT),
            long("b", SHORT + 1),
            long("c", LONG_NAMES_BYTES - SHORT - 1),
            long("d", 3 * LONG_NAMES_BYTES),
            long("e", SHORT + 1),
        ];
        let mut rows = Rows::default();
        for name in &names {
            rows.push(name, 0, head(1));
        }
        assert_eq!(rows.long_names.len(), 3);
        for (nth, name) in names.iter().enumerate() {
            let is_of: Vec<_> = names.iter().map(|name| rows.is_of(nth as u32, name, 0)).collect();
            assert_eq!(is_of.iter().filter(|is| **is).count(), 1, "{name}");
            assert!(is_of[nth] && !rows.is_of(nth as u32, name, 1));
        }
        assert_eq!(rows.iter().map(|(name, _)| name).collect::<Vec<_>>(), names);
        (0..names.len()).for_each(|_| rows.pop());
        assert_eq!(rows.len(), 0);
        rows.pop();
        rows.push("e", 0, head(1));
        assert_eq!(held(&rows), [("e".to_owned(), 1)]);
    }
}
