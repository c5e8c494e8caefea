//! The log as its users hold it: [`Log`], a handle whose methods are short and delegate.

mod append;
mod background;
mod checkpoint;
mod closing;
mod consumers;
mod keeper;
mod maintain;
mod open;
mod reader;
mod replicate;
mod stats;

pub use consumers::ConsumerInfo;
pub use keeper::MaintenanceReport;
pub use reader::LogReader;
pub use replicate::Frames;
pub use stats::SegmentInfo;
pub use stats::Stats;

use crate::bugs::Bug;
use crate::commit::Commit;
use crate::cursor::Cursor;
use crate::cursor::EntryBuf;
#[cfg(feature = "stream")]
use crate::cursor::EntryStream;
use crate::cursor::Follow;
use crate::cursor::Iter;
use crate::cursor::Seek;
use crate::cursor::View;
use crate::cursor::Wait;
use crate::error::Result;
use crate::events::event;
use crate::log::closing::Begun;
use crate::log::closing::Running;
use crate::log::keeper::Keeper;
use crate::options::Durability;
use crate::options::Options;
use crate::state::Recovery;
use crate::units::Offset;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::path::Path;
use std::sync::Arc;

/// An append-only, totally ordered sequence of records in a directory.
///
/// Cheap to clone; all clones are the same log, and any number of threads may use them at once.
/// There is one writer a directory: a second `open`, here or in another process, is
/// [`Locked`](crate::ErrorKind::Locked).
///
/// Dropping the last handle closes the log as [`close`](Log::close) does, but cannot report an
/// error; nothing is promised about records that were not synced before. Cursors do not keep it
/// open.
///
/// # Examples
///
/// ```
/// use stratalog::{Log, Record, Seek};
///
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("orders");
/// let log = Log::open(&path)?;
/// let offset = log.append(Record::new("paid").key("order-17"))?;
/// assert_eq!(log.get(offset)?.unwrap().value(), b"paid");
/// log.close()?;
/// # Ok::<(), stratalog::Error>(())
/// ```
#[derive(Clone)]
pub struct Log(Arc<Handle>);

/// What all clones share, and what ends with the last of them.
#[derive(Debug)]
struct Handle {
    view: View,
    commit: Arc<Commit>,
    durability: Durability,
    max_batch_bytes: u64,
    recovery: Recovery,
    keeper: Arc<Keeper>,
    running: Running,
}

impl Log {
    fn new(handle: Handle) -> Self {
        Self(Arc::new(handle))
    }

    /// Opens the log in the directory `path` with all defaults, and makes it if there is none.
    ///
    /// # Errors
    ///
    /// As [`Options::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Options::new().open(path)
    }

    /// Blocks until the record at `offset` has reached `level`. Many threads that wait share one
    /// sync.
    ///
    /// # Errors
    ///
    /// [`OutOfRange`](crate::ErrorKind::OutOfRange) for an offset at or beyond the end;
    /// [`StorageFull`](crate::ErrorKind::StorageFull) if there is no space for it now;
    /// [`Poisoned`](crate::ErrorKind::Poisoned) after a failed write or sync.
    pub fn wait(&self, offset: Offset, level: Durability) -> Result<()> {
        self.commit().wait_for_record(offset, level)
    }

    /// As [`wait`](Log::wait), as a future for any executor. With
    /// [`Maintenance::Manual`](crate::Maintenance::Manual) it is ready when some other call syncs.
    pub fn wait_async(&self, offset: Offset, level: Durability) -> Wait {
        Wait::for_level(&self.0.commit, offset, level)
    }

    /// Blocks until everything appended so far is synced.
    ///
    /// # Errors
    ///
    /// As [`wait`](Log::wait).
    pub fn sync(&self) -> Result<()> {
        self.commit().sync()
    }

    /// A cursor at a place.
    ///
    /// # Errors
    ///
    /// As [`Cursor::seek`].
    pub fn cursor(&self, seek: Seek) -> Result<Cursor> {
        Cursor::at(self.view(), seek)
    }

    /// The record at `offset`; `None` if compaction removed it or it may not be read yet.
    ///
    /// # Errors
    ///
    /// [`OutOfRange`](crate::ErrorKind::OutOfRange) below the start; otherwise as
    /// [`Cursor::next`].
    pub fn get(&self, offset: Offset) -> Result<Option<EntryBuf>> {
        Cursor::get(self.view(), offset)
    }

    /// All records from a place to the high watermark.
    ///
    /// # Errors
    ///
    /// As [`Cursor::seek`].
    pub fn iter(&self, seek: Seek) -> Result<Iter> {
        self.cursor(seek).map(Iter::new)
    }

    /// The directory of the log, as it was made absolute when the log was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// All records from a place on, those to come too: an iterator that blocks at the end of the
    /// log until there is more, and ends when the log is closed.
    ///
    /// # Errors
    ///
    /// As [`Cursor::seek`].
    pub fn follow(&self, seek: Seek) -> Result<Follow> {
        self.cursor(seek).map(Cursor::follow)
    }

    /// As [`follow`](Log::follow), as a stream for any executor.
    ///
    /// # Errors
    ///
    /// As [`Cursor::seek`].
    #[cfg(feature = "stream")]
    pub fn stream(&self, seek: Seek) -> Result<EntryStream> {
        self.cursor(seek).map(Cursor::stream)
    }

    /// The offset of the first record there is.
    #[must_use]
    pub fn start_offset(&self) -> Offset {
        self.view().start()
    }

    /// The offset that the next record will get.
    #[must_use]
    pub fn end_offset(&self) -> Offset {
        self.view().end()
    }

    /// Records below it are with the operating system: they survive the death of this process.
    #[must_use]
    pub fn written_offset(&self) -> Offset {
        self.commit().marks().written()
    }

    /// Records below it are on the device: they survive a power cut.
    #[must_use]
    pub fn durable_offset(&self) -> Offset {
        self.commit().marks().durable()
    }

    /// Cursors read up to here: the [`durable_offset`](Log::durable_offset) of a log opened with
    /// [`Durability::Synced`], else the [`end_offset`](Log::end_offset) without the records whose
    /// `append` has not returned yet.
    #[must_use]
    pub fn high_watermark(&self) -> Offset {
        self.view().high_watermark()
    }

    /// What opening the log found and did.
    #[must_use]
    pub fn recovery(&self) -> &Recovery {
        &self.0.recovery
    }

    /// Syncs everything, marks the log as closed so that the next open has nothing to do, stops the
    /// background thread and frees the lock. Later appends and waits are
    /// [`Closed`](crate::ErrorKind::Closed); cursors read on.
    ///
    /// Closing again gives the same result, and waits for a thread that is closing the log. A
    /// caller that this thread may be waiting for gets `Ok` at once, before the log is closed: that
    /// is a task or callback on a thread of the log, within a run of compaction, or on the closing
    /// thread itself. So tasks and callbacks may close the log, whoever else does.
    ///
    /// Tasks that still wait, for what closing makes durable or what does not come any more, are
    /// woken when the log has been closed.
    ///
    /// # Panics
    ///
    /// If waking a task does; the log is closed, and all others are told, by then.
    ///
    /// # Errors
    ///
    /// [`Poisoned`](crate::ErrorKind::Poisoned) if a write or sync failed before, and
    /// [`StorageFull`](crate::ErrorKind::StorageFull) if records that were accepted as buffered
    /// cannot be written. The lock is free all the same.
    pub fn close(&self) -> Result<()> {
        self.0.close()
    }

    fn view(&self) -> &View {
        &self.0.view
    }

    fn commit(&self) -> &Commit {
        &self.0.commit
    }
}

/// Short, however long the log is.
impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log")
            .field("path", &self.path())
            .field("start_offset", &self.start_offset())
            .field("end_offset", &self.end_offset())
            .finish_non_exhaustive()
    }
}

impl Handle {
    fn path(&self) -> &Path {
        self.view.segments.dir().path()
    }

    fn close(&self) -> Result<()> {
        let (closed, is_first) = self.close_once();
        match &closed {
            _ if !is_first => {}
            Ok(()) => event!(INFO, path = %self.path().display(), "closed"),
            Err(_error) => {
                event!(ERROR, path = %self.path().display(), error = %_error, "closed");
            }
        }
        closed
    }

    /// Tells how closing went, and whether it was now.
    fn close_once(&self) -> (Result<()>, bool) {
        let compactor = self.keeper.compactor.as_ref();
        if let Some(compactor) = compactor {
            // Also for a callback of the run, which may not wait for who closes.
            compactor.stop();
        }
        let runner = compactor.and_then(|compactor| compactor.runner());
        let (closing, background) = match self.running.close(runner) {
            Begun::First(closing, background) => (closing, background),
            Begun::Over(result) => return (result, false),
        };
        if let Some(compactor) = compactor {
            compactor.wait_for_end();
        }
        if Bug::LockFreedEarly.is_on() {
            self.commit.let_go_of_lock();
        }
        let (closed, mut news) = self.commit.close();
        // The threads of the log may be among those who wait.
        news.tell_threads();
        self.keeper.consumers.close();
        if let Some(background) = background {
            background.stop();
        }
        // What cannot be removed is garbage for the next open.
        drop(self.view.segments.remove_garbage());
        self.commit.let_go_of_lock();
        closing.end(closed.clone());
        // Not before: a task may close the log, or open it again, when it is woken.
        news.tell();
        (closed, true)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Nobody is left to tell; what was promised is durable already.
        // It must not panic, since that may be why the handle is dropped.
        drop(catch_unwind(AssertUnwindSafe(|| self.close())));
    }
}
