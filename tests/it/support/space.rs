//! A storage in memory that knows how much space it takes: a file has its space until its name is
//! gone and nobody has it open, and giving back a large one takes long.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;
use stratalog::storage::{DirEntry, File, LockGuard, Map, MemoryStorage, OpenMode, Storage};

/// Smaller files are given back at once.
const LARGE_BYTES: u64 = 1 << 20;

/// A clone is the same storage.
#[derive(Clone, Debug)]
pub(crate) struct SpaceStorage {
    inner: MemoryStorage,
    names: Arc<Mutex<HashMap<PathBuf, Arc<Node>>>>,
    space: Arc<Space>,
    /// Parts of names, and the how manieth write to such a file is refused.
    refusals: Arc<Mutex<Vec<(String, u64)>>>,
}

#[derive(Debug)]
struct Space {
    figures: Mutex<Figures>,
    refusal: Condvar,
    /// How long giving back a large file takes, if nobody is refused space meanwhile.
    takes: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Figures {
    used: u64,
    most: u64,
    room: u64,
    refused: u64,
}

/// A file, whatever names it has.
#[derive(Debug)]
struct Node {
    len: Mutex<u64>,
    space: Arc<Space>,
}

impl SpaceStorage {
    pub(crate) fn new(takes: Duration) -> Self {
        let figures = Figures { used: 0, most: 0, room: u64::MAX, refused: 0 };
        let space = Space { figures: Mutex::new(figures), refusal: Condvar::new(), takes };
        let (names, refusals) = (Arc::default(), Arc::default());
        Self { inner: MemoryStorage::new(), names, space: Arc::new(space), refusals }
    }

    /// How many bytes files have that are open or have a name.
    pub(crate) fn used(&self) -> u64 {
        self.space.figures().used
    }

    /// The most that it has been.
    pub(crate) fn most(&self) -> u64 {
        self.space.figures().most
    }

    /// How many bytes files have that have a name.
    pub(crate) fn named(&self) -> u64 {
        self.names.lock().unwrap().values().map(|node| *node.len.lock().unwrap()).sum()
    }

    /// How often there was no space.
    pub(crate) fn refused(&self) -> u64 {
        self.space.figures().refused
    }

    /// From now on so many more bytes can be used.
    pub(crate) fn set_free(&self, bytes: u64) {
        let mut figures = self.space.figures();
        figures.room = figures.used + bytes;
    }

    /// Refuses one write to a file with such a name: the first, the second, and so on.
    pub(crate) fn refuse(&self, name: &str, nth: u64) {
        self.refusals.lock().unwrap().push((name.to_owned(), nth));
    }

    /// Refuses nothing any more that has not come yet.
    pub(crate) fn heal(&self) {
        self.refusals.lock().unwrap().clear();
    }

    fn refuses(&self, path: &Path) -> bool {
        let mut refusals = self.refusals.lock().unwrap();
        for (name, nth) in refusals.iter_mut() {
            *nth -= u64::from(path.to_str().unwrap().contains(&*name));
        }
        let before = refusals.len();
        refusals.retain(|(_, nth)| *nth > 0);
        refusals.len() < before
    }

    fn node(&self, path: &Path) -> Arc<Node> {
        let new = || Node { len: Mutex::new(0), space: Arc::clone(&self.space) };
        let mut names = self.names.lock().unwrap();
        Arc::clone(names.entry(path.into()).or_insert_with(|| Arc::new(new())))
    }
}

impl Space {
    fn figures(&self) -> MutexGuard<'_, Figures> {
        self.figures.lock().unwrap()
    }

    fn take(&self, bytes: u64) -> io::Result<()> {
        let mut figures = self.figures();
        if figures.used + bytes > figures.room {
            figures.refused += 1;
            self.refusal.notify_all();
            return Err(io::ErrorKind::StorageFull.into());
        }
        figures.used += bytes;
        figures.most = figures.most.max(figures.used);
        Ok(())
    }
}

impl Node {
    fn set_len(&self, len: &mut u64, new: u64) -> io::Result<()> {
        if new > *len {
            self.space.take(new - *len)?;
        } else {
            self.space.figures().used -= *len - new;
        }
        *len = new;
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let len = *self.len.lock().unwrap();
        let mut figures = self.space.figures();
        if len >= LARGE_BYTES {
            let before = figures.refused;
            let (refusal, takes) = (&self.space.refusal, self.space.takes);
            let nobody = |figures: &mut Figures| figures.refused == before;
            figures = refusal.wait_timeout_while(figures, takes, nobody).unwrap().0;
        }
        figures.used -= len;
    }
}

impl Storage for SpaceStorage {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.create_dir(path)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let inner = self.inner.open(path, mode)?;
        Ok(Arc::new(Spaced { inner, node: self.node(path), path: path.into(), disk: self.clone() }))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.inner.list(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)?;
        let mut names = self.names.lock().unwrap();
        let replaced = names.remove(from).and_then(|node| names.insert(to.into(), node));
        drop(names);
        drop(replaced);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.inner.remove(path)?;
        let removed = self.names.lock().unwrap().remove(path);
        drop(removed);
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.sync_dir(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn LockGuard>> {
        self.inner.lock(path)
    }
}

#[derive(Debug)]
struct Spaced {
    inner: Arc<dyn File>,
    node: Arc<Node>,
    path: PathBuf,
    disk: SpaceStorage,
}

impl File for Spaced {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        self.inner.read_at(buf, position)
    }

    fn write_at(&self, buf: &[u8], position: u64) -> io::Result<usize> {
        if self.disk.refuses(&self.path) {
            self.node.space.figures().refused += 1;
            return Err(io::ErrorKind::StorageFull.into());
        }
        let mut len = self.node.len.lock().unwrap();
        let end = (position + buf.len() as u64).max(*len);
        self.node.set_len(&mut len, end)?;
        self.inner.write_at(buf, position)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.inner.sync_data()
    }

    fn set_len(&self, new: u64) -> io::Result<()> {
        let mut len = self.node.len.lock().unwrap();
        self.node.set_len(&mut len, new)?;
        self.inner.set_len(new)
    }

    fn size(&self) -> io::Result<u64> {
        self.inner.size()
    }

    fn map(&self, len: u64) -> io::Result<Option<Map>> {
        self.inner.map(len)
    }
}
