//! What keeps a log in shape while nobody looks: idle segments end, retention, files go.

use crate::commit::Bell;
use crate::commit::Commit;
use crate::commit::Urgency;
use crate::consumers::Consumers;
use crate::error::Error;
use crate::error::Result;
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
use std::sync::Arc;
use std::time::Duration;

/// The keeper looks again after that at the latest, since the clock may have jumped.
const LOOK_AGAIN: Duration = Duration::from_secs(3600);

/// And not sooner than that, if nobody calls it.
const REST: Duration = Duration::from_secs(1);

/// What one piece of maintenance did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MaintenanceReport {
    /// Whether the active segment ended although nothing was appended.
    pub rolled: bool,
    /// What retention did.
    pub retention: RetentionReport,
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
    /// Whether retention would remove more, were it not for readers.
    waits_for_readers: bool,
}

impl Keeper {
    /// Does all that is due.
    pub(super) fn run(&self) -> Result<MaintenanceReport> {
        let rolled = self.end_idle();
        let retained = self.enforce_retention();
        let removed = self.segments.remove_garbage();
        let waits_for_readers =
            retained.as_ref().is_ok_and(|report| report.kept == Some(Kept::Unread));
        let mut last = self.last.lock();
        (last.run_at, last.waits_for_readers) = (Some(self.clock.now()), waits_for_readers);
        drop(last);
        // Each part is done whatever became of the others.
        let report = MaintenanceReport { rolled: rolled?, retention: retained? };
        removed.map(|()| report)
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

    fn told_nobody(&self, error: Error) {
        self.on_error.tell(&error);
        self.last.lock().error = Some(error);
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
        }
        Ok(due)
    }

    /// Runs now, when it is called, and when something is due.
    pub(super) fn keep(&self, bell: &Bell) {
        loop {
            // The log may have been closed, or have failed: it says so to those who use it.
            if let Err(error) = self.run()
                && self.commit.takes_records()
            {
                self.told_nobody(error);
            }
            if bell.wait(self.rest()).is_some_and(|calls| calls.due == Urgency::Stop) {
                return;
            }
        }
    }

    /// How long there is nothing to do, if nothing happens; `None` for ever.
    fn rest(&self) -> Option<Duration> {
        self.retention.max_age.or(self.segment_age)?;
        let rows = self.commit.rows();
        // What waits for a reader is due when one commits, which calls.
        let waits = self.last.lock().waits_for_readers;
        let own = if waits { rows.len().saturating_sub(1) } else { 0 };
        let rows = rows.get(own..).unwrap_or_default();
        let due = retention::next_due(rows, &self.retention, self.segment_age);
        let left = due.map_or(LOOK_AGAIN, |due| due.since(self.clock.now()).unwrap_or_default());
        Some(left.clamp(REST, LOOK_AGAIN))
    }
}
