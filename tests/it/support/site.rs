//! A place for a log, in memory or on a disk, and how it is opened there.

use crate::support::check;
use crate::support::ordered::OrderedStorage;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use stratalog::storage::{Clock, EntryKind, FsStorage, MemoryStorage, OpenMode, Storage};
use stratalog::{Log, LogReader, Maintenance, Options, ReadMode, Record, Result};
use tempfile::TempDir;

/// What [`Site::small_segments`] sets.
pub(crate) const SMALL_SEGMENT_BYTES: usize = 1024;

/// Where a log is. Its options are the defaults, with [`Maintenance::Manual`]: nothing happens
/// behind the back of a test that does not ask for it.
#[derive(Debug)]
pub(crate) struct Site {
    storage: Arc<dyn Storage>,
    path: PathBuf,
    options: Options,
    dir: Option<TempDir>,
}

impl Site {
    pub(crate) fn memory() -> Self {
        Self::over(Arc::new(MemoryStorage::new()))
    }

    /// A log in memory of another kind.
    pub(crate) fn over(storage: Arc<dyn Storage>) -> Self {
        Self::new(storage, "/log".into(), None)
    }

    pub(crate) fn disk() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        Self::new(Arc::new(FsStorage::new()), path, Some(dir))
    }

    /// In memory, and on disk in both read modes.
    pub(crate) fn each() -> [Self; 3] {
        let pread = Self::disk().options(|options| options.read_mode(ReadMode::Pread));
        [Self::memory(), Self::disk(), pread]
    }

    fn new(storage: Arc<dyn Storage>, path: PathBuf, dir: Option<TempDir>) -> Self {
        let options = Options::new().maintenance(Maintenance::Manual).storage(Arc::clone(&storage));
        Self { storage, path, options, dir }
    }

    /// Changes how the log is opened from now on.
    pub(crate) fn options(mut self, change: impl FnOnce(Options) -> Options) -> Self {
        self.options = change(self.options);
        self
    }

    /// The same place, with an eye on the order of calls.
    pub(crate) fn watched(self) -> (Self, OrderedStorage) {
        let order = OrderedStorage::over(self.storage);
        let storage: Arc<dyn Storage> = Arc::new(order.clone());
        let options = self.options.storage(Arc::clone(&storage));
        (Self { storage, options, ..self }, order)
    }

    pub(crate) fn small_segments(self) -> Self {
        self.options(|options| options.segment_bytes(SMALL_SEGMENT_BYTES as u64))
    }

    pub(crate) fn clock(self, clock: &(impl Clock + Clone + 'static)) -> Self {
        self.options(|options| options.clock(Arc::new(clock.clone())))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    #[track_caller]
    pub(crate) fn open(&self) -> Log {
        self.try_open().unwrap()
    }

    pub(crate) fn try_open(&self) -> Result<Log> {
        self.options.clone().open(&self.path)
    }

    pub(crate) fn open_reader(&self) -> Result<LogReader> {
        self.options.clone().open_reader(&self.path)
    }

    /// Closes the log, then opens it.
    #[track_caller]
    pub(crate) fn reopen(&self, log: Log) -> Log {
        log.close().unwrap();
        drop(log);
        self.open()
    }

    /// Another place with the files as they are now: what a process that is killed leaves behind.
    #[track_caller]
    pub(crate) fn kill(&self) -> Self {
        let there = if self.dir.is_some() { Self::disk() } else { Self::memory() };
        let Self { storage, path, dir, .. } = there;
        storage.create_dir(&path).unwrap();
        let positions = self.files_in("consumers").into_iter();
        let positions: Vec<_> =
            positions.map(|(name, size)| (format!("consumers/{name}"), size)).collect();
        if !positions.is_empty() {
            storage.create_dir(&path.join("consumers")).unwrap();
        }
        for (name, size) in self.files().into_iter().chain(positions) {
            let bytes = self.read(&name, size);
            let file = storage.open(&path.join(&name), OpenMode::Create).unwrap();
            file.set_len(size).unwrap();
            let mut done = 0;
            while done < bytes.len() {
                done += file.write_at(&bytes[done..], done as u64).unwrap();
            }
        }
        let options = self.options.clone().storage(Arc::clone(&storage));
        Self { storage, path, options, dir }
    }

    /// The log, which nobody has open, shows just these records in both read modes.
    #[track_caller]
    pub(crate) fn check(&self, expected: &[Record<'_>]) {
        for mode in [ReadMode::Map, ReadMode::Pread] {
            let log = self.options.clone().read_mode(mode).open(&self.path).unwrap();
            check(&log, expected);
            log.close().unwrap();
        }
    }

    /// Names and sizes of the files, by name; none if there is no directory.
    pub(crate) fn files(&self) -> Vec<(String, u64)> {
        self.files_in("")
    }

    fn files_in(&self, folder: &str) -> Vec<(String, u64)> {
        let folder = if folder.is_empty() { self.path.clone() } else { self.path.join(folder) };
        let Ok(listed) = self.storage.list(&folder) else {
            return Vec::new();
        };
        let listed = listed.into_iter().filter(|entry| entry.kind == EntryKind::File);
        let sized = listed.map(|entry| {
            let file = self.storage.open(&folder.join(&entry.name), OpenMode::Read).unwrap();
            (entry.name.into_string().unwrap(), file.size().unwrap())
        });
        let mut files: Vec<_> = sized.collect();
        files.sort();
        files
    }

    /// Sizes of the segments, the oldest first.
    pub(crate) fn segments(&self) -> Vec<u64> {
        let files = self.files().into_iter();
        files.filter(|(name, _)| name.ends_with(".log")).map(|(_, size)| size).collect()
    }

    /// The bytes of the manifest.
    pub(crate) fn manifest(&self) -> Vec<u8> {
        let named = self.files().into_iter().find(|(name, _)| name == "MANIFEST");
        let (name, size) = named.unwrap();
        self.read(&name, size)
    }

    fn read(&self, name: &str, size: u64) -> Vec<u8> {
        let file = self.storage.open(&self.path.join(name), OpenMode::Read).unwrap();
        let mut bytes = vec![0; usize::try_from(size).unwrap()];
        let mut done = 0;
        while done < bytes.len() {
            let count = file.read_at(&mut bytes[done..], done as u64).unwrap();
            assert!(count > 0, "{name} is shorter than it was");
            done += count;
        }
        bytes
    }
}
