//! What keeps a log in shape while nobody looks: idle segments, retention, files, compaction.
//!
//! All of it is done by one thread. What must not wait, retention and the end of idle segments, is
//! done in the pauses of a run of compaction as well, and a run looks for a pause behind every
//! quarter of a megabyte: so it waits for a sync of one segment at most.
//!
//! Callbacks and tasks of others run on the threads of a log, and may panic. What they were called
//! by is then over, but not the thread, of which nobody would notice that it is gone.

use crate::commit::Bell;
use crate::commit::Commit;
use crate::commit::Urgency;
use crate::compaction;
use crate::compaction::CompactionReport;
use crate::compaction::Compactor;
use crate::compaction::Pause;
use crate::consumers::Consumers;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::events::event;
use crate::format::manifest::Row;
use crate::options::OnError;
use crate::retention;
use crate::retention::Kept;
use crate::retention::Retention;
use crate::retention::RetentionReport;
use crate::state::Segments;
use crate::storage::Clock;
use crate::sync::Mutex;
use crate::units::Offset;
use crate::units::Timestamp;
use std::ops::ControlFlow;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::time::Duration;

/// The keeper looks again after that at the latest, since the clock may have jumped.
const LOOK_AGAIN: Duration = Duration::from_secs(3600);

/// And not sooner than that, if nobody calls it.
const REST: Duration = Duration::from_secs(1);

/// A run of compaction that failed, or was ended, is not tried again sooner: it reads all it read
/// before.
const TRY_AGAIN: Duration = Duration::from_secs(60);

/// What one piece of maintenance did.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct MaintenanceReport {
    /// Whether the active segment ended although nothing was appended.
    pub rolled: bool,
    /// What retention did.
    pub retention: RetentionReport,
    /// What compaction did, if a run was due and none was under way.
    pub compaction: Option<CompactionReport>,
}

/// Holds what it works on, and keeps no log open.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) commit: Arc<Commit>,
    pub(super) segments: Arc<Segments>,
    pub(super) consumers: Arc<Consumers>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) retention: Retention,
    pub(super) segment_age: Option<Duration>,
    pub(super) compactor: Option<Arc<Compactor>>,
    pub(super) on_error: OnError,
    /// Whom to call for work that need not be done at once; `None`: it is done at once.
    pub(super) bell: Option<Arc<Bell>>,
    pub(super) last: Mutex<Last>,
}

/// How the work of late went.
#[derive(Clone, Debug, Default)]
pub(super) struct Last {
    /// When the keeper ran last.
    pub(super) run_at: Option<Timestamp>,
    /// The last error that no call returned.
    pub(super) error: Option<Error>,
    /// No run of compaction in the background begins before.
    compact_after: Duration,
    /// Whether retention would remove more, were it not for readers.
    waits_for_readers: bool,
}

impl Keeper {
    /// Does all that is due, without a pause.
    pub(super) fn run(&self) -> Result<MaintenanceReport> {
        let tidied = self.tidy();
        // Each part is done whatever became of the others.
        let compaction = self.compact(&mut |_| ControlFlow::Continue(()));
        Ok(MaintenanceReport { compaction: compaction?, ..tidied? })
    }

    /// Does what must not wait.
    fn tidy(&self) -> Result<MaintenanceReport> {
        let rolled = self.end_idle();
        let retained = self.enforce_retention();
        let removed = self.segments.remove_garbage();
        let waits_for_readers =
            retained.as_ref().is_ok_and(|report| report.kept == Some(Kept::Unread));
        let mut last = self.last.lock();
        (last.run_at, last.waits_for_readers) = (Some(self.clock.now()), waits_for_readers);
        drop(last);
        let compaction = None;
        let report = MaintenanceReport { rolled: rolled?, retention: retained?, compaction };
        removed.map(|()| report)
    }

    fn compact(&self, pause: Pause<'_>) -> Result<Option<CompactionReport>> {
        let Some(compactor) = &self.compactor else { return Ok(None) };
        let compacted = compactor.run_if_due(pause);
        self.tell_of_run(compactor, compacted.as_ref().ok().and_then(Option::as_ref));
        compacted
    }

    /// Does one run, whether it is due or not.
    pub(super) fn compact_now(&self) -> Result<CompactionReport> {
        let compactor = self.compactor.as_ref().ok_or_else(compaction::not_wanted)?;
        let compacted = compactor.run();
        self.tell_of_run(compactor, compacted.as_ref().ok());
        compacted
    }

    fn tell_of_run(&self, compactor: &Compactor, report: Option<&CompactionReport>) {
        if let Some(_report) = report {
            event!(
                INFO,
                path = %self.path().display(),
                compacted_to = _report.compacted_to().get(),
                records_removed = _report.records_removed(),
                records_kept = _report.records_kept(),
                bytes_removed = _report.bytes_removed(),
                segments_written = _report.segments_written(),
                left_aside = _report.left_aside().len(),
                more = _report.more(),
                "compacted"
            );
        }
        if let Some(error) = compactor.take_not_removed() {
            self.told_nobody(error);
        }
    }

    pub(super) fn enforce_retention(&self) -> Result<RetentionReport> {
        let mut report = self.plan(&self.commit.rows(), self.segments.start_offset())?.0;
        if report.removed_segments > 0 {
            // The log may have been cut meanwhile: what counts is what there is now.
            self.commit.delete_what(|rows, start| {
                let (planned, still) = self.plan(rows, start)?;
                report = planned;
                Ok((report.start_offset, still))
            })?;
            event!(INFO, path = %self.path().display(), report = ?report, "retention");
            self.remove_garbage();
        }
        Ok(report)
    }

    /// What is to go, and what keeps the consumers where they are, if that matters.
    fn plan<'a>(
        &'a self,
        rows: &[Row],
        start: Offset,
    ) -> Result<(RetentionReport, impl Sized + use<'a>)> {
        let now = self.clock.now();
        if !self.retention.keep_unread {
            return Ok((retention::plan(rows, start, &self.retention, &[], now), None));
        }
        let (readers, still) = self.consumers.stand_still()?;
        let report = retention::plan(rows, start, &self.retention, &readers, now);
        let stays = rows.iter().find(|row| row.end_offset > report.start_offset);
        let unread = stays.filter(|_| report.kept == Some(Kept::Unread));
        self.consumers.await_commit_at(unread.map(|row| row.end_offset));
        Ok((report, Some(still)))
    }

    /// Removes the files of what was cut, or has that done: it takes long on some file systems.
    /// The cut stands whether they can be removed or not, so that is no error of who asked for it.
    pub(super) fn remove_garbage(&self) {
        match &self.bell {
            Some(bell) => bell.call(Urgency::Now),
            None => {
                if let Err(error) = self.segments.remove_garbage() {
                    self.told_nobody(error);
                }
            }
        }
    }

    #[cfg(feature = "tracing")]
    fn path(&self) -> &std::path::Path {
        self.segments.dir().path()
    }

    fn told_nobody(&self, error: Error) {
        event!(WARN, path = %self.path().display(), error = %error, "maintenance failed");
        self.last.lock().error = Some(error.clone());
        self.on_error.tell(&error);
    }

    /// Does some of the work of a thread of the log, which goes on if it panics. That is told to
    /// no callback, which might be the one that did. Tells whether the work came to its end.
    pub(super) fn survive(&self, work: impl FnOnce()) -> bool {
        let done = catch_unwind(AssertUnwindSafe(work));
        if let Err(panic) = &done {
            let said = panic.downcast_ref::<&str>().copied();
            let said = said.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
            let said = said.unwrap_or("no message");
            let what = format!("a callback or a task panicked on a thread of the log: {said}");
            let error = Error::new(ErrorKind::Io, what).with_path(self.segments.dir().path());
            self.last.lock().error = Some(error);
        }
        done.is_ok()
    }

    /// Ends the active segment if it is due although nothing is appended; tells whether it did.
    fn end_idle(&self) -> Result<bool> {
        let rows = self.commit.rows();
        let now = self.clock.now();
        let due = rows.last().is_some_and(|row| {
            row.is_active() && retention::ends_idle(row, &self.retention, self.segment_age, now)
        });
        if due {
            self.commit.roll()?;
            event!(DEBUG, path = %self.path().display(), "ended an idle segment");
        }
        Ok(due)
    }

    /// Runs now, when it is called, and when something is due.
    pub(super) fn keep(&self, bell: &Bell) {
        loop {
            let rest = self.tidy_in_background();
            self.compact_in_background(bell, rest);
            let rest = [self.rest(), self.rest_from_compaction()].into_iter().flatten().min();
            if bell.wait(rest).is_some_and(|calls| calls.due == Urgency::Stop) {
                return;
            }
        }
    }

    /// Does what must not wait; gives how long there is nothing of that to do.
    fn tidy_in_background(&self) -> Option<Duration> {
        self.survive(|| {
            if let Err(error) = self.tidy() {
                self.failed_in_background(error);
            }
        });
        self.rest()
    }

    fn compact_in_background(&self, bell: &Bell, rest: Option<Duration>) {
        let now = || self.clock.monotonic();
        if now() < self.last.lock().compact_after {
            return;
        }
        let mut tidy_at = rest.map(|rest| now().saturating_add(rest));
        let survived = self.survive(|| {
            let mut reached = None;
            let mut pause = |time| self.pause(bell, time, &mut tidy_at);
            while self.compact_once(&mut pause, &mut reached) {}
        });
        if !survived {
            self.try_again_later();
        }
    }

    /// Does one run if it is due; tells whether another one may be, right behind it. `reached` is
    /// where the one before came to.
    fn compact_once(&self, pause: Pause<'_>, reached: &mut Option<Offset>) -> bool {
        match self.compact(pause) {
            Ok(Some(report)) => {
                for aside in report.left_aside() {
                    self.told_nobody(aside.error().clone());
                }
                if report.is_stopped() {
                    self.try_again_later();
                    return false;
                }
                // What came to the log meanwhile has called, and was not listened to.
                let before = reached.replace(report.compacted_to());
                report.more() || before != Some(report.compacted_to())
            }
            Ok(None) => false,
            Err(error) => {
                self.try_again_later();
                self.failed_in_background(error);
                false
            }
        }
    }

    fn try_again_later(&self) {
        self.last.lock().compact_after = self.clock.monotonic().saturating_add(TRY_AGAIN);
    }

    /// Pauses a run of compaction for so long, and does meanwhile what must not wait.
    fn pause(
        &self,
        bell: &Bell,
        time: Duration,
        tidy_at: &mut Option<Duration>,
    ) -> ControlFlow<()> {
        let until = self.clock.monotonic().saturating_add(time);
        let mut left = time;
        loop {
            let to_tidy = tidy_at.map(|at| at.saturating_sub(self.clock.monotonic()));
            let wait = to_tidy.map_or(left, |to_tidy| to_tidy.min(left));
            match bell.wait(Some(wait)) {
                Some(calls) if calls.due == Urgency::Stop => {
                    // It is meant for the one who called the run as well.
                    bell.call(Urgency::Stop);
                    return ControlFlow::Break(());
                }
                None if to_tidy.is_none_or(|to_tidy| to_tidy > left) => {
                    return ControlFlow::Continue(());
                }
                Some(_) | None => {}
            }
            let rest = self.tidy_in_background();
            *tidy_at = rest.map(|rest| self.clock.monotonic().saturating_add(rest));
            left = until.saturating_sub(self.clock.monotonic());
            if self.compactor.as_ref().is_some_and(|compactor| compactor.is_hurried()) {
                return ControlFlow::Continue(());
            }
        }
    }

    /// The log may have been closed, or have failed: it says so to those who use it.
    fn failed_in_background(&self, error: Error) {
        if self.commit.takes_records() {
            self.told_nobody(error);
        }
    }

    /// How long nothing must be done but compaction, if nothing happens; `None` for ever.
    fn rest(&self) -> Option<Duration> {
        self.retention.max_age.or(self.segment_age)?;
        let rows = self.commit.rows();
        // What waits for a reader is due when one commits, which calls.
        let waits = self.last.lock().waits_for_readers;
        let own = if waits { rows.len().saturating_sub(1) } else { 0 };
        let rows = rows.get(own..).unwrap_or_default();
        let due = retention::next_due(rows, &self.retention, self.segment_age);
        Some(self.until(due))
    }

    fn rest_from_compaction(&self) -> Option<Duration> {
        let compactor = self.compactor.as_ref().filter(|_| self.commit.takes_records())?;
        let rest = self.until(compactor.next_due());
        let tried = self.last.lock().compact_after.checked_sub(self.clock.monotonic());
        // What may be tried now has been.
        Some(tried.filter(|left| !left.is_zero()).unwrap_or(rest))
    }

    fn until(&self, due: Option<Timestamp>) -> Duration {
        let left = due.map_or(LOOK_AGAIN, |due| due.since(self.clock.now()).unwrap_or_default());
        left.clamp(REST, LOOK_AGAIN)
    }
}
