//! The named consumers of a log: which there are, where they stand, and who holds them.
//!
//! # Invariants
//!
//! - At most one handle holds a consumer. Only one process has the log, so this needs no lock but
//!   those in memory.
//! - What is said of a position is durable. One that is not known (its file cannot be read) counts
//!   as the lowest there is: nothing is removed that it may need.
//! - No position leads behind the end of the log, also after a crash. A commit makes the log
//!   durable up to there before; a truncation takes positions back, durably, before it cuts. A
//!   crash between the two leaves the log whole, and a consumer that reads some records again.
//! - Who commits reads the [`Shelf`]; who creates, removes, cuts the log or decides what may go has
//!   it for itself. So a consumer that is created while retention decides begins before, and is
//!   waited for, or behind what went. The writer is locked before the shelf, and nobody is told of
//!   anything while it is.
//! - After a sync of the directory or a removal failed, no name is made, removed or relied on until
//!   the log is opened again: a name that was removed may come back, with a position of before a
//!   truncation.
//! - After a failed write or sync of a position its handle commits no more; who opens the consumer
//!   again, here or elsewhere, finds out what the disk holds.

mod behind;
mod consumer;
mod file;

pub(crate) use behind::take_back_to;
pub(crate) use consumer::Consumer;
pub(crate) use consumer::Standing;

use crate::consumers::consumer::missing;
use crate::consumers::file::PositionFile;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Failure;
use crate::error::Result;
use crate::format::names;
use crate::format::position::Owner;
use crate::retention::Reader;
use crate::storage::Dir;
use crate::storage::EntryKind;
use crate::storage::OpenMode;
use crate::sync::AtomicU64;
use crate::sync::RwLock;
use crate::sync::RwLockWriteGuard;
use crate::units::Offset;
use std::collections::BTreeMap;
use std::io;
use std::io::ErrorKind::{NotADirectory, NotFound};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The consumers of a log.
#[derive(Debug)]
pub(crate) struct Consumers {
    dir: Dir,
    log_id: u128,
    shelf: RwLock<Shelf>,
    /// A commit that gets here lets retention go on. Only changed by who has the shelf for itself.
    awaited: AtomicU64,
}

#[derive(Debug)]
struct Shelf {
    life: Life,
    /// Where a truncation was to end the log, until it is known that it did.
    cut_to: Option<Offset>,
    names: Names,
    /// Those that were looked at; all there are, if the directory was listed.
    known: BTreeMap<String, Arc<Consumer>>,
    is_listed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Open,
    Closed,
}

/// What the system says when it makes or removes no name; what fails half-way says something else.
const REFUSALS: [io::ErrorKind; 8] = [
    io::ErrorKind::StorageFull,
    io::ErrorKind::QuotaExceeded,
    io::ErrorKind::PermissionDenied,
    io::ErrorKind::ReadOnlyFilesystem,
    io::ErrorKind::AlreadyExists,
    io::ErrorKind::IsADirectory,
    NotADirectory,
    NotFound,
];

/// What is known of the names in the directory.
#[derive(Debug)]
enum Names {
    Unknown,
    /// There is no directory.
    None,
    /// Those that are seen, and no others, survive a power cut.
    Durable,
    Failed(Error),
}

/// All consumers, while none comes, goes or moves.
#[derive(Debug)]
pub(crate) struct Still<'a>(RwLockWriteGuard<'a, Shelf>);

impl Still<'_> {
    /// The log ends where the truncation was to end it, or goes on as if there had been none.
    pub(crate) fn cut_is_known(mut self) {
        self.0.cut_to = None;
    }
}

/// What a commit changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Committed {
    Quietly,
    /// Retention waited for it.
    Awaited,
}

impl Consumers {
    pub(crate) fn new(log: &Dir, log_id: u128) -> Self {
        let path = log.path_of(names::CONSUMERS);
        Self {
            dir: Dir::new(Arc::clone(log.storage()), path),
            log_id,
            shelf: RwLock::new(Shelf {
                life: Life::Open,
                cut_to: None,
                names: Names::Unknown,
                known: BTreeMap::new(),
                is_listed: false,
            }),
            awaited: AtomicU64::new(u64::MAX),
        }
    }

    /// Takes hold of a consumer. If there is none it is made, at the start of the log; the
    /// [directory](Consumers::make_dir) has to be there.
    pub(crate) fn hold(&self, name: &str, start: impl FnOnce() -> Offset) -> Result<Arc<Consumer>> {
        let mut shelf = self.shelf.write();
        shelf.check_open()?;
        if shelf.is_held(name) {
            let what = format!("the consumer {name} is held already; it has one handle at a time");
            return Err(Error::new(ErrorKind::Locked, what).with_path(&self.dir.path_of(name)));
        }
        self.settle_names(&mut shelf)?;
        let owner = Owner::new(self.log_id, name);
        let file = match PositionFile::open(&self.dir, name, owner)? {
            Some(file) => file,
            None => {
                // Also if it cannot be opened then, it is there.
                shelf.is_listed = false;
                self.create(&mut shelf, name, start(), owner)?;
                let made = PositionFile::open(&self.dir, name, owner)?;
                made.ok_or_else(|| missing(&self.dir, name))?
            }
        };
        let consumer = match shelf.known.get(name) {
            Some(known) => Arc::clone(known),
            None => Arc::new(Consumer::unknown(owner)),
        };
        consumer.is_held_with(file);
        shelf.known.insert(name.to_owned(), Arc::clone(&consumer));
        Ok(consumer)
    }

    /// Makes a position durable, if `check`, which nothing that cuts the log's end comes between,
    /// agrees. It is told where a truncation was to end the log that is not known to have done so.
    pub(crate) fn commit(
        &self,
        consumer: &Consumer,
        position: Offset,
        check: impl FnOnce(Option<Offset>) -> Result<()>,
    ) -> Result<Committed> {
        let shelf = self.shelf.read();
        shelf.check_open()?;
        check(shelf.cut_to)?;
        let before = consumer.put(position)?;
        let awaited = Offset::new(self.awaited.load(Ordering::Acquire));
        Ok(match before < awaited && awaited <= position {
            true => Committed::Awaited,
            false => Committed::Quietly,
        })
    }

    /// All consumers, by name.
    pub(crate) fn list(&self) -> Result<Vec<Standing>> {
        let mut shelf = self.shelf.write();
        shelf.check_open()?;
        self.look_at_all(&mut shelf)?;
        Ok(shelf.standings())
    }

    /// Removes a consumer that nobody holds, durably; tells whether there was one.
    pub(crate) fn remove(&self, name: &str) -> Result<bool> {
        check_name(name)?;
        let mut shelf = self.shelf.write();
        shelf.check_open()?;
        if shelf.is_held(name) {
            let what = format!("the consumer {name} is held; let go of its handle first");
            return Err(Error::new(ErrorKind::Locked, what).with_path(&self.dir.path_of(name)));
        }
        self.settle_names(&mut shelf)?;
        // One that cannot be opened, whatever it is, has the name as well.
        let is_there = match shelf.names {
            Names::None => false,
            _ => !matches!(self.dir.open_if_there(name, OpenMode::Read), Ok(None)),
        };
        if !is_there {
            shelf.known.remove(name);
            return Ok(false);
        }
        self.remove_name(&mut shelf, name)?;
        shelf.known.remove(name);
        self.sync_names(&mut shelf)?;
        Ok(true)
    }

    /// Where all consumers stand, and what keeps them there: until it is dropped none comes, goes
    /// or moves.
    pub(crate) fn stand_still(&self) -> Result<(Vec<Reader>, impl Sized + '_)> {
        let mut shelf = self.shelf.write();
        shelf.check_open()?;
        self.look_at_all(&mut shelf)?;
        let standings = shelf.standings().into_iter();
        let readers = standings.map(|at| Reader { name: at.name, committed: at.committed });
        Ok((readers.collect(), shelf))
    }

    /// The place that a commit has to reach to be awaited. To be said while all stand still.
    pub(crate) fn await_commit_at(&self, place: Option<Offset>) {
        self.awaited.store(place.unwrap_or(Offset::MAX).get(), Ordering::Release);
    }

    /// No file is changed any more when it returns, so that the log may go to another process.
    pub(crate) fn close(&self) {
        self.shelf.write().life = Life::Closed;
    }

    /// Knows all consumers there are.
    fn look_at_all(&self, shelf: &mut Shelf) -> Result<()> {
        self.settle_names(shelf)?;
        if shelf.is_listed || matches!(shelf.names, Names::None) {
            return Ok(());
        }
        for entry in self.dir.list()?.into_iter().filter(|entry| entry.kind == EntryKind::File) {
            let Some(name) = entry.name.to_str().filter(|name| names::is_consumer(name)) else {
                continue;
            };
            if !shelf.known.contains_key(name) {
                let consumer = Consumer::look_at(&self.dir, name, self.log_id);
                shelf.known.insert(name.to_owned(), Arc::new(consumer));
            }
        }
        shelf.is_listed = true;
        Ok(())
    }

    /// Makes the names durable that are seen, once.
    fn settle_names(&self, shelf: &mut Shelf) -> Result<()> {
        match &shelf.names {
            Names::None | Names::Durable => Ok(()),
            Names::Failed(error) => Err(error.clone()),
            Names::Unknown => match self.dir.storage().list(self.dir.path()) {
                Ok(_) => self.sync_names(shelf),
                // Something else that has the name is not ours.
                Err(error) if matches!(error.kind(), NotFound | NotADirectory) => {
                    shelf.names = Names::None;
                    Ok(())
                }
                Err(error) => Err(Error::io("cannot list the directory", self.dir.path(), error)),
            },
        }
    }

    /// Whether there is no directory yet in which a consumer could get this name.
    pub(crate) fn lacks_dir_for(&self, name: &str) -> Result<bool> {
        check_name(name)?;
        let mut shelf = self.shelf.write();
        shelf.check_open()?;
        self.settle_names(&mut shelf)?;
        Ok(matches!(shelf.names, Names::None))
    }

    /// Makes the directory if there is none. To be done while nobody else changes the directory of
    /// the log: if it is broken, that has a name since that may not be durable, and the next sync
    /// would not tell.
    pub(crate) fn make_dir(&self) -> Result<(), Failure> {
        let mut shelf = self.shelf.write();
        shelf.check_open().map_err(Failure::Refused)?;
        let Names::None = shelf.names else { return Ok(()) };
        let path = self.dir.path();
        match self.dir.storage().create_dir(path) {
            Ok(()) => {
                shelf.names = Names::Durable;
                Ok(())
            }
            Err(error) => {
                let is_refused = REFUSALS.contains(&error.kind());
                let error = Error::io("cannot make the directory", path, error);
                Err(if is_refused { Failure::Refused(error) } else { Failure::Broken(error) })
            }
        }
    }

    fn sync_names(&self, shelf: &mut Shelf) -> Result<()> {
        self.dir.sync().map_err(|error| shelf.lose_names(error))?;
        shelf.names = Names::Durable;
        Ok(())
    }

    /// After an error a name may be gone for as long as nobody cuts the power.
    fn remove_name(&self, shelf: &mut Shelf, name: &str) -> Result<()> {
        let path = self.dir.path_of(name);
        match self.dir.storage().remove(&path) {
            Err(error) if error.kind() != NotFound => {
                let is_refused = REFUSALS.contains(&error.kind());
                let error = Error::io("cannot remove", &path, error);
                Err(if is_refused { error } else { shelf.lose_names(error) })
            }
            _ => Ok(()),
        }
    }

    /// Makes the file of a consumer, durably.
    fn create(&self, shelf: &mut Shelf, name: &str, start: Offset, owner: Owner) -> Result<()> {
        PositionFile::create(&self.dir, start, owner).inspect_err(|_| {
            // What is left of it is made anew by the next, and is no consumer's.
            drop(self.dir.remove(names::CONSUMER_NEXT));
        })?;
        match self.dir.rename(names::CONSUMER_NEXT, name) {
            Err(error) if error.kind() == ErrorKind::StorageFull => return Err(error),
            Err(error) => return Err(shelf.lose_names(error)),
            Ok(()) => {}
        }
        self.sync_names(shelf).inspect_err(|_| {
            // Its name may be lost although it is seen, and no later sync would tell.
            drop(self.dir.remove(name));
        })
    }
}

impl Shelf {
    fn check_open(&self) -> Result<()> {
        match self.life {
            Life::Open => Ok(()),
            Life::Closed => Err(Error::new(ErrorKind::Closed, "the log is closed")),
        }
    }

    fn lose_names(&mut self, error: Error) -> Error {
        let error = Error::poisoned(error);
        self.names = Names::Failed(error.clone());
        error
    }

    fn standings(&self) -> Vec<Standing> {
        self.known.iter().map(|(name, consumer)| consumer.standing(name)).collect()
    }

    fn is_held(&self, name: &str) -> bool {
        self.known.get(name).is_some_and(|consumer| consumer.is_held())
    }
}

fn check_name(name: &str) -> Result<()> {
    if names::is_consumer(name) {
        return Ok(());
    }
    let what = format!(
        "{name:?} is no name for a consumer: it takes 1 to 128 of A-Z a-z 0-9 . _ -, and does not \
         begin with a dot"
    );
    Err(Error::new(ErrorKind::InvalidInput, what))
}
