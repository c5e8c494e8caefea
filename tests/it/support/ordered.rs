//! A storage that watches the order of the calls to another one and knows which orders are wrong.
//!
//! A crash simulator finds a missing sync when it cuts the power at the right moment and somebody
//! looks at the right bytes. Here the missing sync itself is the fault, whatever the crash: any
//! test that runs over this storage, with many threads too, finds it. The test tells what it was
//! told: that the log is open, that a record is synced, that the log is closed. The rules are in
//! `support/rules.rs`.

use crate::support::positions;
use crate::support::positions::Positions;
use crate::support::rules::NodeId;
use crate::support::rules::Rules;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use stratalog::storage::{DirEntry, File, LockGuard, Map, OpenMode, Storage};
use stratalog::{Log, Offset};

/// A clone is the same storage.
#[derive(Clone, Debug)]
pub(crate) struct OrderedStorage {
    inner: Arc<dyn Storage>,
    rules: Arc<Mutex<Rules>>,
    positions: Arc<Mutex<Positions>>,
    process: u64,
}

impl OrderedStorage {
    /// What `inner` holds counts as durable.
    pub(crate) fn over(inner: Arc<dyn Storage>) -> Self {
        Self { inner, rules: Arc::default(), positions: Arc::default(), process: 0 }
    }

    /// The same files as another process gets at them. The one before is dead from now on: what it
    /// still does, such as closing a log that is dropped, has no effect.
    pub(crate) fn next_process(&self, inner: Arc<dyn Storage>) -> Self {
        let process = self.rules().next_process();
        let (rules, positions) = (Arc::clone(&self.rules), Arc::clone(&self.positions));
        Self { inner, rules, positions, process }
    }

    /// The log has been opened, and shows what it shows as durable.
    #[track_caller]
    pub(crate) fn opened(&self, log: &Log) {
        self.serves();
        self.synced(log.durable_offset());
    }

    /// Opening is over.
    pub(crate) fn serves(&self) {
        self.rules().serve();
    }

    /// The log said that all below `end` is synced.
    #[track_caller]
    pub(crate) fn synced(&self, end: Offset) {
        self.acknowledges(end);
        self.check();
    }

    pub(crate) fn acknowledges(&self, end: Offset) {
        self.rules().acknowledged(end.get());
    }

    /// Closing the log has returned.
    #[track_caller]
    pub(crate) fn closed(&self) {
        self.rules().close();
        self.check();
    }

    /// No rule has been broken so far.
    #[track_caller]
    pub(crate) fn check(&self) {
        let broken = self.broken();
        assert!(broken.is_none(), "{}", broken.unwrap_or_default());
    }

    /// The first rule that was broken, and the calls before.
    pub(crate) fn broken(&self) -> Option<String> {
        self.rules().broken().or_else(|| self.positions().broken())
    }

    /// A consumer said that it has committed that.
    #[track_caller]
    pub(crate) fn committed(&self, path: &Path, to: Offset) {
        self.states(path, to);
        self.check();
    }

    pub(crate) fn states(&self, path: &Path, to: Offset) {
        self.positions().committed(path, to.get());
    }

    fn positions(&self) -> MutexGuard<'_, Positions> {
        self.positions.lock().unwrap()
    }

    fn rules(&self) -> MutexGuard<'_, Rules> {
        self.rules.lock().unwrap()
    }

    /// Where a manifest that is about to get its name cuts the log, if it does.
    fn cut_in(&self, from: &Path, to: &Path) -> Option<u64> {
        let read = |path: &Path| {
            let file = self.inner.open(path, OpenMode::Read).ok()?;
            let mut bytes = vec![0; usize::try_from(file.size().ok()?).ok()?];
            let len = file.read_at(&mut bytes, 0).ok()?;
            (len == bytes.len() && len >= 84).then_some(bytes)
        };
        let (before, after) = (read(to)?, read(from)?);
        let number =
            |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let rows = after[80..after.len() - 4].chunks_exact(96);
        let end = rows.last().map_or(number(&after, 32), |row| number(row, 16));
        let is_cut = number(&after, 56) > number(&before, 56);
        (is_cut && to.ends_with("MANIFEST")).then_some(end)
    }

    /// A call with an effect begins.
    fn begin(&self, what: &str, path: &Path) -> io::Result<u64> {
        let mut rules = self.rules();
        if rules.process() == self.process {
            return Ok(rules.begin(what, path));
        }
        Err(io::Error::other("this process is dead"))
    }
}

impl Storage for OrderedStorage {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.create_dir(path)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        if mode == OpenMode::Create {
            self.begin("create", path)?;
        }
        let file = self.inner.open(path, mode)?;
        if positions::is_position(path) {
            self.positions().opened(path, mode, &*file);
        }
        let node = self.rules().opened(path, mode, &file);
        Ok(Arc::new(OrderedFile { storage: self.clone(), path: path.to_owned(), file, node }))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.inner.list(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.begin("rename to", to)?;
        if positions::is_position(to) {
            self.inner.rename(from, to)?;
            self.positions().renamed(from, to);
            return Ok(());
        }
        if let Some(end) = self.cut_in(from, to) {
            self.positions().before_cut(end);
        }
        self.rules().before_rename(from, to);
        let renamed = self.inner.rename(from, to);
        self.rules().renamed(from, to, &renamed);
        renamed
    }

    /// A file in another directory, which is not watched.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.begin("link to", to)?;
        self.inner.link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        if !self.rules().is_there(path) {
            return self.inner.remove(path);
        }
        self.begin("remove", path)?;
        if positions::is_position(path) {
            self.inner.remove(path)?;
            self.positions().removed(path);
            return Ok(());
        }
        self.rules().before_remove(path);
        let removed = self.inner.remove(path);
        self.rules().removed(path, &removed);
        removed
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let start = self.begin("sync_dir", path)?;
        let synced = self.inner.sync_dir(path);
        if positions::is_directory(path) {
            self.positions().synced_dir(&synced);
            return synced;
        }
        self.rules().synced_dir(start, &synced);
        synced
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn LockGuard>> {
        let lock = self.inner.lock(path)?;
        self.rules().start();
        self.positions().start();
        Ok(lock)
    }

    fn random(&self) -> u64 {
        self.inner.random()
    }
}

#[derive(Debug)]
struct OrderedFile {
    storage: OrderedStorage,
    path: PathBuf,
    file: Arc<dyn File>,
    node: NodeId,
}

impl File for OrderedFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        self.file.read_at(buf, position)
    }

    fn write_at(&self, buf: &[u8], position: u64) -> io::Result<usize> {
        self.storage.begin(&format!("write {} at {position}", buf.len()), &self.path)?;
        if positions::is_position(&self.path) {
            let rules = self.storage.rules();
            let why_not = |end| rules.not_durable(end);
            self.storage.positions().before_write(&self.path, buf, position, why_not);
        }
        self.storage.rules().before_write(&self.path, self.node, buf, position);
        let written = self.file.write_at(buf, position);
        let range = |count: usize| -> Range<u64> { position..position + count as u64 };
        let written_range = written.as_ref().map(|count| range(*count));
        self.storage.rules().written(&self.path, self.node, buf, written_range);
        written
    }

    fn sync_data(&self) -> io::Result<()> {
        let start = self.storage.begin("sync", &self.path)?;
        if positions::is_position(&self.path) {
            self.storage.positions().before_sync(&self.path);
            let synced = self.file.sync_data();
            self.storage.positions().synced(&self.path, &*self.file, &synced);
            return synced;
        }
        self.storage.rules().before_sync(&self.path, self.node);
        let synced = self.file.sync_data();
        self.storage.rules().synced(&self.path, self.node, start, &synced);
        synced
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.storage.begin(&format!("set_len {len}"), &self.path)?;
        self.storage.rules().before_set_len(&self.path, self.node, len);
        let set = self.file.set_len(len);
        if set.is_ok() {
            self.storage.rules().length_set(self.node, len);
        }
        set
    }

    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn map(&self, len: u64) -> io::Result<Option<Map>> {
        self.file.map(len)
    }
}
