//! One directory and its open files, with errors that name the file.

use crate::bugs::Bug;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::storage::DirEntry;
use crate::storage::File;
use crate::storage::Map;
use crate::storage::OpenMode;
use crate::storage::Storage;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A directory of a [`Storage`].
#[derive(Clone, Debug)]
pub(crate) struct Dir {
    storage: Arc<dyn Storage>,
    path: Arc<Path>,
}

impl Dir {
    pub(crate) fn new(storage: Arc<dyn Storage>, path: PathBuf) -> Self {
        Self { storage, path: path.into() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub(crate) fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    pub(crate) fn open(&self, name: &str, mode: OpenMode) -> Result<Handle> {
        let path = self.path_of(name);
        let operation = match mode {
            OpenMode::Create => "cannot create",
            OpenMode::Read | OpenMode::Write => "cannot open",
        };
        match self.storage.open(&path, mode) {
            Ok(file) => Ok(Handle { file, path: path.into() }),
            Err(error) => Err(Error::io(operation, &path, error)),
        }
    }

    /// As [`open`](Dir::open), but a file that is not there is `None`.
    pub(crate) fn open_if_there(&self, name: &str, mode: OpenMode) -> Result<Option<Handle>> {
        let path = self.path_of(name);
        match self.storage.open(&path, mode) {
            Ok(file) => Ok(Some(Handle { file, path: path.into() })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("cannot open", &path, error)),
        }
    }

    /// A new and empty file; what had the name before is removed.
    pub(crate) fn create_anew(&self, name: &str) -> Result<Handle> {
        self.remove(name)?;
        self.open(name, OpenMode::Create)
    }

    pub(crate) fn list(&self) -> Result<Vec<DirEntry>> {
        let listed = self.storage.list(&self.path);
        listed.map_err(|error| Error::io("cannot list the directory", &self.path, error))
    }

    pub(crate) fn rename(&self, from: &str, to: &str) -> Result<()> {
        let (from, to) = (self.path_of(from), self.path_of(to));
        let renamed = self.storage.rename(&from, &to);
        renamed.map_err(|error| Error::io("cannot rename to", &to, error))
    }

    /// Gives the file `name` of this directory a second name in another: a link, or a durable copy
    /// where there can be none. What had the name there before is removed.
    pub(crate) fn share(&self, name: &str, to: &Self, as_name: &str) -> Result<()> {
        to.remove(as_name)?;
        if self.storage.link(&self.path_of(name), &to.path_of(as_name)).is_ok() {
            return Ok(());
        }
        // Whatever the reason was: if it is the place and not the link, copying meets it too.
        let file = self.open(name, OpenMode::Read)?;
        let len = file.size()?;
        to.copy(&file, len, as_name)
    }

    /// A new file with the first `len` bytes of another, durable but for its name.
    pub(crate) fn copy(&self, from: &Handle, len: u64, name: &str) -> Result<()> {
        const PIECE_BYTES: u64 = 256 << 10;
        let to = self.create_anew(name)?;
        let mut buffer = vec![0; usize::try_from(len.min(PIECE_BYTES)).unwrap_or_default()];
        let mut position = 0;
        while position < len {
            let piece = usize::try_from((len - position).min(PIECE_BYTES)).unwrap_or_default();
            let piece = buffer.get_mut(..piece).unwrap_or_default();
            if from.read(piece, position)? < piece.len() {
                let what = "the file ends before what is to be copied of it";
                return Err(Error::new(ErrorKind::Corrupt, what)
                    .with_path(&from.path)
                    .with_position(position));
            }
            to.write(piece, position).map_err(|partial| partial.error)?;
            position += piece.len() as u64;
        }
        to.sync()
    }

    /// Removes a name; does nothing if it is not there.
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        let path = self.path_of(name);
        match self.storage.remove(&path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(Error::io("cannot remove", &path, error)),
        }
    }

    pub(crate) fn sync(&self) -> Result<()> {
        let synced = self.storage.sync_dir(&self.path);
        synced.map_err(|error| Error::io("cannot sync the directory", &self.path, error))
    }
}

/// An open file and its path.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    file: Arc<dyn File>,
    path: Arc<Path>,
}

/// A write that did not get through: `written` bytes may be in the file.
#[derive(Debug)]
pub(crate) struct PartialWrite {
    pub(crate) written: usize,
    pub(crate) error: Error,
}

impl Handle {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Fills `buf` from `position` as far as the file goes and returns how far.
    pub(crate) fn read(&self, buf: &mut [u8], position: u64) -> Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buf.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, position + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let error = Error::io("cannot read", &self.path, error);
                    return Err(error.with_position(position + filled as u64));
                }
            }
        }
        Ok(filled)
    }

    /// Writes all of `bytes` at `position`.
    pub(crate) fn write(&self, bytes: &[u8], position: u64) -> Result<(), PartialWrite> {
        let mut written = 0;
        while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
            let error = match self.file.write_at(rest, position + written as u64) {
                Ok(0) => io::ErrorKind::WriteZero.into(),
                Ok(count) => {
                    written += if Bug::ShortWriteTaken.is_on() { rest.len() } else { count };
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => error,
            };
            let error = Error::io("cannot write", &self.path, error)
                .with_position(position + written as u64);
            return Err(PartialWrite { written, error });
        }
        Ok(())
    }

    pub(crate) fn sync(&self) -> Result<()> {
        let again =
            |error| if Bug::SyncRetried.is_on() { self.file.sync_data() } else { Err(error) };
        let synced = self.file.sync_data().or_else(again);
        synced.map_err(|error| Error::io("cannot sync", &self.path, error))
    }

    pub(crate) fn forget_cached(&self, position: u64, len: u64) {
        self.file.forget_cached(position, len);
    }

    pub(crate) fn set_len(&self, len: u64) -> Result<()> {
        let cut = self.file.set_len(len);
        cut.map_err(|error| Error::io("cannot set the length of", &self.path, error))
    }

    pub(crate) fn size(&self) -> Result<u64> {
        let size = self.file.size();
        size.map_err(|error| Error::io("cannot ask for the length of", &self.path, error))
    }

    pub(crate) fn map(&self, len: u64) -> Result<Option<Map>> {
        let map = self.file.map(len);
        map.map_err(|error| Error::io("cannot map", &self.path, error))
    }
}
