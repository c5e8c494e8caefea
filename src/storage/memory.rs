//! A storage that keeps everything in memory: [`MemoryStorage`].

use crate::storage::DirEntry;
use crate::storage::EntryKind;
use crate::storage::File;
use crate::storage::LockGuard;
use crate::storage::Map;
use crate::storage::OpenMode;
use crate::storage::Storage;
use parking_lot::Mutex;
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::io::{ErrorKind, Read};
use std::path::{Component, Path};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A tree of files in memory, for tests and for logs that need not outlive the process.
///
/// A clone is another handle to the same tree, so that a log can be closed and opened again. The
/// working directory is the root of the tree: `orders` and `/orders` are the same place.
///
/// Syncing does nothing, as on a machine that never loses power: what is written stays. Files are
/// not mapped, and a lock that is held is refused at once, for nobody holds one between two system
/// calls here.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use stratalog::Options;
/// use stratalog::storage::MemoryStorage;
///
/// let storage = MemoryStorage::new();
/// let log = Options::new().storage(Arc::new(storage.clone())).open("orders")?;
/// log.append("a")?;
/// log.close()?;
///
/// let log = Options::new().storage(Arc::new(storage)).open("orders")?;
/// assert_eq!(log.end_offset() - log.start_offset(), 1);
/// # Ok::<(), stratalog::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct MemoryStorage {
    root: Arc<Mutex<Directory>>,
}

impl MemoryStorage {
    /// An empty tree.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Storage for MemoryStorage {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut root = self.root.lock();
        let mut here = &mut *root;
        for part in parts(path) {
            match here.entry(part).or_insert_with(|| Node::Directory(Directory::new())) {
                Node::Directory(inner) => here = inner,
                Node::File(_) => return Err(ErrorKind::NotADirectory.into()),
            }
        }
        Ok(())
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let mut root = self.root.lock();
        let contents = match (entry(&mut root, path)?, mode) {
            (Entry::Vacant(vacant), OpenMode::Create) => create(vacant),
            (Entry::Vacant(_), OpenMode::Read | OpenMode::Write) => {
                return Err(ErrorKind::NotFound.into());
            }
            (Entry::Occupied(_), OpenMode::Create) => return Err(ErrorKind::AlreadyExists.into()),
            (Entry::Occupied(occupied), OpenMode::Read | OpenMode::Write) => {
                Arc::clone(occupied.get().contents()?)
            }
        };
        Ok(Arc::new(MemoryFile { contents, mode }))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let mut root = self.root.lock();
        let directory = descend(&mut root, &parts(path))?;
        let entry = |(name, node): (&OsString, &Node)| DirEntry::new(name.clone(), node.kind());
        Ok(directory.iter().map(entry).collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut root = self.root.lock();
        let contents = Arc::clone(file(&mut root, from)?.get().contents()?);
        match entry(&mut root, to)? {
            Entry::Vacant(vacant) => {
                vacant.insert(Node::File(Arc::clone(&contents)));
            }
            Entry::Occupied(mut occupied) => {
                // The same file, maybe under the same name: there is nothing to do, and the name
                // `from` must not be removed below.
                if Arc::ptr_eq(occupied.get().contents()?, &contents) {
                    return Ok(());
                }
                occupied.insert(Node::File(contents));
            }
        }
        file(&mut root, from)?.remove();
        Ok(())
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut root = self.root.lock();
        let contents = Arc::clone(file(&mut root, from)?.get().contents()?);
        match entry(&mut root, to)? {
            Entry::Vacant(vacant) => vacant.insert(Node::File(contents)),
            Entry::Occupied(_) => return Err(ErrorKind::AlreadyExists.into()),
        };
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut root = self.root.lock();
        let occupied = file(&mut root, path)?;
        occupied.get().contents()?;
        occupied.remove();
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut root = self.root.lock();
        descend(&mut root, &parts(path)).map(drop)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn LockGuard>> {
        let mut root = self.root.lock();
        let contents = match entry(&mut root, path)? {
            Entry::Vacant(vacant) => create(vacant),
            Entry::Occupied(occupied) => Arc::clone(occupied.get().contents()?),
        };
        if contents.locked.swap(true, Ordering::Acquire) {
            return Err(ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(MemoryLock { contents }))
    }

    fn is_locked(&self, path: &Path) -> io::Result<bool> {
        let mut root = self.root.lock();
        match file(&mut root, path) {
            Ok(occupied) => Ok(occupied.get().contents()?.locked.load(Ordering::Acquire)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

type Directory = BTreeMap<OsString, Node>;

#[derive(Debug)]
enum Node {
    Directory(Directory),
    File(Arc<Contents>),
}

impl Node {
    fn kind(&self) -> EntryKind {
        match self {
            Self::Directory(_) => EntryKind::Directory,
            Self::File(_) => EntryKind::File,
        }
    }

    fn contents(&self) -> io::Result<&Arc<Contents>> {
        match self {
            Self::Directory(_) => Err(ErrorKind::IsADirectory.into()),
            Self::File(contents) => Ok(contents),
        }
    }
}

/// What a name stands for; it outlives the name for those who have it open.
#[derive(Default)]
struct Contents {
    bytes: RwLock<Vec<u8>>,
    locked: AtomicBool,
}

/// Without the bytes, which can be many.
impl fmt::Debug for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Contents").field("len", &self.bytes.read().len()).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct MemoryFile {
    contents: Arc<Contents>,
    mode: OpenMode,
}

impl MemoryFile {
    fn check_writable(&self) -> io::Result<()> {
        match self.mode {
            OpenMode::Read => Err(ErrorKind::PermissionDenied.into()),
            OpenMode::Write | OpenMode::Create => Ok(()),
        }
    }
}

impl File for MemoryFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        let bytes = self.contents.bytes.read();
        let rest = usize::try_from(position).ok().and_then(|start| bytes.get(start..));
        rest.unwrap_or_default().read(buf)
    }

    fn write_at(&self, buf: &[u8], position: u64) -> io::Result<usize> {
        self.check_writable()?;
        if buf.is_empty() {
            return Ok(0);
        }
        let start = usize::try_from(position).map_err(|_| ErrorKind::StorageFull)?;
        let end = start.checked_add(buf.len()).ok_or(ErrorKind::StorageFull)?;
        let mut bytes = self.contents.bytes.write();
        if end > bytes.len() {
            resize(&mut bytes, end)?;
        }
        bytes.get_mut(start..end).ok_or(ErrorKind::StorageFull)?.copy_from_slice(buf);
        Ok(buf.len())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        let len = usize::try_from(len).map_err(|_| ErrorKind::StorageFull)?;
        resize(&mut self.contents.bytes.write(), len)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.contents.bytes.read().len() as u64)
    }

    fn map(&self, _len: u64) -> io::Result<Option<Map>> {
        Ok(None)
    }
}

#[derive(Debug)]
struct MemoryLock {
    contents: Arc<Contents>,
}

impl LockGuard for MemoryLock {
    fn read_notice(&self, mut buf: &mut [u8]) -> io::Result<Option<usize>> {
        let bytes = self.contents.bytes.read();
        io::Write::write(&mut buf, &bytes).map(Some)
    }

    fn write_notice(&self, notice: &[u8], position: u64) -> io::Result<()> {
        let contents = Arc::clone(&self.contents);
        MemoryFile { contents, mode: OpenMode::Write }.write_at(notice, position).map(drop)
    }
}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        self.contents.locked.store(false, Ordering::Release);
    }
}

/// The way to `path` from the root. Without links, `..` is simply a step back.
fn parts(path: &Path) -> Vec<OsString> {
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir => {
                parts.pop();
            }
            Component::Prefix(_) | Component::Normal(_) => {
                parts.push(component.as_os_str().to_owned());
            }
        }
    }
    parts
}

fn descend<'a>(root: &'a mut Directory, parts: &[OsString]) -> io::Result<&'a mut Directory> {
    parts.iter().try_fold(root, |here, part| match here.get_mut(part) {
        Some(Node::Directory(inner)) => Ok(inner),
        Some(Node::File(_)) => Err(ErrorKind::NotADirectory.into()),
        None => Err(ErrorKind::NotFound.into()),
    })
}

/// The place of `path` in its directory, which must be there.
fn entry<'a>(root: &'a mut Directory, path: &Path) -> io::Result<Entry<'a, OsString, Node>> {
    let mut parts = parts(path);
    let name = parts.pop().ok_or(ErrorKind::IsADirectory)?;
    Ok(descend(root, &parts)?.entry(name))
}

/// The place of `path`, which must be there.
fn file<'a>(root: &'a mut Directory, path: &Path) -> io::Result<OccupiedEntry<'a>> {
    match entry(root, path)? {
        Entry::Occupied(occupied) => Ok(occupied),
        Entry::Vacant(_) => Err(ErrorKind::NotFound.into()),
    }
}

fn create(vacant: VacantEntry<'_>) -> Arc<Contents> {
    let contents = Arc::new(Contents::default());
    vacant.insert(Node::File(Arc::clone(&contents)));
    contents
}

/// Where a disk would be full, an allocation that fails would end the process.
fn resize(bytes: &mut Vec<u8>, len: usize) -> io::Result<()> {
    let more = len.saturating_sub(bytes.len());
    bytes.try_reserve(more).map_err(|_| ErrorKind::StorageFull)?;
    bytes.resize(len, 0);
    Ok(())
}

type OccupiedEntry<'a> = std::collections::btree_map::OccupiedEntry<'a, OsString, Node>;
type VacantEntry<'a> = std::collections::btree_map::VacantEntry<'a, OsString, Node>;
