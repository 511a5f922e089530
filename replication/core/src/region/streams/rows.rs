//! A table whose copy costs next to nothing, so that a state can be written out while it changes.
//!
//! Rows and names stand in chunks. A copy shares them; whoever changes a chunk first makes it its own.

use std::sync::Arc;

use super::Head;

const CHUNK_ROWS: usize = 1024;
/// A longer name has a chunk for itself.
const CHUNK_NAME_BYTES: usize = 64 * 1024;

/// Rows by number, in the order in which they were added. At most `u32::MAX`.
#[derive(Debug, Clone, Default)]
pub(in crate::region) struct Rows {
    chunks: Vec<Arc<Vec<Row>>>,
    names: Vec<Arc<String>>,
    len: usize,
}

#[derive(Debug, Clone)]
struct Row {
    head: Head,
    /// Whatever the caller finds rows by.
    hash: u32,
    names: u32,
    start: u32,
    bytes: u32,
}

impl Rows {
    pub(in crate::region) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn name(&self, nth: u32) -> &str {
        let Row { names, start, bytes, .. } = *self.row(nth);
        &self.names[names as usize][start as usize..][..bytes as usize]
    }

    pub(super) fn hash(&self, nth: u32) -> u32 {
        self.row(nth).hash
    }

    pub(super) fn head(&self, nth: u32) -> &Head {
        &self.row(nth).head
    }

    pub(super) fn head_mut(&mut self, nth: u32) -> &mut Head {
        let nth = nth as usize;
        &mut Arc::make_mut(&mut self.chunks[nth / CHUNK_ROWS])[nth % CHUNK_ROWS].head
    }

    /// All names and heads, in the order of their numbers.
    pub(in crate::region) fn iter(&self) -> impl Iterator<Item = (&str, &Head)> {
        let numbers = 0..u32::try_from(self.len).expect("it counts rows in 32 bits");
        numbers.map(|nth| (self.name(nth), self.head(nth)))
    }

    /// Adds a row and returns its number.
    pub(super) fn push(&mut self, name: &str, hash: u32, head: Head) -> u32 {
        let nth = u32::try_from(self.len).expect("memory ends before 32 bits of streams do");
        let (names, start) = self.push_name(name);
        let bytes = name.len() as u32;
        if self.len.is_multiple_of(CHUNK_ROWS) {
            self.chunks.push(Arc::default());
        }
        let chunk = self.chunks.last_mut().expect("there is room in the last one");
        Arc::make_mut(chunk).push(Row { head, hash, names, start, bytes });
        self.len += 1;
        nth
    }

    /// Takes the last row away again.
    pub(super) fn pop(&mut self) {
        let Some(chunk) = self.chunks.last_mut() else { return };
        let chunk = Arc::make_mut(chunk);
        let Some(row) = chunk.pop() else { return };
        if chunk.is_empty() {
            self.chunks.pop();
        }
        Arc::make_mut(&mut self.names[row.names as usize]).truncate(row.start as usize);
        self.len -= 1;
    }

    fn row(&self, nth: u32) -> &Row {
        let nth = nth as usize;
        &self.chunks[nth / CHUNK_ROWS][nth % CHUNK_ROWS]
    }

    /// Which chunk of names it is in, and where it starts.
    fn push_name(&mut self, name: &str) -> (u32, u32) {
        let fits = |chunk: &Arc<String>| chunk.len() + name.len() <= CHUNK_NAME_BYTES;
        if !self.names.last().is_some_and(fits) {
            self.names.push(Arc::default());
        }
        let nth = self.names.len() - 1;
        let chunk = Arc::make_mut(&mut self.names[nth]);
        let start = chunk.len();
        chunk.push_str(name);
        (nth as u32, start as u32)
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
        assert_eq!(after[count as usize - 1..], [("another".to_owned(), 7), ("one more".to_owned(), 8)]);
        assert_eq!(rows.hash(17), 17);
    }

    #[test]
    fn names_of_any_length_are_kept_apart() {
        let names = ["", "a", &"b".repeat(CHUNK_NAME_BYTES - 1), "ü", &"c".repeat(3 * CHUNK_NAME_BYTES), "d"];
        let mut rows = Rows::default();
        for name in names {
            rows.push(name, 0, head(1));
        }
        assert_eq!(rows.iter().map(|(name, _)| name).collect::<Vec<_>>(), names);
        (0..names.len()).for_each(|_| rows.pop());
        assert_eq!(rows.len(), 0);
        rows.pop();
        rows.push("e", 0, head(1));
        assert_eq!(held(&rows), [("e".to_owned(), 1)]);
    }
}
