//! A disk in memory that loses, tears, refuses and spoils exactly what it is told to.
//!
//! Every file has a *live* image (what reads see) and a *durable* one (what a crash leaves). Writes
//! reach the durable image when they are synced; names reach it when their folder is synced.
//! [`MemoryDisk::crash`] keeps of each unsynced write a random prefix of whole sectors, or nothing,
//! independently, and of the unsynced changes of names a random prefix. All from one seed.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::image::{Change, Image, SplitMix};
use super::{Disk, DiskFile, Lock, OpenMode};

/// A disk in memory. Clones share it.
#[derive(Clone)]
pub struct MemoryDisk(Arc<Mutex<Tree>>);

struct Tree {
    names: Names,
    durable_names: Names,
    /// Changes of names since their folders were synced, oldest first.
    moves: Vec<Move>,
    files: BTreeMap<u64, Image>,
    next_file: u64,
    random: SplitMix,
    /// Handles of earlier lives are dead.
    life: u64,
    capacity: Option<u64>,
    syncs: u64,
    failing_sync: Option<u64>,
    misdirect: Option<(u64, u64)>,
    /// Files held by one process alone.
    locks: BTreeSet<PathBuf>,
}

#[derive(Clone)]
struct Names {
    files: BTreeMap<PathBuf, u64>,
    dirs: BTreeSet<PathBuf>,
}

#[derive(Clone)]
enum Move {
    Link(PathBuf, u64),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf),
    MakeDir(PathBuf),
}

impl Move {
    fn touches(&self, dir: &Path) -> bool {
        let within = |path: &PathBuf| parent(path) == dir;
        match self {
            Self::Link(path, _) | Self::Unlink(path) | Self::MakeDir(path) => within(path),
            Self::Rename(from, to) => within(from) || within(to),
        }
    }
}

impl Names {
    fn new() -> Self {
        Self { files: BTreeMap::new(), dirs: BTreeSet::from([PathBuf::new()]) }
    }

    fn apply(&mut self, change: &Move) {
        match change {
            Move::Link(path, file) => drop(self.files.insert(path.clone(), *file)),
            Move::Unlink(path) => drop(self.files.remove(path)),
            Move::Rename(from, to) => {
                if let Some(file) = self.files.remove(from) {
                    self.files.insert(to.clone(), file);
                }
            }
            Move::MakeDir(path) => drop(self.dirs.insert(path.clone())),
        }
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

fn crashed() -> io::Error {
    io::Error::other("this handle was opened before the simulated crash")
}

impl MemoryDisk {
    /// An empty disk without limits or faults. All its randomness comes from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Tree {
            names: Names::new(),
            durable_names: Names::new(),
            moves: Vec::new(),
            files: BTreeMap::new(),
            next_file: 1,
            random: SplitMix(seed),
            life: 0,
            capacity: None,
            syncs: 0,
            failing_sync: None,
            misdirect: None,
            locks: BTreeSet::new(),
        })))
    }

    /// Power fails: what was not synced is lost or torn. Open handles are dead from here on; a
    /// planned or sticky failure of syncs is forgotten, because a new process opens the files anew.
    pub fn crash(&self) {
        let mut tree = self.0.lock();
        let Tree { durable_names, moves, files, random, .. } = &mut *tree;
        let kept = random.below(moves.len() as u64 + 1) as usize;
        moves.drain(..).take(kept).for_each(|change| durable_names.apply(&change));
        files.values_mut().for_each(|file| file.crash(random));
        tree.names = tree.durable_names.clone();
        let named: BTreeSet<u64> = tree.names.files.values().copied().collect();
        tree.files.retain(|file, _| named.contains(file));
        tree.life += 1;
        tree.failing_sync = None;
        tree.misdirect = None;
        tree.locks.clear();
    }

    /// The process ends, the power stays: its handles are dead and its locks free, but what it wrote
    /// is still there, to be lost by a [`crash`](Self::crash) until somebody syncs it.
    pub fn kill(&self) {
        let mut tree = self.0.lock();
        tree.life += 1;
        tree.failing_sync = None;
        tree.misdirect = None;
        tree.locks.clear();
    }

    /// Lets the `nth` sync from now fail (1 is the next), and every later one until a crash. What a
    /// failed sync should have made durable is lost at the crash, though reads still show it.
    pub fn fail_sync(&self, nth: u64) {
        let mut tree = self.0.lock();
        tree.failing_sync = Some(tree.syncs + nth);
    }

    /// Bounds the bytes of all files together; `None` lifts the bound. May be raised and lowered.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.0.lock().capacity = bytes;
    }

    /// Bytes of all files together.
    pub fn used(&self) -> u64 {
        self.0.lock().used()
    }

    /// Flips one bit of a file for good, as a rotten sector would. Bits count from the file's start,
    /// the lowest of each byte first.
    ///
    /// # Panics
    /// If the file is missing or shorter.
    pub fn flip_bit(&self, path: &Path, bit: u64) {
        self.0.lock().image_mut(path).flip_bit(bit);
    }

    /// Lets the next write to this file land at `offset` instead of where it was meant to.
    ///
    /// # Panics
    /// If the file is missing.
    pub fn misdirect_next_write(&self, path: &Path, offset: u64) {
        let mut tree = self.0.lock();
        let file = tree.names.files[path];
        tree.misdirect = Some((file, offset));
    }

    /// How many times a file was asked to sync, since the disk was made.
    pub fn sync_count(&self) -> u64 {
        self.0.lock().syncs
    }

    /// The live content of a file, if it is there.
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let tree = self.0.lock();
        tree.names.files.get(path).map(|file| tree.files[file].live().to_vec())
    }

    /// Replaces a file's content for good, as if someone else had written and synced it.
    ///
    /// # Panics
    /// If the file is missing.
    pub fn set_content(&self, path: &Path, content: &[u8]) {
        *self.0.lock().image_mut(path) = Image::durable(content.to_vec());
    }

    /// Replaces everything on the disk by what is on another one, as when an old copy is put back.
    /// Nobody may have files open.
    pub fn restore(&self, from: &Self) {
        let copy = from.fork(0);
        let mut copy = copy.0.lock();
        let mut tree = self.0.lock();
        std::mem::swap(&mut tree.names, &mut copy.names);
        std::mem::swap(&mut tree.durable_names, &mut copy.durable_names);
        std::mem::swap(&mut tree.moves, &mut copy.moves);
        std::mem::swap(&mut tree.files, &mut copy.files);
        tree.next_file = tree.next_file.max(copy.next_file);
    }

    /// A copy of the whole disk as it is now, with a seed of its own and no planned faults.
    pub fn fork(&self, seed: u64) -> Self {
        let tree = self.0.lock();
        Self(Arc::new(Mutex::new(Tree {
            names: tree.names.clone(),
            durable_names: tree.durable_names.clone(),
            moves: tree.moves.clone(),
            files: tree.files.clone(),
            random: SplitMix(seed),
            failing_sync: None,
            misdirect: None,
            locks: BTreeSet::new(),
            ..*tree
        })))
    }
}

impl Tree {
    fn image_mut(&mut self, path: &Path) -> &mut Image {
        let file = self.names.files.get(path).unwrap_or_else(|| panic!("no file {path:?}"));
        self.files.get_mut(file).expect("named files exist")
    }

    fn used(&self) -> u64 {
        self.names.files.values().map(|file| self.files[file].live().len() as u64).sum()
    }

    fn room(&self) -> u64 {
        self.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(self.used()))
    }

    fn change(&mut self, change: Move) {
        self.names.apply(&change);
        self.moves.push(change);
    }

    fn create(&mut self, path: &Path) -> io::Result<u64> {
        if !self.names.dirs.contains(parent(path)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if self.room() == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let file = self.next_file;
        self.next_file += 1;
        self.files.insert(file, Image::default());
        self.change(Move::Link(path.to_owned(), file));
        Ok(file)
    }

    fn count_sync(&mut self) -> io::Result<()> {
        self.syncs += 1;
        match self.failing_sync {
            Some(from) if from <= self.syncs => Err(io::Error::other("injected sync failure")),
            _ => Ok(()),
        }
    }
}

impl Disk for MemoryDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut tree = self.0.lock();
        let file = match (tree.names.files.get(path).copied(), mode) {
            (Some(_), OpenMode::CreateNew) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(file), _) => file,
            (None, OpenMode::Read) => return Err(io::ErrorKind::NotFound.into()),
            (None, _) => tree.create(path)?,
        };
        let (disk, life) = (self.clone(), tree.life);
        Ok(Arc::new(MemoryFile { disk, file, life, writable: mode != OpenMode::Read }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let tree = self.0.lock();
        if !tree.names.dirs.contains(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let paths = tree.names.files.keys().chain(&tree.names.dirs);
        let within = paths.filter(|path| !path.as_os_str().is_empty() && parent(path) == dir);
        let mut names: Vec<String> =
            within.filter_map(|path| path.file_name()?.to_str().map(str::to_owned)).collect();
        names.sort();
        Ok(names)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let mut tree = self.0.lock();
        let mut missing: Vec<&Path> = dir.ancestors().collect();
        missing.reverse();
        for path in missing {
            if !tree.names.dirs.contains(path) {
                tree.change(Move::MakeDir(path.to_owned()));
            }
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut tree = self.0.lock();
        if !tree.names.files.contains_key(from) || !tree.names.dirs.contains(parent(to)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        tree.change(Move::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut tree = self.0.lock();
        if !tree.names.files.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        tree.change(Move::Unlink(path.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut tree = self.0.lock();
        if !tree.names.dirs.contains(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        // A journal commits in order: what came before a change of this folder goes with it.
        let end = tree.moves.iter().rposition(|change| change.touches(dir)).map_or(0, |at| at + 1);
        let settled: Vec<Move> = tree.moves.drain(..end).collect();
        settled.iter().for_each(|change| tree.durable_names.apply(change));
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Lock> {
        let mut tree = self.0.lock();
        if !tree.names.files.contains_key(path) {
            tree.create(path)?;
        }
        if !tree.locks.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let life = tree.life;
        Ok(Box::new(MemoryLock { disk: self.clone(), path: path.to_owned(), life }))
    }
}

/// Lets go when dropped, unless the process that held it is gone already.
struct MemoryLock {
    disk: MemoryDisk,
    path: PathBuf,
    life: u64,
}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        let mut tree = self.disk.0.lock();
        if tree.life == self.life {
            tree.locks.remove(&self.path);
        }
    }
}

struct MemoryFile {
    disk: MemoryDisk,
    file: u64,
    life: u64,
    writable: bool,
}

impl MemoryFile {
    fn with<T>(&self, act: impl FnOnce(&mut Tree) -> io::Result<T>) -> io::Result<T> {
        let mut tree = self.disk.0.lock();
        if tree.life == self.life { act(&mut tree) } else { Err(crashed()) }
    }

    fn with_writable<T>(&self, act: impl FnOnce(&mut Tree) -> io::Result<T>) -> io::Result<T> {
        if !self.writable {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.with(act)
    }
}

impl DiskFile for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        self.with(|tree| Ok(tree.files[&self.file].live().len() as u64))
    }

    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.with(|tree| tree.files[&self.file].read(offset, buf))
    }

    fn write_all_at(&self, offset: u64, parts: &[&[u8]]) -> io::Result<()> {
        self.with_writable(|tree| {
            let offset = match tree.misdirect {
                Some((file, elsewhere)) if file == self.file => {
                    tree.misdirect = None;
                    elsewhere
                }
                _ => offset,
            };
            let mut bytes = parts.concat();
            let room = tree.room();
            let file = tree.files.get_mut(&self.file).expect("open files exist");
            let fits = (file.live().len() as u64).saturating_add(room);
            let full = fits < offset + bytes.len() as u64;
            bytes.truncate(fits.saturating_sub(offset).min(bytes.len() as u64) as usize);
            if !bytes.is_empty() {
                file.change(Change::Write { offset, bytes });
            }
            if full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.with(|tree| {
            let outcome = tree.count_sync();
            let file = tree.files.get_mut(&self.file).expect("open files exist");
            match &outcome {
                Ok(()) => file.sync(),
                Err(_) => file.forget_unsynced(),
            }
            outcome
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with_writable(|tree| {
            let room = tree.room();
            let file = tree.files.get_mut(&self.file).expect("open files exist");
            if (file.live().len() as u64).saturating_add(room) < len {
                return Err(io::ErrorKind::StorageFull.into());
            }
            file.change(Change::SetLen { len });
            Ok(())
        })
    }
}
