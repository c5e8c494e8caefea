//! A machine whose storage fails: it counts calls, breaks the n-th of a kind, fills up, and
//! loses what was not synced when the power is cut.
//!
//! The files are in a [`Medium`]. A process gets at them by a handle of its own, so that nothing a
//! log does after the process was killed, such as closing, has an effect. A [`Tape`] keeps the disk
//! as it was behind each call that had an effect: every place where the power can be cut.

use crate::support::fault::Fault;
use crate::support::fault::Op;
use crate::support::fault::Strike;
use crate::support::fault::injected;
use crate::support::image::DIR;
use crate::support::medium::Crash;
use crate::support::medium::Medium;
use crate::support::medium::NodeId;
use crate::support::medium::Numbers;
use crate::support::medium::dir_of;
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::collections::BTreeSet;
use std::io;
use std::mem;
use std::path::Path;
use std::sync::Arc;
use stratalog::storage::{DirEntry, EntryKind, File, LockGuard, Map, OpenMode, Storage};

/// The machine, as the test sees it. A clone is the same one.
#[derive(Clone, Debug, Default)]
pub(crate) struct FaultyStorage {
    state: Arc<Mutex<State>>,
    changed: Arc<Condvar>,
}

#[derive(Debug, Default)]
struct State {
    medium: Medium,
    calls: Vec<(Op, Box<str>)>,
    /// No list of the calls is kept.
    is_quiet: bool,
    effects: u64,
    /// The machine stops when so many calls have had an effect.
    stops_at: Option<u64>,
    steps: u64,
    /// More steps than that are taken for a loop without an end.
    steps_max: Option<u64>,
    tape: Tape,
    faults: Vec<Fault>,
    /// How often a fault has struck, and how many calls had had an effect when one did first.
    strikes: u64,
    struck_at: Option<u64>,
    /// Calls of this kind wait, and how many do.
    held: Option<Op>,
    waiting: usize,
    /// The longest read or write that is done whole.
    io_max: Option<usize>,
    /// The one whose calls have an effect.
    process: u64,
    locks: BTreeSet<String>,
    random: Numbers,
}

/// The disk as it was, by how many calls had had an effect by then.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tape {
    pub(crate) wanted: Wanted,
    pub(crate) shots: Vec<(u64, Medium)>,
}

/// Which of the moments a tape keeps.
#[derive(Clone, Debug, Default)]
pub(crate) enum Wanted {
    #[default]
    None,
    All,
    At(Vec<u64>),
}

impl FaultyStorage {
    /// A machine with an empty disk.
    pub(crate) fn memory() -> Self {
        Self::default()
    }

    /// A machine with an empty disk that never writes in place.
    pub(crate) fn copy_on_write() -> Self {
        let machine = Self::default();
        machine.state().medium.copies_on_write = true;
        machine
    }

    /// A machine that starts with this disk.
    pub(crate) fn with(medium: Medium) -> Self {
        let machine = Self::default();
        machine.state().medium = medium;
        machine
    }

    /// What `inner` holds in the directory of the tests counts as durable.
    pub(crate) fn over(inner: impl Storage + 'static) -> Self {
        let mut medium = Medium::default();
        medium.create_dir(DIR);
        let dir = Path::new(DIR);
        let files = inner.list(dir).unwrap().into_iter();
        for entry in files.filter(|entry| entry.kind == EntryKind::File) {
            let path = dir.join(entry.name);
            let file = inner.open(&path, OpenMode::Read).unwrap();
            let mut bytes = vec![0; usize::try_from(file.size().unwrap()).unwrap()];
            assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
            medium.adopt(text(&path), bytes);
        }
        Self::with(medium)
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

    /// How many calls had had an effect when a fault first struck.
    pub(crate) fn struck_at(&self) -> Option<u64> {
        self.state().struck_at
    }

    /// How often a fault has struck.
    pub(crate) fn strikes(&self) -> u64 {
        self.state().strikes
    }

    /// From now on no call of that kind gets through.
    pub(crate) fn hold(&self, op: Op) {
        self.state().held = Some(op);
    }

    /// Blocks until a call is held up.
    pub(crate) fn wait_until_held(&self) {
        self.changed.wait_while(&mut self.state(), |state| state.waiting == 0);
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

    /// Whether nothing is ever written in place, so that writing takes space everywhere.
    pub(crate) fn copies_on_write(&self) -> bool {
        self.state().medium.copies_on_write
    }

    /// Files may grow by so many bytes; `None` is no limit. What is removed or cut is free again.
    pub(crate) fn set_free(&self, bytes: Option<u64>) {
        self.state().medium.free = bytes;
    }

    /// So many more calls have an effect, then the machine stops.
    pub(crate) fn stop_after(&self, effects: u64) {
        let mut state = self.state();
        state.stops_at = Some(state.effects + effects);
    }

    /// How many calls had an effect.
    pub(crate) fn effects(&self) -> u64 {
        self.state().effects
    }

    /// How many calls there were.
    pub(crate) fn steps(&self) -> u64 {
        self.state().steps
    }

    /// How many calls there were, of those that the test means.
    pub(crate) fn count(&self, counts: impl Fn(Op, &Path) -> bool) -> u64 {
        let state = self.state();
        let counted = state.calls.iter().filter(|(op, path)| counts(*op, Path::new(&**path)));
        counted.count() as u64
    }

    pub(crate) fn forget_calls(&self) {
        self.state().calls.clear();
    }

    /// Keeps no list of calls, the disk at the moments that are wanted, and panics when a process
    /// takes more steps than any that comes to an end.
    pub(crate) fn record(&self, wanted: Wanted, steps_max: u64) {
        let mut state = self.state();
        state.is_quiet = true;
        state.tape.wanted = wanted;
        state.steps_max = Some(steps_max);
    }

    pub(crate) fn take_tape(&self) -> Vec<(u64, Medium)> {
        mem::take(&mut self.state().tape.shots)
    }

    /// The disk as it is now.
    pub(crate) fn medium(&self) -> Medium {
        self.state().medium.clone()
    }

    pub(crate) fn seed(&self, seed: u64) {
        self.state().random = Numbers(seed);
    }

    /// The process ends, and the machine goes on: locks are free, and what was written is seen.
    pub(crate) fn kill(&self) {
        let mut state = self.state();
        state.process += 1;
        state.stops_at = None;
        state.locks.clear();
    }

    /// Kills the process, cuts the power and gives the machine that starts again. This one stays
    /// as it is, so that its power can be cut in another way.
    pub(crate) fn crash(&self, how: Crash) -> Self {
        self.kill();
        let state = self.state();
        let after = Self::with(state.medium.after(how));
        after.seed(state.random.0.wrapping_add(1));
        after
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Counts a call and lets it through, or fails it.
    fn admit(&self, process: u64, op: Op, path: &str) -> Result<Admitted<'_>, Refused> {
        let mut state = self.state();
        if state.held == Some(op) {
            state.waiting += 1;
            self.changed.notify_all();
            self.changed.wait_while(&mut state, |state| state.held == Some(op));
            state.waiting -= 1;
        }
        let strike = state.admit(process, op, path)?;
        let mut admitted = Admitted { op, state, fails: None, does: Does::All };
        match strike {
            Some(Strike::Error(kind)) if matches!(op, Op::Sync | Op::SyncDir) => {
                admitted.does = Does::Loses;
                admitted.fails = Some(kind);
            }
            Some(Strike::Error(kind)) => return Err(Refused::Fault(kind)),
            Some(Strike::ErrorAfter(kind)) => {
                admitted.does = Does::Half;
                admitted.fails = Some(kind);
            }
            Some(Strike::Short) => admitted.does = Does::Half,
            Some(Strike::Fills(free)) => admitted.medium().free = Some(free),
            Some(Strike::FillsCopying(free)) => {
                admitted.medium().copies_on_write = true;
                admitted.medium().free = Some(free);
            }
            None => {}
        }
        Ok(admitted)
    }
}

impl State {
    fn admit(&mut self, process: u64, op: Op, path: &str) -> Result<Option<Strike>, Refused> {
        let is_over = self.stops_at.is_some_and(|end| self.effects >= end);
        if process != self.process || is_over {
            return Err(Refused::Stopped);
        }
        self.steps += 1;
        if self.steps_max.is_some_and(|max| self.steps > max) {
            // What comes behind the panic shall come to an end.
            self.process += 1;
            panic!("more than {} calls to the storage: it never ends", self.steps);
        }
        if !self.is_quiet {
            self.calls.push((op, path.into()));
        }
        // Each fault counts the call, also when another one strikes.
        let strike = self.faults.iter_mut().filter_map(|fault| fault.strikes(op, path)).last();
        if strike.is_some() {
            self.strikes += 1;
            self.struck_at.get_or_insert(self.effects);
        }
        Ok(strike)
    }

    /// A call with an effect has had it.
    fn has_acted(&mut self) {
        self.effects += 1;
        let wants = match &self.tape.wanted {
            Wanted::None => false,
            Wanted::All => true,
            Wanted::At(moments) => moments.contains(&self.effects),
        };
        if wants {
            self.tape.shots.push((self.effects, self.medium.clone()));
        }
    }
}

/// A call that was let through; what it did is on the disk when this goes.
struct Admitted<'a> {
    op: Op,
    state: MutexGuard<'a, State>,
    fails: Option<io::ErrorKind>,
    does: Does,
}

/// How much of a call is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    All,
    /// A read or write does half of what it should.
    Half,
    /// A sync loses what it should make durable.
    Loses,
}

impl Admitted<'_> {
    fn medium(&mut self) -> &mut Medium {
        &mut self.state.medium
    }

    fn len(&self, asked: usize) -> usize {
        let len = self.state.io_max.unwrap_or(usize::MAX).min(asked);
        if self.does == Does::Half { len.div_ceil(2) } else { len }
    }

    /// The end of the call: what the process is told.
    fn done<T>(self, told: T) -> io::Result<T> {
        self.fails.map_or(Ok(told), |kind| Err(injected(kind)))
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        if self.op.has_effect() {
            self.state.has_acted();
        }
    }
}

/// Why a call was not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refused {
    /// The process is dead: nothing happens any more.
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
    fn admit(&self, op: Op, path: &str) -> Result<Admitted<'_>, Refused> {
        self.machine.admit(self.process, op, path)
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the paths of tests are text")
}

impl Storage for Process {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut admitted = self.admit(Op::CreateDir, text(path))?;
        if admitted.medium().node(text(path)).is_some() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        admitted.medium().create_dir(text(path));
        admitted.done(())
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let op = if mode == OpenMode::Create { Op::Create } else { Op::Open };
        let path = text(path);
        let mut admitted = self.admit(op, path)?;
        let medium = admitted.medium();
        if medium.is_dir(path) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let node = match (medium.node(path), mode) {
            (Some(_), OpenMode::Create) => return Err(io::ErrorKind::AlreadyExists.into()),
            (None, OpenMode::Create) if medium.is_dir(dir_of(path)) => medium.create(path),
            (Some(node), _) => node,
            (None, _) => return Err(io::ErrorKind::NotFound.into()),
        };
        let file = FaultyFile { process: self.clone(), path: path.into(), node };
        admitted.done(Arc::new(file))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let mut admitted = self.admit(Op::List, text(path))?;
        let medium = admitted.medium();
        if !medium.is_dir(text(path)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let (files, dirs) = medium.list(text(path));
        let entry = |kind| move |name: &str| DirEntry::new(name.into(), kind);
        let files = files.into_iter().map(entry(EntryKind::File));
        let entries = files.chain(dirs.into_iter().map(entry(EntryKind::Directory))).collect();
        admitted.done(entries)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut admitted = self.admit(Op::Rename, text(to))?;
        if admitted.medium().node(text(from)).is_none() {
            return Err(io::ErrorKind::NotFound.into());
        }
        admitted.medium().rename(text(from), text(to));
        admitted.done(())
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut admitted = self.admit(Op::Link, text(to))?;
        if admitted.medium().node(text(from)).is_none() {
            return Err(io::ErrorKind::NotFound.into());
        }
        if admitted.medium().node(text(to)).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        admitted.medium().link(text(from), text(to));
        admitted.done(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut admitted = self.admit(Op::Remove, text(path))?;
        if admitted.medium().node(text(path)).is_none() {
            return Err(io::ErrorKind::NotFound.into());
        }
        admitted.medium().remove(text(path));
        admitted.done(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut admitted = self.admit(Op::SyncDir, text(path))?;
        if admitted.does == Does::Loses {
            admitted.medium().lose_names(text(path));
        } else {
            admitted.medium().sync_dir(text(path));
        }
        admitted.done(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn LockGuard>> {
        let path = text(path);
        let mut admitted = self.admit(Op::Lock, path)?;
        if admitted.medium().node(path).is_none() {
            admitted.medium().create(path);
        }
        if !admitted.state.locks.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        // Given back as soon as it is dropped, also if the call fails all the same.
        let guard = FaultyLock { process: self.clone(), path: path.to_owned() };
        match admitted.fails {
            None => Ok(Box::new(guard)),
            Some(kind) => {
                drop(admitted);
                Err(injected(kind))
            }
        }
    }

    fn is_locked(&self, path: &Path) -> io::Result<bool> {
        let admitted = self.admit(Op::Lock, text(path))?;
        let is_locked = admitted.state.locks.contains(text(path));
        admitted.done(is_locked)
    }

    fn random(&self) -> u64 {
        self.machine.state().random.next()
    }
}

#[derive(Debug)]
struct FaultyLock {
    process: Process,
    path: String,
}

impl LockGuard for FaultyLock {}

impl Drop for FaultyLock {
    fn drop(&mut self) {
        let mut state = self.process.machine.state();
        if state.process == self.process.process {
            state.locks.remove(&self.path);
        }
    }
}

#[derive(Debug)]
struct FaultyFile {
    process: Process,
    path: Box<str>,
    node: NodeId,
}

impl FaultyFile {
    fn admit(&self, op: Op) -> Result<Admitted<'_>, Refused> {
        self.process.admit(op, &self.path)
    }
}

impl File for FaultyFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        let mut admitted = self.admit(Op::Read)?;
        let len = admitted.len(buf.len());
        let bytes = admitted.medium().bytes(self.node);
        let start = usize::try_from(position).unwrap_or(usize::MAX).min(bytes.len());
        let len = len.min(bytes.len() - start);
        buf[..len].copy_from_slice(&bytes[start..start + len]);
        admitted.done(len)
    }

    fn write_at(&self, buf: &[u8], position: u64) -> io::Result<usize> {
        let mut admitted = self.admit(Op::Write)?;
        let room = admitted.medium().room(self.node, position);
        let len = admitted.len(buf.len()).min(room);
        if len == 0 && !buf.is_empty() {
            return Err(injected(io::ErrorKind::StorageFull));
        }
        admitted.medium().write(self.node, position, &buf[..len]);
        admitted.done(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut admitted = self.admit(Op::Sync)?;
        if admitted.does == Does::Loses {
            admitted.medium().lose_bytes(self.node);
        } else {
            admitted.medium().sync(self.node);
        }
        admitted.done(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut admitted = self.admit(Op::SetLen)?;
        admitted.medium().set_len(self.node, len);
        admitted.done(())
    }

    fn size(&self) -> io::Result<u64> {
        let mut admitted = self.admit(Op::Size)?;
        let size = admitted.medium().bytes(self.node).len() as u64;
        admitted.done(size)
    }

    fn map(&self, _len: u64) -> io::Result<Option<Map>> {
        self.admit(Op::Map)?.done(None)
    }
}
