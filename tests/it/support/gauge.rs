//! A storage that measures: how much is read, and how much at once. Its files may also seem longer
//! than they are, without a byte in memory: what is behind their end is one value, again and again.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use stratalog::storage::{DirEntry, File, LockGuard, Map, MemoryStorage, OpenMode, Storage};

/// A clone is the same storage.
#[derive(Clone, Debug)]
pub(crate) struct Gauge {
    inner: MemoryStorage,
    long: Option<Long>,
    read_bytes: Arc<AtomicU64>,
    largest_read: Arc<AtomicU64>,
}

/// The file that seems longer than it is.
#[derive(Clone, Debug)]
struct Long {
    path: PathBuf,
    len: u64,
    byte: u8,
}

impl Gauge {
    pub(crate) fn over(inner: MemoryStorage) -> Self {
        Self { inner, long: None, read_bytes: Arc::default(), largest_read: Arc::default() }
    }

    /// Makes a file seem `len` bytes long, with `byte` behind its end.
    pub(crate) fn lengthen(mut self, path: PathBuf, len: u64, byte: u8) -> Self {
        self.long = Some(Long { path, len, byte });
        self
    }

    pub(crate) fn read_bytes(&self) -> u64 {
        self.read_bytes.load(Ordering::SeqCst)
    }

    pub(crate) fn largest_read(&self) -> u64 {
        self.largest_read.load(Ordering::SeqCst)
    }
}

impl Storage for Gauge {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.create_dir(path)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let inner = self.inner.open(path, mode)?;
        let long = self.long.clone().filter(|long| long.path == path);
        Ok(Arc::new(Gauged { inner, long, gauge: self.clone() }))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.inner.list(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.inner.remove(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.sync_dir(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn LockGuard>> {
        self.inner.lock(path)
    }
}

#[derive(Debug)]
struct Gauged {
    inner: Arc<dyn File>,
    long: Option<Long>,
    gauge: Gauge,
}

impl File for Gauged {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        self.gauge.largest_read.fetch_max(buf.len() as u64, Ordering::SeqCst);
        let count = match self.inner.read_at(buf, position)? {
            0 => self.long.as_ref().map_or(0, |long| {
                let rest = long.len.saturating_sub(position);
                let count = usize::try_from(rest).unwrap_or(usize::MAX).min(buf.len());
                buf[..count].fill(long.byte);
                count
            }),
            count => count,
        };
        self.gauge.read_bytes.fetch_add(count as u64, Ordering::SeqCst);
        Ok(count)
    }

    fn write_at(&self, buf: &[u8], position: u64) -> io::Result<usize> {
        self.inner.write_at(buf, position)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.inner.sync_data()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }

    fn size(&self) -> io::Result<u64> {
        self.long.as_ref().map_or_else(|| self.inner.size(), |long| Ok(long.len))
    }

    fn map(&self, _len: u64) -> io::Result<Option<Map>> {
        Ok(None)
    }
}
