//! The real storage: [`FsStorage`], files of the operating system.

#![expect(clippy::disallowed_methods, reason = "this is the seam to files, and the lock's retry")]

use crate::storage::DirEntry;
use crate::storage::EntryKind;
use crate::storage::File;
use crate::storage::LockGuard;
use crate::storage::Map;
use crate::storage::OpenMode;
use crate::storage::Storage;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// The file system of the machine.
///
/// It opens plain files only. A link, a pipe or a device that has the name of a file is refused, so
/// that whoever may write to the directory can neither send a log elsewhere nor block it.
///
/// On Linux and other Unix systems files are mapped when asked; elsewhere [`File::map`] gives
/// `None`. On Windows [`Storage::sync_dir`] does nothing, for there is no such call.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct FsStorage;

impl FsStorage {
    /// The storage.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

impl Storage for FsStorage {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let missing: Vec<&Path> = path
            .ancestors()
            .take_while(|level| !level.as_os_str().is_empty() && !level.is_dir())
            .collect();
        if let Some(there) = path.ancestors().nth(missing.len()) {
            sync_leftover(there)?;
        }
        for level in missing.iter().rev() {
            let made = match fs::create_dir(level) {
                Ok(()) => true,
                // Somebody else made it a moment ago, and may not have synced it yet.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && level.is_dir() => {
                    false
                }
                Err(error) => return Err(error),
            };
            // Before the next level: it is no use to have `a/b` on the disk without `a`.
            let synced = self.sync_dir(parent(level));
            if synced.is_err() && made {
                // The name may be lost although it is seen, and no later sync would tell: whoever
                // tries again must make it anew.
                drop(fs::remove_dir(level));
            }
            synced?;
        }
        Ok(())
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let mut options = fs::OpenOptions::new();
        options.read(true);
        match mode {
            OpenMode::Read => {}
            OpenMode::Write => {
                options.write(true);
            }
            OpenMode::Create => {
                options.write(true).create_new(true);
            }
        }
        Ok(Arc::new(FsFile { file: open_plain(path, &mut options)? }))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(or_here(path))? {
            let entry = entry?;
            let kind = match entry.file_type() {
                Ok(kind) if kind.is_file() => EntryKind::File,
                Ok(kind) if kind.is_dir() => EntryKind::Directory,
                Ok(_) => EntryKind::Other,
                // It was removed since its name was read: then it is not an entry.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            entries.push(DirEntry::new(entry.file_name(), kind));
        }
        Ok(entries)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        platform::sync_dir(or_here(path))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn LockGuard>> {
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = open_plain(path, &mut options)?;
        for _ in 0..LOCK_TRIES_MAX {
            match file.try_lock() {
                Ok(()) => return Ok(Box::new(FsLock { file })),
                Err(fs::TryLockError::WouldBlock) => thread::sleep(LOCK_RETRY),
                Err(fs::TryLockError::Error(error)) => return Err(error),
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// A shared lock that is given up at once. Who tries to open the log just then, between two
    /// system calls, tries again a moment later. The system has no way to ask that takes nothing:
    /// `/proc/locks` does not show the locks of other namespaces, and the locks of `fcntl` end when
    /// any other handle of the file is closed in the same process.
    fn is_locked(&self, path: &Path) -> io::Result<bool> {
        let file = match open_plain(path, fs::OpenOptions::new().read(true)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            opened => opened?,
        };
        match file.try_lock_shared() {
            // Not left to closing: a child that was forked in between has the file open too.
            Ok(()) => file.unlock().map(|()| false),
            Err(fs::TryLockError::WouldBlock) => Ok(true),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }
}

/// Both together are the "about 100 ms" of [`Storage::lock`].
const LOCK_TRIES_MAX: u32 = 50;
const LOCK_RETRY: Duration = Duration::from_millis(2);

#[derive(Debug)]
struct FsFile {
    file: fs::File,
}

impl File for FsFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        platform::read_at(&self.file, buf, position)
    }

    fn write_at(&self, buf: &[u8], position: u64) -> io::Result<usize> {
        platform::write_at(&self.file, buf, position)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn forget_cached(&self, position: u64, len: u64) {
        platform::forget_cached(&self.file, position, len);
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn map(&self, len: u64) -> io::Result<Option<Map>> {
        // The system refuses an empty map.
        if len == 0 {
            return Ok(None);
        }
        platform::map(&self.file, len)
    }
}

/// The lock belongs to the open file: closing it, also by the end of the process, gives it up.
#[derive(Debug)]
struct FsLock {
    file: fs::File,
}

impl LockGuard for FsLock {
    fn read_notice(&self, buf: &mut [u8]) -> io::Result<Option<usize>> {
        platform::read_at(&self.file, buf, 0).map(Some)
    }

    fn write_notice(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        match platform::write_at(&self.file, bytes, position)? {
            len if len == bytes.len() => Ok(()),
            // Its checksum keeps half a notice from being taken for one.
            _ => Err(io::ErrorKind::WriteZero.into()),
        }
    }
}

/// Opens `path` if it is a plain file, without following a link or waiting for a pipe's other end.
fn open_plain(path: &Path, options: &mut fs::OpenOptions) -> io::Result<fs::File> {
    platform::refuse_to_follow_or_wait(options);
    let file = options.open(path)?;
    // Asked of the open file, not of the path, which may have changed its meaning since.
    let metadata = file.metadata()?;
    if metadata.is_file() {
        Ok(file)
    } else if metadata.is_dir() {
        Err(io::ErrorKind::IsADirectory.into())
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "not a plain file"))
    }
}

/// Makes the name of the directory `there` durable: whoever made it may have been killed between
/// creating and syncing. Creating goes on a level at a time, so the lowest one is the only suspect.
fn sync_leftover(there: &Path) -> io::Result<()> {
    match platform::sync_dir(parent(there)) {
        // A parent that we may not read, or that cannot be synced, is not one in which a log made
        // a directory.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::PermissionDenied
                    | io::ErrorKind::InvalidInput
                    | io::ErrorKind::Unsupported
            ) =>
        {
            Ok(())
        }
        result => result,
    }
}

/// The directory that holds the name `path`; the root holds itself.
fn parent(path: &Path) -> &Path {
    or_here(path.parent().unwrap_or(path))
}

/// The empty path, which is what `Path::new("orders").parent()` gives, means the working directory.
fn or_here(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

#[cfg(unix)]
mod platform {
    use crate::storage::Map;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    use rustix::fs::Advice;
    use rustix::fs::OFlags;
    use rustix::io::Errno;
    use std::fs::{File, OpenOptions};
    use std::io;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    use std::num::NonZeroU64;
    use std::os::unix::fs::{FileExt, OpenOptionsExt};
    use std::path::Path;

    pub(super) fn refuse_to_follow_or_wait(options: &mut OpenOptions) {
        // A terminal must not become the terminal of the process just because it was in the way.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        options.custom_flags(flags.bits().cast_signed());
    }

    pub(super) fn read_at(file: &File, buf: &mut [u8], position: u64) -> io::Result<usize> {
        file.read_at(buf, position)
    }

    pub(super) fn write_at(file: &File, buf: &[u8], position: u64) -> io::Result<usize> {
        file.write_at(buf, position)
    }

    pub(super) fn sync_dir(path: &Path) -> io::Result<()> {
        // Without `DIRECTORY`, a pipe in the place of the directory would block.
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory =
            OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
        directory.sync_all()
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub(super) fn forget_cached(file: &File, position: u64, len: u64) {
        /// Of a page that is not wholly in the range the system forgets nothing.
        const PAGE_MAX_BYTES: u64 = 64 << 10;
        let from = position - position % PAGE_MAX_BYTES;
        let end = position.saturating_add(len).checked_next_multiple_of(PAGE_MAX_BYTES);
        // No length means to the end of the file.
        let len = end.and_then(|end| NonZeroU64::new(end - from));
        // A file system that cannot do it keeps nothing, or keeps what is true.
        let _advised: rustix::io::Result<()> =
            rustix::fs::fadvise(file, from, len, Advice::DontNeed);
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    pub(super) fn forget_cached(_file: &File, _position: u64, _len: u64) {}

    pub(super) fn map(file: &File, len: u64) -> io::Result<Option<Map>> {
        match Map::of(file, len) {
            Ok(map) => Ok(Some(map)),
            // No address space or maps left, or a file system without maps: the bytes can still
            // be read.
            Err(error) if is_unmappable(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn is_unmappable(error: &io::Error) -> bool {
        error.kind() == io::ErrorKind::OutOfMemory
            || Errno::from_io_error(error) == Some(Errno::NODEV)
    }
}

#[cfg(windows)]
mod platform {
    use crate::storage::Map;
    use std::fs::{File, OpenOptions};
    use std::io;
    use std::os::windows::fs::{FileExt, OpenOptionsExt};
    use std::path::Path;

    pub(super) fn refuse_to_follow_or_wait(options: &mut OpenOptions) {
        const FILE_FLAG_OPEN_REPARSE_POINT: u32 = 0x0020_0000;
        options.custom_flags(FILE_FLAG_OPEN_REPARSE_POINT);
    }

    pub(super) fn forget_cached(_file: &File, _position: u64, _len: u64) {}

    /// Moves the cursor of the handle, which nobody uses.
    pub(super) fn read_at(file: &File, buf: &mut [u8], position: u64) -> io::Result<usize> {
        file.seek_read(buf, position)
    }

    pub(super) fn write_at(file: &File, buf: &[u8], position: u64) -> io::Result<usize> {
        file.seek_write(buf, position)
    }

    pub(super) fn sync_dir(_path: &Path) -> io::Result<()> {
        // There is no call for it; names are as durable as the journal of NTFS makes them.
        Ok(())
    }

    pub(super) fn map(_file: &File, _len: u64) -> io::Result<Option<Map>> {
        // A view cannot reach beyond the end of the file, and a mapped file cannot be cut.
        Ok(None)
    }
}

#[cfg(not(any(unix, windows)))]
compile_error!("FsStorage needs positional reads and writes; see `mod platform` in storage/fs.rs");
