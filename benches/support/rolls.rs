//! What there is to gain where a segment follows another: a storage that leaves out the syncs of a
//! roll, or makes new segments of the files of old ones. It keeps no promise, and shows what
//! keeping it in such a way would be worth at most.

use crate::support::begun;
use crate::support::scratch;
use crate::support::timed;
use crate::support::value;
use std::cell::Cell;
use std::fs;
use std::io;
use std::iter::repeat_n;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use stratalog::storage::{DirEntry, File, FsStorage, LockGuard, Map, OpenMode, Storage};
use stratalog::{Durability, Options, Retention};

/// How many segments retention leaves, and how many files wait to be used again.
const SEGMENTS_KEPT: u64 = 8;
const POOL_MAX: usize = 4;

/// What a roll does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rolls {
    AsTheyAre,
    /// As if the next segment were made and named ahead.
    NoSyncs,
    /// The next segment overwrites one that retention has removed.
    Reuse,
    Both,
}

/// Appends so many records of 100 bytes, buffered, in batches of that many, beside retention and
/// the syncs of a log's defaults.
pub(crate) fn append(rolls: Rolls, batch: usize, count: u64, segment_bytes: u64) -> Duration {
    let (dir, value) = (scratch(), value(100));
    let storage = Arc::new(Rolling { rolls, pool_dir: dir.path().into(), ..Rolling::default() });
    let options = Options::new()
        .durability(Durability::Buffered)
        .segment_bytes(segment_bytes)
        .retention(Retention::new().max_bytes(SEGMENTS_KEPT * segment_bytes))
        .storage(storage);
    let log = begun(&dir.path().join("log"), options, &value);
    let append = |count: u64| {
        for _ in 0..count / batch as u64 {
            log.append_batch(repeat_n(&value, batch)).unwrap();
        }
    };
    // Until there is something to remove, and files to use again.
    append((SEGMENTS_KEPT + 2) * segment_bytes / 100);
    timed(|| append(count))
}

impl Rolls {
    fn syncs(self) -> bool {
        matches!(self, Self::AsTheyAre | Self::Reuse)
    }

    fn reuses(self) -> bool {
        matches!(self, Self::Reuse | Self::Both)
    }
}

#[derive(Debug)]
struct Rolling {
    rolls: Rolls,
    inner: FsStorage,
    /// Where files wait, and which.
    pool_dir: PathBuf,
    pool: Mutex<Vec<PathBuf>>,
    pooled: AtomicU64,
}

impl Default for Rolling {
    fn default() -> Self {
        Self {
            rolls: Rolls::AsTheyAre,
            inner: FsStorage::new(),
            pool_dir: PathBuf::new(),
            pool: Mutex::default(),
            pooled: AtomicU64::new(0),
        }
    }
}

thread_local! {
    /// Whether this thread has made a segment that it has not synced since: who rolls, does.
    static HAS_MADE_ONE: Cell<bool> = const { Cell::new(false) };
}

impl Storage for Rolling {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.create_dir(path)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let is_new = mode == OpenMode::Create && is_segment(path);
        HAS_MADE_ONE.set(is_new);
        let old = self.pool.lock().unwrap().pop_if(|_| is_new);
        let inner = match old {
            Some(old) => {
                fs::rename(&old, path)?;
                self.inner.open(path, OpenMode::Write)?
            }
            None => self.inner.open(path, mode)?,
        };
        let kind = match is_new {
            true => Kind::NewSegment,
            false if path.to_string_lossy().contains("MANIFEST") => Kind::Manifest,
            false => Kind::Other,
        };
        Ok(Arc::new(RollingFile { inner, rolls: self.rolls, kind }))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.inner.list(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut pool = self.pool.lock().unwrap();
        if !is_segment(path) || !self.rolls.reuses() || pool.len() == POOL_MAX {
            drop(pool);
            return self.inner.remove(path);
        }
        let nth = self.pooled.fetch_add(1, Ordering::Relaxed);
        let to = self.pool_dir.join(nth.to_string());
        fs::rename(path, &to)?;
        pool.push(to);
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        if self.rolls.syncs() { self.inner.sync_dir(path) } else { Ok(()) }
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn LockGuard>> {
        self.inner.lock(path)
    }
}

fn is_segment(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "log")
}

#[derive(Debug)]
struct RollingFile {
    inner: Arc<dyn File>,
    rolls: Rolls,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    NewSegment,
    Manifest,
    Other,
}

impl File for RollingFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        self.inner.read_at(buf, position)
    }

    fn write_at(&self, buf: &[u8], position: u64) -> io::Result<usize> {
        self.inner.write_at(buf, position)
    }

    fn sync_data(&self) -> io::Result<()> {
        let is_roll = match self.kind {
            Kind::NewSegment => HAS_MADE_ONE.replace(false),
            Kind::Manifest => true,
            Kind::Other => false,
        };
        if is_roll && !self.rolls.syncs() { Ok(()) } else { self.inner.sync_data() }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }

    fn size(&self) -> io::Result<u64> {
        self.inner.size()
    }

    fn map(&self, len: u64) -> io::Result<Option<Map>> {
        self.inner.map(len)
    }
}
