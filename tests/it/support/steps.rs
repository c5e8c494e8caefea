//! A storage that stops one thread at a call of its own, wherever that is, until it may go on.

use crate::support::LONG;
use parking_lot::{Condvar, Mutex};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::thread::ThreadId;
use stratalog::storage::{DirEntry, File, LockGuard, Map, OpenMode, Storage};

/// A clone is the same storage.
#[derive(Clone, Debug)]
pub(crate) struct SteppedStorage {
    inner: Arc<dyn Storage>,
    steps: Arc<Steps>,
}

#[derive(Debug, Default)]
struct Steps {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Who is stopped, before which of its calls.
    stop: Option<(ThreadId, u64)>,
    calls: u64,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Before,
    Stopped,
    Past,
}

impl SteppedStorage {
    pub(crate) fn over(inner: Arc<dyn Storage>) -> Self {
        Self { inner, steps: Arc::default() }
    }

    /// Does something on this thread, stopped before its `nth` call; gives what came of it.
    pub(crate) fn run<T>(&self, nth: u64, what: impl FnOnce() -> T) -> T {
        let stop = Some((thread::current().id(), nth));
        *self.steps.state.lock() = State { stop, ..State::default() };
        let done = what();
        self.set(Phase::Past);
        done
    }

    /// Blocks until the thread is stopped, or through; tells which.
    pub(crate) fn wait_until_stopped(&self) -> bool {
        let mut state = self.steps.state.lock();
        let waits = |state: &mut State| state.phase == Phase::Before;
        let waited = self.steps.changed.wait_while_for(&mut state, waits, LONG);
        assert!(!waited.timed_out(), "it never gets there");
        state.phase == Phase::Stopped
    }

    pub(crate) fn go_on(&self) {
        self.set(Phase::Past);
    }

    fn set(&self, phase: Phase) {
        self.steps.state.lock().phase = phase;
        self.steps.changed.notify_all();
    }

    fn pass(&self) {
        let mut state = self.steps.state.lock();
        let Some((thread, nth)) = state.stop else { return };
        if thread != thread::current().id() || state.phase != Phase::Before {
            return;
        }
        state.calls += 1;
        if state.calls == nth {
            state.phase = Phase::Stopped;
            self.steps.changed.notify_all();
            self.steps.changed.wait_while(&mut state, |state| state.phase == Phase::Stopped);
        }
    }
}

impl Storage for SteppedStorage {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.create_dir(path)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        self.pass();
        let file = self.inner.open(path, mode)?;
        Ok(Arc::new(SteppedFile { storage: self.clone(), file }))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.inner.list(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.pass();
        self.inner.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.pass();
        self.inner.remove(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.pass();
        self.inner.sync_dir(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn LockGuard>> {
        self.inner.lock(path)
    }

    fn random(&self) -> u64 {
        self.inner.random()
    }
}

#[derive(Debug)]
struct SteppedFile {
    storage: SteppedStorage,
    file: Arc<dyn File>,
}

impl File for SteppedFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        self.storage.pass();
        self.file.read_at(buf, position)
    }

    fn write_at(&self, buf: &[u8], position: u64) -> io::Result<usize> {
        self.storage.pass();
        self.file.write_at(buf, position)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.storage.pass();
        self.file.sync_data()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.storage.pass();
        self.file.set_len(len)
    }

    fn size(&self) -> io::Result<u64> {
        self.storage.pass();
        self.file.size()
    }

    fn map(&self, len: u64) -> io::Result<Option<Map>> {
        self.file.map(len)
    }
}
