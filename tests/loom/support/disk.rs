//! A disk for models. It fails on demand, and checks what every order of threads must keep to:
//!
//! - nobody changes a file unless the log's lock is held;
//! - a sync that failed is not tried again, and no file is synced by two threads at once;
//! - nobody reads bytes whose writing has not happened before (loom finds that race).
//!
//! Its own locks are never held where loom may switch to another thread.

use loom::cell::UnsafeCell;
use loom::sync::atomic::AtomicUsize as Device;
use loom::thread;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::fmt::{Debug, Formatter};
use std::io;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use stratalog::storage::{DirEntry, EntryKind, File, LockGuard, Map, OpenMode, Storage};

/// Frames begin at multiples of this, so no two writers share a block.
const BLOCK_BYTES: usize = 8;

/// A clone is the same disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk(Arc<State>);

#[derive(Debug, Default)]
struct State {
    files: Mutex<BTreeMap<PathBuf, Arc<Contents>>>,
    locked: AtomicBool,
    faults: Arc<Faults>,
}

/// What goes wrong, with segments only.
#[derive(Default)]
struct Faults {
    /// The next sync that has bytes to bring to the device waits while this is so.
    holds: Mutex<Option<Arc<Hold>>>,
    /// The next sync that has bytes to bring to the device loses them.
    loses: AtomicBool,
    /// For each write to come: `Some(n)` leaves `n` bytes and finds the disk full.
    writes: Mutex<VecDeque<Option<usize>>>,
    /// How many writes are refused: the rest of one that was cut short, and perhaps its erasure.
    full: AtomicUsize,
    /// The erasure is refused.
    copies_on_write: AtomicBool,
    /// How often a segment that had unsynced bytes was synced.
    syncs: AtomicUsize,
}

type Hold = dyn Fn() -> bool + Send + Sync;

impl Debug for Faults {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Faults").finish_non_exhaustive()
    }
}

impl Disk {
    /// The next sync that has bytes to bring to the device waits while it is so.
    pub(crate) fn hold_next_sync(&self, while_so: impl Fn() -> bool + Send + Sync + 'static) {
        *self.0.faults.holds.lock().unwrap() = Some(Arc::new(while_so));
    }

    pub(crate) fn lose_what_is_synced_next(&self) {
        self.0.faults.loses.store(true, Ordering::Relaxed);
    }

    /// The disk is full for a write after the next `after` ones, which leaves `partial` bytes.
    pub(crate) fn refuse_write(&self, after: usize, partial: usize) {
        let mut writes = self.0.faults.writes.lock().unwrap();
        writes.extend((0..after).map(|_| None));
        writes.push_back(Some(partial));
    }

    /// Nor is there space for zeros over what the refused write leaves.
    pub(crate) fn refuse_erasure(&self) {
        self.0.faults.copies_on_write.store(true, Ordering::Relaxed);
    }

    pub(crate) fn syncs(&self) -> usize {
        self.0.faults.syncs.load(Ordering::Relaxed)
    }

    /// Another disk with what is on the device now.
    pub(crate) fn cut_power(&self) -> Self {
        self.copy(|bytes| bytes.durable.clone())
    }

    /// Another disk with what the processes see now.
    pub(crate) fn kill(&self) -> Self {
        self.copy(|bytes| bytes.live.clone())
    }

    fn copy(&self, kept: fn(&Bytes) -> Vec<u8>) -> Self {
        let files = self.0.files.lock().unwrap();
        let keep = |(path, contents): (&PathBuf, &Arc<Contents>)| {
            let bytes = kept(&contents.bytes.lock().unwrap());
            let copy = Contents::of(path);
            *copy.bytes.lock().unwrap() = Bytes { live: bytes.clone(), durable: bytes };
            (path.clone(), Arc::new(copy))
        };
        let files = Mutex::new(files.iter().map(keep).collect());
        Self(Arc::new(State { files, ..State::default() }))
    }

    fn check_locked(&self) {
        assert!(self.0.locked.load(Ordering::Relaxed), "a file was changed without the lock");
    }
}

impl Storage for Disk {
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let mut files = self.0.files.lock().unwrap();
        let contents = match (files.get(path), mode) {
            (None, OpenMode::Create) => {
                self.check_locked();
                let contents = Arc::new(Contents::of(path));
                files.insert(path.to_owned(), Arc::clone(&contents));
                contents
            }
            (None, _) => return Err(ErrorKind::NotFound.into()),
            (Some(_), OpenMode::Create) => return Err(ErrorKind::AlreadyExists.into()),
            (Some(contents), _) => Arc::clone(contents),
        };
        Ok(Arc::new(OpenFile { contents, disk: self.clone() }))
    }

    fn list(&self, _: &Path) -> io::Result<Vec<DirEntry>> {
        let files = self.0.files.lock().unwrap();
        let names = files.keys().filter_map(|path| path.file_name());
        Ok(names.map(|name| DirEntry::new(name.to_owned(), EntryKind::File)).collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.check_locked();
        let mut files = self.0.files.lock().unwrap();
        let contents = files.remove(from).ok_or(ErrorKind::NotFound)?;
        files.insert(to.to_owned(), contents);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.check_locked();
        let removed = self.0.files.lock().unwrap().remove(path);
        removed.map(drop).ok_or(ErrorKind::NotFound.into())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, _: &Path) -> io::Result<Box<dyn LockGuard>> {
        let taken = self.0.locked.swap(true, Ordering::Relaxed);
        assert!(!taken, "the models open one log after the other");
        Ok(Box::new(Lock(self.clone())))
    }

    fn random(&self) -> u64 {
        0x5eed_5eed_5eed_5eed
    }
}

#[derive(Debug)]
struct Lock(Disk);

impl LockGuard for Lock {}

impl Drop for Lock {
    fn drop(&mut self) {
        let files: Vec<_> = self.0.0.files.lock().unwrap().values().cloned().collect();
        files.iter().filter(|contents| contents.is_segment).for_each(|file| file.meet_others());
        self.0.0.locked.store(false, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Contents {
    is_segment: bool,
    bytes: Mutex<Bytes>,
    /// Touched by all that changes the file, so that loom tries every order of that; `Relaxed`, so
    /// that no order of anything else comes from it.
    device: Device,
    /// Stand for the bytes of a segment, that loom may see who reads and writes them.
    blocks: Mutex<Vec<Arc<Block>>>,
    /// What was lost and told nobody yet: the first sync that ends is told.
    error: AtomicBool,
    failed: AtomicBool,
    syncing: AtomicBool,
}

#[derive(Debug, Default)]
struct Block(UnsafeCell<()>);

#[expect(
    unsafe_code,
    reason = "it is loom that checks who comes to it, and there is nothing in it"
)]
// SAFETY: Threads share nothing through `()`.
unsafe impl Sync for Block {}

#[derive(Debug, Default)]
struct Bytes {
    live: Vec<u8>,
    durable: Vec<u8>,
}

impl Contents {
    fn of(path: &Path) -> Self {
        Self {
            is_segment: path.extension().is_some_and(|extension| extension == "log"),
            bytes: Mutex::default(),
            device: Device::new(0),
            blocks: Mutex::default(),
            error: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            syncing: AtomicBool::new(false),
        }
    }

    fn meet_others(&self) {
        self.device.fetch_add(1, Ordering::Relaxed);
    }

    fn blocks(&self, start: usize, len: usize) -> Vec<Arc<Block>> {
        let (first, end) = (start / BLOCK_BYTES, (start + len).div_ceil(BLOCK_BYTES));
        let mut blocks = self.blocks.lock().unwrap();
        while blocks.len() < end {
            blocks.push(Arc::default());
        }
        blocks[first..end].to_vec()
    }
}

#[derive(Debug)]
struct OpenFile {
    contents: Arc<Contents>,
    disk: Disk,
}

impl File for OpenFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        let start = usize::try_from(position).unwrap();
        let len = {
            let bytes = self.contents.bytes.lock().unwrap();
            let rest = bytes.live.get(start..).unwrap_or_default();
            let len = rest.len().min(buf.len());
            buf[..len].copy_from_slice(&rest[..len]);
            len
        };
        if self.contents.is_segment {
            self.contents.blocks(start, len).iter().for_each(|block| block.0.with(|_| ()));
        }
        Ok(len)
    }

    fn write_at(&self, buf: &[u8], position: u64) -> io::Result<usize> {
        let contents = &self.contents;
        let start = usize::try_from(position).unwrap();
        let mut len = buf.len();
        // Zeros are no news to anybody: they go where nobody looks.
        let faults = &self.disk.0.faults;
        if faults.full.load(Ordering::Relaxed) > 0 {
            faults.full.fetch_sub(1, Ordering::Relaxed);
            return Err(ErrorKind::StorageFull.into());
        }
        if contents.is_segment && buf.iter().any(|byte| *byte != 0) {
            contents.meet_others();
            match faults.writes.lock().unwrap().pop_front().flatten() {
                None => {}
                Some(0) => return Err(ErrorKind::StorageFull.into()),
                Some(partial) => {
                    let copies = faults.copies_on_write.load(Ordering::Relaxed);
                    faults.full.store(1 + usize::from(copies), Ordering::Relaxed);
                    len = partial.min(len - 1);
                }
            }
            contents.blocks(start, len).iter().for_each(|block| block.0.with_mut(|_| ()));
        }
        self.disk.check_locked();
        let live = &mut contents.bytes.lock().unwrap().live;
        if live.len() < start + len {
            live.resize(start + len, 0);
        }
        live[start..start + len].copy_from_slice(&buf[..len]);
        Ok(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        let contents = &self.contents;
        contents.meet_others();
        self.disk.check_locked();
        assert!(!contents.failed.load(Ordering::Relaxed), "a sync is tried again that failed");
        let at_once = contents.syncing.swap(true, Ordering::Relaxed);
        assert!(!at_once || contents.failed.load(Ordering::Relaxed), "two threads sync at once");
        let (has_news, covered) = {
            let bytes = contents.bytes.lock().unwrap();
            let has_news = contents.is_segment && bytes.live != bytes.durable;
            let faults = &self.disk.0.faults;
            faults.syncs.fetch_add(usize::from(has_news), Ordering::Relaxed);
            let loses = has_news && faults.loses.swap(false, Ordering::Relaxed);
            if loses {
                // The cache goes on showing them.
                contents.error.store(true, Ordering::Relaxed);
            }
            (has_news, (!loses).then(|| bytes.live.clone()))
        };
        if has_news {
            let hold = self.disk.0.faults.holds.lock().unwrap().take();
            while hold.as_ref().is_some_and(|hold| hold()) {
                thread::yield_now();
            }
        }
        contents.meet_others();
        contents.syncing.store(false, Ordering::Relaxed);
        if contents.error.swap(false, Ordering::Relaxed) {
            contents.failed.store(true, Ordering::Relaxed);
            return Err(ErrorKind::Other.into());
        }
        if let Some(covered) = covered {
            contents.bytes.lock().unwrap().durable = covered;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.contents.meet_others();
        self.disk.check_locked();
        let len = usize::try_from(len).unwrap();
        self.contents.bytes.lock().unwrap().live.resize(len, 0);
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.contents.bytes.lock().unwrap().live.len() as u64)
    }

    fn map(&self, _: u64) -> io::Result<Option<Map>> {
        Ok(None)
    }
}
