//! The board: where the writer says, for readers in other processes, how far the log has got.
//!
//! What is posted is advice and costs nobody anything but a small write to a file that is never
//! synced. That it cannot be written is no error of the log: readers elsewhere see the notice
//! before, which was true, for longer.
//!
//! # Invariants
//!
//! - One notice at a time, each made of marks that were read while it was its turn: a later notice
//!   never states less than an earlier one, unless the log was cut.
//! - An append that returns when its record is synced, and whoever else had to wait for that sync,
//!   returns after the post, so that a reader that looks afterwards sees the record. Who asks
//!   between the sync and the post finds it durable and does not wait.
//! - For a record that is written, posting would cost half as much again as the write: under load
//!   not every such append posts, and the last of a burst is posted by the background thread, after
//!   [`LATE_MAX`], or before it syncs. What comes while it writes or syncs waits until that has
//!   ended.
//! - Who has the board has the lock of the log, until it is let go of.

use crate::commit::Commit;
use crate::commit::front::Life;
use crate::commit::waiters::Mark;
use crate::format::manifest::Manifest;
use crate::format::notice::NOTICES_LEN;
use crate::format::notice::Notice;
use crate::format::notice::NoticeMarks;
use crate::format::notice::NoticeState;
use crate::format::notice::Points;
use crate::storage::LockGuard;
use crate::sync::AtomicU64;
use crate::sync::Mutex;
use crate::units::Offset;
use crate::units::Timestamp;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The lock of the log, and the notice in its file.
#[derive(Debug)]
pub(crate) struct Board {
    /// Whether the lock's file keeps a notice.
    is_kept: bool,
    posting: Mutex<Posting>,
    /// When a notice was posted last, in nanoseconds of the monotonic clock.
    posted_at: AtomicU64,
    /// 1 if the background thread has been called to post what was not.
    is_late: AtomicU64,
    /// How often there was something to post.
    news: AtomicU64,
}

#[derive(Debug)]
struct Posting {
    /// `None` when the lock was given back.
    lock: Option<Box<dyn LockGuard>>,
    last: Notice,
}

impl Board {
    /// For who has just got the lock, to open the log or to change it otherwise: says that the log
    /// is being opened, in another life. Of `now` only comes the number of that life.
    pub(crate) fn new(lock: Box<dyn LockGuard>, now: Timestamp) -> Self {
        let mut bytes = [0; NOTICES_LEN];
        // What cannot be read is as good as what was never written.
        let read = lock.read_notice(&mut bytes).unwrap_or(Some(0));
        let found = bytes.get(..read.unwrap_or(0)).and_then(Notice::latest);
        let mut last = found.unwrap_or_default();
        if last.sequence > SEQUENCE_MAX {
            last.sequence = 0;
        }
        let fresh = now.as_micros().unsigned_abs();
        last.session = last.session.wrapping_add(1).max(fresh);
        last.state = NoticeState::Opening;
        let posting = Mutex::new(Posting { lock: Some(lock), last });
        let zero = || AtomicU64::new(0);
        let (posted_at, is_late, news) = (zero(), zero(), zero());
        let board = Self { is_kept: read.is_some(), posting, posted_at, is_late, news };
        // Both slots, so that nothing stays that has a higher number.
        board.post(|_| true);
        board.post(|_| true);
        board
    }

    /// What was posted last; while the log is being opened, with the marks of the writer before.
    pub(crate) fn said(&self) -> Notice {
        self.posting.lock().last
    }

    /// The truncations of the log that readers have to know of, now that it has been recovered and,
    /// perhaps, cut.
    pub(crate) fn points(&self, manifest: &Manifest, cut_at: Option<Offset>) -> Points {
        let posting = self.posting.lock();
        let epoch = manifest.truncation_epoch;
        let before = epoch.saturating_sub(u64::from(cut_at.is_some()));
        let known = posting.last.log_id == manifest.log_id && posting.last.points.epoch() == before;
        let mut points = if known { posting.last.points } else { Points::unknown(before) };
        if let Some(end) = cut_at {
            points.cut(epoch, end);
        }
        points
    }

    /// Writes the next notice, as `edit` makes it of the last one, if there is one to be written.
    fn post(&self, edit: impl FnOnce(&mut Notice) -> bool) {
        if !self.is_kept {
            return;
        }
        let mut posting = self.posting.lock();
        let Posting { lock: Some(lock), last } = &mut *posting else { return };
        if !edit(last) {
            return;
        }
        last.sequence += 1;
        // Readers elsewhere see the one before for longer; a truncation they find in the manifest.
        drop(lock.write_notice(&last.encode(), last.position()));
    }

    /// Gives the lock back.
    pub(crate) fn let_go(&self) {
        let lock = self.posting.lock().lock.take();
        drop(lock);
    }
}

impl Commit {
    /// Says how far the log has got. Not while the front is locked.
    pub(crate) fn post(&self) {
        self.post_as(NoticeState::Open);
    }

    /// As [`post`](Commit::post), but under load only now and then.
    pub(super) fn post_soon(&self) {
        let board = &self.board;
        if !board.is_kept {
            return;
        }
        let is_called = board.is_late.load(Ordering::Relaxed) == 1;
        // Where every append comes by, the time is asked for seldom. Only who has the writer is
        // here, so nobody counts at the same time.
        let news = board.news.load(Ordering::Relaxed) + 1;
        board.news.store(news, Ordering::Relaxed);
        if is_called && !news.is_multiple_of(SKIPS) {
            return;
        }
        let now = nanos(self.clock.monotonic());
        let posted_at = board.posted_at.load(Ordering::Relaxed);
        let is_due = now.saturating_sub(posted_at) >= nanos(BURST) || now < posted_at;
        if is_due || !self.settings.has_background {
            board.posted_at.store(now, Ordering::Relaxed);
            self.post();
        } else if !is_called && board.is_late.swap(1, Ordering::AcqRel) == 0 {
            self.bell.call_to_post();
        }
    }

    /// Posts what was not, for the background thread.
    pub(crate) fn post_late(&self) {
        // First, so that what comes from now on calls again.
        self.board.is_late.store(0, Ordering::Release);
        self.board.posted_at.store(nanos(self.clock.monotonic()), Ordering::Relaxed);
        self.post();
    }

    pub(super) fn post_as(&self, state: NoticeState) {
        self.board.post(|notice| {
            let front = self.front.lock();
            if state == NoticeState::Open && matches!(front.life, Life::Closed) {
                // What comes late says nothing that the last notice does not.
                return false;
            }
            let marks = &self.marks;
            let (written, durable) = (marks.written(), marks.durable());
            let shown = if self.settings.shows == Mark::Durable { durable } else { written };
            notice.marks = NoticeMarks { end: marks.end().max(written), written, durable, shown };
            notice.points = front.points;
            drop(front);
            // After the marks: of the segments they are in, the manifest of a change that has not
            // been counted knows nothing.
            let now = self.segments.state();
            notice.changes = now.changes;
            notice.log_id = now.manifest.log_id;
            notice.state = state;
            true
        });
    }

    /// Gives the lock of the log back.
    pub(crate) fn let_go_of_lock(&self) {
        self.board.let_go();
    }
}

/// Writes that follow each other faster than that do not all post.
const BURST: Duration = Duration::from_micros(100);

/// Of so many writes that leave posting to the background thread one looks whether it does.
const SKIPS: u64 = 64;

/// How much later the background thread posts what was not.
pub(crate) const LATE_MAX: Duration = Duration::from_millis(1);

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// A number found in a file is counted on from only if there is no end of it.
const SEQUENCE_MAX: u64 = u64::MAX / 2;
