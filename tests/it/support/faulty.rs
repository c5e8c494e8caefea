//! A storage that fails: it counts calls, breaks the n-th of a kind, fills up, stops, and loses
//! what was not synced when the power is cut.
//!
//! A wrapper around another storage, which holds what the processes see; what the disk holds is
//! kept beside it in a [`Medium`]. A process gets at it by a handle of its own, so that nothing a
//! log does after the process was killed, such as closing, has an effect.
//!
//! Syncs are not passed on: the real disk need not work for a medium that is pretended.

use crate::support::fault::Fault;
use crate::support::fault::Op;
use crate::support::fault::injected;
use crate::support::medium::Crash;
use crate::support::medium::Medium;
use crate::support::medium::NodeId;
use crate::support::medium::Numbers;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use stratalog::storage::{DirEntry, EntryKind, File, LockGuard, Map, MemoryStorage};
use stratalog::storage::{OpenMode, Storage};

/// The machine, as the test sees it. A clone is the same one.
#[derive(Clone, Debug)]
pub(crate) struct FaultyStorage {
    inner: Arc<dyn Storage>,
    state: Arc<Mutex<State>>,
    changed: Arc<Condvar>,
}

#[derive(Debug, Default)]
struct State {
    medium: Medium,
    /// Directories whose files the medium knows.
    dirs: BTreeSet<PathBuf>,
    calls: Vec<(Op, PathBuf)>,
    faults: Vec<Fault>,
    /// Calls of this kind wait, and how many do.
    held: Option<Op>,
    waiting: usize,
    /// How many calls with an effect are left before the machine stops.
    fuel: Option<u64>,
    /// The longest read or write that is done whole.
    io_max: Option<usize>,
    /// The one whose calls have an effect.
    process: u64,
    locks: BTreeMap<PathBuf, Box<dyn LockGuard>>,
    random: Numbers,
}

impl FaultyStorage {
    /// What `inner` holds counts as durable.
    pub(crate) fn over(inner: impl Storage + 'static) -> Self {
        Self { inner: Arc::new(inner), state: Arc::default(), changed: Arc::default() }
    }

    pub(crate) fn memory() -> Self {
        Self::over(MemoryStorage::new())
    }

    /// The storage for a process that begins now.
    pub(crate) fn process(&self) -> Arc<dyn Storage> {
        Arc::new(Process { machine: self.clone(), process: self.state().process })
    }

    pub(crate) fn inject(&self, fault: Fault) {
        self.state().faults.push(fault);
    }

    /// No call fails any more.
    pub(crate) fn heal(&self) {
        self.state().faults.clear();
    }

    /// From now on no call of that kind gets through.
    pub(crate) fn hold(&self, op: Op) {
        self.state().held = Some(op);
    }

    /// Blocks until a call is held up.
    pub(crate) fn wait_until_held(&self) {
        drop(self.changed.wait_while(self.state(), |state| state.waiting == 0).unwrap());
    }

    /// All calls that were held up go on.
    pub(crate) fn release(&self) {
        self.state().held = None;
        self.changed.notify_all();
    }

    /// Reads and writes do no more bytes than that at a time.
    pub(crate) fn limit_io(&self, bytes: usize) {
        self.state().io_max = Some(bytes);
    }

    /// Files may grow by so many bytes; `None` is no limit. What is removed or cut is free again.
    pub(crate) fn set_free(&self, bytes: Option<u64>) {
        self.state().medium.free = bytes;
    }

    /// So many more calls have an effect, then the machine stops.
    pub(crate) fn stop_after(&self, effects: u64) {
        self.state().fuel = Some(effects);
    }

    /// How many calls had an effect.
    pub(crate) fn effects(&self) -> u64 {
        self.count(|op, _| op.has_effect())
    }

    /// How many calls there were, of those that the test means.
    pub(crate) fn count(&self, counts: impl Fn(Op, &Path) -> bool) -> u64 {
        self.state().calls.iter().filter(|(op, path)| counts(*op, path)).count() as u64
    }

    pub(crate) fn forget_calls(&self) {
        self.state().calls.clear();
    }

    /// The process ends, and the machine goes on: locks are free, and what was written is seen.
    pub(crate) fn kill(&self) {
        let mut state = self.state();
        state.process += 1;
        state.fuel = None;
        let locks = mem::take(&mut state.locks);
        drop(state);
        drop(locks);
    }

    /// Kills the process, cuts the power and gives the machine that starts again. This one stays
    /// as it is, so that its power can be cut in another way.
    pub(crate) fn crash(&self, how: Crash) -> Self {
        self.kill();
        let state = self.state();
        let after = MemoryStorage::new();
        for dir in &state.dirs {
            after.create_dir(dir).unwrap();
        }
        let mut used = 0;
        for (path, bytes) in state.medium.survivors(how) {
            used += bytes.len() as u64;
            let file = after.open(&path, OpenMode::Create).unwrap();
            assert_eq!(file.write_at(&bytes, 0).unwrap(), bytes.len());
        }
        let after = Self::over(after);
        let mut fresh = after.state();
        for dir in &state.dirs {
            fresh.adopt(&*after.inner, dir);
        }
        fresh.medium.free = state.medium.capacity().map(|capacity| capacity.saturating_sub(used));
        fresh.random = Numbers(state.random.0.wrapping_add(1));
        drop(fresh);
        after
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Counts a call and lets it through, or fails it.
    fn admit(&self, process: u64, op: Op, path: &Path) -> Result<MutexGuard<'_, State>, Refused> {
        let mut state = self.state();
        if state.held == Some(op) {
            state.waiting += 1;
            self.changed.notify_all();
            state = self.changed.wait_while(state, |state| state.held == Some(op)).unwrap();
            state.waiting -= 1;
        }
        state.admit(process, op, path).map(|()| state)
    }
}

impl State {
    fn admit(&mut self, process: u64, op: Op, path: &Path) -> Result<(), Refused> {
        if process != self.process {
            return Err(Refused::Stopped);
        }
        match &mut self.fuel {
            Some(0) => return Err(Refused::Stopped),
            Some(fuel) if op.has_effect() => *fuel -= 1,
            _ => {}
        }
        self.calls.push((op, path.to_owned()));
        // Each fault counts the call, also when another one strikes.
        let errors = self.faults.iter_mut().filter_map(|fault| fault.strikes(op, path));
        errors.last().map_or(Ok(()), |kind| Err(Refused::Fault(kind)))
    }

    /// Gets to know a directory of the inner storage.
    fn adopt(&mut self, inner: &dyn Storage, dir: &Path) {
        if self.dirs.contains(dir) {
            return;
        }
        let Ok(listed) = inner.list(dir) else { return };
        self.dirs.insert(dir.to_owned());
        for entry in listed.into_iter().filter(|entry| entry.kind == EntryKind::File) {
            let path = dir.join(entry.name);
            let file = inner.open(&path, OpenMode::Read).unwrap();
            let mut bytes = vec![0; usize::try_from(file.size().unwrap()).unwrap()];
            assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
            self.medium.adopt(&path, bytes);
        }
    }
}

/// Why a call was not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refused {
    /// The machine has stopped, or the process is dead: nothing happens any more.
    Stopped,
    Fault(io::ErrorKind),
}

impl From<Refused> for io::Error {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Stopped => injected(io::ErrorKind::Other),
            Refused::Fault(kind) => injected(kind),
        }
    }
}

/// The machine, as one process sees it.
#[derive(Clone, Debug)]
struct Process {
    machine: FaultyStorage,
    process: u64,
}

impl Process {
    fn inner(&self) -> &dyn Storage {
        &*self.machine.inner
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.machine.state()
    }

    fn admit(&self, op: Op, path: &Path) -> Result<MutexGuard<'_, State>, Refused> {
        let dir = if matches!(op, Op::CreateDir | Op::List) { Some(path) } else { path.parent() };
        self.state().adopt(self.inner(), dir.unwrap_or(path));
        self.machine.admit(self.process, op, path)
    }
}

impl Storage for Process {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.admit(Op::CreateDir, path)?;
        self.inner().create_dir(path)?;
        state.adopt(self.inner(), path);
        Ok(())
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let op = if mode == OpenMode::Create { Op::Create } else { Op::Open };
        let mut state = self.admit(op, path)?;
        let inner = self.inner().open(path, mode)?;
        if mode == OpenMode::Create {
            state.medium.create(path);
        }
        let node = state.medium.node(path);
        Ok(Arc::new(FaultyFile { machine: self.clone(), path: path.into(), inner, node }))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        drop(self.admit(Op::List, path)?);
        self.inner().list(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.admit(Op::Rename, to)?;
        self.inner().rename(from, to)?;
        state.medium.rename(from, to);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.admit(Op::Remove, path)?;
        self.inner().remove(path)?;
        state.medium.remove(path);
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        match self.admit(Op::SyncDir, path) {
            Ok(mut state) => state.medium.sync_dir(path),
            Err(refused) => {
                if refused != Refused::Stopped {
                    self.state().medium.lose_names(path);
                }
                return Err(refused.into());
            }
        }
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn LockGuard>> {
        let mut state = self.admit(Op::Lock, path)?;
        let guard = self.inner().lock(path)?;
        state.locks.insert(path.to_owned(), guard);
        Ok(Box::new(FaultyLock { machine: self.clone(), path: path.to_owned() }))
    }

    fn random(&self) -> u64 {
        self.state().random.next()
    }
}

#[derive(Debug)]
struct FaultyLock {
    machine: Process,
    path: PathBuf,
}

impl LockGuard for FaultyLock {}

impl Drop for FaultyLock {
    fn drop(&mut self) {
        let mut state = self.machine.state();
        if state.process == self.machine.process {
            drop(state.locks.remove(&self.path));
        }
    }
}

#[derive(Debug)]
struct FaultyFile {
    machine: Process,
    path: PathBuf,
    inner: Arc<dyn File>,
    node: NodeId,
}

impl FaultyFile {
    fn admit(&self, op: Op) -> Result<MutexGuard<'_, State>, Refused> {
        self.machine.machine.admit(self.machine.process, op, &self.path)
    }
}

impl File for FaultyFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        let len = self.admit(Op::Read)?.io_max.unwrap_or(usize::MAX).min(buf.len());
        self.inner.read_at(&mut buf[..len], position)
    }

    fn write_at(&self, buf: &[u8], position: u64) -> io::Result<usize> {
        let mut state = self.admit(Op::Write)?;
        let room = state.medium.room(self.node, position);
        let len = state.io_max.unwrap_or(usize::MAX).min(buf.len()).min(room);
        if len == 0 && !buf.is_empty() {
            return Err(injected(io::ErrorKind::StorageFull));
        }
        let count = self.inner.write_at(&buf[..len], position)?;
        state.medium.write(self.node, position, &buf[..count]);
        Ok(count)
    }

    fn sync_data(&self) -> io::Result<()> {
        match self.admit(Op::Sync) {
            Ok(mut state) => state.medium.sync(self.node),
            Err(refused) => {
                if refused != Refused::Stopped {
                    self.machine.state().medium.lose_bytes(self.node);
                }
                return Err(refused.into());
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.admit(Op::SetLen)?;
        self.inner.set_len(len)?;
        state.medium.set_len(self.node, len);
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        drop(self.admit(Op::Size)?);
        self.inner.size()
    }

    fn map(&self, len: u64) -> io::Result<Option<Map>> {
        drop(self.admit(Op::Map)?);
        self.inner.map(len)
    }
}
