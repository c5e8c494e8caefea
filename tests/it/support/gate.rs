//! A storage in memory whose syncs a test can hold up and count.

use crate::support::LONG;
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use stratalog::storage::{DirEntry, File, LockGuard, Map, MemoryStorage, OpenMode, Storage};

/// A clone is the same storage.
#[derive(Clone, Debug, Default)]
pub(crate) struct GateStorage {
    inner: MemoryStorage,
    gate: Arc<Gate>,
}

#[derive(Debug, Default)]
struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    held: bool,
    /// How many syncs stand at the gate.
    waiting: usize,
    /// How many came to it so far.
    syncs: u64,
}

impl GateStorage {
    /// No sync returns until the guard is dropped, be it by a test that fails.
    #[must_use]
    pub(crate) fn hold(&self) -> Held {
        self.gate.state.lock().unwrap().held = true;
        Held(Arc::clone(&self.gate))
    }

    /// Blocks until a sync is held up.
    pub(crate) fn wait_for_sync(&self) {
        let state = self.gate.state.lock().unwrap();
        let none = |state: &mut State| state.waiting == 0;
        let (state, waited) = self.gate.changed.wait_timeout_while(state, LONG, none).unwrap();
        drop(state);
        assert!(!waited.timed_out(), "nobody syncs");
    }

    pub(crate) fn syncs(&self) -> u64 {
        self.gate.state.lock().unwrap().syncs
    }
}

#[derive(Debug)]
pub(crate) struct Held(Arc<Gate>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.state.lock().unwrap().held = false;
        self.0.changed.notify_all();
    }
}

impl Gate {
    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.syncs += 1;
        state.waiting += 1;
        self.changed.notify_all();
        let mut state = self.changed.wait_while(state, |state| state.held).unwrap();
        state.waiting -= 1;
    }
}

impl Storage for GateStorage {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.create_dir(path)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let inner = self.inner.open(path, mode)?;
        Ok(Arc::new(GateFile { inner, gate: Arc::clone(&self.gate) }))
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

    fn is_locked(&self, path: &Path) -> io::Result<bool> {
        self.inner.is_locked(path)
    }
}

#[derive(Debug)]
struct GateFile {
    inner: Arc<dyn File>,
    gate: Arc<Gate>,
}

impl File for GateFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        self.inner.read_at(buf, position)
    }

    fn write_at(&self, buf: &[u8], position: u64) -> io::Result<usize> {
        self.inner.write_at(buf, position)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.gate.pass();
        self.inner.sync_data()
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
