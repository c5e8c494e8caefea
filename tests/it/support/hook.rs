//! A storage in memory in which a test can act in the middle of somebody's call.

use crate::support::fault::Op;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use stratalog::storage::{DirEntry, File, LockGuard, Map, MemoryStorage, OpenMode, Storage};

/// A clone is the same storage.
#[derive(Clone, Debug, Default)]
pub(crate) struct HookStorage {
    inner: MemoryStorage,
    hook: Hook,
}

/// What is done when the next call of a kind comes.
#[derive(Clone, Default)]
struct Hook(Arc<Mutex<Option<Planned>>>);

struct Planned {
    op: Op,
    when: When,
    suffix: &'static str,
    act: Box<dyn FnOnce() + Send>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Before,
    After,
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hook").finish_non_exhaustive()
    }
}

impl Hook {
    fn reach(&self, op: Op, when: When, path: &Path) {
        let mut planned = self.0.lock().unwrap();
        let is_meant = |planned: &Planned| {
            (planned.op, planned.when) == (op, when)
                && path.to_str().unwrap().ends_with(planned.suffix)
        };
        let due = if planned.as_ref().is_some_and(is_meant) { planned.take() } else { None };
        // What is done may call this storage.
        drop(planned);
        if let Some(due) = due {
            (due.act)();
        }
    }
}

impl HookStorage {
    /// Before the next `op` (only [`Op::Open`] and [`Op::Read`] are looked for) on a path that ends
    /// so, its caller does this first.
    pub(crate) fn before(&self, op: Op, suffix: &'static str, act: impl FnOnce() + Send + 'static) {
        assert!([Op::Open, Op::Read].contains(&op));
        self.plan(Planned { op, when: When::Before, suffix, act: Box::new(act) });
    }

    /// Whoever opens the next path that ends so has opened it, and then does this.
    pub(crate) fn after_open(&self, suffix: &'static str, act: impl FnOnce() + Send + 'static) {
        self.plan(Planned { op: Op::Open, when: When::After, suffix, act: Box::new(act) });
    }

    fn plan(&self, planned: Planned) {
        *self.hook.0.lock().unwrap() = Some(planned);
    }

    /// Whether what was to be done has been done.
    pub(crate) fn has_acted(&self) -> bool {
        self.hook.0.lock().unwrap().is_none()
    }
}

impl Storage for HookStorage {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.create_dir(path)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        self.hook.reach(Op::Open, When::Before, path);
        let inner = self.inner.open(path, mode)?;
        self.hook.reach(Op::Open, When::After, path);
        Ok(Arc::new(HookFile { inner, path: path.to_owned(), hook: self.hook.clone() }))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.inner.list(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)
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
struct HookFile {
    inner: Arc<dyn File>,
    path: PathBuf,
    hook: Hook,
}

impl File for HookFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        self.hook.reach(Op::Read, When::Before, &self.path);
        self.inner.read_at(buf, position)
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
        self.inner.size()
    }

    fn map(&self, _len: u64) -> io::Result<Option<Map>> {
        Ok(None)
    }
}
