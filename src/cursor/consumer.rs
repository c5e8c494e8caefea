//! A named consumer: a cursor whose position is kept in the log's directory.

use crate::commit::Bell;
use crate::commit::Commit;
use crate::commit::Urgency;
use crate::consumers;
use crate::consumers::Committed;
use crate::consumers::Consumers;
use crate::cursor::Cursor;
use crate::cursor::Entry;
use crate::cursor::Seek;
use crate::cursor::View;
use crate::cursor::Wait;
use crate::error::Result;
use crate::options::Durability;
use crate::state::out_of_range;
use crate::units::Offset;
use std::sync::Arc;
use std::time::Duration;

/// Reads the log as a [`Cursor`] does, and keeps its place there under a name, across restarts and
/// crashes: it goes on behind the last record that was *committed*.
///
/// # At least once, and effectively once
///
/// [`next`](Consumer::next) moves the handle, [`commit`](Consumer::commit) makes where it stands
/// durable. A crash between the two, or in the commit, leaves the position of before: the records
/// in between are read again, and none is ever skipped. So each record is seen at least once.
///
/// Who needs the effect of each record just once keeps the offset with the effect, in the same
/// transaction of the same database, and on start goes by that: `seek` to the offset behind it, or
/// pass over the records below it. Then the position here is a hint that saves reading, and what
/// [retention](crate::Retention::keep_unread) goes by.
///
/// # Where it stands
///
/// A consumer that is new begins at the start of the log. Truncation takes committed positions back
/// to the new end. If the log no longer has the place, because retention or `delete_before` passed
/// it, `next` is [`OutOfRange`](crate::ErrorKind::OutOfRange) with the new start as the error's
/// offset, each time, until the handle is moved: nothing is skipped in silence.
///
/// One handle holds a consumer at a time. It does not keep the log open; when the log is closed it
/// reads on, and commits are [`Closed`](crate::ErrorKind::Closed). Dropping it commits nothing.
///
/// # Examples
///
/// ```
/// # use std::sync::Arc;
/// # use stratalog::{storage::MemoryStorage, Options};
/// # let options = Options::new().storage(Arc::new(MemoryStorage::new()));
/// let log = options.clone().open("orders")?;
/// log.append_batch(["order 1", "order 2", "order 3"])?;
/// let mut billing = log.consumer("billing")?;
/// assert_eq!(billing.next()?.unwrap().value(), b"order 1");
/// billing.commit()?;
/// assert_eq!(billing.next()?.unwrap().value(), b"order 2");
/// drop((billing, log));
///
/// // Order 2 was not committed, so it comes again.
/// let log = options.open("orders")?;
/// let mut billing = log.consumer("billing")?;
/// assert_eq!(billing.next()?.unwrap().value(), b"order 2");
/// assert_eq!(billing.lag(), 2);
/// # Ok::<(), stratalog::Error>(())
/// ```
#[derive(Debug)]
pub struct Consumer {
    name: Box<str>,
    cursor: Cursor,
    commit: Arc<Commit>,
    consumers: Arc<Consumers>,
    held: Arc<consumers::Consumer>,
    /// Who is to be called when retention waited for a commit.
    keeper: Option<Arc<Bell>>,
}

/// What a handle is made of.
pub(crate) struct ConsumerParts {
    pub(crate) view: View,
    pub(crate) commit: Arc<Commit>,
    pub(crate) consumers: Arc<Consumers>,
    pub(crate) keeper: Option<Arc<Bell>>,
}

impl Consumer {
    /// Takes hold of the consumer with this name, which is made if there is none.
    pub(crate) fn hold(parts: ConsumerParts, name: &str) -> Result<Self> {
        let ConsumerParts { view, commit, consumers, keeper } = parts;
        if consumers.lacks_dir_for(name)? {
            commit.change_directory(|| consumers.make_dir())?;
        }
        let held = consumers.hold(name, || view.start())?;
        // The count of cuts is taken before the position is: one that comes between is seen.
        let mut cursor = Cursor::new(view, Offset::ZERO);
        cursor.stand_at(held.committed());
        Ok(Self { name: name.into(), cursor, commit, consumers, held, keeper })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The next record, or `None` at the high watermark; later calls find what was appended since.
    ///
    /// # Errors
    ///
    /// As [`Cursor::next`]. No error moves the consumer.
    #[expect(clippy::should_implement_trait, reason = "the entry borrows from the consumer")]
    pub fn next(&mut self) -> Result<Option<Entry<'_>>> {
        self.cursor.next()
    }

    /// The record before, or `None` at the start of the log. A commit behind it takes the
    /// committed position back.
    ///
    /// # Errors
    ///
    /// As [`Cursor::next`].
    pub fn prev(&mut self) -> Result<Option<Entry<'_>>> {
        self.cursor.prev()
    }

    /// Makes [`position`](Consumer::position) the committed one, durably: all records that `next`
    /// returned are done. Costs a small write and one sync of it (two of each if it leads back),
    /// and nothing if that position is committed already; if the records themselves are not synced
    /// yet, as may be in a log opened for less than [`Durability::Synced`], a sync of the log
    /// before.
    ///
    /// # Errors
    ///
    /// [`OutOfRange`](crate::ErrorKind::OutOfRange) if the place has been deleted or truncated;
    /// [`Closed`](crate::ErrorKind::Closed); [`StorageFull`](crate::ErrorKind::StorageFull), and
    /// it may be tried again; [`Poisoned`](crate::ErrorKind::Poisoned) after a failed write or sync
    /// of the position, and then which of the two is committed is found out by who opens the
    /// consumer again, and if the log has failed and the records are not durable.
    pub fn commit(&mut self) -> Result<()> {
        self.cursor.check_place()?;
        let position = self.cursor.offset();
        let Self { cursor, commit, consumers, held, .. } = self;
        // A position ahead of the log would, after a crash, skip what is appended there next.
        if let Some(last) = position.checked_sub(1)
            && commit.marks().durable() < position
        {
            commit.wait_for_record(last, Durability::Synced)?;
        }
        let committed = consumers.commit(held, position, |cut_to| {
            cursor.check_place()?;
            match commit.poison_error() {
                // The truncation failed, and the next who opens the log may find that it did not.
                Some(error) if cut_to.is_some_and(|end| position > end) => Err(error),
                _ => Ok(()),
            }
        })?;
        if let (Committed::Awaited, Some(keeper)) = (committed, &self.keeper) {
            keeper.call(Urgency::Soon);
        }
        Ok(())
    }

    /// The position that is committed: where the consumer goes on after a crash.
    #[must_use]
    pub fn committed(&self) -> Offset {
        self.held.committed()
    }

    /// Where the handle stands: behind the last record that `next` returned, or where it was moved
    /// to.
    #[must_use]
    pub fn position(&self) -> Offset {
        self.cursor.offset()
    }

    /// How many offsets there are from the committed position to the high watermark. Those that
    /// compaction emptied count as well.
    #[must_use]
    pub fn lag(&self) -> u64 {
        self.cursor.view.high_watermark().saturating_since(self.committed())
    }

    /// Moves to another place. Only a commit makes it durable, backwards too.
    ///
    /// # Errors
    ///
    /// As [`Cursor::seek`]. Then it has not moved.
    pub fn seek(&mut self, seek: Seek) -> Result<()> {
        self.cursor.seek(seek)
    }

    /// Goes back to the committed position, to read again what was read since: what a restart would
    /// do, without one.
    ///
    /// # Errors
    ///
    /// [`OutOfRange`](crate::ErrorKind::OutOfRange) if the log no longer has that place. Then it
    /// has not moved, and [`Error::offset`](crate::Error::offset) is where it can be moved to.
    pub fn reset(&mut self) -> Result<()> {
        self.cursor.seek(Seek::Offset(self.held.committed()))
    }

    /// Blocks until there is a record to read, or until `timeout` has passed; tells whether there
    /// is one.
    ///
    /// # Errors
    ///
    /// As [`Cursor::wait`].
    pub fn wait(&mut self, timeout: Duration) -> Result<bool> {
        self.cursor.wait(timeout)
    }

    /// As [`wait`](Consumer::wait) without a timeout, as a future for any executor. It borrows
    /// nothing from the consumer.
    pub fn wait_async(&mut self) -> Wait {
        self.cursor.wait_async()
    }
}

impl Cursor {
    /// An error if its place was deleted or cut off.
    fn check_place(&mut self) -> Result<()> {
        while self.cuts != self.view.cuts() {
            self.catch_up()?;
        }
        let (stand, start) = (self.stand.offset, self.view.start());
        if stand < start {
            Err(out_of_range(stand, start, (start, self.view.end())))
        } else {
            Ok(())
        }
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.held.let_go();
    }
}
