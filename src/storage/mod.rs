//! The seam to the machine: files ([`Storage`], [`File`]) and time ([`Clock`]).
//!
//! Everything a log does to the outside goes through these three traits, so that a test can stand
//! in for the disk and the clock. [`FsStorage`] is the real one, [`MemoryStorage`] keeps its files
//! in memory. The traits state what the log relies on; an implementation that gives less breaks the
//! promises of the log.
//!
//! # What the log assumes of a medium
//!
//! - After [`File::sync_data`] returned `Ok`, all bytes written to that file before the call, and
//!   the length they need, survive a power cut. Nothing else does: any subset of unsynced writes
//!   may survive, in any order, at any granularity, and the length apart from the bytes.
//! - After [`Storage::sync_dir`] returned `Ok`, the creations, renames and removals in that
//!   directory made before the call survive.
//! - Writing bytes that are already there, or bytes beside them, does not harm them when the power
//!   is cut ("powersafe overwrite").
//! - A failed sync says nothing about the bytes: they may be lost although a later sync succeeds.

mod clock;
mod dir;
mod fs;
mod map;
mod memory;
mod room;

pub use clock::Clock;
pub use clock::SystemClock;
pub(crate) use dir::Dir;
pub(crate) use dir::Handle;
pub(crate) use dir::PartialWrite;
pub use fs::FsStorage;
pub use map::Map;
pub use memory::MemoryStorage;
pub(crate) use room::Room;

use std::ffi::OsString;
use std::fmt::Debug;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// A place that holds directories of files.
///
/// Every method may be called from several threads at once. Paths are absolute or relative to the
/// working directory, as the caller of `open` gave them.
pub trait Storage: Debug + Send + Sync {
    /// Makes the directory `path` and its missing parents, durably: when this returns, a power cut
    /// does not take them back. If it is there already, it makes its name durable.
    ///
    /// # Errors
    ///
    /// `NotADirectory` or `AlreadyExists` if something else is there; any I/O error.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Opens the file `path`.
    ///
    /// # Errors
    ///
    /// `NotFound` and `AlreadyExists` as [`OpenMode`] says; `IsADirectory` or another error if the
    /// path is not a plain file; any I/O error.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>>;

    /// The entries of the directory `path`, in any order, without `.` and `..`.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such directory, `NotADirectory` if it is something else.
    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>>;

    /// Gives the file `from` the name `to`, replacing what had it. Atomic: whoever looks, also
    /// after a power cut, finds the old or the new file under `to`, whole, and never one file under
    /// both names.
    ///
    /// # Errors
    ///
    /// `StorageFull`, and then `from` and `to` are as before; any I/O error, and then nobody knows.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Gives the file `from` the second name `to`: one file under both, of which either name can be
    /// removed without the other. As durable as a name that was created.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` if something has the name `to`; `Unsupported`, `CrossesDevices` or any other
    /// error where it cannot be done: the log copies the file then. By default it cannot.
    fn link(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Removes the name of the file `path`. Files and maps that are open stay readable.
    ///
    /// # Errors
    ///
    /// `NotFound` if it is not there; any I/O error.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in the directory `path` durable.
    ///
    /// # Errors
    ///
    /// Any I/O error; then nothing is known about the names.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Takes the exclusive lock on `path`, which is created if it is missing, and holds it until
    /// the guard is dropped or the process ends. Conflicts with any other holder, in this process
    /// too. Waits about 100 ms for a holder that is about to go away, such as a child process
    /// between `fork` and `exec`.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if somebody else holds it; any I/O error.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn LockGuard>>;

    /// Whether somebody holds the lock on `path`, which may be over when this returns. Must not
    /// keep anybody from taking the lock for longer than a moment, which [`lock`] waits, and
    /// creates and writes nothing. Asked by [`LogReader`](crate::LogReader) only.
    ///
    /// # Errors
    ///
    /// `Unsupported` if it cannot be told, as by default; any I/O error.
    ///
    /// [`lock`]: Storage::lock
    fn is_locked(&self, _path: &Path) -> io::Result<bool> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// A number nobody can guess: for the identity of a log and the seeds of its checksums. A test
    /// that must run alike each time overrides it.
    fn random(&self) -> u64 {
        RandomState::new().build_hasher().finish()
    }
}

/// An open file.
///
/// Every method may be called from several threads at once; writes to ranges that do not overlap
/// do not disturb each other. All I/O is positional: a file has no cursor. It is closed by dropping
/// it, on any thread; what was removed has its space until then.
pub trait File: Debug + Send + Sync {
    /// Reads up to `buf.len()` bytes at `position`; 0 means the end of the file.
    ///
    /// # Errors
    ///
    /// `Interrupted` (the caller tries again); any I/O error.
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize>;

    /// Writes up to `buf.len()` bytes at `position` and returns how many. A gap before `position`
    /// reads as zeros. Other readers of the file see the bytes when this returns.
    ///
    /// # Errors
    ///
    /// `Interrupted` (the caller tries again); `StorageFull`; any I/O error.
    fn write_at(&self, buf: &[u8], position: u64) -> io::Result<usize>;

    /// Makes all bytes written so far, and the length they need, durable: they survive a power
    /// cut. Does not make the file's name durable; [`Storage::sync_dir`] does.
    ///
    /// # Errors
    ///
    /// Any I/O error; then nothing is known about the bytes, and no later success changes that.
    fn sync_data(&self) -> io::Result<()>;

    /// Lets the system forget what it keeps in memory of the bytes from `position` on and need not
    /// write any more. An advice, which changes no byte of a medium that works; after a sync that
    /// failed, what is read there afterwards is what the medium has.
    fn forget_cached(&self, _position: u64, _len: u64) {}

    /// Cuts or extends the file, with zeros, to `len` bytes.
    ///
    /// # Errors
    ///
    /// Any I/O error.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// The length of the file in bytes.
    ///
    /// # Errors
    ///
    /// Any I/O error.
    fn size(&self) -> io::Result<u64>;

    /// A read-only view of the first `len` bytes, which may reach beyond the end of the file: bytes
    /// written later appear in it. `None` if this file cannot be mapped; then it is read with
    /// [`read_at`](File::read_at). The log only looks at bytes it knows to be written.
    ///
    /// # Errors
    ///
    /// Any I/O error.
    fn map(&self, len: u64) -> io::Result<Option<Map>>;
}

/// How to open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OpenMode {
    /// An existing file, to read: `NotFound` if it is missing.
    Read,
    /// An existing file, to read and write: `NotFound` if it is missing.
    Write,
    /// A new and empty file, to read and write: `AlreadyExists` if something has the name.
    Create,
}

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct DirEntry {
    /// The name, without the directory. Any bytes the system allows.
    pub name: OsString,
    /// What has the name.
    pub kind: EntryKind,
}

impl DirEntry {
    /// An entry.
    #[must_use]
    pub fn new(name: OsString, kind: EntryKind) -> Self {
        Self { name, kind }
    }
}

/// What a name in a directory stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EntryKind {
    /// A plain file.
    File,
    /// A directory.
    Directory,
    /// Anything else: a link, a pipe, a device. The log never opens one.
    Other,
}

/// Holds a lock until it is dropped.
///
/// It also keeps a notice in the file that is locked, a few hundred bytes for readers elsewhere,
/// who read the file as any other. A guard need not: then a [`LogReader`](crate::LogReader) in
/// another process shows only what the manifest says, while the writer lives.
pub trait LockGuard: Debug + Send + Sync {
    /// Reads what is in the file from its beginning into `buf`, and returns how much. `None`, as by
    /// default, if this guard keeps no notice.
    ///
    /// # Errors
    ///
    /// Any I/O error; it costs the notice of the writer before.
    fn read_notice(&self, _buf: &mut [u8]) -> io::Result<Option<usize>> {
        Ok(None)
    }

    /// Writes `bytes` at `position`, all of them, in one piece if it can. Need not survive a power
    /// cut and is never synced. Called often, so it must not block.
    ///
    /// # Errors
    ///
    /// Any I/O error; then readers elsewhere see the notice before for longer.
    fn write_notice(&self, _bytes: &[u8], _position: u64) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
