//! The files of a log as bytes: to look at, to damage, and to make a storage of.

use crate::support::model::Row;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use stratalog::storage::{EntryKind, MemoryStorage, OpenMode, Storage};
use stratalog::{Log, Maintenance, Options, Record, Result, Seek};

/// Where the log is, in every storage of the tests that look at files.
pub(crate) const DIR: &str = "/log";

/// Segments so small that a few records fill one.
pub(crate) const TINY: u64 = 512;

/// How to open a log that does nothing by itself, with [`TINY`] segments.
pub(crate) fn tiny(storage: Arc<dyn Storage>) -> Options {
    Options::new().storage(storage).maintenance(Maintenance::Manual).segment_bytes(TINY)
}

/// All records of a log, or the first error.
pub(crate) fn read(log: &Log) -> Result<Vec<Record<'static>>> {
    Ok(read_rows(log)?.into_iter().map(|row| row.record).collect())
}

/// All records of a log with their append times, or the first error.
pub(crate) fn read_rows(log: &Log) -> Result<Vec<Row>> {
    let mut cursor = log.cursor(Seek::Start)?;
    let mut rows = Vec::new();
    while let Some(entry) = cursor.next()? {
        rows.push(Row::from(entry));
    }
    Ok(rows)
}

/// The files in a directory, by name, without the lock.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Image(pub(crate) BTreeMap<String, Vec<u8>>);

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sized = self.0.iter().map(|(name, bytes)| (name, bytes.len()));
        f.debug_map().entries(sized).finish()
    }
}

impl Image {
    pub(crate) fn of(storage: &dyn Storage) -> Self {
        Self::of_dir(storage, Path::new(DIR))
    }

    pub(crate) fn of_dir(storage: &dyn Storage, dir: &Path) -> Self {
        let mut files = BTreeMap::new();
        let listed = storage.list(dir).unwrap().into_iter();
        for entry in listed.filter(|entry| entry.kind == EntryKind::File && entry.name != "LOCK") {
            let file = storage.open(&dir.join(&entry.name), OpenMode::Read).unwrap();
            let mut bytes = vec![0; usize::try_from(file.size().unwrap()).unwrap()];
            let mut done = 0;
            while done < bytes.len() {
                done += file.read_at(&mut bytes[done..], done as u64).unwrap();
            }
            files.insert(entry.name.into_string().unwrap(), bytes);
        }
        Self(files)
    }

    /// A storage that holds just these files.
    pub(crate) fn storage(&self) -> MemoryStorage {
        let storage = MemoryStorage::new();
        self.put(&storage, Path::new(DIR));
        storage
    }

    /// Puts the files into a directory that has none of them.
    pub(crate) fn put(&self, storage: &dyn Storage, dir: &Path) {
        storage.create_dir(dir).unwrap();
        for (name, bytes) in &self.0 {
            let file = storage.open(&dir.join(name), OpenMode::Create).unwrap();
            let mut done = 0;
            while done < bytes.len() {
                done += file.write_at(&bytes[done..], done as u64).unwrap();
            }
        }
    }

    /// Opens the log in a fresh storage of these files.
    pub(crate) fn open(&self) -> Result<Log> {
        tiny(Arc::new(self.storage())).open(DIR)
    }

    /// Names of the segments, the oldest first.
    pub(crate) fn segments(&self) -> Vec<String> {
        self.names(".log")
    }

    pub(crate) fn indexes(&self) -> Vec<String> {
        self.names(".index")
    }

    fn names(&self, suffix: &str) -> Vec<String> {
        self.0.keys().filter(|name| name.ends_with(suffix)).cloned().collect()
    }

    /// The name of the segment that was begun last.
    pub(crate) fn last(&self) -> String {
        self.segments().pop().unwrap()
    }

    pub(crate) fn bytes(&mut self, name: &str) -> &mut Vec<u8> {
        self.0.get_mut(name).unwrap()
    }
}
