//! The wall clocks of the nodes: each follows the offset in a file of its own.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::{NodeAt, node_name};

/// The wall clocks of the nodes.
#[derive(Debug)]
pub struct Clocks {
    files: BTreeMap<NodeAt, PathBuf>,
}

impl Clocks {
    /// All of them right.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub(super) fn new(folder: &Path, nodes: impl Iterator<Item = NodeAt>) -> anyhow::Result<Self> {
        let file = |at| (at, folder.join(format!("{}.clock", node_name(at))));
        let clocks = Self { files: nodes.map(file).collect() };
        clocks.set_right()?;
        Ok(clocks)
    }
    /// The file that a node follows.
    pub(super) fn file(&self, at: NodeAt) -> &Path {
        &self.files[&at]
    }
    /// Sets a node's clock off by so many milliseconds.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn set(&self, at: NodeAt, by_ms: i64) -> anyhow::Result<()> {
        let file = &self.files[&at];
        let new = file.with_extension("clock.new");
        // As a whole: the node reads all the time.
        let write = || fs::write(&new, by_ms.to_string()).and_then(|()| fs::rename(&new, file));
        write().with_context(|| format!("set the clock in {}", file.display()))
    }
    /// Sets all clocks right.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn set_right(&self) -> anyhow::Result<()> {
        self.files.keys().try_for_each(|at| self.set(*at, 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_what_its_file_says_and_no_other_is() {
        let folder = tempfile::tempdir().unwrap();
        let clocks = Clocks::new(folder.path(), [(0, 0), (1, 2)].into_iter()).unwrap();
        let says = |at| fs::read_to_string(clocks.file(at)).unwrap();
        clocks.set((1, 2), -2_000).unwrap();
        assert_eq!((says((0, 0)), says((1, 2))), ("0".to_owned(), "-2000".to_owned()));
        clocks.set_right().unwrap();
        assert_eq!(says((1, 2)), "0");
    }
}
