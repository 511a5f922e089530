//! Whether every write of states was made whole.
//!
//! sled keeps a batch whole over a crash, but not over an error: if the disk fills up in the middle
//! of one, what it did until then may stay. A file beside sled's says that this never happened. It is
//! the failure that removes the file, because a full disk still lets one go when it takes no new one.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

const FILE: &str = "states-are-whole";

pub(super) struct Wholeness {
    file: PathBuf,
    lost: AtomicBool,
}

impl Wholeness {
    /// Reads from `folder` whether states in it are whole. None are, whatever the folder says.
    pub(super) fn read(folder: &Path, empty: bool) -> Self {
        let file = folder.join(FILE);
        let lost = AtomicBool::new(!empty && !file.exists());
        let read = Self { file, lost };
        if empty {
            read.restore();
        }
        read
    }

    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// From here on, also in later processes, states are in doubt.
    #[expect(clippy::disallowed_methods, reason = "sled's folder is outside the disk seam")]
    pub(super) fn lose(&self) {
        self.lost.store(true, Ordering::Release);
        let removed = std::fs::remove_file(&self.file).and_then(|()| self.sync_folder());
        if let Err(error) = removed {
            let file = self.file.display();
            tracing::error!(%file, %error, "remove this file before the next start: states are not whole");
        }
    }

    /// There are no states, so none is in doubt.
    #[expect(clippy::disallowed_methods, reason = "sled's folder is outside the disk seam")]
    pub(super) fn restore(&self) {
        self.lost.store(false, Ordering::Release);
        if let Err(error) = std::fs::write(&self.file, []).and_then(|()| self.sync_folder()) {
            let file = self.file.display();
            tracing::warn!(%file, %error, "without this file the next start folds all states again");
        }
    }

    /// Makes coming and going of the file durable.
    #[expect(clippy::disallowed_methods, reason = "sled's folder is outside the disk seam")]
    fn sync_folder(&self) -> std::io::Result<()> {
        let folder = self.file.parent().expect("it was joined to one");
        std::fs::File::open(folder)?.sync_all()
    }
}
