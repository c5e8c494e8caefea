//! Checkpoints of a log that goes on.

use crate::checkpoint;
use crate::error::Error;
use crate::error::Result;
use crate::log::Log;
use crate::storage::Dir;
use crate::units::Offset;
use std::path::Path;
use std::sync::Arc;

impl Log {
    /// Makes the directory `target` a copy of this log that opens as a log, and returns its end:
    /// all records that are durable at one moment during the call, at least what was durable when
    /// it began, unless the log is truncated meanwhile. Call [`sync`](Log::sync) before for all
    /// that was appended. The copy is durable when this returns.
    ///
    /// Appends, reads and changes of the log go on; files of segments that are removed meanwhile go
    /// when the checkpoint is done. Segments that are sealed are linked and take no space, where
    /// that is possible; else they are copied. A log that a failed write has poisoned can be
    /// copied too.
    ///
    /// What is linked is one file under two names: a checkpoint on the same disk is safe from what
    /// is done to the log, and not from a disk that fails. Copy it elsewhere for that.
    ///
    /// `target` must be missing or empty, or an earlier checkpoint of this log: then only what is
    /// new is linked or copied, what has gone is removed, and wherever the call ends, with an error
    /// or a crash, the directory is the earlier checkpoint or the new one. A first checkpoint that
    /// was not finished does not open, or is an empty directory still: open a checkpoint with
    /// [`create(false)`](crate::Options::create), or it becomes a log of its own. The same call
    /// finishes it.
    ///
    /// The positions of [consumers](crate::Consumer) come with it, as they were committed at that
    /// moment. A crash can leave those of the checkpoint before with the records of the new one:
    /// then some are read again.
    ///
    /// The copy has the identity of the log. Opened to be read, it stays a checkpoint; with the
    /// first change, such as an append, it is a log of its own, which goes its own way and takes no
    /// more checkpoints of this one. Nothing done to it changes a file of this log.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if there is something else in `target`, a
    /// log that has been written to, or a checkpoint with other bytes where this log has gone on
    /// since it was put back from an older copy; [`Locked`](crate::ErrorKind::Locked) if it is open
    /// or being written; [`StorageFull`](crate::ErrorKind::StorageFull) and
    /// [`Io`](crate::ErrorKind::Io) as the system reports;
    /// [`Corrupt`](crate::ErrorKind::Corrupt) if the target or the last records are damaged;
    /// [`Closed`](crate::ErrorKind::Closed). The log itself is unharmed.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use stratalog::{storage::MemoryStorage, Options};
    /// # let storage = Arc::new(MemoryStorage::new());
    /// # let log = Options::new().storage(storage.clone()).open("orders")?;
    /// log.append("a")?;
    /// let end = log.checkpoint("backup/orders")?;
    /// log.append("b")?;
    ///
    /// # let open = |path| Options::new().storage(storage.clone()).open(path);
    /// let copy = open("backup/orders")?;
    /// assert_eq!(copy.end_offset(), end);
    /// copy.close()?;
    /// // Only what is new.
    /// assert_eq!(log.checkpoint("backup/orders")?, end + 1);
    /// # Ok::<(), stratalog::Error>(())
    /// ```
    pub fn checkpoint(&self, target: impl AsRef<Path>) -> Result<Offset> {
        let target = target.as_ref();
        let path = std::path::absolute(target)
            .map_err(|error| Error::io("cannot make absolute", target, error))?;
        let segments = &self.view().segments;
        let target = Dir::new(Arc::clone(segments.dir().storage()), path);
        let taken = checkpoint::take(segments, self.commit(), &self.0.keeper.consumers, &target);
        if self.commit().check_not_closed().is_ok() {
            self.0.keeper.remove_garbage();
        }
        taken
    }
}
