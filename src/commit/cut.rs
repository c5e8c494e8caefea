//! Cutting the log: its end back, its start forward.
//!
//! The crash argument. What stays is durable before anything is cut; then one manifest says where
//! the log ends or starts, and a crash finds it or the one before. A segment that is cut back
//! inside ends where the manifest says and takes no more frames, so what it holds behind that can
//! never come back; the next record begins another segment. Files are removed when the manifest
//! that no longer names them is durable.
//!
//! # Invariants
//!
//! - The writer is locked, so that nothing is written meanwhile, and appends are kept off: who has
//!   been told that its record is in the log told nobody of an offset that another record gets.
//! - No sync that began before sets a mark behind the cut: `syncing` is locked, and the cuts are
//!   counted.

use crate::commit::Commit;
use crate::commit::front::Front;
use crate::commit::waiters::News;
use crate::commit::writer::Purpose;
use crate::commit::writer::Writer;
use crate::error::Failure;
use crate::error::Result;
use crate::format::manifest::Row;
use crate::state::nearest;
use crate::state::out_of_range;
use crate::units::Offset;

/// Lets appends go on when it is dropped, whatever happened.
struct Held<'a>(&'a Commit);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.front.lock().life.release();
    }
}

impl Commit {
    /// Removes all records from `end` on, durably. `before` comes first, when nothing else is in
    /// the way any more; an error of it leaves the log as it is, and what it gives is kept until
    /// the log has been cut. `known` gets that, unless nobody knows now where the log ends.
    pub(crate) fn truncate_to<G>(
        &self,
        end: Offset,
        before: impl FnOnce() -> Result<G>,
        known: impl FnOnce(G),
    ) -> Result<()> {
        self.cut(|writer, news| {
            let start = writer.start_offset();
            let log_end = self.marks.end();
            if !(start..=log_end).contains(&end) {
                return Err(out_of_range(end, nearest(end, (start, log_end)), (start, log_end)));
            }
            if end == log_end {
                return Ok(());
            }
            if self.marks.durable() < end {
                self.make_durable(writer, end, news)?;
            }
            let held = before()?;
            let _syncing = self.syncing.lock();
            let last_at = self.front.lock().tail.last_at();
            let cut = writer.truncate(end, last_at, || {
                let mut front = self.front.lock();
                self.end_at(&mut front, end);
                let epoch = front.points.epoch().saturating_add(1);
                front.points.cut(epoch, end);
                news.reached(front.waiters.take_syncers());
                let removed = front.waiters.take_beyond(end);
                self.count_committing(&front);
                news.failed(removed, &out_of_range(log_end, end, (start, end)));
            });
            self.front.lock().tail.cut_back_to(writer.last_record_at());
            // If nobody knows where the log ends now, that is known before what is held goes on.
            let is_known = !matches!(cut, Err(Failure::Broken(_)));
            let done = self.cut_done(cut, news);
            if is_known {
                known(held);
            }
            done
        })
    }

    /// Removes all records below `start`, durably; beyond the end the log goes on there, empty.
    pub(crate) fn delete_before(&self, start: Offset) -> Result<()> {
        self.delete_what(|_, _| Ok((start, ())))
    }

    /// Removes all records below the offset that is chosen when nothing changes the rows any more.
    /// What is given with it is kept until that is done.
    pub(crate) fn delete_what<G>(
        &self,
        choose: impl FnOnce(&[Row], Offset) -> Result<(Offset, G)>,
    ) -> Result<()> {
        self.cut(|writer, news| {
            let (start, _held) = choose(&writer.rows(), writer.start_offset())?;
            if start <= writer.start_offset() {
                return Ok(());
            }
            if start >= self.marks.end() {
                return self.begin_at(writer, start, news);
            }
            let active = writer.place().map(|place| place.segment.base_offset);
            if self.marks.durable() < start || active.is_none_or(|base| base < start) {
                // A crash must not leave a log that ends below its start, nor a manifest that
                // states an end of the active segment there: all that may be stated is durable.
                self.make_durable(writer, start, news)?;
            }
            let cut = writer.delete_before(start, self.marks.durable());
            self.cut_done(cut, news)
        })
    }

    /// Empties the log and lets it go on at `start`, behind its end.
    fn begin_at(&self, writer: &mut Writer, start: Offset, news: &mut News) -> Result<()> {
        let _syncing = self.syncing.lock();
        let last_at = self.front.lock().tail.last_at();
        let cut = writer.begin_at(start, last_at, || {
            let mut front = self.front.lock();
            // Appended, and deleted since: who waited for less than the new start has what it
            // waited for.
            let passed = front.waiters.take_passed(start);
            self.end_at(&mut front, start);
            self.count_committing(&front);
            news.reached(passed);
        });
        self.front.lock().tail.cut_back_to(writer.last_record_at());
        self.cut_done(cut, news)
    }

    fn cut(&self, cut: impl FnOnce(&mut Writer, &mut News) -> Result<()>) -> Result<()> {
        let mut news = News::default();
        let mut writer = self.writer.lock();
        self.front.lock().life.hold()?;
        let held = Held(self);
        let done = cut(&mut writer, &mut news);
        // The next change comes after it: a reader elsewhere that finds a manifest without its
        // notice knows that only one is missing.
        self.post();
        drop(held);
        drop(writer);
        news.tell();
        done
    }

    fn cut_done(&self, cut: Result<(), Failure>, news: &mut News) -> Result<()> {
        match cut {
            Ok(()) => Ok(()),
            Err(Failure::Refused(error)) => Err(error),
            Err(Failure::Broken(error)) => Err(self.poison(error, news)),
        }
    }

    /// Writes what lies below `end`, and syncs all that is written.
    fn make_durable(&self, writer: &mut Writer, end: Offset, news: &mut News) -> Result<()> {
        let target = self.write_with(writer, end, Purpose::Write, news)?;
        if target.end > self.marks.durable() { self.sync_files(&target, news) } else { Ok(()) }
    }

    /// All memory of records goes, and the log ends at `end`.
    fn end_at(&self, front: &mut Front, end: Offset) {
        front.tail.end_at(end);
        front.cuts += 1;
        front.written_bytes = front.appended_bytes;
        front.durable_bytes = front.appended_bytes;
        self.marks.set_all(end);
    }
}
