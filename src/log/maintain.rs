//! Changing the structure of a log: its segments, its start, its end.

use crate::compaction::CompactionReport;
use crate::consumers::Still;
use crate::error::Result;
use crate::events::event;
use crate::log::Log;
use crate::log::MaintenanceReport;
use crate::retention::RetentionReport;
use crate::units::Offset;

impl Log {
    /// Seals the active segment; the next append begins another. Does nothing if it has no records.
    ///
    /// # Errors
    ///
    /// As [`wait`](Log::wait).
    pub fn roll(&self) -> Result<()> {
        self.commit().roll()
    }

    /// Removes all records from `end` on: `end_offset()` is `end` afterwards, and what was removed
    /// never comes back, whatever crashes. The next record gets the offset `end`.
    ///
    /// Costs the same however much is removed. Cursors behind `end` get
    /// [`OutOfRange`](crate::ErrorKind::OutOfRange) at their next call, with `end` as the error's
    /// offset; so do those who wait for a record that is removed, appends that are under way
    /// included. Consumers that have committed more are taken back to `end` first, durably; if the
    /// log is not cut then, for a crash or an error, they read the records behind it again. The
    /// files of what was removed go afterwards; that one cannot be removed is no error of this call
    /// (see [`on_background_error`](crate::Options::on_background_error)).
    ///
    /// A position that is damaged is no obstacle, since it is of no use any more; one that cannot
    /// be read for another reason is: [`remove_consumer`](Log::remove_consumer) it.
    ///
    /// # Errors
    ///
    /// [`OutOfRange`](crate::ErrorKind::OutOfRange) below the start or above the end, with nothing
    /// changed; otherwise as [`wait`](Log::wait), for the records that stay.
    pub fn truncate_to(&self, end: Offset) -> Result<()> {
        let consumers = &self.0.keeper.consumers;
        self.commit().truncate_to(end, || consumers.take_back(end), Still::cut_is_known)?;
        event!(INFO, path = %self.path().display(), end = end.get(), "truncated");
        self.0.keeper.remove_garbage();
        Ok(())
    }

    /// Removes all records below `start`: `start_offset()` is `start` afterwards. Does nothing if
    /// it is there already. Beyond the end, the log becomes empty and goes on at `start`, as a
    /// snapshot of a replicated state machine needs it.
    ///
    /// The space of whole segments is given back. Cursors below `start` get
    /// [`OutOfRange`](crate::ErrorKind::OutOfRange) at their next call, with `start` as the error's
    /// offset, where they can seek to.
    ///
    /// # Errors
    ///
    /// As [`wait`](Log::wait), for the records below `start` in the active segment.
    pub fn delete_before(&self, start: Offset) -> Result<()> {
        self.commit().delete_before(start)?;
        event!(INFO, path = %self.path().display(), start = start.get(), "deleted");
        self.0.keeper.remove_garbage();
        Ok(())
    }

    /// Removes what the log's [`Retention`](crate::Retention) does not ask to be kept, now. A log
    /// with [`Maintenance::Background`](crate::Maintenance::Background) does so by itself.
    ///
    /// # Errors
    ///
    /// As [`delete_before`](Log::delete_before).
    pub fn enforce_retention(&self) -> Result<RetentionReport> {
        self.0.keeper.enforce_retention()
    }

    /// Compacts the sealed segments: of the records with the same key the last one stays, at its
    /// offset; records without a key stay. One run, whatever the dirty ratio and at full speed.
    /// Blocks until it is done; appends and readers go on meanwhile.
    ///
    /// Needs space for one more segment at most; what has been written stands if the run ends
    /// early. Large files that were replaced are closed by a thread, `stratalog-free`, which ends
    /// before this returns: some file systems hold up whoever closes them until the space is free.
    /// Where the memory for keys is full before all keys are read, the report says that there is
    /// [`more`](CompactionReport::more) to do. What was compacted cannot be brought back: if the
    /// log is truncated later, the older records of the keys that are cut off are gone too.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the log was opened without
    /// [`Options::compaction`](crate::Options::compaction);
    /// [`StorageFull`](crate::ErrorKind::StorageFull), with the bytes that are needed;
    /// [`Io`](crate::ErrorKind::Io) if an output cannot be written. Segments that cannot be read
    /// are no error: they are left aside, and the report says so. Nor is it one that the file of a
    /// segment cannot be removed (see
    /// [`on_background_error`](crate::Options::on_background_error)).
    pub fn compact(&self) -> Result<CompactionReport> {
        self.0.keeper.compact_now()
    }

    /// Does once, here, what [`Maintenance::Background`](crate::Maintenance::Background) does all
    /// the time: syncs, ends an idle segment that is due, enforces retention, removes files, and
    /// compacts if that is due.
    ///
    /// Compacting is one run at full speed, which takes as long as it takes: seconds for a
    /// gigabyte. [`Compaction::progress`](crate::Compaction::progress) can break it off.
    ///
    /// # Errors
    ///
    /// As [`sync`](Log::sync), and [`compact`](Log::compact) if that was due. Each part is done
    /// whatever became of the others.
    pub fn maintain(&self) -> Result<MaintenanceReport> {
        let synced = self.commit().sync();
        let report = self.0.keeper.run();
        synced.and(report)
    }
}
